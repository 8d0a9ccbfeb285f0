# SPDX-License-Identifier: Apache-2.0
"""The built-in transports, held to the suite; what only one of them can be asked comes after."""

from __future__ import annotations

import fcntl
import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from coppice.cloud.transports import folder
from coppice.cloud.transports.by_http import HttpTransport
from coppice.cloud.transports.by_path import PathTransport
from coppice.cloud.transports.members import BUILT_IN, open_transport
from coppice.errors import CloudError, CloudUnreachableError, CredentialError, SettingsError, StorageError
from coppice.factory.ports import free_port
from coppice.monitor import SILENT
from coppice.testing.contracts.transports import CONTENT, TransportContract, TransportStand, converted_bytes
from coppice.testing.publishing.openssh import SftpServer
from coppice.testing.tls import throw_away_tls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coppice.cloud.transports.transport import Offered

pytestmark = pytest.mark.contract

WAIT_SECONDS = 60
OTHERS_READ = 0o004
OTHERS_ENTER = 0o001


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def read_by_others(path: Path, above: Path) -> bytes:
    """Read a file that another user could read too: the permissions on the way are looked at, root is not trusted."""
    assert path.stat().st_mode & OTHERS_READ
    for parent in path.relative_to(above).parents[:-1]:
        assert (above / parent).stat().st_mode & OTHERS_ENTER
    return path.read_bytes()


class PathStand(TransportStand):
    def __init__(self, directory: Path) -> None:
        self.directory = directory / "shared"
        self.directory.mkdir()
        self.transport = open_transport({"driver": "path", "directory": str(self.directory)}, "clouds.test.transport")

    def fetch(self, offered: Offered) -> bytes:
        return read_by_others(Path(offered.path_or_url), self.directory)

    def left_behind(self) -> Sequence[str]:
        return tree(self.directory)

    def abandon(self) -> None:
        place = self.directory / folder.offer_name()
        place.mkdir()
        (place / folder.LOCK).touch()
        (place / "disk.qcow2.partial").write_bytes(b"half")


class SshStand(TransportStand):
    def __init__(self, server: SftpServer, area: str) -> None:
        self.directory = server.directory / area
        self.directory.mkdir()
        options = {name: value for name, value in server.options(area).items() if name not in {"path", "url"}}
        self.given = {"driver": "ssh", "directory": str(self.directory), **options}
        self.transport = open_transport(self.given, "clouds.test.transport")

    def fetch(self, offered: Offered) -> bytes:
        return read_by_others(Path(offered.path_or_url), self.directory)

    def left_behind(self) -> Sequence[str]:
        return tree(self.directory)

    def abandon(self) -> None:
        place = self.directory / folder.offer_name()
        place.mkdir()
        (place / "disk.qcow2.partial").write_bytes(b"half")
        long_ago = time.time() - 48 * 3600
        os.utime(place, (long_ago, long_ago))


class HttpStand(TransportStand):
    def __init__(self) -> None:
        self.transport = open_transport({"driver": "http"}, "clouds.test.transport")

    def fetch(self, offered: Offered) -> bytes:
        return fetched(offered.path_or_url)

    def left_behind(self) -> Sequence[str]:
        assert isinstance(self.transport, HttpTransport)
        server = self.transport._server
        return [] if server is None else sorted(server._files)

    def abandon(self) -> None:
        """A process that is dead serves nothing."""


def fetched(url: str, context: ssl.SSLContext | None = None) -> bytes:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    with urllib.request.build_opener(*handlers).open(url, timeout=WAIT_SECONDS) as answer:
        data: bytes = answer.read()
        assert len(data) == int(answer.headers["Content-Length"])
        return data


class TestPath(TransportContract):
    @pytest.fixture
    def stand(self, tmp_path) -> TransportStand:
        return PathStand(tmp_path)


class TestHttp(TransportContract):
    @pytest.fixture
    def stand(self, tmp_path) -> TransportStand:
        return HttpStand()


class TestSsh(TransportContract):
    @pytest.fixture
    def stand(self, ssh_server, request) -> TransportStand:
        return SshStand(ssh_server, f"area-{time.monotonic_ns()}")


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory) -> Iterator[SftpServer]:
    with SftpServer(tmp_path_factory.mktemp("ssh")) as server:
        yield server


