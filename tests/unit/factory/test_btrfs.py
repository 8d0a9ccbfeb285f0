# SPDX-License-Identifier: Apache-2.0
"""Btrfs as it lies on a disk, on disks that are made up here."""

from __future__ import annotations

import io
import struct
import uuid

import pytest

from coppice.errors import BuildError
from coppice.factory.bootstrap.btrfs_settled import Identity, _settled_head, _settled_node
from coppice.factory.evidence import btrfs, btrfs_nodes
from coppice.factory.evidence.btrfs import BtrfsDisk
from coppice.factory.evidence.btrfs_nodes import (
    CHUNK_ITEM,
    DIR_INDEX,
    DIR_ITEM,
    EXTENT_DATA,
    INODE_ITEM,
    ROOT_ITEM,
    BtrfsTrees,
    Superblock,
    TreeNode,
    is_btrfs,
)
from coppice.formats.crc32c import crc32c

pytestmark = pytest.mark.unit

NODE = 4096
SIZE = 1024 * 1024
CHUNKS, ROOTS, FILES = 512 * 1024, 512 * 1024 + NODE, 512 * 1024 + 2 * NODE
DATA = 768 * 1024
IDENTITY = Identity(device=uuid.UUID(int=1), chunks=uuid.UUID(int=2), files=uuid.UUID(int=3), epoch=1000)


def node(address, items, *, level=0, key=(256, INODE_ITEM, 0)):
    """Return a leaf with these items, or a node with these addresses below it, which start with that key."""
    heads, data, end = b"", b"", NODE
    for objectid, kind, offset, content in items if not level else ():
        end -= len(content)
        heads += struct.pack("<QBQII", objectid, kind, offset, end - 101, len(content))
        data = content + data
    for below in items if level else ():
        heads += struct.pack("<QBQQQ", *key, below, 7)
    body = struct.pack("<16sQQ16sQQIB", b"f" * 16, address, 1, b"c" * 16, 7, 5, len(items), level) + heads
    return sealed(bytes(32) + body + bytes(NODE - 32 - len(body) - len(data)) + data)


def sealed(data):
    return struct.pack("<I", crc32c(data[32:])).ljust(32, b"\0") + data[32:]


def chunk(length, place, kind=1, *others):
    places = (place, *others)
    head = struct.pack("<QQQQIIIHH", length, 2, 65536, kind, 4096, 4096, 4096, len(places), 1)
    return head + b"".join(struct.pack("<QQ16s", 1, each, b"d" * 16) for each in places)


def superblock(**changes):
    facts = {"chunk_root": CHUNKS, "root": ROOTS, "devices": 1, "node": NODE, "log": 0, "csum": 0, **changes}
    data = bytearray(4096)
    struct.pack_into("<16sQQ8s", data, 32, b"f" * 16, 65536, 1, b"_BHRfS_M")
    struct.pack_into("<QQQQ", data, 72, 7, facts["root"], facts["chunk_root"], facts["log"])
    struct.pack_into("<QQQQII", data, 112, SIZE, 0, 6, facts["devices"], 4096, facts["node"])
    struct.pack_into("<QQQH", data, 172, 0, 3, 0x341, facts["csum"])
    system = struct.pack("<QBQ", 256, CHUNK_ITEM, 0) + chunk(SIZE, 0, 2)
    struct.pack_into("<I", data, 160, len(system))
    data[811 : 811 + len(system)] = system
    return sealed(bytes(data))


def inode(mode, size, *, mtime=500, links=1):
    return struct.pack(
        "<QQQQQIIIIQQQ32xqIqIqIqI", 7, 0, size, size, 0, links, 0, 0, mode, 0, 0, 0, 9, 9, 9, 9, mtime, 9, 9, 9
    )


def entry(number, name, *, kind=INODE_ITEM, transaction=0xAAAA, value=b""):
    return struct.pack("<QBQQHHB", number, kind, 0, transaction, len(value), len(name), 1) + name + value


def root(address):
    return bytes(176) + struct.pack("<Q", address) + bytes(255)


def inline(content, compression=0):
    return struct.pack("<QQBBHB", 7, len(content), compression, 0, 0, 0) + content


def placed(address, length, kind=1):
    return struct.pack("<QQBBHB", 7, length, 0, 0, 0, kind) + struct.pack("<QQQQ", address, length, 0, length)


def folder(*entries, sought=None):
    """Return the root directory with these entries, which are found by those of ``sought``."""
    sought = entries if sought is None else sought
    return (
        (256, INODE_ITEM, 0, inode(0o40755, 0)),
        *((256, DIR_ITEM, number, data) for number, data in enumerate(sought)),
        *((256, DIR_INDEX, number, data) for number, data in enumerate(entries, 2)),
    )


