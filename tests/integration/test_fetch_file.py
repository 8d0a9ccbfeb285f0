# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from coppice.cache.origin import places_of, read_ranges_of
from coppice.cache.partial import PartialFile, progress_path
from coppice.cache.transfer import fetch_file
from coppice.errors import (
    AddressRefusedError,
    ChecksumMismatchError,
    HttpStatusError,
    NoSpaceError,
    RedirectRefusedError,
    SizeMismatchError,
    TransferCutError,
    TransferError,
    TransferStalledError,
    TransferTooLargeError,
    UnreachableError,
)
from coppice.http import Client
from coppice.http.access import Access
from coppice.model.checksum import Checksum
from coppice.model.credential import CredentialKind, CredentialReference
from coppice.testing import server as behave
from coppice.testing.client import LOOPBACK_SETTINGS, loopback_client
from coppice.testing.server import LoopbackServer, StaticServer, throw_away_tls

pytestmark = pytest.mark.integration
DATA = os.urandom(3_000_000)
SIZE = len(DATA)
SIGNED = Checksum.of(DATA)


@pytest.fixture
def partial(tmp_path):
    with PartialFile(tmp_path / "partial" / "x") as found:
        yield found


def fetch(uris, partial, *, size=SIZE, expected=SIGNED, client=None, **more):
    given = [uris] if isinstance(uris, str) else uris
    known = {
        name: more.pop(name) for name in list(more) if name in {"accesses", "task", "allow_file_uris", "max_bytes"}
    }
    return fetch_file(
        given, size_bytes=size, partial=partial, client=client or loopback_client(**more), expected=expected, **known
    )


def ranges_of(server):
    return [request.headers.get("Range") for request in server.requests]


class Notes:
    def __init__(self) -> None:
        self.texts = []

    def advance(self, amount):
        pass

    def reach(self, amount, total=None):
        pass

    def note(self, text):
        self.texts.append(text)


@pytest.mark.threat("T46")
@pytest.mark.parametrize("share", [0, 1 / len(DATA), 0.5, 0.999])
@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_body_is_gone_on_with_from_where_it_ended(loopback_server, partial, share, reset):
    after = int(len(DATA) * share)
    cut = behave.Ranged(data=DATA, cut_after=after)
    first = behave.in_turn(behave.cut(DATA, after, reset=reset), behave.Ranged(data=DATA)) if reset else None
    url = loopback_server.set("x", first or behave.in_turn(cut, behave.Ranged(data=DATA)))
    transfer = fetch(url, partial)
    assert partial.path.read_bytes() == DATA
    assert len(loopback_server.requests) == 2
    if after and not reset:
        assert ranges_of(loopback_server) == [None, f"bytes={after}-{len(DATA) - 1}"]
        assert loopback_server.requests[1].headers["If-Range"] == '"one"'
        assert transfer.fetched_bytes == len(DATA)


@pytest.mark.threat("T46")
def test_a_body_cut_within_a_chunk_is_tried_again(loopback_server, partial):
    url = loopback_server.set("x", behave.in_turn(behave.chunked(DATA, cut_after=1_500_000), behave.Ranged(data=DATA)))
    fetch(url, partial)
    assert partial.path.read_bytes() == DATA


@pytest.mark.threat("T46")
def test_attempts_that_bring_nothing_are_counted_with_pauses_that_grow(loopback_server, partial):
    pauses = []
    client = Client(LOOPBACK_SETTINGS, sleep=pauses.append)
    with pytest.raises(TransferCutError):
        fetch(loopback_server.set("x", behave.Ranged(data=DATA, cut_after=0)), partial, client=client)
    assert len(loopback_server.requests) == LOOPBACK_SETTINGS.attempts
    assert 0 < pauses[0] < 1.01
    assert pauses[1] > 0.49


@pytest.mark.threat("T46")
def test_a_server_that_cuts_every_connection_is_worn_down(loopback_server, partial):
    url = loopback_server.set("x", behave.Ranged(data=DATA, cut_after=1_100_000))
    transfer = fetch(url, partial, attempts=1)
    assert (transfer.fetched_bytes, transfer.attempts) == (len(DATA), 3)