def test_every_built_in_transport_is_held_to_the_suite():
    held = {each.__name__.removeprefix("Test").lower() for each in (TestPath, TestHttp, TestSsh)}
    assert held == set(BUILT_IN)


# -- path --------------------------------------------------------------------------------------------


def test_an_image_that_all_may_read_is_linked_and_one_that_only_its_owner_may_read_is_copied(tmp_path):
    transport = PathTransport(tmp_path, str(tmp_path))
    converted = converted_bytes(tmp_path / "store")
    converted.path.chmod(0o644)
    with transport.offer(converted, SILENT) as offered:
        assert Path(offered.path_or_url).samefile(converted.path)
    converted.path.chmod(0o600)
    with transport.offer(converted, SILENT) as offered:
        assert not Path(offered.path_or_url).samefile(converted.path)


def test_a_copy_keeps_the_holes(tmp_path):
    transport = PathTransport(tmp_path, str(tmp_path), links=False)
    with transport.offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        status = Path(offered.path_or_url).stat()
        assert status.st_size == len(CONTENT)
        assert status.st_blocks * 512 < len(CONTENT) // 2


def test_for_a_group_the_image_is_copied_and_others_are_kept_out(tmp_path):
    transport = PathTransport(tmp_path, str(tmp_path), group=os.getgid())
    with transport.offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        path = Path(offered.path_or_url)
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.parent.stat().st_mode & 0o777 == 0o750
        assert path.stat().st_gid == os.getgid()


def test_the_front_end_is_told_the_path_by_which_it_knows_the_directory(tmp_path):
    transport = open_transport(
        {"driver": "path", "directory": str(tmp_path), "front_end_directory": "/var/tmp/images"},  # noqa: S108 - a name
        "clouds.test.transport",
    )
    with transport.offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        below = offered.path_or_url.removeprefix("/var/tmp/images/")  # noqa: S108 - a name
        assert (tmp_path / below).read_bytes() == CONTENT


def test_a_place_without_its_lock_is_swept_when_it_is_old_and_not_before(tmp_path):
    transport = PathTransport(tmp_path, str(tmp_path))
    place = tmp_path / folder.offer_name()
    place.mkdir()
    assert transport.sweep() == ()
    long_ago = time.time() - 2 * folder.ABANDONED_SECONDS
    os.utime(place, (long_ago, long_ago))
    assert transport.sweep() == (str(place),)


def test_a_place_whose_lock_another_process_holds_is_not_swept(tmp_path):
    transport = PathTransport(tmp_path, str(tmp_path))
    place = tmp_path / folder.offer_name()
    place.mkdir()
    with (place / folder.LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert transport.sweep() == ()
    assert transport.sweep() == (str(place),)


def test_what_a_killed_process_offered_is_gone_after_the_next_runs_first_offer(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from coppice.monitor import SILENT\n"
        "from coppice.cloud.transports.by_path import PathTransport\n"
        "from coppice.testing.contracts.transports import converted_bytes\n"
        "offer = PathTransport(Path(sys.argv[1]), sys.argv[1]).offer(converted_bytes(Path(sys.argv[2])), SILENT)\n"
        "with offer as offered:\n"
        "    print(offered.path_or_url, flush=True)\n"
        "    time.sleep(600)\n"
    )
    shared = tmp_path / "shared"
    shared.mkdir()
    killed = subprocess.Popen(
        [sys.executable, "-c", script, str(shared), str(tmp_path / "theirs")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert killed.stdout is not None
        offered_there = Path(killed.stdout.readline().strip())
        assert offered_there.is_file()
        with PathTransport(shared, str(shared)).offer(converted_bytes(tmp_path / "store"), SILENT):
            pass
        assert offered_there.is_file()
    finally:
        killed.kill()
        killed.communicate()
    assert offered_there.is_file()
    with PathTransport(shared, str(shared)).offer(converted_bytes(tmp_path / "store"), SILENT):
        pass
    assert tree(shared) == []


def test_what_is_no_offer_is_never_swept(tmp_path):
    transport = PathTransport(tmp_path, str(tmp_path))
    for name in ("coppice-", "coppice-notes", "theirs", folder.offer_name() + "x"):
        (tmp_path / name).mkdir()
    (tmp_path / folder.offer_name()).symlink_to(tmp_path / "theirs")
    before = tree(tmp_path)
    assert transport.sweep() == ()
    assert tree(tmp_path) == before


def test_a_missing_directory_is_an_error_that_names_it(tmp_path):
    transport = PathTransport(tmp_path / "missing", "/missing")
    with (
        pytest.raises(StorageError, match="missing"),
        transport.offer(converted_bytes(tmp_path / "store"), SILENT),
    ):
        pytest.fail("it was offered")


# -- http --------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path) -> Iterator[Offered]:
    transport = HttpTransport("127.0.0.1", 0)
    with transport.offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        yield offered


def asked(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=WAIT_SECONDS)) as connection:
        connection.request(method, parts.path, headers={name.replace("_", "-"): each for name, each in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): each for name, each in answer.getheaders()}, answer.read()


def test_a_head_has_the_length_of_the_file_and_no_body(served):
    status, headers, body = asked(served.path_or_url, "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(CONTENT)), b"")
    assert headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked_for", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-99", 5, 100),
        ("bytes=100-", 100, len(CONTENT)),
        ("bytes=-7", len(CONTENT) - 7, len(CONTENT)),
        (f"bytes=10-{len(CONTENT) * 2}", 10, len(CONTENT)),
    ],
)
def test_a_range_is_answered_with_its_bytes(served, asked_for, first, end):
    status, headers, body = asked(served.path_or_url, Range=asked_for)
    assert (status, body) == (206, CONTENT[first:end])
    assert headers["content-range"] == f"bytes {first}-{end - 1}/{len(CONTENT)}"


