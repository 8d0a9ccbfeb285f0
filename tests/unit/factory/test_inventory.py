# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
import zstandard

from coppice.errors import NotFoundError, StorageError
from coppice.factory.evidence.inventory import FILE_NAME, Inventory, InventoryFile, read_inventory, write_inventory

pytestmark = pytest.mark.unit


def file(path, **facts):
    return InventoryFile(**{"path": path, "mode": 0o100644, "owner": 0, "group": 0, "size_bytes": 1, **facts})


INVENTORY = Inventory(
    {
        each.path: each
        for each in (
            file("/bin", mode=0o120777, target="usr/bin"),
            file("/usr/bin/su", mode=0o104755, sha256="a" * 64, package="util-linux"),
            file("/etc/motd", sha256="b" * 64, sha1="c" * 40, owner=1, group=2),
            file("/srv/\udce4 „x“\n", sha256="d" * 64),
            file("/loop", mode=0o120777, target="loop"),
        )
    }
)


def test_what_was_written_is_read_and_always_has_the_same_bytes(tmp_path):
    write_inventory(tmp_path / FILE_NAME, INVENTORY)
    first = (tmp_path / FILE_NAME).read_bytes()
    assert read_inventory(tmp_path) == INVENTORY
    write_inventory(tmp_path / FILE_NAME, Inventory(dict(reversed(INVENTORY.files.items()))))
    assert (tmp_path / FILE_NAME).read_bytes() == first


def test_a_file_is_found_by_any_of_its_paths():
    assert INVENTORY.find("/bin/su") is INVENTORY.files["/usr/bin/su"]
    assert INVENTORY.find("/bin") is INVENTORY.files["/bin"]
    for missing in ("/bin/none", "/loop/x", "/", "etc"):
        assert INVENTORY.find(missing) is None


def test_a_build_without_an_inventory_says_so(tmp_path):
    with pytest.raises(NotFoundError):
        read_inventory(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]\n",
        json.dumps({"schema": 2, "files": 0}).encode(),
        json.dumps({"schema": 1, "files": 1}).encode(),
        b'{"schema": 1, "files": 1}\n{"path": "/x"}\n',
        b'{"schema": 1, "files": 1}\n[]\n',
    ],
)
def test_a_damaged_inventory_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / FILE_NAME).write_bytes(zstandard.compress(text))
    with pytest.raises(StorageError, match=FILE_NAME):
        read_inventory(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"no zstd")
    with pytest.raises(StorageError, match=FILE_NAME):
        read_inventory(tmp_path)
