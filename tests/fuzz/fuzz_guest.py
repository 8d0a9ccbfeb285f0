# SPDX-License-Identifier: Apache-2.0
"""A fuzz target: whatever a disk holds, reading its tables, superblocks, kernels and os-release raises nothing."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["coppice"]):
    from coppice.conversion.guest.kernels import HEAD_BYTES, kernel_of
    from coppice.conversion.guest.os_release import MOST_BYTES, read_os_release
    from coppice.formats.el_torito import boot_ways_of_disc
    from coppice.formats.file_systems import file_systems_of
    from coppice.formats.partitions import partition_table_of, read_partitions
    from coppice.testing.guests import OS_RELEASE, kernel

MOST_READ_BYTES = 1 << 20
SUPERBLOCKS = ((0, b"XFSB"), (510, b"\x55\xaa"), (536, b"LVM2 001"), (1080, b"\x53\xef"), (65600, b"_BHRfS_M"))


class Disk:
    """Bytes of which the first half lies at the beginning, and the second at the end."""

    def __init__(self, data: bytes, size_bytes: int) -> None:
        half = len(data) // 2
        self._parts = ((0, data[:half]), (size_bytes - (len(data) - half), data[half:]))
        self._size_bytes = size_bytes

    def read(self, start: int, length: int) -> bytes:
        """Return bytes; never more than are allowed at once."""
        assert start >= 0
        assert 0 <= length <= MOST_READ_BYTES
        piece = bytearray(max(0, min(length, self._size_bytes - start)))
        for at, content in self._parts:
            low, high = max(start, at), min(start + len(piece), at + len(content))
            if low < high:
                piece[low - start : high - start] = content[low - at : high - at]
        return bytes(piece)


def summed(data: bytes) -> bytes:
    """Return a disk with a GPT whose sums are right, and whose numbers and entries are out of ``data``."""
    numbers = data[:40].ljust(40, b"\0")
    backup, first, last, sector, count, entry_bytes = struct.unpack("<QQQQII", numbers)
    sector, count, entry_bytes = 2 + sector % 8, count % 64, entry_bytes % 1024
    disk = bytearray(1 << 17)
    disk[:512] = (bytes(446) + struct.pack("<B3sB3sII", 0, b"", 0xEE, b"", 1, 255)).ljust(510, b"\0") + b"\x55\xaa"
    entries = data[40:].ljust(count * entry_bytes, b"\0")[: count * entry_bytes]
    fields = (b"EFI PART", 1 << 16, 92, 0, 0, 1, backup, first, last, b"", sector, count, entry_bytes)
    header = struct.pack("<8sIIIIQQQQ16sQIII", *fields, zlib.crc32(entries))
    disk[512 : 512 + 92] = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
    disk[sector * 512 : sector * 512 + len(entries)] = entries
    return bytes(disk)


def check_layout(disk: Disk, size: int) -> None:
    """Read a partition table; what it says has to be possible."""
    layout = read_partitions(disk.read, size)
    assert layout.table is partition_table_of(disk.read, size)
    assert all(part.start_bytes >= 0 and part.size_bytes > 0 for part in layout.partitions)
    assert all(part.end_bytes <= size for part in layout.partitions if part.is_inside)
    assert all(part.label.isprintable() for part in layout.partitions)


def one(data: bytes) -> None:
    """Read ``data`` as each thing that a guest holds."""
    whole = summed(data)
    check_layout(Disk(whole, len(whole)), len(whole))
    for size in (len(data), 1 << 21):
        if size >= len(data):
            disk = Disk(data, size)
            check_layout(disk, size)
            boot_ways_of_disc(disk.read)
    for start, mark in ((0, b""), *SUPERBLOCKS):
        content = bytes(start) + mark + data
        file_systems_of(lambda at, length, content=content: content[at : at + length])
    kernel_of("/boot/vmlinuz", data[:HEAD_BYTES])
    release, _ = read_os_release(data[: MOST_BYTES + 1])
    assert (release.pretty_name + release.name).isprintable()


def seeds() -> tuple[bytes, ...]:
    """Return a small thing of each kind."""
    entries = struct.pack("<B3sB3sII", 0x80, b"", 0x83, b"", 1, 8) + struct.pack("<B3sB3sII", 0, b"", 0x05, b"", 9, 8)
    table = (bytes(446) + entries).ljust(510, b"\0") + b"\x55\xaa"
    protective = (bytes(446) + struct.pack("<B3sB3sII", 0, b"", 0xEE, b"", 1, 4095)).ljust(510, b"\0") + b"\x55\xaa"
    header = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 1 << 16, 92, 0, 0, 1, 4095, 34, 4062, b"", 2, 4, 128, 0)
    return (table.ljust(8192, b"\0"), protective + header.ljust(8192, b"\0"), kernel()[:2048], OS_RELEASE)


def main() -> None:
    """Run libFuzzer; it ends the process itself."""
    corpora = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    for corpus in map(Path, corpora[:1]):
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], "-print_final_stats=1", "-max_len=16384", *sys.argv[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
