# SPDX-License-Identifier: Apache-2.0
"""Import events: what another machine's vmcatcher archived goes into the journal, so that hooks are told of it.

Events come in their true order. One that cannot be read is moved aside and holds up none of the others. A file is put
away only after its event is in the journal for good; a run that is killed in between imports nothing twice.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete

from coppice.atomic import fsync_directory, storage_errors
from coppice.errors import CoppiceError, DocumentError, StateError, UnreadableFileError
from coppice.events.archive import ArchivedEvent, ArchivedName, archived_names, read_archived
from coppice.events.journal import write_event
from coppice.events.tables import ImportedEventRow
from coppice.events.vmcatcher import facts_of
from coppice.schedule.lock import run_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings

IMPORTED = "imported"
REJECTED = "rejected"
_NO_SUBJECT = "vmcatcher"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventImport:
    """What an import did.

    Attributes:
        imported: Names of the files whose events are in the journal now, in their order.
        known: Names of files whose events were there already, from a run that was killed.
        rejected: Name of each file that was moved aside → why.
        unreadable: Files that could not be read, and stay where they are.
        others: Names of files that are no archived events; they stay where they are.
    """

    imported: tuple[str, ...]
    known: tuple[str, ...]
    rejected: tuple[tuple[str, CoppiceError], ...]
    unreadable: tuple[CoppiceError, ...]
    others: tuple[str, ...]


def import_events(
    directory: Path,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    keep: bool = False,
    dry_run: bool = False,
) -> EventImport:
    """Read the archived events of ``directory`` into the journal.

    Args:
        directory: Where they lie. What was imported is removed from it, and what is no event goes into ``rejected/``.
        settings: All settings.
        database: Where the journal is.
        clock: Tells the time.
        monitor: Where progress is told.
        keep: Move what was imported into ``imported/`` instead.
        dry_run: Only read.

    Raises:
        UnreadableFileError: The directory cannot be read.
        StorageError: A file cannot be moved or removed.
        DatabaseError: The journal cannot be written; what was imported before is.
        LockedError: Another import is at work.
    """
    with _locked(settings, dry_run=dry_run):
        names, others = archived_names(directory)
        work = _Import(directory, database, clock, keep=keep, dry_run=dry_run)
        with monitor.task("events", total=len(names)) as task:
            for name in names:
                work.take(name)
                task.advance(1)
        work.forget()
        return EventImport(
            imported=tuple(work.imported),
            known=tuple(work.known),
            rejected=tuple(work.rejected),
            unreadable=tuple(work.unreadable),
            others=others,
        )


@contextmanager
def _locked(settings: Settings, *, dry_run: bool) -> Iterator[None]:
    if dry_run:
        yield
        return
    with run_lock(settings.state_directory / "locks" / "event-import.lock"):
        yield


class _Import:
    def __init__(self, directory: Path, database: Database, clock: Clock, *, keep: bool, dry_run: bool) -> None:
        self._directory = directory
        self._database = database
        self._clock = clock
        self._keep = keep
        self._dry_run = dry_run
        self._put_away: list[str] = []
        self.imported: list[str] = []
        self.known: list[str] = []
        self.rejected: list[tuple[str, CoppiceError]] = []
        self.unreadable: list[CoppiceError] = []

    def take(self, name: ArchivedName) -> None:
        """Import one file."""
        try:
            event = read_archived(self._directory, name)
        except DocumentError as problem:
            self.rejected.append((name.file_name, problem.told_of(name.file_name)))
            if not self._dry_run:
                self._move(name.file_name, REJECTED)
            return
        except UnreadableFileError as problem:
            self.unreadable.append(problem)
            return
        is_new = self._dry_run or self._record(event)
        (self.imported if is_new else self.known).append(name.file_name)
        if self._dry_run:
            return
        if self._keep:
            self._move(name.file_name, IMPORTED)
        else:
            with storage_errors("removing", self._directory / name.file_name):
                (self._directory / name.file_name).unlink(missing_ok=True)
        self._put_away.append(event.digest)

    def forget(self) -> None:
        """Forget the files that are gone: the same event may be archived and come once more."""
        if not self._put_away:
            return
        with storage_errors("writing to", self._directory):
            fsync_directory(self._directory)
        with self._database.session() as session:
            for start in range(0, len(self._put_away), 500):
                chunk = self._put_away[start : start + 500]
                session.execute(delete(ImportedEventRow).where(ImportedEventRow.digest.in_(chunk)))

    def _record(self, event: ArchivedEvent) -> bool:
        now = self._clock.now()
        happened = datetime.fromtimestamp(min(event.name.seconds, int(now.timestamp())), UTC)
        facts = facts_of(event.variables) | {"imported_from": event.name.file_name}
        image, followed = facts.get("image"), facts.get("list")
        subject = f"{followed}/{image}" if followed and image else str(image or _NO_SUBJECT)
        with self._database.session() as session:
            if session.get(ImportedEventRow, event.digest) is not None:
                return False
            session.add(ImportedEventRow(digest=event.digest, at=now))
            write_event(session, event.kind, subject=subject, facts=facts, at=happened)
            return True

    def _move(self, name: str, into: str) -> None:
        source, folder = self._directory / name, self._directory / into
        with storage_errors("moving", source):
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise StateError(f"{folder} is a link; nothing is moved through it")
            target, count = folder / name, 0
            while True:
                try:
                    # Unlike a rename, this never takes the place of another file.
                    os.link(source, target, follow_symlinks=False)
                except FileExistsError:
                    count += 1
                    target = folder / f"{name}.{count}"
                    continue
                break
            fsync_directory(folder)
            source.unlink()
