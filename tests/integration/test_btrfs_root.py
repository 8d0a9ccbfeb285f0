# SPDX-License-Identifier: Apache-2.0
"""A root of btrfs, made by the machine's own ``mkfs.btrfs`` and read back by own code and by ``btrfs``."""

import errno
import hashlib
import mmap
import os
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.test_audit_faults import DEFINITION

from coppice.atomic import storage_errors
from coppice.definition.model import FileSystemKind
from coppice.errors import BuildError, NoSpaceError, StorageError
from coppice.factory.audit import read_subject
from coppice.factory.bootstrap import btrfs
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.btrfs import Btrfs, check_filled, copy_written
from coppice.factory.bootstrap.listing import Kind, Node
from coppice.factory.evidence.btrfs import BtrfsDisk
from coppice.factory.evidence.btrfs_nodes import FS_TREE, BtrfsTrees
from coppice.factory.evidence.root import open_root

pytestmark = pytest.mark.integration

EPOCH = 1_686_355_200
MIB = 1024 * 1024
DISK_BYTES = 256 * MIB
# Of cap_net_raw, effective and permitted, as the kernel keeps it.
CAPABILITY = "0100000200200000000000000000000000000000"
LONG = bytes(range(256)) * 4096
SHORT = b"short enough to lie beside its name\n"


def tree_in(folder: Path):
    """Lay out contents in ``folder``; return a listing with everything that a tree may have."""
    folder.mkdir()

    def file(content, **facts):
        digest = hashlib.sha256(content).hexdigest()
        (folder / digest).write_bytes(content)
        return Node(kind=Kind.FILE, digest=digest, size_bytes=len(content), **facts)

    return {
        "/": Node(kind=Kind.DIRECTORY, mode=0o755, mtime=EPOCH),
        "/tmp": Node(kind=Kind.DIRECTORY, mode=0o1777, mtime=EPOCH - 9),  # noqa: S108 - a guest's path
        "/usr": Node(kind=Kind.DIRECTORY, mtime=EPOCH - 5),
        "/usr/ping": file(LONG, mode=0o755, mtime=1000, capability=CAPABILITY),
        "/usr/su": file(SHORT, mode=0o4755, gid=7, mtime=EPOCH),
        "/usr/perl": file(LONG[1:], mode=0o755, mtime=EPOCH),
        "/usr/perl5": Node(kind=Kind.LINK, mode=0, target="/usr/perl"),
        "/usr/empty": file(b"", mode=0o640, uid=101, gid=65534),
        '/usr/a "name"\nü': file(b"odd", mode=0o644, mtime=5),
        "/usr/\udcff": file(b"no text", mode=0o644, mtime=5),
        "/link": Node(kind=Kind.SYMLINK, mode=0o777, mtime=EPOCH - 1, target="usr/perl"),
        "/far": Node(kind=Kind.SYMLINK, mode=0o777, mtime=EPOCH, target="x" * 300),
        **{f"/usr/many{number}": file(str(number).encode(), mode=0o644, mtime=number) for number in range(400)},
    }


def root_disk(folder: Path, **changes) -> tuple[Path, dict[str, Node]]:
    """Make a disk with a root of btrfs; return it and what is in it."""
    folder.mkdir()
    listing = tree_in(folder / "contents")
    raw, names = folder / "disk.raw", disks.Names("test")
    disks.partition(raw, DISK_BYTES, names)
    (folder / "work").mkdir()
    root = Btrfs(
        disk=raw,
        offset_bytes=disks.ROOT_START_BYTES,
        size_bytes=disks.root_size_bytes(DISK_BYTES),
        uuid=names.uuid("root"),
        epoch=EPOCH,
    )
    replace(root, **changes).make(listing, folder / "contents", folder / "work")
    return raw, listing


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return root_disk(tmp_path_factory.mktemp("btrfs") / "one")


def alone(raw: Path, into: Path) -> Path:
    """Bring the file system out of a disk, for tools that want a file of its own."""
    start, length = disks.ROOT_START_BYTES // MIB, disks.root_size_bytes(DISK_BYTES) // MIB
    argv = ["dd", f"if={raw}", f"of={into}", "bs=1M", f"skip={start}", f"count={length}", "conv=sparse", "status=none"]
    subprocess.run(argv, check=True)
    return into


