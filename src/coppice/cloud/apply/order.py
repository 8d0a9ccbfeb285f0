# SPDX-License-Identifier: Apache-2.0
"""The order of a plan's actions where several are carried out at a time. Pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from coppice.cloud.model import ImageState
from coppice.cloud.steps import ActionKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coppice.cloud.steps import Action
    from coppice.model.identifiers import ImageKey


@dataclass(slots=True, eq=False)
class Unit:
    """What is carried out in one go: one action, or the flips of a set.

    Attributes:
        actions: Positions in the plan, rising.
        waits_for: How many units must end before.
        before: Units that wait for this one.
        needed_by: Those of them that are of no use without it; the others only keep the order of steps on one image.
        shows: Positions of the registrations that the cloud must show before this is begun.
    """

    actions: list[int]
    waits_for: int = 0
    before: list[Unit] = field(default_factory=list)
    needed_by: list[Unit] = field(default_factory=list)
    shows: list[int] = field(default_factory=list)


class Order:
    """Says which units may begin, the first of the plan first. Time and memory are linear in the plan.

    Args:
        actions: Of the plan.
        awaits: Tells which actions are not to be begun; neither is what depends on them, nor what else there is to do
            with an image that is still to be registered.
    """

    def __init__(self, actions: Sequence[Action], awaits: Callable[[Action], bool]) -> None:
        self._units = _units_of(actions)
        self._left_out = _left_out(self._units, actions, awaits)
        self._ready: list[tuple[int, Unit]] = []
        self._unseen: list[Unit] = []
        for unit in self._units:
            if id(unit) not in self._left_out and unit.waits_for == 0:
                self._release(unit)

    def left_out(self) -> tuple[int, ...]:
        """Return the positions of what is not to be begun, and of what depends on it, rising."""
        return tuple(
            sorted(position for unit in self._units if id(unit) in self._left_out for position in unit.actions)
        )

    def next(self) -> Unit | None:
        """Return what may begin now; None: nothing may, before something ends or is shown."""
        return heapq.heappop(self._ready)[1] if self._ready else None

    def unseen(self) -> tuple[Unit, ...]:
        """Return what waits for the cloud to show what was registered, and nothing else."""
        return tuple(self._unseen)

    def seen(self) -> None:
        """Let begin what waited for that."""
        for unit in self._unseen:
            heapq.heappush(self._ready, (unit.actions[0], unit))
        self._unseen.clear()

    def end(self, unit: Unit) -> None:
        """Note that a unit is done with, well or not."""
        for later in unit.before:
            later.waits_for -= 1
            if later.waits_for == 0 and id(later) not in self._left_out:
                self._release(later)

    def _release(self, unit: Unit) -> None:
        if unit.shows:
            self._unseen.append(unit)
        else:
            heapq.heappush(self._ready, (unit.actions[0], unit))


def _left_out(units: Iterable[Unit], actions: Sequence[Action], awaits: Callable[[Action], bool]) -> set[int]:
    awaited = [unit for unit in units if any(awaits(actions[each]) for each in unit.actions)]
    registering = [unit for unit in awaited if any(actions[each].kind is ActionKind.REGISTER for each in unit.actions)]
    found = {id(unit): unit for unit in (*_reached(registering, "before"), *_reached(awaited, "needed_by"))}
    for unit in found.values():
        for later in unit.before:
            # What was tried in vain before does not keep back what has no need of it.
            later.waits_for -= 1
    return set(found)


def _reached(units: Iterable[Unit], by: Literal["before", "needed_by"]) -> Iterable[Unit]:
    found: dict[int, Unit] = {}
    pending = list(units)
    while pending:
        unit = pending.pop()
        if id(unit) not in found:
            found[id(unit)] = unit
            pending.extend(unit.before if by == "before" else unit.needed_by)
    return found.values()


def _units_of(actions: Sequence[Action]) -> list[Unit]:
    sets: dict[str, Unit] = {}
    units: list[Unit] = []
    unit_of: list[Unit] = []
    for position, action in enumerate(actions):
        together = action.together if _is_flip(action) else None
        unit = None if together is None else sets.get(together)
        if unit is None:
            unit = Unit([])
            units.append(unit)
            if together is not None:
                sets[together] = unit
        unit.actions.append(position)
        unit_of.append(unit)
    _link(actions, unit_of)
    return units


def _is_flip(action: Action) -> bool:
    # What ends or hides an image is never taken back for another's sake.
    return action.kind is ActionKind.CHANGE_STATE and action.state is ImageState.AVAILABLE


def _link(actions: Sequence[Action], unit_of: Sequence[Unit]) -> None:
    linked: set[tuple[int, int]] = set()
    needed: set[tuple[int, int]] = set()

    def link(before: Unit, later: Unit, *, is_needed: bool) -> None:
        pair = id(before), id(later)
        if before is not later and pair not in linked:
            linked.add(pair)
            before.before.append(later)
            later.waits_for += 1
        if before is not later and is_needed and pair not in needed:
            needed.add(pair)
            before.needed_by.append(later)

    last: dict[ImageKey, Unit] = {}
    for position, action in enumerate(actions):
        unit = unit_of[position]
        for each in action.after:
            link(unit_of[each], unit, is_needed=True)
            if actions[each].kind is ActionKind.REGISTER:
                unit.shows.append(each)
        # Steps on one image keep their order; within a set, the set's is theirs.
        previous = last.get(action.key)
        if previous is not None and previous.actions[0] <= unit.actions[0]:
            link(previous, unit, is_needed=False)
        last[action.key] = unit
