# SPDX-License-Identifier: Apache-2.0
"""OpenStack's image service, Glance, on loopback: it says itself which images it takes, and as what.

Glance is no dependency of the project: it gets a virtual environment of its own below the clone's ``.cache``, made with
the packages pinned in ``requirements/glance.txt`` when it is first needed, and kept. Who asks is told in headers, which
are what the filter that asks Keystone makes of a token (`Glance.PIPELINE`).
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.factory.ports import free_port
from coppice.model.image import DiskFormat
from coppice.testing.publishing.server import PublishingServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

_CLONE = Path(__file__).parents[3]
LOCK = _CLONE / "requirements" / "glance.txt"
CACHE = _CLONE / ".cache" / "glance"
_HTTP_CREATED, _HTTP_NO_CONTENT, _HTTP_OK, _HTTP_NOT_FOUND = 201, 204, 200, 404
_PIPELINE = """
[composite:glance-api-headers]
paste.composite_factory = glance.api:root_app_factory
/: api
/healthcheck: healthcheck
"""
# SQLite is told to wait for its lock. What is stored is a test's: it need not outlive a loss of power.
DATABASE = """\
[database]
connection = sqlite:///{path}?timeout=60
sqlite_synchronous = false
"""
_CONFIG = """\
[DEFAULT]
use_stderr = true
worker_self_reference_url = http://127.0.0.1:{port}
enabled_backends = local:file
enabled_import_methods = [glance-direct,web-download]
[glance_store]
default_backend = local
[local]
filesystem_store_datadir = {directory}/images
[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks
[oslo_concurrency]
lock_path = {directory}/locks
[paste_deploy]
config_file = {directory}/glance-api-paste.ini
flavor = {flavor}
"""
# oslo.db begins each transaction of SQLite without a lock; two that read and then write fail at once with "database is
# locked", which is not what a Glance in earnest does. One that takes its lock when it begins waits its turn.
_APPLICATION = """\
from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _lock_at_once(conn, cursor, statement, parameters, context, executemany):
    if statement == "BEGIN" and conn.dialect.name == "sqlite":
        statement = "BEGIN IMMEDIATE"
    return statement, parameters


from {name}.wsgi.api import application
"""
SERVER = (
    *("--master", "--processes", "1", "--threads", "4", "--enable-threads", "--lazy-apps", "--no-orphans"),
    # One piece of a body that is sent in pieces; the default of 1 MB is less than clients send.
    *("--chunked-input-limit", "268435456", "--chunked-input-timeout", "60"),
    # It closes the connection after each reply, and has to say so.
    *("--add-header", "Connection: close"),
    *("--die-on-term", "--need-app", "--buffer-size", "65535", "--disable-logging"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What Glance made of a file that it was given.

    Attributes:
        http_status: Of the upload: 204 it was taken, 415 it is not what it was said to be; 0: the connection was cut.
        status: Of the image after it: ``active``, or ``queued`` when it was refused.
        virtual_size_bytes: Length of the disk, as Glance reads it; None: it does not.
        sha512: Of the bytes that Glance holds, in hexadecimal.
        said: The body of its reply, where it refused.
    """

    http_status: int
    status: str
    virtual_size_bytes: int | None = None
    sha512: str | None = None
    said: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether the image may be used."""
        return self.http_status == _HTTP_NO_CONTENT and self.status == "active"


class Glance(PublishingServer):
    """A Glance with a store of its own; use it as a context.

    Attributes:
        PIPELINE: What stands in front of the service: nothing but the reader of headers.
        wanted_port: Where it is to listen; 0: at any free port.
    """

    PIPELINE = "headers"
    wanted_port = 0

    def start(self) -> None:
        """Write the configuration, start the service, and return when it answers."""
        programs, template = glance_programs()
        # Paths of tests are long; the service's own are told back in its replies and logs.
        self._scratch = Path(tempfile.mkdtemp(prefix="coppice-glance-"))
        for name in ("images", "staging", "tasks", "locks"):
            (self._scratch / name).mkdir()
        shutil.copyfile(template, self._scratch / "glance.db")
        self.port = self.wanted_port or free_port()
        self._configure(programs)
        log = self.directory / "glance.log"
        # `setpriv`: whatever ends the tests, the service ends with them.
        argv = ["setpriv", "--pdeathsig", "KILL", str(programs / "uwsgi"), *SERVER]
        argv += ["--http-socket", f"127.0.0.1:{self.port}", "--module", "glance_application:application"]
        environment = {"PYTHONPATH": str(self._scratch), "OS_GLANCE_CONFIG_DIR": str(self._scratch)}
        self.run(argv, log=log, environment=environment)
        self.wait_until(self._answers, log=log)

    def stop(self) -> None:
        """End it, and remove what it kept."""
        super().stop()
        scratch = getattr(self, "_scratch", None)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)

    @property
    def endpoint(self) -> str:
        """Return the address of the service."""
        return f"http://127.0.0.1:{self.port}"

    def headers(self, *, project: str = "appliances", roles: str = "member,reader") -> dict[str, str]:
        """Return the headers that say who asks."""
        return {
            "X-Identity-Status": "Confirmed",
            "X-User-Id": f"user-of-{project}",
            "X-Project-Id": project,
            "X-Roles": roles,
        }

    def offer(self, path: Path, disk_format: DiskFormat | str, *, container_format: str = "bare") -> Offered:
        """Give Glance a file as an image of a format; return what it made of it. The image is removed again.

        Args:
            path: The file.
            disk_format: What it is said to be; `DiskFormat.OVA` is a vmdk in a container, as Glance has it.
            container_format: Glance looks into what is ``bare`` only.
        """
        if disk_format == DiskFormat.OVA:
            disk_format, container_format = DiskFormat.VMDK, "ova"
        identifier = self.create(name=path.name, disk_format=str(disk_format), container_format=container_format)
        try:
            code, said = self.upload(identifier, path)
            image = self.image(identifier)
        finally:
            self.remove(identifier)
        taken = image["status"] == "active"
        return Offered(
            http_status=code,
            status=str(image["status"]),
            virtual_size_bytes=image.get("virtual_size") if taken else None,
            sha512=image.get("os_hash_value") if taken else None,
            said=said,
        )

    def create(self, **fields: object) -> str:
        """Make an image without bytes; return its identifier.

        Raises:
            RuntimeError: Glance refused.
        """
        content = json.dumps(fields).encode()
        code, said = self.request("POST", "/v2/images", content, {"Content-Type": "application/json"})
        if code != _HTTP_CREATED:
            message = f"Glance answered {code} to a new image {fields}: {said}"
            raise RuntimeError(message)
        return str(json.loads(said)["id"])

    def upload(self, identifier: str, path: Path) -> tuple[int, str]:
        """Send an image's bytes as a stream; return the status of the reply and its text."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        with path.open("rb") as stream:
            return self.request("PUT", f"/v2/images/{identifier}/file", stream, headers)

    def image(self, identifier: str) -> dict[str, Any]:
        """Return what Glance says of an image.

        Raises:
            RuntimeError: It knows none.
        """
        code, said = self.request("GET", f"/v2/images/{identifier}")
        if code != _HTTP_OK:
            message = f"Glance answered {code} about the image {identifier}: {said}"
            raise RuntimeError(message)
        found: dict[str, Any] = json.loads(said)
        return found

    def remove(self, identifier: str) -> None:
        """Remove an image."""
        code, said = self.request("DELETE", f"/v2/images/{identifier}")
        if code not in {_HTTP_NO_CONTENT, _HTTP_NOT_FOUND}:
            message = f"Glance answered {code} to the removal of {identifier}: {said}"
            raise RuntimeError(message)

    def request(
        self, method: str, path: str, body: bytes | BinaryIO | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Ask Glance; return the status of its reply and its text.

        A reply may come while the body is still being sent: what is wrong is seen early. Status 0: there was none.
        """
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)) as connection:
            try:
                connection.request(method, path, body=body, headers={**self.headers(), **(headers or {})})
            except (BrokenPipeError, ConnectionResetError):
                with suppress(OSError, http.client.HTTPException):
                    return _read(connection)
                return 0, ""
            return _read(connection)

    def _configure(self, programs: Path) -> None:
        directory = self._scratch
        text = _CONFIG.format(directory=directory, port=self.port, flavor=self.PIPELINE)
        database = DATABASE.format(path=directory / "glance.db")
        (directory / "glance-api.conf").write_text(text + database + self.more_settings(), encoding="utf-8")
        shipped = programs.parent / "etc" / "glance" / "glance-api-paste.ini"
        pipelines = shipped.read_text(encoding="utf-8").replace(
            "/etc/glance/healthcheck_disable", str(directory / "healthcheck_disable")
        )
        # The factory of Glance's pipelines picks one by the name of the flavour.
        lines = [
            f"{line}\n{Glance.PIPELINE} = cors http_proxy_to_wsgi versionnegotiation osprofiler context rootapp"
            if line.startswith("keystone = ")
            else line
            for line in pipelines.splitlines()
        ]
        (directory / "glance-api-paste.ini").write_text("\n".join(lines) + _PIPELINE, encoding="utf-8")
        (directory / "glance_application.py").write_text(application_of("glance"), encoding="utf-8")

    def more_settings(self) -> str:
        """Return what the service's configuration has beside; a later section of a name adds to an earlier one."""
        return ""

    def _answers(self) -> bool:
        try:
            return self.request("GET", "/healthcheck")[0] == _HTTP_OK
        except OSError:
            return False


def application_of(name: str) -> str:
    """Return the module that the server of programs is told to run, for a service of OpenStack."""
    return _APPLICATION.replace("{name}", name)


def _read(connection: http.client.HTTPConnection) -> tuple[int, str]:
    reply = connection.getresponse()
    return reply.status, reply.read().decode("utf-8", errors="replace")


def glance_programs() -> tuple[Path, Path]:
    """Return the folder of Glance's programs, and an empty database; both are made when they are missing."""
    programs, ready, template = CACHE / "venv" / "bin", CACHE / "ready", CACHE / "empty.db"
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # Two test runs at once: the second waits, and finds it done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text(encoding="ascii") != wanted:
            ready.unlink(missing_ok=True)
            template.unlink(missing_ok=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(CACHE / "venv")], check=True)
            pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True)
            _make_database(programs, template)
            ready.write_text(wanted, encoding="ascii")
    return programs, template


def _make_database(programs: Path, template: Path) -> None:
    """Write the schema once: that takes longer than the start of the service."""
    config = CACHE / "empty.conf"
    config.write_text(DATABASE.format(path=template), encoding="utf-8")
    argv = [str(programs / "glance-manage"), "--config-file", str(config), "db", "sync"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"the database of Glance cannot be made: {done.stderr[-2000:]}"
        raise RuntimeError(message)
