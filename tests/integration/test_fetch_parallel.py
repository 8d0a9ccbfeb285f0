# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading

import pytest

from coppice.cache.crew import Pace
from coppice.cache.partial import PartialFile
from coppice.cache.transfer import fetch_file
from coppice.model.checksum import Checksum
from coppice.testing import server as behave
from coppice.testing.client import loopback_client

pytestmark = pytest.mark.integration
DATA = os.urandom(6_000_000)
QUICK = Pace(sample_seconds=0.2, settle_seconds=0.1, split_bytes=256 * 1024)
SLOW = 2_000_000


def ranges_of(server):
    return [request.headers["Range"] for request in server.requests if "Range" in request.headers]


def fetch(server, behaviour, partial, **more):
    url = server.set("x", behaviour)
    settings = {name: more.pop(name) for name in list(more) if name in {"ranges_per_image", "connections_per_host"}}
    client = more.pop("client", None) or loopback_client(**settings)
    return fetch_file(
        [url],
        size_bytes=len(DATA),
        partial=partial,
        client=client,
        expected=Checksum.of(DATA),
        pace=QUICK,
        **more,
    )


def test_a_slow_connection_gets_help_that_pays(loopback_server, tmp_path):
    with PartialFile(tmp_path / "x") as partial:
        transfer = fetch(loopback_server, behave.Ranged(data=DATA, bytes_per_second=SLOW), partial)
    assert 2 <= transfer.most_at_once <= 4
    assert transfer.fetched_bytes < len(DATA) * 1.2
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_quick_connection_stays_alone(loopback_server, tmp_path):
    with PartialFile(tmp_path / "x") as partial:
        transfer = fetch(loopback_server, behave.Ranged(data=DATA), partial)
    assert (transfer.most_at_once, transfer.fetched_bytes, len(loopback_server.requests)) == (1, len(DATA), 1)


class Shared:
    """A server whose connections share one rate: more of them do not help."""

    def __init__(self, rate) -> None:
        self.rate = rate
        self.lock = threading.Lock()

    def __call__(self, talk) -> None:
        asked = talk.handler.headers.get("Range")
        start, end = (0, len(DATA)) if asked is None else [int(each) for each in asked[6:].split("-")]
        end = end + 1 if asked else end
        head = {"ETag": '"one"', "Accept-Ranges": "bytes", "Content-Length": str(end - start)}
        if asked:
            head["Content-Range"] = f"bytes {start}-{end - 1}/{len(DATA)}"
        talk.head(206 if asked else 200, head)
        step = self.rate // 50
        for position in range(start, end, step):
            with self.lock:
                talk.pause(step / self.rate)
            talk.body(DATA[position : min(position + step, end)])


def test_a_connection_that_does_not_pay_is_the_last(loopback_server, tmp_path):
    with PartialFile(tmp_path / "x") as partial:
        transfer = fetch(loopback_server, Shared(SLOW), partial)
    assert transfer.most_at_once == 2


@pytest.mark.parametrize("without", [{"etag": None}, {"etag": 'W/"one"'}])
def test_without_a_strong_validator_nothing_is_fetched_side_by_side(loopback_server, tmp_path, without):
    with PartialFile(tmp_path / "x") as partial:
        transfer = fetch(loopback_server, behave.Ranged(data=DATA, bytes_per_second=SLOW, **without), partial)
    assert transfer.most_at_once == 1


def test_the_limit_of_connections_to_a_host_leaves_one_for_others(loopback_server, tmp_path):
    with PartialFile(tmp_path / "x") as partial:
        slow = behave.Ranged(data=DATA, bytes_per_second=SLOW)
        transfer = fetch(loopback_server, slow, partial, connections_per_host=2)
    assert transfer.most_at_once <= 2
    with PartialFile(tmp_path / "y") as partial:
        transfer = fetch(loopback_server, slow, partial, connections_per_host=1)
    assert transfer.most_at_once == 1


@pytest.mark.threat("T50")
@pytest.mark.parametrize("lie", ["ignored", "shifted", "unsaid", "other-total", "refused"])
def test_a_server_that_gives_wrong_parts_is_read_by_one_connection(loopback_server, tmp_path, lie):
    with PartialFile(tmp_path / "x") as partial:
        fetch(loopback_server, behave.Ranged(data=DATA, bytes_per_second=SLOW, lie=lie), partial)
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.threat("T50")
def test_a_file_that_changes_between_ranges_is_begun_anew(loopback_server, tmp_path):
    old = behave.Ranged(data=bytes(len(DATA)), etag='"old"', bytes_per_second=SLOW, lie="no-if-range")
    new = behave.Ranged(data=DATA, etag='"new"', lie="no-if-range")
    with PartialFile(tmp_path / "x") as partial:
        fetch(loopback_server, behave.in_turn(old, new), partial)
    assert (tmp_path / "x").read_bytes() == DATA


class Farm:
    """Servers behind one name, each with another tag for the same file."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, talk) -> None:
        self.count += 1
        behave.Ranged(data=DATA, etag=f'"{self.count}"', bytes_per_second=SLOW)(talk)


def test_servers_that_do_not_agree_on_a_tag_are_read_by_one_connection(loopback_server, tmp_path):
    with PartialFile(tmp_path / "x") as partial:
        transfer = fetch(loopback_server, Farm(), partial)
    assert transfer.attempts == 1
    assert (tmp_path / "x").read_bytes() == DATA
