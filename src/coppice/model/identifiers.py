# SPDX-License-Identifier: Apache-2.0
"""Identifiers, each a type of its own so that one is not taken for another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

ListIdentifier = NewType("ListIdentifier", str)
"""``dc:identifier`` of an image list: a UUID (any text in the lenient profile), the same over all its versions."""

ImageIdentifier = NewType("ImageIdentifier", str)
"""``dc:identifier`` of a listed image: a UUID (any text in the lenient profile), the same over all its versions, unique
within its list only."""

_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class ImageKey:
    """What an image is at a subscriber: the same identifier in two lists is two images."""

    list_identifier: ListIdentifier
    image_identifier: ImageIdentifier

    def __str__(self) -> str:
        """Return ``list/image``."""
        return f"{self.list_identifier}/{self.image_identifier}"


def is_uuid(text: str) -> bool:
    """Tell whether ``text`` is a UUID in its usual written form."""
    return _UUID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Tell whether ``text`` can name something of the user's (a definition, a cloud, a subscription).

    1 to 64 characters out of ``a-z 0-9 . _ -``, with a letter or digit at both ends: safe as a file name everywhere.
    """
    return _NAME.fullmatch(text) is not None
