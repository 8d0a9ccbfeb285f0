# SPDX-License-Identifier: Apache-2.0
"""What a list says about an image's format, against what the image is: it is compared, and never believed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.conversion.refusal import refusal
from coppice.errors import DeclaredFormatError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.conversion.model import Inspection

_OTHER_NAMES = {
    "qcow2c": DiskFormat.QCOW2,
    "qcow3": DiskFormat.QCOW2,
    "vpc": DiskFormat.VHD,
    "img": DiskFormat.RAW,
    "dd": DiskFormat.RAW,
    "iso9660": DiskFormat.ISO,
}
"""Names under which lists, tools and clouds know formats, beside their own."""
_SHOWN = 40


class DeclaredFormat(StrEnum):
    """What follows when an image is of another format than its list says."""

    REPORT = "report"
    """It is used, and told; but not where the list says that it is raw: then its content would decide how it is read"""
    REQUIRE = "require"


def difference(declared: str | None, found: Inspection, rule: DeclaredFormat, name: str) -> str | None:
    """Return how an image differs from what its list says, for people; None: it does not, or the list says nothing.

    What is compressed, or lies in an archive, may be declared as what it is packed in or as the disk that it is.

    Args:
        declared: ``hv:format`` as written.
        found: What the image is.
        rule: What follows.
        name: Of the image, for messages.

    Raises:
        DeclaredFormatError: It differs, and the list says that it is raw, or the rule demands what it says.
    """
    words = told(declared, found, name)
    if declared is None or words is None:
        return None
    is_called_raw = _known(declared) is DiskFormat.RAW
    if rule is DeclaredFormat.REQUIRE or is_called_raw:
        raise refusal(
            DeclaredFormatError,
            name,
            f"it is {found.format}, and its list says {_shown(declared)}",
            why="whoever believes the list reads another disk"
            if is_called_raw
            else "conversion.declared_format demands that both agree",
        )
    return words


def told(declared: str | None, found: Inspection, name: str) -> str | None:
    """Return how an image differs from what its list says, for people, whatever follows; None as in `difference`.

    Args:
        declared: ``hv:format`` as written.
        found: What the image is.
        name: Of the image.
    """
    if declared is None or not declared.strip() or _known(declared) in {found.format, found.disk.format}:
        return None
    return f"image {name} is {found.format}, and its list says {_shown(declared)}"


def _known(declared: str) -> DiskFormat | None:
    words = declared.strip().lower().lstrip(".")
    return _OTHER_NAMES.get(words) or next((each for each in DiskFormat if each == words), None)


def _shown(declared: str) -> str:
    return ascii(declared[:_SHOWN])
