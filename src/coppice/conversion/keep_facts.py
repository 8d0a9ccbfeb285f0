# SPDX-License-Identifier: Apache-2.0
"""What a source was found to be, as its record has it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coppice.conversion.model import Archive, Compression, Detection, Inspection, Packaging, PartitionTable
from coppice.model.image import DiskFormat
from coppice.model.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Mapping


def inspection_values(found: Inspection) -> dict[str, Any]:
    """Return what `inspection_from` reads."""
    return asdict(found)


def inspection_from(values: Mapping[str, Any]) -> Inspection:
    """Return what a record has.

    Raises:
        ValueError, KeyError, TypeError, OverflowError: It is not of this form.
    """
    disk, packaging = dict(values["disk"]), values["packaging"]
    table = disk["partition_table"]
    detection = Detection(
        **{
            **disk,
            "format": DiskFormat(disk["format"]),
            "virtual_size_bytes": int(disk["virtual_size_bytes"]),
            "partition_table": None if table is None else PartitionTable(table),
            "notes": tuple(disk["notes"]),
        }
    )
    return Inspection(
        format=DiskFormat(values["format"]),
        size_bytes=int(values["size_bytes"]),
        virtual_size_bytes=int(values["virtual_size_bytes"]),
        disk=detection,
        packaging=None if packaging is None else _packaging(packaging),
    )


def _packaging(values: Mapping[str, Any]) -> Packaging:
    compression, archive, hardware = values["compression"], values["archive"], values["hardware"]
    return Packaging(
        compression=None if compression is None else Compression(compression),
        archive=None if archive is None else Archive(archive),
        member=values["member"],
        hardware=None if hardware is None else Requirements.from_values(hardware),
    )
