# SPDX-License-Identifier: Apache-2.0
"""From definitions to tested builds: definition → factory → boot tests, each gate once for the same bytes.

An appliance is built upon its parent's built tree, so a parent is built before its children, once for all of them.
Where they are made is a `Place` (`coppice.workflows.place`): this process, or a cluster
(`coppice.workflows.cluster_build`).
"""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.errors import DefinitionError, InterruptedRunError, NotFoundError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.execution.model import SilentBoard, Work
from coppice.execution.pool import run_all
from coppice.factory.boot import BootSettings, boot_gate, boot_test
from coppice.factory.boot_evidence import forget_failures
from coppice.factory.boot_model import BootLevel, covers, promise_of
from coppice.factory.build import build, find_kept
from coppice.factory.model import BuildOptions
from coppice.factory.verdicts import has_passed, keep_verdict
from coppice.workflows.start_images import StartImages

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from concurrent.futures import Future

    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.definition.model import Definition
    from coppice.execution.model import Board, Ended
    from coppice.factory.boot_model import Promise
    from coppice.factory.model import BuildResult, BuiltImage, Verdict
    from coppice.model.operating_system import Firmware
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.place import Place

    Find = Callable[[str], Definition]
    """Returns the definition of a name."""


MAX_PARENTS = 16
_POLL_SECONDS = 0.5


def no_parents(name: str) -> Definition:
    """Stand for the definitions of somebody who has only the one.

    Raises:
        NotFoundError: Always.
    """
    raise NotFoundError(f"no definition named {name[:80]!r} is at hand", resolution="Build from a folder that has it.")


def build_appliance(
    definition: Definition,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    fresh: bool = False,
    boot: bool = True,
    find: Find = no_parents,
    stopped: Callable[[], bool] = lambda: False,
    place: Place | None = None,
) -> BuildResult:
    """Build ``definition``, or find its build, and have it pass its boot tests; its parents are built where needed.

    Args:
        definition: What to build.
        settings: Where and how.
        database: Where the journal is.
        clock: For dates.
        monitor: Where progress is told.
        fresh: Build anew although the same build is there; parents that are there stay as they are.
        boot: Run the boot tests that have not passed yet.
        find: Returns its parents.
        stopped: Asked now and then; when it says so, the boot tests end.
        place: Where they are made; None: in this process.

    Raises:
        BuildError: It, or a parent, could not be built.
        BootTestError: It did not pass a boot test.
        NotFoundError: A parent is not there.
        ToolMissingError: A program is not installed.
    """
    place = Here(settings=settings, clock=clock) if place is None else place
    made: tuple[BuildResult, ...] = ()
    for each in (*reversed(parents_of(definition, find)), definition):
        is_fresh = fresh and each is definition
        result = place.make(each, ancestors=made, fresh=is_fresh, monitor=monitor, stopped=stopped)
        _record(result, database, clock)
        made = (result, *made)
    return place.test(made[0], monitor=monitor, stopped=stopped) if boot else made[0]


