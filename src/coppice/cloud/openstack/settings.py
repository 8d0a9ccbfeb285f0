# SPDX-License-Identifier: Apache-2.0
"""What a target of the driver ``openstack`` may have in its settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice.cloud.openstack.words import is_site_property
from coppice.errors import SettingsError
from coppice.settings.driver_options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.settings.clouds import CloudSettings
    from coppice.settings.driver_options import Secret

OPTIONS = frozenset(
    {
        *("cloud", "clouds_file", "region", "interface", "ca_file"),
        *("auth_url", "allow_plain_http", "username", "password_file", "password_env", "project_name", "project_id"),
        *("user_domain_name", "project_domain_name"),
        *("application_credential_id", "application_credential_secret_file", "application_credential_secret_env"),
        *("transport", "web_directory", "web_url"),
        *("accept_members", "protected", "check_servers"),
        *("attempts", "retry_delay", "timeout", "upload_timeout", "import_timeout", "stuck_after"),
    }
)
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_MAX_ATTEMPTS = 20


class Transport(StrEnum):
    """How the bytes of an image get to the cloud."""

    UPLOAD = "upload"
    """In the request to Glance itself."""
    GLANCE_DIRECT = "glance-direct"
    """To Glance's staging area, and imported from there."""
    WEB_DOWNLOAD = "web-download"
    """Glance fetches them from a web server of the site."""


class ServerCheck(StrEnum):
    """Whose servers are looked at before an image is removed."""

    NONE = "none"
    """Nobody's: Glance refuses what its store cannot do without."""
    PROJECT = "project"
    """Those of the credentials' own project."""
    ALL = "all"
    """Everybody's, for which the credentials need an administrator's rights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who asks, where it is not a cloud of ``clouds.yaml``.

    Attributes:
        auth_url: Keystone.
        username: With ``password``.
        password: Where it lies.
        application_credential_id: With ``application_credential_secret``.
        application_credential_secret: Where it lies.
        project_name: Of a user; an application credential is bound to one.
        project_id: The same.
        user_domain_name: Of the user.
        project_domain_name: Of the project.
    """

    auth_url: str
    username: str | None = None
    password: Secret | None = None
    application_credential_id: str | None = None
    application_credential_secret: Secret | None = None
    project_name: str | None = None
    project_id: str | None = None
    user_domain_name: str = "Default"
    project_domain_name: str = "Default"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStackSettings:
    """One region of one cloud, as one project of it.

    Attributes:
        name: Of the target.
        cloud: Its name in ``clouds.yaml``; None: `login` says who asks.
        login: None: `cloud` says who asks.
        clouds_file: The ``clouds.yaml``; None: where openstacksdk looks for it.
        region: None: the one of ``clouds.yaml``, or the only one.
        interface: Which of the endpoints: ``public``, ``internal`` or ``admin``; None: as ``clouds.yaml`` has it.
        ca_file: Authorities of the cloud's certificates; None: the machine's.
        transport: How bytes get there.
        web_directory: Where a web server of the site takes files from (web-download).
        web_url: What it serves that folder as.
        accept_members: Accept an image on behalf of each project that it is shared with.
        protected: Protect images against removal by hand.
        check_servers: Whose servers are looked at before an image is removed.
        attempts: How often something is tried that may be tried again.
        retry_delay: Seconds before the second attempt; doubled each time.
        timeout: Seconds that the cloud has to answer.
        upload_timeout: Seconds that it has to answer when it got the last byte of an image.
        import_timeout: Seconds that Glance has to import an image.
        stuck_after: Seconds after which an unfinished image is nobody's work any more.
        visibility: How far images are seen whose presentation does not say; None: private, or shared with members.
    """

    name: str
    cloud: str | None = None
    login: Login | None = None
    clouds_file: Path | None = None
    region: str | None = None
    interface: str | None = None
    ca_file: Path | None = None
    transport: Transport = Transport.UPLOAD
    web_directory: Path | None = None
    web_url: str | None = None
    accept_members: bool = False
    protected: bool = False
    check_servers: ServerCheck = ServerCheck.NONE
    attempts: int = 4
    retry_delay: float = 1.0
    timeout: float = 60.0
    upload_timeout: float = 600.0
    import_timeout: float = 3600.0
    stuck_after: float = 6 * 3600.0
    visibility: str | None = None


def read_settings(settings: CloudSettings) -> OpenStackSettings:
    """Read what a target's settings say.

    Raises:
        SettingsError: An option is missing or wrong, or options contradict each other.
    """
    where = f"clouds.{settings.name}"
    try:
        found = _read(settings)
    except SettingsError as problem:
        raise SettingsError(f"{where}: {problem.message}", resolution=problem.resolution) from problem
    for table in (settings.properties, *(vo.properties for vo in settings.vos.values())):
        _check_properties(where, table)
    for image in settings.images.values():
        _check_properties(where, image.properties)
    return found


