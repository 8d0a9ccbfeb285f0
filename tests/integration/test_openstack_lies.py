# SPDX-License-Identifier: Apache-2.0
"""A cloud, or what stands before it, that answers as no Keystone and no Glance would."""

from __future__ import annotations

import socket
import threading
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from coppice.cloud.openstack.driver import OpenStackCloud
from coppice.cloud.openstack.images import Images
from coppice.cloud.openstack.session import Answer
from coppice.cloud.openstack.settings import Login, OpenStackSettings
from coppice.errors import CloudAnswerError, CloudCredentialError, CloudError, CloudFaultError, CloudTimeoutError
from coppice.settings.driver_options import Secret
from coppice.testing.authority import Authority
from coppice.testing.server import LoopbackServer
from coppice.testing.tls import server_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

SECRET = "not-to-be-shown"  # noqa: S105 - of nothing
PATIENCE_SECONDS = 120.0


class Liar:
    """Answers every request with the same bytes, and then goes on with others, one by one, until it is left."""

    def __init__(self, answer: bytes, drops: bytes = b"", host: str = "127.0.0.1") -> None:
        self._answer, self._drops = answer, drops
        self._socket = socket.create_server((host, 0))
        self._left = threading.Event()
        self.heard: list[bytes] = []
        self.url = f"http://{host}:{self._socket.getsockname()[1]}/v3"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._left.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while not self._left.is_set():
                connection, _ = self._socket.accept()
                threading.Thread(target=self._speak, args=(connection,), daemon=True).start()

    def _speak(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self.heard.append(connection.recv(65536))
            connection.sendall(self._answer)
            while self._drops and not self._left.wait(0.02):
                connection.sendall(self._drops)


@contextmanager
def liar(answer: bytes, drops: bytes = b"", host: str = "127.0.0.1") -> Iterator[Liar]:
    made = Liar(answer, drops, host)
    try:
        yield made
    finally:
        made.close()


def answer(status: int, body: bytes, *heads: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d So" % status, b"Content-Length: %d" % len(body), b"Connection: close", *heads]
    return b"\r\n".join([*lines, b"", body])


def problem_with(url: str, secret: Path, *, timeout: float = 20.0, ca_file: Path | None = None) -> CloudError:
    """Return what describing ends with; that it does end is a part of each test."""
    secret.write_text(SECRET)
    secret.chmod(0o600)
    login = Login(auth_url=url, username="u", password=Secret(file=secret), project_name="p")
    settings = OpenStackSettings(name="liar", login=login, attempts=1, timeout=timeout, ca_file=ca_file)
    cloud = OpenStackCloud("liar", "s", settings)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            cloud.describe()
        except BaseException as problem:  # noqa: BLE001 - which one it is is what is looked at
            caught.append(problem)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE_SECONDS)
    assert not asking.is_alive(), "it is waited for without an end"
    (problem,) = caught
    assert isinstance(problem, CloudError), problem
    assert problem.resolution
    assert SECRET not in f"{problem} {problem.details} {problem.context}"
    return problem


TOKEN = b"X-Subject-Token: t"
ODD = {
    "a number": answer(200, b"1"),
    "nothing": answer(200, b"null"),
    "a number of versions": answer(200, b'{"versions": {"values": 1}}'),
    "a version of numbers": answer(200, b'{"version": {"id": 5, "status": 3, "links": 1}}'),
    "very deep": answer(200, b"[" * 100_000),
    "no text": answer(200, b"\xff\xfe"),
    "a page": answer(200, b"<html>", b"Content-Type: text/html"),
    "half a character": answer(500, b'"\\ud800"'),
    "a token that is a number": answer(201, b'{"token": 5}', TOKEN),
    "a token of numbers": answer(201, b'{"token": {"project": 5, "catalog": 7, "expires_at": "x"}}', TOKEN),
    "a file as endpoint": answer(
        201,
        b'{"token": {"project": {"id": "p"}, "expires_at": "2090-01-01T00:00:00Z", "catalog": [{"type": "image", '
        b'"endpoints": [{"url": "file:///etc/passwd", "interface": "public", "region": "x"}]}]}}',
        TOKEN,
    ),
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_an_answer_that_is_none_of_keystones_is_an_error(tmp_path: Path, name: str):
    with liar(ODD[name]) as cloud:
        problem_with(cloud.url, tmp_path / "secret")


def test_what_wants_a_login_before_it_says_how_to_log_in_is_not_waited_for(tmp_path: Path):
    with liar(answer(401, b'{"error": {"message": "no"}}', b"Content-Type: application/json")) as cloud:
        assert isinstance(problem_with(cloud.url, tmp_path / "secret"), CloudCredentialError)


def test_a_keystone_that_is_asked_too_often_says_nothing_of_the_credentials(tmp_path: Path):
    with liar(answer(429, b"{}", b"Content-Type: application/json")) as cloud:
        assert isinstance(problem_with(cloud.url, tmp_path / "secret"), CloudFaultError)


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    ],
    ids=["body", "chunks", "one head", "heads"],
)
def test_an_answer_that_comes_byte_by_byte_is_given_up(tmp_path: Path, beginning: bytes, drop: bytes):
    with liar(beginning, drop) as cloud:
        problem = problem_with(cloud.url, tmp_path / "secret", timeout=0.1)
    # A head of too many lines is no answer either; which of the two is seen first is a matter of speed.
    assert isinstance(problem, CloudTimeoutError) or drop == b"A: b\r\n"


def test_tls_that_comes_byte_by_byte_is_given_up(tmp_path: Path):
    # The beginning of a handshake of 16,000 bytes.
    with liar(b"\x16\x03\x03\x3e\x80\x02\x00\x3e\x7c\x03\x03", b"\0") as cloud:
        problem = problem_with(cloud.url.replace("http:", "https:"), tmp_path / "secret", timeout=0.1)
    assert isinstance(problem, CloudTimeoutError)


def test_a_password_goes_to_a_keystone_that_was_verified_and_to_no_other(tmp_path: Path):
    authority = Authority.create("Site CA")
    bundle = tmp_path / "authorities.pem"
    bundle.write_bytes(authority.identity.certificate.public_bytes(Encoding.PEM))
    with LoopbackServer(tls=server_tls(tmp_path, authority)) as server:
        problem_with(server.url("v3"), tmp_path / "secret")
        assert not server.requests
        problem_with(server.url("v3"), tmp_path / "secret", ca_file=bundle)
        assert server.requests
    with LoopbackServer(tls=server_tls(tmp_path, authority, "other.example.org")) as server:
        problem_with(server.url("v3"), tmp_path / "secret", ca_file=bundle)
        assert not server.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_password_is_not_carried_to_another_machine(tmp_path: Path, status: int):
    with liar(answer(200, b"{}"), host="127.0.0.2") as other:
        with liar(answer(status, b"", b"Location: " + other.url.encode())) as cloud:
            problem = problem_with(cloud.url, tmp_path / "secret")
        assert other.heard == []
    assert isinstance(problem, CloudAnswerError)


def test_a_list_that_goes_on_and_on_ends_before_the_memory_does():
    class Endless:
        def project(self) -> str:
            return "p"

        def ask(self, *_args: object, **_options: Any) -> Answer:
            page = {"images": [{"id": str(uuid.uuid4()), "status": "active", "owner": "p"}]}
            return Answer(status=200, said=page, size_bytes=32 * 1024 * 1024)

    with pytest.raises(CloudAnswerError, match="does not end"):
        Images("liar", Endless()).all()  # type: ignore[arg-type]
