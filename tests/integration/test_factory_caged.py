# SPDX-License-Identifier: Apache-2.0
"""The factory's programs that read others' disks: they have their files, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest

from coppice import process
from coppice.cage import Cage, Means, Walls, find_means
from coppice.clock import SystemClock
from coppice.definition.read import read_definition
from coppice.errors import BuildError, CageError, ToolFailedError
from coppice.factory import build as building
from coppice.factory import caged, verification
from coppice.factory.bootstrap.filesystem import Ext4
from coppice.factory.caged import cage_required, run_caged
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.evidence.partitions import find_partitions
from coppice.factory.files import describe_image
from coppice.factory.image_start.content import check_clean
from coppice.factory.image_start.root import grow_root
from coppice.factory.outputs import read_disk
from coppice.factory.packer.disk import as_raw, check_start, lay_start, settle
from coppice.factory.partition_table import find_root
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.workflows.build import build_options

pytestmark = pytest.mark.integration
MIB = 1024 * 1024
EPOCH = 1700000000
QEMU_IMG = "/usr/bin/qemu-img"
MEANS = {
    "strongest": find_means,
    "user namespace": lambda: Means(walls=Walls.BUBBLEWRAP),
    "landlock": lambda: Means(walls=Walls.LANDLOCK, is_privileged=os.geteuid() == 0),
    "limits": lambda: Means(walls=Walls.NONE),
}
WANTED = {"sfdisk", "blkid", "debugfs", "e2fsck", "dumpe2fs", "resize2fs", "qemu-img"}
"""Whatever else the machine has, these are never run on a disk but in a cage."""


def disk_of(path, size=64 * MIB, *, root=48 * MIB):
    with path.open("wb") as stream:
        stream.truncate(size)
    subprocess.run(["sfdisk", "-q", path], input=f"label: gpt\n,{root // MIB}M\n", text=True, check=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-E", f"offset={MIB}", path, "48M"], check=True)
    return path


@pytest.fixture
def disk(tmp_path):
    return disk_of(tmp_path / "disk.raw")


@pytest.fixture
def told_on(tmp_path, monkeypatch):
    """Return where each of the programs says by a file that it was run outside of a cage."""
    marks, programs = tmp_path / "marks", tmp_path / "programs"
    marks.mkdir()
    programs.mkdir()
    for name in WANTED:
        real = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        (programs / name).write_text(f'#!/bin/sh\ntrue 2>/dev/null > {marks}/{name}\nexec {real} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return marks


@pytest.fixture
def seen(monkeypatch):
    """Return what is run in cages, with whether it can write."""
    found = []

    class Seen(Cage):
        def __init__(self, *, writes=(), **given) -> None:
            super().__init__(writes=writes, **given)
            self.writes = bool(writes)

        def run(self, argv, **given):
            found.append((argv[0], self.writes))
            return super().run(argv, **given)

    monkeypatch.setattr(caged, "Cage", Seen)
    return found


@pytest.fixture
def means(request, monkeypatch):
    chosen = MEANS[request.param]()
    monkeypatch.setattr("coppice.cage.cage.find_means", lambda: chosen)
    monkeypatch.setattr(caged, "find_means", lambda: chosen)
    return chosen


def made_only(argv, **given):
    """Make what opens nothing that somebody else made, past what tells."""
    assert argv[:4] == ["qemu-img", "create", "-q", "-u"]
    return process.run([QEMU_IMG, *argv[1:]], **given)


def do_all(place, disk):
    """Have all that is done with somebody's disk be done with this one."""
    work = place / "work"
    work.mkdir()
    other = place / "other.vdi"
    subprocess.run([QEMU_IMG, "convert", "-f", "raw", "-O", "vdi", disk, other], check=True)
    described = describe_image(other, DiskFormat.VDI)
    read_disk(described, work / "read.raw", timeout_seconds=60)
    assert (work / "read.raw").read_bytes() == disk.read_bytes()
    qcow2 = place / "made.qcow2"
    subprocess.run([QEMU_IMG, "convert", "-f", "raw", "-O", "qcow2", disk, qcow2], check=True)
    assert check_start(qcow2, DiskFormat.QCOW2, describe_image(qcow2, DiskFormat.QCOW2).image.checksum) == 64 * MIB
    # As Packer leaves it: laid upon what the start was laid upon.
    packed = place / "packed.qcow2"
    lay_start(disk, DiskFormat.RAW, 64 * MIB, packed)
    as_raw(packed, DiskFormat.QCOW2, work / "packed.raw", (disk, DiskFormat.RAW))
    assert (work / "packed.raw").read_bytes() == disk.read_bytes()
    assert settle(work / "packed.raw") == MIB
    assert [each.kind for each in find_partitions(disk)] == ["ext4"]
    root = find_root(disk)
    check_clean(disk, root)
    contents, script = place / "contents", work / "script"
    contents.mkdir()
    (contents / "abc").write_text("said\n")
    script.write_text("write abc /hello\n")
    grown = grow_root(disk, root, 128 * MIB, work=work, epoch=EPOCH)
    assert (grown.start_bytes, grown.size_bytes > 100 * MIB) == (MIB, True)
    root_file_system = Ext4(
        disk=disk,
        offset_bytes=MIB,
        size_bytes=grown.size_bytes,
        uuid=UUID(int=1),
        epoch=EPOCH,
        contents=contents,
    )
    root_file_system.change(script)
    root_file_system.clear()
    tree = Ext4Disk(disk, MIB, work).tree()
    assert tree.content(tree.get("/hello")) == b"said\n"


