# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
import time
import traceback

import pytest

from coppice.errors import (
    AddressRefusedError,
    HttpStatusError,
    RedirectRefusedError,
    TransferCutError,
    TransferStalledError,
    TransferTooLargeError,
    UnreachableError,
)
from coppice.factory.ports import free_port
from coppice.http import Client
from coppice.settings.model import TransferSettings
from coppice.testing import server as behave
from coppice.testing.server import LoopbackServer, StaticServer, throw_away_tls

pytestmark = pytest.mark.integration
DATA = os.urandom(300_000)


def settings(**changed):
    return TransferSettings(
        **{
            "list_size_limit_bytes": 10**6,
            "image_size_limit_bytes": 10**9,
            "connect_timeout_seconds": 1.0,
            "read_timeout_seconds": 1.0,
            "minimum_rate_bytes_per_second": 1000,
            "total_timeout_seconds": 5.0,
            "attempts": 3,
            "allow_private_addresses": True,
            **changed,
        }
    )


def client(**changed):
    more = {name: changed.pop(name) for name in ("resolver", "ca_file") if name in changed}
    return Client(settings(**changed), sleep=lambda _: None, rate_window_seconds=0.5, **more)


@pytest.mark.parametrize("good", [behave.serve(DATA), behave.chunked(DATA), behave.without_length(DATA)])
def test_a_body_arrives_whole(loopback_server, good):
    assert client().get_bytes(loopback_server.set("x", good), limit_bytes=len(DATA)) == DATA


@pytest.mark.threat("T46")
@pytest.mark.parametrize(
    "bad",
    [
        behave.cut(DATA, 0),
        behave.cut(DATA, 150_000),
        behave.cut(DATA, len(DATA) - 1),
        behave.cut(DATA, 150_000, reset=True),
        behave.chunked(DATA, cut_after=150_000),
    ],
)
def test_a_cut_body_is_tried_again_and_then_an_error(loopback_server, bad):
    url = loopback_server.set("x", behave.in_turn(bad, behave.serve(DATA)))
    assert client().get_bytes(url, limit_bytes=len(DATA)) == DATA
    loopback_server.requests.clear()
    with pytest.raises(TransferCutError):
        client().get_bytes(loopback_server.set("y", bad), limit_bytes=len(DATA))
    assert len(loopback_server.requests) == 3


@pytest.mark.threat("T48")
def test_an_endless_body_is_left_at_the_limit(loopback_server):
    got = bytearray()
    with pytest.raises(TransferTooLargeError):
        client().download(loopback_server.set("x", behave.endless()), expected_size_bytes=100_000, sink=got.extend)
    assert len(got) <= 100_000


@pytest.mark.threat("T51")
def test_an_encoding_is_never_undone(loopback_server):
    url = loopback_server.set("x", behave.gzip_encoded(DATA, compress=False))
    assert client().get_bytes(url, limit_bytes=len(DATA)) == DATA
    assert loopback_server.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.threat("T52")
@pytest.mark.parametrize("slow", [behave.stall(DATA, 1000), behave.drip(DATA, 0.05), behave.drip_head(0.05)])
def test_a_slow_server_is_given_up(loopback_server, slow):
    started = time.monotonic()
    with pytest.raises(TransferStalledError):
        client().get_bytes(loopback_server.set("x", slow), limit_bytes=len(DATA))
    assert time.monotonic() - started < 4


@pytest.mark.threat("T52")
def test_the_total_time_counts_even_when_the_rate_is_fine(loopback_server):
    with pytest.raises(TransferStalledError, match="too long"):
        client(total_timeout_seconds=0.5, minimum_rate_bytes_per_second=1).get_bytes(
            loopback_server.set("x", behave.drip(DATA, 0.01)), limit_bytes=len(DATA)
        )


@pytest.mark.threat("T52")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_accepts_and_is_silent_is_given_up(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises((TransferStalledError, UnreachableError)):
            client(attempts=1).get_bytes(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/", limit_bytes=10)
        assert time.monotonic() - started < 4


@pytest.mark.threat("T53")
@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/", "data:,x", "/loop"])
def test_redirects_that_may_not_be_followed(loopback_server, target):
    with pytest.raises(RedirectRefusedError):
        client().get_bytes(loopback_server.set("loop", behave.redirect(target)), limit_bytes=10)


@pytest.mark.threat("T53")
@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:a9fe:a9fe]", "0"]
)
def test_a_redirect_to_a_metadata_address_is_refused_however_it_is_written(loopback_server, host):
    url = loopback_server.set("x", behave.redirect(f"http://{host}/latest/meta-data"))
    with pytest.raises(AddressRefusedError):
        client().get_bytes(url, limit_bytes=10)


