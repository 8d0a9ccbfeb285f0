# SPDX-License-Identifier: Apache-2.0
"""From the catalogue to a published list: catalogue → image list → signature → publisher.

A version is written down with its bytes when it is signed, before it goes out: a run that is killed in between skips a
version, and never gives one version two contents.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.history import PublicationHistory
from coppice.catalogue.model import PublishedImage
from coppice.catalogue.selections import Selections
from coppice.clock import to_rfc3339
from coppice.errors import CoppiceError, InconsistentListError
from coppice.formats.list_difference import list_difference
from coppice.imagelist.keys import load_identity, require_usable
from coppice.imagelist.sign import sign_list
from coppice.model.endorser import Endorser
from coppice.schedule.lock import run_lock
from coppice.workflows.deltas import NO_DELTAS, make_deltas, prune_deltas
from coppice.workflows.prepare import file_name, open_publisher, prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from coppice.catalogue.model import EndorserIdentity, Selection
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.formats.list_difference import ListDifference
    from coppice.imagelist.keys import SigningIdentity
    from coppice.imagelist.model import ImageList, Publication, Publisher, SignedImageList
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.deltas import MadeDeltas
    from coppice.workflows.prepare import Prepared

__all__ = ["PublishPreview", "PublishReport", "file_name", "open_publisher", "preview", "publish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishReport:
    """What publishing a list did.

    Attributes:
        selection: The list at the publisher.
        signed: What went out.
        publication: Where, and how much was written.
        warnings: What the publisher should know.
        retired: Names of image files that were removed, since no published list had named them for long enough.
    """

    selection: Selection
    signed: SignedImageList
    publication: Publication
    warnings: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPreview:
    """What publishing a list would do.

    Attributes:
        selection: The list.
        content: What it would say.
        difference: From what is published to that; None when what is published cannot be read.
        warnings: What the publisher should know.
    """

    selection: Selection
    content: ImageList
    difference: ListDifference | None
    warnings: tuple[str, ...]


def publish(
    list_name: str,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    signer: str | None = None,
    ask: Callable[[str], str] | None = None,
    deltas: bool | None = None,
) -> PublishReport:
    """Compose, sign and publish the list ``list_name``: images first, the list last.

    Args:
        list_name: The list.
        settings: Publishers, limits, and how long unnamed image files stay.
        database: Where the catalogue is.
        clock: Gives the list its dates.
        monitor: Where progress is told.
        signer: Name of the endorser who signs; the list's own when None.
        ask: Asks a person for a passphrase; None: there is nobody to ask.
        deltas: Whether images are published with deltas; None: as the settings say.

    Raises:
        NotFoundError: There is no such list.
        InconsistentListError: What it would carry contradicts itself, or the signer is not bound to it.
        SettingsError: Its publisher is not in the settings.
        UnreadableFileError: The endorser's certificate or key cannot be used, or an image is not there.
        StateError: What is published is newer than what the catalogue knows, or another run publishes the list.
        LockedError: Another run on this machine publishes it.
        StorageError, TransferError, PublicationError: The publisher's place failed.
    """
    selections, history = Selections(database, clock), PublicationHistory(database)
    known = selections.get(list_name).name
    with run_lock(settings.state_directory / "locks" / f"publish-{known}.lock"):
        selection = selections.get(list_name)
        publisher = open_publisher(settings, selection.publisher)
        _take_up(selection, publisher, history, clock)
        endorser = _signer(selection, signer)
        identity = load_identity(Endorsers(database).get(endorser), ask=ask)
        require_usable(identity, clock.now())
        prepared = prepare(
            selection,
            publisher,
            identity.endorser,
            settings=settings,
            history=history,
            clock=clock,
            monitor=monitor,
            make=_deltas(selection, deltas, settings=settings, database=database, monitor=monitor, dry_run=False),
        )
        signed = sign_list(prepared.content, identity, clock.now(), limits=settings.lists)
        number = history.record_signed(
            selection,
            version=signed.content.version,
            message=signed.message,
            payload=signed.payload_checksum,
            signer=str(signed.signer),
            endorser=endorser,
            uri=publisher.list_uri(list_name),
            images=_images(prepared),
            at=clock.now(),
            expires=signed.content.validity.expires,
        )
        publication = publisher.publish(list_name, signed, prepared.files, monitor)
        history.record_published(number, at=clock.now())
        retired, left = _retire(publisher, settings, clock.now(), monitor)
        left += _prune(selection, settings)
    return PublishReport(
        selection=selections.get(list_name),
        signed=signed,
        publication=publication,
        warnings=(*prepared.warnings, *identity.warnings, *_of_certificate(signed, identity), *left),
        retired=retired,
    )


def preview(
    list_name: str,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    signer: str | None = None,
    deltas: bool | None = None,
) -> PublishPreview:
    """Return what `publish` would do; nothing is signed or written, no version is used up, no secret is needed.

    Deltas that are there are shown as they would be listed; those that would be made are told of.

    Raises:
        NotFoundError: There is no such list.
        InconsistentListError: What it would carry contradicts itself, or the signer is not bound to it.
        SettingsError: Its publisher is not in the settings.
        UnreadableFileError: An image is not there.
        StateError: What is published is newer than what the catalogue knows.
        StorageError, TransferError, PublicationError: What is published cannot be looked at.
    """
    selection, history = Selections(database, clock).get(list_name), PublicationHistory(database)
    publisher = open_publisher(settings, selection.publisher)
    endorser = _public(Endorsers(database).get(_signer(selection, signer)))
    prepared = prepare(
        selection,
        publisher,
        endorser,
        settings=settings,
        history=history,
        clock=clock,
        monitor=monitor,
        make=_deltas(selection, deltas, settings=settings, database=database, monitor=monitor, dry_run=True),
    )
    found = prepared.published
    difference = None
    if found.content is not None or found.message is None:
        difference = list_difference(found.content, prepared.content)
    return PublishPreview(
        selection=selection, content=prepared.content, difference=difference, warnings=prepared.warnings
    )


def _deltas(
    selection: Selection,
    wanted: bool | None,
    *,
    settings: Settings,
    database: Database,
    monitor: Monitor,
    dry_run: bool,
) -> Callable[[], MadeDeltas]:
    if not (settings.publishing.deltas if wanted is None else wanted):
        return lambda: NO_DELTAS
    history = PublicationHistory(database)
    return lambda: make_deltas(
        selection, settings=settings, database=database, history=history, monitor=monitor, dry_run=dry_run
    )


def _signer(selection: Selection, wanted: str | None) -> str:
    if wanted is None or wanted in selection.endorsers:
        return wanted or selection.endorser
    raise InconsistentListError(
        f"{wanted} is not bound to the image list {selection.name}",
        details=f"bound: {', '.join(selection.endorsers)}",
        resolution=f"`coppice imagelist bind-endorser {selection.name} {wanted}` lets {wanted} sign it.",
    )


def _public(identity: EndorserIdentity) -> Endorser:
    if identity.subject is None or identity.issuer is None:
        # Made known by an older version, which did not write down whose certificate it was.
        return load_identity(identity).endorser
    return Endorser(name=identity.creator, email=identity.email, subject=identity.subject, issuer=identity.issuer)


def _take_up(selection: Selection, publisher: Publisher, history: PublicationHistory, clock: Clock) -> None:
    """Find out of what an earlier run signed whether it went out."""
    unfinished = history.unfinished(selection.identifier)
    if not unfinished:
        return
    there = publisher.published(selection.name)
    for number, message in unfinished:
        if message == there:
            history.record_published(number, at=clock.now())


def _images(prepared: Prepared) -> list[PublishedImage]:
    names = {version.appliance.identifier: version.appliance.name for version in prepared.selection.listed_versions}
    return [
        PublishedImage(
            identifier=image.identifier,
            appliance=names[image.identifier],
            version=image.version,
            checksum=image.checksum.hexdigest,
            expires=image.expires,
        )
        for image in prepared.content.images
    ]


def _of_certificate(signed: SignedImageList, identity: SigningIdentity) -> tuple[str, ...]:
    until = identity.certificate.not_valid_after_utc
    expires = signed.content.validity.expires
    if until >= expires:
        return ()
    said = (
        f"the certificate of {identity.endorser.subject} ends on {to_rfc3339(until)}, before the list does "
        f"({to_rfc3339(expires)}): from then on nobody new can verify it; publish again with a renewed one before"
    )
    return (said,)


def _retire(
    publisher: Publisher, settings: Settings, now: datetime, monitor: Monitor
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    unnamed_since = now - timedelta(days=settings.publishing.retire_images_days)
    try:
        return publisher.retire(unnamed_since=unnamed_since, monitor=monitor), ()
    except CoppiceError as problem:
        # The list is out. What could not be tidied up now is tidied up after the next publication.
        return (), (f"image files that no list names any more stay where they are: {problem.message}",)


def _prune(selection: Selection, settings: Settings) -> tuple[str, ...]:
    try:
        prune_deltas(selection, settings=settings)
    except CoppiceError as problem:
        return (f"what is kept of deltas that no list names any more stays: {problem.message}",)
    return ()
