# SPDX-License-Identifier: Apache-2.0
"""What real packers write is unpacked to the byte, in little memory; a run that is killed leaves nothing behind."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from coppice.conversion.model import Archive, Compression, ConversionLimits
from coppice.conversion.unpack import opened_disk
from coppice.errors import DecompressionBombError
from coppice.model.image import DiskFormat
from coppice.testing import images
from coppice.testing.hostile import packed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
MIB = 1024 * 1024
LIMITS = ConversionLimits()
MOST_RSS_KIB = 200 * 1000
DISK = images.raw_disk(6 * MIB) + images.raw_disk(3 * MIB, seed=2)
PACKERS = {
    "gzip": ("gzip", "-c"),
    "gzip-rsyncable": ("gzip", "--rsyncable", "-1c"),
    "bzip2": ("bzip2", "-c"),
    "bzip2-fast": ("bzip2", "-1c"),
    "xz": ("xz", "-c"),
    "xz-blocks": ("xz", "-T2", "--block-size=1MiB", "-1c"),
    "xz-sha256": ("xz", "--check=sha256", "-0c"),
    "xz-no-check": ("xz", "--check=none", "-0c"),
    "xz-x86": ("xz", "--x86", "--lzma2=preset=6,dict=64MiB", "-c"),
    "zstd": ("zstd", "-qc"),
    "zstd-blocks": ("zstd", "-q", "-T2", "-B1MiB", "-c"),
    "zstd-no-check": ("zstd", "-q", "--no-check", "-c"),
    "zstd-long": ("zstd", "-q", "--long=27", "-c"),
    "zstd-ultra": ("zstd", "-q", "--ultra", "-20", "-c"),
}
TAR_FLAGS = {"gzip": "-z", "bzip2": "-j", "xz": "-J", "zstd": "--zstd"}
CHILD = """
import json, sys
from pathlib import Path
from coppice.conversion.model import ConversionLimits
from coppice.conversion.unpack import opened_disk
from coppice.errors import CoppiceError
limits = ConversionLimits(maximum_virtual_size_bytes=int(sys.argv[3]))
try:
    with opened_disk(Path(sys.argv[1]), limits, spool=Path(sys.argv[2])) as disk:
        said = disk.size_bytes
        if sys.argv[4:]:
            print("open", flush=True)
            sys.stdin.read()
