# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
import tracemalloc

import pytest

from coppice.errors import (
    HttpStatusError,
    InputError,
    RedirectRefusedError,
    TransferCutError,
    TransferStalledError,
    TransferTooLargeError,
    UnreachableError,
    UnreadableFileError,
)
from coppice.http import BodyFile
from coppice.testing import server as behave
from coppice.testing.client import loopback_client

pytestmark = pytest.mark.integration
MIB = 1024 * 1024
CHANGING = ["PUT", "POST", "PATCH", "DELETE", "MKCOL", "MOVE", "COPY"]


class Task:
    """Records how far a transfer is."""

    def __init__(self) -> None:
        self.reached = []

    def reach(self, done, total):
        self.reached.append((done, total))

    def note(self, text):
        pass


def ask(method, url, *, expected=(200,), client=None, **more):
    return (client or loopback_client()).request(method, url, expected=expected, **{"limit_bytes": 1000, **more})


@pytest.mark.parametrize("method", ["GET", "PROPFIND", "OPTIONS", *CHANGING])
def test_each_method_is_sent_once_with_its_body_and_headers(loopback_server, method):
    url = loopback_server.set("x", behave.status(207, b"answer", {"ETag": '"1"', "X-Two": "a"}))
    reply = ask(method, url, expected={201, 207}, body=b"body", headers={"Destination": "https://x/y", "Depth": "1"})
    assert (reply.status, reply.body, reply.header("etag")) == (207, b"answer", '"1"')
    (request,) = loopback_server.requests
    assert (request.method, request.body, request.headers["Content-Length"]) == (method, b"body", "4")
    assert (request.headers["Destination"], request.headers["Depth"]) == ("https://x/y", "1")


@pytest.mark.parametrize("method", ["MKCOL", "MOVE", "PUT", "POST"])
def test_no_body_is_said_to_be_none(loopback_server, method):
    ask(method, loopback_server.set("x", behave.status(201)), expected={201})
    ask(method, loopback_server.url("x"), expected={201}, body=b"")
    assert [request.headers["Content-Length"] for request in loopback_server.requests] == ["0", "0"]


def test_the_head_alone_may_speak_of_any_length(loopback_server):
    url = loopback_server.set("x", lambda talk: talk.head(200, {"Content-Length": str(10**12)}))
    reply = ask("HEAD", url)
    assert (reply.body, reply.header("Content-Length")) == (b"", str(10**12))


def test_a_part_of_a_file_is_asked_for(loopback_server):
    url = loopback_server.set("x", behave.status(206, b"234", {"Content-Range": "bytes 2-4/9"}))
    assert ask("GET", url, expected={206}, headers={"Range": "bytes=2-4"}).body == b"234"
    assert loopback_server.requests[0].headers["Range"] == "bytes=2-4"


def test_headers_that_came_twice_are_joined(loopback_server):
    url = loopback_server.set("x", behave.raw(b"HTTP/1.1 200 OK\r\nDAV: 1\r\nDAV: 2\r\nContent-Length: 0\r\n\r\n"))
    assert ask("OPTIONS", url).header("dav") == "1, 2"


@pytest.mark.parametrize("size", [0, 1, 5 * MIB + 3])
def test_a_file_is_sent_with_its_length_and_arrives_whole(loopback_server, tmp_path, size):
    path = tmp_path / "image"
    path.write_bytes(os.urandom(size))
    task = Task()
    ask(
        "PUT",
        loopback_server.set("x", behave.status(201)),
        expected={201},
        body=BodyFile(path=path, size_bytes=size),
        monitor_task=task,
    )
    (request,) = loopback_server.requests
    assert (request.headers["Content-Length"], request.size_bytes) == (str(size), size)
    assert "Transfer-Encoding" not in request.headers
    assert request.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert task.reached == sorted(task.reached)
    assert task.reached[-1:] == ([(size, size)] if size else [])


def test_a_large_file_is_not_held_in_memory(loopback_server, tmp_path):
    path = tmp_path / "image"
    size = 256 * MIB
    with path.open("wb") as stream:
        stream.truncate(size)
    url = loopback_server.set("x", behave.status(201))
    tracemalloc.start()
    try:
        ask("PUT", url, expected={201}, body=BodyFile(path=path, size_bytes=size))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert loopback_server.requests[0].size_bytes == size
    assert peak < 16 * MIB


