# SPDX-License-Identifier: Apache-2.0
"""A disk that boots under BIOS and UEFI, assembled in one sparse file without loop devices or mounts.

Partitions: one for GRUB's BIOS image where there is BIOS, an EFI system partition, the root file system, which is last
so that it can grow.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.model.operating_system import Architecture
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECTOR_BYTES = 512
MIB = 1024 * 1024
BIOS_START_BYTES = 1 * MIB
BIOS_SIZE_BYTES = 1 * MIB
ESP_START_BYTES = 2 * MIB
ESP_SIZE_BYTES = 64 * MIB
ROOT_START_BYTES = 66 * MIB
END_RESERVE_BYTES = 1 * MIB

_BIOS_TYPE = "21686148-6449-6E6F-744E-656564454649"
_ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_ROOT_TYPES = {
    Architecture.X86_64: "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    Architecture.AARCH64: "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
}
_TOOL_SECONDS = 120.0
# Where GRUB's boot sector holds what its installer fills in (i386/pc/boot.h).
_KERNEL_SECTOR = 0x5C
_BOOT_DRIVE = 0x64
_DRIVE_CHECK = 0x66
_BOOT_CODE_BYTES = 440
_BLOCK_LIST = SECTOR_BYTES - 12
_KERNEL_SEGMENT = 0x820


@dataclass(frozen=True, slots=True)
class Names:
    """Every identifier on the disk, derived from one seed, so that the same content makes the same disk."""

    seed: str

    def uuid(self, what: str) -> uuid.UUID:
        """Return the UUID of ``what``."""
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.seed}/{what}")

    def volume(self) -> str:
        """Return the FAT volume's identifier: 8 hexadecimal digits."""
        return hashlib.sha256(f"{self.seed}/esp".encode()).hexdigest()[:8]


def root_size_bytes(disk_size_bytes: int) -> int:
    """Return the length of the root partition on a disk of that size."""
    return disk_size_bytes - ROOT_START_BYTES - END_RESERVE_BYTES


def partition(
    disk: Path,
    size_bytes: int,
    names: Names,
    *,
    architecture: Architecture = Architecture.X86_64,
    has_bios: bool = True,
) -> None:
    """Make ``disk``, sparse, with its partition table.

    Args:
        disk: Where it is made.
        size_bytes: Its length.
        names: Of what is on it.
        architecture: That it is for: tools that look for the root go by its type.
        has_bios: Whether there is a partition for GRUB's BIOS image.

    Raises:
        BuildError: It could not be partitioned.
        StorageError: It could not be written.
    """
    with storage_errors("making", disk), disk.open("xb") as stream:
        stream.truncate(size_bytes)
    # Whatever the processor, each has the same number and place.
    rows = (
        (1, BIOS_START_BYTES, BIOS_SIZE_BYTES, _BIOS_TYPE, "bios"),
        (2, ESP_START_BYTES, ESP_SIZE_BYTES, _ESP_TYPE, "esp"),
        (3, ROOT_START_BYTES, root_size_bytes(size_bytes), _ROOT_TYPES[architecture], "root"),
    )
    script = f"label: gpt\nlabel-id: {names.uuid('disk')}\nunit: sectors\n" + "".join(
        f"{number} : start={start // SECTOR_BYTES}, size={size // SECTOR_BYTES}, type={kind}, "
        f"uuid={names.uuid(name + '-partition')}, name={name}\n"
        for number, start, size, kind, name in rows
        if has_bios or name != "bios"
    )
    argv: list[str | Path] = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never", disk]
    _tool(argv, input_bytes=script.encode())


def write_bios_boot(disk: Path, boot_sector: bytes, core: bytes) -> None:
    """Write GRUB's boot sector and its core image for BIOS, as ``grub-bios-setup`` would.

    Raises:
        BuildError: They are not what GRUB's tools make.
        StorageError: They could not be written.
    """
    sector, image = bios_boot_code(boot_sector, core)
    with storage_errors("writing", disk), disk.open("r+b") as stream:
        stream.write(sector[:_BOOT_CODE_BYTES])
        stream.seek(BIOS_START_BYTES)
        stream.write(image)


def bios_boot_code(boot_sector: bytes, core: bytes) -> tuple[bytes, bytes]:
    """Return the boot sector and the core image, each knowing where the next part of GRUB lies.

    Raises:
        BuildError: They are not what GRUB's tools make, or too long.
    """
    if len(boot_sector) != SECTOR_BYTES or boot_sector[510:] != b"\x55\xaa":
        raise BuildError("GRUB's boot.img is not a boot sector")
    if not 2 * SECTOR_BYTES <= len(core) <= BIOS_SIZE_BYTES:
        raise BuildError(f"GRUB's core image has {len(core)} bytes; the BIOS boot partition holds {BIOS_SIZE_BYTES}")
    start = BIOS_START_BYTES // SECTOR_BYTES
    sectors = -(-len(core) // SECTOR_BYTES)
    first = bytearray(boot_sector)
    struct.pack_into("<Q", first, _KERNEL_SECTOR, start)
    # 0xff: the drive that the BIOS started from; the two NOPs skip a check that some BIOSes need skipped on disks.
    first[_BOOT_DRIVE] = 0xFF
    first[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    image = bytearray(core)
    struct.pack_into("<QHH", image, _BLOCK_LIST, start + 1, sectors - 1, _KERNEL_SEGMENT)
    return bytes(first), bytes(image)


def write_esp(disk: Path, files: Mapping[str, bytes], epoch: int, names: Names, work: Path) -> None:
    """Make the EFI system partition.

    Args:
        disk: With its partitions.
        files: What is on it, by path.
        epoch: Seconds since 1970 of all of it.
        names: Of what is on the disk.
        work: A directory to work in.

    Raises:
        BuildError: It could not be made.
        StorageError: A file could not be written.
    """
    blocks = str(ESP_SIZE_BYTES // 1024)
    argv: list[str | Path] = ["mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "-n", "ESP", "-i", names.volume()]
    argv += [f"--offset={ESP_START_BYTES // SECTOR_BYTES}", disk, blocks]
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    _tool(argv, environment)
    place = f"{disk}@@{ESP_START_BYTES}"
    folders = {str(folder): None for path in files for folder in reversed(PurePosixPath(path).parents[:-1])}
    _tool(["mmd", "-i", place, *(f"::/{folder}" for folder in folders)], environment)
    for path, content in files.items():
        waiting = work / "esp-file"
        with storage_errors("writing", waiting):
            waiting.write_bytes(content)
            os.utime(waiting, (epoch, epoch))
        _tool(["mcopy", "-m", "-i", place, waiting, f"::/{path}"], environment)


def _tool(
    argv: list[str | Path], environment: dict[str, str] | None = None, *, input_bytes: bytes | None = None
) -> None:
    try:
        run(argv, timeout_seconds=_TOOL_SECONDS, env=environment, input_bytes=input_bytes)
    except ToolFailedError as problem:
        raise BuildError(f"assembling the disk failed: {problem.message}", details=problem.details) from problem