@pytest.mark.threat("T71")
@pytest.mark.parametrize("means", [name for name in MEANS if name != "limits"], indirect=True)
def test_a_program_reads_and_writes_its_files_and_no_others(tmp_path, means):
    given, wanted, other = tmp_path / "given", tmp_path / "wanted", tmp_path / "other"
    given.write_text("content\n")
    other.write_text("other\n")
    copies = 'read said < "$1"; echo $said > "$2"'
    script = f"{copies}; for each in {other} /etc/passwd; do read -r x < $each && echo seen; done"
    done = run_caged(
        lambda inside: ["sh", "-c", script, "sh", inside(given), inside(wanted)],
        reads=[given],
        writes=[wanted],
        timeout_seconds=60,
        most_bytes=100,
        ok=(0, 1, 2),
    )
    assert (wanted.read_text(), done.stdout) == ("content\n", b"")
    with pytest.raises(ToolFailedError, match="sh ended with status"):
        run_caged(lambda inside: ["sh", "-c", ': > "$1"', "sh", inside(given)], reads=[given], timeout_seconds=60)
    assert given.read_text() == "content\n"


@pytest.mark.parametrize("means", MEANS, indirect=True)
def test_all_that_is_done_with_a_disk_works_however_far_programs_can_be_shut_in(tmp_path, disk, means):
    place = tmp_path / 'a "b" c'
    place.mkdir()
    do_all(place, disk)


@pytest.mark.threat("T71")
def test_no_program_that_reads_a_disk_leaves_its_cage(tmp_path, disk, seen, told_on, monkeypatch):
    monkeypatch.setattr("coppice.factory.packer.disk.run", made_only)
    do_all(tmp_path, disk)
    assert {name for name, _ in seen} == WANTED
    assert not list(told_on.iterdir())
    assert {name for name, writes in seen if writes} == {"qemu-img", "sfdisk", "e2fsck", "resize2fs", "debugfs"}


