# SPDX-License-Identifier: Apache-2.0
"""OpenStack's Keystone and Glance on loopback, with projects, users and an application credential.

There are two regions of the same Glance: `REGION` leads to it, `FAULTY_REGION` through a `FaultProxy`. Keystone too is
reached through one, by whoever logs in at `OpenStack.faulty_auth_url`. Nova is no part of it: the test kit itself
answers what servers there are (`OpenStack.set_servers`).
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from coppice.factory.ports import free_port
from coppice.settings.clouds import CloudSettings
from coppice.testing.fault_proxy import FaultProxy
from coppice.testing.glance import Glance
from coppice.testing.keystone import (
    FAULTY_REGION,
    PASSWORDS,
    PROJECTS,
    REGION,
    Keystone,
    ask_service,
    login_of,
    token_of,
)
from coppice.testing.server import LoopbackServer, serve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from coppice.testing.server import Conversation

_GLANCE_AUTH = """\
[keystone_authtoken]
www_authenticate_uri = {auth_url}
auth_url = {auth_url}
auth_type = password
username = glance
password = glance-password
project_name = service
user_domain_id = default
project_domain_id = default
region_name = {region}
service_token_roles_required = true
"""


class KeystoneGlance(Glance):
    """A Glance that asks Keystone who asks.

    Args:
        directory: Where its log goes.
        keystone: Whom it asks.
        port: Where it listens.
        web_port: Of loopback, from which it may be told to fetch images.
    """

    PIPELINE = "keystone"

    def __init__(self, directory: Path, keystone: Keystone, *, port: int, web_port: int) -> None:
        super().__init__(directory)
        self.wanted_port = port
        self._keystone = keystone
        self._web_port = web_port

    def forget_all(self) -> None:
        """Let there be no image, past the service: removing them one by one takes as long as a test."""
        with closing(sqlite3.connect(self._scratch / "glance.db", timeout=60)) as database, database:
            for table in ("image_locations", "image_members", "image_properties", "image_tags", "images"):
                database.execute(f"DELETE FROM {table}")  # noqa: S608 - the names stand above
        for path in (self._scratch / "images").iterdir():
            path.unlink(missing_ok=True)

    def execute(self, statement: str, *values: object) -> None:
        """Change the database, past the service."""
        with closing(sqlite3.connect(self._scratch / "glance.db", timeout=60)) as database, database:
            database.execute(statement, values)

    def more_settings(self) -> str:
        """Return where Keystone is."""
        (self._scratch / "glance-image-import.conf").write_text(
            "[image_import_opts]\nimage_import_plugins = []\n[import_filtering_opts]\n"
            f"allowed_schemes = [http, https]\nallowed_hosts = [127.0.0.1]\nallowed_ports = [{self._web_port}]\n",
            encoding="utf-8",
        )
        return _GLANCE_AUTH.format(auth_url=self._keystone.auth_url, region=REGION)


class OpenStack:
    """Both services, as one cloud; use it as a context.

    Args:
        directory: Where logs and ``clouds.yaml`` go.

    Attributes:
        faults: In front of Glance in the region `FAULTY_REGION`.
        keystone_faults: In front of Keystone at `faulty_auth_url`.
        compute: What stands for Nova.
        kept: What tests share that takes long to make.
        web_port: Of loopback, from which Glance fetches images when it is told to.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kept: dict[object, object] = {}
        self._tokens: dict[str, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            glance_port, self.web_port = free_port(), free_port()
            self.faults = stack.enter_context(FaultProxy(glance_port))
            self.compute = stack.enter_context(LoopbackServer())
            self._describe_compute()
            self.set_servers([])
            self.keystone = stack.enter_context(
                Keystone(
                    self.directory,
                    glance_port=glance_port,
                    faulty_port=self.faults.own_port,
                    compute_port=self.compute.port,
                )
            )
            self.keystone_faults = stack.enter_context(FaultProxy(self.keystone.port))
            glance = KeystoneGlance(self.directory, self.keystone, port=glance_port, web_port=self.web_port)
            # Both take seconds to start, and can do so together: Glance asks Keystone when it is asked itself.
            self.glance = stack.enter_context(glance)
            self.keystone.wait()
            self.clouds_file = self._write_clouds()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def faulty_auth_url(self) -> str:
        """Where to log in through `keystone_faults`."""
        return f"{self.keystone_faults.url}/v3"

    def project(self, name: str) -> str:
        """Return the identifier of a project."""
        return str(self.keystone.facts["projects"][name])

    def set_servers(self, images: Sequence[str], *, status: int = 200) -> None:
        """Let Nova have one server made from each of these images, or refuse to say."""

        def answer(talk: Conversation) -> None:
            wanted = parse_qs(urlsplit(talk.handler.path).query).get("image", [])
            servers = [{"id": str(number), "image": {"id": image}} for number, image in enumerate(images)]
            found = [server for server in servers if not wanted or server["image"]["id"] in wanted]  # type: ignore[index]
            body = json.dumps({"servers": found}).encode()
            talk.whole(status, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)

        self.compute.set("/v2.1/servers", answer)

    def token(self, person: str) -> str:
        """Return a token of a person, for requests that a test makes itself; one serves all of them."""
        if person not in self._tokens:
            login = login_of(person, PASSWORDS[person], PROJECTS[person])
            self._tokens[person] = token_of(self.keystone.port, login)
        return self._tokens[person]

    def settings(
        self, name: str = "alice", *, site: str, visibility: str | None = None, **options: object
    ) -> CloudSettings:
        """Return the settings of a target that uses an entry of ``clouds.yaml``; it tries again without waiting."""
        return CloudSettings(
            name="test",
            driver="openstack",
            site=site,
            formats=(),
            visibility=visibility,
            options={"cloud": name, "clouds_file": str(self.clouds_file), "retry_delay": 0.01, **options},
        )

    def forget_all(self) -> None:
        """Let Glance have no image any more, Keystone no fault, and Nova no server: as at the start."""
        self.faults.clear()
        self.keystone_faults.clear()
        self.set_servers([])
        self.glance.forget_all()

    def ask(
        self, person: str, method: str, path: str, body: object = None, *, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """Ask Glance as a person; return the status and what the answer says."""
        headers = {"X-Auth-Token": self.token(person), "Content-Type": content_type}
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        return ask_service(self.glance.port, method, path, content, headers)

    def _describe_compute(self) -> None:
        links = [{"rel": "self", "href": self.compute.url("/v2.1/")}]
        version = {"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1", "links": links}
        for path in ("/v2.1", "/v2.1/"):
            self.compute.set(path, serve(json.dumps({"version": version}).encode()))

    def _write_clouds(self) -> Path:
        auth_url, region = self.keystone.auth_url, REGION
        clouds: dict[str, Any] = {
            name: _cloud(auth_url, region, username=name, password=password, project=PROJECTS[name])
            for name, password in PASSWORDS.items()
        }
        clouds["wrong"] = _cloud(auth_url, region, username="alice", password="wrong", project="alpha")  # noqa: S106
        clouds["faulty"] = _cloud(
            self.faulty_auth_url, FAULTY_REGION, username="alice", password=PASSWORDS["alice"], project="alpha"
        )
        clouds["credential"] = {
            "auth_type": "v3applicationcredential",
            "region_name": region,
            "auth": {"auth_url": auth_url, **self.keystone.facts["credential"]},
        }
        path = self.directory / "clouds.yaml"
        # JSON is YAML.
        path.write_text(json.dumps({"clouds": clouds}, indent=1), encoding="utf-8")
        path.chmod(0o600)
        return path


def _cloud(auth_url: str, region: str, *, username: str, password: str, project: str) -> dict[str, Any]:
    auth = {"auth_url": auth_url, "username": username, "password": password, "project_name": project}
    auth |= {"user_domain_id": "default", "project_domain_id": "default"}
    return {"region_name": region, "auth": auth}
