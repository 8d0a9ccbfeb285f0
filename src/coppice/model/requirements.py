# SPDX-License-Identifier: Apache-2.0
"""What an image needs of the machine that runs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """The least, and what is better; None where nobody said.

    Attributes:
        minimum_cores: Processor cores.
        minimum_ram_mib: Memory in MiB (``hv:ram_minimum``).
        minimum_disk_bytes: Size of the root disk.
        recommended_cores: Processor cores (``ad:core_recommended``).
        recommended_ram_mib: Memory in MiB (``ad:ram_recommended``).
    """

    minimum_cores: int | None = None
    minimum_ram_mib: int | None = None
    minimum_disk_bytes: int | None = None
    recommended_cores: int | None = None
    recommended_ram_mib: int | None = None
