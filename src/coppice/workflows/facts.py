# SPDX-License-Identifier: Apache-2.0
"""Facts: what is known here of lists, clouds, images, hooks and stores, for metrics. No server is asked."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from coppice.cloud.model import ImageState
from coppice.cloud.observations import Observations
from coppice.events.deliveries import Deliveries
from coppice.events.model import EventKind
from coppice.events.tables import EventRow
from coppice.model.version import Version
from coppice.subscription.overview import overview
from coppice.subscription.tables import SubscriptionRow, ToldImageRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from coppice.cloud.model import RegisteredImage
    from coppice.cloud.observations import Observation
    from coppice.database import Database
    from coppice.events.model import HookStanding
    from coppice.settings.model import Settings
    from coppice.subscription.overview import SubscriptionOverview

STORES: Final = ("cache", "conversion")
"""Directories in the state directory that grow and are pruned."""
_CHUNK: Final = 500
_MAX_FILES: Final = 1_000_000
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentImage:
    """The version of an image that a cloud lists to its users, against what its list names.

    Attributes:
        image: As the cloud was seen to have it.
        listed_version: What its list names; None: the list is not known, or names it no more.
        behind_since: Since when its list has named a newer version; None: it names none.
    """

    image: RegisteredImage
    listed_version: str | None
    behind_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudFacts:
    """What a cloud was seen to have.

    Attributes:
        seen: When it was asked last, and what became of that.
        states: How many images are in each state.
        not_ready: How many of them it is working on still, or was left with broken.
        drifted: How many are not as they should be since somebody else changed them.
        current: What its users are shown.
    """

    seen: Observation
    states: Mapping[ImageState, int]
    not_ready: int
    drifted: int
    current: tuple[CurrentImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """A directory of files.

    Attributes:
        name: Below the state directory.
        files: How many.
        size_bytes: How much of the disk they take; what several names share counts once.
        free_bytes: How much is free on its file system.
    """

    name: str
    files: int
    size_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """What is known here.

    Attributes:
        lists: By the name of the subscription.
        clouds: Those of the settings that were asked before, by name.
        hooks: Those of the settings, by name.
        stores: Those that there are.
    """

    lists: tuple[SubscriptionOverview, ...]
    clouds: tuple[CloudFacts, ...]
    hooks: tuple[HookStanding, ...]
    stores: tuple[StoreFacts, ...]


def site_facts(settings: Settings, database: Database, now: datetime) -> SiteFacts:
    """Return what is known at ``now``.

    Raises:
        DatabaseError: The database failed.
    """
    seen = tuple(each for each in Observations(database).all() if each.cloud in settings.clouds)
    listed = _listed_versions(database)
    behind = _told_at(database, _behind(seen, listed))
    return SiteFacts(
        lists=overview(database, now, warn_list_days=settings.subscriptions.warn_list_days),
        clouds=tuple(_cloud(each, listed, behind) for each in seen),
        hooks=Deliveries(database).standings(sorted(settings.hooks)),
        stores=tuple(_stores(settings.state_directory)),
    )


def hook_backlog(settings: Settings, database: Database) -> int:
    """Return how many events hooks are to be told of, or told of once more.

    Raises:
        DatabaseError: The database failed.
    """
    if not settings.hooks:
        return 0
    return sum(each.behind + each.waiting for each in Deliveries(database).standings(sorted(settings.hooks)))


def has_builds(settings: Settings) -> bool:
    """Tell whether the catalogue has, or had, an appliance that was built here.

    False also where it cannot be told: whoever looks after appliances here meets the reason himself.
    """
    try:
        return any((settings.state_directory / "catalogue" / "evidence").iterdir())
    except OSError:
        return False


def _listed_versions(database: Database) -> dict[_Key, str]:
    """Return the version of each image that is wanted, as the lists in force name it."""
    query = select(SubscriptionRow.list_identifier, ToldImageRow.image_identifier, ToldImageRow.version).join(
        SubscriptionRow, SubscriptionRow.name == ToldImageRow.subscription
    )
    found: dict[_Key, str] = {}
    with database.session() as session:
        for list_identifier, image_identifier, version in session.execute(query):
            if not list_identifier or not image_identifier or not Version.is_version(version):
                continue
            key = (str(list_identifier), str(image_identifier))
            if key not in found or Version(version) > Version(found[key]):
                found[key] = version
    return found


def _key(image: RegisteredImage) -> _Key:
    return str(image.marker.key.list_identifier), str(image.marker.key.image_identifier)


def _is_behind(image: RegisteredImage, listed: Mapping[_Key, str]) -> bool:
    newest = listed.get(_key(image))
    return newest is not None and Version(image.marker.version) < Version(newest)


def _behind(seen: Iterable[Observation], listed: Mapping[_Key, str]) -> set[_Key]:
    return {_key(image) for each in seen for image in _current(each.images) if _is_behind(image, listed)}


def _told_at(database: Database, keys: set[_Key]) -> dict[_Key, datetime]:
    """Return when it was told last that a list names another version of an image, as far as the journal goes back."""
    images = sorted({image for _, image in keys})
    found: dict[_Key, datetime] = {}
    with database.session() as session:
        for start in range(0, len(images), _CHUNK):
            query = (
                select(EventRow.list_identifier, EventRow.image_identifier, func.max(EventRow.at))
                .where(EventRow.kind.in_([str(EventKind.IMAGE_NEW), str(EventKind.IMAGE_CHANGED)]))
                .where(EventRow.image_identifier.in_(images[start : start + _CHUNK]))
                .group_by(EventRow.list_identifier, EventRow.image_identifier)
            )
            for list_identifier, image_identifier, at in session.execute(query):
                found[str(list_identifier), str(image_identifier)] = at
    return found


def _cloud(seen: Observation, listed: Mapping[_Key, str], told_at: Mapping[_Key, datetime]) -> CloudFacts:
    return CloudFacts(
        seen=seen,
        states=Counter(image.marker.state for image in seen.images),
        not_ready=sum(not image.ready for image in seen.images),
        drifted=sum(image.drift is not None for image in seen.images),
        current=tuple(
            CurrentImage(
                image=image,
                listed_version=listed.get(_key(image)),
                # What the journal has forgotten is older than all that it holds: it counts from what is known.
                behind_since=told_at.get(_key(image), image.marker.state_since) if _is_behind(image, listed) else None,
            )
            for image in _current(seen.images)
        ),
    )


def _current(images: Iterable[RegisteredImage]) -> tuple[RegisteredImage, ...]:
    """Return the newest version of each image that is whole and available."""
    found: dict[_Key, RegisteredImage] = {}
    for image in images:
        if not image.ready or image.marker.state is not ImageState.AVAILABLE:
            continue
        known = found.get(_key(image))
        if known is None or Version(image.marker.version) > Version(known.marker.version):
            found[_key(image)] = image
    return tuple(found[key] for key in sorted(found))


def _stores(state_directory: Path) -> Iterator[StoreFacts]:
    for name in STORES:
        directory = state_directory / name
        try:
            figures = os.statvfs(directory)
        except OSError:
            continue
        files, size = _measure(directory)
        yield StoreFacts(name=name, files=files, size_bytes=size, free_bytes=figures.f_bavail * figures.f_frsize)


def _measure(directory: Path) -> tuple[int, int]:
    seen: set[tuple[int, int]] = set()
    size = files = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                state = os.lstat(os.path.join(place, name))  # noqa: PTH118 - one of very many
            except OSError:
                # It went while it was looked for.
                continue
            files += 1
            if (state.st_dev, state.st_ino) not in seen:
                seen.add((state.st_dev, state.st_ino))
                size += state.st_blocks * 512
        if files >= _MAX_FILES:
            break
    return files, size
