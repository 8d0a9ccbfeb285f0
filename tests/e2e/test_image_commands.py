# SPDX-License-Identifier: Apache-2.0
"""Image files by hand: what one is, and another one made of it, through the real command line."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import signal
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
DISK_BYTES = 8 * MIB
FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "ova")
QEMU_NAMES = {"vhd": "vpc"}


@dataclass
class Desk:
    """A command line and a folder with a disk in it."""

    line: object
    folder: Path
    raw: Path

    def ok(self, *arguments):
        return self.line.ok(*arguments)

    def run(self, *arguments, **options):
        return self.line.run("--json", *arguments, **options)

    def refused(self, *arguments):
        """Run what must be refused; return its exit code and the code of the error."""
        ended = self.run(*arguments)
        assert ended.code != 0, ended
        assert len(ended.codes) == 1
        return ended.code, ended.codes[0]

    def files(self):
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def desk(kit, tmp_path):
    line = kit.CommandLine(tmp_path / "site", f'state_directory = "{tmp_path}/state"\n')
    folder = tmp_path / "images"
    folder.mkdir()
    raw = folder / "disk.raw"
    noise = random.Random(5).randbytes(2 * MIB)  # noqa: S311 - content for tests
    raw.write_bytes(noise + bytes(DISK_BYTES - 3 * MIB) + noise[:MIB])
    return Desk(line, folder, raw)


def guest_bytes_are_equal(one, its_format, other, other_format):
    argv = ["qemu-img", "compare", "-f", QEMU_NAMES.get(its_format, its_format)]
    argv += ["-F", QEMU_NAMES.get(other_format, other_format), str(one), str(other)]
    return subprocess.run(argv, capture_output=True, check=False, timeout=120).returncode == 0


def test_a_file_is_told_by_its_content_whatever_it_is_called(desk):
    odd = desk.folder / "really a qcow2.iso"
    desk.ok("convert", desk.raw, "--to", "qcow2", "--output", odd)
    told = desk.ok("image", "inspect", odd, "--no-guest")
    assert told["usable_as_it_is"] is True
    assert told["guest"] is None
    found = told["inspection"]
    assert (found["format"], found["virtual_size_bytes"]) == ("qcow2", DISK_BYTES)
    assert found["size_bytes"] == odd.stat().st_size


@pytest.mark.parametrize("wanted", FORMATS)
def test_a_disk_goes_into_a_format_and_comes_back_the_same(desk, wanted):
    made = desk.ok("convert", desk.raw, "--to", wanted, "--output", desk.folder / "there")
    assert made["inspection"]["format"] == wanted
    assert made["converted"] is (wanted != "raw")
    desk.ok("convert", desk.folder / "there", "--to", "raw", "--output", desk.folder / "back.raw")
    back = (desk.folder / "back.raw").read_bytes()
    assert back[:DISK_BYTES] == desk.raw.read_bytes()
    assert not any(back[DISK_BYTES:])
    assert desk.files() == ["back.raw", "disk.raw", "there"]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("disk.raw.gz", gzip.compress), ("disk.raw.xz", lambda data: lzma.compress(data, preset=0))],
    ids=["gzip", "xz"],
)
def test_what_is_packed_is_unpacked_beside_the_new_file_and_nothing_else_stays(desk, name, pack):
    packed = desk.folder / name
    packed.write_bytes(pack(desk.raw.read_bytes()))
    assert desk.ok("image", "inspect", packed, "--no-guest")["usable_as_it_is"] is False
    made = desk.ok("convert", packed, "--to", "qcow2")
    assert made["path"] == str(desk.folder / "disk.qcow2")
    assert guest_bytes_are_equal(desk.folder / "disk.qcow2", "qcow2", desk.raw, "raw")
    assert desk.files() == sorted(["disk.qcow2", "disk.raw", name])
    spool = desk.folder.parent / "state" / "conversion" / "spool"
    assert not spool.exists() or list(spool.iterdir()) == []


def test_what_is_packed_is_unpacked_where_that_is_all_that_is_wanted(desk):
    (desk.folder / "copy.raw.gz").write_bytes(gzip.compress(desk.raw.read_bytes(), 1))
    made = desk.ok("convert", desk.folder / "copy.raw.gz", "--to", "raw")
    assert made["converted"] is False
    copy = desk.folder / "copy.raw"
    assert copy.read_bytes() == desk.raw.read_bytes()
    assert copy.stat().st_blocks * 512 < DISK_BYTES
    assert copy.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_ova_says_what_it_was_told_to_say_and_what_its_source_said(desk):
    first, second = desk.folder / "first.ova", desk.folder / "second.ova"
    desk.ok(
        *("convert", desk.raw, "--to", "ova", "--output", first, "--name", "two & <cores>"),
        *("--cores", "2", "--memory", "3GiB", "--firmware", "uefi", "--bus", "scsi"),
    )
    machine = desk.ok("image", "inspect", first, "--no-guest")["inspection"]["packaging"]["hardware"]
    assert machine["minimum_cores"] == 2
    assert machine["minimum_ram_mib"] == 3072
    assert (machine["firmware"], machine["disk_bus"]) == ("uefi", "scsi")
    desk.ok("convert", first, "--to", "ova", "--output", second, "--cores", "4")
    other = desk.ok("image", "inspect", second, "--no-guest")
    assert other["inspection"]["packaging"]["hardware"] == {**machine, "minimum_cores": 4}
    assert other["has_manifest"] is True


@pytest.mark.threat("T67")
def test_a_changed_file_in_an_archive_is_found_by_its_manifest_and_nothing_is_made(desk):
    whole = desk.folder / "whole.ova"
    desk.ok("convert", desk.raw, "--to", "ova", "--output", whole)
    with tarfile.open(whole) as archive:
        disk = next(member for member in archive.getmembers() if member.name.endswith(".vmdk"))
    with whole.open("r+b") as stream:
        # In the middle of a grain: the structure of the disk is what it was.
        stream.seek(disk.offset_data + disk.size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
    assert desk.refused("image", "inspect", whole, "--no-guest") == (7, "ovf-manifest")
    code, _ = desk.refused("convert", whole, "--to", "raw", "--output", desk.folder / "made.raw")
    assert code == 7
    assert desk.files() == ["disk.raw", "whole.ova"]


def test_a_qcow2_is_taken_as_it_is_unless_another_compression_is_asked_for(desk):
    first = desk.folder / "first.qcow2"
    desk.ok("convert", desk.raw, "--to", "qcow2", "--output", first)
    same = desk.ok("convert", first, "--to", "qcow2", "--output", desk.folder / "same.qcow2")
    assert same["converted"] is False
    assert (desk.folder / "same.qcow2").read_bytes() == first.read_bytes()
    assert (desk.folder / "same.qcow2").stat().st_ino != first.stat().st_ino
    other = desk.ok("convert", first, "--to", "qcow2", "--compression", "zlib", "--output", desk.folder / "zlib.qcow2")
    assert other["converted"] is True
    said = subprocess.run(
        ["qemu-img", "info", "--output=json", str(desk.folder / "zlib.qcow2")], capture_output=True, check=True
    )
    assert json.loads(said.stdout)["format-specific"]["data"]["compression-type"] == "zlib"


def test_what_a_conversion_leaves_behind_is_said_and_a_qcow2_with_snapshots_is_written_anew(desk):
    image = desk.folder / "disk.qcow2"
    desk.ok("convert", desk.raw, "--to", "qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "before", str(image)], check=True, timeout=60)
    assert desk.ok("image", "inspect", image, "--no-guest")["usable_as_it_is"] is False
    ended = desk.run("convert", image, "--to", "qcow2", "--output", desk.folder / "new.qcow2")
    assert ended.data["converted"] is True
    assert [each for each in ended.said["messages"] if "snapshot" in each] != []
    assert desk.ok("image", "inspect", desk.folder / "new.qcow2", "--no-guest")["usable_as_it_is"] is True
    assert guest_bytes_are_equal(desk.folder / "new.qcow2", "qcow2", desk.raw, "raw")


def test_what_is_there_already_stays_unless_it_is_to_be_replaced(desk):
    there = desk.folder / "disk.qcow2"
    there.write_text("somebody's")
    assert desk.refused("convert", desk.raw, "--to", "qcow2") == (12, "exists-already")
    assert there.read_text() == "somebody's"
    desk.ok("convert", desk.raw, "--to", "qcow2", "--overwrite")
    assert guest_bytes_are_equal(there, "qcow2", desk.raw, "raw")
    assert desk.files() == ["disk.qcow2", "disk.raw"]


@pytest.mark.parametrize("more", [(), ("--overwrite",)], ids=["", "overwrite"])
def test_a_file_is_never_converted_onto_itself_whatever_it_is_called(desk, more):
    before = desk.raw.read_bytes()
    link = desk.folder / "link"
    link.symlink_to(desk.raw)
    for output in (desk.raw, link, desk.folder / ".." / "images" / "disk.raw"):
        code, _ = desk.refused("convert", desk.raw, "--to", "raw", "--output", output, *more)
        assert code in {3, 12}
    assert desk.raw.read_bytes() == before
    assert link.is_symlink()


def test_a_link_is_followed_since_a_person_named_it(desk):
    link = desk.folder / "current"
    link.symlink_to(desk.raw)
    assert desk.ok("image", "inspect", link, "--no-guest")["inspection"]["format"] == "raw"
    desk.ok("convert", link, "--to", "qcow2")
    assert guest_bytes_are_equal(desk.folder / "current.qcow2", "qcow2", desk.raw, "raw")


def test_mistakes_are_told_by_what_they_are(desk):
    made = desk.folder / "made"
    nothing = desk.folder / "nothing"
    assert desk.refused("image", "inspect", nothing) == (3, "file-unreadable")
    assert desk.refused("convert", nothing, "--to", "raw") == (3, "file-unreadable")
    assert desk.refused("image", "inspect", desk.folder)[0] == 7
    assert desk.refused("convert", "", "--to", "raw") == (7, "image-refused")
    assert desk.refused("convert", "/", "--to", "raw") == (3, "input-invalid")
    assert desk.refused("convert", desk.raw, "--to", "vdi", "--output", nothing / "made") == (3, "input-invalid")
    assert desk.refused("convert", desk.raw, "--to", "vdi", "--output", desk.folder) == (3, "input-invalid")
    assert desk.refused("convert", desk.raw, "--to", "iso", "--output", made) == (7, "image-conversion")
    assert desk.refused("convert", desk.raw, "--to", "vdi", "--compression", "zstd") == (2, "usage")
    assert desk.refused("convert", desk.raw, "--to", "qcow2", "--cores", "2") == (2, "usage")
    assert desk.refused("convert", desk.raw, "--to", "ova", "--memory", "plenty") == (2, "usage")
    assert desk.refused("convert", desk.raw, "--to", "zip") == (2, "usage")
    assert desk.refused("convert", desk.raw) == (2, "usage")
    assert desk.files() == ["disk.raw"]


@pytest.mark.parametrize("name", ["-o disk.raw", "json:{}.raw", "nbd:x:1.raw", "a,b=c.raw", "ä ö\n\t'\".raw", "%s.raw"])
def test_odd_names_are_names_and_nothing_else(desk, name):
    odd = desk.raw.rename(desk.folder / name)
    desk.ok("image", "inspect", odd, "--no-guest")
    made = desk.ok("convert", odd, "--to", "qcow2")
    assert made["path"] == str(odd.with_suffix(".qcow2"))
    desk.ok("convert", odd.with_suffix(".qcow2"), "--to", "ova")
    desk.ok("convert", odd.with_suffix(".ova"), "--to", "raw", "--output", odd.with_suffix(".back"))
    assert odd.with_suffix(".back").read_bytes() == odd.read_bytes()


@pytest.mark.threat("T82")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_conversion_that_is_ended_leaves_no_file_that_looks_whole_and_the_next_one_cleans_up(desk, kit, number):
    large = desk.folder / "large.raw.gz"
    noise = random.Random(6).randbytes(MIB)  # noqa: S311 - content for tests
    with gzip.open(large, "wb", compresslevel=1) as stream:
        for _ in range(256):
            stream.write(noise)
    child = desk.line.start("convert", large, "--to", "qcow2")
    with kit.running(child):
        kit.wait_until(lambda: any(path.name.startswith(".coppice-") for path in desk.folder.iterdir()))
        child.send_signal(number)
        child.wait(timeout=60)
    assert child.returncode != 0
    assert not (desk.folder / "large.qcow2").exists()
    if number != signal.SIGKILL:
        assert desk.files() == ["disk.raw", "large.raw.gz"]
    large.write_bytes(gzip.compress(desk.raw.read_bytes()))
    desk.ok("convert", large, "--to", "qcow2")
    assert [name for name in desk.files() if name.endswith(".spool")] == []
    assert guest_bytes_are_equal(desk.folder / "large.qcow2", "qcow2", desk.raw, "raw")


def test_people_are_told_in_lines_and_of_a_refusal_what_was_found_where_and_why(desk):
    desk.ok("convert", desk.raw, "--to", "qcow2")
    image = desk.folder / "disk.qcow2"
    said = desk.line.run("image", "inspect", image, "--no-guest")
    assert said.code == 0
    assert "qcow2" in said.stdout
    assert "8 MiB" in said.stdout
    with image.open("r+b") as stream:
        # A backing file of 11 bytes, named behind the header.
        stream.seek(8)
        stream.write((512).to_bytes(8, "big") + (11).to_bytes(4, "big"))
        stream.seek(512)
        stream.write(b"/etc/passwd")
    refused = desk.line.run("image", "inspect", image)
    assert (refused.code, refused.stdout) == (7, "")
    assert refused.stderr.startswith("error[image-outside-reference]: the image file disk.qcow2 is refused: ")
    assert "at byte" in refused.stderr
    assert "hint: " in refused.stderr


def test_a_disk_is_looked_into_without_being_started_or_mounted_also_inside_of_what_it_is_packed_in(desk):
    tree = desk.folder.parent / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "usr").mkdir()
    (tree / "etc" / "os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n')
    desk.raw.write_bytes(bytes(DISK_BYTES))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(tree), str(desk.raw)], check=True, timeout=60)
    desk.ok("convert", desk.raw, "--to", "ova")
    (desk.folder / "disk.ova.gz").write_bytes(gzip.compress((desk.folder / "disk.ova").read_bytes(), 1))
    for name in ("disk.raw", "disk.ova", "disk.ova.gz"):
        guest = desk.ok("image", "inspect", desk.folder / name)["guest"]
        assert guest["operating_system"]["pretty_name"] == "Debian GNU/Linux 12"
        assert [part["file_system"]["label"] for part in guest["partitions"]] == ["root"]
        assert guest["unknown"] == []
    said = desk.line.run("image", "inspect", desk.folder / "disk.ova.gz")
    assert "Debian GNU/Linux 12" in said.stdout
    assert desk.files() == ["disk.ova", "disk.ova.gz", "disk.raw"]
    spool = desk.folder.parent / "state" / "conversion" / "spool"
    assert list(spool.iterdir()) == []


def test_what_pruning_would_remove_is_named(site):
    site.synced()
    (held,) = site.ok("cache", "list")["entries"]
    site.ok("subscription", "remove", "demo")
    ended = site.run("cache", "prune", "--now", "--dry-run")
    assert (ended.code, ended.stdout.split()[1]) == (0, held["checksum"].removeprefix("sha512:")[:24]), ended
    assert len(site.ok("cache", "list")["entries"]) == 1