SHORT, HOLES, LINK = entry(257, b"short"), entry(258, b"holes"), entry(259, b"link")
FILE_ITEMS = (
    *folder(SHORT, HOLES, LINK),
    (257, INODE_ITEM, 0, inode(0o100640, 5)),
    (257, EXTENT_DATA, 0, inline(b"hello")),
    (258, INODE_ITEM, 0, inode(0o100644, 3 * 4096 + 100)),
    (258, EXTENT_DATA, 4096, placed(DATA, 4096)),
    (258, EXTENT_DATA, 8192, placed(DATA + 4096, 4096, 2)),
    (259, INODE_ITEM, 0, inode(0o120777, 5)),
    (259, EXTENT_DATA, 0, inline(b"short\0")),
)


def overfull():
    """Return a leaf whose items are longer than it, since they lie over one another."""
    raw = bytearray(node(FILES, ()))
    heads = b"".join(struct.pack("<QBQII", 257, EXTENT_DATA, at, 2000, 1900) for at in range(3))
    raw[101 : 101 + len(heads)] = heads
    struct.pack_into("<I", raw, 96, 3)
    return sealed(bytes(raw))


def disk_of(tmp_path, *, files=FILE_ITEMS, head=None, roots=None, chunks=None, **nodes):
    """Return a disk with a file system of these parts."""
    data = bytearray(SIZE)
    roots = roots or ((5, ROOT_ITEM, 0, root(FILES)), (6, DIR_ITEM, 1, entry(5, b"default", kind=ROOT_ITEM)))
    parts = {
        65536: head or superblock(),
        CHUNKS: node(CHUNKS, chunks or ((256, CHUNK_ITEM, 0, chunk(SIZE, 0)),)),
        ROOTS: node(ROOTS, roots),
        FILES: node(FILES, files),
        DATA: b"x" * 8192,
        **{int(place): content for place, content in nodes.items()},
    }
    for place, content in parts.items():
        data[place : place + len(content)] = content
    path = tmp_path / "disk"
    path.write_bytes(bytes(512) + data)
    return BtrfsDisk(path, 512)


def test_files_links_and_holes_are_read(tmp_path):
    tree = disk_of(tmp_path).tree()
    assert [each.path for each in tree] == ["/holes", "/link", "/short"]
    assert tree.content(tree.get("/short")) == b"hello"
    # What is reserved and what is not there at all are zeros alike.
    assert tree.content(tree.get("/holes")) == bytes(4096) + b"x" * 4096 + bytes(4196)
    assert tree.find("/link").path == "/short"
    assert tree.get("/short").mode == 0o100640


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"head": superblock(devices=2)}, "several disks"),
        ({"head": superblock(node=4097)}, "no size that nodes have"),
        ({"head": superblock(log=4096)}, "not shut down cleanly"),
        ({"head": superblock(csum=1)}, "another checksum"),
        ({"head": superblock()[:-1] + b"\1"}, "another checksum"),
        ({"head": superblock(root=5 * SIZE)}, "is nowhere on the disk"),
        ({"head": superblock(root=DATA)}, "no node at the address"),
        ({"chunks": ((256, CHUNK_ITEM, 0, chunk(SIZE, 0, 0x10)),)}, "RAID"),
        ({"chunks": ((256, CHUNK_ITEM, 0, chunk(SIZE, 0)[:50]),)}, "cut off"),
        ({"chunks": ((256, CHUNK_ITEM, 0, chunk(SIZE, 2**63)),)}, "end of the disk"),
        ({"roots": ((5, ROOT_ITEM, 0, root(FILES)[:180]),)}, "cut off"),
        ({"roots": ((7, ROOT_ITEM, 0, root(FILES)),)}, "no files"),
        (
            {"roots": ((5, ROOT_ITEM, 0, root(FILES)), (6, DIR_ITEM, 1, entry(257, b"default", kind=ROOT_ITEM)))},
            "a subvolume",
        ),
        ({"files": ((256, DIR_INDEX, 2, entry(257, b"snap", kind=ROOT_ITEM)),)}, "is a subvolume"),
        ({"files": ((256, DIR_INDEX, 2, entry(257, b"..")),)}, "cannot be"),
        ({"files": ((256, DIR_INDEX, 2, entry(257, b"a/b")),)}, "cannot be"),
        ({"files": ((256, DIR_INDEX, 2, entry(257, b"abc")[:-1]),)}, "cut off"),
        ({"files": ((256, INODE_ITEM, 0, b"x" * 20),)}, "cut off"),
        ({"files": ((257, EXTENT_DATA, 0, inline(b"x")),)}, "not there"),
        ({"files": ((257, INODE_ITEM, 0, inode(0o100644, 1)), (257, EXTENT_DATA, 0, inline(b"x", 3)))}, "compressed"),
        ({"files": ((256, DIR_INDEX, 2, entry(257, b"n" * 256)),)}, "cannot be"),
        # Names that a machine finds, and does not list; and the other way round.
        ({"files": folder(SHORT, sought=(SHORT, HOLES))}, "lists is not what is found"),
        ({"files": folder(SHORT, HOLES, sought=(SHORT,))}, "lists is not what is found"),
        ({"files": folder(SHORT, sought=(entry(258, b"short"),))}, "lists is not what is found"),
        ({"files": folder(SHORT, sought=(entry(256, b"short", kind=ROOT_ITEM),))}, "is a subvolume"),
        ({"files": folder(SHORT, entry(258, b"short"))}, "in a directory twice"),
        ({"files": FILE_ITEMS[::-1]}, "not in its order"),
        ({"files": ((256, INODE_ITEM, 0, inode(0o40755, 0)), (256, INODE_ITEM, 1, inode(0o40755, 0)))}, "twice"),
        ({"roots": ((5, ROOT_ITEM, 0, root(FILES)), (256, ROOT_ITEM, 0, root(FILES)))}, "has a subvolume, 256"),
        ({"roots": ((5, ROOT_ITEM, 0, root(FILES)), (5, ROOT_ITEM, 7, root(FILES)))}, "is there twice"),
        ({str(FILES): node(FILES, FILE_ITEMS)[:-1] + b"!"}, "another checksum than it says"),
        ({str(FILES): overfull()}, "longer than the node"),
        ({"chunks": ((256, CHUNK_ITEM, 0, chunk(SIZE, 0)), (256, CHUNK_ITEM, 4096, chunk(SIZE, 0)))}, "one another"),
        ({"chunks": ((256, CHUNK_ITEM, 0, chunk(SIZE, 0, 0x21)),)}, "RAID"),
        ({"chunks": ((256, CHUNK_ITEM, 0, chunk(SIZE, 0, 0x24, 4096)),)}, "twice, and not the same"),
        (
            {"roots": ((5, ROOT_ITEM, 0, root(FILES + NODE)),), str(FILES + NODE): node(FILES + NODE, (), level=1)},
            "nothing in it",
        ),
        (
            {
                "roots": ((5, ROOT_ITEM, 0, root(FILES + NODE)),),
                str(FILES + NODE): node(FILES + NODE, (FILES,), level=1, key=(255, 1, 0)),
            },
            "starts with another key",
        ),
        # Two leaves that are the same one.
        (
            {
                "roots": ((5, ROOT_ITEM, 0, root(FILES + NODE)),),
                str(FILES + NODE): node(FILES + NODE, (FILES, FILES), level=1),
            },
            "not in its order",
        ),
    ],
)
def test_what_is_not_known_or_does_not_fit_is_an_error(tmp_path, changes, told):
    with pytest.raises(BuildError) as caught:
        disk_of(tmp_path, **changes)
    assert told in caught.value.details


