# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from coppice.clock import FixedClock
from coppice.cloud.apply import apply
from coppice.cloud.memory import MemoryCloud
from coppice.cloud.model import Desired, ImageState, Policy
from coppice.cloud.plan import plan
from coppice.cloud.plan_data import plan_as_dict
from coppice.errors import ChecksumMismatchError, CloudError, PlanError, StalePlanError, UnreachableError
from coppice.monitor import SILENT
from coppice.testing.desired import NOW, SITE, converted_image, desired_image, desired_list

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.cloud.model import DesiredImage, DesiredList, RegisteredImage
    from coppice.cloud.steps import ActionResult, ApplyResult, Plan
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor

pytestmark = pytest.mark.unit
GRACE = timedelta(days=7)
POLICY = Policy(grace=GRACE)


class Bench:
    def __init__(self, tmp_path: Path) -> None:
        self.cloud = MemoryCloud("test", SITE)
        self.clock = FixedClock(NOW)
        self.store = tmp_path
        self.broken: set[str] = set()
        self.told: list[ActionResult] = []

    def obtain(self, desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        assert formats == self.cloud.formats
        if desired.listed.title.split()[0] in self.broken:
            raise UnreachableError("no route")
        return converted_image(desired, self.store)

    def plan(self, *lists: DesiredList) -> Plan:
        return plan(Desired(lists=lists), self.cloud.describe(), POLICY, self.clock.now(), "test")

    def apply(self, made: Plan) -> ApplyResult:
        return apply(
            made,
            self.cloud,
            obtain=self.obtain,
            clock=self.clock,
            policy=POLICY,
            monitor=SILENT,
            on_result=self.told.append,
        )

    def run(self, *lists: DesiredList) -> ApplyResult:
        return self.apply(self.plan(*lists))

    def states(self) -> dict[str, ImageState]:
        return {image.marker.version: image.marker.state for image in self.cloud.describe()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.threat("T90")
def test_a_new_version_takes_over_and_the_old_one_is_removed_after_the_grace_period(bench: Bench):
    bench.run(desired_list(desired_image(version="1")))
    bench.clock.advance(timedelta(hours=1))
    bench.run(desired_list(desired_image(version="2")))
    assert bench.states() == {"1": ImageState.SUPERSEDED, "2": ImageState.AVAILABLE}
    bench.clock.advance(GRACE - timedelta(seconds=1))
    assert bench.run(desired_list(desired_image(version="2"))).results == ()
    bench.clock.advance(timedelta(seconds=1))
    bench.run(desired_list(desired_image(version="2")))
    assert bench.states() == {"2": ImageState.AVAILABLE}


def test_each_result_is_told_as_it_comes(bench: Bench):
    result = bench.run(desired_list(desired_image("a"), desired_image("b")))
    assert tuple(bench.told) == result.results
    assert all(each.registered is not None and each.error is None for each in bench.told)


def test_one_item_that_fails_does_not_stop_the_others(bench: Bench):
    bench.broken = {"a"}
    results = bench.run(desired_list(desired_image("a"), desired_image("b"), desired_image("c"))).results
    assert [type(each.error) for each in results if each.error is not None] == [UnreachableError]
    assert len(bench.cloud.describe()) == 2


@pytest.mark.threat("T90")
def test_when_the_newer_version_fails_the_older_stays_available(bench: Bench):
    bench.run(desired_list(desired_image(version="1")))
    bench.broken = {"debian"}
    results = bench.run(desired_list(desired_image(version="2"))).results
    assert [each.skipped for each in results] == [False, True]
    assert bench.states() == {"1": ImageState.AVAILABLE}


def test_a_stale_plan_is_refused_and_nothing_is_done(bench: Bench):
    made = bench.plan(desired_list(desired_image()))
    bench.run(desired_list(desired_image("other")))
    before = bench.cloud.describe()
    with pytest.raises(StalePlanError):
        bench.apply(made)
    assert bench.cloud.describe() == before


def test_bytes_of_another_image_are_not_registered(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    other = desired_image(version="2")
    monkeypatch.setattr(bench, "obtain", lambda *_: converted_image(other, bench.store))
    (result,) = bench.run(desired_list(desired_image(version="1"))).results
    assert isinstance(result.error, ChecksumMismatchError)
    assert bench.cloud.describe() == ()


def expired(bench: Bench) -> DesiredList:
    wanted = desired_list(desired_image(expires=NOW + timedelta(days=1)))
    bench.run(wanted)
    bench.clock.advance(timedelta(days=1))
    bench.run(wanted)
    assert bench.states() == {"1": ImageState.EXPIRED}
    bench.clock.advance(GRACE)
    return wanted


@pytest.mark.threat("T37")
def test_what_is_in_use_is_kept_said_and_removed_later(bench: Bench):
    bench.run(desired_list(desired_image(expires=NOW + timedelta(days=1))))
    identifier = bench.cloud.describe()[0].cloud_identifier
    bench.cloud.start_machine(identifier)
    wanted = expired(bench)
    (result,) = bench.run(wanted).results
    assert result.skipped
    assert isinstance(result.error, PlanError)
    assert "in use" in result.error.message
    bench.cloud.stop_machines(identifier)
    bench.run(wanted)
    assert bench.cloud.describe() == ()


def test_what_may_be_in_use_is_not_removed(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    wanted = expired(bench)

    def unknown(_image: RegisteredImage) -> bool:
        raise CloudError("no answer")

    monkeypatch.setattr(bench.cloud, "in_use", unknown)
    (result,) = bench.run(wanted).results
    assert isinstance(result.error, CloudError)
    assert not result.skipped
    assert len(bench.cloud.describe()) == 1


@pytest.mark.threat("T87")
@pytest.mark.parametrize("jump", [timedelta(days=3650), timedelta(days=-2)])
def test_nothing_is_removed_after_the_clock_jumped_during_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, jump: timedelta
):
    wanted = expired(bench)
    made = bench.plan(wanted)
    monkeypatch.setattr(bench.clock, "monotonic", lambda: 0.0)
    describe = bench.cloud.describe

    def in_use(_image: RegisteredImage) -> bool:
        return False

    def jumping_monotonic() -> float:
        return 0.0

    monkeypatch.setattr(bench.cloud, "in_use", in_use)
    monkeypatch.setattr(bench.clock, "monotonic", jumping_monotonic)
    instants = iter([bench.clock.now()])
    real_now = bench.clock.now
    monkeypatch.setattr(bench.clock, "now", lambda: next(instants, real_now() + jump))
    (result,) = bench.apply(made).results
    assert isinstance(result.error, PlanError)
    assert "jumped" in result.error.message
    assert len(describe()) == 1


def test_a_removal_asks_for_the_grace_period_again(bench: Bench):
    made = bench.plan(expired(bench))
    bench.clock.advance(-timedelta(hours=1))
    (result,) = bench.apply(made).results
    assert isinstance(result.error, PlanError)
    assert len(bench.cloud.describe()) == 1


def test_two_steps_on_one_image_build_on_each_other(bench: Bench):
    bench.run(desired_list(desired_image("a"), desired_image("b"), desired_image("c")))
    bench.run(desired_list(desired_image("b"), desired_image("c")))
    back = desired_list(desired_image("a", title="anew"), desired_image("b"), desired_image("c"))
    assert [each.error for each in bench.run(back).results] == [None, None]
    assert bench.run(back).results == ()
    assert {image.marker.state for image in bench.cloud.describe()} == {ImageState.AVAILABLE}


def test_an_image_whose_endorsement_ends_while_it_is_fetched_is_not_registered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    obtain = bench.obtain

    def slow(desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        bench.clock.advance(timedelta(hours=2))
        return obtain(desired, formats, monitor)

    monkeypatch.setattr(bench, "obtain", slow)
    (result,) = bench.run(desired_list(desired_image(expires=NOW + timedelta(hours=1)))).results
    assert isinstance(result.error, CloudError)
    assert bench.cloud.describe() == ()


def test_a_cloud_that_gives_back_something_unusable_does_not_lose_the_older_version(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    bench.run(desired_list(desired_image(version="1")))
    register = bench.cloud.register
    monkeypatch.setattr(bench.cloud, "register", lambda *a: replace(register(*a), ready=False))
    results = bench.run(desired_list(desired_image(version="2"))).results
    assert [type(each.error) for each in results] == [CloudError, PlanError]
    assert bench.states()["1"] is ImageState.AVAILABLE


def test_an_interruption_is_passed_on_and_the_next_run_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    wanted = desired_list(desired_image("a"), desired_image("b"))
    obtain = bench.obtain

    def interrupted(desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        if bench.cloud.describe():
            raise KeyboardInterrupt
        return obtain(desired, formats, monitor)

    monkeypatch.setattr(bench, "obtain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.run(wanted)
    assert len(bench.told) == 1
    monkeypatch.undo()
    bench.run(wanted)
    assert len(bench.cloud.describe()) == 2


def test_a_plan_can_be_written_as_json(bench: Bench):
    import json

    bench.run(desired_list(*(desired_image(name) for name in ("a", "b", "c"))))
    made = bench.plan(desired_list(desired_image("a", "2")))
    document = json.loads(json.dumps(plan_as_dict(made)))
    assert [each["kind"] for each in document["actions"]] == ["register", "change-state"]
    assert document["held"][0]["error"]["code"] == "plan-deletion-cap"
    assert document["fingerprint"] == made.fingerprint
