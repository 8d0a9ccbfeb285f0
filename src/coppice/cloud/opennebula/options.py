# SPDX-License-Identifier: Apache-2.0
"""What the settings say of one OpenNebula."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from coppice.cloud.model import Visibility
from coppice.cloud.opennebula.document import NAME
from coppice.cloud.opennebula.pieces import check_name, read_pieces
from coppice.errors import CredentialError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.cloud.opennebula.document import Attributes
    from coppice.settings.clouds import CloudSettings
    from coppice.settings.driver_options import Options, Secret

OPTIONS = frozenset(
    {
        "endpoint",
        "secret_file",
        "secret_env",
        "authorities",
        "allow_plain_http",
        "timeout",
        "image_timeout",
        "datastores",
        "group",
        "networks",
        "template_file",
        "uefi_firmware",
        "transport",
    }
)
CALL_SECONDS = 120.0
"""``one.image.allocate`` has the front-end look at the image, over HTTP too, before it answers."""
IMAGE_SECONDS = 3600.0
CONNECT_SECONDS = 10.0
_LOOPBACK_NAMES = frozenset({"localhost", "localhost."})


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEndSettings:
    """How a front-end is spoken to.

    Attributes:
        endpoint: Address of its XML-RPC.
        secret: Where ``name:password`` lies.
        authorities: PEM file, or directory, of authorities beside the machine's that vouch for it.
        connect_seconds: For a connection.
        call_seconds: For one call.
        image_seconds: For an image to be copied into a datastore.
        poll_seconds: Between two looks at it, at first; later twice as long, up to ten times.
        retry_seconds: Before a call that can be repeated is; then twice as long.
    """

    endpoint: str
    secret: Secret
    authorities: Path | None = None
    connect_seconds: float = CONNECT_SECONDS
    call_seconds: float = CALL_SECONDS
    image_seconds: float = IMAGE_SECONDS
    poll_seconds: float = 0.5
    retry_seconds: float = 0.5

    def session(self) -> str:
        """Return ``name:password``.

        Raises:
            CredentialError: It cannot be read, or is no such pair.
        """
        session = self.secret.read()
        if not session.partition(":")[0] or not session.partition(":")[2]:
            raise CredentialError(
                "the secret of OpenNebula is not of the form name:password",
                resolution="Write it as the file one_auth has it: the user's name, a colon, the password.",
            )
        return session


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Where images lie, for whom, and what their machines are like.

    Attributes:
        datastores: Names or numbers; the first is the one that machines start from.
        group: Whose members may use what has no other audience; None: nobody's.
        visibility: Of what has no other.
        networks: Virtual networks that a machine gets an interface in, in this order: a name of ``oneadmin``'s, an
            owner's with ``owner/name``, or a number.
        pieces: What the administrator adds to VM templates, or has otherwise in them.
        uefi_firmware: What ``OS/FIRMWARE`` is for an image that starts by UEFI.
    """

    datastores: tuple[str, ...] = ("default",)
    group: str | None = None
    visibility: Visibility | None = None
    networks: tuple[str, ...] = ()
    pieces: Attributes = field(default=())
    uefi_firmware: str = "UEFI"


def read_front_end(options: Options, where: str) -> FrontEndSettings:
    """Return how the front-end is spoken to.

    Raises:
        SettingsError: Something is missing, or the password would go over the network in the clear.
    """
    endpoint = options.text("endpoint")
    plain = options.switch("allow_plain_http", default=False)
    _check_endpoint(endpoint, plain=plain, where=where)
    secret = options.secret("secret")
    if secret is None:
        raise SettingsError(
            f"{where}: the option `secret_file` is missing",
            resolution="Name a file that only Coppice can read, with `name:password` in its first line, as one_auth "
            "has it; or name a variable with `secret_env`.",
        )
    return FrontEndSettings(
        endpoint=endpoint,
        secret=secret,
        authorities=options.optional_path("authorities"),
        call_seconds=options.seconds("timeout", CALL_SECONDS),
        image_seconds=options.seconds("image_timeout", IMAGE_SECONDS),
    )


def read_placing(settings: CloudSettings, options: Options) -> Placing:
    """Return where images lie, and what is made of them.

    Raises:
        SettingsError: An option is wrong, an attribute is not the site's to set, or a VO has several groups.
    """
    where = f"clouds.{settings.name}"
    _check_properties(settings)
    for vo, said in settings.vos.items():
        if len(said.members) > 1:
            raise SettingsError(
                f"{where}.vos.{vo}.members names {len(said.members)} groups: an object of OpenNebula has one",
                resolution="Name one group; or make one that all of them are secondary members of.",
            )
    file = options.optional_path("template_file")
    return Placing(
        datastores=_names(settings.options, "datastores", where) or ("default",),
        group=options.optional_text("group"),
        visibility=None if settings.visibility is None else Visibility(settings.visibility),
        networks=_networks(settings.options, where),
        pieces=() if file is None else read_pieces(file),
        uefi_firmware=options.text("uefi_firmware", "UEFI"),
    )


def _check_endpoint(endpoint: str, *, plain: bool, where: str) -> None:
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if host is None or parts.scheme not in {"http", "https"} or parts.username is not None or parts.query:
        raise SettingsError(
            f"{where}.endpoint is not the address of an XML-RPC interface",
            resolution='Write for example: endpoint = "https://one.example.org:2633/RPC2". No password belongs in it.',
        )
    if parts.scheme == "http" and not plain and not _is_loopback(host):
        raise SettingsError(
            f"{where}.endpoint: the password would go to {host} in the clear",
            resolution="Put a TLS proxy before oned and write https://, or run Coppice on the front-end and write "
            "http://localhost:2633/RPC2; where the network is trusted, set `allow_plain_http = true`.",
        )


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_properties(settings: CloudSettings) -> None:
    tables: list[tuple[str, Mapping[str, str]]] = [("properties", settings.properties)]
    tables += [(f"vos.{name}.properties", vo.properties) for name, vo in settings.vos.items()]
    tables += [(f"images.{name}.properties", image.properties) for name, image in settings.images.items()]
    for table, properties in tables:
        for name in properties:
            if NAME.fullmatch(name) is None:
                raise SettingsError(
                    f"clouds.{settings.name}.{table}.{name}: an attribute of OpenNebula is written in capitals, digits "
                    "and underscores",
                    resolution=f"Write it as {name.upper().replace('-', '_')}, for example.",
                )
            check_name(name, f"clouds.{settings.name}.{table}.{name}")


def _networks(options: Mapping[str, object], where: str) -> tuple[str, ...]:
    found = _names(options, "networks", where)
    for each in found:
        if not all(each.split("/")) or each.count("/") > 1:
            raise SettingsError(
                f"{where}.networks: {each!r} is no network",
                resolution="Write its name, where it is oneadmin's; `owner/name`, where it is another user's; or its "
                "number.",
            )
    return found


def _names(options: Mapping[str, object], name: str, where: str) -> tuple[str, ...]:
    value = options.get(name, ())
    if isinstance(value, str | int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list | tuple):
        _not_names(where, name)
    names = []
    for each in value:
        text = str(each) if isinstance(each, str | int) and not isinstance(each, bool) else ""
        if not text.strip() or not text.isprintable() or text in names:
            _not_names(where, name)
        names.append(text)
    return tuple(names)


def _not_names(where: str, name: str) -> NoReturn:
    raise SettingsError(
        f"{where}.{name} must be a list of different names", resolution=f'Write for example: {name} = ["default"]'
    )