@pytest.mark.threat("T47")
@pytest.mark.parametrize("body", [behave.without_length(DATA[:-1]), behave.chunked(DATA[:-1])])
def test_what_ends_early_without_a_word_is_noticed_by_the_signed_size(loopback_server, partial, body):
    with pytest.raises(TransferCutError):
        fetch(loopback_server.set("x", body), partial)


@pytest.mark.threat("T47")
@pytest.mark.threat("T49")
def test_a_server_that_says_itself_that_its_file_is_shorter_is_not_read(loopback_server, partial):
    with pytest.raises(SizeMismatchError, match=f"{len(DATA) - 1} bytes"):
        fetch(loopback_server.set("x", behave.serve(DATA[:-1])), partial)
    assert partial.total_bytes == 0


@pytest.mark.threat("T48")
@pytest.mark.parametrize("body", [behave.endless(), behave.without_length(DATA + bytes(2_000_000))])
def test_an_endless_body_is_left_at_the_signed_size(loopback_server, partial, body):
    written = []
    real = partial.write
    partial.write = lambda start, piece: (written.append(start + len(piece)), real(start, piece))
    with pytest.raises(TransferTooLargeError):
        fetch(loopback_server.set("x", body), partial)
    assert max(written, default=0) <= len(DATA)
    assert partial.total_bytes == 0


@pytest.mark.threat("T48")
def test_a_part_that_is_longer_than_it_says_goes_no_further(loopback_server, partial):
    partial.append(DATA[:1_000_000])
    longer = behave.Ranged(data=DATA[:2_900_000] + b"x" * 100_000, lie="longer")
    with pytest.raises((TransferTooLargeError, ChecksumMismatchError)):
        fetch(loopback_server.set("x", longer), partial)
    assert partial.total_bytes == 0


@pytest.mark.threat("T49")
def test_the_signed_size_counts_even_where_the_checksum_is_right(loopback_server, partial):
    url = loopback_server.set("x", behave.serve(DATA))
    for size, error in ((len(DATA) - 1, TransferTooLargeError), (len(DATA) + 1, SizeMismatchError)):
        with pytest.raises(error):
            fetch(url, partial, size=size)


@pytest.mark.threat("T50")
@pytest.mark.parametrize("lie", ["ignored", "shifted", "unsaid", "other-total", "refused"])
def test_a_wrong_answer_to_a_request_for_a_part_begins_anew(loopback_server, partial, lie):
    partial.append(bytes(1_000_000))
    fetch(loopback_server.set("x", behave.Ranged(data=DATA, lie=lie)), partial)
    assert partial.path.read_bytes() == DATA
    asked = ranges_of(loopback_server)
    assert asked[0] == f"bytes=1000000-{len(DATA) - 1}"
    assert asked[1:] == ([] if lie == "ignored" else [None])


@pytest.mark.threat("T50")
@pytest.mark.parametrize("lie", ["", "no-if-range"])
def test_a_file_that_changed_since_the_first_half_is_begun_anew(loopback_server, partial, lie):
    other = os.urandom(len(DATA))
    old = behave.Ranged(data=other, etag='"old"', cut_after=1_500_000)
    new = behave.Ranged(data=DATA, etag='"new"', lie=lie)
    transfer = fetch(loopback_server.set("x", behave.in_turn(old, new)), partial)
    assert partial.path.read_bytes() == DATA
    assert loopback_server.requests[1].headers["If-Range"] == '"old"'
    assert transfer.fetched_bytes == 1_500_000 + len(DATA)


@pytest.mark.threat("T50")
@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_the_checksum_notices_a_splice_and_it_is_fetched_once_more(
    loopback_server, partial, etag
):
    old = behave.Ranged(data=bytes(len(DATA)), etag=etag, cut_after=1_500_000)
    new = behave.Ranged(data=DATA, etag=etag)
    fetch(loopback_server.set("x", behave.in_turn(old, new)), partial)
    assert partial.path.read_bytes() == DATA
    assert ranges_of(loopback_server) == [None, f"bytes=1500000-{len(DATA) - 1}", None]
    assert all("If-Range" not in request.headers for request in loopback_server.requests)