def test_a_file_that_shrank_is_an_error_and_no_whole_body(loopback_server, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"x" * 1000)
    url = loopback_server.set("x", behave.status(201))
    with pytest.raises(UnreadableFileError, match="shorter"):
        ask("PUT", url, expected={201}, body=BodyFile(path=path, size_bytes=1001))
    with pytest.raises(UnreadableFileError):
        ask("PUT", url, expected={201}, body=BodyFile(path=tmp_path / "missing", size_bytes=1))


@pytest.mark.parametrize("drains", [True, False])
def test_a_server_that_refuses_before_it_read_the_body_is_heard(loopback_server, tmp_path, drains):
    path = tmp_path / "image"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)

    def refuse(talk):
        talk.whole(401, {"Content-Length": "2", "WWW-Authenticate": "Basic"}, b"no")
        while drains and talk.handler.rfile.read1(MIB):
            pass

    url = loopback_server.set("x", refuse, reads_body=False)
    # A server that closes at once may take its answer back: the kernel throws it away with the connection.
    with contextlib.nullcontext() if drains else contextlib.suppress(TransferCutError):
        reply = ask("PUT", url, expected={401}, body=BodyFile(path=path, size_bytes=64 * MIB))
        assert (reply.status, reply.header("www-authenticate")) == (401, "Basic")
    assert len(loopback_server.requests) == 1


def test_an_unexpected_status_is_an_error_that_names_it(loopback_server):
    for status in (200, 204, 404, 409, 423, 503):
        url = loopback_server.set("x", behave.status(status))
        with pytest.raises(HttpStatusError) as caught:
            ask("PUT", url, expected={201}, body=b"x")
        assert caught.value.context["status"] == status
    assert len(loopback_server.requests) == 6


@pytest.mark.parametrize("method", CHANGING)
@pytest.mark.parametrize("bad", [behave.status(503), behave.raw(b""), behave.cut(b"xxxx", 1)])
def test_what_changes_something_is_sent_again_only_when_told(loopback_server, method, bad):
    url = loopback_server.set("x", behave.in_turn(bad, behave.serve(b"ok")))
    with pytest.raises((HttpStatusError, TransferCutError)):
        ask(method, url, body=b"x")
    assert len(loopback_server.requests) == 1
    loopback_server.set("x", behave.in_turn(bad, behave.serve(b"ok")))
    assert ask(method, url, body=b"x", retry=True).body == b"ok"
    assert [request.body for request in loopback_server.requests] == [b"x"] * 3


@pytest.mark.parametrize("method", ["GET", "PROPFIND", "OPTIONS"])
def test_what_changes_nothing_is_sent_again(loopback_server, method):
    url = loopback_server.set("x", behave.in_turn(behave.status(503), behave.raw(b""), behave.serve(b"ok")))
    assert ask(method, url, body=b"x").body == b"ok"


def test_where_no_connection_was_made_anything_is_tried_again():
    tried = []
    client = loopback_client(resolver=lambda *_: tried.append(1) or ["127.0.0.1"])
    with pytest.raises(UnreachableError):
        ask("POST", "http://lists.example.org:1/", client=client)
    assert len(tried) == 3


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", [*CHANGING, "PROPFIND"])
def test_what_changes_something_follows_only_to_the_same_server_with_its_method(loopback_server, method, code):
    loopback_server.set("there", behave.serve(b"ok"))
    url = loopback_server.set("x", behave.redirect("/there", code))
    if code in {307, 308}:
        assert ask(method, url, body=b"x").body == b"ok"
        assert [(one.method, one.body) for one in loopback_server.requests] == [(method, b"x")] * 2
    else:
        with pytest.raises(RedirectRefusedError, match=method):
            ask(method, url, body=b"x")
    loopback_server.requests.clear()
    loopback_server.set("x", behave.redirect(loopback_server.url("there", "localhost"), code))
    with pytest.raises(RedirectRefusedError, match=method):
        ask(method, url, body=b"x")
    assert len(loopback_server.requests) == 1


