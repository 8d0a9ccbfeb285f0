# SPDX-License-Identifier: Apache-2.0
"""The cage: a program that reads other people's bytes gets the files that it is given, and nothing else.

Images are made by strangers, and the programs that read them (qemu-img, debugfs, xfs_db) are large. A `Cage` runs
one so that an image which takes it over has won nothing: no other file, no network, no other process, bounded memory
and time.
"""

from __future__ import annotations

from coppice.cage.cage import Cage
from coppice.cage.means import Means, Strength, Walls
from coppice.cage.room import DEFAULT_LIMITS
from coppice.cage.trial import find_means, forget_means

__all__ = ["DEFAULT_LIMITS", "Cage", "Means", "Strength", "Walls", "find_means", "forget_means"]