@pytest.mark.threat("T50")
def test_what_stays_wrong_is_fetched_from_its_beginning_once_and_then_refused(loopback_server, partial):
    partial.append(bytes(1_000_000))
    with pytest.raises(ChecksumMismatchError):
        fetch(loopback_server.set("x", behave.Ranged(data=bytes(len(DATA)))), partial)
    assert len(loopback_server.requests) == 2
    assert partial.total_bytes == 0


@pytest.mark.threat("T51")
@pytest.mark.parametrize("compress", [False, True])
def test_an_encoding_that_was_not_asked_for_is_not_undone(loopback_server, partial, compress):
    url = loopback_server.set("x", behave.gzip_encoded(DATA, compress=compress))
    if compress:
        with pytest.raises((TransferTooLargeError, SizeMismatchError, ChecksumMismatchError)):
            fetch(url, partial)
    else:
        fetch(url, partial)
        assert partial.path.read_bytes() == DATA
    assert all(request.headers["Accept-Encoding"] == "identity" for request in loopback_server.requests)


@pytest.mark.threat("T51")
def test_a_compressed_image_stays_compressed(loopback_server, partial):
    packed = gzip.compress(DATA)
    url = loopback_server.set("x.gz", behave.gzip_encoded(packed, compress=False))
    fetch(url, partial, size=len(packed), expected=Checksum.of(packed))
    assert partial.path.read_bytes() == packed


@pytest.mark.threat("T52")
@pytest.mark.parametrize(
    "slow",
    [
        behave.Ranged(data=DATA, stall_after=400_000),
        behave.drip(DATA, 0.05),
        behave.drip_head(0.05),
        behave.stall(DATA, 0),
    ],
)
def test_a_slow_server_is_given_up_while_another_image_arrives(loopback_server, tmp_path, slow):
    client = loopback_client(read_timeout_seconds=1.0, attempts=1)

    def one(name, behaviour):
        with PartialFile(tmp_path / name) as partial:
            fetch(loopback_server.set(name, behaviour), partial, client=client)
            return time.monotonic()

    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(one, "bad", slow)
        good = pool.submit(one, "good", behave.Ranged(data=DATA, bytes_per_second=6_000_000))
        assert good.result() - started < 5
        with pytest.raises(TransferStalledError):
            bad.result()
    assert time.monotonic() - started < 15


