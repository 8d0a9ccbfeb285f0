# SPDX-License-Identifier: Apache-2.0
"""From a selection of the catalogue to the content of an image list: pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from coppice.catalogue.model import ReferencedImage
from coppice.errors import InputError
from coppice.imagelist.model import ImageList, ListedImage, MarketplaceUser
from coppice.model.validity import Validity
from coppice.model.version import next_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.catalogue.model import ApplianceVersion, SelectedSet, Selection
    from coppice.model.endorser import Endorser
    from coppice.model.identifiers import ImageIdentifier

__all__ = [
    "BUILT_ON_KEY",
    "SET_KEY",
    "SET_SIZE_KEY",
    "SET_VERSION_KEY",
    "SUCCESSOR_KEY",
    "Composed",
    "compose",
    "next_version",
]

SUCCESSOR_KEY = "coppice:successor"
"""Of an image: identifier of the image that takes its place when it has ended."""
SET_KEY = "coppice:set"
"""Of an image: identifier of the set that it belongs to."""
SET_VERSION_KEY = "coppice:set_version"
"""Of an image: version of the release of that set."""
SET_SIZE_KEY = "coppice:set_size"
"""Of an image: of how many images that release is."""
BUILT_ON_KEY = "coppice:built_on"
"""Of an image: what it is built on, the nearest first: ``algorithm:hexdigest`` of each published file."""
NO_GROUP = "General"
"""``ad:group`` of an image that has none: some readers refuse a list of which one image lacks it."""
_TYPED_KEYS = frozenset(
    {
        "ad:mpuri",
        "ad:base_mpuri",
        "ad:appid",
        "ad:user:fullname",
        "ad:user:guid",
        "ad:user:uri",
        "ad:traffic_in",
        "ad:traffic_out",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """What a list will say, and what it leaves out.

    Attributes:
        content: The list.
        left_out: Versions that have ended, of which the last publication told so.
    """

    content: ImageList
    left_out: tuple[ApplianceVersion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A version to be listed: until when, and as a part of what."""

    version: ApplianceVersion
    ends: datetime | None
    part_of: SelectedSet | None = None


def compose(
    selection: Selection,
    *,
    version: str,
    now: datetime,
    endorser: Endorser,
    image_uris: Mapping[str, str],
    list_uri: str,
    told: Mapping[ImageIdentifier, tuple[str, datetime | None]] = MappingProxyType({}),
) -> Composed:
    """Return the list that carries the newest version of each selected appliance, and the newest release of each set.

    What has ended is listed once more with the date of its end, so that every subscriber learns of it, and is left out
    after that.

    Args:
        selection: What goes into it.
        version: Of the list.
        now: When it is created, to the second.
        endorser: Who vouches for it: the one who signs, though others may be bound to the list.
        image_uris: Where each image that is held here will be, by appliance name.
        list_uri: Where the list will be.
        told: By image, the version and the end that the last publication told.

    Raises:
        InputError: An image has no URI.
    """
    created = now.replace(microsecond=0)
    expires = created + timedelta(days=selection.lifetime_days)
    listed: list[_Entry] = []
    left_out: list[ApplianceVersion] = []
    for entry in sorted(_entries(selection), key=lambda each: each.version.appliance.name):
        has_ended = entry.ends is not None and entry.ends <= created
        if has_ended and told.get(entry.version.appliance.identifier) == (entry.version.version, entry.ends):
            left_out.append(entry.version)
        else:
            listed.append(entry)
    missing = [
        entry.version.appliance.name
        for entry in listed
        if not isinstance(entry.version.image, ReferencedImage) and entry.version.appliance.name not in image_uris
    ]
    if missing:
        raise InputError(f"no address is known for the images of: {', '.join(missing)}")
    content = ImageList(
        identifier=selection.identifier,
        version=version,
        title=selection.title,
        description=selection.description,
        source=selection.source,
        uri=list_uri,
        validity=Validity(created=created, expires=expires),
        endorsers=(endorser,),
        vo=selection.vo,
        swid=_text(selection.keys, "ad:swid"),
        images=tuple(
            _listed(entry, image_uris=image_uris, list_uri=list_uri, expires=expires, endorser=endorser)
            for entry in listed
        ),
        extra={key: value for key, value in selection.keys.items() if key != "ad:swid"},
    )
    return Composed(content=content, left_out=tuple(left_out))


