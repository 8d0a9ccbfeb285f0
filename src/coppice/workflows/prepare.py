# SPDX-License-Identifier: Apache-2.0
"""What comes before a list is signed: what it will say, which files it needs, and what is published now.

All that can be wrong is found here, before a version is used up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.catalogue.consistency import check_contents
from coppice.clock import to_rfc3339
from coppice.errors import (
    DocumentError,
    ExistsError,
    InconsistentListError,
    SettingsError,
    StateError,
    TrustError,
    UnreadableFileError,
)
from coppice.formats.cms import open_message
from coppice.formats.hepix import read_list, write_list
from coppice.imagelist.compose import compose, next_version
from coppice.imagelist.publishers import load_publisher
from coppice.model.version import Version
from coppice.workflows.deltas import NO_DELTAS, with_deltas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from coppice.catalogue.history import PublicationHistory
    from coppice.catalogue.model import ApplianceVersion, RecordedPublication, Selection
    from coppice.clock import Clock
    from coppice.formats.limits import ListLimits
    from coppice.imagelist.compose import Composed
    from coppice.imagelist.model import ImageList, Publisher
    from coppice.model.endorser import Endorser
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.deltas import MadeDeltas


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What readers get of a list now.

    Attributes:
        message: The bytes; None: there are none.
        content: What they say; None when there are none, or they cannot be read.
        problem: Why they cannot be read, or None.
    """

    message: bytes | None
    content: ImageList | None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A list that can be signed and published.

    Attributes:
        selection: What goes into it.
        content: What it says.
        files: Image files, and files of their deltas, by the name that they are published under.
        published: What readers get now.
        warnings: What the publisher should know.
    """

    selection: Selection
    content: ImageList
    files: Mapping[str, Path]
    published: Published
    warnings: tuple[str, ...]


def prepare(
    selection: Selection,
    publisher: Publisher,
    endorser: Endorser,
    *,
    settings: Settings,
    history: PublicationHistory,
    clock: Clock,
    monitor: Monitor,
    make: Callable[[], MadeDeltas] = lambda: NO_DELTAS,
) -> Prepared:
    """Return what publishing ``selection`` would put out; nothing is changed where others see it.

    Args:
        selection: What goes into the list.
        publisher: Where it will be.
        endorser: Who vouches for it.
        settings: Limits.
        history: What went out before.
        clock: Gives the list its dates.
        monitor: Where progress is told.
        make: Returns the deltas of its images, when all else is known to be in order.

    Raises:
        InconsistentListError: It carries an appliance twice, a set is not whole, or it cannot be written as a list.
        UnreadableFileError: An image is not there.
        ExistsError: Another list is published under its name.
        StateError: What is published is newer than what the catalogue knows.
        StorageError, TransferError, PublicationError: What is published cannot be looked at.
    """
    check_contents(selection)
    held = {version.appliance.name: file_name(version) for version in selection.listed_versions if version.path}
    files = {held[version.appliance.name]: version.path for version in selection.listed_versions if version.path}
    _require_files(selection)
    published = _published(publisher, selection, settings.lists)
    last = history.last_published(selection.identifier)
    deltas = make()
    publisher.prepare({**files, **deltas.files}, monitor)
    composed = compose(
        selection,
        version=next_version(selection.last_version),
        now=clock.now(),
        endorser=endorser,
        image_uris={appliance: publisher.image_uri(name) for appliance, name in held.items()},
        list_uri=publisher.list_uri(selection.name),
        told={image.identifier: (image.version, image.expires) for image in last.images} if last is not None else {},
    )
    content = with_deltas(composed.content, selection, deltas, publisher.image_uri)
    _require_readable(selection, content, settings.lists)
    listed = {image.identifier for image in composed.content.images}
    parts = {
        file.name
        for version in selection.listed_versions
        if version.appliance.identifier in listed and version.appliance.name in deltas.images
        for file in deltas.images[version.appliance.name].files
    }
    needed = {
        held[version.appliance.name]
        for version in selection.listed_versions
        if version.path and version.appliance.identifier in listed
    }
    return Prepared(
        selection=selection,
        content=content,
        files={
            **{name: path for name, path in deltas.files.items() if name in parts},
            **{name: path for name, path in files.items() if name in needed},
        },
        published=published,
        warnings=(*_warnings(composed, published, last, endorser), *deltas.warnings),
    )


def open_publisher(settings: Settings, name: str) -> Publisher:
    """Return the publisher ``name`` of the settings.

    Raises:
        SettingsError: The settings do not name it, or its own settings are wrong.
    """
    found = settings.publishers.get(name)
    if found is None:
        raise SettingsError(
            f"the settings name no publisher {name!r}",
            details=f"there are: {', '.join(settings.publishers) or 'none'}",
            resolution=f"Add a section [publishers.{name}] with its driver and that one's options to the settings.",
        )
    return load_publisher(found, settings.transfer)


def file_name(version: ApplianceVersion) -> str:
    """Return the name under which an appliance version's image is published."""
    return f"{version.appliance.identifier}-{version.image.checksum.hexdigest[:16]}.{version.image.format}"