@pytest.mark.threat("T52")
def test_what_falls_silent_half_way_is_gone_on_with(loopback_server, partial):
    half = behave.Ranged(data=DATA, stall_after=len(DATA) // 2)
    transfer = fetch(loopback_server.set("x", half), partial, read_timeout_seconds=0.5, attempts=1)
    assert (transfer.fetched_bytes, len(loopback_server.requests)) == (len(DATA), 2)


@pytest.mark.threat("T52")
def test_a_tls_handshake_that_hangs_is_given_up(partial):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises((TransferStalledError, UnreachableError)):
            fetch(f"https://127.0.0.1:{listener.getsockname()[1]}/x", partial, attempts=1)
        assert time.monotonic() - started < 5


@pytest.mark.threat("T52")
def test_the_time_in_all_counts_over_attempts_and_mirrors(loopback_server, partial):
    slow = behave.Ranged(data=DATA, bytes_per_second=200_000)
    uris = [loopback_server.set(name, slow) for name in "ab"]
    started = time.monotonic()
    with pytest.raises(TransferStalledError):
        fetch(uris, partial, total_timeout_seconds=1.0)
    assert time.monotonic() - started < 3
    assert partial.total_bytes > 0


@pytest.mark.threat("T52")
def test_a_mirror_that_is_just_quick_enough_does_not_use_up_the_time_of_the_others(loopback_server, partial):
    drip = loopback_server.set("a", behave.Ranged(data=DATA, bytes_per_second=200_000))
    good = loopback_server.set("b", behave.Ranged(data=DATA))
    transfer = fetch([drip, good], partial, total_timeout_seconds=2.0)
    assert partial.path.read_bytes() == DATA
    assert transfer.fetched_bytes == len(DATA)


@pytest.mark.threat("T50")
def test_what_is_here_and_longer_than_the_file_is_not_gone_on_with(loopback_server, partial):
    # The same digest with another size, as another list may have it.
    partial.append(DATA + b"more")
    fetch(loopback_server.set("x", behave.Ranged(data=DATA)), partial)
    assert partial.path.read_bytes() == DATA


@pytest.mark.threat("T53")
@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/", "data:,x", "/x"])
def test_redirects_that_may_not_be_followed(loopback_server, partial, target):
    with pytest.raises(RedirectRefusedError):
        fetch(loopback_server.set("x", behave.redirect(target)), partial)
    assert len(loopback_server.requests) <= 6


@pytest.mark.threat("T53")
@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:a9fe:a9fe]"]
)
@pytest.mark.parametrize("has_bytes", [False, True])
def test_neither_an_address_nor_a_redirect_leads_to_metadata(loopback_server, partial, host, has_bytes):
    if has_bytes:
        partial.append(DATA[:1000])
    with pytest.raises(AddressRefusedError):
        fetch(f"http://{host}/x", partial)
    with pytest.raises(AddressRefusedError):
        fetch(loopback_server.set("x", behave.redirect(f"http://{host}/x")), partial)


@pytest.mark.threat("T53")
def test_a_name_is_resolved_anew_and_judged_for_each_part(loopback_server, partial):
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    url = loopback_server.set("x", behave.Ranged(data=DATA, cut_after=1_000_000)).replace("127.0.0.1", "m.example")
    client = loopback_client(resolver=lambda *_: answers.pop(0) if len(answers) > 1 else answers[0])
    with pytest.raises(AddressRefusedError):
        fetch(url, partial, client=client)
    assert len(loopback_server.requests) == 1


@pytest.mark.threat("T53")
def test_https_does_not_lead_to_http(loopback_server, partial, tmp_path):
    tls, trusted = throw_away_tls(tmp_path)
    with LoopbackServer(tls=tls) as server:
        url = server.set("x", behave.redirect(loopback_server.set("x", behave.serve(DATA))))
        with pytest.raises(RedirectRefusedError):
            fetch(url, partial, ca_file=trusted)
    assert loopback_server.requests == []


@pytest.mark.threat("T54")
def test_a_credential_goes_to_its_own_server_with_every_part_and_to_no_mirror_and_no_redirect(tmp_path, partial):
    (tmp_path / "token").write_text("sesame-open")
    (tmp_path / "token").chmod(0o600)
    reference = CredentialReference(kind=CredentialKind.BEARER, secret_file=tmp_path / "token")
    tls, trusted = throw_away_tls(tmp_path)
    with LoopbackServer(tls=tls) as own, LoopbackServer(tls=tls) as mirror, LoopbackServer(tls=tls) as third:
        elsewhere = third.set("x", behave.Ranged(data=DATA, cut_after=900_000))
        uris = [
            mirror.set("x", behave.status(404)),
            own.set("moved", behave.redirect(elsewhere)),
            own.set("x", behave.guarded("Bearer sesame-open", behave.Ranged(data=DATA, cut_after=1_500_000))),
        ]
        notes = Notes()
        accesses = [Access(url=own.url("list"), credential=reference)]
        transfer = fetch(uris, partial, ca_file=trusted, accesses=accesses, task=notes, attempts=1)
        assert {request.headers.get("Authorization") for request in own.requests} == {"Bearer sesame-open"}
        assert len([request for request in own.requests if request.path == "/x"]) == 2
        assert all("Authorization" not in request.headers for request in mirror.requests + third.requests)
        assert len(third.requests) > 0
    assert "sesame" not in repr(transfer) + "".join(notes.texts) + progress_path(partial.path).read_text()