@pytest.mark.parametrize(
    "asked_for", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=9-2", "bytes=x-y", "bytes=" + "9" * 500 + "-"]
)
def test_a_range_that_is_none_is_answered_with_the_whole(served, asked_for):
    status, _headers, body = asked(served.path_or_url, Range=asked_for)
    assert (status, body) == (200, CONTENT)


def test_a_range_beyond_the_end_is_refused_with_the_length(served):
    status, headers, body = asked(served.path_or_url, Range=f"bytes={len(CONTENT)}-")
    assert (status, headers["content-range"], body) == (416, f"bytes */{len(CONTENT)}", b"")


def test_a_range_counts_only_for_the_file_that_was_meant(served):
    tag = asked(served.path_or_url, "HEAD")[1]["etag"]
    assert asked(served.path_or_url, Range="bytes=0-3", If_Range=tag)[0] == 206
    assert asked(served.path_or_url, Range="bytes=0-3", If_Range='"another"')[0] == 200


def test_no_other_address_gives_anything(served):
    parts = urlsplit(served.path_or_url)
    token, name = parts.path.split("/")[1:]
    base = f"http://{parts.netloc}"
    elsewhere = [
        "/",
        f"/{token}",
        f"/{token}/",
        f"/{token}/x",
        f"/{name}",
        f"/{'0' * 64}/{name}",
        f"/{token[:-1]}/{name}",
        f"/{token}/{name}/..",
        f"/{token.upper()}x/{name}",
        f"/x/{token}/{name}",
    ]
    for path in elsewhere:
        status, _headers, body = asked(base + path)
        assert (path, status, body) == (path, 404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_other_methods_are_refused(served, method):
    assert asked(served.path_or_url, method)[0] in {405, 501}


def test_clients_that_break_off_leave_it_working(served):
    parts = urlsplit(served.path_or_url)
    for length in (0, 1, 1000, 200_000):
        with socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS) as client:
            client.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            left = length
            while left > 0 and (piece := client.recv(min(left, 65536))):
                left -= len(piece)
    with socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS) as silent:
        silent.sendall(b"GET /")
        assert fetched(served.path_or_url) == CONTENT


def test_clients_that_never_say_what_they_want_are_sent_away(tmp_path, monkeypatch):
    monkeypatch.setattr("coppice.cloud.transports.pull_server._SILENCE_SECONDS", 1.0)

    def drip(client: socket.socket) -> None:
        until = time.monotonic() + WAIT_SECONDS
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        while time.monotonic() < until:
            client.sendall(b"a")
            time.sleep(0.1)

    with HttpTransport("127.0.0.1", 0).offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        parts = urlsplit(offered.path_or_url)
        with (
            socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS) as client,
            pytest.raises(ConnectionError),
        ):
            drip(client)
        assert fetched(offered.path_or_url) == CONTENT


