# SPDX-License-Identifier: Apache-2.0
"""How a cache run is shown: as data and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.workflows.fetch import FetchReport, ImageOutcome

_SIGNS = {"fetched": "+", "handed-out": "+", "taken-back": "-", "failed": "!"}
_PLANNED = {"fetched": "fetch and hand out", "handed-out": "hand out", "taken-back": "take back"}


def cache_data(report: FetchReport, *, dry_run: bool) -> dict[str, object]:
    """Return a cache run for ``--json``."""
    return {
        "dry_run": dry_run,
        "wanted": report.wanted,
        "images": [
            {
                "list": each.key.list_identifier,
                "image": each.key.image_identifier,
                "version": each.version,
                "title": each.title,
                "change": each.change,
                "reason": each.reason,
                "error": each.error.as_dict() if each.error is not None else None,
            }
            for each in report.images
        ],
        "unknown": [name for name, _ in report.unknown],
        "removed": report.pruned.removed,
    }


def describe_outcome(each: ImageOutcome, *, dry_run: bool = False) -> str:
    """Return what became of an image, or would, in one line."""
    change = _PLANNED.get(each.change, each.change) if dry_run else each.change.replace("-", " ")
    name = each.title or each.key.image_identifier
    why = f" ({each.reason})" if each.reason else ""
    failed = f" [{each.error.code}]" if each.error is not None else ""
    return f"{_SIGNS[each.change]} {change} {name} {each.version}{why}{failed}"
