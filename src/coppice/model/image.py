# SPDX-License-Identifier: Apache-2.0
"""An image: disk bytes with a format, a size and a checksum."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.model.checksum import Checksum


class DiskFormat(StrEnum):
    """Formats of a disk image, by the names that clouds use; `OVA` is a disk with its descriptor in an archive."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VDI = "vdi"
    VHD = "vhd"
    VHDX = "vhdx"
    ISO = "iso"
    OVA = "ova"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Facts about a disk image file.

    Attributes:
        format: What the bytes are, by content.
        size_bytes: Length of the file.
        virtual_size_bytes: Length of the disk that a guest sees.
        checksum: Of the file's bytes.
    """

    format: DiskFormat
    size_bytes: int
    virtual_size_bytes: int
    checksum: Checksum
