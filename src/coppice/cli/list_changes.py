# SPDX-License-Identifier: Apache-2.0
"""How a difference between two versions of an image list is shown: like a diff for people, and as data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from coppice.cli.output import counted
from coppice.formats.list_difference import ImageDifference

if TYPE_CHECKING:
    from coppice.cli.output import Output
    from coppice.formats.list_difference import ChangedImage, FieldDifference, ListDifference

_SIGNS = {ImageDifference.ADDED: "+", ImageDifference.REMOVED: "-"}
_LONGEST_SHOWN = 300


def show_difference(output: Output, found: ListDifference) -> None:
    """Print a difference like a diff."""
    output.heading(
        f"version {found.before or 'none'} -> {found.after}: images that differ: {len(found.images)}, "
        f"that are the same: {found.unchanged}"
    )
    for each in found.fields:
        output.line(f"~ {_field(each)}")
    for image in found.images:
        output.line(f"{_SIGNS.get(image.kind, '~')} {_image(image)}")
        for each in image.fields:
            output.line(f"    {_field(each)}")


def difference_as_dict(found: ListDifference) -> dict[str, object]:
    """Return a difference as data."""
    return {
        "before": found.before,
        "after": found.after,
        "fields": [_field_as_dict(each) for each in found.fields],
        "images": [
            {
                "identifier": image.identifier,
                "title": image.title,
                "kind": str(image.kind),
                "before": image.before,
                "after": image.after,
                "fields": [_field_as_dict(each) for each in image.fields],
            }
            for image in found.images
        ],
        "unchanged": found.unchanged,
        "is_empty": found.is_empty,
        "is_renewal": found.is_renewal,
    }


def _image(image: ChangedImage) -> str:
    versions = {
        ImageDifference.ADDED: f"version {image.after}",
        ImageDifference.REMOVED: f"version {image.before}",
        ImageDifference.NEW_VERSION: f"version {image.before} -> {image.after}",
    }
    what = "" if image.kind in _SIGNS else f" [{image.kind}]"
    return (
        f"{image.title} ({image.identifier}) {versions.get(image.kind, f'version {image.after or image.before}')}{what}"
    )


def _field(field: FieldDifference) -> str:
    shown = _delta if field.key == "coppice:delta" else shown_value
    return f"{field.key}: {shown(field.before)} -> {shown(field.after)}"


def _delta(value: object) -> str:
    if not isinstance(value, dict):
        return "none yet" if value is None else shown_value(value)
    counts = [len(each) if isinstance(each := value.get(key), list) else 0 for key in ("packs", "patches")]
    return f"{counted(counts[0], 'pack')}, {counted(counts[1], 'patch', 'patches')}"


def shown_value(value: object) -> str:
    """Return a key's value for people: texts as they are, what is empty or no text as JSON writes it, in short."""
    if value is None:
        return "-"
    if isinstance(value, str) and value:
        return value
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _field_as_dict(field: FieldDifference) -> dict[str, object]:
    return {"key": field.key, "before": field.before, "after": field.after}