def test_nodes_that_lead_in_a_circle_are_an_error(tmp_path):
    above = FILES + NODE
    with pytest.raises(BuildError) as caught:
        disk_of(tmp_path, roots=((5, ROOT_ITEM, 0, root(above)),), **{str(above): node(above, (above,), level=1)})
    assert "another level" in caught.value.details


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (folder(SHORT), "'/short' is not there"),
        (folder(entry(256, b"self")), "'/self' is in two places"),
        (
            (*folder(entry(257, b"a"), entry(257, b"b")), (257, INODE_ITEM, 0, inode(0o40755, 0))),
            "'/b' is in two places",
        ),
        ((*folder(LINK), (259, INODE_ITEM, 0, inode(0o120777, 5))), "leads nowhere"),
    ],
)
def test_a_tree_that_is_none_is_an_error(tmp_path, files, told):
    with pytest.raises(BuildError) as caught:
        disk_of(tmp_path, files=files).tree()
    assert told in caught.value.details


@pytest.mark.parametrize(
    ("size", "extents", "told"),
    [
        (2**60, (), f"a file has {2**60} bytes"),
        (9000, ((0, placed(DATA, 8192)), (4096, placed(DATA, 4096))), "over one another"),
        (4096, ((0, placed(4 * SIZE, 4096)),), "nowhere on the disk"),
    ],
)
def test_a_content_that_cannot_be_is_an_error(tmp_path, size, extents, told):
    items = ((257, EXTENT_DATA, at, data) for at, data in extents)
    disk = disk_of(tmp_path, files=(*folder(SHORT), (257, INODE_ITEM, 0, inode(0o100644, size)), *items))
    tree = disk.tree()
    with pytest.raises(BuildError) as caught:
        tree.content(tree.get("/short"))
    assert told in caught.value.details


def test_more_than_the_disk_could_hold_is_not_hashed(tmp_path):
    disk = disk_of(tmp_path, files=(*folder(SHORT), (257, INODE_ITEM, 0, inode(0o100644, 17 * SIZE))))
    with pytest.raises(BuildError) as caught:
        disk.contents(disk.tree())
    assert f"its files have {17 * SIZE} bytes" in caught.value.details