def _require_files(selection: Selection) -> None:
    problems = []
    for version in selection.listed_versions:
        if version.path is None:
            continue
        with storage_errors("looking for", version.path):
            found = version.path.stat().st_size if version.path.is_file() else None
        if found != version.image.size_bytes:
            said = "is not there" if found is None else f"has {found} bytes, not {version.image.size_bytes}"
            problems.append(f"{version.appliance.name} {version.version}: {version.path} {said}")
    if problems:
        raise UnreadableFileError(
            f"the image list {selection.name} cannot be published whole: {problems[0]}",
            details="\n".join(problems),
            resolution="Restore the file, or add the image again under a new version.",
        )


def _published(publisher: Publisher, selection: Selection, limits: ListLimits) -> Published:
    message = publisher.published(selection.name)
    if message is None:
        return Published(message=None, content=None)
    try:
        # Nothing is believed here: it is only looked at, to see what would change.
        content = read_list(open_message(message, limits=limits, allow_sha1=True).payload, limits=limits)
    except (TrustError, DocumentError) as problem:
        return Published(message=message, content=None, problem=problem.message)
    if content.identifier != selection.identifier:
        raise ExistsError(
            f"another list is published as {selection.name}: {content.identifier}, {content.title!r}",
            details=f"this one: {selection.identifier}",
            resolution="Its subscribers would lose it. Publish under another name or at another place; or take it away "
            "by hand if nobody needs it.",
        )
    last = selection.last_version
    if last is None or Version(content.version) > Version(last):
        raise StateError(
            f"version {content.version} of {selection.name} is published, and the catalogue knows of "
            f"{last or 'none'} only",
            details=f"published: {content.version}, created {to_rfc3339(content.validity.created)}",
            resolution="Another catalogue publishes it too, or this one was restored from a backup. See that what it "
            f"carries is what you want, then `coppice imagelist edit {selection.name} --set version={content.version}` "
            "goes on from there.",
            context={"published": content.version, "known": last},
        )
    return Published(message=message, content=content)


def _require_readable(selection: Selection, content: ImageList, limits: ListLimits) -> None:
    try:
        read = read_list(write_list(content), limits=limits)
    except DocumentError as problem:
        raise InconsistentListError(
            f"subscribers could not read the image list {selection.name}: {problem.message}", details=problem.details
        ) from problem
    if read != content or read.unreadable:
        unreadable = "; ".join(f"{entry.identifier}: {entry.problem}" for entry in read.unreadable)
        raise InconsistentListError(
            f"subscribers would not read the image list {selection.name} as it is meant", details=unreadable or None
        )


def _warnings(
    composed: Composed, published: Published, last: RecordedPublication | None, endorser: Endorser
) -> Iterator[str]:
    content = composed.content
    if published.problem is not None:
        yield f"what is published now cannot be read, and is replaced: {published.problem}"
    if not content.images:
        yield "the list names no image: sites hold what it withdraws"
    if last is not None and last.signer != str(endorser.subject):
        yield f"until now {last.signer} signed: subscribers that do not name {endorser.subject} refuse this version"
    for image in content.images:
        if image.expires is not None and image.expires <= content.validity.created:
            yield f"{image.title} {image.version} has ended: it is listed once more, so that sites learn its date"
    for version in composed.left_out:
        yield f"{version.appliance.name} {version.version} has ended, and is not listed any more"
