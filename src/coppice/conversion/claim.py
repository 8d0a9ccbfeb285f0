# SPDX-License-Identifier: Apache-2.0
"""`Claim`: one thing that a list says of an image, held against what was found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What came of holding a claim against what was found."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_KNOWN = "not-known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One thing that a list says of an image.

    Attributes:
        name: What it is of: ``size``, ``architecture`` …
        says: What the list says, as it is written there.
        found: What was found; None: that is not known.
        verdict: What came of it.
        difference: Where it differs: how, as a clause for people.
    """

    name: str
    says: str | int
    found: str | int | None
    verdict: Verdict
    difference: str | None = None

    @classmethod
    def held(
        cls, name: str, says: str | int, found: str | int | None, *, is_same: bool | None, difference: str
    ) -> Claim:
        """Return a claim with its verdict.

        Args:
            name: What it is of.
            says: What the list says.
            found: What was found; None: that is not known, and so is the verdict.
            is_same: Whether both mean the same; None: nobody can tell.
            difference: What is told where they do not.
        """
        if found is None or is_same is None:
            return cls(name=name, says=says, found=found, verdict=Verdict.NOT_KNOWN)
        if is_same:
            return cls(name=name, says=says, found=found, verdict=Verdict.SAME)
        return cls(name=name, says=says, found=found, verdict=Verdict.DIFFERS, difference=difference)