@pytest.mark.threat("T56")
def test_other_bytes_are_thrown_away_and_the_next_address_is_asked(loopback_server, partial):
    wrong = loopback_server.set("wrong", behave.Ranged(data=bytes(len(DATA))))
    notes = Notes()
    transfer = fetch([wrong, loopback_server.set("right", behave.Ranged(data=DATA))], partial, task=notes)
    assert partial.path.read_bytes() == DATA
    assert transfer.failures[0][0] == wrong
    assert any("asking" in text for text in notes.texts)
    assert ranges_of(loopback_server) == [None, None]


@pytest.mark.threat("T56")
def test_other_bytes_from_everywhere_leave_nothing(loopback_server, partial):
    with pytest.raises(ChecksumMismatchError) as caught:
        fetch([loopback_server.set(name, behave.serve(bytes(len(DATA)))) for name in "ab"], partial)
    assert partial.total_bytes == 0
    assert "/a" in caught.value.details


@pytest.mark.threat("T57")
@pytest.mark.parametrize(
    "name", ["a b", "a'b\"c", "x;touch y", "$(id)", "`id`", "ä€😀", "%2e%2e/x", "..;/x", "a\\b", "<x>|&"]
)
def test_an_odd_address_reaches_the_server_as_one_path(loopback_server, partial, tmp_path, name):
    before = sorted(Path.cwd().iterdir())
    served = []

    def answer(talk):
        served.append(talk.handler.path)
        talk.whole(200, {"Content-Length": str(len(DATA))}, DATA)

    loopback_server._behaviours = dict.fromkeys([""], answer)
    loopback_server._behaviours = type("Any", (dict,), {"get": lambda *_: answer})()
    fetch(loopback_server.url(name), partial)
    assert len(served) == 1
    assert not set(' "<>`\\') & set(served[0])
    assert served[0].isascii()
    assert sorted(Path.cwd().iterdir()) == before


@pytest.mark.threat("T57")
@pytest.mark.parametrize("name", ["a\nb", "a\r\nHost: x", "a\0b", "a\x1b[31mb", "a\u2028b", "x" * 10_240])
@pytest.mark.parametrize("scheme", ["http", "file", "s3", "sftp", "oci"])
def test_an_address_with_control_characters_or_without_end_is_refused(partial, name, scheme):
    with pytest.raises(AddressRefusedError) as caught:
        fetch(f"{scheme}://127.0.0.1/{name}", partial, allow_file_uris=True)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("uri", ["ftp://x/y", "data:,x", "gopher://x", "x", "", "javascript:1", "http://[", "//x/y"])
def test_addresses_of_other_kinds_are_refused(partial, uri):
    with pytest.raises(AddressRefusedError):
        fetch(uri, partial)


def test_addresses_are_asked_in_order_and_each_failure_is_told(loopback_server, partial):
    uris = [
        loopback_server.set("gone", behave.status(404)),
        "http://127.0.0.1:1/x",
        loopback_server.set("shorter", behave.serve(DATA[:10])),
        loopback_server.set("broken", behave.status(500)),
        loopback_server.set("good", behave.Ranged(data=DATA)),
    ]
    transfer = fetch(uris, partial, attempts=2)
    assert [shown for shown, _ in transfer.failures] == uris[:4]
    assert [request.path for request in loopback_server.requests] == [
        "/gone",
        "/shorter",
        "/broken",
        "/broken",
        "/good",
    ]
    with pytest.raises(HttpStatusError) as caught:
        fetch(uris[:4], partial.__class__(partial.path.with_name("y")), attempts=1)
    assert all(uri in caught.value.details for uri in uris[:4])


def test_what_one_mirror_began_another_one_ends(loopback_server, partial):
    uris = [
        loopback_server.set("one", behave.Ranged(data=DATA, cut_after=1_200_000)),
        loopback_server.set("two", behave.in_turn(behave.Ranged(data=DATA))),
    ]
    client = loopback_client(attempts=1)
    client.attempts.most = 0
    transfer = fetch(uris, partial, client=client)
    assert transfer.fetched_bytes == len(DATA)
    assert "If-Range" not in loopback_server.requests[1].headers