def build_appliances(
    definitions: Sequence[Definition],
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    find: Find,
    fresh: Collection[str] = (),
    boot: bool = True,
    at_once: int | None = None,
    place: Place | None = None,
    board: Board | None = None,
) -> tuple[Ended[BuildResult], ...]:
    """Build several definitions side by side, each parent once and before its children.

    One that fails stops only what is built upon it.

    Args:
        definitions: What to build.
        settings: Where and how.
        database: Where the journal is.
        clock: For dates.
        monitor: Where progress is told.
        find: Returns parents.
        fresh: Names of those that are built anew although the same build is there.
        boot: Run the boot tests that have not passed yet; parents that were not asked for are not booted.
        at_once: Most at a time; None: as many as the place can.
        place: Where they are made; None: in this process.
        board: Where it is shown what becomes of each, parents that were not asked for among them; None: nowhere.

    Returns:
        What became of each, in their order; those of parents that were not asked for, and that failed, after them.

    Raises:
        NotFoundError: A parent is not there.
    """
    place = Here(settings=settings, clock=clock) if place is None else place
    board = SilentBoard(monitor) if board is None else board
    wanted = {each.name: each for each in definitions}
    above = {each.name: parents_of(each, find) for each in wanted.values()}
    everything = {each.name: each for parents in above.values() for each in parents} | wanted
    above |= {name: parents_of(each, find) for name, each in everything.items() if name not in above}
    made: dict[str, BuildResult] = {}

    def work_of(definition: Definition) -> Work[BuildResult]:
        name, parents = definition.name, above[definition.name]

        def do(stopped: Callable[[], bool]) -> BuildResult:
            shown = board.begin(name)
            ancestors = tuple(made[each.name] for each in parents)
            result = place.make(definition, ancestors=ancestors, fresh=name in fresh, monitor=shown, stopped=stopped)
            _record(result, database, clock)
            if boot and name in wanted:
                result = place.test(result, monitor=shown, stopped=stopped)
            made[name] = result
            return result

        return Work(name=name, do=do, needs=frozenset({parents[0].name} if parents else ()))

    board.plan({name: above[name][0].name if above[name] else None for name in everything})
    most = place.at_once if at_once is None else at_once
    ended = run_all([work_of(each) for each in everything.values()], at_once=most, on_ended=board.end)
    by_name = {each.name: each for each in ended}
    lost = [each for each in ended if each.name not in wanted and each.error is not None]
    return (*(by_name[name] for name in wanted), *lost)


def parents_of(definition: Definition, find: Find) -> tuple[Definition, ...]:
    """Return what ``definition`` is built upon, the nearest first.

    Raises:
        NotFoundError: A parent is not there.
        DefinitionError: They are too many, or lead back to where they came from.
    """
    found: list[Definition] = []
    seen = [definition.name]
    step = definition
    while step.parent is not None:
        if step.parent in seen or len(found) >= MAX_PARENTS:
            chain = " → ".join([*seen, step.parent])
            raise DefinitionError(
                f"{definition.name} is built upon itself: {chain}"
                if step.parent in seen
                else f"{definition.name} is built upon more than {MAX_PARENTS} others: {chain}",
                resolution="Correct the key from of one of them.",
            )
        step = find(step.parent)
        seen.append(step.name)
        found.append(step)
    return tuple(found)


def find_build(definition: Definition, *, settings: Settings, find: Find = no_parents) -> BuildResult:
    """Return the kept build of ``definition`` with the verdicts that its bytes have; nothing is built.

    Raises:
        NotFoundError: It, or a parent, was not built, or not since it was changed.
    """
    result = find_kept_build(definition, settings=settings, find=find)
    if result is None:
        raise NotFoundError(
            f"there is no build of {definition.name} as its definition is now",
            resolution=f"Run `coppice build {definition.name}` first.",
        )
    root = factory_root(settings)
    digest = str(result.images[0].image.checksum)
    known = (has_passed(root, digest, boot_gate(kind)) for kind in definition.firmware)
    verdicts = tuple(verdict for verdict in known if verdict is not None)
    return replace(result, verdicts=(*_others(result.verdicts, verdicts), *verdicts))


def find_kept_build(definition: Definition, *, settings: Settings, find: Find = no_parents) -> BuildResult | None:
    """Return the kept build of ``definition`` upon the kept builds of its parents; None: one of them is not there.

    Raises:
        NotFoundError: There is no definition of a parent, or no such builder.
        StorageError: The record of a build cannot be read.
    """
    root = factory_root(settings)
    kept: tuple[BuildResult, ...] = ()
    for each in (*reversed(parents_of(definition, find)), definition):
        found = find_kept(each, root=root, options=build_options(settings, kept))
        if found is None:
            return None
        kept = (found, *kept)
    return kept[0]


