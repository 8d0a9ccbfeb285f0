# SPDX-License-Identifier: Apache-2.0
"""The factory with its real tools: the first run builds Debian 12 (about a minute), later ones find it kept.

Where builds are kept: ``COPPICE_TEST_CACHE``, or ``.cache/tests`` of the checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.clock import SystemClock
from coppice.conversion.guest.claims import differences
from coppice.conversion.guest.facts import guest_facts
from coppice.conversion.model import ConversionLimits
from coppice.conversion.unpack import opened_disk
from coppice.definition.read import read_definition
from coppice.errors import BootTestError, BuildError, InterruptedRunError
from coppice.factory import audit, boot, boot_guest
from coppice.factory.acceleration import Measurement, _probe, remember
from coppice.factory.boot import BootSettings, Promise, boot_test, failure_folder
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.changes import EMPTY, Script, with_folders
from coppice.factory.bootstrap.filesystem import Ext4
from coppice.factory.bootstrap.layers import Stage
from coppice.factory.bootstrap.listing import Kind, Node
from coppice.factory.bootstrap.overlay import File, Symlink, make_overlay
from coppice.factory.build import build, is_intact, load_build_result
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.evidence.inventory import read_inventory
from coppice.factory.files import describe_image
from coppice.factory.login import Login
from coppice.factory.machine import Acceleration
from coppice.factory.model import BuildOptions, Outcome
from coppice.factory.ports import free_port
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.monitor import SILENT

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("COPPICE_TEST_CACHE", CHECKOUT / ".cache" / "tests")) / "factory"
DEBIAN_12 = read_definition(CHECKOUT / "definitions" / "debian-12")
DISK_BYTES = 128 * 1024 * 1024
EPOCH = 1_700_000_000
PROMISE = Promise(user="debian")
CLOCK = SystemClock()


@pytest.fixture(scope="session")
def debian_12():
    return build(DEBIAN_12, root=CACHE, options=BuildOptions(), clock=CLOCK, monitor=SILENT)


def test_a_real_build_makes_a_sound_compressed_image(debian_12):
    built = debian_12.images[0]
    assert subprocess.run(["qemu-img", "check", "-q", built.path], check=False).returncode == 0
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", built.path]))
    assert info["format"] == "qcow2"
    assert info["format-specific"]["data"]["compression-type"] == "zstd"
    assert "backing-filename" not in info
    assert info["virtual-size"] == DEBIAN_12.disk_size_bytes == built.image.virtual_size_bytes
    assert built.image.size_bytes < 400 * 1024 * 1024


def test_a_real_build_says_what_is_in_it_and_passed_its_audit(debian_12):
    names = {package.name for package in debian_12.packages}
    assert {"cloud-init", "openssh-server", "linux-image-cloud-amd64", "netplan.io"} <= names
    assert [verdict.gate for verdict in debian_12.verdicts] == [audit.GATE]
    assert debian_12.verdicts[0].outcome is Outcome.PASSED
    assert read_inventory(debian_12.directory).files["/usr/bin/cloud-init"].package == "cloud-init"
    assert dict(debian_12.provenance.tools)["mmdebstrap"]


def test_the_same_build_again_is_found_at_once_and_its_bytes_are_unchanged(debian_12):
    started = time.monotonic()
    again = build(DEBIAN_12, root=CACHE, options=BuildOptions(), clock=CLOCK, monitor=SILENT)
    assert again.reused
    assert time.monotonic() - started < 2
    assert again.images == debian_12.images
    assert is_intact(load_build_result(again.directory), rehash=True)


def test_a_real_build_says_what_it_is_without_being_started(debian_12, tmp_path):
    limits = ConversionLimits()
    with opened_disk(debian_12.images[0].path, limits, spool=tmp_path / "spool") as opened:
        facts = guest_facts(opened, limits, workplace=tmp_path / "workplace")
    assert facts.unknown == ()
    assert facts.boot_ways == (Firmware.BIOS, Firmware.UEFI)
    assert facts.architecture == DEBIAN_12.operating_system.architecture
    assert {kernel.architecture for kernel in facts.kernels} == {DEBIAN_12.operating_system.architecture}
    assert (facts.operating_system.identifier, facts.operating_system.version_id) == ("debian", "12")
    assert facts.has_cloud_init is True
    assert differences(facts, DEBIAN_12.operating_system) == ()


def test_one_package_more_is_built_upon_the_parents_disk_whose_blocks_stay_where_they_are(debian_12, tmp_path):
    more = replace(DEBIAN_12, name="more", parent="debian-12", packages=("jq",))
    options = BuildOptions(cache_directory=CACHE / "parents", work_directory=tmp_path / "work", ancestors=(debian_12,))
    result = build(more, root=tmp_path, options=options, clock=CLOCK, monitor=SILENT)
    added = {package.name for package in result.packages} - {package.name for package in debian_12.packages}
    assert "jq" in added
    assert len(added) < 10
    assert [ancestor.definition for ancestor in result.provenance.lineage] == ["debian-12"]
    assert list((tmp_path / "work").iterdir()) == []
    changed, written = changed_blocks(debian_12.images[0].path, result.images[0].path, tmp_path)
    assert 0 < changed < written * 0.03


def next_data(handle, start, end):
    try:
        return os.lseek(handle, start, os.SEEK_DATA)
    except OSError:
        return end


def changed_blocks(before, after, place):
    """Return how many blocks of two images' disks differ, and how many are written at all."""
    changed = written = 0
    for number, image in enumerate((before, after)):
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, place / f"{number}.raw"], check=True)
    with (place / "0.raw").open("rb") as first, (place / "1.raw").open("rb") as second:
        end = (place / "1.raw").stat().st_size
        at = 0
        while at < end:
            # Most of both is a hole.
            at = min(next_data(each.fileno(), at, end) for each in (first, second))
            blocks = [os.pread(each.fileno(), 4096, at // 4096 * 4096) for each in (first, second)]
            changed += blocks[0] != blocks[1]
            written += any(blocks[1])
            at = at // 4096 * 4096 + 4096
    return changed, written


def test_a_package_that_does_not_exist_fails_the_build_with_its_name(debian_12, tmp_path):
    wrong = replace(DEBIAN_12, packages=("no-such-package-anywhere",))
    options = BuildOptions(cache_directory=CACHE / "parents", work_directory=tmp_path / "work")
    with pytest.raises(BuildError) as caught:
        build(wrong, root=tmp_path, options=options, clock=CLOCK, monitor=SILENT)
    assert "no-such-package-anywhere" in (caught.value.details or "")
    assert list((tmp_path / "work").iterdir()) == []
    assert [path for path in (tmp_path / "builds").iterdir() if path.is_dir()] == []


def test_a_mirror_that_cannot_be_reached_fails_the_build(tmp_path):
    options = BuildOptions(mirror=f"file://{tmp_path}/nothing", work_directory=tmp_path / "work")
    with pytest.raises(BuildError, match="bootstrapping bookworm failed"):
        build(DEBIAN_12, root=tmp_path, options=options, clock=CLOCK, monitor=SILENT)
    assert list((tmp_path / "work").iterdir()) == []
    assert "coppice-work" not in Path("/proc/mounts").read_text()


def small_disk(folder, entries):
    """Make a disk as the builder does, with only ``entries`` in its root file system."""
    folder.mkdir()
    raw, staging = folder / "disk.raw", folder / "staging"
    staging.mkdir()
    stage = Stage(staging, lambda _path: False)
    listing = dict(EMPTY)
    for path, entry in sorted(entries.items()):
        with_folders(listing, path)
        if isinstance(entry, Symlink):
            listing[path] = Node(kind=Kind.SYMLINK, mode=0o777, mtime=EPOCH, target=entry.target)
        else:
            listing[path] = Node(kind=Kind.FILE, mode=entry.mode, mtime=EPOCH, digest=stage.put(entry.content))
    script = Script(EPOCH, lambda digest: staging / digest)
    script.change(EMPTY, listing)
    (folder / "script").write_text(script.text())
    names = disks.Names("test")
    disks.partition(raw, DISK_BYTES, names)
    root = Ext4(
        disk=raw,
        offset_bytes=disks.ROOT_START_BYTES,
        size_bytes=disks.root_size_bytes(DISK_BYTES),
        uuid=names.uuid("root"),
        epoch=EPOCH,
    )
    root.make()
    root.change(folder / "script")
    return raw


def clean_entries():
    entries = dict(make_overlay(DEBIAN_12, root_uuid=uuid.UUID(int=1), private_mirror=False).entries)
    entries["/etc/ssh/sshd_config"] = File(b"Include /etc/ssh/sshd_config.d/*.conf\n")
    entries["/etc/shadow"] = File(b"root:*:19000:0:99999:7:::\n", mode=0o640)
    return entries


def test_files_modes_and_links_arrive_in_the_file_system(tmp_path):
    entries = {
        "/etc/shadow": File(b"secret", mode=0o640),
        "/bin/su": File(b"#!", mode=0o4755),
        '/etc/a "name" ü': File(b"odd"),
        "/lib": Symlink("usr/lib"),
    }
    raw = small_disk(tmp_path / "disk", entries)
    tree = Ext4Disk(raw, disks.ROOT_START_BYTES, tmp_path).tree()
    assert tree.text("/etc/shadow") == "secret"
    modes = {node.name: node.mode for node in tree}
    assert modes["shadow"] == 0o100640
    assert modes["su"] == 0o104755
    assert modes['a "name" ü'] == 0o100644
    assert modes["lib"] == 0o120777
    assert tree.get("/lib").target == "usr/lib"
    assert tree.text("/etc/missing") is None


def test_the_same_tree_makes_the_same_bytes(tmp_path):
    first = small_disk(tmp_path / "one", clean_entries())
    second = small_disk(tmp_path / "two", clean_entries())
    assert first.read_bytes() == second.read_bytes()


def test_an_image_that_does_not_boot_fails_in_time_and_leaves_no_machine_behind(tmp_path):
    raw = tmp_path / "empty.raw"
    raw.write_bytes(bytes(1024 * 1024))
    image = describe_image(raw, DiskFormat.RAW)
    settings = BootSettings(
        timeout_seconds=8,
        work_directory=tmp_path / "work",
        acceleration_file=tmp_path / "a.json",
        failures_directory=tmp_path / "failures",
    )
    remember(tmp_path / "a.json", Measurement(acceleration=Acceleration.TCG, reason="test"))
    with pytest.raises(BootTestError, match="no login by SSH within 8 s") as caught:
        boot_test(image, firmware=Firmware.BIOS, promise=PROMISE, settings=settings, monitor=SILENT, clock=CLOCK)
    assert "The serial console ended with" in (caught.value.details or "")
    kept = failure_folder(tmp_path / "failures", str(image.image.checksum), "boot-bios")
    assert caught.value.resolution == f"See {kept / 'console.log'} and {kept / 'screen.png'}."
    picture = (kept / "screen.png").read_bytes()
    assert picture.startswith(b"\x89PNG"), "the firmware's words that there is nothing to start"
    assert list((tmp_path / "work").iterdir()) == []
    assert raw.read_bytes() == bytes(1024 * 1024)
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [words for words in running if str(tmp_path).encode() in words]


def test_a_machine_that_floods_its_console_is_ended(tmp_path, monkeypatch):
    # mov dx, 0x3f8; mov al, "A"; out dx, al; jmp to the last but one: a boot sector that writes to the port for ever.
    endless = bytes.fromhex("baf803b041eeebfd").ljust(510, b"\0") + b"\x55\xaa"
    raw = tmp_path / "flood.raw"
    raw.write_bytes(endless.ljust(1024 * 1024, b"\0"))
    remember(tmp_path / "a.json", Measurement(acceleration=Acceleration.TCG, reason="test"))
    settings = BootSettings(
        timeout_seconds=300, work_directory=tmp_path / "work", acceleration_file=tmp_path / "a.json"
    )
    monkeypatch.setattr(boot_guest, "CONSOLE_LIMIT_BYTES", 16 * 1024)
    machines = []
    started = boot_guest.started
    monkeypatch.setattr(
        boot, "started", lambda machine, *more, **named: machines.append(machine) or started(machine, *more, **named)
    )
    image = describe_image(raw, DiskFormat.RAW)
    large = replace(PROMISE, minimum_ram_mib=1536)
    with pytest.raises(BootTestError, match="writes more to its serial console") as caught:
        boot_test(image, firmware=Firmware.BIOS, promise=large, settings=settings, monitor=SILENT, clock=CLOCK)
    assert [each.memory_mib for each in machines] == [1536]
    assert "AAAA" in (caught.value.details or "")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_boot_test_that_is_stopped_ends_at_once(tmp_path):
    raw = tmp_path / "empty.raw"
    raw.write_bytes(bytes(1024 * 1024))
    remember(tmp_path / "a.json", Measurement(acceleration=Acceleration.TCG, reason="test"))
    settings = BootSettings(
        timeout_seconds=300, work_directory=tmp_path / "work", acceleration_file=tmp_path / "a.json"
    )
    stop = threading.Event()
    threading.Timer(2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(InterruptedRunError):
        boot_test(
            describe_image(raw, DiskFormat.RAW),
            firmware=Firmware.BIOS,
            promise=PROMISE,
            settings=settings,
            monitor=SILENT,
            clock=CLOCK,
            stop=stop,
        )
    assert time.monotonic() - started < 60
    assert list((tmp_path / "work").iterdir()) == []


def test_the_probe_measures_emulation(tmp_path):
    seconds = _probe(Acceleration.TCG, tmp_path)
    assert seconds is not None
    assert 0 < seconds < 30


def test_a_port_where_nobody_greets_does_not_answer(tmp_path):
    login = Login(port=free_port(), user="debian", key=tmp_path / "key", known_hosts=tmp_path / "hosts")
    assert not login.answers()