def _entries(selection: Selection) -> Iterator[_Entry]:
    for version in selection.versions:
        yield _Entry(version=version, ends=_end(version))
    for each in selection.sets:
        members = each.release.members if each.release is not None else ()
        # The parts of a set are of no use without each other: they end together, with the first that ends.
        ends = [end for end in (each.expires, *map(_end, members)) if end is not None]
        for member in members:
            yield _Entry(version=member, ends=min(ends, default=None), part_of=each)


def _end(version: ApplianceVersion) -> datetime | None:
    ends = [end for end in (version.expires, version.appliance.discontinued_on) if end is not None]
    # A list tells dates to the second.
    return min(ends).replace(microsecond=0) if ends else None


def _listed(
    entry: _Entry, *, image_uris: Mapping[str, str], list_uri: str, expires: datetime, endorser: Endorser
) -> ListedImage:
    known, appliance = entry.version, entry.version.appliance
    image = known.image
    # There is a place for both in the list, and some readers need them there.
    base_mpuri = _text(appliance.keys, "ad:base_mpuri") or f"{list_uri}#{appliance.identifier}"
    pattern = _text(appliance.keys, "ad:mpuri")
    mpuri = pattern.replace("{version}", known.version) if pattern is not None else None
    listed = ListedImage(
        identifier=appliance.identifier,
        version=known.version,
        title=appliance.title,
        description=appliance.description,
        uri=image.uri if isinstance(image, ReferencedImage) else image_uris[appliance.name],
        size_bytes=image.size_bytes,
        checksum=image.checksum,
        declared_format=None if image.format is None else str(image.format),
        operating_system=appliance.operating_system,
        hypervisor=appliance.hypervisor,
        comments=appliance.comments,
        expires=entry.ends or expires,
        requirements=appliance.requirements,
        groups=appliance.groups or (NO_GROUP,),
        mpuri=known.mpuri or mpuri or f"{base_mpuri}:{known.version}",
        base_mpuri=base_mpuri,
        extra=_own_keys(entry),
    )
    return _with_marketplace(listed, appliance.keys, endorser)


def _own_keys(entry: _Entry) -> dict[str, object]:
    appliance = entry.version.appliance
    extra = {key: value for key, value in appliance.keys.items() if key not in _TYPED_KEYS}
    if appliance.discontinued_on is not None and appliance.successor is not None:
        extra[SUCCESSOR_KEY] = appliance.successor
    if entry.version.built_on:
        extra[BUILT_ON_KEY] = [str(each) for each in entry.version.built_on]
    if entry.part_of is not None and entry.part_of.release is not None:
        extra[SET_KEY] = entry.part_of.identifier
        extra[SET_VERSION_KEY] = entry.part_of.release.version
        extra[SET_SIZE_KEY] = len(entry.part_of.release.members)
    return extra


def _with_marketplace(listed: ListedImage, keys: Mapping[str, object], endorser: Endorser) -> ListedImage:
    # Some readers refuse a list of which one image does not tell who brought it: in doubt, who vouches for it did.
    user = MarketplaceUser(
        full_name=_text(keys, "ad:user:fullname") or endorser.name,
        guid=_text(keys, "ad:user:guid") or str(uuid.uuid5(uuid.NAMESPACE_X500, str(endorser.subject))),
        uri=_text(keys, "ad:user:uri") or f"mailto:{endorser.email}",
    )
    return replace(
        listed,
        appliance_id=_text(keys, "ad:appid"),
        user=user,
        traffic_in=keys.get("ad:traffic_in"),
        traffic_out=keys.get("ad:traffic_out"),
    )


def _text(keys: Mapping[str, object], key: str) -> str | None:
    value = keys.get(key)
    return None if value is None else str(value)