def boot_everywhere(
    image: BuiltImage,
    *,
    firmware: tuple[Firmware, ...],
    promise: Promise,
    settings: Settings,
    clock: Clock,
    monitor: Monitor,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Verdict, ...]:
    """Boot ``image`` under each firmware, side by side; a gate that the same bytes passed before is not run again.

    Raises:
        BootTestError: It did not pass under one of them.
        InterruptedRunError: ``stopped`` said so.
    """
    root = factory_root(settings)
    forget_failures(root / "failures", clock.now())
    boot_settings = BootSettings(
        timeout_seconds=settings.factory.boot_timeout_seconds,
        acceleration_file=root / "acceleration.json",
        failures_directory=root / "failures",
        level=BootLevel(settings.factory.boot_level),
    )

    def pass_gate(kind: Firmware) -> Verdict:
        known = has_passed(root, str(image.image.checksum), boot_gate(kind))
        if known is not None and covers(known, promise, boot_settings.level):
            return known
        verdict = boot_test(
            image,
            firmware=kind,
            promise=promise,
            # Where the data comes from has nothing to do with the firmware: once is enough.
            settings=replace(boot_settings, tries_sources=kind is firmware[0]),
            monitor=monitor,
            clock=clock,
            stop=stop,
        )
        keep_verdict(root, verdict)
        return verdict

    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=max(1, len(firmware))) as pool:
        try:
            return _results([pool.submit(pass_gate, kind) for kind in firmware], stopped)
        except BaseException:
            # One failed, or the run is to stop: the pool would wait for the others to the end of their time.
            stop.set()
            raise


def factory_root(settings: Settings) -> Path:
    """Return where builds, verdicts and what builders keep lie."""
    return settings.state_directory / "factory"


def build_options(
    settings: Settings,
    ancestors: tuple[BuildResult, ...] = (),
    starts: StartImages | None = None,
) -> BuildOptions:
    """Return what the settings say of a build that is built upon ``ancestors``, the nearest first."""
    keyring = settings.factory.keyring
    return BuildOptions(
        mirror=settings.factory.mirror,
        cache_directory=factory_root(settings) / "parents",
        timeout_seconds=settings.factory.build_timeout_seconds,
        keyring=None if keyring is None else Path(keyring).expanduser().absolute(),
        ancestors=ancestors,
        starts=StartImages(settings=settings) if starts is None else starts,
        require_cage=settings.conversion.require_cage,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """This process as a place of builds.

    Attributes:
        settings: Where and how.
        clock: For dates.
        starts: Where images come from that builds start from; None: as the settings say.
    """

    settings: Settings
    clock: Clock
    starts: StartImages | None = None

    @property
    def at_once(self) -> int:
        """How many builds run side by side."""
        return self.settings.factory.builds_at_once

    def make(
        self,
        definition: Definition,
        *,
        ancestors: tuple[BuildResult, ...],
        fresh: bool,
        monitor: Monitor,
        stopped: Callable[[], bool],
    ) -> BuildResult:
        """Build a definition upon ``ancestors``, the nearest first, or find its build."""
        return build(
            definition,
            root=factory_root(self.settings),
            options=build_options(self.settings, ancestors, self.starts),
            clock=self.clock,
            monitor=monitor,
            fresh=fresh,
        )

    def test(self, result: BuildResult, *, monitor: Monitor, stopped: Callable[[], bool]) -> BuildResult:
        """Have a build pass its boot tests; return it with what they said."""
        verdicts = boot_everywhere(
            result.images[0],
            firmware=result.definition.firmware,
            promise=promise_of(result.definition),
            settings=self.settings,
            clock=self.clock,
            monitor=monitor,
            stopped=stopped,
        )
        return replace(result, verdicts=(*_others(result.verdicts, verdicts), *verdicts))


def _record(result: BuildResult, database: Database, clock: Clock) -> None:
    """Tell of a build that was made now in the journal."""
    if result.reused:
        return
    facts: dict[str, object] = {"key": result.key, "digest": str(result.images[0].image.checksum)}
    Journal(database).record(EventKind.APPLIANCE_BUILT, subject=result.definition.name, facts=facts, at=clock.now())


def _results(futures: list[Future[Verdict]], stopped: Callable[[], bool]) -> tuple[Verdict, ...]:
    while True:
        done, waiting = wait(futures, timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
        for each in done:
            each.result()
        if not waiting:
            return tuple(each.result() for each in futures)
        if stopped():
            raise InterruptedRunError("the boot tests were stopped")


def _others(before: tuple[Verdict, ...], now: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    gates = {verdict.gate for verdict in now}
    return tuple(verdict for verdict in before if verdict.gate not in gates)
