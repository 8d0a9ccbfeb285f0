# SPDX-License-Identifier: Apache-2.0
"""Which images of a list a site wants: what a selection says of each. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.subscription.expression import parse_expression

if TYPE_CHECKING:
    from coppice.imagelist.model import ListedImage
    from coppice.model.identifiers import ImageIdentifier
    from coppice.subscription.model import ImageSelection


class Wish(StrEnum):
    """What a site wants of an image."""

    WANTED = "wanted"
    UNWANTED = "unwanted"
    UNKNOWN = "unknown"
    """The selection asks for something that is not known of the image: it stays as it is."""


class Selector:
    """A selection, ready to be asked about images.

    Args:
        selection: Which images are wanted.

    Raises:
        InputError: Its expression is none.
    """

    def __init__(self, selection: ImageSelection) -> None:
        self._images = frozenset(selection.images)
        self._refused = frozenset(selection.refused)
        self._vos = _folded(selection.vos)
        self._systems = _folded(selection.operating_systems)
        self._architectures = _folded(selection.architectures)
        self._condition = None if selection.expression is None else parse_expression(selection.expression)

    def wish(self, image: ListedImage, vo: str | None) -> Wish:
        """Return what is wanted of an image of a list of that VO; to refuse goes before all else."""
        if image.identifier in self._refused or (self._images and image.identifier not in self._images):
            return Wish.UNWANTED
        system = image.operating_system
        if (
            (self._vos and (vo or "").casefold() not in self._vos)
            or (self._systems and not {system.distribution.casefold(), system.kind.casefold()} & self._systems)
            or (self._architectures and system.architecture.casefold() not in self._architectures)
        ):
            return Wish.UNWANTED
        if self._condition is None:
            return Wish.WANTED
        holds = self._condition.holds(image, vo or "")
        return Wish.UNKNOWN if holds is None else Wish.WANTED if holds else Wish.UNWANTED

    def wish_unreadable(self, identifier: ImageIdentifier) -> Wish:
        """Return what is wanted of an entry of which nothing but the identifier can be read."""
        return Wish.UNWANTED if identifier in self._refused else Wish.UNKNOWN


def _folded(values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(value.casefold() for value in values)
