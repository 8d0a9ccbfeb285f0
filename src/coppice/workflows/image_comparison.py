# SPDX-License-Identifier: Apache-2.0
"""An image file against what a list that is followed says of it: told, and nothing follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.conversion.claim import Claim, Verdict
from coppice.conversion.declared import told
from coppice.conversion.guest.claims import guest_claims
from coppice.digests import new_digest
from coppice.errors import NotFoundError, StateError
from coppice.model.checksum import Checksum
from coppice.monitor import Unit
from coppice.subscription.rows import canonical
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.listed import recall_lists

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.conversion.guest.model import GuestFacts
    from coppice.conversion.model import Inspection
    from coppice.database import Database
    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import ListedImage
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier
    from coppice.monitor import Monitor
    from coppice.workflows.image_file import FileReport
    from coppice.workflows.refresh import ListOutcome

_CHUNK_BYTES = 1024 * 1024
_SHOWN = 140
_DIGITS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedImage:
    """An image of a list that is followed.

    Attributes:
        subscription: The subscription's name.
        list_identifier: Which list.
        image: What the list says of it.
    """

    subscription: str
    list_identifier: ListIdentifier
    image: ListedImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a list says of an image, each against what a file is.

    Attributes:
        subscription: The subscription whose list it is.
        list_identifier: Which list.
        image_identifier: Which image.
        title: Its title.
        image_version: Its version.
        claims: What the list says; what it does not say is not among it.
    """

    subscription: str
    list_identifier: ListIdentifier
    image_identifier: ImageIdentifier
    title: str
    image_version: str
    claims: tuple[Claim, ...]

    @property
    def differing(self) -> tuple[Claim, ...]:
        """Where the file is not as the list says; what is not known is not among it."""
        return tuple(each for each in self.claims if each.verdict is Verdict.DIFFERS)


def followed_image(database: Database | None, clock: Clock, limits: ListLimits, wanted: str) -> FollowedImage:
    """Return what a followed list says of an image; nothing is fetched.

    Args:
        database: Where the lists are kept; None: there is none yet.
        clock: Tells the time.
        limits: Bounds on lists.
        wanted: The image's identifier, alone or after that of its list or the name of its subscription and a slash.

    Raises:
        NotFoundError: No list that is followed and known names it.
        StateError: Several do, and say different things of it.
        DatabaseError: The database failed.
    """
    outcomes = () if database is None else recall_lists(SubscriptionStore(database), clock, limits)
    found = [each for outcome in outcomes for each in _named(outcome, wanted)]
    if not found:
        raise NotFoundError(
            f"no list that is followed names an image {wanted[:_SHOWN]!r}",
            details="\n".join(_obstacles(outcomes, wanted)) or None,
            resolution="`coppice image list` shows identifiers; `coppice subscription refresh` fetches the lists anew.",
        )
    first = found[0]
    if any((each.list_identifier, each.image) != (first.list_identifier, first.image) for each in found):
        raise StateError(
            f"{len(found)} lists that are followed name an image {wanted[:_SHOWN]!r}",
            details="\n".join(
                f"{each.subscription}/{each.image.identifier}: {each.image.title} {each.image.version}"
                for each in found
            ),
            resolution="Write SUBSCRIPTION/IDENTIFIER.",
        )
    return first


def compare(report: FileReport, followed: FollowedImage, monitor: Monitor) -> Comparison:
    """Return what a list says of an image, each against what a file is; all of the file is read.

    Args:
        report: What the file is.
        followed: What the list says.
        monitor: Where progress is told.

    Raises:
        StorageError: The file cannot be read.
    """
    said = followed.image
    size = report.inspection.size_bytes
    checksum = _checksum(report.path, said.checksum.algorithm, size, monitor)
    return Comparison(
        subscription=followed.subscription,
        list_identifier=followed.list_identifier,
        image_identifier=said.identifier,
        title=said.title,
        image_version=said.version,
        claims=claims_of(said, report.inspection, checksum, report.guest, report.path.name or str(report.path)),
    )


def claims_of(
    said: ListedImage, found: Inspection, checksum: Checksum, guest: GuestFacts | None, name: str
) -> tuple[Claim, ...]:
    """Return what a list says of an image, each against what was found; pure.

    Args:
        said: What the list says.
        found: What the file is.
        checksum: Of the file, by the list's algorithm.
        guest: What is in its disk; None: nobody looked.
        name: Of the file, for people.
    """
    return (*_of_file(said, found, checksum, name), *guest_claims(guest, said.operating_system, said.requirements))


def _of_file(said: ListedImage, found: Inspection, checksum: Checksum, name: str) -> Iterator[Claim]:
    yield Claim.held(
        "size",
        said.size_bytes,
        found.size_bytes,
        is_same=said.size_bytes == found.size_bytes,
        difference=f"the list says {said.size_bytes} bytes, and the file has {found.size_bytes}",
    )
    yield Claim.held(
        "checksum",
        str(said.checksum),
        str(checksum),
        is_same=checksum.matches(said.checksum),
        difference=f"the list says {said.checksum.algorithm} {said.checksum.hexdigest[:_DIGITS]}…, "
        f"and the file has {checksum.hexdigest[:_DIGITS]}…",
    )
    if said.declared_format is not None and said.declared_format.strip():
        words = told(said.declared_format, found, name)
        disk = found.disk.format
        yield Claim.held(
            "format",
            said.declared_format.strip(),
            str(found.format) if disk is found.format else f"{found.format} ({disk})",
            is_same=words is None,
            difference=words or "",
        )


def _named(outcome: ListOutcome, wanted: str) -> Iterator[FollowedImage]:
    if outcome.verified is None:
        return
    content, name = outcome.verified.content, outcome.subscription.name
    for image in content.images:
        if _is_meant(wanted, image.identifier, (name, content.identifier)):
            yield FollowedImage(subscription=name, list_identifier=content.identifier, image=image)


def _is_meant(wanted: str, identifier: str, owners: Sequence[str]) -> bool:
    spellings = (identifier, *(f"{owner}/{identifier}" for owner in owners))
    return _canonical(wanted) in {_canonical(each) for each in spellings}


def _canonical(text: str) -> str:
    """Return a text with its UUIDs, before and after the last slash, in their one spelling."""
    owner, slash, identifier = text.rpartition("/")
    return f"{canonical(owner)}{slash}{canonical(identifier)}"


def _obstacles(outcomes: Sequence[ListOutcome], wanted: str) -> Iterator[str]:
    """Yield why a list may name the image all the same."""
    for outcome in outcomes:
        name = outcome.subscription.name
        if outcome.verified is None:
            yield f"{name}: {outcome.error.message if outcome.error is not None else 'its list is not known'}"
            continue
        content = outcome.verified.content
        for entry in content.unreadable:
            if _is_meant(wanted, entry.identifier, (name, content.identifier)):
                yield f"{name}: its list names it, and what it says of it cannot be read: {entry.problem}"


def _checksum(path: Path, algorithm: str, size_bytes: int, monitor: Monitor) -> Checksum:
    digest = new_digest(algorithm)
    with (
        atomic.storage_errors("reading", path),
        path.open("rb") as stream,
        monitor.task("hashing the file", total=size_bytes, unit=Unit.BYTES) as task,
    ):
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            task.advance(len(chunk))
    return Checksum(algorithm, digest.hexdigest())
