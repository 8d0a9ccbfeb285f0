# SPDX-License-Identifier: Apache-2.0
"""After a rebuild: sets get their release, the lists that carry what is new are published, old versions go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.catalogue.appliances import Appliances
from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.history import PublicationHistory
from coppice.catalogue.model import PublicationState
from coppice.catalogue.sets import Sets
from coppice.errors import CoppiceError, InterruptedRunError, StateError, StorageError
from coppice.factory.staleness_notes import RebuildNotes, read_notes, write_notes
from coppice.workflows.build import factory_root
from coppice.workflows.delete import delete_appliance
from coppice.workflows.publish import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.delete import Deleted
    from coppice.workflows.publish import PublishReport
    from coppice.workflows.staleness import Appraisal


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRebuilds:
    """What became of publishing.

    Attributes:
        lists: Lists that were published.
        releases: ``set version`` of each release that was made.
        held: Why something that is new was not published, in sentences.
        deleted: Old versions that went.
        errors: What failed.
    """

    lists: tuple[PublishReport, ...] = ()
    releases: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    deleted: tuple[Deleted, ...] = ()
    errors: tuple[CoppiceError, ...] = ()


def publish_rebuilt(
    appraisals: Sequence[Appraisal],
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    ask: Callable[[str], str] | None = None,
) -> PublishedRebuilds:
    """Publish what was built anew, and what an earlier run could not publish any more.

    A list that was never published stays so: the first time is for a person.

    Args:
        appraisals: Every appliance that was looked at.
        settings: Where and how.
        database: Where the catalogue is.
        clock: For dates.
        monitor: Where progress is told.
        ask: Asks a person for a passphrase; None: there is nobody to ask.
    """
    root = factory_root(settings)
    new = [each.name for each in appraisals if _notes(root, each.name).is_unpublished]
    if not new:
        return PublishedRebuilds()
    releases, held, waiting, errors = _release_sets(new, root, Sets(database, clock))
    reports: list[PublishReport] = []
    appliances, history = Appliances(database, clock), PublicationHistory(database)
    carried = {name: appliances.lists_of(name) for name in new}
    done: set[str] = set()
    for list_name in sorted({each for lists in carried.values() for each in lists}):
        if not any(each.state is PublicationState.PUBLISHED for each in history.entries(list_name)):
            held.append(f"the image list {list_name} was never published: `coppice imagelist publish {list_name}`")
            done.add(list_name)
            continue
        try:
            reports.append(
                publish(list_name, settings=settings, database=database, clock=clock, monitor=monitor, ask=ask)
            )
        except InterruptedRunError:
            raise
        except CoppiceError as problem:
            errors.append(problem)
        else:
            done.add(list_name)
    deleted: list[Deleted] = []
    for name in new:
        if set(carried[name]) <= done and name not in waiting:
            write_notes(root, name, replace(_notes(root, name), is_unpublished=False))
    for each in appraisals:
        if each.name in new and each.definition is not None:
            keep = each.definition.rebuild.keep_versions
            deleted += _delete_old(each.name, keep, settings=settings, database=database, clock=clock)
    return PublishedRebuilds(
        lists=tuple(reports),
        releases=tuple(releases),
        held=tuple(held),
        deleted=tuple(deleted),
        errors=tuple(errors),
    )


def _notes(root: Path, name: str) -> RebuildNotes:
    try:
        return read_notes(root, name)
    except StorageError:
        # Told where the appliance was judged; it keeps nothing else from being published.
        return RebuildNotes()


def _release_sets(
    new: Sequence[str], root: Path, sets: Sets
) -> tuple[list[str], list[str], set[str], list[CoppiceError]]:
    """Make a release of each set that is carried by a list and has something new, unless a part of it failed."""
    releases: list[str] = []
    held: list[str] = []
    waiting: set[str] = set()
    errors: list[CoppiceError] = []
    for each in sets.all():
        if not each.lists or not set(each.appliances) & set(new):
            continue
        lost = [name for name in each.appliances if _notes(root, name).failed is not None]
        if lost:
            held.append(
                f"the set {each.name} stays as it is, since {', '.join(lost)} failed: its parts belong together"
            )
            waiting.update(each.appliances)
            continue
        try:
            made = sets.release(each.name)
        except CoppiceError as problem:
            errors.append(problem)
            waiting.update(each.appliances)
        else:
            releases.append(f"{each.name} {made.version}")
    return releases, held, waiting, errors


def _delete_old(name: str, keep: int, *, settings: Settings, database: Database, clock: Clock) -> list[Deleted]:
    deleted: list[Deleted] = []
    for version in Catalogue(database, clock).versions(name)[: -max(1, keep)]:
        try:
            deleted.append(
                delete_appliance(name, version=version.version, settings=settings, database=database, clock=clock)
            )
        except StateError:
            # A list that is still published, or a release of a set, names it: it goes after a later rebuild.
            continue
    return deleted