def test_nonsense_is_answered_with_an_error_and_leaves_it_working(served):
    parts = urlsplit(served.path_or_url)
    for nonsense in (b"\x00\xff\r\n\r\n", b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"\r\n" * 100):
        with socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS) as client:
            client.sendall(nonsense)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    assert fetched(served.path_or_url) == CONTENT


def test_more_clients_than_it_takes_do_not_stop_those_who_come_after(tmp_path):
    transport = HttpTransport("127.0.0.1", 0)
    with transport.offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        parts = urlsplit(offered.path_or_url)
        crowd = [socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS) for _ in range(100)]
        for each in crowd:
            each.close()
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                assert fetched(offered.path_or_url) == CONTENT
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)


def test_a_download_that_is_under_way_ends_with_the_offer(tmp_path):
    content = os.urandom(1024) * 64 * 1024
    transport = HttpTransport("127.0.0.1", 0)
    got = bytearray()
    with transport.offer(converted_bytes(tmp_path / "store", content), SILENT) as offered:
        parts = urlsplit(offered.path_or_url)
        client = socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS)
        client.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got += client.recv(1000)
    with client:
        try:
            while piece := client.recv(1024 * 1024):
                got += piece
        except ConnectionError:
            pass
    assert len(got) < len(content)


def test_only_those_may_ask_who_are_named(tmp_path):
    for only_from, is_served in (("192.0.2.0/24, 2001:db8::/32", False), ("127.0.0.0/8", True)):
        transport = open_transport({"driver": "http", "only_from": only_from}, "clouds.test.transport")
        with transport.offer(converted_bytes(tmp_path / only_from.replace("/", "-")), SILENT) as offered:
            if is_served:
                assert fetched(offered.path_or_url) == CONTENT
            else:
                with pytest.raises(OSError):
                    fetched(offered.path_or_url)


def test_the_server_listens_only_while_something_is_offered(tmp_path):
    transport = HttpTransport("127.0.0.1", 0)
    with transport.offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        parts = urlsplit(offered.path_or_url)
        socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS).close()
    with pytest.raises(OSError):
        socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS)
    assert not [each for each in threading.enumerate() if each.name == "pull"]


def test_two_offers_share_the_port_that_the_settings_name(tmp_path):
    port = free_port()
    transport = open_transport({"driver": "http", "listen": f"127.0.0.1:{port}"}, "clouds.test.transport")
    converted = converted_bytes(tmp_path / "store")
    with transport.offer(converted, SILENT) as first, transport.offer(converted, SILENT) as second:
        assert urlsplit(first.path_or_url).port == urlsplit(second.path_or_url).port == port
        other = open_transport({"driver": "http", "listen": f"127.0.0.1:{port}"}, "clouds.test.transport")
        with pytest.raises(CloudError, match="nothing can be served"), other.offer(converted, SILENT):
            pytest.fail("two processes cannot have one port")
        assert fetched(first.path_or_url) == fetched(second.path_or_url) == CONTENT


def test_the_front_end_is_told_the_address_that_the_settings_name(tmp_path):
    transport = open_transport(
        {"driver": "http", "listen": "0.0.0.0:0", "url": "https://mirror.example.org:8443/pull/"}, "clouds.x.transport"
    )
    with transport.offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        assert offered.path_or_url.startswith("https://mirror.example.org:8443/pull/")
        assert len(offered.path_or_url.split("/")) == 6


def test_it_serves_over_tls(tmp_path):
    throw_away_tls(tmp_path)
    transport = open_transport(
        {
            "driver": "http",
            "certificate": str(tmp_path / "server.pem"),
            "key": str(tmp_path / "server.key"),
        },
        "clouds.test.transport",
    )
    trusting = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    with transport.offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        assert offered.path_or_url.startswith("https://127.0.0.1:")
        assert fetched(offered.path_or_url, trusting) == CONTENT


# -- ssh --------------------------------------------------------------------------------------------


