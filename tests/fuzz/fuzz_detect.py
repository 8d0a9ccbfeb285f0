# SPDX-License-Identifier: Apache-2.0
"""Fuzz the detector of disks: whatever the bytes, only declared errors, and a disk that is no larger than is taken.

    python tests/fuzz/fuzz_detect.py -max_total_time=600 [CORPUS] [options of libFuzzer]

An input is a good image by its number, what is written over it where, and whether checksums are made right again; or,
with a number of its own, the bytes of a whole file. So the tables far into a file are reached as well as its header.
Without CORPUS a throw-away one is used. Seeds are written into it.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

# A checksum has no branches that are worth a look.
with atheris.instrument_imports(include=["coppice"], exclude=["coppice.formats.crc32c"]):
    from coppice.conversion.detect import detect
    from coppice.conversion.disks.frame import READERS
    from coppice.conversion.model import ConversionLimits
    from coppice.errors import ImageRefusedError
    from coppice.testing import disks, images, qcow2, vhdx

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = ConversionLimits(maximum_virtual_size_bytes=2**32)
OPTIONS = ("-max_len=4096", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1")
PATCH = struct.Struct("<IB")
WHOLE = 0xFF
BASES = (
    qcow2.TinyQcow2().content(),
    qcow2.TinyQcow2(version=2, clusters=9, cluster_bits=9, virtual_size_bytes=8192).content(),
    qcow2.TinyQcow2(fields={"incompatible": 16}, cluster_bits=14).content(),
    qcow2.TinyQcow2(
        fields={"snapshots": 1, "snapshots_offset": qcow2.DATA + 2 * qcow2.CLUSTER, "autoclear": 1},
        extensions=(qcow2.bitmaps_extension(count=1, offset=qcow2.DATA + 3 * qcow2.CLUSTER, size_bytes=32),),
        patches={
            qcow2.DATA + 2 * qcow2.CLUSTER: qcow2.snapshot(l1_offset=0, l1_entries=0),
            qcow2.DATA + 3 * qcow2.CLUSTER: qcow2.bitmap_directory(table=0, entries=0),
        },
    ).content(),
    disks.sparse_vmdk(),
    disks.stream_vmdk(),
    disks.vdi(),
    disks.dynamic_vhd(),
    disks.fixed_vhd(),
    vhdx.vhdx(),
    images.iso(),
    images.iso(hybrid=True),
    images.raw_disk(64 * 1024),
)
PIECES = {
    (0, 20): (b"\0\0\0\x09", b"\0\0\0\x15", b"\xff" * 4),
    (0, 72): (b"\0" * 7 + b"\x08", b"\0" * 7 + b"\x10"),
    (0, qcow2.L2): (struct.pack(">Q", qcow2.COMPRESSED | 0x5000), struct.pack(">Q", 0x6001)),
    (4, 28): (b"\xff" * 8,),
    (5, 0x200): (b"parentCID=1\n", b'RW 1 FLAT "x" 0\n'),
    (7, 60): (b"\0\0\0\x04",),
    (9, vhdx.BAT): (b"\xff" * 8,),
    (10, 0): (b"# Disk DescriptorFile\n", b"QFI\xfb\0\0\0\3", b"\x1f\x8b"),
}


class PatchedWindow:
    """A good image with other bytes here and there; it is not copied, because most images have megabytes."""

    def __init__(self, base: bytes, patches: list[tuple[int, bytes]], size_bytes: int) -> None:
        self._base = base
        self._patches = patches
        self.size_bytes = size_bytes

    def read(self, start: int, length: int) -> bytes:
        """Return bytes as a `Window` does."""
        end = min(start + length, self.size_bytes)
        if end <= start:
            return b""
        piece = bytearray(self._base[start:end].ljust(end - start, b"\0"))
        for at, content in self._patches:
            first, last = max(at, start), min(at + len(content), end)
            if first < last:
                piece[first - start : last - start] = content[first - at : last - at]
        return bytes(piece)

    def is_patched(self, start: int, length: int) -> bool:
        """Tell whether a part of it is not the image's."""
        return any(at < start + length and start < at + len(content) for at, content in self._patches)


