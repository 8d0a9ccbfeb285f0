# SPDX-License-Identifier: Apache-2.0
"""Rebuild: what is stale is built anew, tested, brought into the catalogue, and published; what fails stays as it was.

Parents come before their children. Whatever ends a run, the next one goes on: a build that is there and still fresh is
taken up, and a version that is in the catalogue and not yet published is published.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from coppice.catalogue.appliances import Appliances
from coppice.errors import ClusterError, CoppiceError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.execution.model import ENDED_WORKERS, SilentBoard, Work
from coppice.execution.pool import run_all
from coppice.factory.staleness import Choice, FailedTry, Trigger
from coppice.factory.staleness_notes import RebuildNotes, read_notes, write_notes
from coppice.schedule.lock import run_lock
from coppice.workflows.add import add_build
from coppice.workflows.build import Here, build_appliance, factory_root, find_kept_build, parents_of
from coppice.workflows.old_builds import forget_old_builds
from coppice.workflows.rebuild_publish import PublishedRebuilds, publish_rebuilt
from coppice.workflows.staleness import Appraiser

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from coppice.catalogue.model import ApplianceVersion
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.execution.model import Board, Ended
    from coppice.factory.model import BuildResult
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.build import Find
    from coppice.workflows.place import Place
    from coppice.workflows.staleness import Appraisal

LOCK = "locks/rebuild.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """An appliance that was built anew.

    Attributes:
        before: The version that was the newest.
        version: The version that is the newest now: the same where the very same bytes came out.
        packages: How many are in it.
    """

    before: ApplianceVersion
    version: ApplianceVersion
    packages: int

    @property
    def is_new(self) -> bool:
        """Whether other bytes came out."""
        return self.version.version != self.before.version


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildReport:
    """What became of a run.

    Attributes:
        appraisals: Every appliance that was looked at, and what was to be done.
        ended: What became of those that were to be built anew.
        published: What became of publishing them; None: nothing was to be published.
        unreached: Why nothing could be built where it was to be; None: it could, or nothing was to be.
    """

    appraisals: tuple[Appraisal, ...]
    ended: tuple[Ended[Rebuilt], ...] = ()
    published: PublishedRebuilds | None = None
    unreached: ClusterError | None = None

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """Everything that failed, or could not be found out; each once."""
        found: list[CoppiceError] = [] if self.unreached is None else [self.unreached]
        found += [problem for each in self.appraisals for problem in each.errors]
        found += [each.error for each in self.ended if each.error is not None]
        found += self.published.errors if self.published is not None else ()
        return tuple({id(problem): problem for problem in found}.values())


def rebuild(
    names: Collection[str] = (),
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    find: Find,
    waits: bool = True,
    publish: bool = True,
    dry_run: bool = False,
    at_once: int | None = None,
    ask: Callable[[str], str] | None = None,
    place: AbstractContextManager[Place] | None = None,
    board: AbstractContextManager[Board] | None = None,
) -> RebuildReport:
    """Build anew what its policy says, and publish it.

    Args:
        names: Only these appliances; empty: all.
        settings: Where and how.
        database: Where the catalogue is.
        clock: For dates.
        monitor: Where progress is told.
        find: Returns the definition of a name.
        waits: Whether intervals, failed tries and policies that are switched off count.
        publish: Whether the lists that carry what was built are published.
        dry_run: Only look and decide.
        at_once: Most builds at a time; None: as many as the place can.
        ask: Asks a person for a passphrase; None: there is nobody to ask.
        place: Opens where builds are made, when something is to be built; None: in this process.
        board: Opens where it is shown what becomes of each, likewise; None: nowhere.

    Raises:
        NotFoundError: There is no such appliance.
        LockedError: Another run rebuilds.
        DatabaseError: The database failed.
    """
    appraiser = Appraiser(settings=settings, database=database, clock=clock, monitor=monitor, find=find)
    if dry_run:
        return RebuildReport(appraisals=appraiser.appraise(names, waits=waits))
    with run_lock(settings.state_directory / LOCK):
        appraisals = appraiser.appraise(names, waits=waits)
        shop = partial(_Shop, appraiser=appraiser, settings=settings, database=database, clock=clock, find=find)
        here, silent = nullcontext(Here(settings=settings, clock=clock)), nullcontext(SilentBoard(monitor))
        ended, unreached = _build(appraisals, shop, here if place is None else place, board or silent, at_once)
        published = None
        if publish:
            published = publish_rebuilt(
                appraisals, settings=settings, database=database, clock=clock, monitor=monitor, ask=ask
            )
        forget_old_builds(settings, clock)
    return RebuildReport(appraisals=appraisals, ended=ended, published=published, unreached=unreached)


def _build(
    appraisals: Sequence[Appraisal],
    shop: Callable[..., _Shop],
    place: AbstractContextManager[Place],
    board: AbstractContextManager[Board],
    at_once: int | None,
) -> tuple[tuple[Ended[Rebuilt], ...], ClusterError | None]:
    """Build what was decided; return what became of it, and why nothing could be built."""
    chosen = [each for each in appraisals if each.decision.choice is Choice.REBUILD]
    ended: tuple[Ended[Rebuilt], ...] = ()
    if not chosen:
        return ended, None
    try:
        with place as opened, board as shown:
            at_work = shop(place=opened, board=shown)
            works = at_work.works(chosen)
            shown.plan({each.name: next(iter(each.needs), None) for each in works})
            ended = run_all(works, at_once=opened.at_once if at_once is None else at_once, on_ended=at_work.note)
    except ClusterError as problem:
        # That is no fault of an appliance; and what an earlier run could not publish does not wait for a cluster.
        return ended, problem
    return ended, None


def _is_of_the_cluster(error: CoppiceError) -> bool:
    """Tell whether ``error`` is the cluster's alone: its scheduler is gone, or no worker is left that could do it."""
    return isinstance(error, ClusterError) and ENDED_WORKERS not in error.context


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shop:
    """Builds anew what was decided."""

    appraiser: Appraiser
    settings: Settings
    database: Database
    clock: Clock
    find: Find
    place: Place
    board: Board

    def works(self, chosen: Sequence[Appraisal]) -> list[Work[Rebuilt]]:
        """Return the work, each piece after that of what it is built upon."""
        by_definition = {each.definition.name: each for each in chosen if each.definition is not None}
        return [self._work(each, by_definition) for each in chosen]

    def note(self, ended: Ended[Rebuilt]) -> None:
        """Note that a build failed; it is tried again later each time. A cluster's end is no fault of an appliance."""
        self.board.end(ended)
        if ended.error is None or _is_of_the_cluster(ended.error):
            return
        root, now = factory_root(self.settings), self.clock.now()
        notes = read_notes(root, ended.name)
        failed = FailedTry(
            count=1 if notes.failed is None else notes.failed.count + 1,
            at=now,
            state=self._state(ended.name),
            code=ended.error.code,
            message=ended.error.message,
        )
        write_notes(root, ended.name, replace(notes, failed=failed))
        facts: dict[str, object] = {"code": failed.code, "error": failed.message, "tries": failed.count}
        Journal(self.database).record(EventKind.APPLIANCE_REBUILD_FAILED, subject=ended.name, facts=facts, at=now)

    def _state(self, name: str) -> str:
        # As it is now: what it is built upon may have been built anew meanwhile.
        evidence = self.appraiser.appraise([name])[0].evidence
        return "" if evidence is None else evidence.state

    def _work(self, appraisal: Appraisal, by_definition: dict[str, Appraisal]) -> Work[Rebuilt]:
        assert appraisal.definition is not None  # noqa: S101 - without one, nothing is decided to be built
        try:
            above = [each.name for each in parents_of(appraisal.definition, self.find)]
        except CoppiceError as problem:
            return Work(name=appraisal.name, do=_failing(problem))
        nearest = next((by_definition[name].name for name in above if name in by_definition), None)
        needs = frozenset() if nearest is None else frozenset({nearest})
        return Work(name=appraisal.name, needs=needs, do=lambda stopped: self._rebuild(appraisal, stopped))

    def _rebuild(self, appraisal: Appraisal, stopped: Callable[[], bool]) -> Rebuilt:
        assert appraisal.definition is not None  # noqa: S101 - as above
        result = build_appliance(
            appraisal.definition,
            settings=self.settings,
            database=self.database,
            clock=self.clock,
            monitor=self.board.begin(appraisal.name),
            fresh=not self._has_fresh_build(appraisal),
            find=self.find,
            stopped=stopped,
            place=self.place,
        )
        root, now, before = factory_root(self.settings), self.clock.now(), appraisal.version
        notes = read_notes(root, appraisal.name)
        # Noted before: a run that ends in between leaves a version that the next one publishes.
        write_notes(root, appraisal.name, replace(notes, is_unpublished=True))
        version = self._add(result, appraisal, now)
        is_told = (version.version, version.expires) == (before.version, before.expires)
        left = RebuildNotes(
            is_unpublished=notes.is_unpublished or not is_told, tried_at=now, tried_state=self._state(appraisal.name)
        )
        write_notes(root, appraisal.name, left)
        return Rebuilt(before=before, version=version, packages=len(result.packages))

    def _add(self, result: BuildResult, appraisal: Appraisal, now: datetime) -> ApplianceVersion:
        days = result.definition.validity_days
        expires = None if days is None else now + timedelta(days=days)
        version = add_build(
            result,
            settings=self.settings,
            database=self.database,
            clock=self.clock,
            name=appraisal.name,
            expires=expires,
        )
        if version.version == appraisal.version.version and Trigger.EXPIRY in appraisal.decision.triggers:
            # The very same bytes came out: they are endorsed anew.
            return Appliances(self.database, self.clock).set_expiry(appraisal.name, version.version, expires)
        return version

    def _has_fresh_build(self, appraisal: Appraisal) -> bool:
        """Tell whether there is a later build than the one that is published, with nothing to update in it."""
        assert appraisal.definition is not None  # noqa: S101 - as above
        kept = find_kept_build(appraisal.definition, settings=self.settings, find=self.find)
        if kept is None or kept.images[0].image.checksum.matches(appraisal.version.image.checksum):
            return False
        updates, errors = self.appraiser.updates(kept.packages, appraisal.definition)
        return updates == () and not errors


def _failing(problem: CoppiceError) -> Callable[[object], Rebuilt]:
    def fail(_stopped: object) -> Rebuilt:
        raise problem

    return fail
