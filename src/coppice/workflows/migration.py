# SPDX-License-Identifier: Apache-2.0
"""What became of each thing that another program's database held."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.model.identifiers import is_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from coppice.errors import CoppiceError

_NOT_OF_A_NAME = re.compile(r"[^a-z0-9._-]+")
_LONGEST_STEM = 50


class Outcome(StrEnum):
    """What became of it."""

    IMPORTED = "imported"
    """It is here now; in a dry run: it would be."""
    THERE = "there"
    """It was here before, and was left as it is."""
    SKIPPED = "skipped"
    """It is not here, and the reason says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """One thing of another program's database.

    Attributes:
        kind: ``subscription``, ``image list``, ``image``, ``endorser``.
        identifier: What the other program knows it by.
        name: What it is called here; None: it is not here.
        outcome: What became of it.
        error: Why it was skipped.
        notes: What its owner should know or do, one sentence each.
    """

    kind: str
    identifier: str
    name: str | None
    outcome: Outcome
    error: CoppiceError | None = None
    notes: tuple[str, ...] = ()


def free_name(wanted: str, taken: Collection[str], identifier: str) -> str:
    """Return a name like ``wanted`` that can be one and is not taken; ``identifier`` tells apart."""
    stem = _NOT_OF_A_NAME.sub("-", wanted.lower()).strip("-._")[:_LONGEST_STEM].strip("-._")
    tail = _NOT_OF_A_NAME.sub("-", identifier.lower()).strip("-._")
    candidates = (stem, f"{stem}-{tail[:8]}".strip("-._"), tail[:64].strip("-._"))
    for name in candidates:
        if is_name(name) and name not in taken:
            return name
    number = 2
    while f"list-{number}" in taken:
        number += 1
    return f"list-{number}"