def window_of(data: bytes) -> PatchedWindow:
    """Return the file that an input stands for."""
    number = data[0] if data else WHOLE
    if number == WHOLE:
        return PatchedWindow(data[1:], [], len(data[1:]))
    base = BASES[number % len(BASES)]
    size = len(base) if len(data) < 2 or data[1] < 0xF0 else len(base) * data[1] // 0x100
    patches, at = [], 2
    while at + PATCH.size < len(data):
        offset, length = PATCH.unpack_from(data, at)
        at += PATCH.size
        where = offset % (size + 1) if offset < 1 << 31 else max(0, size - offset % 2048)
        patches.append((where, data[at : at + length]))
        at += length
    window = PatchedWindow(base, patches, size)
    if number & 0x40:
        patches.extend(_sealed(window, BASES.index(base)))
    return window


def _sealed(window: PatchedWindow, number: int) -> list[tuple[int, bytes]]:
    """Return checksums that are right, so that what they cover is looked at."""
    base = BASES[number]
    if base.startswith(b"conectix"):
        footer = disks.resealed_vhd(window.read(0, 512).ljust(512, b"\0"), 64)
        header = disks.resealed_vhd(window.read(512, 1024).ljust(1024, b"\0"), 36)
        return [(0, footer), (512, header), (max(0, window.size_bytes - 512), footer)]
    if base.endswith(disks.fixed_vhd()[-512:]):
        end = max(0, window.size_bytes - 512)
        return [(end, disks.resealed_vhd(window.read(end, 512).ljust(512, b"\0"), 64))]
    if base.startswith(b"vhdxfile"):
        places = [*((at, 4096) for at in vhdx.HEADERS), *((at, 65536) for at in vhdx.TABLES)]
        touched = [place for place in places if window.is_patched(*place)]
        return [(at, vhdx.sealed(window.read(at, length).ljust(length, b"\0"))) for at, length in touched]
    return []


def one_input(data: bytes) -> None:
    """Look at the file that ``data`` stands for; whatever is no `ImageRefusedError` ends the run."""
    window = window_of(data)
    try:
        found = detect(window, LIMITS, name="x", file_size_bytes=window.size_bytes)
    except ImageRefusedError:
        return
    assert 0 < found.virtual_size_bytes <= LIMITS.most_bytes_of(window.size_bytes)
    assert found.format in READERS
    assert found.allocated_bytes is None or 0 <= found.allocated_bytes <= found.virtual_size_bytes


def patch(offset: int, content: bytes) -> bytes:
    """Return one piece of an input."""
    return PATCH.pack(offset, len(content)) + content


def seeds() -> Iterator[bytes]:
    """Yield each good image, some with a lie, and some small files as they are."""
    for number in range(len(BASES)):
        yield bytes((number, 0))
        yield bytes((number | 0x40, 0)) + patch(16, b"\0\0\0\1")
        yield bytes((number, 0xF8))
    for (number, offset), pieces in PIECES.items():
        for piece in pieces:
            yield bytes((number, 0)) + patch(offset, piece)
    for head in (b"\x1f\x8b", b"KDMV", b"QFI\xfb", b"conectix", b"vhdxfile", b"<html>", b"# Disk DescriptorFile\n"):
        yield bytes((WHOLE,)) + head.ljust(512, b"\0")


def prepare(corpus: Path) -> None:
    """Write the seeds into ``corpus``."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)


def main() -> int:
    """Run libFuzzer; it ends the process itself."""
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    corpora = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if not corpora:
        with tempfile.TemporaryDirectory() as directory:
            return subprocess.call([sys.executable, __file__, *options, str(Path(directory) / "corpus")])
    prepare(Path(corpora[0]))
    atheris.Setup([sys.argv[0], *OPTIONS, *options, *corpora], one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
