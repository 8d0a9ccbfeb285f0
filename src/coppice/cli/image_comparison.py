# SPDX-License-Identifier: Apache-2.0
"""An image file against what a list says of it, told to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.cli.output import Output
    from coppice.conversion.claim import Claim
    from coppice.workflows.image_comparison import Comparison

_DIGITS = 24


def show_comparison(found: Comparison, output: Output) -> None:
    """Print what a list says of an image, and what a file is instead."""
    output.line()
    output.pairs(
        {
            "subscription": found.subscription,
            "image": found.image_identifier,
            "title": found.title,
            "version": found.image_version,
        },
        title="compared with the list",
    )
    output.line()
    columns = ["what", "the list says", "found", "comparison"]
    output.table(columns, [_row(each) for each in found.claims])


def comparison_messages(found: Comparison | None) -> tuple[str, ...]:
    """Return in words where a file differs from what a list says."""
    if found is None or not found.differing:
        return ()
    how = "; ".join(each.difference or each.name for each in found.differing)
    return (f"The file is not what the list of {found.subscription} says: {how}.",)


def _row(claim: Claim) -> list[object]:
    return [claim.name, _told(claim, claim.says), _told(claim, claim.found), claim.verdict.replace("-", " ")]


def _told(claim: Claim, value: str | int | None) -> object:
    if isinstance(value, int):
        return f"{value} bytes"
    if value is not None and claim.name == "checksum":
        algorithm, colon, digits = value.partition(":")
        return f"{algorithm}{colon}{digits[:_DIGITS]}…"
    return value
