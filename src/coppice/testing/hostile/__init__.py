# SPDX-License-Identifier: Apache-2.0
"""Hostile image files, each with the one defect that it is named by, and the code with which it is refused.

Each module has ``cases()``; `cases` here gives all of them. ``scripts/hostile_images.py`` writes them into a folder.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.testing.hostile.case import HostileCase

MODULES = ("qcow2", "disks", "foreign", "packed", "archives", "ovf")
"""Who makes them, in the order of the threat model."""


def cases() -> tuple[HostileCase, ...]:
    """Return every hostile file, by threat and name; no two have one name.

    Raises:
        ValueError: Two have.
    """
    found = [case for name in MODULES for case in importlib.import_module(f"{__name__}.{name}").cases()]
    names = [case.name for case in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"two hostile files have one name: {', '.join(twice)}"
        raise ValueError(message)
    return tuple(sorted(found, key=lambda case: (int(case.threat.removeprefix("T")), case.name)))
