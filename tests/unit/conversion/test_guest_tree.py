# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import pytest

from coppice.conversion.guest.kernels import HEAD_BYTES
from coppice.conversion.guest.model import GuestFact, OsRelease
from coppice.conversion.guest.survey import MOST_KERNELS, survey
from coppice.conversion.guest.tree import MOST_LINKS, Node, NodeKind, find
from coppice.conversion.guest.unknown import NotFoundOutError

pytestmark = pytest.mark.unit
RELEASE = b'ID=debian\nVERSION_ID="12"\n'
ELF = b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + struct.pack("<H", 62)


class Guest:
    """A file system out of a table: bytes are a file, text is a link, None is a directory, anything else is odd."""

    root = Node(identity="", kind=NodeKind.DIRECTORY)

    def __init__(self, table, broken=()) -> None:
        self._table = table
        self._broken = broken
        self.asked = []

    def _node(self, path):
        content = self._table.get(path)
        kinds = {bytes: NodeKind.FILE, str: NodeKind.LINK, type(None): NodeKind.DIRECTORY}
        return Node(identity=path, kind=kinds.get(type(content), NodeKind.OTHER))

    def children(self, directory):
        self.asked.append(directory.identity)
        if directory.identity in self._broken:
            raise NotFoundOutError("it is damaged")
        before = f"{directory.identity}/"
        names = {path[len(before) :].split("/")[0] for path in self._table if path.startswith(before)}
        return {name: self._node(before + name) for name in sorted(names)}

    def target(self, link):
        return self._table[link.identity]

    def head(self, file, most_bytes):
        if file.identity in self._broken:
            raise NotFoundOutError("it is damaged")
        return self._table[file.identity][:most_bytes]


def bz_image(version=b"6.1.0-amd64 (builder@host)", flags=1):
    head = bytearray(4096)
    head[0x1FE:0x206] = b"\x55\xaa\xeb\x00HdrS"
    struct.pack_into("<HIHH", head, 0x206, 0x020F, 0, 0, 0x400)
    struct.pack_into("<H", head, 0x236, flags)
    head[0x600 : 0x600 + len(version)] = version
    return bytes(head)