def test_the_mirrors_of_the_site_are_asked_first():
    settings = loopback_client(
        mirrors={"https://images.example.org/pub": ("https://near.example.net/m/", "https://far.example.net")}
    ).settings
    assert places_of(
        ["https://images.example.org/pub/a.img", "https://images.example.org/public/b", "https://x.example/c"], settings
    ) == (
        "https://near.example.net/m/a.img",
        "https://far.example.net/a.img",
        "https://images.example.org/pub/a.img",
        "https://images.example.org/public/b",
        "https://x.example/c",
    )


def test_parts_are_read_from_the_next_place_where_the_first_one_ended(loopback_server):
    got = bytearray()
    one = loopback_server.set("one", behave.in_turn(behave.Ranged(data=DATA, cut_after=1000), behave.status(404)))
    two = loopback_server.set("two/x", behave.Ranged(data=DATA))
    client = loopback_client(mirrors={"https://images.example.org/": (one.removesuffix("one") + "two",)})
    ranges = [(10, 2000), (5000, 100)]
    size = read_ranges_of(
        [one, two], ranges, size_bytes=len(DATA), sink=lambda _, piece: got.extend(piece), client=client
    )
    assert bytes(got) == DATA[10:2010] + DATA[5000:5100]
    assert size == 2100
    assert [request.headers["Range"] for request in loopback_server.requests[-2:]] == [
        "bytes=1010-2009",
        "bytes=5000-5099",
    ]
    got.clear()
    read_ranges_of(
        ["https://images.example.org/x"],
        [(0, 5)],
        size_bytes=len(DATA),
        sink=lambda _, piece: got.extend(piece),
        client=client,
    )
    assert bytes(got) == DATA[:5]


@pytest.mark.parametrize("said", ["1", "date"])
@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_asks_for_patience_gets_it(loopback_server, partial, code, said):
    pauses = []
    now = datetime.now(UTC)
    value = said if said != "date" else format_datetime(now + timedelta(seconds=1), usegmt=True)
    busy = behave.status(code, headers={"Retry-After": value})
    client = Client(LOOPBACK_SETTINGS, sleep=pauses.append)
    fetch(loopback_server.set("x", behave.in_turn(busy, behave.serve(DATA))), partial, client=client)
    assert pauses[0] >= (1 if said != "date" else 0.25)


def test_a_server_that_asks_for_too_much_patience_is_left_for_the_next(loopback_server, partial):
    busy = loopback_server.set("busy", behave.status(503, headers={"Retry-After": "100000"}))
    fetch([busy, loopback_server.set("x", behave.serve(DATA))], partial)
    assert len(loopback_server.requests) == 2


def test_the_bandwidth_is_shared_by_all_images(loopback_server, tmp_path):
    client = Client(
        type(LOOPBACK_SETTINGS)(
            **{
                **{name: getattr(LOOPBACK_SETTINGS, name) for name in LOOPBACK_SETTINGS.__slots__},
                "bandwidth_limit_bytes_per_second": 3_000_000,
            }
        )
    )

    def one(name):
        with PartialFile(tmp_path / name) as partial:
            fetch(loopback_server.set(name, behave.serve(DATA)), partial, client=client)

    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, "ab"))
    assert 1.4 < time.monotonic() - started < 4


def test_a_host_gets_no_more_connections_than_it_may(loopback_server, tmp_path):
    now, most, lock = [0], [0], threading.Lock()

    def count(talk):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        talk.pause(0.1)
        with lock:
            now[0] -= 1
        talk.whole(200, {"Content-Length": str(len(DATA))}, DATA)

    client = loopback_client(connections_per_host=2)
    url = loopback_server.set("x", count)

    def one(name):
        with PartialFile(tmp_path / name) as partial:
            fetch(url, partial, client=client)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, "abcdef"))
    assert most[0] == 2


