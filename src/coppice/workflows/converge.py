# SPDX-License-Identifier: Apache-2.0
"""Converge: bring each cloud to what is desired, and tell what happened. Sync, retire and their kin share it.

Clouds are worked on side by side; one that fails never stops the others. Each is worked on in rounds: its lock is
taken, it is asked what it has, a plan is made of that, and what can be done at once is done. What is to be registered
and is not here yet is waited for without the lock; the next round plans anew.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from coppice.cloud.apply import apply
from coppice.cloud.plan import plan
from coppice.cloud.revocation import listed_contents, registered_contents
from coppice.cloud.revocations import Revocations
from coppice.cloud.steps import ActionKind, ApplyResult
from coppice.errors import CoppiceError, PartialFailureError
from coppice.workflows.cloud_events import CloudEvents
from coppice.workflows.cloud_lock import cloud_lock
from coppice.workflows.expiring import tell_expiring
from coppice.workflows.mapping import desired_for, policy_for
from coppice.workflows.observe import observe
from coppice.workflows.parallel import Outcome, in_parallel
from coppice.workflows.supply import Nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from coppice.clock import Clock
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import Desired, DesiredImage, Policy, RegisteredImage, Revocation
    from coppice.cloud.steps import Action, ActionResult, Plan
    from coppice.database import Database
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.fetch import FetchReport
    from coppice.workflows.needed import Pruned
    from coppice.workflows.refresh import RefreshReport
    from coppice.workflows.supply import Supplies

    Planner = Callable[[Desired, Sequence[RegisteredImage], Policy, datetime, str], Plan]
    """Makes a plan of what is wanted, what is registered, the policy, the time and the cloud's name."""
    Tried = tuple[ActionKind, ImageKey, str, str | None, str | None]

