# SPDX-License-Identifier: Apache-2.0
"""What a list says of its sets, and of what its images are built on: keys that Coppice's publisher writes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.cloud.properties import MAX_LINEAGE, clean
from coppice.imagelist.compose import BUILT_ON_KEY, SET_KEY, SET_SIZE_KEY, SET_VERSION_KEY
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime

    from coppice.cloud.model import DesiredImage
    from coppice.imagelist.model import ImageList, ListedImage

MAX_NAME_LENGTH = 200
"""Of a VO, a set and a set's version: clouds keep them as texts of at most 255 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSet:
    """A set as a list has it.

    Attributes:
        expires: When the first of its images ends; None: with the list.
        problem: Why it is not whole; None: it is, as far as the list says.
    """

    expires: datetime | None
    problem: str | None


def set_of(listed: ListedImage) -> tuple[str, str] | tuple[None, None]:
    """Return the set of an image and the version of its release; None: it is of none, or does not say both."""
    identifier, version = _name_in(listed, SET_KEY), _name_in(listed, SET_VERSION_KEY)
    return (None, None) if identifier is None or version is None else (identifier, version)


def sets_of(content: ImageList) -> dict[str, ListedSet]:
    """Return the sets of a list by their identifiers."""
    parts: dict[str, list[ListedImage]] = {}
    for listed in content.images:
        identifier, _ = set_of(listed)
        if identifier is not None:
            parts.setdefault(identifier, []).append(listed)
    is_whole = not content.unreadable
    return {
        identifier: ListedSet(
            expires=min((each.expires for each in images if each.expires is not None), default=None),
            problem=_problem(images, is_whole=is_whole),
        )
        for identifier, images in parts.items()
    }


def built_on(listed: ListedImage) -> tuple[Checksum, ...]:
    """Return what an image is built on, the nearest first; what is no checksum counts as not said."""
    said = listed.extra.get(BUILT_ON_KEY)
    found = []
    for each in said[:MAX_LINEAGE] if isinstance(said, (list, tuple)) else ():
        try:
            found.append(Checksum.parse(each if isinstance(each, str) else ""))
        except ValueError:
            continue
    return tuple(found)


def with_sets_in_doubt(images: Iterable[DesiredImage], sets: Collection[str | None]) -> Iterator[DesiredImage]:
    """Give what is wanted, each image of one of ``sets`` with why that is not whole: of a part, nothing is known."""
    why = "of one of its images it cannot be told whether, or in which version, it is wanted"
    for image in images:
        is_in_doubt = image.set_identifier is not None and image.set_identifier in sets and image.set_problem is None
        yield replace(image, set_problem=why) if is_in_doubt else image


def _problem(images: Sequence[ListedImage], *, is_whole: bool) -> str | None:
    versions = sorted({str(set_of(each)[1]) for each in images})
    if len(versions) > 1:
        return f"its images are of several releases: {', '.join(versions)[:MAX_NAME_LENGTH]}"
    sizes = {size for each in images if (size := _size_in(each)) is not None}
    if not sizes:
        return None if is_whole else "an entry of its list cannot be read, and may be one of its images"
    if max(sizes) > len(images):
        return f"its list names {len(images)} of its {max(sizes)} images"
    return None


def _size_in(listed: ListedImage) -> int | None:
    size = listed.extra.get(SET_SIZE_KEY)
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


def _name_in(listed: ListedImage, key: str) -> str | None:
    """Return what a list says under a key; what cannot be a name counts as not said."""
    text = listed.extra.get(key)
    if isinstance(text, str) and text and text == clean(text, MAX_NAME_LENGTH):
        return text
    return None