def test_a_body_goes_to_no_other_server(loopback_server):
    loopback_server.set("there", behave.serve(b"ok"))
    for code in (302, 307):
        url = loopback_server.set("x", behave.redirect(loopback_server.url("there", "localhost"), code))
        with pytest.raises(RedirectRefusedError):
            ask("GET", url, body=b"x")
    assert [request.path for request in loopback_server.requests] == ["/x", "/x"]


def test_an_expected_redirect_is_an_answer(loopback_server):
    url = loopback_server.set("x", behave.redirect("https://elsewhere.example.org/"))
    reply = ask("GET", url, expected={302})
    assert reply.header("location") == "https://elsewhere.example.org/"


@pytest.mark.threat("T54")
def test_a_header_that_would_break_the_request_is_refused_before_a_connection(loopback_server):
    url = loopback_server.set("x", behave.serve(b"ok"))
    for headers in ({"Destination": "x\r\nX-Evil: 1"}, {"Host": "evil"}, {"X\r\nY": "1"}, {"Authorization": "x"}):
        with pytest.raises(InputError):
            ask("MOVE", url, headers=headers)
    assert loopback_server.requests == []


@pytest.mark.threat("T48")
def test_an_answer_is_no_longer_than_its_limit(loopback_server):
    for bad in (behave.serve(b"x" * 1001), behave.endless(), behave.chunked(b"x" * 1001)):
        with pytest.raises(TransferTooLargeError):
            ask("PROPFIND", loopback_server.set("x", bad))


@pytest.mark.threat("T52")
def test_a_request_has_its_own_deadline(loopback_server):
    url = loopback_server.set("x", behave.drip(b"x" * 1000, 0.05))
    started = time.monotonic()
    with pytest.raises(TransferStalledError, match="too long"):
        ask("GET", url, deadline_seconds=0.4, client=loopback_client(minimum_rate_bytes_per_second=1))
    assert time.monotonic() - started < 3


@pytest.mark.threat("T52")
def test_a_server_that_takes_nothing_is_given_up(tmp_path):
    path = tmp_path / "image"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []
        taker = threading.Thread(target=lambda: held.append(listener.accept()))
        taker.start()
        started = time.monotonic()
        with pytest.raises(TransferStalledError):
            ask(
                "PUT",
                f"http://127.0.0.1:{listener.getsockname()[1]}/",
                body=BodyFile(path=path, size_bytes=64 * MIB),
                client=loopback_client(read_timeout_seconds=30.0, minimum_rate_bytes_per_second=10**9),
            )
        assert time.monotonic() - started < 10
        taker.join()
        held[0][0].close()


def test_a_slow_connection_that_takes_enough_is_not_given_up(loopback_server, tmp_path):
    path = tmp_path / "image"
    with path.open("wb") as stream:
        stream.truncate(8 * MIB)

    def slowly(talk):
        for _ in range(8):
            talk.handler.rfile.read(MIB)
            talk.pause(0.6)
        talk.whole(201, {"Content-Length": "0"}, b"")

    url = loopback_server.set("x", slowly, reads_body=False)
    client = loopback_client(connect_timeout_seconds=0.5, read_timeout_seconds=15.0)
    assert ask("PUT", url, expected={201}, body=BodyFile(path=path, size_bytes=8 * MIB), client=client).status == 201


def test_a_server_may_think_about_a_body_as_long_as_a_read_may_take(loopback_server):
    def think(talk):
        talk.pause(2.5)
        talk.head(201, {"Content-Length": "2"})
        for piece in (b"o", b"k"):
            talk.pause(0.05)
            talk.body(piece)

    url = loopback_server.set("x", think)
    client = loopback_client(read_timeout_seconds=15.0, rate_window_seconds=1.5)
    assert ask("PUT", url, expected={201}, body=b"x", client=client).body == b"ok"


@pytest.mark.threat("T52")
def test_a_head_that_drips_after_a_body_is_given_up(loopback_server):
    url = loopback_server.set("x", behave.drip_head(0.05))
    started = time.monotonic()
    with pytest.raises(TransferStalledError):
        ask("PUT", url, body=b"x", client=loopback_client(read_timeout_seconds=1.0, rate_window_seconds=0.5))
    assert time.monotonic() - started < 8
