# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from coppice.clock import FixedClock
from coppice.errors import HttpStatusError, TransferCutError
from coppice.http.attempts import Attempts
from coppice.http.pace import Bandwidth, HostLimits

pytestmark = pytest.mark.unit


@pytest.fixture
def clock():
    return FixedClock(datetime(2026, 1, 1, tzinfo=UTC))


def test_bytes_are_paid_for_at_the_rate_that_is_set(clock):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        clock.advance(timedelta(seconds=seconds))

    bandwidth = Bandwidth(1000, clock=clock, sleep=sleep)
    started = clock.monotonic()
    for _ in range(20):
        bandwidth.pay(500)
    assert clock.monotonic() - started == pytest.approx(9.5)
    assert max(slept) <= 0.5


def test_time_in_which_nothing_came_is_not_saved_up(clock):
    slept = []
    bandwidth = Bandwidth(1000, clock=clock, sleep=slept.append)
    clock.advance(timedelta(hours=1))
    bandwidth.pay(1500)
    assert slept == [pytest.approx(1.0)]


def test_without_a_limit_nobody_waits(clock):
    bandwidth = Bandwidth(None, clock=clock, sleep=lambda _: pytest.fail("waited"))
    bandwidth.pay(10**12)
    assert bandwidth.piece_bytes(1_000_000) == 1_000_000


def test_a_low_limit_is_read_in_small_pieces(clock):
    assert Bandwidth(10_000, clock=clock).piece_bytes(1_000_000) == 2500
    assert Bandwidth(1, clock=clock).piece_bytes(1_000_000) == 1024


def test_each_host_has_its_own_connections():
    hosts = HostLimits(1)
    assert hosts.take("a", wait_seconds=0)
    assert not hosts.take("a", wait_seconds=0)
    assert hosts.take("b", wait_seconds=0)
    hosts.give_back("a")
    assert hosts.free("a") == 1
    assert hosts.take("a", wait_seconds=0)


def run(error, most=3, **more):
    slept, calls = [], []
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    attempts = Attempts(most, clock=clock, sleep=slept.append)

    def work(deadline):
        calls.append(deadline)
        raise error

    with pytest.raises(type(error)):
        attempts.run(work, deadline=clock.monotonic() + more.get("seconds", 1000))
    return len(calls), slept


@pytest.mark.threat("T46")
def test_attempts_are_counted_and_pauses_grow_and_differ():
    calls, slept = run(TransferCutError("cut"), most=4)
    assert calls == 4
    assert 0.25 <= slept[0] <= 0.5
    assert 0.5 <= slept[1] <= 1
    assert 1 <= slept[2] <= 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 501])
def test_what_no_other_attempt_changes_is_not_tried_again(status):
    assert run(HttpStatusError("no", context={"status": status})) == (1, [])


def test_a_server_that_asks_for_patience_gets_it_within_bounds():
    calls, slept = run(HttpStatusError("busy", context={"status": 503, "retry_after_seconds": 30}))
    assert calls == 3
    assert all(each >= 30 for each in slept)
    assert run(HttpStatusError("busy", context={"status": 503, "retry_after_seconds": 61})) == (1, [])


def test_no_attempt_begins_after_the_time_in_all():
    calls, _ = run(HttpStatusError("busy", context={"status": 429, "retry_after_seconds": 30}), seconds=10)
    assert calls == 1