LOCK_NAME = "run.lock"
"""Name of the lock file in the state directory: whatever fetches lists and images for clouds holds it."""
PATIENCE_SECONDS = 300.0
"""How long a run that is under way waits for a cloud that another one changes just then."""
STOPPING_SECONDS = 3.0
"""How long clouds that are worked on are waited for after Ctrl-C or a termination signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudReport:
    """What became of one cloud.

    Attributes:
        cloud: Its name.
        plan: What was to be done, as it was planned first; None when the cloud could not be described.
        applied: What was done; None after a dry run, or when nothing could be.
        error: Why the cloud as a whole failed, be it after a part was done.
    """

    cloud: str
    plan: Plan | None = None
    applied: ApplyResult | None = None
    error: CoppiceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What became of a run.

    Attributes:
        refreshed: What became of the lists; None when none was asked for.
        unreadable: One error an entry of a list that could not be read.
        clouds: What became of the clouds, in the order of their names.
        cache: What became of the cache run; None: the site fetches only what plans need.
        pruned: What was removed from the cache; None: nothing was looked for, or the cache run did it.
    """

    refreshed: RefreshReport | None
    unreadable: tuple[CoppiceError, ...]
    clouds: tuple[CloudReport, ...]
    cache: FetchReport | None = None
    pruned: Pruned | None = None

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """Everything that failed or is held, each error once; what was merely not tried is none."""
        found: list[CoppiceError] = [*(self.refreshed.errors if self.refreshed else ()), *self.unreadable]
        found.extend(self.cache.errors if self.cache else ())
        found.extend(self.pruned.errors if self.pruned else ())
        for cloud in self.clouds:
            found.extend(held.error for held in (cloud.plan.held if cloud.plan else ()))
            results = cloud.applied.results if cloud.applied else ()
            found.extend(result.error for result in results if result.error is not None and not result.skipped)
            if cloud.error is not None:
                found.append(cloud.error)
        return tuple({id(error): error for error in found}.values())

    def failure(self) -> PartialFailureError | None:
        """Return the error with which the command ends, or None when all went well."""
        errors = self.errors
        if not errors:
            return None
        return PartialFailureError(
            f"{len(errors)} {'item' if len(errors) == 1 else 'items'} failed; all else was done",
            details="\n".join(error.message for error in errors),
            resolution="Each error says what to do. Run again afterwards: what was done is not done twice.",
            context={"errors": [error.as_dict() for error in errors]},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What converging is done with.

    Attributes:
        settings: All settings.
        database: Where the journal is, and what clouds were seen to have.
        clock: Tells the time.
        monitor: Where progress is told.
    """

    settings: Settings
    database: Database
    clock: Clock
    monitor: Monitor


def converge(
    desired: Desired,
    clouds: Mapping[str, Cloud],
    site: Site,
    *,
    supplies: Supplies | None = None,
    dry_run: bool = False,
    allow_withdrawals: bool = False,
    wait_seconds: float = 0,
    agreed: Callable[[Plan], None] | None = None,
    planner: Planner = plan,
) -> tuple[CloudReport, ...]:
    """Describe, plan and apply, several clouds at a time; return what became of each, in the order of their names.

    Args:
        desired: What the site wants; `coppice.workflows.mapping` says what of it each cloud gets.
        clouds: By name.
        site: What it is done with.
        supplies: Where images come from; None: nothing is registered.
        dry_run: Plan only; no lock is taken.
        allow_withdrawals: The administrator confirmed what the cap would hold.
        wait_seconds: How long to wait for another run that changes a cloud.
        agreed: Refuses a plan that is not the one that was agreed to, by raising `StalePlanError`. All that it needs
            is then brought first, and it is carried out in one round. None: what is planned is done.
        planner: Makes the plan, as `coppice.cloud.plan.plan` does.

    Raises:
        DatabaseError: The database failed.
    """
    stop = threading.Event()
    runs = [
        _CloudRun(
            cloud,
            desired,
            site,
            supplies=supplies,
            allow_withdrawals=allow_withdrawals,
            wait_seconds=wait_seconds,
            agreed=agreed,
            planner=planner,
            stop=stop,
        )
        for _, cloud in sorted(clouds.items())
    ]
    try:
        outcomes = in_parallel(
            runs, lambda run: run.guarded(dry_run=dry_run), threads=site.settings.plan.clouds_at_once, aside=True
        )
    except BaseException:
        # Ctrl-C: what is at work in a cloud ends, as far as there is time; its lock is its thread's.
        stop.set()
        if supplies is not None:
            # Conversions are ended meanwhile, not after the clouds.
            supplies.end()
        until = time.monotonic() + STOPPING_SECONDS
        for run in runs:
            run.await_end(until)
        raise
    # What nobody foresaw in one cloud did not stop the others, and is raised now.
    return tuple(outcome.value() for outcome in outcomes)


@dataclass(slots=True, kw_only=True)
class _Progress:
    """What a run has done so far in one cloud."""

    plan: Plan | None = None
    results: dict[int, ActionResult] = field(default_factory=dict)
    tried: set[Tried] = field(default_factory=set)
    late: set[Tried] = field(default_factory=set)
    """What was not here yet when the last round began."""


class _CloudRun:
    """The rounds of one cloud."""

    def __init__(
        self,
        cloud: Cloud,
        desired: Desired,
        site: Site,
        *,
        supplies: Supplies | None,
        allow_withdrawals: bool,
        wait_seconds: float,
        agreed: Callable[[Plan], None] | None,
        planner: Planner,
        stop: threading.Event,
    ) -> None:
        self._cloud = cloud
        self._desired = desired
        self._site = site
        self._registers = supplies is not None
        self._supplies = supplies or Nothing()
        self._allow_withdrawals = allow_withdrawals
        self._wait_seconds = wait_seconds
        self._agreed = agreed
        self._planner = planner
        self._stop = stop
        self._done = _Progress()
        self._revocations: tuple[Revocation, ...] = ()
        self._begun, self._ended = threading.Event(), threading.Event()

    def guarded(self, *, dry_run: bool) -> Outcome[CloudReport]:
        """Run; whatever is raised is kept for later."""
        self._begun.set()
        outcome = Outcome[CloudReport]()
        with outcome:
            outcome.result = self._report(dry_run=dry_run)
        self._ended.set()
        return outcome

    def await_end(self, until: float) -> None:
        """Wait until the run has ended, where it has begun, or that instant of the monotonic clock has come."""
        if self._begun.is_set():
            self._ended.wait(max(0.0, until - time.monotonic()))

    def _report(self, *, dry_run: bool) -> CloudReport:
        done, error = self._done, None
        try:
            self._run(dry_run=dry_run)
        except CoppiceError as problem:
            error = problem
        applied = None
        if done.plan is not None and not dry_run and (error is None or done.results):
            applied = ApplyResult(plan=done.plan, results=tuple(done.results.values()))
        return CloudReport(cloud=self._cloud.name, plan=done.plan, applied=applied, error=error)

    def _run(self, *, dry_run: bool) -> None:
        settings, name = self._site.settings, self._cloud.name
        own = settings.clouds.get(name)
        desired = self._desired if own is None else desired_for(own, self._desired)
        policy = policy_for(settings, name, allow_withdrawals=self._allow_withdrawals)
        if dry_run or self._agreed is not None:
            registered = observe(self._cloud, self._site.database, self._site.clock)
            self._done.plan = made = self._planned(desired, registered, policy)
            if dry_run:
                return
            self._bring_all(made)
        wait_seconds = self._wait_seconds
        while not self._stop.is_set():
            with cloud_lock(settings, name, wait_seconds):
                awaited = self._round(desired, policy)
            if not awaited and self._is_overtaken():
                # Something was revoked while this run held the cloud: it is not left for the next run.
                continue
            if not awaited:
                return
            # Without the lock: somebody may want to revoke something meanwhile.
            self._supplies.await_any(awaited, self._cloud.formats, self._stop)
            wait_seconds = max(self._wait_seconds, PATIENCE_SECONDS)

    def _planned(self, desired: Desired, registered: Sequence[RegisteredImage], policy: Policy) -> Plan:
        if self._registers:
            # An administrator may have revoked something since the lists were read: images are long in coming.
            self._revocations = Revocations(self._site.database).in_force()
            desired = replace(desired, revocations=self._revocations)
        made = self._planner(desired, registered, policy, self._site.clock.now(), self._cloud.name)
        if self._agreed is not None:
            self._agreed(made)
        return made

    def _is_overtaken(self) -> bool:
        """Tell whether something was revoked, or let go, since the last plan of a run that makes its plans itself."""
        if not self._registers or self._agreed is not None:
            return False
        return Revocations(self._site.database).in_force() != self._revocations

    def _bring_all(self, made: Plan) -> None:
        images = [each.desired for each in made.actions if each.kind is ActionKind.REGISTER and each.desired]
        self._supplies.want(images, self._cloud.formats)
        while missing := [each for each in images if not self._supplies.is_here(each, self._cloud.formats)]:
            if self._stop.is_set():
                return
            self._supplies.await_any(missing, self._cloud.formats, self._stop)

    def _round(self, desired: Desired, policy: Policy) -> list[DesiredImage]:
        """Do what can be done now; return what is to be registered and is not here yet."""
        site, cloud, done = self._site, self._cloud, self._done
        # A run of many rounds keeps what it saw first and last.
        registered = observe(cloud, site.database, site.clock, is_kept=done.plan is None)
        _learn(desired, registered, site)
        made = self._planned(desired, registered, policy)
        done.plan = done.plan or made
        events = CloudEvents(site.database, cloud.name, site.clock)
        events.catch_up(registered)
        todo = [action for action in made.actions if _tried(action) not in done.tried]
        if not todo:
            if done.results:
                registered = observe(cloud, site.database, site.clock)
            self._tell_expiring(registered)
            return []
        images = [each.desired for each in todo if each.kind is ActionKind.REGISTER and each.desired is not None]
        self._supplies.want(images, cloud.formats)
        if all(map(self._awaits, todo)):
            return images
        events.begin(made)
        done.late.clear()
        applied = apply(
            made,
            cloud,
            obtain=self._supplies.obtain,
            clock=site.clock,
            policy=policy,
            monitor=site.monitor,
            registered=registered,
            on_result=lambda result: self._note(result, events),
            awaits=self._awaits,
            images_at_once=site.settings.plan.images_at_once,
            stop=self._stop,
        )
        awaited = [
            each.desired
            for each in applied.awaited
            # What was here, and was held back by something else, is the next run's: nobody would ever be done waiting.
            # It is not asked again whether it is here: what came meanwhile would be left out.
            if each.desired is not None and _tried(each) in done.late - done.tried
        ]
        if not awaited:
            self._tell_expiring(observe(cloud, site.database, site.clock))
        return awaited

    def _tell_expiring(self, registered: Sequence[RegisteredImage]) -> None:
        site = self._site
        days = site.settings.plan.warn_image_days
        tell_expiring(self._cloud.name, registered, site.database, within_days=days, now=site.clock.now())

    def _note(self, result: ActionResult, events: CloudEvents) -> None:
        done = self._done
        # What became of an action may be told again: the cloud did not show what it had taken.
        done.results[id(result.action)] = result
        done.tried.add(_tried(result.action))
        events.record(result)

    def _awaits(self, action: Action) -> bool:
        """Tell whether an action is not to be begun: it was tried in this run, or its image is not here yet."""
        if _tried(action) in self._done.tried:
            return True
        if action.kind is not ActionKind.REGISTER or action.desired is None:
            return False
        if self._supplies.is_here(action.desired, self._cloud.formats):
            return False
        self._done.late.add(_tried(action))
        return True


def _learn(desired: Desired, registered: Sequence[RegisteredImage], site: Site) -> None:
    known = (*registered_contents(registered), *listed_contents(desired))
    for each in Revocations(site.database).learn(known):
        site.monitor.message(
            f"{each.key} version {each.version} is revoked by its name, and came after very many others: it is not "
            f"kept that what is built on {each.digest} is revoked too. Revoke that digest, or follow its list no more."
        )


def _tried(action: Action) -> Tried:
    # A registration that is tried anew may have another unfinished one to begin from.
    image = None if action.kind is ActionKind.REGISTER else action.registered
    return action.kind, action.key, action.version, action.state, None if image is None else image.cloud_identifier