def copied(raw: Path, into: Path) -> Path:
    """Copy a disk, with its holes."""
    subprocess.run(["cp", "--sparse=always", raw, into], check=True)
    return into


def test_all_that_a_tree_has_arrives_in_the_file_system(made, tmp_path):
    raw, listing = made
    disk = open_root(raw, tmp_path, may_be_btrfs=True)
    assert isinstance(disk, BtrfsDisk)
    check_filled(disk, listing)
    tree = disk.tree()
    assert {node.path for node in tree} == listing.keys() - {"/"}
    assert tree.content(tree.get("/usr/ping")) == LONG
    assert tree.content(tree.get("/usr/perl5")) == LONG[1:]
    assert tree.text("/usr/su") == SHORT.decode()
    assert tree.content(tree.get("/usr/empty")) == b""
    assert tree.get("/usr/perl").inode == tree.get("/usr/perl5").inode
    assert tree.get("/usr/su").mode == 0o104755
    assert tree.get("/link").target == "usr/perl"
    assert tree.get("/far").target == "x" * 300
    assert disk.capable(tree) == {"/usr/ping"}


def test_btrfs_itself_finds_nothing_wrong_with_it(made, tmp_path):
    image = alone(made[0], tmp_path / "root")
    said = subprocess.run(
        ["btrfs", "check", "--readonly", "--check-data-csum", image], capture_output=True, text=True, check=True
    )
    assert "no error found" in said.stdout
    told = subprocess.check_output(["btrfs", "inspect-internal", "dump-super", image], text=True)
    name = disks.Names("test").uuid("root")
    assert f"fsid\t\t\t{name}" in told
    assert f"dev_item.uuid\t\t{uuid.uuid5(name, 'device')}" in told


def test_the_same_tree_makes_the_same_bytes(made, tmp_path):
    again, _ = root_disk(tmp_path / "two")
    assert subprocess.run(["cmp", again, made[0]], check=False).returncode == 0


def test_nothing_in_it_is_younger_than_its_release(made, tmp_path):
    image = alone(made[0], tmp_path / "root")
    said = subprocess.check_output(["btrfs", "inspect-internal", "dump-tree", image], text=True, errors="replace")
    times = [int(line.split()[1].split(".")[0]) for line in said.splitlines() if "time " in line and "." in line]
    assert max(times) == EPOCH
    assert len(times) > 400


def test_what_a_tool_loses_is_an_error(made, tmp_path):
    raw, listing = made
    disk = BtrfsDisk(raw, disks.ROOT_START_BYTES)
    for path, change, told in (
        ("/usr/ping", {"capability": ""}, "/usr/ping: its facts are not those that were given"),
        ("/usr/su", {"mtime": 3}, "/usr/su: its facts"),
        ("/usr", {"uid": 3}, "/usr: its facts"),
        ("/far", {"target": "y"}, "/far: its facts"),
        ("/usr/perl5", {"target": "/usr/su"}, "/usr/perl5: it is not the same file as /usr/su"),
    ):
        with pytest.raises(BuildError, match=told):
            check_filled(disk, listing | {path: replace(listing[path], **change)})
    with pytest.raises(BuildError, match="/usr/more: it is not there"):
        check_filled(disk, listing | {"/usr/more": listing["/usr/su"]})
    with pytest.raises(BuildError, match="/usr/su: nobody asked for it"):
        check_filled(disk, {path: node for path, node in listing.items() if path != "/usr/su"})


def test_a_content_that_a_tool_mangles_is_an_error(made, tmp_path):
    raw, listing = made
    other = hashlib.sha256(bytes(len(SHORT))).hexdigest()
    with pytest.raises(BuildError, match="/usr/su: its content is not the one that was given"):
        check_filled(
            BtrfsDisk(raw, disks.ROOT_START_BYTES), listing | {"/usr/su": replace(listing["/usr/su"], digest=other)}
        )
    # On the disk: one byte of a file that lies beside no name.
    broken = copied(raw, tmp_path / "broken.raw")
    with broken.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as view:
        at = view.find(LONG[:4096], disks.ROOT_START_BYTES)
        view[at + 7] = 8
    with pytest.raises(BuildError, match=r"/usr/p(ing|erl): its content"):
        check_filled(BtrfsDisk(broken, disks.ROOT_START_BYTES), listing)