@pytest.mark.parametrize(
    ("table", "leads_to"),
    [
        pytest.param({"/a": b"x"}, "/a", id="a file"),
        pytest.param({"/a": "b", "/b": b"x"}, "/b", id="a relative link"),
        pytest.param({"/a": "/d/b", "/d/b": b"x"}, "/d/b", id="an absolute link"),
        pytest.param({"/a": "d/c", "/d/c": "../e", "/e": b"x"}, "/e", id="a link to above"),
        pytest.param({"/a": "../../../../e", "/e": b"x"}, "/e", id="above the first directory is the first directory"),
        pytest.param({"/a": "/../../d/./b", "/d/b": b"x"}, "/d/b", id="dots"),
        pytest.param({"/a": "nowhere"}, None, id="a link to nothing"),
        pytest.param({"/a": "b/c", "/b": b"x"}, None, id="below a file"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_links_are_followed_inside_of_the_guest_only(table, leads_to):
    found = find(Guest(table), "/a")
    assert (None if found is None else found.identity) == leads_to


@pytest.mark.parametrize(
    "table",
    [
        pytest.param({"/a": "a"}, id="itself"),
        pytest.param({"/a": "b", "/b": "/a"}, id="two"),
        pytest.param({"/a": "a/a/a"}, id="one that grows"),
        pytest.param({f"/{'a' * n}": "a" * (n + 1) for n in range(1, MOST_LINKS + 5)}, id="a long row"),
    ],
)
def test_links_that_lead_round_in_circles_come_to_an_end_and_nothing_is_known(table):
    with pytest.raises(NotFoundOutError, match="symbolic links"):
        find(Guest(table), "/a")


def test_a_whole_guest_is_surveyed():
    found = survey(
        Guest(
            {
                "/etc/os-release": "../usr/lib/os-release",
                "/usr/lib/os-release": RELEASE,
                "/usr/bin/cloud-init": b"#!",
                "/usr/bin/bash": ELF,
                "/boot/vmlinuz-6.1.0-amd64": bz_image(),
                "/boot/vmlinuz-0-rescue-x": bz_image(),
                "/vmlinuz": "boot/vmlinuz-6.1.0-amd64",
            }
        )
    )
    assert found.release == OsRelease(identifier="debian", version_id="12")
    assert (found.is_root, found.has_cloud_init, found.architecture) == (True, True, "x86_64")
    assert [(kernel.path, kernel.architecture, kernel.version) for kernel in found.kernels] == [
        ("/boot/vmlinuz-6.1.0-amd64", "x86_64", "6.1.0-amd64")
    ]
    assert found.unknown == []


def test_a_boot_partition_has_its_kernels_at_the_top():
    found = survey(Guest({"/vmlinuz-5.14": bz_image(), "/grub2/grub.cfg": b""}))
    assert [kernel.path for kernel in found.kernels] == ["/vmlinuz-5.14"]
    assert (found.is_root, found.has_cloud_init) == (False, None)


def test_where_the_boot_directory_is_empty_kernels_beside_their_modules_count():
    found = survey(Guest({"/etc/x": b"", "/usr/lib/modules/6.8/vmlinuz": bz_image(), "/usr/lib/modules/6.9/x": b""}))
    assert [kernel.path for kernel in found.kernels] == ["/usr/lib/modules/6.8/vmlinuz"]


@pytest.mark.parametrize(
    ("broken", "fact"),
    [
        ("/usr/lib/os-release", GuestFact.OPERATING_SYSTEM),
        ("/usr/bin/bash", GuestFact.ARCHITECTURE),
        ("/boot", GuestFact.KERNELS),
        ("/boot/vmlinuz", GuestFact.KERNELS),
        ("/usr/bin", GuestFact.CLOUD_INIT),
    ],
)
def test_what_is_damaged_is_not_known_and_the_rest_is(broken, fact):
    table = {
        "/etc/os-release": "../usr/lib/os-release",
        "/usr/lib/os-release": RELEASE,
        "/usr/bin/bash": ELF,
        "/boot/vmlinuz": bz_image(),
    }
    found = survey(Guest(table, broken=(broken,)))
    assert fact in {unknown.fact for unknown in found.unknown}
    values = {
        GuestFact.OPERATING_SYSTEM: found.release,
        GuestFact.ARCHITECTURE: found.architecture,
        GuestFact.KERNELS: found.kernels or None,
        GuestFact.CLOUD_INIT: found.has_cloud_init,
    }
    assert values.pop(fact) is None
    known = {one for one in values if one not in {unknown.fact for unknown in found.unknown}}
    assert all(values[one] is not None for one in known)
    assert known


def test_an_os_release_that_leads_out_of_its_file_system_is_not_taken_for_none():
    found = survey(Guest({"/etc/os-release": "../usr/lib/os-release", "/usr/x": b""}))
    assert found.release is None
    assert GuestFact.OPERATING_SYSTEM in {unknown.fact for unknown in found.unknown}


def test_a_kernel_of_an_unknown_form_is_not_known():
    found = survey(Guest({"/etc/x": b"", "/usr/x": b"", "/boot/vmlinuz-1": b"nonsense"}))
    assert found.kernels == []
    assert [unknown.fact for unknown in found.unknown] == [GuestFact.KERNELS]


def test_many_kernels_and_odd_names_are_not_looked_at_without_end():
    table = {f"/boot/vmlinuz-{number:04}": bz_image() for number in range(1000)}
    table["/boot/vmlinuz-\x1b[2J"] = bz_image()
    table["/boot/vmlinuz-" + "x" * 250] = bz_image()
    found = survey(Guest(table))
    assert len(found.kernels) == MOST_KERNELS
    assert "1000 kernels" in found.notes[0]


def test_no_more_of_a_kernel_is_read_than_its_beginning():
    class Greedy(Guest):
        def head(self, file, most_bytes):
            assert most_bytes <= HEAD_BYTES
            return super().head(file, most_bytes)

    assert survey(Greedy({"/boot/vmlinuz": bz_image()})).kernels
