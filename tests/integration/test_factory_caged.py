# SPDX-License-Identifier: Apache-2.0
"""The factory's programs that read others' disks: they have their files, and nothing else."""

from __future__ import annotations

import subprocess

import pytest

from coppice.errors import ToolFailedError
from coppice.factory import caged
from coppice.factory.caged import run_caged
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.evidence.partitions import find_partitions
from coppice.factory.partition_table import find_root

pytestmark = pytest.mark.integration
MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path):
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(16 * MIB)
    subprocess.run(["sfdisk", "-q", raw], input="label: gpt\n,12M\n", text=True, check=True)
    subprocess.run(["mke2fs", "-q", "-E", f"offset={MIB}", raw, "12M"], check=True)
    return raw


@pytest.mark.threat("T71")
def test_a_program_sees_its_files_and_nothing_else(tmp_path):
    given, wanted, other = tmp_path / "given", tmp_path / "wanted", tmp_path / "other"
    given.write_text("content\n")
    other.write_text("other\n")
    copies = "read said < $1; echo $said > $2"
    script = f"{copies}; for each in {other} /etc/passwd; do read -r x < $each && echo seen; done"
    done = run_caged(
        lambda inside: ["sh", "-c", script, "sh", inside(given), inside(wanted)],
        reads=[given],
        writes=[wanted],
        timeout_seconds=60,
        ok=(0, 1, 2),
    )
    assert (wanted.read_text(), done.stdout) == ("content\n", b"")
    with pytest.raises(ToolFailedError, match="sh ended with status"):
        run_caged(lambda inside: ["sh", "-c", ": > $1", "sh", inside(given)], reads=[given], timeout_seconds=60)
    assert given.read_text() == "content\n"


def test_what_looks_into_a_disk_is_shut_in_with_that_disk(tmp_path, disk, monkeypatch):
    found = []

    class Seen(caged.Cage):
        def __init__(self, *, reads, writes) -> None:
            found.append(([path.name for path in reads], list(writes)))
            super().__init__(reads=reads, writes=writes)

    monkeypatch.setattr(caged, "Cage", Seen)
    assert [each.kind for each in find_partitions(disk)] == ["ext2"]
    tree = Ext4Disk(disk, find_root(disk).start_bytes, tmp_path).tree()
    assert list(tree) == []
    assert {tuple(reads) for reads, _ in found} == {("disk.raw",), ("disk.raw", "debugfs.commands")}
    assert not any(writes for _, writes in found)
