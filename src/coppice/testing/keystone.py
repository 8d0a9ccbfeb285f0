# SPDX-License-Identifier: Apache-2.0
"""OpenStack's identity service, Keystone, on loopback: with projects, users, an application credential and a catalogue.

It is of the same virtual environment as Glance (`coppice.testing.glance`); its database is filled once and kept.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coppice.factory.ports import free_port
from coppice.testing.glance import CACHE, DATABASE, LOCK, SERVER, application_of, glance_programs
from coppice.testing.publishing.server import PublishingServer

REGION = "one"
FAULTY_REGION = "faulty"
_GLANCE_URL, _FAULTY_URL, _COMPUTE_URL = "http://glance.invalid", "http://faulty.invalid", "http://compute.invalid"
_KEYSTONE_URL = "http://keystone.invalid"
_TEMPLATE = CACHE / "keystone"
_OK, _CREATED = 200, 201
_ADMIN_PASSWORD = "admin-password"  # noqa: S105 - of a Keystone that lives as long as a test
_KEYSTONE = """\
[DEFAULT]
use_stderr = true
[token]
provider = fernet
[fernet_tokens]
key_repository = {directory}/fernet-keys
[fernet_receipts]
key_repository = {directory}/fernet-keys
[credential]
key_repository = {directory}/credential-keys
[identity]
password_hash_rounds = 4
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who may log in.

    Attributes:
        name: Of the user; the name in ``clouds.yaml`` too.
        project: Whose the user is.
        role: What the user may do there.
        also: Further projects that the user is a member of.
    """

    name: str
    project: str
    role: str = "member"
    also: tuple[str, ...] = ()

    @property
    def password(self) -> str:
        """What the user logs in with."""
        return f"{self.name}-password"


PEOPLE = (
    Person(name="alice", project="alpha", also=("gamma",)),
    Person(name="bob", project="beta"),
    Person(name="rita", project="alpha", role="reader"),
    Person(name="gus", project="gamma"),
    Person(name="glance", project="service", role="service"),
)


class Keystone(PublishingServer):
    """The identity service, with everybody in it; use it as a context.

    Args:
        directory: Where its log goes.
        glance_port: Where images are, in the region `REGION`.
        faulty_port: Where they are in the region `FAULTY_REGION`.
        compute_port: Where servers are.
    """

    def __init__(self, directory: Path, *, glance_port: int, faulty_port: int, compute_port: int) -> None:
        super().__init__(directory)
        self._ports = {_GLANCE_URL: glance_port, _FAULTY_URL: faulty_port, _COMPUTE_URL: compute_port}

    def start(self) -> None:
        """Start the service from a database that was filled once; `wait` returns when it answers."""
        template = _template()
        self._scratch = Path(tempfile.mkdtemp(prefix="coppice-keystone-"))
        shutil.copytree(template, self._scratch, dirs_exist_ok=True)
        self.port = free_port()
        with closing(sqlite3.connect(self._scratch / "keystone.db")) as database, database:
            for placeholder, port in {**self._ports, _KEYSTONE_URL: self.port}.items():
                database.execute(
                    "UPDATE endpoint SET url = replace(url, ?, ?)", (placeholder, f"http://127.0.0.1:{port}")
                )
        self.facts: dict[str, Any] = json.loads((self._scratch / "facts.json").read_text(encoding="utf-8"))
        _serve(self, self._scratch, self.port, self.directory / "keystone.log")

    def wait(self) -> None:
        """Return when it answers."""
        _wait_for(self, self.port, self.directory / "keystone.log")

    def stop(self) -> None:
        """End it, and remove what it kept."""
        super().stop()
        scratch = getattr(self, "_scratch", None)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)

    @property
    def auth_url(self) -> str:
        """Where to log in."""
        return f"http://127.0.0.1:{self.port}/v3"


PASSWORDS = {"admin": _ADMIN_PASSWORD, **{person.name: person.password for person in PEOPLE}}
PROJECTS = {"admin": "admin", **{person.name: person.project for person in PEOPLE}}


def _serve(server: PublishingServer, directory: Path, port: int, log: Path) -> None:
    """Start Keystone with what is in ``directory``."""
    programs, _ = glance_programs()
    database = DATABASE.format(path=directory / "keystone.db")
    text = _KEYSTONE.format(directory=directory) + database
    (directory / "keystone.conf").write_text(text, encoding="utf-8")
    (directory / "keystone_application.py").write_text(application_of("keystone"), encoding="utf-8")
    argv = ["setpriv", "--pdeathsig", "KILL", str(programs / "uwsgi"), *SERVER]
    argv += ["--http-socket", f"127.0.0.1:{port}", "--module", "keystone_application:application"]
    environment = {"PYTHONPATH": str(directory), "OS_KEYSTONE_CONFIG_DIR": str(directory)}
    server.run(argv, log=log, environment=environment)


def _wait_for(server: PublishingServer, port: int, log: Path) -> None:
    def answers() -> bool:
        try:
            return ask_service(port, "GET", "/v3")[0] == _OK
        except OSError:
            return False

    server.wait_until(answers, log=log)


def _template() -> Path:
    """Return a folder with a database that knows everybody, its keys and facts; made when it is missing."""
    programs, _ = glance_programs()
    ready = _TEMPLATE / "ready"
    wanted = hashlib.sha256(LOCK.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    with (CACHE / "keystone-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text(encoding="ascii") != wanted:
            shutil.rmtree(_TEMPLATE, ignore_errors=True)
            _TEMPLATE.mkdir(parents=True)
            _fill_template(programs)
            ready.write_text(wanted, encoding="ascii")
    return _TEMPLATE


def _fill_template(programs: Path) -> None:
    for name in ("fernet-keys", "credential-keys"):
        (_TEMPLATE / name).mkdir(mode=0o700)
        for number in "01":
            (_TEMPLATE / name / number).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
    config = _TEMPLATE / "keystone.conf"
    database = DATABASE.format(path=_TEMPLATE / "keystone.db")
    config.write_text(_KEYSTONE.format(directory=_TEMPLATE) + database, encoding="utf-8")
    manage = [str(programs / "keystone-manage"), "--config-file", str(config)]
    bootstrap = ["bootstrap", "--bootstrap-password", _ADMIN_PASSWORD]
    for step in (["db_sync"], bootstrap):
        done = subprocess.run([*manage, *step], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            message = f"the database of Keystone cannot be made: {done.stderr[-2000:]}"
            raise RuntimeError(message)

    class Filling(PublishingServer):
        def start(self) -> None:
            self.port, log = free_port(), _TEMPLATE / "keystone.log"
            _serve(self, _TEMPLATE, self.port, log)
            _wait_for(self, self.port, log)

    with Filling(_TEMPLATE) as server:
        facts = _Filler(server.port).fill()
    (_TEMPLATE / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


class _Filler:
    """Tells an empty Keystone who there is."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._token = token_of(port, login_of("admin", _ADMIN_PASSWORD, "admin"))

    def fill(self) -> dict[str, Any]:
        """Make projects, users, services and endpoints; return what tests want to know of them."""
        roles = {role["name"]: role["id"] for role in self._said("GET", "/v3/roles")["roles"]}
        names = sorted({name for person in PEOPLE for name in (person.project, *person.also)})
        projects = {name: self._make("project", name=name, domain_id="default") for name in names}
        for person in PEOPLE:
            user = self._make("user", name=person.name, password=person.password, domain_id="default")
            for name in (person.project, *person.also):
                path = f"/v3/projects/{projects[name]}/users/{user}/roles/{roles[person.role]}"
                self._said("PUT", path)
            if person.name == "alice":
                credential = self._application_credential(person, user)
        for region in (REGION, FAULTY_REGION):
            self._said("PUT", f"/v3/regions/{region}", region={})
        for kind, urls in {
            "identity": {REGION: f"{_KEYSTONE_URL}/v3"},
            "image": {REGION: _GLANCE_URL, FAULTY_REGION: _FAULTY_URL},
            "compute": dict.fromkeys((REGION, FAULTY_REGION), f"{_COMPUTE_URL}/v2.1"),
        }.items():
            service = self._make("service", type=kind, name=kind)
            for region, url in urls.items():
                for interface in ("public", "internal", "admin"):
                    self._make("endpoint", service_id=service, interface=interface, url=url, region_id=region)
        return {"projects": projects, "credential": credential}

    def _application_credential(self, person: Person, user: str) -> dict[str, str]:
        token = token_of(self._port, login_of(person.name, person.password, person.project))
        body = json.dumps({"application_credential": {"name": "coppice"}}).encode()
        headers = {"X-Auth-Token": token, "Content-Type": "application/json"}
        status, said = ask_service(self._port, "POST", f"/v3/users/{user}/application_credentials", body, headers)
        assert status == _CREATED, said
        made = said["application_credential"]
        return {"application_credential_id": made["id"], "application_credential_secret": made["secret"]}

    def _make(self, kind: str, **fields: object) -> str:
        return str(self._said("POST", f"/v3/{kind}s", **{kind: fields})[kind]["id"])

    def _said(self, method: str, path: str, **body: object) -> Any:
        content = json.dumps(body).encode() if body else None
        headers = {"X-Auth-Token": self._token, "Content-Type": "application/json"}
        status, said = ask_service(self._port, method, path, content, headers)
        assert status < 300, (method, path, status, said)  # noqa: PLR2004 - all that went well
        return said


def login_of(name: str, password: str, project: str) -> dict[str, Any]:
    """Return how a user logs in to a project."""
    domain = {"id": "default"}
    user = {"name": name, "password": password, "domain": domain}
    identity = {"methods": ["password"], "password": {"user": user}}
    return {"auth": {"identity": identity, "scope": {"project": {"name": project, "domain": domain}}}}


def token_of(port: int, login: dict[str, Any]) -> str:
    """Log in; return the token."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v3/auth/tokens", json.dumps(login).encode(), headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == _CREATED, said
        return str(answer.headers["X-Subject-Token"])


def ask_service(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Ask a service; return the status of its answer, and what it says: a document, or text."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        said = answer.read().decode("utf-8", errors="replace")
        try:
            return answer.status, json.loads(said)
        except ValueError:
            return answer.status, said