except CoppiceError as problem:
    said = problem.code
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"said": said, "peak_kib": peak}))
"""


def child(path: Path, spool: Path, most: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(path), str(spool), str(most), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> dict[str, int | str]:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    found: dict[str, int | str] = json.loads(said)
    return found


def packed_by(command: tuple[str, ...], content: bytes, path: Path) -> None:
    with path.open("wb") as stream:
        subprocess.run(command, input=content, stdout=stream, check=True)


def read(path: Path, offset: int, size: int) -> bytes:
    return path.read_bytes()[offset : offset + size]


@pytest.mark.parametrize("packer", sorted(PACKERS))
def test_what_a_packer_writes_is_unpacked_to_the_byte(packer: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    packed_by(PACKERS[packer], DISK, path)
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
        assert read(disk.path, disk.offset, disk.size_bytes) == DISK
        assert disk.inspection.disk.format is DiskFormat.RAW
        assert disk.path.stat().st_blocks * 512 < 3 * MIB
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("form", ["gnu", "ustar", "posix"])
@pytest.mark.parametrize("kind", sorted(TAR_FLAGS))
def test_what_tar_packs_is_a_disk_in_a_file_of_its_own(kind: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(DISK)
    path = tmp_path / "image"
    subprocess.run(["tar", "-C", tmp_path, f"--format={form}", TAR_FLAGS[kind], "-cf", path, "disk.raw"], check=True)
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
        packaging = disk.inspection.packaging
        assert packaging is not None
        assert (packaging.compression, packaging.archive) == (Compression(kind), Archive.TAR)
        assert packaging.member == "disk.raw"
        assert (disk.inspection.format, disk.offset) == (DiskFormat.RAW, 0)
        assert disk.path.read_bytes() == DISK


@pytest.mark.parametrize("is_large", [False, True], ids=["plain", "zip64"])
@pytest.mark.parametrize(
    ("method", "is_stream"),
    # What is stored in a stream has its length behind it, and is refused: programs differ in where it ends.
    [(zipfile.ZIP_STORED, False), (zipfile.ZIP_DEFLATED, False), (zipfile.ZIP_DEFLATED, True)],
    ids=["stored-file", "deflated-file", "deflated-stream"],
)
def test_what_zip_packs_is_found(method: int, is_large: bool, is_stream: bool, tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, piece: bytes) -> int:
            self.content += piece
            return len(piece)

    pipe = Pipe()
    with (
        zipfile.ZipFile(pipe if is_stream else tmp_path / "image", "w", method) as made,
        made.open("disk.raw", "w", force_zip64=is_large) as stream,
    ):
        stream.write(DISK)
    if is_stream:
        (tmp_path / "image").write_bytes(pipe.content)
    with opened_disk(tmp_path / "image", LIMITS, spool=tmp_path / "spool") as disk:
        assert read(disk.path, disk.offset, disk.size_bytes) == DISK
        assert disk.is_spooled == (method == zipfile.ZIP_DEFLATED)


@pytest.mark.threat("T65")
@pytest.mark.parametrize(
    "case", [case for case in packed.cases() if case.code == DecompressionBombError.code], ids=lambda case: case.name
)
def test_a_bomb_goes_off_in_little_memory_and_leaves_no_spool(case, tmp_path: Path) -> None:
    case.make(tmp_path / "bomb")
    found = ended(child(tmp_path / "bomb", tmp_path / "spool", 64 * MIB))
    assert found["said"] == case.code
    assert int(found["peak_kib"]) < MOST_RSS_KIB
    assert not (tmp_path / "spool").exists() or list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [("xz", "--lzma2=preset=0,dict=96MiB", "-c"), ("zstd", "-1", "-q", "--long=27", "-c"), ("gzip", "-1c")],
    ids=lambda command: command[0],
)
def test_memory_does_not_grow_with_what_is_unpacked(command: tuple[str, ...], tmp_path: Path) -> None:
    content = os.urandom(MIB) * 112
    packed_by(command, content, tmp_path / "image")
    found = ended(child(tmp_path / "image", tmp_path / "spool", 1024 * MIB))
    assert found["said"] == len(content)
    # The window of 128 MiB, or a dictionary of 96, is the most that is given; the interpreter has the rest.
    assert int(found["peak_kib"]) < (MOST_RSS_KIB + 30_000 if command[0] != "gzip" else 100_000)


def test_a_run_that_is_killed_half_way_leaves_what_the_next_one_removes(tmp_path: Path) -> None:
    path, spool = tmp_path / "image", tmp_path / "spool"
    packed_by(("bzip2", "-c"), os.urandom(10 * MIB), path)
    process = child(path, spool, 1024 * MIB)
    deadline = time.monotonic() + 120
    while not spool.exists() or not any(each.stat().st_size for each in spool.iterdir()):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = list(spool.iterdir())
    assert len(left) == 1
    packed_by(("gzip", "-c"), DISK, path)
    with opened_disk(path, LIMITS, spool=spool) as disk:
        assert disk.path not in left
        assert list(spool.iterdir()) == [disk.path]
        assert disk.path.read_bytes() == DISK
    assert list(spool.iterdir()) == []


def test_what_another_run_has_unpacked_is_left_to_it(tmp_path: Path) -> None:
    path, spool = tmp_path / "image", tmp_path / "spool"
    packed_by(("gzip", "-c"), DISK, path)
    process = child(path, spool, 1024 * MIB, "wait")
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    (other,) = spool.iterdir()
    with opened_disk(path, LIMITS, spool=spool) as disk:
        assert sorted(spool.iterdir()) == sorted([other, disk.path])
    assert ended(process)["said"] == len(DISK)
    assert list(spool.iterdir()) == []