def test_a_cage_that_cannot_be_set_up_is_no_success_of_the_program(tmp_path, disk, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    find_means()
    (programs / "bwrap").write_text('#!/bin/sh\necho "bwrap: Creating new namespace failed" >&2\nexit 1\n')
    (programs / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(CageError, match="a cage for e2fsck could not be set up"):
        run_caged(lambda inside: ["e2fsck", "-fn", inside(disk)], reads=[disk], timeout_seconds=60, ok=(0, 1))


@pytest.mark.parametrize("means", ["landlock", "limits"], indirect=True)
def test_nothing_is_run_where_a_full_cage_is_required_and_there_is_none(tmp_path, disk, means):
    root = find_root(disk)
    with pytest.raises(CageError, match="cannot be shut in fully"), cage_required(is_required=True):
        pytest.fail("it was entered")
    token = caged._is_required.set(True)
    try:
        with pytest.raises(CageError, match="cannot be shut in fully"):
            find_partitions(disk)
        with pytest.raises(CageError, match="cannot be shut in fully"):
            grow_root(disk, root, 128 * MIB, work=tmp_path, epoch=EPOCH)
    finally:
        caged._is_required.reset(token)
    assert find_partitions(disk)


@pytest.mark.parametrize("means", ["landlock"], indirect=True)
def test_what_asks_what_is_mounted_is_nobodys_without_landlock_as_well(tmp_path, means):
    given = tmp_path / "given"
    given.write_text("content\n")
    done = run_caged(lambda _: ["id", "-u"], writes=[given], timeout_seconds=60, asks_what_is_mounted=True)
    assert int(done.text()) != 0


class Looks:
    """A builder that looks at a disk."""

    name, version = "looks", "1"

    def __init__(self, disk) -> None:
        self.disk = disk

    def build(self, *_):
        find_root(self.disk)
        raise BuildError("so far it comes")


@pytest.mark.parametrize("means", ["limits"], indirect=True)
@pytest.mark.parametrize(("is_required", "error"), [(True, CageError), (False, BuildError)])
def test_a_site_that_requires_the_cage_builds_and_verifies_nothing_without(  # noqa: PLR0917
    tmp_path, disk, means, is_required, error, monkeypatch
):
    file = tmp_path / "coppice.toml"
    file.write_text(f"[conversion]\nrequire_cage = {str(is_required).lower()}\n")
    settings = load_settings(config=file, environ={}, options={"state_directory": str(tmp_path)}, system_file=file)
    options = replace(build_options(settings), cache_directory=tmp_path / "caches", starts=None)
    definition = read_definition(Path(__file__).parents[2] / "definitions" / "debian-12")
    for module in (building, verification):
        monkeypatch.setattr(module, "load_builder", lambda _name: Looks(disk))
    with pytest.raises(error):
        building.build(definition, root=tmp_path / "root", options=options, clock=SystemClock(), monitor=SILENT)
    with pytest.raises(error):
        verification.verify_build(SimpleNamespace(definition=definition), options=options, monitor=SILENT)


def test_names_in_a_file_system_say_nothing_of_what_is_free_in_it(tmp_path, disk):
    subprocess.run(["tune2fs", "-O", "^metadata_csum", f"{disk}?offset={MIB}"], check=True, stdout=subprocess.PIPE)
    with disk.open("r+b") as stream:
        stream.seek(MIB + 1024 + 0x88)
        stream.write(b"/\nBlock size: 99999999999999\n  Free blocks: 0-9\n"[:64].ljust(64, b"\0"))
    assert settle(disk) == MIB
    check_clean(disk, find_root(disk))


def test_a_grown_root_is_the_same_whatever_the_kernel_could_do(tmp_path):
    disk = disk_of(tmp_path / "disk.raw")
    grow_root(disk, find_root(disk), 40 * 1024 * MIB, work=tmp_path, epoch=EPOCH)
    said = subprocess.run(["dumpe2fs", f"{disk}?offset={MIB}"], capture_output=True, text=True, check=True).stdout
    assert len(re.findall("^Group [0-9]", said, re.MULTILINE)) == 320
    # The tables of new groups are left to the kernel that mounts it, and take no room.
    assert len(re.findall("ITABLE_ZEROED", said)) <= 1
    assert disk.stat().st_blocks * 512 < 64 * MIB


def test_a_disk_of_more_than_a_tebibyte_is_read(tmp_path):
    image = tmp_path / "large.vdi"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vdi", image, f"{1536 * 1024}M"], check=True)
    read_disk(describe_image(image, DiskFormat.VDI), tmp_path / "raw", timeout_seconds=60)
    assert (tmp_path / "raw").stat().st_size == 1536 * 1024 * MIB


def test_an_image_that_is_not_there_is_told_as_a_build_that_failed(tmp_path, disk):
    image = describe_image(disk, DiskFormat.RAW)
    disk.unlink()
    with pytest.raises(BuildError, match=r"cannot read .*: No such file"):
        find_root(image.path)


@pytest.mark.parametrize(
    "said",
    [
        "[]",
        '{"partitiontable": []}',
        '{"partitiontable": {"label": "gpt", "partitions": null}}',
        '{"partitiontable": {"label": "gpt", "partitions": [{"node": "a1", "start": 1e999, "size": 1, "type": "x"}]}}',
        '{"partitiontable": {"label": "gpt", "partitions": [{"node": "a1", "start": -8, "size": 1, "type": "x"}]}}',
        '{"partitiontable": {"label": "gpt", "partitions": [{"node": "a1", "start": 1e30, "size": 1, "type": "x"}]}}',
        "[" * 100_000,
    ],
)
def test_an_answer_of_another_form_is_an_error_of_the_image(tmp_path, disk, said, monkeypatch):
    class Done:
        stderr = b""

        def text(self):
            return said

    monkeypatch.setattr("coppice.factory.partition_table.run_caged", lambda *_, **__: Done())
    with pytest.raises(BuildError, match="no partition table that could be read"):
        find_root(disk)
