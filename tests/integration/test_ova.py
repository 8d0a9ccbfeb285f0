# SPDX-License-Identifier: Apache-2.0
"""OVAs between Coppice and other programs: what GNU tar and qemu-img write is read, what is written they read."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from coppice.conversion.model import Archive, Compression, ConversionLimits
from coppice.conversion.ova import ova_layout, verify_manifest
from coppice.conversion.ova_write import write_ova
from coppice.conversion.window import FileWindow
from coppice.errors import ArchiveError, ImageRefusedError
from coppice.formats.tar import read_members
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements
from coppice.monitor import SILENT_TASK
from coppice.testing.archives import BLOCK, GNU, archive, extended, header, manifest, member, ovf
from coppice.testing.ovf_rules import broken_rules

pytestmark = pytest.mark.integration
MIB = 1024 * 1024
LIMITS = ConversionLimits()
WANTED = Requirements(minimum_cores=2, minimum_ram_mib=2048, firmware=Firmware.UEFI, disk_bus=DiskBus.SCSI)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guest") / "guest.raw"
    with path.open("wb") as file:
        file.truncate(48 * MIB)
        for place in (0, 5, 20, 47):
            file.seek(place * MIB)
            file.write(random.Random(place).randbytes(MIB))  # noqa: S311 - content for tests
    return path


def qemu_img(*words: str | Path) -> str:
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, text=True).stdout


def streamed(raw: Path, path: Path) -> Path:
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path)
    return path


def part_of(path: Path, offset: int, size: int, kind: str) -> str:
    inside = {"driver": "raw", "offset": offset, "size": size, "file": {"driver": "file", "filename": str(path)}}
    return "json:" + json.dumps({"driver": kind, "file": inside})


@pytest.mark.parametrize("directory", ["usual", "in-memory"])
def test_an_exported_ova_is_imported_again_with_the_same_guest_bytes(raw, tmp_path, directory):
    # A file system in memory cannot make room in a file: there the disk is copied.
    place = tmp_path if directory == "usual" else Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        disk = streamed(raw, place / "disk.vmdk")
        content = disk.read_bytes()
        made = place / "made.ova"
        write_ova(disk, made, requirements=WANTED, name="Debian 12", virtual_size_bytes=48 * MIB, is_linux=True)
        assert sorted(each.name for each in place.iterdir()) == ["made.ova"]
        with FileWindow(made) as window:
            found = ova_layout(window, LIMITS, made.name)
            verify_manifest(found, window, SILENT_TASK)
            assert window.read(found.offset, found.size_bytes) == content
        assert (found.archive, found.notes) == (Archive.OVA, ())
        assert found.hardware is not None
        assert (found.hardware.firmware, found.hardware.disk_bus) == (Firmware.UEFI, DiskBus.SCSI)
        opened = part_of(made, found.offset, found.size_bytes, "vmdk")
        assert "identical" in qemu_img("compare", raw, opened)
    finally:
        if directory != "usual":
            shutil.rmtree(place)


def test_other_programs_read_an_exported_ova_and_its_manifest(raw, tmp_path):
    made = tmp_path / "made.ova"
    write_ova(
        streamed(raw, tmp_path / "disk.vmdk"), made, requirements=WANTED, name="Debian 12", virtual_size_bytes=48 * MIB
    )
    names = ["Debian-12.ovf", "Debian-12.mf", "Debian-12-disk1.vmdk"]
    with tarfile.open(made, "r|") as tar:
        assert [each.name for each in tar] == names
    listed = subprocess.run(["tar", "--format=ustar", "-tf", made], check=True, capture_output=True, text=True)
    assert (listed.stdout.split(), listed.stderr) == (names, "")
    subprocess.run(["tar", "-xf", made, "-C", tmp_path], check=True, capture_output=True)
    for line in (tmp_path / names[1]).read_text().splitlines():
        name, _, digest = line.removeprefix("SHA256(").partition(")= ")
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert broken_rules((tmp_path / names[0]).read_bytes()) == []
    assert "identical" in qemu_img("compare", raw, tmp_path / names[2])


def packed(directory: Path, form: str, *names: str) -> Path:
    made = directory / "packed.ova"
    subprocess.run(["tar", "--format", form, "-cf", made, *names], check=True, cwd=directory, capture_output=True)
    return made


@pytest.mark.threat("T68")
@pytest.mark.parametrize("form", ["ustar", "gnu", "oldgnu", "posix"])
def test_an_ova_that_gnu_tar_packed_is_read_whatever_its_headers_are(raw, tmp_path, form):
    disk = streamed(raw, tmp_path / "größe disk.vmdk")
    text = ovf(href=disk.name).encode()
    (tmp_path / "vm.ovf").write_bytes(text)
    (tmp_path / "vm.mf").write_bytes(manifest([("vm.ovf", text), (disk.name, disk.read_bytes())], "SHA512"))
    made = packed(tmp_path, form, "vm.ovf", "vm.mf", disk.name)
    with FileWindow(made) as window:
        found = ova_layout(window, LIMITS, made.name)
        verify_manifest(found, window, SILENT_TASK)
    assert "identical" in qemu_img("compare", raw, part_of(made, found.offset, found.size_bytes, "vmdk"))


@pytest.mark.parametrize("form", ["ustar", "gnu", "posix"])
def test_a_plain_archive_of_one_disk_is_read(raw, tmp_path, form):
    shutil.copy(raw, tmp_path / "disk.raw")
    subprocess.run(["gzip", "-k", "disk.raw"], check=True, cwd=tmp_path)
    for name, compression in (("./disk.raw", None), ("disk.raw.gz", Compression.GZIP)):
        made = packed(tmp_path, form, name)
        with FileWindow(made) as window:
            found = ova_layout(window, LIMITS, made.name)
            assert window.read(found.offset, found.size_bytes) == (tmp_path / name).read_bytes()
        assert (found.archive, found.member, found.compression) == (Archive.TAR, name, compression)


@pytest.mark.threat("T67")
def test_what_gnu_tar_packs_beside_plain_files_is_refused(raw, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    shutil.copy(raw, inner / "disk.raw")
    (tmp_path / "link.raw").symlink_to("/etc/passwd")
    (tmp_path / "first.raw").write_bytes(b"x" * 5000)
    (tmp_path / "second.raw").hardlink_to(tmp_path / "first.raw")
    os.mkfifo(tmp_path / "fifo.raw")
    sparse = tmp_path / "sparse.raw"
    with sparse.open("wb") as file:
        file.truncate(16 * MIB)
        file.seek(8 * MIB)
        file.write(b"x")
    for form in ("gnu", "posix", "ustar"):
        for names in (["inner"], ["link.raw"], ["first.raw", "second.raw"], ["fifo.raw"]):
            made = packed(tmp_path, form, *names)
            with FileWindow(made) as window, pytest.raises(ArchiveError):
                ova_layout(window, LIMITS, made.name)
    for form in ("gnu", "posix"):
        made = packed(tmp_path, form, "--sparse", "sparse.raw")
        with FileWindow(made) as window, pytest.raises(ImageRefusedError, match="sparse"):
            ova_layout(window, LIMITS, made.name)


def altered(content: bytes, chance: random.Random) -> bytes:
    """Return an archive with some bytes of its headers changed, and their checksums right."""
    made = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        block = chance.randrange(len(made) // BLOCK) * BLOCK
        places = (*range(8), *range(96, 110), *range(124, 136), 156, *range(257, 265), *range(329, 350), 386, 482, 500)
        made[block + chance.choice(places)] = chance.choice(b"\0\0 017xgL5/.\x80\xff")
    for block in range(0, len(made), BLOCK):
        if made[block + 257 : block + 262] == b"ustar":
            made[block + 148 : block + 156] = b" " * 8
            made[block + 148 : block + 156] = b"%06o\0 " % sum(made[block : block + BLOCK])
    return bytes(made)


@pytest.mark.threat("T67")
def test_what_is_accepted_is_listed_by_gnu_tar_in_the_same_way(tmp_path):
    seeds = (
        archive(extended(path="caf\xe9.vmdk", mtime="1.5") + member("caf?.vmdk", b"hello"), member("b", b"x" * 600)),
        archive(member("a.raw", b"x" * 700, prefix=b"dir"), member("b" * 99, b"y"), header("c")),
        archive(member("././@LongLink", b"d" * 120 + b"\0", kind="L", mark=GNU), member("d" * 100, b"x", mark=GNU)),
    )
    chance, accepted = random.Random(7), 0  # noqa: S311 - the same ones each time
    path = tmp_path / "altered.tar"
    argv = ["tar", "--quoting-style=literal", "--numeric-owner", "--full-time", "-tvf", path]
    for _ in range(300):
        content = altered(chance.choice(seeds), chance)
        try:
            found = read_members(
                lambda start, length, content=content: content[start : start + length],  # type: ignore[misc]
                len(content),
                maximum_members=9,
                name=path.name,
            )
        except ImageRefusedError:
            continue
        accepted += 1
        path.write_bytes(content)
        ended = subprocess.run(
            argv, check=True, capture_output=True, env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
        )
        lines = [line.split(None, 5) for line in ended.stdout.decode().splitlines()]
        assert [(line[5], int(line[2])) for line in lines] == [(each.name, each.size_bytes) for each in found]
    assert accepted > 30
