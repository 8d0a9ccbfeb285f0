# SPDX-License-Identifier: Apache-2.0
"""What is different between two versions of an image list: pure, by identifier, never by place.

Keys are named as the format writes them (``hv:version``, ``dc:date:expires``), so that what is shown can be looked up;
``../key`` is a key that stands beside the object, not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.formats.hepix_delta import DELTA_KEY, MIRRORS_KEY, write_delta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.imagelist.model import ImageList, ListedImage
    from coppice.model.endorser import Endorser
    from coppice.model.identifiers import ImageIdentifier

_OF_EACH_PUBLICATION = frozenset({"hv:version", "dc:date:created", "dc:date:expires"})
_CONTENT = frozenset({"hv:version", "hv:size", "sl:checksum:sha512"})


class ImageDifference(StrEnum):
    """What became of an image from one version of a list to another."""

    ADDED = "added"
    REMOVED = "removed"
    NEW_VERSION = "new-version"
    """It has another version: sites take it in place of the one before."""
    OTHER_CONTENT = "other-content"
    """It has other bytes under the same version, which sites refuse."""
    DESCRIBED = "described"
    """The same bytes under the same version; something else is said of them."""
    UNREADABLE = "unreadable"
    """Its entry cannot be read in the later list, and could be in the earlier one: nothing is known of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifference:
    """A key whose value is not the same.

    Attributes:
        key: As the format writes it.
        before: The value; None: the key was not there.
        after: The value; None: the key is not there any more.
    """

    key: str
    before: object
    after: object


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedImage:
    """An image that is not the same in both lists.

    Attributes:
        identifier: Its ``dc:identifier``.
        title: Its newest title; the identifier where none is known.
        kind: What became of it.
        before: Its version in the earlier list; None: it was not there, or not readable.
        after: Its version in the later list; None: it is not there, or not readable.
        fields: Which keys differ, in the format's order; empty for an image that is in one list only.
    """

    identifier: ImageIdentifier
    title: str
    kind: ImageDifference
    before: str | None
    after: str | None
    fields: tuple[FieldDifference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDifference:
    """What is different between two versions of a list.

    Attributes:
        before: Version of the earlier list; None: there was none.
        after: Version of the later list.
        fields: Keys of the list itself that differ.
        images: Images that differ, by identifier.
        unchanged: How many images are the same in both.
    """

    before: str | None
    after: str
    fields: tuple[FieldDifference, ...]
    images: tuple[ChangedImage, ...]
    unchanged: int

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing differs, not even version and dates."""
        return self.before is not None and not self.fields and not self.images

    @property
    def is_renewal(self) -> bool:
        """Tell whether nothing differs but what every publication changes: version and dates, those of images too."""
        return (
            self.before is not None
            and all(each.key in _OF_EACH_PUBLICATION for each in self.fields)
            and all(
                changed.kind is ImageDifference.DESCRIBED
                and all(each.key == "dc:date:expires" for each in changed.fields)
                for changed in self.images
            )
        )


def list_difference(before: ImageList | None, after: ImageList) -> ListDifference:
    """Return what is different from ``before`` to ``after``; linear in the number of images.

    Args:
        before: The earlier list; None: there was none, so that every image is new.
        after: The later list.
    """
    earlier = {image.identifier: image for image in before.images} if before is not None else {}
    later = {image.identifier: image for image in after.images}
    unreadable_before = {entry.identifier for entry in before.unreadable} if before is not None else set()
    unreadable = {entry.identifier for entry in after.unreadable}
    changed: list[ChangedImage] = []
    same = 0
    for identifier in sorted({*earlier, *later, *unreadable_before, *unreadable}):
        found = _changed(
            identifier,
            earlier.get(identifier),
            later.get(identifier),
            unreadable=identifier in unreadable,
            unreadable_before=identifier in unreadable_before,
        )
        if found is None:
            same += 1
        else:
            changed.append(found)
    return ListDifference(
        before=before.version if before is not None else None,
        after=after.version,
        fields=_differing(_list_facts(before) if before is not None else {}, _list_facts(after)),
        images=tuple(changed),
        unchanged=same,
    )


def _changed(
    identifier: ImageIdentifier,
    before: ListedImage | None,
    after: ListedImage | None,
    *,
    unreadable: bool,
    unreadable_before: bool,
) -> ChangedImage | None:
    if unreadable and unreadable_before:
        return None
    fields: tuple[FieldDifference, ...] = ()
    if unreadable:
        kind = ImageDifference.UNREADABLE
    elif after is None:
        kind = ImageDifference.REMOVED
    elif before is None:
        kind = ImageDifference.ADDED
    else:
        fields = _differing(image_facts(before), image_facts(after))
        if not fields:
            return None
        keys = {each.key for each in fields}
        if "hv:version" in keys:
            kind = ImageDifference.NEW_VERSION
        else:
            kind = ImageDifference.OTHER_CONTENT if keys & _CONTENT else ImageDifference.DESCRIBED
    newest = after or before
    return ChangedImage(
        identifier=identifier,
        title=newest.title if newest is not None else identifier,
        kind=kind,
        before=before.version if before is not None else None,
        after=after.version if after is not None else None,
        fields=fields,
    )


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[FieldDifference, ...]:
    keys = [*after, *(key for key in before if key not in after)]
    return tuple(
        FieldDifference(key=key, before=before.get(key), after=after.get(key))
        for key in keys
        if not _is_same(before.get(key), after.get(key))
    )


def _is_same(before: object, after: object) -> bool:
    # 1, 1.0 and true are equal for Python, and are not the same thing in a document.
    return before == after and repr(before) == repr(after)


def _list_facts(content: ImageList) -> dict[str, object]:
    facts: dict[str, object] = {
        "dc:identifier": content.identifier,
        "dc:title": content.title,
        "dc:description": content.description,
        "dc:source": content.source,
        "dc:date:created": to_rfc3339(content.validity.created),
        "dc:date:expires": to_rfc3339(content.validity.expires),
        "hv:version": content.version,
        "hv:uri": content.uri,
        "hv:endorser": [_endorser(each) for each in content.endorsers],
        "ad:vo": content.vo,
        "ad:swid": content.swid,
        "ad:num_of_images": content.number_of_images,
        **content.extra,
        **_beside(content.outer_extra),
    }
    return _said(facts)


def image_facts(image: ListedImage) -> dict[str, object]:
    """Return what a list says of an image, by the keys of the format, without what it does not say."""
    system, needs, user = image.operating_system, image.requirements, image.user
    facts: dict[str, object] = {
        "dc:title": image.title,
        "dc:description": image.description,
        "hv:version": image.version,
        "hv:uri": image.uri,
        "hv:size": image.size_bytes,
        "sl:checksum:sha512": image.checksum.hexdigest,
        "hv:format": image.declared_format,
        "dc:date:expires": to_rfc3339(image.expires) if image.expires is not None else None,
        "sl:os": system.kind,
        "sl:osname": system.distribution,
        "sl:osversion": system.version,
        "sl:arch": system.architecture,
        "hv:hypervisor": image.hypervisor,
        "sl:comments": image.comments,
        "hv:ram_minimum": needs.minimum_ram_mib,
        "hv:core_minimum": needs.minimum_cores,
        "ad:ram_recommended": needs.recommended_ram_mib,
        "ad:core_recommended": needs.recommended_cores,
        "coppice:disk_minimum": needs.minimum_disk_bytes,
        "ad:group": ", ".join(image.groups) or None,
        "ad:mpuri": image.mpuri,
        "ad:base_mpuri": image.base_mpuri,
        "ad:appid": image.appliance_id,
        "ad:user:fullname": user.full_name if user is not None else None,
        "ad:user:guid": user.guid if user is not None else None,
        "ad:user:uri": user.uri if user is not None else None,
        "ad:traffic_in": image.traffic_in,
        "ad:traffic_out": image.traffic_out,
        MIRRORS_KEY: list(image.mirrors) or None,
        DELTA_KEY: write_delta(image.delta) if image.delta is not None else None,
        **image.extra,
        **_beside(image.wrapper_extra),
    }
    return _said(facts)


def _endorser(endorser: Endorser) -> str:
    extra = {**endorser.extra, **_beside(endorser.wrapper_extra)}
    said = f"{endorser.subject} below {endorser.issuer}, {endorser.name}, {endorser.email}"
    return f"{said}, {extra}" if extra else said


def _beside(extra: Mapping[str, object]) -> dict[str, object]:
    return {f"../{key}": value for key, value in extra.items()}


def _said(facts: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in facts.items() if value is not None}
