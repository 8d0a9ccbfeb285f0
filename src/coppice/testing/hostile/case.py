# SPDX-License-Identifier: Apache-2.0
"""`HostileCase`: one file that must be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileCase:
    """One file that must be refused before any tool opens it.

    Attributes:
        name: Its defect, as a file name: ``qcow2-backing-file-absolute.qcow2``.
        threat: The number in the threat model: ``T58``.
        code: Of the error with which it is refused.
        make: Writes it to a path. No program is run; the same bytes each time; sparse where it is large.
    """

    name: str
    threat: str
    code: str
    make: Callable[[Path], None]
