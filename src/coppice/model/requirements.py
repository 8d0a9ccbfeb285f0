# SPDX-License-Identifier: Apache-2.0
"""What an image needs of the machine that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from coppice.model.operating_system import Firmware

if TYPE_CHECKING:
    from collections.abc import Mapping


class DiskBus(StrEnum):
    """What the root disk is attached to, by the names that clouds use (Glance's ``hw_disk_bus``)."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """The least, and what is better; None where nobody said.

    Attributes:
        minimum_cores: Processor cores.
        minimum_ram_mib: Memory in MiB (``hv:ram_minimum``).
        minimum_disk_bytes: Size of the root disk.
        recommended_cores: Processor cores (``ad:core_recommended``).
        recommended_ram_mib: Memory in MiB (``ad:ram_recommended``).
        firmware: How the machine has to start.
        disk_bus: What the root disk has to be attached to.
    """

    minimum_cores: int | None = None
    minimum_ram_mib: int | None = None
    minimum_disk_bytes: int | None = None
    recommended_cores: int | None = None
    recommended_ram_mib: int | None = None
    firmware: Firmware | None = None
    disk_bus: DiskBus | None = None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Return requirements out of what `dataclasses.asdict` made, and a document or a row kept.

        Raises:
            ValueError: A name is not one of firmware, or of a disk bus.
            TypeError: There are other keys.
        """
        firmware, disk_bus = values.get("firmware"), values.get("disk_bus")
        known = {
            "firmware": None if firmware is None else Firmware(firmware),
            "disk_bus": None if disk_bus is None else DiskBus(disk_bus),
        }
        return cls(**{**values, **known})
