# SPDX-License-Identifier: Apache-2.0
"""Ranges of a remote file: which to ask for, so that few requests bring all that is wanted. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Range = tuple[int, int]
"""First byte and length, in bytes."""

GAP_BYTES = 32 * 1024
"""What lies between two wanted ranges is fetched along up to this: about what a request of its own costs."""
MAXIMUM_REQUESTS = 256
"""For ranges of one file."""


def united(ranges: Iterable[Range]) -> list[Range]:
    """Return the same bytes as ranges in order that neither touch nor overlap; empty ones are left out."""
    joined: list[Range] = []
    for start, length in sorted(ranges):
        if length <= 0:
            continue
        if joined and start <= sum(joined[-1]):
            first, before = joined[-1]
            joined[-1] = (first, max(before, start + length - first))
        else:
            joined.append((start, length))
    return joined


def coalesced(ranges: Iterable[Range], *, gap_bytes: int = GAP_BYTES, maximum: int = MAXIMUM_REQUESTS) -> list[Range]:
    """Return at most ``maximum`` ranges that have all these bytes, and as few others as that allows.

    Args:
        ranges: What is wanted.
        gap_bytes: Gaps up to this are fetched along.
        maximum: Where more ranges would be left, further gaps are fetched along, the smallest first.
    """
    parts = united(ranges)
    gaps = [right[0] - sum(left) for left, right in pairwise(parts)]
    bridged = {place for place, gap in enumerate(gaps) if gap <= gap_bytes}
    excess = len(parts) - len(bridged) - max(1, maximum)
    if excess > 0:
        left = sorted((gap, place) for place, gap in enumerate(gaps) if place not in bridged)
        bridged.update(place for _, place in left[:excess])
    result: list[Range] = []
    for place, (start, length) in enumerate(parts):
        if place and place - 1 in bridged:
            first = result[-1][0]
            result[-1] = (first, start + length - first)
        else:
            result.append((start, length))
    return result


def without(ranges: Iterable[Range], had: Iterable[Range]) -> list[Range]:
    """Return what of ``ranges`` is not among ``had``."""
    left: list[Range] = []
    known = united(had)
    place = 0
    for start, length in united(ranges):
        position, end = start, start + length
        while place < len(known) and sum(known[place]) <= position:
            place += 1
        look = place
        while position < end and look < len(known) and known[look][0] < end:
            if known[look][0] > position:
                left.append((position, known[look][0] - position))
            position = max(position, sum(known[look]))
            look += 1
        if position < end:
            left.append((position, end - position))
    return left


def total_bytes(ranges: Sequence[Range]) -> int:
    """Return how many bytes ranges have together."""
    return sum(length for _, length in ranges)
