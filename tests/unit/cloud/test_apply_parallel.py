# SPDX-License-Identifier: Apache-2.0
"""Several images at a time, sets, and what the cloud shows of what it took."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.clock import FixedClock
from coppice.cloud.apply import apply
from coppice.cloud.memory import MemoryCloud
from coppice.cloud.model import Desired, ImageState, Policy
from coppice.cloud.plan import plan
from coppice.cloud.steps import Action, ActionKind, Plan
from coppice.errors import CloudError, CloudImageBrokenError, CloudUnreachableError, PlanError
from coppice.monitor import SILENT
from coppice.testing.desired import NOW, SITE, converted_image, desired_image, desired_list

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.cloud.model import DesiredImage, DesiredList, OwnershipMarker, RegisteredImage
    from coppice.cloud.steps import ActionResult, ApplyResult
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor

pytestmark = pytest.mark.unit
POLICY = Policy(grace=timedelta(days=7))
SECONDS = 20
"""More than any wait here takes; no test waits for it."""


class Told(list["ActionResult"]):
    def __init__(self, also: Callable[[ActionResult], None]) -> None:
        super().__init__()
        self._also = also

    def append(self, result: ActionResult) -> None:
        super().append(result)
        self._also(result)


class Bench:
    def __init__(self, tmp_path: Path) -> None:
        self.cloud = MemoryCloud("test", SITE)
        self.clock = FixedClock(NOW)
        self.store = tmp_path
        self.told: list[ActionResult] = []
        self.stop = threading.Event()
        self.at_once = 4

    def obtain(self, desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        return converted_image(desired, self.store)

    def plan(self, *lists: DesiredList) -> Plan:
        return plan(Desired(lists=lists), self.cloud.describe(), POLICY, self.clock.now(), "test")

    def apply(self, made: Plan, awaits: Callable[[Action], bool] | None = None) -> ApplyResult:
        return apply(
            made,
            self.cloud,
            obtain=self.obtain,
            clock=self.clock,
            policy=POLICY,
            monitor=SILENT,
            on_result=self.told.append,
            awaits=awaits,
            images_at_once=self.at_once,
            stop=self.stop,
        )

    def run(self, *images: DesiredImage) -> ApplyResult:
        return self.apply(self.plan(desired_list(*images)))

    def states(self) -> dict[str, ImageState]:
        return {f"{each.name[0]}{each.marker.version}": each.marker.state for each in self.cloud.describe()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_as_many_images_as_are_wanted_are_worked_on_at_a_time_and_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    at_work, most, lock = 0, 0, threading.Lock()
    all_here = threading.Barrier(bench.at_once)
    obtain = bench.obtain

    def counted(*arguments: Any) -> ConvertedImage:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        # Nobody goes on before so many are at work.
        all_here.wait(SECONDS)
        try:
            return obtain(*arguments)
        finally:
            with lock:
                at_work -= 1

    monkeypatch.setattr(bench, "obtain", counted)
    result = bench.run(*(desired_image(name) for name in "abcdefgh"))
    assert [each.error for each in result.results] == [None] * 8
    assert most == bench.at_once
    assert [each.action for each in result.results] == list(result.plan.actions)
    assert set(map(id, bench.told)) == set(map(id, result.results))


def test_results_are_told_in_the_callers_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    threads = []
    monkeypatch.setattr(bench, "told", [])
    made = bench.plan(desired_list(desired_image("a"), desired_image("b")))
    apply(
        made,
        bench.cloud,
        obtain=bench.obtain,
        clock=bench.clock,
        policy=POLICY,
        monitor=SILENT,
        on_result=lambda _result: threads.append(threading.current_thread()),
        images_at_once=2,
    )
    assert set(threads) == {threading.current_thread()}


def test_an_image_that_takes_long_holds_up_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.at_once = 2
    obtain, others_are_done = bench.obtain, threading.Event()

    def slow(desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        if desired.listed.title.startswith("a"):
            assert others_are_done.wait(SECONDS)
        return obtain(desired, formats, monitor)

    def told(_result: ActionResult) -> None:
        if len(bench.cloud.describe()) == 4:
            others_are_done.set()

    monkeypatch.setattr(bench, "obtain", slow)
    bench.told = Told(told)
    bench.run(*(desired_image(name) for name in "abcde"))
    assert len(bench.cloud.describe()) == 5


def test_nothing_is_begun_after_it_was_stopped_and_what_is_at_work_ends(bench: Bench):
    bench.at_once = 1
    bench.told = Told(lambda _result: bench.stop.set())
    result = bench.run(*(desired_image(name) for name in "abc"))
    assert len(result.results) == len(bench.cloud.describe()) == 1
    bench.stop.clear()
    bench.told = []
    bench.run(*(desired_image(name) for name in "abc"))
    assert len(bench.cloud.describe()) == 3


def test_what_nobody_foresaw_in_one_image_is_raised_when_all_that_is_at_work_has_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    both = threading.Barrier(2)
    obtain = bench.obtain

    def broken(desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        both.wait(SECONDS)
        if desired.listed.title.startswith("a"):
            raise ZeroDivisionError
        return obtain(desired, formats, monitor)

    monkeypatch.setattr(bench, "obtain", broken)
    with pytest.raises(ZeroDivisionError):
        bench.run(desired_image("a"), desired_image("b"))
    assert len(bench.cloud.describe()) == 1


def test_what_is_awaited_is_not_begun_nor_what_depends_on_it_and_is_named(bench: Bench):
    bench.run(desired_image("a"), desired_image("b"))
    made = bench.plan(desired_list(desired_image("a", "2"), desired_image("b", title="b anew")))
    applied = bench.apply(made, lambda action: action.kind is ActionKind.REGISTER)
    assert [str(each.action.kind) for each in applied.results] == ["update-metadata"]
    assert [str(each.kind) for each in applied.awaited] == ["register", "change-state"]
    assert bench.states() == {"a1": ImageState.AVAILABLE, "b1": ImageState.AVAILABLE}


@pytest.mark.threat("T90")
@pytest.mark.parametrize("shown", ["not at all", "not ready"])
@pytest.mark.parametrize("at_once", [1, 4])
def test_what_the_cloud_does_not_show_as_usable_takes_no_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, shown: str, at_once: int
):
    bench.at_once = at_once
    bench.run(desired_image("a"), desired_image("b"))
    describe = bench.cloud.describe

    def lying() -> tuple[RegisteredImage, ...]:
        seen = []
        for image in describe():
            if image.marker.version == "2" and image.name.startswith("a"):
                if shown == "not ready":
                    seen.append(replace(image, ready=False))
            else:
                seen.append(image)
        return tuple(seen)

    made = bench.plan(desired_list(desired_image("a", "2"), desired_image("b", "2")))
    monkeypatch.setattr(bench.cloud, "describe", lying)
    bench.told.clear()
    results = bench.apply(made).results
    outcome = {(str(each.action.kind), str(each.action.version)): each for each in results if "a" in title(each)}
    assert isinstance(outcome["register", "2"].error, CloudImageBrokenError)
    monkeypatch.undo()
    assert bench.states()["a1"] is ImageState.AVAILABLE
    assert bench.states()["b1"] is ImageState.SUPERSEDED
    # It was told as registered, and then as failed.
    assert [each.error is None for each in bench.told if each.action is outcome["register", "2"].action] == [
        True,
        False,
    ]


def title(result: ActionResult) -> str:
    image = result.action.desired.listed.title if result.action.desired else ""
    return image or (result.action.registered.name if result.action.registered else "")


@pytest.mark.threat("T90")
def test_when_the_cloud_cannot_be_asked_what_it_took_what_is_there_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.run(desired_image("a"))
    made = bench.plan(desired_list(desired_image("a", "2")))
    describe, register = bench.cloud.describe, bench.cloud.register

    def silent() -> tuple[RegisteredImage, ...]:
        raise CloudUnreachableError("no route")

    def registering(*arguments: Any) -> RegisteredImage:
        done = register(*arguments)
        monkeypatch.setattr(bench.cloud, "describe", silent)
        return done

    monkeypatch.setattr(bench.cloud, "register", registering)
    results = bench.apply(made).results
    assert [type(each.error) for each in results] == [type(None), CloudUnreachableError]
    monkeypatch.setattr(bench.cloud, "describe", describe)
    assert bench.states() == {"a1": ImageState.AVAILABLE, "a2": ImageState.AVAILABLE}


# Sets. The plan is made by hand: what is of interest is what becomes of it.


def flips(bench: Bench, names: str) -> Plan:
    """Return the plan that makes a set available whose images are staged."""
    made = bench.plan(desired_list(*(desired_image(name) for name in names)))
    staged = [replace(each, state=ImageState.STAGED) for each in made.actions]
    bench.apply(replace(made, actions=tuple(staged)))
    images = {each.name[0]: each for each in bench.cloud.describe()}
    assert {each.marker.state for each in images.values()} == {ImageState.STAGED}
    return replace(
        bench.plan(),
        actions=tuple(
            Action(
                kind=ActionKind.CHANGE_STATE,
                key=images[name].marker.key,
                version="1",
                digest=images[name].marker.digest,
                reason="its set is whole",
                registered=images[name],
                state=ImageState.AVAILABLE,
                together="set",
            )
            for name in names
        ),
    )


class Stubborn:
    """Refuses to change the state of some images to some states."""

    def __init__(self, bench: Bench, *refused: tuple[str, ImageState]) -> None:
        self.refused = refused
        self.change = bench.cloud.change_state
        self.calls: list[tuple[str, ImageState]] = []

    def __call__(self, image: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        self.calls.append((image.name[0], marker.state))
        if self.calls[-1] in self.refused:
            raise CloudError("it will not")
        return self.change(image, marker)


@pytest.mark.parametrize("at_once", [1, 4])
def test_when_one_image_of_a_set_fails_the_others_are_taken_back_and_nothing_is_told_of_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    bench.at_once = at_once
    made = flips(bench, "abc")
    before = bench.cloud.describe()
    bench.clock.advance(timedelta(hours=1))
    monkeypatch.setattr(bench.cloud, "change_state", stubborn := Stubborn(bench, ("b", ImageState.AVAILABLE)))
    results = bench.apply(made).results
    assert [(each.taken_back, each.skipped, type(each.error)) for each in results] == [
        (True, False, type(None)),
        (False, False, CloudError),
        (False, True, PlanError),
    ]
    assert stubborn.calls == [
        ("a", ImageState.AVAILABLE),
        ("b", ImageState.AVAILABLE),
        # It may have been listed all the same.
        ("b", ImageState.STAGED),
        ("a", ImageState.STAGED),
    ]
    # To the letter: since when an image is in its state, too.
    assert bench.cloud.describe() == before


def test_an_image_of_a_set_that_cannot_be_taken_back_is_told_as_what_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    made = flips(bench, "ab")
    refused = (("b", ImageState.AVAILABLE), ("a", ImageState.STAGED))
    monkeypatch.setattr(bench.cloud, "change_state", Stubborn(bench, *refused))
    first, second = bench.apply(made).results
    assert first.error is not None
    assert "stays available" in first.error.message
    assert not first.taken_back
    assert second.error is not None


def test_a_set_is_made_available_as_a_whole(bench: Bench):
    results = bench.apply(flips(bench, "abc")).results
    assert [each.error for each in results] == [None, None, None]
    assert set(bench.states().values()) == {ImageState.AVAILABLE}


def test_what_depends_on_a_flip_that_was_taken_back_is_not_tried(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    made = flips(bench, "ab")
    old = bench.cloud.describe()[0]
    hide = Action(
        kind=ActionKind.CHANGE_STATE,
        key=desired_image("old").key,
        version="0",
        digest=old.marker.digest,
        reason="a newer one takes its place",
        registered=old,
        state=ImageState.SUPERSEDED,
        after=(0,),
    )
    monkeypatch.setattr(bench.cloud, "change_state", Stubborn(bench, ("b", ImageState.AVAILABLE)))
    assert [each.skipped for each in bench.apply(replace(made, actions=(*made.actions, hide))).results] == [
        False,
        False,
        True,
    ]
