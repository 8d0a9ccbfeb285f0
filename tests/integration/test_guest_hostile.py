# SPDX-License-Identifier: Apache-2.0
"""Guests that lie: facts are told or not known, whatever is there, and nothing of this machine is among them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess

import pytest

from coppice import process
from coppice.conversion.guest import caged
from coppice.conversion.guest.facts import guest_facts
from coppice.conversion.guest.model import GuestFact
from coppice.conversion.model import ConversionLimits
from coppice.conversion.unpack import opened_disk
from coppice.testing import guests
from coppice.testing.guests import MIB, Part

pytestmark = pytest.mark.integration
LIMITS = ConversionLimits(timeout_seconds=120)
MARK = "coppicecanary"
HANGS = "did not end"


def facts_of(path, tmp_path):
    workplace = tmp_path / "workplace"
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as opened:
        found = guest_facts(opened, LIMITS, workplace=workplace)
    assert list(workplace.iterdir()) == []
    return found


def guest(tmp_path, kind, changes):
    tree = guests.write_tree(tmp_path / "tree", {**guests.debian(), **changes})
    return guests.file_system(tmp_path / "disk.raw", kind, tree)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"ID={MARK}\n")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("kind", ["btrfs", "ext4", "xfs"])
def test_a_link_to_a_file_of_this_machine_leads_to_nothing(kind, secret, tmp_path):
    links = {"etc/os-release": str(secret), "usr/lib/os-release": f"../../../../../../../../../../..{secret}"}
    changes = {**links, "boot/vmlinuz-6.1.0-18-amd64": str(secret), "usr/bin/bash": str(secret)}
    found = facts_of(guest(tmp_path, kind, changes), tmp_path)
    assert MARK not in repr(found)
    assert found.operating_system is None


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("os-release", id="itself"),
        pytest.param("../etc/os-release", id="round"),
        pytest.param("/" + "etc/../" * 100 + "etc/os-release", id="a long one"),
    ],
)
def test_a_link_that_leads_round_in_circles_is_told(target, tmp_path):
    changes = {"etc/os-release": target, "usr/lib/os-release": "/etc/os-release"}
    found = facts_of(guest(tmp_path, "ext4", changes), tmp_path)
    assert found.operating_system is None
    assert not found.is_known(GuestFact.OPERATING_SYSTEM)
    assert found.has_cloud_init is True


@pytest.mark.parametrize("kind", ["btrfs", "ext4", "xfs"])
def test_files_without_measure_are_read_at_their_beginning_only(kind, tmp_path):
    tree = guests.write_tree(tmp_path / "tree", guests.debian())
    for name in ("boot/vmlinuz-6.1.0-18-amd64", "usr/lib/os-release", "usr/bin/bash"):
        with (tree / name).open("r+b") as file:
            file.truncate(32 * MIB)
    size = 200 * MIB if kind != "xfs" else 400 * MIB
    found = facts_of(guests.file_system(tmp_path / "disk.raw", kind, tree, size_bytes=size), tmp_path)
    assert found.operating_system.identifier == "debian"
    assert any("longer than it may be" in note for note in found.notes)
    assert found.architecture == "x86_64"


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_directory_with_more_names_than_are_taken_is_not_known(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(caged, "MOST_SAID_BYTES", 50_000)
    found = facts_of(guest(tmp_path, kind, {f"boot/{'x' * 100}{number}": b"" for number in range(500)}), tmp_path)
    assert not found.is_known(GuestFact.KERNELS)
    assert found.operating_system.identifier == "debian"


def test_a_name_that_forges_a_line_wins_nothing(tmp_path):
    mark = "Q" * 40
    tree = guests.write_tree(tmp_path / "tree", {**guests.debian(), f"boot/{mark}": b""})
    path = guests.file_system(tmp_path / "disk.raw", "ext4", tree, options=("-O", "^metadata_csum,^dir_index"))
    content = path.read_bytes()
    assert content.count(mark.encode()) == 1
    forged = b"\n/1/100644/0/0/vmlinuz-9\x1b[2J/5/\n/2/1"
    path.write_bytes(content.replace(mark.encode(), forged.ljust(40, b"x")))
    found = facts_of(path, tmp_path)
    assert "\x1b" not in repr(found)
    assert [kernel.path for kernel in found.kernels] == ["/boot/vmlinuz-6.1.0-18-amd64"]


def stretches(handle):
    """Where a sparse file has data."""
    at, size = 0, os.fstat(handle).st_size
    while at < size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError:
            return
        at = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, at


@pytest.mark.parametrize("kind", ["btrfs", "ext4", "vfat", "xfs"])
def test_damage_anywhere_makes_facts_unknown_and_nothing_worse(kind, tmp_path, monkeypatch):
    # Some damage has a program go round for ever.
    monkeypatch.setattr(caged, "_LOOK_SECONDS", 5)
    path = guests.file_system(
        tmp_path / "disk.raw",
        kind,
        guests.write_tree(tmp_path / "tree", guests.debian() if kind != "vfat" else {"a": b""}),
    )
    with path.open("rb") as file:
        used = [at for start, end in stretches(file.fileno()) for at in range(start, end, 4096)]
    for seed in range(4):
        chance = random.Random(seed)  # noqa: S311 - damage for tests
        with path.open("r+b") as file:
            for at in chance.sample(used, min(len(used), 12)):
                # The first sector stays, so that it is a file system at all; damage adds up.
                file.seek(max(512, at + chance.randrange(4096 - 64)))
                file.write(chance.randbytes(64))
        found = facts_of(path, tmp_path)
        assert found.operating_system is None or found.operating_system.identifier in {"", "debian"}


@pytest.mark.parametrize("kind", ["btrfs", "ext4", "vfat", "xfs"])
def test_a_file_system_that_is_cut_off_is_not_known(kind, tmp_path):
    tree = guests.write_tree(tmp_path / "tree", {"EFI/BOOT/x": b"", **(guests.debian() if kind != "vfat" else {})})
    whole = guests.file_system(tmp_path / "root", kind, tree)
    with whole.open("r+b") as file:
        file.truncate(MIB // 2)
    path = guests.disk(tmp_path / "disk.raw", [Part(content=whole, size_bytes=2 * MIB)])
    found = facts_of(path, tmp_path)
    assert found.operating_system is None
    if kind != "vfat":
        assert not found.is_known(GuestFact.OPERATING_SYSTEM)


def test_two_file_systems_in_one_place_are_not_known(tmp_path):
    path = guest(tmp_path, "ext4", {})
    with path.open("r+b") as file:
        file.write(b"XFSB")
    found = facts_of(path, tmp_path)
    assert not found.is_known(GuestFact.FILE_SYSTEMS)
    assert not found.is_known(GuestFact.OPERATING_SYSTEM)


@pytest.mark.parametrize(
    ("kind", "tool"), [("btrfs", "btrfs"), ("ext4", "debugfs"), ("vfat", "mdir"), ("xfs", "xfs_db")]
)
def test_a_program_that_is_not_installed_leaves_facts_unknown(kind, tool, tmp_path, monkeypatch):
    path = guests.file_system(
        tmp_path / "disk.raw",
        kind,
        guests.write_tree(tmp_path / "tree", {"a": b""} if kind == "vfat" else guests.debian()),
    )
    found_tool = process.find_tool

    def find_tool(name):
        return found_tool(name if name != tool else "no-such-program")

    monkeypatch.setattr(process, "find_tool", find_tool)
    found = facts_of(path, tmp_path)
    assert found.operating_system is None
    reasons = [unknown.reason for unknown in found.unknown if unknown.fact is GuestFact.OPERATING_SYSTEM]
    assert "not installed" in reasons[0]
    if kind == "vfat":
        assert not found.is_known(GuestFact.BOOT_WAYS)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param("import time\ntime.sleep(600)", HANGS, id="hangs"),
        pytest.param("raise SystemExit(3)", "status 3", id="fails"),
        pytest.param("import os\nos.kill(os.getpid(), 9)", "", id="is killed"),
        pytest.param("print('/12/040755/0/0/etc//\\n' * 10**6)", "more than", id="says too much"),
        pytest.param("import sys\nsys.stdout.buffer.write(bytes(range(256)))", "", id="says nonsense"),
    ],
)
def test_a_program_that_an_image_took_over_leaves_facts_unknown(body, words, tmp_path, monkeypatch):
    path = guest(tmp_path, "ext4", {})
    program = tmp_path / "debugfs"
    program.write_text(f"#!/usr/bin/python3\n{body}\n")
    program.chmod(0o755)
    found_tool = process.find_tool
    monkeypatch.setattr(process, "find_tool", lambda name: str(program) if name == "debugfs" else found_tool(name))
    if words == HANGS:
        monkeypatch.setattr(caged, "_LOOK_SECONDS", 2)
    found = facts_of(path, tmp_path)
    assert found.operating_system is None
    assert any(words in unknown.reason for unknown in found.unknown)
    assert not found.is_known(GuestFact.OPERATING_SYSTEM)


def test_all_looks_together_take_a_bounded_time(tmp_path, monkeypatch):
    path = guest(tmp_path, "ext4", {})
    monkeypatch.setattr(caged, "MOST_SECONDS", 0.0)
    found = facts_of(path, tmp_path)
    assert not found.is_known(GuestFact.OPERATING_SYSTEM)
    assert any("too long" in unknown.reason for unknown in found.unknown)


def test_a_disk_with_more_partitions_than_pieces_is_told_as_far_as_it_goes(tmp_path):
    parts = [Part(size_bytes=MIB) for _ in range(80)]
    path = guests.disk(tmp_path / "disk.raw", parts)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", path, tmp_path / "disk.qcow2"], check=True)
    found = facts_of(tmp_path / "disk.qcow2", tmp_path)
    assert len(found.partitions) == 80
    assert not found.is_known(GuestFact.FILE_SYSTEMS)


def test_the_image_is_as_it_was_before(tmp_path):
    path = guest(tmp_path, "ext4", {})
    path.chmod(0o400)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    facts_of(path, tmp_path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_disk_of_which_more_would_be_brought_than_there_is_room_for_is_not_known(tmp_path, monkeypatch):
    path = guests.disk(tmp_path / "whole.raw", [Part(content=guest(tmp_path, "xfs", {}))])
    usage = type(shutil.disk_usage(tmp_path))(MIB, MIB, MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    found = facts_of(path, tmp_path)
    assert not found.is_known(GuestFact.OPERATING_SYSTEM)
    assert any("there is room for" in unknown.reason for unknown in found.unknown)


def test_room_is_asked_for_what_a_disk_holds_and_not_for_its_length(tmp_path, monkeypatch):
    path = guests.disk(tmp_path / "whole.raw", [Part(content=guest(tmp_path, "xfs", {}))])
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", path, tmp_path / "disk.qcow2"], check=True)
    usage = type(shutil.disk_usage(tmp_path))(320 * MIB, 160 * MIB, 160 * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    found = facts_of(tmp_path / "disk.qcow2", tmp_path)
    assert found.partitions[0].size_bytes > usage.free
    assert found.operating_system is not None
