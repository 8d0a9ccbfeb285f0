# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.conversion.model import Archive, Compression, ConversionLimits
from coppice.conversion.unpack import opened_disk
from coppice.errors import ArchiveError, CorruptImageError, DecompressionBombError, ImageRefusedError, NoSpaceError
from coppice.model.image import DiskFormat
from coppice.testing import images
from coppice.testing.archives import archive, extended, header, manifest, member, ovf
from coppice.testing.hostile import packed
from coppice.testing.packings import (
    DISK,
    Zipped,
    bzip2_stream,
    gzip_member,
    xz_stream,
    zip_file,
    zstd_raw,
    zstd_skippable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coppice.conversion.model import Inspection
    from coppice.monitor import Task, Unit

pytestmark = pytest.mark.unit
MIB = 1024 * 1024
LIMITS = ConversionLimits(maximum_virtual_size_bytes=32 * MIB)
FEW = ConversionLimits(maximum_virtual_size_bytes=4 * MIB)
PACKERS = {
    Compression.GZIP: gzip_member,
    Compression.BZIP2: bzip2_stream,
    Compression.XZ: xz_stream,
    Compression.ZSTD: zstd_raw,
    Compression.ZIP: lambda content: zip_file(Zipped(content=content)),
}
LARGE_DISK = images.raw_disk(MIB + 65536)
QCOW2 = images.qcow2()


class Counting:
    """A monitor that keeps the one task that it was told of."""

    def __init__(self) -> None:
        self.label, self.total, self.done = "", None, 0

    @contextmanager
    def task(self, label: str, *, total: int | None = None, unit: Unit | None = None) -> Iterator[Task]:
        self.label, self.total = label, total
        yield self

    def advance(self, amount: int) -> None:
        self.done += amount

    def reach(self, amount: int, total: int | None = None) -> None:
        raise AssertionError

    def note(self, text: str) -> None:
        raise AssertionError

    def message(self, text: str) -> None:
        raise AssertionError


def contents(path: Path, offset: int, size: int) -> bytes:
    return path.read_bytes()[offset : offset + size]


def opened(path: Path, content: bytes, limits: ConversionLimits = LIMITS) -> tuple[Inspection, bytes]:
    path.write_bytes(content)
    with opened_disk(path, limits, spool=path.parent / "spool") as disk:
        return disk.inspection, contents(disk.path, disk.offset, disk.size_bytes)


def is_empty(spool: Path) -> bool:
    return not spool.exists() or not list(spool.iterdir())


@pytest.mark.threat("T65")
@pytest.mark.threat("T66")
@pytest.mark.parametrize("case", packed.cases(), ids=lambda case: case.name)
def test_a_hostile_packed_file_is_refused_with_its_code_and_leaves_nothing(case, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.make(path)
    with pytest.raises(ImageRefusedError) as refused, opened_disk(path, FEW, spool=tmp_path / "spool"):
        pass
    assert (case.name, refused.value.code) == (case.name, case.code)
    assert refused.value.context["why"]
    assert refused.value.context["name"] == case.name
    assert is_empty(tmp_path / "spool")


def test_the_names_of_hostile_packed_files_differ() -> None:
    names = [case.name for case in packed.cases()]
    assert len(names) == len(set(names)) > 100


@pytest.mark.parametrize("kind", sorted(PACKERS))
@pytest.mark.parametrize("content", [DISK, QCOW2], ids=["raw", "qcow2"])
def test_what_is_compressed_is_found_with_its_disk(kind: Compression, content: bytes, tmp_path: Path) -> None:
    found, unpacked = opened(tmp_path / "image", PACKERS[kind](content))
    assert unpacked == content
    assert found.disk.format == found.format == (DiskFormat.QCOW2 if content is QCOW2 else DiskFormat.RAW)
    assert found.packaging is not None
    assert (found.packaging.compression, found.packaging.archive) == (kind, None)
    assert not found.is_usable_as_it_is
    assert found.size_bytes == (tmp_path / "image").stat().st_size
    assert is_empty(tmp_path / "spool")


def test_a_bare_disk_is_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(DISK)
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
        assert (disk.path, disk.offset, disk.size_bytes, disk.is_spooled) == (path, 0, len(DISK), False)
        assert disk.inspection.packaging is None
        assert disk.inspection.is_usable_as_it_is
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("content", [DISK, LARGE_DISK], ids=["small", "large"])
def test_a_disk_in_a_plain_archive_is_read_where_it_lies(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(archive(member("disk.raw", content)))
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
        assert (disk.path, disk.offset, disk.size_bytes, disk.is_spooled) == (path, 512, len(content), False)
        packaging = disk.inspection.packaging
        assert packaging is not None
        assert (packaging.archive, packaging.member, packaging.compression) == (Archive.TAR, "disk.raw", None)
        assert disk.inspection.format is DiskFormat.RAW
    assert not (tmp_path / "spool").exists()


def test_a_stored_member_of_a_zip_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(zip_file(Zipped(method=0)))
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
        assert (disk.path, disk.offset, disk.is_spooled) == (path, 38, False)
        assert disk.window.read(0, len(DISK) + 1) == DISK
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("kind", sorted(PACKERS))
@pytest.mark.parametrize("content", [DISK, LARGE_DISK], ids=["small", "large"])
def test_compression_may_be_outside_of_the_archive(kind: Compression, content: bytes, tmp_path: Path) -> None:
    whole = archive(member("readme.txt", b"text"), member("disk.raw", content), member("other.txt", b"more"))
    found, unpacked = opened(tmp_path / "image", PACKERS[kind](whole))
    assert unpacked == content
    assert found.packaging is not None
    assert (found.packaging.compression, found.packaging.archive) == (kind, Archive.TAR)
    assert found.packaging.member == "disk.raw"
    assert found.format is DiskFormat.RAW


@pytest.mark.parametrize("kind", sorted(PACKERS))
def test_compression_may_be_inside_of_the_archive(kind: Compression, tmp_path: Path) -> None:
    found, unpacked = opened(tmp_path / "image", archive(member("disk.raw.x", PACKERS[kind](DISK))))
    assert unpacked == DISK
    assert found.packaging is not None
    assert (found.packaging.compression, found.packaging.archive) == (kind, Archive.TAR)
    assert found.packaging.member == "disk.raw.x"


def test_an_appliance_keeps_its_format_its_hardware_and_its_notes(tmp_path: Path) -> None:
    whole = archive(member("disk.raw", DISK), member("vm.ovf", ovf(disk="").encode()))
    found, unpacked = opened(tmp_path / "image", whole)
    assert unpacked == DISK
    assert (found.format, found.disk.format) == (DiskFormat.OVA, DiskFormat.RAW)
    assert found.is_usable_as_it_is
    assert found.packaging is not None
    assert found.packaging.hardware is not None
    assert any("not the first file" in note for note in found.disk.notes)


def test_a_compressed_appliance_is_not_taken_for_one_that_a_cloud_reads(tmp_path: Path) -> None:
    whole = archive(member("vm.ovf", ovf().encode()), member("disk.raw", DISK))
    found, unpacked = opened(tmp_path / "image", gzip_member(whole))
    assert unpacked == DISK
    assert found.format is DiskFormat.RAW
    assert not found.is_usable_as_it_is
    assert found.packaging is not None
    assert found.packaging.archive is Archive.OVA


def test_the_manifest_of_a_compressed_appliance_is_held_against_its_disk(tmp_path: Path) -> None:
    files = [("vm.ovf", ovf().encode()), ("disk.raw", LARGE_DISK)]
    told = member("vm.mf", manifest(files))
    good = archive(*(member(name, content) for name, content in files), told)
    other = archive(member(*files[0]), member("disk.raw", LARGE_DISK[:-1] + b"x"), told)
    for content, is_right in ((good, True), (other, False)):
        path = tmp_path / "image"
        path.write_bytes(gzip_member(content))
        task = Counting()
        with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
            if is_right:
                disk.verify_manifest(task)
                assert task.done == len(LARGE_DISK)
            else:
                with pytest.raises(ImageRefusedError, match="digest"):
                    disk.verify_manifest(task)


@pytest.mark.parametrize("kind", sorted({*PACKERS} - {Compression.ZIP}))
@pytest.mark.threat("T66")
def test_several_streams_in_a_row_are_one_disk(kind: Compression, tmp_path: Path) -> None:
    pack = PACKERS[kind]
    found, unpacked = opened(tmp_path / "image", pack(DISK) + pack(b"") + pack(DISK[:1024]) + pack(DISK))
    assert unpacked == DISK + DISK[:1024] + DISK
    assert found.virtual_size_bytes == len(unpacked)


@pytest.mark.parametrize(
    "content",
    [
        gzip_member(DISK) + bytes(100_000),
        xz_stream(DISK) + bytes(8),
        xz_stream(DISK[:1024]) + bytes(4) + xz_stream(DISK[1024:]) + bytes(400_000),
        zstd_skippable(b"a note") + zstd_raw(DISK) + zstd_skippable(bytes(300_000)),
    ],
    ids=["gzip-padded", "xz-padded", "xz-padded-between", "zstd-skippable"],
)
@pytest.mark.threat("T66")
def test_padding_that_a_format_has_is_no_garbage(content: bytes, tmp_path: Path) -> None:
    assert opened(tmp_path / "image", content)[1] == DISK


def test_a_disk_that_was_unpacked_becomes_a_file_without_being_written_again(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for content in (gzip_member(LARGE_DISK), gzip_member(archive(member("disk.raw", LARGE_DISK)))):
        path.write_bytes(content)
        with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
            number = disk.path.stat().st_ino
            disk.take(tmp_path / "made" / "disk.raw")
        assert (tmp_path / "made" / "disk.raw").stat().st_ino == number
        # Who asked for it says who may read it, when it is done.
        assert (tmp_path / "made" / "disk.raw").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "made" / "disk.raw").read_bytes() == LARGE_DISK
        assert is_empty(tmp_path / "spool")


def test_a_disk_inside_of_a_file_is_copied_out_of_it_with_holes_for_zeros(tmp_path: Path) -> None:
    disk_bytes = DISK + bytes(4 * MIB) + DISK
    path = tmp_path / "image"
    path.write_bytes(archive(member("disk.raw", disk_bytes)))
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
        disk.take(tmp_path / "disk.raw")
    assert (tmp_path / "disk.raw").read_bytes() == disk_bytes
    assert (tmp_path / "disk.raw").stat().st_blocks * 512 < 2 * MIB
    assert path.exists()


def test_a_disk_goes_to_another_file_system_as_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(gzip_member(DISK))
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.suffix == ".spool":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
        disk.take(tmp_path / "disk.raw")
    assert (tmp_path / "disk.raw").read_bytes() == DISK
    assert is_empty(tmp_path / "spool")


def test_zeros_are_unpacked_to_holes(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(gzip_member(DISK + bytes(8 * MIB) + b"x" * 512 + bytes(8 * MIB)))
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as disk:
        assert disk.size_bytes == len(DISK) + 16 * MIB + 512
        assert disk.path.stat().st_blocks * 512 < MIB


def test_progress_is_told_in_bytes_of_the_packed_file(tmp_path: Path) -> None:
    path = tmp_path / "image.gz"
    path.write_bytes(gzip_member(images.raw_disk(4 * MIB)))
    monitor = Counting()
    with opened_disk(path, LIMITS, spool=tmp_path / "spool", monitor=monitor, name="an image"):
        pass
    assert (monitor.label, monitor.total, monitor.done) == ("unpacking an image", path.stat().st_size, monitor.total)


@pytest.mark.threat("T65")
def test_exactly_as_much_as_is_allowed_is_unpacked(tmp_path: Path) -> None:
    content = gzip_member(DISK)
    allowed = ConversionLimits(maximum_virtual_size_bytes=len(DISK))
    assert opened(tmp_path / "image", content, allowed)[1] == DISK
    less = ConversionLimits(maximum_virtual_size_bytes=len(DISK) - 1)
    with pytest.raises(DecompressionBombError, match=f"more than {len(DISK) - 1} bytes"):
        opened(tmp_path / "image", content, less)


@pytest.mark.threat("T65")
def test_unpacking_ends_when_its_time_is_over(tmp_path: Path) -> None:
    with pytest.raises(DecompressionBombError, match="takes longer"):
        opened(tmp_path / "image", bzip2_stream(DISK), ConversionLimits(timeout_seconds=-1))
    assert is_empty(tmp_path / "spool")


@pytest.mark.parametrize("content", [DISK, archive(member("disk.raw", LARGE_DISK))], ids=["disk", "archive"])
def test_a_full_disk_is_told_and_nothing_is_left(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "image"
    path.write_bytes(gzip_member(content + images.raw_disk(8 * MIB)))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpaceError), opened_disk(path, LIMITS, spool=tmp_path / "spool"):
        pass
    assert is_empty(tmp_path / "spool")


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    class Interrupting(Counting):
        def advance(self, amount: int) -> None:
            raise KeyboardInterrupt

    path = tmp_path / "image"
    path.write_bytes(gzip_member(DISK))
    with (
        pytest.raises(KeyboardInterrupt),
        opened_disk(path, LIMITS, spool=tmp_path / "spool", monitor=Interrupting()),
    ):
        pass
    assert is_empty(tmp_path / "spool")


def test_a_failure_of_whoever_uses_the_disk_leaves_nothing_and_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(gzip_member(DISK))
    problem = OSError(errno.EIO, "another file")
    with pytest.raises(OSError, match="another file") as found, opened_disk(path, LIMITS, spool=tmp_path / "spool"):
        raise problem
    assert found.value is problem
    assert is_empty(tmp_path / "spool")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(DISK)
    (tmp_path / "link").symlink_to("disk.raw")
    with pytest.raises(ImageRefusedError), opened_disk(tmp_path / "link", LIMITS, spool=tmp_path / "spool"):
        pass


@pytest.mark.threat("T67")
def test_an_archive_that_two_readers_split_differently_is_refused_or_read_as_the_strict_one_does(
    tmp_path: Path,
) -> None:
    # The extended header gives the length; whoever goes by the header alone takes the disk's first block for one.
    false_start = header("inner.raw", 2 * MIB) + DISK + bytes(2 * MIB)
    whole = archive(
        extended(size=str(len(false_start))), header("disk.raw", 0), false_start + bytes(-len(false_start) % 512)
    )
    with pytest.raises((ArchiveError, CorruptImageError)):
        opened(tmp_path / "image", gzip_member(whole))


def wide(content: bytes, fields: tuple[str, ...]) -> Callable[[], bytes]:
    """Return a zip whose lengths stand in a zip64 field."""
    each = Zipped(content=content)
    truth = each.truth()
    extra = struct.pack(f"<2H{len(fields)}Q", 1, 8 * len(fields), *(truth[name] for name in fields))
    return lambda: zip_file(Zipped(content=content, stated=dict.fromkeys(fields, 2**32 - 1), extra=extra))


@pytest.mark.parametrize("fields", [("size",), ("size", "packed")], ids=["one", "two"])
def test_lengths_of_a_zip_may_stand_in_its_zip64_field(fields: tuple[str, ...], tmp_path: Path) -> None:
    assert opened(tmp_path / "image", wide(DISK, fields)())[1] == DISK


@pytest.mark.parametrize("is_signed", [True, False], ids=["signed", "bare"])
@pytest.mark.parametrize("form", ["<3I", "<I2Q"], ids=["short", "long"])
def test_lengths_of_a_zip_may_follow_its_member(form: str, is_signed: bool, tmp_path: Path) -> None:
    plain = Zipped()
    truth = plain.truth()
    sizes = struct.pack(form, truth["crc"], truth["packed"], truth["size"])
    told = dict.fromkeys(("crc", "packed", "size"), 0)
    follows = (b"PK\x07\x08" if is_signed else b"") + sizes
    assert opened(tmp_path / "image", zip_file(Zipped(flags=8, told=told, follows=follows)))[1] == DISK


def test_a_zip_may_have_a_comment(tmp_path: Path) -> None:
    assert opened(tmp_path / "image", zip_file(Zipped(), comment=b"made by hand"))[1] == DISK