def test_an_address_is_looked_for_in_its_own_chunk(tmp_path, monkeypatch):
    # The content lies elsewhere than its address says; between the two there is nothing.
    parts = ((256, CHUNK_ITEM, 0, chunk(DATA, 0)), (256, CHUNK_ITEM, 2 * SIZE, chunk(8192, DATA)))
    for address, is_there in ((2 * SIZE, True), (2 * SIZE + 4096, True), (2 * SIZE + 8192, False), (SIZE, False)):
        content = (257, EXTENT_DATA, 0, placed(address, 4096))
        disk = disk_of(
            tmp_path, chunks=parts, files=(*folder(SHORT), (257, INODE_ITEM, 0, inode(0o100644, 4096)), content)
        )
        tree = disk.tree()
        if is_there:
            assert tree.content(tree.get("/short")) == b"x" * 4096
        else:
            with pytest.raises(BuildError) as caught:
                tree.content(tree.get("/short"))
            assert "nowhere on the disk" in caught.value.details
    monkeypatch.setattr(btrfs_nodes, "_MOST_CHUNKS", 1)
    with pytest.raises(BuildError) as caught:
        disk_of(tmp_path, chunks=parts)
    assert "more than 1 chunks" in caught.value.details


def test_more_names_than_are_taken_are_not_held(tmp_path, monkeypatch):
    disk = disk_of(tmp_path)
    for name, told in (("_MOST_ITEMS", "more than 2 names"), ("_MOST_NODES", "more than 2")):
        with monkeypatch.context() as patch:
            patch.setattr(btrfs, name, 2)
            with pytest.raises(BuildError) as caught:
                disk_of(tmp_path)
        assert told in caught.value.details
    monkeypatch.setattr(btrfs, "_MOST_NODES", 2)
    with pytest.raises(BuildError) as caught:
        disk.tree()
    assert "more than 2 files" in caught.value.details


def test_a_disk_without_btrfs_is_told_from_one_with_it():
    assert is_btrfs(io.BytesIO(bytes(65536) + superblock()), 0)
    assert not is_btrfs(io.BytesIO(bytes(80000)), 0)
    with pytest.raises(BuildError):
        BtrfsTrees(io.BytesIO(bytes(80000)), 0)


def head_of(raw):
    return Superblock(
        raw=raw,
        generation=7,
        root=ROOTS,
        chunk_root=CHUNKS,
        size_bytes=SIZE,
        node_bytes=NODE,
        features=0,
        writing_features=0,
    )


def test_a_leaf_keeps_its_files_and_loses_what_was_left_to_chance():
    known = {b"c" * 16: IDENTITY.chunks.bytes}
    items = (
        (256, INODE_ITEM, 0, inode(0o40755, 0, mtime=2000)),
        (256, DIR_ITEM, 5, entry(257, b"one", value=b"v") + entry(258, b"other")),
        (257, INODE_ITEM, 0, inode(0o100640, 5, mtime=500)),
    )
    raw = bytearray(node(FILES, items))
    raw[1000:1010] = b"left over!"
    leaf = TreeNode(address=FILES, level=0, count=3, data=bytes(raw))
    settled = TreeNode(
        address=FILES, level=0, count=3, data=_settled_node(leaf, head_of(superblock()), IDENTITY, known)
    )
    assert b"left over!" not in settled.data
    assert IDENTITY.chunks.bytes in settled.data
    assert struct.unpack_from("<I", settled.data)[0] == crc32c(settled.data[32:])
    folder, names, file = settled.items()
    assert [struct.unpack_from("<qI", folder.data, at) for at in (112, 124, 136, 148)] == [(1000, 0)] * 4
    assert struct.unpack_from("<qI", file.data, 136) == (500, 0)
    assert names.data == entry(257, b"one", transaction=7, value=b"v") + entry(258, b"other", transaction=7)


def test_a_superblock_forgets_earlier_states_and_knows_where_it_is():
    raw = bytearray(superblock())
    for number, generation in enumerate((5, 6, 7, 0)):
        struct.pack_into("<QQ", raw, 2859 + number * 168, 99, generation)
    raw[267:283] = b"d" * 16
    settled = _settled_head(head_of(bytes(raw)), 64 * 1024**2, {b"d" * 16: IDENTITY.device.bytes})
    assert struct.unpack_from("<Q", settled, 48)[0] == 64 * 1024**2
    assert [struct.unpack_from("<Q", settled, 2859 + number * 168)[0] for number in range(4)] == [0, 0, 99, 0]
    assert settled[267:283] == IDENTITY.device.bytes
    assert struct.unpack_from("<I", settled)[0] == crc32c(settled[32:])
