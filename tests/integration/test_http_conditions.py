# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from coppice.errors import HttpStatusError, TransferError, TransferTooLargeError, UnreachableError
from coppice.http import Fetched, Validators
from coppice.testing import server as behave
from coppice.testing.client import loopback_client
from coppice.testing.server import LoopbackServer, StaticServer

pytestmark = pytest.mark.integration
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
ETAG = '"v1"'
KNOWN = Validators(etag=ETAG, last_modified=DATE)


def ask(url, validators, limit=100, client=None):
    return (client or loopback_client()).get_if_changed(url, limit_bytes=limit, validators=validators)


@pytest.mark.parametrize("etag", [ETAG, 'W/"v1"'])
def test_what_did_not_change_is_not_sent_again(loopback_server, etag):
    url = loopback_server.set("list", behave.conditional(b"list", etag=etag, last_modified=DATE))
    first = ask(url, None)
    assert first == Fetched(body=b"list", validators=Validators(etag=etag, last_modified=DATE))
    assert ask(url, first.validators) == Fetched(body=None, validators=first.validators)
    assert not {"If-None-Match", "If-Modified-Since"} & set(loopback_server.requests[0].headers)
    assert loopback_server.requests[1].headers["If-None-Match"] == etag
    assert loopback_server.requests[1].headers["If-Modified-Since"] == DATE


def test_what_changed_is_sent_with_what_it_is_called_now(loopback_server):
    url = loopback_server.set("list", behave.conditional(b"list", etag=ETAG))
    ask(url, None)
    loopback_server.set("list", behave.conditional(b"other", etag='"v2"'))
    assert ask(url, KNOWN) == Fetched(body=b"other", validators=Validators(etag='"v2"'))


def test_a_date_alone_is_enough_once_it_is_past(loopback_server):
    url = loopback_server.set("list", behave.conditional(b"list", last_modified=DATE))
    first = ask(url, None)
    assert first.validators == Validators(last_modified=DATE)
    assert ask(url, first.validators).body is None


def test_a_server_that_names_no_state_sends_all_each_time(loopback_server):
    url = loopback_server.set("list", behave.serve(b"list"))
    assert ask(url, None) == Fetched(body=b"list", validators=Validators())
    assert ask(url, KNOWN).body == b"list"


@pytest.mark.parametrize("validators", [None, Validators()])
def test_not_modified_without_a_condition_is_an_error(loopback_server, validators):
    url = loopback_server.set("list", behave.status(304))
    with pytest.raises(HttpStatusError) as caught:
        ask(url, validators)
    assert caught.value.context["status"] == 304
    assert len(loopback_server.requests) == 1


def test_not_modified_is_no_answer_to_other_requests(loopback_server):
    url = loopback_server.set("list", behave.status(304))
    with pytest.raises(HttpStatusError):
        loopback_client().get_bytes(url, limit_bytes=10)
    with pytest.raises(HttpStatusError):
        loopback_client().download(url, expected_size_bytes=1, sink=lambda _: None)


def test_what_a_304_says_beside_it_changes_nothing_that_is_known(loopback_server):
    url = loopback_server.set("list", lambda talk: talk.head(304, {"ETag": '"v9"', "Content-Length": "999999999"}))
    assert ask(url, KNOWN) == Fetched(body=None, validators=KNOWN)


def test_a_body_behind_a_304_is_nobodys(loopback_server):
    url = loopback_server.set(
        "list", behave.raw(b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx')
    )
    assert ask(url, KNOWN) == Fetched(body=None, validators=KNOWN)


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": "unquoted"},
        {"ETag": '"' + "x" * 600 + '"'},
        {"ETag": '"\x80"'},
        {"ETag": '"a\tb"'},
        {"Last-Modified": "yesterday"},
        {"Last-Modified": "Sun Nov  6 08:49:37 1994"},
    ],
)
def test_what_does_not_have_the_form_of_a_validator_is_not_kept(loopback_server, headers):
    url = loopback_server.set("list", behave.status(200, b"list", headers))
    assert ask(url, None) == Fetched(body=b"list", validators=Validators())