def test_a_server_with_another_key_gets_nothing(ssh_server, tmp_path):
    stand = SshStand(ssh_server, f"area-{time.monotonic_ns()}")
    key = Path(str(stand.given["known_hosts"])).read_text().split()
    forged = tmp_path / "known_hosts"
    body = key[2][:-8] + ("A" * 8)
    forged.write_text(f"{key[0]} {key[1]} {body}\n")
    transport = open_transport({**stand.given, "known_hosts": str(forged)}, "clouds.test.transport")
    with (
        pytest.raises(CloudError, match="shows another key"),
        transport.offer(converted_bytes(tmp_path / "store"), SILENT),
    ):
        pytest.fail("it was offered")
    assert not stand.left_behind()


def test_a_server_whose_key_is_not_known_gets_nothing(ssh_server, tmp_path):
    stand = SshStand(ssh_server, f"area-{time.monotonic_ns()}")
    (tmp_path / "known_hosts").write_text("")
    transport = open_transport({**stand.given, "known_hosts": str(tmp_path / "known_hosts")}, "clouds.test.transport")
    with pytest.raises(CloudError, match="is not in"), transport.offer(converted_bytes(tmp_path / "store"), SILENT):
        pytest.fail("it was offered")


def test_a_missing_directory_at_the_server_is_an_error_that_names_it(ssh_server, tmp_path):
    stand = SshStand(ssh_server, f"area-{time.monotonic_ns()}")
    transport = open_transport({**stand.given, "directory": f"{stand.directory}/missing"}, "clouds.test.transport")
    with (
        pytest.raises(CloudError, match=r"there is no directory .*missing"),
        transport.offer(converted_bytes(tmp_path / "store"), SILENT),
    ):
        pytest.fail("it was offered")


def test_a_server_that_is_not_there_is_a_cloud_that_cannot_be_reached(ssh_server, tmp_path):
    stand = SshStand(ssh_server, f"area-{time.monotonic_ns()}")
    port = free_port()
    transport = open_transport({**stand.given, "port": port}, "clouds.test.transport")
    with pytest.raises(CloudUnreachableError), transport.offer(converted_bytes(tmp_path / "store"), SILENT):
        pytest.fail("it was offered")
    with pytest.raises(CloudUnreachableError):
        transport.sweep()


def test_what_is_young_or_no_offer_is_not_swept_over_ssh(ssh_server):
    stand = SshStand(ssh_server, f"area-{time.monotonic_ns()}")
    (stand.directory / folder.offer_name()).mkdir()
    (stand.directory / "theirs").mkdir()
    before = tree(stand.directory)
    assert stand.transport.sweep() == ()
    assert tree(stand.directory) == before


# -- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("pahts", "no transport"),
        ("pathh", "Did you mean 'path'"),
        ({"directory": "/x"}, "not a table with `driver`"),
        (7, "not a table with `driver`"),
        ({"driver": "path"}, "`directory` is missing"),
        ({"driver": "path", "directory": "/x", "linkk": True}, "unknown option 'linkk' of the transport path"),
        ({"driver": "path", "directory": "/with a blank"}, "do not pass on"),
        ({"driver": "path", "directory": "/x", "front_end_directory": "/$(reboot)"}, "do not pass on"),
        ({"driver": "path", "directory": "/x", "group": "no-such-group"}, "no group"),
        ({"driver": "http", "listen": "127.0.0.1"}, "an address and a port"),
        ({"driver": "http", "listen": "127.0.0.1:99999"}, "an address and a port"),
        ({"driver": "http", "listen": "0.0.0.0:80"}, "`url` is missing"),
        ({"driver": "http", "url": "ftp://x"}, "`url` must be"),
        ({"driver": "http", "url": "http://x/$(reboot)"}, "`url` must be"),
        ({"driver": "http", "only_from": "somewhere"}, "no address or network"),
        ({"driver": "http", "certificate": "/x"}, "both `certificate` and `key`"),
        ({"driver": "ssh", "user": "x"}, "`host` is missing"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_with_where_and_what(given, words):
    with pytest.raises(SettingsError) as caught:
        open_transport(given, "clouds.one.transport")
    assert words in caught.value.message
    assert caught.value.message.startswith("clouds.one.transport: ")
    assert caught.value.context["setting"] == "clouds.one.transport"


def test_a_key_of_the_server_that_others_may_read_is_refused(tmp_path):
    throw_away_tls(tmp_path)
    (tmp_path / "server.key").chmod(0o644)
    with pytest.raises(CredentialError):
        open_transport(
            {"driver": "http", "certificate": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.key")},
            "clouds.one.transport",
        )
