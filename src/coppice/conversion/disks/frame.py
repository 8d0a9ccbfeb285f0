# SPDX-License-Identifier: Apache-2.0
"""The table of a disk's formats. A format is one module and one line here."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from coppice.conversion.disks import iso, qcow2, raw, vdi, vhd, vhdx, vmdk
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.conversion.model import ConversionLimits, Detection
    from coppice.conversion.window import Window


class DiskReader(Protocol):
    """What a module of a format has."""

    def matches(self, window: Window) -> bool:
        """Tell whether the file bears the signature of the format, however broken the rest is."""
        ...

    def look(self, window: Window, limits: ConversionLimits, name: str) -> Detection:
        """Return what the disk is, after a look at the whole of its metadata.

        Args:
            window: The disk's bytes, of which `matches` was true.
            limits: What a disk may have; `maximum_virtual_size_bytes` is narrowed down to what this file may hold.
            name: Of the file, for refusals.

        Raises:
            ImageRefusedError: It is broken, dangerous, or of a kind that is not taken; the class says which.
        """
        ...


READERS: Mapping[DiskFormat, DiskReader] = MappingProxyType(
    {
        DiskFormat.QCOW2: qcow2,
        DiskFormat.VMDK: vmdk,
        DiskFormat.VDI: vdi,
        DiskFormat.VHD: vhd,
        DiskFormat.VHDX: vhdx,
        DiskFormat.ISO: iso,
        DiskFormat.RAW: raw,
    }
)
"""Raw is last, and matches nothing: it is what has no signature."""
