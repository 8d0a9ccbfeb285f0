# SPDX-License-Identifier: Apache-2.0
"""One application of a plan: which action is begun when, and in which thread."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from coppice.cloud.apply.execution import not_tried
from coppice.cloud.apply.order import Order
from coppice.cloud.plan_data import name_of
from coppice.cloud.steps import ActionKind, ApplyResult
from coppice.errors import CloudError, CloudImageBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from coppice.cloud.apply.execution import Execution
    from coppice.cloud.apply.order import Unit
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import RegisteredImage
    from coppice.cloud.steps import Action, ActionResult, Plan
    from coppice.monitor import Task

    Ended = tuple[Unit, tuple[ActionResult, ...] | BaseException]

STOPPING_SECONDS = 3.0
"""How long what is at work is waited for after Ctrl-C or a termination signal."""


class _Handing:
    """Hands what became of a unit, or what was raised instead, from its thread to the calling one."""

    def __init__(self, unit: Unit, ended: queue.SimpleQueue[Ended]) -> None:
        self._unit = unit
        self._ended = ended
        self.results: tuple[ActionResult, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._ended.put((self._unit, self.results if problem is None else problem))
        return True


class Application:
    """Has a plan's units carried out, as many at a time as are wanted; what it knows is the calling thread's alone.

    Args:
        plan: What to do.
        cloud: On what.
        execution: Carries out one unit.
        task: Where progress is told.
        on_result: Called with each result.
        awaits: Tells which actions are not to be begun.
        images_at_once: How many units are at work at a time.
        stop: Nothing is begun any more once it is set.
    """

    def __init__(
        self,
        plan: Plan,
        cloud: Cloud,
        execution: Execution,
        *,
        task: Task,
        on_result: Callable[[ActionResult], None],
        awaits: Callable[[Action], bool],
        images_at_once: int,
        stop: threading.Event,
    ) -> None:
        self._plan = plan
        self._cloud = cloud
        self._execution = execution
        self._task = task
        self._on_result = on_result
        self._images_at_once = images_at_once
        self._stop = stop
        self._order = Order(plan.actions, awaits)
        self._results: dict[int, ActionResult] = {}
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._at_work = 0
        self._unseen: list[int] = []

    def run(self) -> ApplyResult:
        """Carry out what can be, and return what became of it."""
        try:
            while self._begin() or self._at_work or self._look():
                if self._at_work:
                    self._take(self._ended.get())
        except BaseException as problem:
            # What nobody foresaw, or Ctrl-C: what is at work ends, as far as there is time, nothing more is begun.
            self._stop.set()
            self._await_the_rest(None if isinstance(problem, Exception) else STOPPING_SECONDS)
            raise
        actions, left_out = self._plan.actions, self._order.left_out()
        if not self._stop.is_set():
            for position in sorted(set(range(len(actions))) - set(left_out) - self._results.keys()):
                self._tell(position, not_tried(actions[position], "it waits for what waits for it"))
        return ApplyResult(
            plan=self._plan,
            results=tuple(self._results[position] for position in sorted(self._results)),
            awaited=tuple(actions[position] for position in left_out),
        )

    def _await_the_rest(self, seconds: float | None) -> None:
        with contextlib.suppress(queue.Empty):
            while self._at_work:
                self._ended.get(timeout=seconds)
                self._at_work -= 1

    def _begin(self) -> bool:
        """Begin as much as may be at work at a time; tell whether anything was, or ended at once."""
        has_begun = False
        while self._at_work < self._images_at_once and not self._stop.is_set():
            unit = self._order.next()
            if unit is None:
                break
            has_begun = True
            actions = [self._plan.actions[position] for position in unit.actions]
            if self._is_hopeless(unit):
                self._settle(unit, tuple(not_tried(each, "what it depends on failed") for each in actions))
                continue
            first = actions[0]
            self._task.note(f"{_doing(first)} {name_of(first) or first.key}, version {first.version}")
            if self._images_at_once == 1:
                self._settle(unit, self._carry_out(actions))
                continue
            self._at_work += 1
            threading.Thread(target=self._serve, args=(unit, actions), name="coppice-apply", daemon=True).start()
        return has_begun

    def _serve(self, unit: Unit, actions: Sequence[Action]) -> None:
        with _Handing(unit, self._ended) as handing:
            handing.results = self._carry_out(actions)

    def _carry_out(self, actions: Sequence[Action]) -> tuple[ActionResult, ...]:
        if len(actions) == 1:
            return (self._execution.carry_out(actions[0]),)
        return self._execution.carry_out_together(actions)

    def _take(self, ended: Ended) -> None:
        unit, results = ended
        self._at_work -= 1
        if isinstance(results, BaseException):
            raise results
        self._settle(unit, results)

    def _settle(self, unit: Unit, results: Sequence[ActionResult]) -> None:
        for position, result in zip(unit.actions, results, strict=True):
            self._tell(position, result)
            if result.action.kind is ActionKind.REGISTER and result.error is None:
                self._unseen.append(position)
        self._order.end(unit)

    def _tell(self, position: int, result: ActionResult) -> None:
        self._results[position] = result
        self._on_result(result)
        self._task.advance(1)

    def _is_hopeless(self, unit: Unit) -> bool:
        befores = {each for position in unit.actions for each in self._plan.actions[position].after}
        results = [self._results[each] for each in befores - set(unit.actions)]
        return any(each.error is not None or each.taken_back for each in results)

    def _look(self) -> bool:
        """Let begin what waits for the cloud to show what was registered; tell whether anything was waiting."""
        waiting = self._order.unseen()
        if not waiting or self._stop.is_set():
            return False
        try:
            if self._unseen:
                self._verify(self._execution.look())
        except CloudError as problem:
            # It could not be found out: what is there stays as it is.
            self._order.seen()
            while (unit := self._order.next()) is not None:
                if self._is_hopeless(unit):
                    failed = [not_tried(self._plan.actions[each], "what it depends on failed") for each in unit.actions]
                else:
                    failed = [
                        replace(not_tried(self._plan.actions[each], ""), error=problem, skipped=False)
                        for each in unit.actions
                    ]
                self._settle(unit, failed)
            return True
        self._order.seen()
        return True

    def _verify(self, shown: dict[str, RegisteredImage]) -> None:
        for position in self._unseen:
            result = self._results[position]
            expected = result.registered
            if expected is None:
                continue
            there = shown.get(expected.cloud_identifier)
            is_shown = there is not None and there.ready and there.marker.key == expected.marker.key
            if not is_shown or there is None or not there.marker.digest.matches(expected.marker.digest):
                self._retell(position, there)
        self._unseen.clear()

    def _retell(self, position: int, there: RegisteredImage | None) -> None:
        result = self._results[position]
        action = result.action
        found = "it does not show it" if there is None else f"it shows it, ready: {there.ready}, {there.problem or ''}"
        error = CloudImageBrokenError(
            f"cloud {self._plan.cloud} took image {action.key} version {action.version} and does not show it as usable",
            details=found.strip(" ,"),
            resolution="The version before it stays available. Run again: it is registered anew.",
            context={"image": str(action.key), "cloud": self._plan.cloud},
        )
        self._results[position] = failed = replace(result, registered=None, error=error)
        self._on_result(failed)


def _doing(action: Action) -> str:
    return f"to {action.state}:" if action.kind is ActionKind.CHANGE_STATE else str(action.kind).replace("-", " ")