def test_two_tags_are_none(loopback_server):
    url = loopback_server.set(
        "list", behave.raw(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nETag: "b"\r\nContent-Length: 1\r\n\r\nx')
    )
    assert ask(url, None).validators == Validators()


def test_a_folded_tag_brings_no_header_of_its_own(loopback_server):
    url = loopback_server.set(
        "list", behave.raw(b'HTTP/1.1 200 OK\r\nETag: "a\r\n X-Evil: 1"\r\nContent-Length: 1\r\n\r\nx')
    )
    first = ask(url, None)
    assert first.validators == Validators()
    ask(url, first.validators)
    assert "X-Evil" not in loopback_server.requests[1].headers


def test_validators_are_for_the_url_that_was_asked_and_none_come_from_another(loopback_server):
    target = loopback_server.set("target", behave.conditional(b"list", etag=ETAG, last_modified=DATE))
    url = loopback_server.set("list", behave.redirect(target))
    assert ask(url, KNOWN) == Fetched(body=b"list", validators=Validators())
    asked, followed = loopback_server.requests
    assert asked.headers["If-None-Match"] == ETAG
    assert not {"If-None-Match", "If-Modified-Since"} & set(followed.headers)


def test_not_modified_from_where_a_redirect_leads_is_an_error(loopback_server):
    url = loopback_server.set("list", behave.redirect(loopback_server.set("target", behave.status(304))))
    with pytest.raises(HttpStatusError):
        ask(url, KNOWN)


@pytest.mark.threat("T48")
def test_the_limit_holds_for_what_changed(loopback_server):
    for bad in (behave.conditional(b"x" * 101, etag='"v2"'), behave.endless(), behave.chunked(b"x" * 101)):
        with pytest.raises(TransferTooLargeError):
            ask(loopback_server.set("list", bad), KNOWN)


@pytest.mark.threat("T46")
@pytest.mark.parametrize(
    "head",
    [
        b"X-A: " + b"x" * 100_000,
        b"\r\n".join(b"X-%d: 1" % number for number in range(200)),
        b"Content-Length: 1\r\nContent-Length: 2",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"no colon at all",
        b": empty",
        b"\x00\x01\xff",
    ],
)
def test_a_monstrous_head_costs_no_more_than_an_error_or_the_body(loopback_server, head):
    url = loopback_server.set("list", behave.raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\nx"))
    with contextlib.suppress(TransferError):
        assert ask(url, KNOWN, client=loopback_client(attempts=1)).body in {b"x", b""}


@pytest.mark.parametrize(
    "line", [b"", b"\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"SSH-2.0-x\r\n", b"x" * 70_000]
)
def test_what_is_no_http_is_an_error_that_says_so(loopback_server, line):
    with pytest.raises(TransferError, match="127"):
        ask(loopback_server.set("list", behave.raw(line)), None, client=loopback_client(attempts=1))


def test_an_answer_never_bleeds_into_the_next_request(loopback_server):
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    client = loopback_client()
    assert ask(loopback_server.set("a", behave.raw(poison)), None, client=client).body == b"good"
    assert ask(loopback_server.set("b", behave.serve(b"next")), None, client=client).body == b"next"
    assert {request.headers["Connection"] for request in loopback_server.requests} == {"close"}


def test_many_threads_share_a_client_and_none_gets_anothers_answer():
    with LoopbackServer(latency_seconds=0.005) as server:
        urls = [server.set(f"list/{number}", behave.serve(b"%d" % number)) for number in range(50)]
        client = loopback_client()
        start = threading.Barrier(16)

        def fetch(thread):
            start.wait()
            return [ask(urls[(thread + turn) % 50], None, client=client).body for turn in range(10)]

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(fetch, range(16)))
    assert found == [[b"%d" % ((thread + turn) % 50) for turn in range(10)] for thread in range(16)]


def test_two_hundred_conditional_requests_take_no_three_seconds():
    with LoopbackServer(latency_seconds=0.02) as server:
        url = server.set("list", behave.conditional(b"list", etag=ETAG))
        client = loopback_client()
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: ask(url, KNOWN, client=client).body, range(200)))
        assert time.monotonic() - started < 3
    assert found == [None] * 200


def test_one_server_that_is_gone_takes_nothing_from_the_others(loopback_server):
    url = loopback_server.set("list", behave.serve(b"list"))
    client = loopback_client(attempts=1)

    def fetch(number):
        try:
            return ask("http://127.0.0.1:1/" if number % 2 else url, None, client=client).body
        except UnreachableError:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fetch, range(40))) == [b"list", None] * 20


def test_the_file_server_of_the_kit_answers_conditions(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(b"list")
    with StaticServer(tmp_path) as server:
        first = ask(server.url("list"), None)
        assert first.body == b"list"
        assert ask(server.url("list"), first.validators).body is None
        path.write_bytes(b"other")
        assert ask(server.url("list"), first.validators).body == b"other"


def for_ever(head, piece):
    """Send ``piece`` again and again after ``head``."""

    def behaviour(talk):
        talk.body(head)
        while not talk.stopping.is_set():
            talk.body(piece)

    return behaviour


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.threat("T52")
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: 1\r\n"),
        (CHUNKED, b"1" * 65536),
        (CHUNKED + b"1;", b"x" * 65536),
        (CHUNKED + b"0\r\n", b"X-A: 1\r\n"),
        (CHUNKED, b"-1\r\n"),
        (CHUNKED, b"xyz\r\n"),
        (CHUNKED + b"1\r\nx", b"no end of a chunk"),
    ],
)
def test_what_never_ends_outside_the_body_costs_neither_memory_nor_time(loopback_server, head, piece):
    url = loopback_server.set("list", for_ever(head, piece))
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(TransferError):
            ask(url, KNOWN, client=loopback_client(attempts=1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024
    assert time.monotonic() - started < 10
