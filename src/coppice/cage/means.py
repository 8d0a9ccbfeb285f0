# SPDX-License-Identifier: Apache-2.0
"""How far a program can be shut in, and with what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Walls(StrEnum):
    """What keeps a program from other files."""

    BUBBLEWRAP = "bubblewrap"
    """Namespaces: it sees a tree of its own."""
    LANDLOCK = "landlock"
    """The kernel refuses it the content of other files."""
    NONE = "none"


class Strength(StrEnum):
    """How far a program is shut in."""

    FULL = "full"
    """It sees its files and nothing else."""
    CLOSED = "closed"
    """It reads, writes and reaches nothing else, but may learn that other files are there."""
    LIMITS = "limits"
    """Memory, time and sizes are bounded; it may read what its user may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a program can be shut in with.

    Attributes:
        walls: What keeps it from other files.
        is_privileged: Whether they are made with root's rights, and the program then runs as nobody, with the one right
            of using its files whoever owns them.
        is_filtered: Whether its system calls are filtered.
        lacking: Why stronger means cannot be had, those of the strongest first.
    """

    walls: Walls
    is_privileged: bool = False
    is_filtered: bool = True
    lacking: tuple[str, ...] = ()

    @property
    def strength(self) -> Strength:
        """How far that goes."""
        if self.walls is Walls.BUBBLEWRAP:
            return Strength.FULL if self.is_filtered else Strength.CLOSED
        return Strength.CLOSED if self.walls is Walls.LANDLOCK and self.is_filtered else Strength.LIMITS

    def told(self) -> str:
        """Return for people what a program is shut in with."""
        walls = {
            Walls.BUBBLEWRAP: "a tree of files of its own, no network (bubblewrap)",
            Walls.LANDLOCK: "no content of other files, no network (Landlock)",
            Walls.NONE: "limits alone",
        }[self.walls]
        return f"{walls}; {'filtered system calls' if self.is_filtered else 'no filter of system calls'}"
