# SPDX-License-Identifier: Apache-2.0
"""Tell: each hook of the settings is told of the events that are due, in their order.

Hooks are told side by side, each by one run at a time, whoever calls: one that hangs or fails holds up no other.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.errors import CoppiceError, DatabaseError, InterruptedRunError, LockedError
from coppice.events.deliveries import Deliveries
from coppice.events.dispatch import Dispatcher
from coppice.events.hooks import Supplies, make_hook, wants
from coppice.events.journal import Journal
from coppice.events.program import Surroundings
from coppice.http import Client
from coppice.schedule.lock import run_lock
from coppice.workflows.parallel import in_parallel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.monitor import Monitor
    from coppice.settings.model import HookSettings, Settings

LOCKS = "locks"
"""Directory in the state directory; ``hook-NAME.lock`` in it is held by whoever tells that hook."""
LOCK_WAIT_SECONDS = 1.0
LEAVE_SECONDS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HookReport:
    """What became of one hook.

    Attributes:
        hook: Its name.
        delivered: How many events it was told of.
        waiting: How many it is to be told of, or told of once more.
        parked: How many are parked, of this run or an earlier one.
        given_up: How many were parked in this run.
        errors: Why; one an event that was not delivered.
        busy: Whether another run is telling it just now.
    """

    hook: str
    delivered: int = 0
    waiting: int = 0
    parked: int = 0
    given_up: int = 0
    errors: tuple[CoppiceError, ...] = ()
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TellReport:
    """What became of all of them, in the order of their names."""

    hooks: tuple[HookReport, ...] = ()

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """Why events were not delivered."""
        return tuple(error for each in self.hooks for error in each.errors)


def meet_hooks(settings: Settings, database: Database, clock: Clock) -> None:
    """Note hooks that stand in the settings for the first time: they are told of what happens from now on.

    Called before a run writes events. (`tell` does so too, but it comes after them.)

    Raises:
        DatabaseError: The database failed.
    """
    if settings.hooks:
        Deliveries(database).meet(settings.hooks, clock.now())


def tell(
    settings: Settings, database: Database, clock: Clock, monitor: Monitor, *, only: tuple[str, ...] = ()
) -> TellReport:
    """Tell every hook what is due; a hook that fails stops no other.

    Called at the end of runs, and by ``coppice event deliver``. What cannot be delivered is tried again by a later
    call; it is no failure of the run whose events they are. Events that had their time and that every hook was told of
    are removed from the journal.

    Args:
        settings: All settings.
        database: Where the journal is.
        clock: Tells the time.
        monitor: Where progress is told.
        only: Names of the hooks to tell; empty: all, and ``monitor`` is told which of them failed.

    Raises:
        DatabaseError: The database failed.
    """
    hooks = tuple(hook for name, hook in sorted(settings.hooks.items()) if not only or name in only)
    meet_hooks(settings, database, clock)
    reports: tuple[HookReport, ...] = ()
    if hooks:
        work = _Work(settings, database, clock)
        with monitor.task("hooks", total=len(hooks)) as task:
            try:
                reports = in_parallel(hooks, work.tell_one, threads=len(hooks), on_done=lambda _: task.advance(1))
            finally:
                work.leave()
        reports = _with_standings(reports, database)
    if not only:
        _note_failures(reports, monitor)
    _prune(settings, database, clock)
    return TellReport(hooks=reports)


def _note_failures(reports: tuple[HookReport, ...], monitor: Monitor) -> None:
    for each in reports:
        if each.errors:
            monitor.message(
                f"the hook {each.hook!r} failed: {each.waiting} waiting, {each.parked} parked; "
                f"`coppice event hooks` shows them ({each.errors[0].message})"
            )


def _prune(settings: Settings, database: Database, clock: Clock) -> None:
    before = clock.now() - timedelta(days=settings.events.keep_days)
    Journal(database).prune(before, hooks=tuple(settings.hooks))


def _with_standings(reports: tuple[HookReport, ...], database: Database) -> tuple[HookReport, ...]:
    standings = Deliveries(database).standings([each.hook for each in reports])
    return tuple(
        replace(each, waiting=standing.waiting + standing.behind, parked=standing.parked)
        for each, standing in zip(reports, standings, strict=True)
    )


class _Work:
    """Tells hooks, each in a thread of its own."""

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._leaving = threading.Event()
        self._busy: set[str] = set()
        self._changed = threading.Condition()
        self._followers = followers(settings, database)
        secrets = {hook.secret_env for hook in settings.hooks.values() if hook.secret_env is not None}
        around = Surroundings(
            environ=dict(os.environ),
            secret_variables=frozenset(secrets),
            cache=settings.state_directory / "cache",
            database_url=settings.database_url,
            stopped=self._leaving.is_set,
        )
        self._supplies = Supplies(around=around, clock=clock, client=self._client)

    def _client(self) -> Client:
        return Client(self._settings.transfer, clock=self._clock)

    def tell_one(self, hook: HookSettings) -> HookReport:
        """Tell one hook what is due."""
        lock = self._settings.state_directory / LOCKS / f"hook-{hook.name}.lock"
        with self._counted(hook.name):
            try:
                with run_lock(lock, LOCK_WAIT_SECONDS):
                    return self._round(hook)
            except LockedError:
                return HookReport(hook=hook.name, busy=True)
            except (DatabaseError, InterruptedRunError):
                raise
            except CoppiceError as problem:
                return HookReport(hook=hook.name, errors=(problem,))

    def _round(self, hook: HookSettings) -> HookReport:
        done = Dispatcher(
            hook.name,
            make_hook(hook, self._supplies),
            lambda event: wants(hook, event, self._followers),
            deliveries=Deliveries(self._database),
            journal=Journal(self._database),
            clock=self._clock,
            settings=self._settings.events,
            stopped=self._leaving.is_set,
        ).run()
        return HookReport(hook=hook.name, delivered=done.delivered, given_up=done.parked, errors=tuple(done.errors))

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        with self._changed:
            self._busy.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(name)
                self._changed.notify_all()

    def leave(self) -> None:
        """End what is under way; nobody records anything afterwards. A program is ended, a server is not waited for."""
        self._leaving.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, timeout=LEAVE_SECONDS)


def followers(settings: Settings, database: Database) -> Mapping[str, frozenset[str]]:
    """Return the subscriptions that follow each list, by its identifier; empty when no hook asks for some only.

    Raises:
        DatabaseError: The database failed.
    """
    if not any(hook.subscriptions for hook in settings.hooks.values()):
        return {}
    from coppice.subscription.store import SubscriptionStore

    found: dict[str, frozenset[str]] = {}
    for each in SubscriptionStore(database).all():
        if each.list_identifier is not None:
            found[each.list_identifier] = found.get(each.list_identifier, frozenset()) | {each.name}
    return found