def test_a_disk_that_fails_is_not_the_end_of_what_is_written(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 4096)
    os.truncate(source, 2 * MIB)
    target.write_bytes(bytes(4 * MIB))
    copy_written(source, target, MIB)
    assert target.read_bytes() == bytes(MIB) + b"x" * 4096 + bytes(3 * MIB - 4096)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(btrfs.os, "lseek", fail)
    with pytest.raises(StorageError, match="failed"), storage_errors("writing", target):
        copy_written(source, target, MIB)


def test_a_root_that_is_too_small_is_told_by_what_helps(tmp_path, monkeypatch):
    with pytest.raises(NoSpaceError, match="too small") as caught:
        root_disk(tmp_path / "small", size_bytes=64 * MIB)
    assert "disk-size" in caught.value.resolution
    monkeypatch.setattr(btrfs, "room_in_memory", lambda **_: MIB)
    with pytest.raises(NoSpaceError, match="tree in memory"):
        root_disk(tmp_path / "lean")


def test_a_build_whose_time_is_up_is_told_so(tmp_path):
    with pytest.raises(BuildError, match=r"root file system failed: .*mkfs\.btrfs did not end within") as caught:
        root_disk(tmp_path / "late", seconds=0.0)
    assert "factory.build_timeout_seconds" in caught.value.resolution


@pytest.mark.parametrize("other", ["squashfs", "ext4"])
def test_a_disk_that_looks_like_two_file_systems_is_not_audited(made, tmp_path, other):
    # What each has first, which btrfs has room for.
    at, head = 0, b"hsqs" + bytes(24) + (4).to_bytes(2, "little") + bytes(66)
    if other == "ext4":
        alone = tmp_path / "ext4.raw"
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", alone, "64M"], check=True, capture_output=True)
        with alone.open("rb") as stream:
            stream.seek(1024)
            at, head = 1024, stream.read(1024)
    raw = copied(made[0], tmp_path / "two.raw")
    with raw.open("r+b") as stream:
        stream.seek(disks.ROOT_START_BYTES + at)
        stream.write(head)
    with pytest.raises(BuildError, match="looks like several file systems"):
        open_root(raw, tmp_path, may_be_btrfs=True)


def test_btrfs_that_another_builder_brought_is_not_audited(made, tmp_path):
    own = replace(DEFINITION, file_system=FileSystemKind.BTRFS)
    for definition in (DEFINITION, *(replace(own, builder=name) for name in ("prebuilt", "image", "packer"))):
        with pytest.raises(BuildError, match="is of btrfs: its files cannot be audited") as caught:
            read_subject(made[0], definition, tmp_path)
        assert str(disks.ROOT_START_BYTES) in caught.value.message
        assert "ext4" in caught.value.resolution
    assert read_subject(made[0], own, tmp_path).tree.get("/usr/su") is not None


def test_both_copies_of_a_node_are_looked_at(made, tmp_path):
    raw = copied(made[0], tmp_path / "copies.raw")
    with raw.open("r+b") as stream:
        trees = BtrfsTrees(stream, disks.ROOT_START_BYTES)
        leaf = next(node for node in trees.walk(trees.roots[FS_TREE]) if not node.level)
        first, second = trees.places(leaf.address, len(leaf.data))
        for place, told in ((second, "there twice, and not the same"), (first, "another checksum than it says")):
            stream.seek(disks.ROOT_START_BYTES + place + len(leaf.data) - 1)
            stream.write(b"!")
            stream.flush()
            with pytest.raises(BuildError) as caught:
                BtrfsDisk(raw, disks.ROOT_START_BYTES)
            assert told in caught.value.details


def test_damage_is_an_error_and_never_an_absence(made, tmp_path):
    raw = copied(made[0], tmp_path / "damaged.raw")
    os.truncate(raw, disks.ROOT_START_BYTES + 8 * MIB)
    with pytest.raises(BuildError) as caught:
        BtrfsDisk(raw, disks.ROOT_START_BYTES)
    assert "end of the disk" in caught.value.details
    with raw.open("r+b") as stream:
        stream.seek(disks.ROOT_START_BYTES + 64 * 1024 + 100)
        stream.write(b"\xff\xff")
    with pytest.raises(BuildError) as caught:
        BtrfsDisk(raw, disks.ROOT_START_BYTES)
    assert "checksum" in caught.value.details
