# SPDX-License-Identifier: Apache-2.0
"""Adopt: take over the images that another program registered, as far as it is shown what they are.

Recall the lists → what this cloud wants → its foreign images → claims, proofs → write our marker. Nothing is fetched,
nothing is uploaded, and what is not taken stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.adoption_plan import Verdict, plan_adoption
from coppice.cloud.apply.adoption import adopt_images, adopting
from coppice.conversion.files import hash_file
from coppice.conversion.keep import all_kept
from coppice.errors import AdoptionError, ImageRefusedError, NotFoundError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.monitor import Unit
from coppice.workflows.cloud_lock import cloud_lock
from coppice.workflows.mapping import desired_for
from coppice.workflows.observe import observe
from coppice.workflows.obtain import conversion_directory
from coppice.workflows.wanted import wanted_today

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coppice.clock import Clock
    from coppice.cloud.adoption_plan import Candidate
    from coppice.cloud.apply.adoption import AdoptionResult
    from coppice.cloud.driver import Cloud, ForeignImage
    from coppice.conversion.keep import Kept
    from coppice.database import Database
    from coppice.errors import CoppiceError
    from coppice.model.checksum import Checksum
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionReport:
    """What can be taken over in a cloud, and what was.

    Attributes:
        cloud: Name of the target.
        candidates: Every image of a known program, in the order of the cloud's identifiers.
        results: What became of those that were to be taken; empty after a dry run.
        unknown: Why nothing is known of some lists: images of theirs are not taken.
    """

    cloud: str
    candidates: tuple[Candidate, ...]
    results: tuple[AdoptionResult, ...]
    unknown: tuple[CoppiceError, ...]

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """What failed."""
        return tuple(each.error for each in self.results if each.error is not None)

    @property
    def unproven(self) -> int:
        """How many images are taken with `trust_markers` only."""
        return sum(1 for each in self.candidates if each.verdict is Verdict.UNPROVEN)


def adopt(
    cloud: Cloud,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    trust_markers: bool = False,
    dry_run: bool = False,
    wait_seconds: float = 0,
) -> AdoptionReport:
    """Take over the images of other programs in ``cloud`` that are what the site wants there.

    An image is taken once; a second run finds nothing left to do.

    Args:
        cloud: Where.
        settings: All settings.
        database: Where subscriptions and the journal are.
        clock: Tells the time.
        monitor: Where progress is told.
        trust_markers: Take what rests on the other program's word alone, too.
        dry_run: Only say what would be taken.
        wait_seconds: How long to wait for another run that changes the cloud.

    Raises:
        AdoptionError: In this cloud, nothing can be taken over.
        CloudError: The cloud could not be asked, or its answer was incomplete; nothing was taken.
        LockedError: Another run changes the cloud.
        DatabaseError: The database failed.
        SettingsError: A template or an expression of the cloud is none.
    """
    able = adopting(cloud)
    if able is None:
        raise AdoptionError(
            f"in cloud {cloud.name}, no images of other programs can be taken over",
            resolution="Its driver does not know of any. Let sync register what is listed, and remove the others.",
            context={"cloud": cloud.name},
        )
    target = settings.clouds.get(cloud.name)
    if target is None:
        raise NotFoundError(f"there is no cloud {cloud.name!r} in the settings")
    with cloud_lock(settings, cloud.name, wait_seconds):
        wanted = wanted_today(database, clock, settings.lists)
        registered = observe(cloud, database, clock)
        foreign = able.foreign()
        candidates = plan_adoption(
            foreign,
            registered,
            desired_for(target, wanted.desired),
            _converted(settings, foreign, monitor),
            clock.now(),
            trust_markers=trust_markers,
        )
        results: tuple[AdoptionResult, ...] = ()
        if not dry_run:
            results = adopt_images(
                candidates,
                cloud,
                clock=clock,
                monitor=monitor,
                on_result=lambda result: _tell(database, clock, cloud.name, result),
            )
            if any(each.registered is not None for each in results):
                observe(cloud, database, clock)
    return AdoptionReport(cloud=cloud.name, candidates=candidates, results=results, unknown=wanted.unknown)


def _converted(
    settings: Settings, foreign: Iterable[ForeignImage], monitor: Monitor
) -> Mapping[Checksum, frozenset[Checksum]]:
    """Return what was made of published files and is here still, by their checksums.

    What could be one of the cloud's images, by its length where that is told, is read where the cloud tells a checksum
    of another kind.
    """
    asked: defaultdict[int | None, set[str]] = defaultdict(set)
    for each in foreign:
        if each.checksum is not None:
            asked[each.size_bytes].add(each.checksum.algorithm)
    found: defaultdict[Checksum, set[Checksum]] = defaultdict(set)
    for kept in all_kept(conversion_directory(settings)):
        image = kept.made.image
        found[kept.made.source].add(image.checksum)
        more = sorted((asked[image.size_bytes] | asked[None]) - {image.checksum.algorithm})
        if more:
            found[kept.made.source].update(_other_checksums(kept, more, monitor))
    return {source: frozenset(made) for source, made in found.items()}


def _other_checksums(kept: Kept, algorithms: Sequence[str], monitor: Monitor) -> set[Checksum]:
    """Return more checksums of a kept file; none, if it was altered or removed meanwhile: that proves nothing."""
    image = kept.made.image
    total = image.size_bytes * (1 + len(algorithms))
    with monitor.task("reading what was converted", total=total, unit=Unit.BYTES) as task:
        try:
            own, state = hash_file(kept.path, image.checksum.algorithm, task.advance)
            others = [hash_file(kept.path, each, task.advance) for each in algorithms]
        except (OSError, ImageRefusedError):
            return set()
    is_sound = own.matches(image.checksum) and all(each == state for _, each in others)
    return {found for found, _ in others} if is_sound else set()


def _tell(database: Database, clock: Clock, cloud: str, result: AdoptionResult) -> None:
    candidate = result.candidate
    key = None if candidate.desired is None else candidate.desired.key
    facts: dict[str, object] = {
        "cloud": cloud,
        "cloud_identifier": candidate.foreign.cloud_identifier,
        "list": None if key is None else key.list_identifier,
        "image": None if key is None else key.image_identifier,
        "version": candidate.version,
        "digest": str(candidate.digest),
        "program": str(candidate.claim.program),
        "proof": str(candidate.proof),
    }
    kind = EventKind.IMAGE_ADOPTED
    if result.error is not None:
        kind = EventKind.IMAGE_FAILED
        facts |= {"action": "adopt", "error": result.error.as_dict()}
    with database.session() as session:
        write_event(session, kind, subject=f"{cloud}:{key}", facts=facts, at=clock.now())