def _read(settings: CloudSettings) -> OpenStackSettings:
    options = Options(settings.options, of="the driver openstack")
    cloud, login = options.optional_text("cloud"), _login(options)
    if (cloud is None) == (login is None):
        raise SettingsError(
            "give either `cloud` (a name of clouds.yaml) or `auth_url` with the credentials",
            resolution='Write for example: cloud = "site" and clouds_file = "/etc/coppice/clouds.yaml"',
        )
    clouds_file = options.optional_path("clouds_file")
    if clouds_file is not None and cloud is None:
        raise SettingsError("`clouds_file` has no meaning without `cloud`")
    transport = Transport(options.choice("transport", tuple(Transport)))
    directory, url = options.optional_path("web_directory"), _web_url(options.optional_text("web_url"))
    if (transport is Transport.WEB_DOWNLOAD) != (directory is not None) or (directory is None) != (url is None):
        raise SettingsError(
            "the transport web-download needs `web_directory` and `web_url`, and no other takes them",
            resolution="Name a folder, and the https address under which a web server of the site serves it.",
        )
    return OpenStackSettings(
        name=settings.name,
        cloud=cloud,
        login=login,
        clouds_file=clouds_file,
        region=options.optional_text("region"),
        interface=_interface(options),
        ca_file=options.optional_path("ca_file"),
        transport=transport,
        web_directory=directory,
        web_url=url,
        accept_members=options.switch("accept_members", default=False),
        protected=options.switch("protected", default=False),
        check_servers=ServerCheck(options.choice("check_servers", tuple(ServerCheck))),
        attempts=_attempts(settings.options.get("attempts", 4)),
        retry_delay=options.seconds("retry_delay", 1.0),
        timeout=options.seconds("timeout", 60.0),
        upload_timeout=options.seconds("upload_timeout", 600.0),
        import_timeout=options.seconds("import_timeout", 3600.0),
        stuck_after=options.seconds("stuck_after", 6 * 3600.0),
        visibility=settings.visibility,
    )


def _login(options: Options) -> Login | None:
    url, plain = options.optional_text("auth_url"), options.switch("allow_plain_http", default=False)
    if url is not None:
        _check_auth_url(url, plain=plain)
    user, password = options.optional_text("username"), options.secret("password")
    credential, secret = (
        options.optional_text("application_credential_id"),
        options.secret("application_credential_secret"),
    )
    project, project_id = options.optional_text("project_name"), options.optional_text("project_id")
    domains = (options.optional_text("user_domain_name"), options.optional_text("project_domain_name"))
    given = [each for each in (user, password, credential, secret, project, project_id, *domains) if each is not None]
    if url is None:
        if given:
            raise SettingsError("credentials are given, and no `auth_url`")
        return None
    if (user is None) != (password is None) or (credential is None) != (secret is None) or (user and credential):
        raise SettingsError(
            "give `username` with `password_file` or `password_env`, or `application_credential_id` with "
            "`application_credential_secret_file` or `application_credential_secret_env`"
        )
    if user is None and credential is None:
        raise SettingsError("`auth_url` is given, and no credentials")
    if user is not None and (project is None) == (project_id is None):
        raise SettingsError("give `project_name` or `project_id` beside `username`")
    return Login(
        auth_url=url,
        username=user,
        password=password,
        application_credential_id=credential,
        application_credential_secret=secret,
        project_name=project,
        project_id=project_id,
        user_domain_name=domains[0] or "Default",
        project_domain_name=domains[1] or "Default",
    )


def _check_auth_url(url: str, *, plain: bool) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in {"http", "https"} or parts.username is not None or parts.query:
        raise SettingsError(
            "the option `auth_url` is not the address of a Keystone",
            resolution='Write for example: auth_url = "https://keystone.example.org/v3". No password belongs in it.',
        )
    if parts.scheme == "http" and not plain and host not in _LOOPBACK:
        raise SettingsError(
            f"the option `auth_url`: the password or secret would go to {host} in the clear",
            resolution="Write https://; where the network is trusted, set `allow_plain_http = true`.",
        )


def _interface(options: Options) -> str | None:
    found = options.optional_text("interface")
    if found not in {None, "public", "internal", "admin"}:
        raise SettingsError("the option `interface` must be one of public, internal, admin")
    return found


def _web_url(text: str | None) -> str | None:
    if text is None:
        return None
    parts = urlsplit(text)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not is_safe or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise SettingsError(
            "the option `web_url` must be an https address without user, query and fragment",
            resolution="Glance's answer is compared with what was served, but nobody else is to read it on its way.",
        )
    return text if text.endswith("/") else f"{text}/"


def _attempts(value: object) -> int:
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,3}", value) else value
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= _MAX_ATTEMPTS:
        raise SettingsError(f"the option `attempts` must be a number from 1 to {_MAX_ATTEMPTS}")
    return number


def _check_properties(where: str, properties: Mapping[str, str]) -> None:
    for key in properties:
        if not is_site_property(key):
            raise SettingsError(
                f"{where}: {key!r} is no property that a site may set",
                resolution="Remove it. Names that begin with coppice_ or os_glance_, and what Glance itself says of an "
                "image (owner, visibility, status …), are not the settings' to choose.",
            )