def test_a_file_of_unknown_size_has_a_bound(loopback_server, partial):
    url = loopback_server.set("x", behave.Ranged(data=DATA))
    assert fetch(url, partial, size=None).checksums["sha512"] == SIGNED
    partial.restart()
    with pytest.raises(TransferTooLargeError):
        fetch(url, partial, size=None, max_bytes=1_000_000)


def test_a_file_of_unknown_size_is_gone_on_with(loopback_server, partial):
    url = loopback_server.set(
        "x", behave.in_turn(behave.Ranged(data=DATA, cut_after=2_000_000), behave.Ranged(data=DATA))
    )
    assert fetch(url, partial, size=None).fetched_bytes == len(DATA)


def test_files_of_this_machine_are_read_only_where_that_is_allowed(tmp_path, partial):
    (tmp_path / "a b").write_bytes(DATA)
    uri = (tmp_path / "a b").as_uri()
    with pytest.raises(AddressRefusedError):
        fetch(uri, partial)
    fetch(uri, partial, allow_file_uris=True)
    assert partial.path.read_bytes() == DATA
    (tmp_path / "link").symlink_to(tmp_path / "a b")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "nothing", ""):
        partial.restart()
        with pytest.raises(TransferError):
            fetch((tmp_path / name).as_uri(), partial, allow_file_uris=True)


@pytest.mark.threat("T80")
def test_a_full_disk_ends_it_and_asks_no_other_mirror(loopback_server, partial, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    uris = [loopback_server.set(name, behave.Ranged(data=DATA)) for name in "ab"]
    with pytest.raises(NoSpaceError):
        fetch(uris, partial)
    assert len(loopback_server.requests) == 1


def test_a_file_of_a_plain_web_server_is_fetched(tmp_path, partial):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "x").write_bytes(DATA)
    with StaticServer(tmp_path / "root") as server:
        fetch(server.url("x"), partial)
    assert partial.path.read_bytes() == DATA


CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from coppice.cache.crew import Pace
    from coppice.cache.partial import PartialFile
    from coppice.cache.transfer import fetch_file
    from coppice.testing.client import loopback_client

    url, path, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    pace = Pace(sample_seconds=0.15, settle_seconds=0.05, split_bytes=256 * 1024)
    with PartialFile(path) as partial:
        fetch_file([url], size_bytes=size, partial=partial, client=loopback_client(), pace=pace)
    """
)


@pytest.mark.threat("T79")
@pytest.mark.parametrize("rate", [None, 1_500_000])
def test_killed_at_any_time_it_fetches_nothing_twice_that_was_written(loopback_server, tmp_path, rate):
    data = os.urandom(12_000_000)
    url = loopback_server.set("x", behave.Ranged(data=data, bytes_per_second=rate or 6_000_000))
    path = tmp_path / "x"
    argv = [sys.executable, "-c", CHILD, url, str(path), str(len(data))]
    if rate is None:
        # One connection alone: a pace that never grows.
        argv[2] = CHILD.replace("sample_seconds=0.15", "sample_seconds=1000")
    kills, missing = 0, [(0, len(data))]
    for wait in (1.2, 1.5, 1.8, 1.3):
        loopback_server.requests.clear()
        child = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        ended = child.wait() == 0
        assert all(within(request.headers.get("Range"), missing, len(data)) for request in loopback_server.requests)
        with PartialFile(path) as partial:
            missing = partial.gaps(len(data))
        kills += not ended
        if not missing:
            break
    loopback_server.requests.clear()
    with PartialFile(path) as partial:
        transfer = fetch(url, partial, size=len(data), expected=Checksum.of(data))
    assert all(within(request.headers.get("Range"), missing, len(data)) for request in loopback_server.requests)
    assert path.read_bytes() == data
    assert kills
    assert transfer.fetched_bytes == sum(end - start for start, end in missing)


def within(asked, missing, size):
    """Whether what was asked for was missing before."""
    start, end = (0, size - 1) if asked is None else (int(each) for each in asked.removeprefix("bytes=").split("-"))
    return any(first <= start and end < behind for first, behind in missing)
