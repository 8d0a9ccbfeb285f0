# SPDX-License-Identifier: Apache-2.0
"""Take over images of other programs, and clear what failed registrations left: one at a time, each on its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from coppice.cloud.adoption_plan import Verdict
from coppice.cloud.model import ImageState, OwnershipMarker
from coppice.cloud.properties import lineage_of, presentation_digest, presentation_of
from coppice.errors import AdoptionError, CloudError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.clock import Clock
    from coppice.cloud.adoption_plan import Candidate
    from coppice.cloud.driver import Adopting, Cloud, Leftover, Tidy
    from coppice.cloud.model import Presentation, RegisteredImage
    from coppice.monitor import Monitor


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionResult:
    """What became of an image that was to be taken over.

    Attributes:
        candidate: Which.
        registered: The image afterwards; None: it failed.
        error: Why it failed.
    """

    candidate: Candidate
    registered: RegisteredImage | None = None
    error: CloudError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearResult:
    """What became of something that was to be cleared; the error says why it is there still."""

    leftover: Leftover
    error: CloudError | None = None


def adopting(cloud: Cloud) -> Adopting | None:
    """Return the cloud as one whose images can be taken over; None: it has none that another program made."""
    able = callable(getattr(cloud, "foreign", None)) and callable(getattr(cloud, "adopt", None))
    return cast("Adopting", cloud) if able else None


def tidying(cloud: Cloud) -> Tidy | None:
    """Return the cloud as one that finds what was left behind; None: nothing ever is, or it cannot be found."""
    able = callable(getattr(cloud, "leftovers", None)) and callable(getattr(cloud, "clear", None))
    return cast("Tidy", cloud) if able else None


def adopt_images(
    candidates: Sequence[Candidate],
    cloud: Cloud,
    *,
    clock: Clock,
    monitor: Monitor,
    on_result: Callable[[AdoptionResult], None],
) -> tuple[AdoptionResult, ...]:
    """Take over those of ``candidates`` that are to be taken; nothing is uploaded. One that fails stops no other.

    Raises:
        AdoptionError: The cloud cannot.
    """
    able = adopting(cloud)
    if able is None:
        raise AdoptionError(f"in cloud {cloud.name}, no images of other programs can be taken over")
    taken = [each for each in candidates if each.verdict is Verdict.TAKE]
    results = []
    with monitor.task(f"taking over images in {cloud.name}", total=len(taken)) as task:
        for candidate in taken:
            try:
                result = AdoptionResult(candidate=candidate, registered=_adopt(able, cloud, candidate, clock))
            except CloudError as problem:
                result = AdoptionResult(candidate=candidate, error=problem)
            on_result(result)
            results.append(result)
            task.advance(1)
    return tuple(results)


def clear_leftovers(
    leftovers: Sequence[Leftover], cloud: Cloud, *, monitor: Monitor, on_result: Callable[[ClearResult], None]
) -> tuple[ClearResult, ...]:
    """Clear those of ``leftovers`` that can be; one that fails stops no other."""
    able = tidying(cloud)
    results = []
    cleared = [each for each in leftovers if each.can_be_cleared] if able is not None else []
    with monitor.task(f"clearing what was left in {cloud.name}", total=len(cleared)) as task:
        for leftover in cleared:
            try:
                if able is not None:
                    able.clear(leftover)
                result = ClearResult(leftover=leftover)
            except CloudError as problem:
                result = ClearResult(leftover=leftover, error=problem)
            on_result(result)
            results.append(result)
            task.advance(1)
    return tuple(results)


def _adopt(able: Adopting, cloud: Cloud, candidate: Candidate, clock: Clock) -> RegisteredImage:
    shown = _presentation(candidate)
    marker = _marker(candidate, cloud.site, shown, clock)
    registered = able.adopt(candidate.foreign, marker, shown)
    if registered.marker.key != marker.key or not registered.marker.digest.matches(marker.digest):
        raise AdoptionError(
            f"cloud {cloud.name} says that image {candidate.foreign.cloud_identifier} was taken over, and shows "
            "another marker on it",
            details=f"asked for {marker.key} {marker.digest}, found {registered.marker.key} {registered.marker.digest}",
            resolution="Look at the image with `coppice cloud images`, and tell the makers of the driver.",
        )
    return registered


def _marker(candidate: Candidate, site: str, shown: Presentation, clock: Clock) -> OwnershipMarker:
    desired = candidate.desired
    if desired is None or candidate.version is None or candidate.digest is None:
        raise AdoptionError(f"of image {candidate.foreign.cloud_identifier} it is not known what it is")
    newest = candidate.version == desired.listed.version
    return OwnershipMarker(
        site=site,
        key=desired.key,
        version=candidate.version,
        list_version=desired.list_version,
        digest=candidate.digest,
        state=ImageState.AVAILABLE,
        state_since=clock.now(),
        expires=desired.expires,
        metadata_digest=presentation_digest(shown),
        vo=desired.vo,
        set_identifier=desired.set_identifier if newest else None,
        set_version=desired.set_version if newest else None,
        built_on=lineage_of(desired.built_on) if newest else (),
        adopted_from=str(candidate.claim.program),
    )


def _presentation(candidate: Candidate) -> Presentation:
    """Return how it is shown; an earlier version as what it is, until the newest takes its place."""
    desired, version = candidate.desired, candidate.version
    if desired is None or version is None:
        raise AdoptionError(f"of image {candidate.foreign.cloud_identifier} it is not known what it is")
    shown = presentation_of(desired)
    return shown if version == desired.listed.version else replace(shown, facts={**shown.facts, "version": version})