@pytest.mark.threat("T53")
def test_a_name_is_resolved_once_and_its_checked_address_is_used(loopback_server):
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    url = loopback_server.set("x", behave.serve(b"ok"))
    named = url.replace("127.0.0.1", "mirror.example")
    assert client(resolver=lambda *_: answers.pop(0)).get_bytes(named, limit_bytes=10) == b"ok"
    assert len(answers) == 1
    assert loopback_server.requests[0].headers["Host"] == f"mirror.example:{loopback_server.port}"


@pytest.mark.threat("T53")
def test_loopback_needs_the_setting(loopback_server):
    with pytest.raises(AddressRefusedError):
        client(allow_private_addresses=False).get_bytes(loopback_server.set("x", behave.serve(b"ok")), limit_bytes=10)
    assert loopback_server.requests == []


@pytest.mark.threat("T54")
def test_credentials_do_not_follow_to_another_server(tmp_path):
    tls, trusted = throw_away_tls(tmp_path)
    with LoopbackServer(tls=tls) as first, LoopbackServer(tls=tls) as second:
        target = second.set("x", behave.serve(b"ok"))
        url = first.set("x", behave.redirect(target)).replace("://", "://tok:secret@")
        assert client(ca_file=trusted).get_bytes(url, limit_bytes=10) == b"ok"
    assert "Authorization" in first.requests[0].headers
    assert "Authorization" not in second.requests[0].headers


@pytest.mark.threat("T54")
def test_a_redirect_that_repeats_the_credential_is_told_without_it(tmp_path):
    tls, trusted = throw_away_tls(tmp_path)
    with LoopbackServer(tls=tls) as server:
        url = server.set("x", behave.redirect("ftp://other.example/?q=sesame-open")).replace(
            "://", "://tok:sesame-open@"
        )
        with pytest.raises(RedirectRefusedError, match=r"ftp://other\.example") as caught:
            client(ca_file=trusted).get_bytes(url, limit_bytes=10)
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.threat("T55")
def test_tls_checks_authority_and_name(tmp_path):
    tls, trusted = throw_away_tls(tmp_path, "mirror.example")
    with LoopbackServer(tls=tls) as server:
        server.set("x", behave.serve(b"ok"))
        here = {"resolver": lambda *_: ["127.0.0.1"], "ca_file": trusted}
        assert client(**here).get_bytes(server.url("x", "mirror.example"), limit_bytes=10) == b"ok"
        with pytest.raises(UnreachableError, match="TLS"):
            client(**here).get_bytes(server.url("x", "other.example"), limit_bytes=10)
        with pytest.raises(UnreachableError, match="TLS"):
            client().get_bytes(server.url("x"), limit_bytes=10)


def test_a_status_is_an_error_with_what_the_server_said_made_harmless(loopback_server):
    with pytest.raises(HttpStatusError) as caught:
        client().get_bytes(loopback_server.set("x", behave.status(404, b"no\x1b[31m\n")), limit_bytes=10)
    assert len(loopback_server.requests) == 1
    assert caught.value.details == r"'no\x1b[31m\n'"


def test_a_refused_connection_is_unreachable():
    with pytest.raises(UnreachableError, match="127"):
        client().get_bytes(f"http://127.0.0.1:{free_port()}/", limit_bytes=10)


def test_the_file_server_serves_only_what_is_below_its_directory(tmp_path):
    (tmp_path / "outside").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a b").write_bytes(b"hello")
    (root / ".hidden").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "outside")
    with StaticServer(root) as server:
        assert client().get_bytes(server.url("a%20b"), limit_bytes=10) == b"hello"
        for path in ("../outside", "%2e%2e/outside", ".hidden", "link", "", "nothing"):
            with pytest.raises(HttpStatusError):
                client().get_bytes(server.url(path), limit_bytes=10)


@pytest.mark.threat("T46")
def test_an_announced_length_of_thousands_of_digits_is_too_large(loopback_server):
    def boast(conversation):
        conversation.whole(200, {"Content-Length": "9" * 5000}, b"x")

    with pytest.raises(TransferTooLargeError):
        client().get_bytes(loopback_server.set("x", boast), limit_bytes=10)
