# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from coppice.errors import HttpStatusError, TransferCutError, TransferError
from coppice.http.message import Validators
from coppice.testing import server as behave
from coppice.testing.client import loopback_client
from coppice.testing.server import LoopbackServer, throw_away_tls

pytestmark = pytest.mark.integration
DATA = os.urandom(1_000_000)
RANGES = [(1000, 500), (1500, 300_000), (700_000, 1), (999_990, 10)]


class Sink:
    """Takes pieces, and compares them."""

    def __init__(self) -> None:
        self.size = 0
        self.places: list[int] = []

    def __call__(self, start, piece) -> None:
        assert DATA[start : start + len(piece)] == piece
        self.places.append(start)
        self.size += len(piece)


def read(url, sink, ranges=RANGES, **more):
    size = more.pop("size", len(DATA))
    return loopback_client(**more).read_ranges(url, ranges, size_bytes=size, sink=sink)


def test_ranges_come_in_order_and_those_that_touch_in_one_request(loopback_server):
    sink = Sink()
    assert read(loopback_server.set("x", behave.Ranged(data=DATA)), sink) == 300_511
    assert sink.places == sorted(sink.places)
    assert [request.headers["Range"] for request in loopback_server.requests] == [
        "bytes=1000-301499",
        "bytes=700000-700000",
        "bytes=999990-999999",
    ]
    assert [request.headers.get("If-Range") for request in loopback_server.requests] == [None, '"one"', '"one"']


def test_a_range_that_was_cut_is_gone_on_with(loopback_server):
    sink = Sink()
    assert read(loopback_server.set("x", behave.Ranged(data=DATA, cut_after=150_000)), sink) == 300_511
    assert loopback_server.requests[1].headers["Range"] == "bytes=151000-301499"


@pytest.mark.threat("T50")
@pytest.mark.parametrize("lie", ["ignored", "shifted", "unsaid", "other-total", "refused", "longer"])
def test_a_wrong_answer_is_an_error_and_never_wrong_bytes(loopback_server, lie):
    sink = Sink()
    with pytest.raises((TransferCutError, HttpStatusError)):
        read(loopback_server.set("x", behave.Ranged(data=DATA, lie=lie)), sink)
    assert sink.size <= 300_500
    assert len(loopback_server.requests) == 1


@pytest.mark.threat("T50")
@pytest.mark.parametrize("lie", ["", "no-if-range"])
def test_a_file_that_changes_between_ranges_is_an_error(loopback_server, lie):
    sink = Sink()
    changed = behave.Ranged(data=bytes(len(DATA)), etag='"two"', lie=lie)
    url = loopback_server.set("x", behave.in_turn(behave.Ranged(data=DATA), changed))
    with pytest.raises(TransferCutError) as caught:
        read(url, sink)
    assert caught.value.context["restart"]
    assert sink.size == 300_500


def test_a_state_that_is_known_from_before_counts(loopback_server):
    url = loopback_server.set("x", behave.Ranged(data=DATA, lie="no-if-range"))
    known = Validators(etag='"other"')
    with pytest.raises(TransferCutError):
        loopback_client().read_ranges(url, RANGES, size_bytes=len(DATA), sink=Sink(), known=known)


@pytest.mark.threat("T54")
def test_parts_are_asked_for_with_the_credential_of_their_server_alone(tmp_path):
    from coppice.http import Credential

    tls, trusted = throw_away_tls(tmp_path)
    with LoopbackServer(tls=tls) as own, LoopbackServer(tls=tls) as other:
        url = own.set("x", behave.redirect(other.set("x", behave.Ranged(data=DATA))))
        loopback_client(ca_file=trusted).read_ranges(
            url, RANGES, size_bytes=len(DATA), sink=Sink(), credential=Credential.bearer("sesame")
        )
        assert all(request.headers["Authorization"] == "Bearer sesame" for request in own.requests)
        assert all("Authorization" not in request.headers for request in other.requests)
        assert all("Range" in request.headers for request in other.requests)


@pytest.mark.parametrize("ranges", [[(0, 0)], [(10, 5), (0, 5)], [(0, 10), (5, 10)], [(0, -1)]])
def test_ranges_out_of_order_are_a_mistake(ranges):
    with pytest.raises(ValueError, match="range"):
        read("http://127.0.0.1:1/x", Sink(), ranges)


def test_a_server_that_is_not_there_is_an_error_of_the_transfer():
    with pytest.raises(TransferError):
        read("http://127.0.0.1:1/x", Sink())


def test_a_head_that_claims_thousands_of_digits_is_no_range(loopback_server):
    def boast(talk):
        talk.whole(206, {"Content-Range": f"bytes 1000-{'9' * 5000}/*", "Content-Length": "1"}, b"x")

    with pytest.raises(TransferCutError):
        read(loopback_server.set("x", boast), Sink())
