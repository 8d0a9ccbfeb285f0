# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from coppice.errors import BuildError
from coppice.factory.bootstrap.dpkg import STATUS
from coppice.factory.evidence.dpkg_record import MOST_BYTES, dpkg_record
from coppice.factory.evidence.tree import GuestTree, Node
from coppice.factory.image_start.content import StartContent
from coppice.factory.packer import disk
from coppice.factory.prebuilt import builder as prebuilt

pytestmark = pytest.mark.unit


def tree(size, kind=stat.S_IFREG):
    def read(_node):
        assert size <= MOST_BYTES
        return b"Package: base\n"

    return GuestTree({STATUS: Node(path=STATUS, inode=1, mode=kind | 0o644, size_bytes=size)}, read)


def test_the_record_is_read_and_what_is_none_is_empty():
    assert dpkg_record(tree(14)) == b"Package: base\n"
    assert dpkg_record(tree(14, stat.S_IFDIR)) == b""
    assert dpkg_record(GuestTree({}, lambda _node: b"")) == b""


def test_no_builder_takes_a_record_into_memory_that_is_too_long_to_be_one(monkeypatch):
    huge = tree(1 << 40)
    with pytest.raises(BuildError, match="too many for a record"):
        _ = StartContent(tree=huge, listing={}, layer=Path(), epoch=0).status
    for module in (disk, prebuilt):
        monkeypatch.setattr(module, "Ext4Disk", lambda *_arguments: SimpleNamespace(tree=lambda: huge))
    with pytest.raises(BuildError, match="too many for a record"):
        disk.installed_packages(Path(), 0, Path())
    monkeypatch.setattr(prebuilt, "find_root", lambda _raw: SimpleNamespace(start_bytes=0))
    monkeypatch.setattr(prebuilt, "check_clean", lambda *_arguments: None)
    with pytest.raises(BuildError, match="too many for a record"):
        prebuilt._looked_into(SimpleNamespace(name="own"), SimpleNamespace(raw=Path(), name="i"), Path())
