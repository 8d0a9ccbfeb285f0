# SPDX-License-Identifier: Apache-2.0
"""The bootstrap builder with a root of btrfs, between parents and children of another; packages from a stand-in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.integration.test_bootstrap_builds import DEFINITION, made, raw_of, stand_in

from coppice.definition.model import FileSystemKind
from coppice.factory.bootstrap.btrfs import check_filled
from coppice.factory.bootstrap.layers import DISK
from coppice.factory.bootstrap.listing import read_listing
from coppice.factory.evidence.btrfs import BtrfsDisk
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.evidence.root import open_root
from coppice.factory.model import BuildOptions
from coppice.factory.verification import verify_build
from coppice.monitor import SILENT

__all__ = ["stand_in"]

pytestmark = pytest.mark.integration

PARENT = replace(DEFINITION, disk_size_bytes=256 * 1024**2)
CHILD_OF_BTRFS = replace(PARENT, name="child", parent="base", packages=("more",), file_system=FileSystemKind.BTRFS)
GRANDCHILD = replace(PARENT, name="grandchild", parent="child", packages=("more",))


def opened(result, tmp_path):
    raw = raw_of(result, tmp_path / f"{result.definition.name}.raw")
    return open_root(raw, tmp_path, may_be_btrfs=result.definition.file_system is FileSystemKind.BTRFS)


def test_each_generation_may_have_the_file_system_that_it_likes(tmp_path, stand_in):
    parent = made(tmp_path, PARENT)
    assert isinstance(opened(parent, tmp_path), Ext4Disk)

    child = made(tmp_path, CHILD_OF_BTRFS, "two", ancestors=(parent,))
    disk = opened(child, tmp_path)
    assert isinstance(disk, BtrfsDisk)
    check_filled(disk, read_listing(child.tree / DISK))
    tree = disk.tree()
    assert tree.text("/etc/fstab").split()[2] == "btrfs"
    assert tree.content(tree.get("/data/100")).endswith(b"\n4000\n")
    assert tree.content(tree.get("/data/1")).startswith(b"1\n2\n")
    assert tree.get("/data/50") is None
    assert tree.get("/tmp/left") is None  # noqa: S108 - a path of the guest
    assert (tree.get("/data/2").owner, tree.get("/data/2").group) == (7, 8)
    assert tree.get("/usr/bin/tool").mode == 0o104755

    again = verify_build(
        child,
        options=BuildOptions(
            work_directory=tmp_path / "again", cache_directory=tmp_path / "caches", ancestors=(parent,)
        ),
        monitor=SILENT,
    )
    assert again.is_identical

    (stand_in / "child.sh").write_text('echo one > "$root/data/201"\n')
    grandchild = made(tmp_path, GRANDCHILD, "three", ancestors=(child, parent))
    disk = opened(grandchild, tmp_path)
    assert isinstance(disk, Ext4Disk)
    tree = disk.tree()
    assert tree.text("/etc/fstab").split()[2] == "ext4"
    assert tree.text("/data/201") == "one\n"
    assert tree.content(tree.get("/data/100")).endswith(b"\n4000\n")
    assert list((tmp_path / "work").iterdir()) == []
