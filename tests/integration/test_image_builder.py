# SPDX-License-Identifier: Apache-2.0
"""The builders ``image`` and ``prebuilt`` with their real tools; a stand-in for mmdebstrap lays the files.

Real packages, files and provisioners come into an image in the campaign at the end.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from coppice.clock import SystemClock
from coppice.definition.model import DefinedFile, Firewall, Provisioner, ProvisionerKind, Start
from coppice.definition.read import read_definition
from coppice.errors import (
    BuildError,
    ChecksumMismatchError,
    ImageRefusedError,
    OlderListError,
    TransferError,
    TrustError,
)
from coppice.factory.audit import audit
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap import supported
from coppice.factory.bootstrap.builder import BootstrapBuilder
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.image_start.builder import ImageBuilder
from coppice.factory.model import BuildOptions, BuildResult, Provenance
from coppice.factory.prebuilt.builder import PrebuiltBuilder
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.testing.bootstrapper import DISK_BYTES, lay_bootstrapper
from coppice.testing.openpgp import GnuPg
from coppice.testing.server import StaticServer
from coppice.workflows.start_images import StartImages

pytestmark = pytest.mark.integration

SHIPPED = read_definition(Path(__file__).parents[2] / "definitions" / "debian-12")
BASE = replace(SHIPPED, name="base", disk_size_bytes=DISK_BYTES)
NEW = """\
seq 3000 > "$root/usr/bin/more"
rm "$root/data/50" "$root/data/one"
chmod 600 "$root/data/3"
chmod 750 "$root/usr/bin/capable"
"""
SIGNED = datetime.now(UTC) - timedelta(days=10)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """An image of the bootstrap builder, and the folder of the stand-in that made it."""
    place = tmp_path_factory.mktemp("start")
    patch = pytest.MonkeyPatch()
    patch.setattr(supported, "_LEAST_ROOT_BYTES", 0)
    stand_in = lay_bootstrapper(place / "stand-in")
    patch.setenv("PATH", f"{stand_in}:{os.environ['PATH']}")
    (place / "base").mkdir()
    options = BuildOptions(work_directory=place / "work", cache_directory=place / "caches")
    output = BootstrapBuilder().build(BASE, place / "base", options, SILENT)
    yield SimpleNamespace(path=output.images[0].path, image=output.images[0], output=output, stand_in=stand_in)
    patch.undo()


@pytest.fixture
def starts(tmp_path):
    file = tmp_path / "coppice.toml"
    file.write_text(f'state_directory = "{tmp_path}/state"\n[transfer]\nallow_private_addresses = true\nattempts = 1\n')
    return StartImages(settings=load_settings(config=file, environ={}, options={}, system_file=file))


def from_file(given, **changes):
    where = Start(url=f"file://{given.path}", checksum=str(given.image.image.checksum))
    return replace(BASE, **{"name": "own", "start": where, **changes})


def build(builder, definition, tmp_path, starts, name="one", **options):
    (tmp_path / name).mkdir()
    wanted = BuildOptions(
        work_directory=tmp_path / "work", cache_directory=tmp_path / "caches", starts=starts, **options
    )
    output = builder.build(definition, tmp_path / name, wanted, SILENT)
    assert list((tmp_path / "work").iterdir()) == []
    return output


def raw_of(image, place):
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.path, place], check=True)
    return place


def tree_of(raw, tmp_path):
    work = tmp_path / f"look-{raw.name}"
    work.mkdir()
    return {node.path: node for node in Ext4Disk(raw, disks.ROOT_START_BYTES, work).tree()}


def stat_of(raw, path):
    words = ["debugfs", "-R", f"stat {path}", f"{raw}?offset={disks.ROOT_START_BYTES}"]
    return subprocess.check_output(words, stderr=subprocess.DEVNULL, text=True)


def test_an_image_gets_what_is_added_and_keeps_the_rest_where_it_was(tmp_path, start, starts):
    (start.stand_in / "child.sh").write_text(NEW)
    output = build(ImageBuilder(), from_file(start), tmp_path, starts)
    old, new = raw_of(start.image, tmp_path / "old"), raw_of(output.images[0], tmp_path / "new")
    before, after = tree_of(old, tmp_path), tree_of(new, tmp_path)
    assert after.keys() - before.keys() == {"/usr/bin/more"}
    assert before.keys() - after.keys() == {"/data/50", "/data/one"}
    assert after["/data/3"].mode & 0o7777 == 0o600
    assert after["/usr/bin/capable"].mode & 0o7777 == 0o750
    assert "security.capability" in stat_of(new, "/usr/bin/capable")
    assert "User:     7   Group:     8" in stat_of(new, "/data/2")
    assert after["/link"].target == "data/1"
    assert len(after["/long-link"].target) == 100
    changed = written = 0
    with old.open("rb") as first, new.open("rb") as second:
        while block := first.read(4096):
            written += bool(block.strip(b"\0"))
            changed += block != second.read(4096)
    assert 0 < changed < written * 0.2
    assert subprocess.run(["e2fsck", "-fn", f"{new}?offset={disks.ROOT_START_BYTES}"], check=False).returncode == 0
    assert [package.name for package in output.packages] == ["base", "cloud-init", "nftables", "openssh-server"]
    assert output.inputs[0].digest == str(start.image.image.checksum)
    assert output.inputs[0].name == "image base.qcow2"
    assert hashlib.sha512(start.path.read_bytes()).hexdigest() == start.image.image.checksum.hexdigest


def test_identity_and_traces_of_the_start_are_gone(tmp_path, start, starts):
    left = "ssh_host_rsa_key shadow-"
    (start.stand_in / "child.sh").write_text(
        'mkdir -p "$root/etc/apt"; echo secret > "$root/etc/ssh/ssh_host_rsa_key"; '
        'echo deb > "$root/etc/apt/sources.list"; '
        'echo this-machine > "$root/etc/hostname"; mkdir -p "$root/var/lib/cloud/instance"; '
        'echo 1 > "$root/var/lib/cloud/instance/id"; echo 0123 > "$root/etc/machine-id"\n'
    )
    output = build(ImageBuilder(), from_file(start), tmp_path, starts)
    after = tree_of(raw_of(output.images[0], tmp_path / "new"), tmp_path)
    assert not [path for path in after if path.rpartition("/")[2] in left.split()]
    assert not [path for path in after if path.startswith("/var/lib/cloud/")]
    assert after["/etc/machine-id"].size_bytes == 0
    assert after["/etc/hostname"].size_bytes == len("localhost\n")


def test_a_larger_disk_has_a_larger_root(tmp_path, start, starts):
    (start.stand_in / "child.sh").write_text('head -c 120000000 /dev/urandom > "$root/data/large"\n')
    definition = from_file(start, disk_size_bytes=2 * DISK_BYTES)
    output = build(ImageBuilder(), definition, tmp_path, starts)
    assert output.images[0].image.virtual_size_bytes == 2 * DISK_BYTES
    raw = raw_of(output.images[0], tmp_path / "new")
    assert tree_of(raw, tmp_path)["/data/large"].size_bytes == 120000000
    assert subprocess.run(["sfdisk", "--verify", raw], check=False, capture_output=True).returncode == 0


def test_a_disk_that_is_larger_than_said_is_not_cut(tmp_path, start, starts):
    with pytest.raises(BuildError, match=r"more than build\.disk-size"):
        build(ImageBuilder(), from_file(start, disk_size_bytes=DISK_BYTES // 2), tmp_path, starts)


def test_a_child_starts_from_its_parents_image(tmp_path, start, starts):
    (start.stand_in / "child.sh").write_text(NEW)
    parent = BuildResult(
        definition=BASE,
        key="0" * 64,
        directory=start.path.parent,
        images=start.output.images,
        packages=start.output.packages,
        provenance=Provenance(
            definition_digest="", builder="bootstrap", tools=(), started_at=SystemClock().now(), seconds=0
        ),
        verdicts=(),
        reused=False,
        tree=start.output.tree,
    )
    child = replace(BASE, name="child", parent="base", packages=("more",))
    output = build(ImageBuilder(), child, tmp_path, None, ancestors=(parent,))
    assert output.inputs[0].name == "image base"
    with pytest.raises(BuildError, match="takes away"):
        build(
            ImageBuilder(), replace(child, firewall=Firewall(enabled=False)), tmp_path, None, "no", ancestors=(parent,)
        )


@pytest.mark.threat("T25")
def test_other_bytes_than_the_checksum_says_are_refused_before_they_are_opened(tmp_path, start, starts):
    wrong = Start(url=f"file://{start.path}", checksum=f"sha512:{'0' * 128}")
    for number, builder in enumerate((ImageBuilder(), PrebuiltBuilder())):
        with pytest.raises(ChecksumMismatchError, match="other bytes than its checksum"):
            build(builder, from_file(start, start=wrong), tmp_path, starts, f"{number}")


def test_an_image_is_given_on_as_it_is_and_made_of_its_disk_in_other_formats(tmp_path, start, starts):
    definition = from_file(start, formats=(DiskFormat.QCOW2, DiskFormat.RAW))
    output = build(PrebuiltBuilder(), definition, tmp_path, starts)
    assert output.images[0].path.read_bytes() == start.path.read_bytes()
    assert output.images[0].path.stat().st_ino != start.path.stat().st_ino
    command = ["qemu-img", "compare", "-q", start.path, output.images[1].path]
    assert subprocess.run(command, check=False).returncode == 0
    assert "nftables" in {package.name for package in output.packages}


def test_the_disk_of_a_strangers_image_is_left_to_the_audit_as_qemu_read_it(tmp_path, start, starts):
    disks = tmp_path / "disks"
    disks.mkdir()
    output = build(PrebuiltBuilder(), from_file(start), tmp_path, starts, disk_directory=disks)
    assert output.disk is not None
    assert output.disk.parent == disks
    command = ["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", output.disk, output.images[0].path]
    assert subprocess.run(command, check=False).returncode == 0


def test_an_image_that_was_converted_and_not_read_back_is_what_is_audited(tmp_path, start, starts):
    disks = tmp_path / "disks"
    disks.mkdir()
    definition = from_file(start, formats=(DiskFormat.VDI,))
    assert build(PrebuiltBuilder(), definition, tmp_path, starts, disk_directory=disks).disk is None


def test_a_compressed_image_is_unpacked_and_its_disk_is_the_same(tmp_path, start, starts):
    packed = tmp_path / "image.qcow2.gz"
    packed.write_bytes(gzip.compress(start.path.read_bytes(), 1))
    where = Start(url=f"file://{packed}", checksum=f"sha256:{hashlib.sha256(packed.read_bytes()).hexdigest()}")
    output = build(PrebuiltBuilder(), from_file(start, start=where), tmp_path, starts)
    command = ["qemu-img", "compare", "-q", start.path, output.images[0].path]
    assert subprocess.run(command, check=False).returncode == 0
    assert output.inputs[0].digest == where.checksum


def test_what_is_said_of_an_image_and_is_not_so_is_told_at_once(tmp_path, start, starts):
    context = replace(BASE.contextualisation, guest_agent=True)
    definition = from_file(start, contextualisation=context, access=replace(BASE.access, vnc=True))
    with pytest.raises(BuildError, match=r"access\.vnc") as caught:
        build(PrebuiltBuilder(), definition, tmp_path, starts)
    assert "contextualisation.guest-agent" in (caught.value.details or "")
    with pytest.raises(BuildError, match=r"build\.disk-size is"):
        build(PrebuiltBuilder(), from_file(start, disk_size_bytes=2 * DISK_BYTES), tmp_path, starts, "two")


@pytest.mark.threat("T30")
def test_what_is_no_image_or_refers_elsewhere_is_refused(tmp_path, start, starts):
    backed = tmp_path / "backed.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", start.path, backed]
    subprocess.run(command, check=True)
    text = tmp_path / "text.img"
    text.write_bytes(b"no image" * 100)
    for path in (backed, text):
        where = Start(url=f"file://{path}", checksum=f"sha512:{hashlib.sha512(path.read_bytes()).hexdigest()}")
        with pytest.raises(ImageRefusedError):
            build(PrebuiltBuilder(), from_file(start, start=where), tmp_path, starts, path.stem)


def test_what_was_fetched_once_is_not_fetched_again(tmp_path, start, starts):
    with StaticServer(start.path.parent) as server:
        where = Start(url=server.url(f"/{start.path.name}"), checksum=str(start.image.image.checksum))
        output = build(PrebuiltBuilder(), from_file(start, start=where), tmp_path, starts)
        assert output.inputs[0].uri == where.url
    again = build(PrebuiltBuilder(), from_file(start, start=where), tmp_path, starts, "two")
    assert again.images[0].image.checksum == start.image.image.checksum


def test_an_image_that_cannot_be_had_is_a_transfer_error(tmp_path, start, starts):
    with StaticServer(start.path.parent) as server:
        where = Start(url=server.url("/nothing"), checksum=str(start.image.image.checksum))
        with pytest.raises(TransferError):
            build(PrebuiltBuilder(), from_file(start, start=where), tmp_path, starts)
    missing = Start(url="file:///nowhere/image", checksum=str(start.image.image.checksum))
    with pytest.raises(BuildError, match="no image at"):
        build(PrebuiltBuilder(), from_file(start, start=missing), tmp_path, starts, "two")


@pytest.fixture
def signed(tmp_path, start):
    """A folder as distributions have them: an image, its checksums, their signature."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "image.qcow2").hardlink_to(start.path)
    with GnuPg(at=SIGNED - 30 * DAY) as home:
        key = home.make_key("publisher")

        def sign(text, at):
            (folder / "SHA512SUMS").write_bytes(text.encode())
            (folder / "SHA512SUMS.sign").write_bytes(home.sign_detached(text.encode(), key, at=at))

        sign(f"{start.image.image.checksum.hexdigest}  image.qcow2\n", SIGNED)
        place = f"file://{folder}"
        yield SimpleNamespace(
            start=Start(
                url=f"{place}/image.qcow2",
                checksums=f"{place}/SHA512SUMS",
                signature=f"{place}/SHA512SUMS.sign",
                key=home.export(key),
            ),
            sign=sign,
            folder=folder,
            other=home.export(home.make_key("other")),
        )


@pytest.mark.threat("T22")
def test_signed_checksums_vouch_older_ones_are_refused_and_other_bytes_told(tmp_path, start, starts, signed):
    told = []
    monitor = SimpleNamespace(message=told.append, task=SILENT.task)
    output = build(PrebuiltBuilder(), from_file(start, start=signed.start), tmp_path, starts)
    assert output.inputs[0].digest == str(start.image.image.checksum)
    others = f"{'0' * 128}  image.qcow2\n"
    for at in (SIGNED - DAY, SIGNED):
        signed.sign(others, at)
        with pytest.raises(OlderListError, match="was signed on"):
            starts.take(signed.start, tmp_path, monitor)
    assert told == []
    signed.sign(others, SIGNED + DAY)
    with pytest.raises(ChecksumMismatchError):
        starts.take(signed.start, tmp_path, monitor)
    assert [line for line in told if "has other bytes than the last time" in line]
    signed.sign(f"{'1' * 128}  other.qcow2\n", SIGNED + 2 * DAY)
    with pytest.raises(BuildError, match=r"no checksum of image\.qcow2"):
        starts.take(signed.start, tmp_path, monitor)


@pytest.mark.threat("T22")
def test_checksums_that_nobody_pinned_signed_are_refused(tmp_path, start, starts, signed):
    with pytest.raises(TrustError):
        starts.take(replace(signed.start, key=signed.other), tmp_path, SILENT)
    (signed.folder / "SHA512SUMS").write_text(f"{'0' * 128}  image.qcow2\n")
    with pytest.raises(TrustError):
        starts.take(signed.start, tmp_path, SILENT)


def test_an_image_of_a_running_machine_is_refused(tmp_path, start, starts):
    raw = raw_of(start.image, tmp_path / "dirty.raw")
    with raw.open("r+b") as stream:
        stream.seek(disks.ROOT_START_BYTES + 1024 + 0x60)
        features = int.from_bytes(stream.read(4), "little") | 0x4
        stream.seek(-4, os.SEEK_CUR)
        stream.write(features.to_bytes(4, "little"))
    where = Start(url=f"file://{raw}", checksum=f"sha512:{hashlib.sha512(raw.read_bytes()).hexdigest()}")
    with pytest.raises(BuildError, match="was in use"):
        build(ImageBuilder(), from_file(start, start=where), tmp_path, starts)


CACHE = Path(os.environ.get("COPPICE_TEST_CACHE", Path(__file__).parents[2] / ".cache" / "tests")) / "images"
ADDED = {
    "packages": ("jq",),
    "files": (DefinedFile(path="/etc/greeting", content=b"hello ${who}\n", mode=0o640, group="adm", is_template=True),),
    "variables": {"who": "world"},
    "provisioners": (
        Provisioner(
            name="say",
            kind=ProvisionerKind.SHELL,
            files={"say.sh": b"#!/bin/sh -eu\njq --version > /etc/said\ncat /etc/greeting >> /etc/said\n"},
            entry="say.sh",
        ),
    ),
}


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_a_real_image_gets_a_package_a_file_and_what_a_script_does(tmp_path, starts, monkeypatch):
    # The stand-in of the tests before is not for this one.
    real = [each for each in os.environ["PATH"].split(os.pathsep) if not Path(each, "base.sh").exists()]
    monkeypatch.setenv("PATH", os.pathsep.join(real))
    (tmp_path / "base").mkdir()
    options = BuildOptions(work_directory=tmp_path / "work", cache_directory=CACHE)
    base = BootstrapBuilder().build(SHIPPED, tmp_path / "base", options, SILENT).images[0]
    where = Start(url=f"file://{base.path}", checksum=str(base.image.checksum))
    definition = replace(SHIPPED, name="own", start=where, **ADDED)
    (tmp_path / "own").mkdir()
    output = ImageBuilder().build(definition, tmp_path / "own", replace(options, starts=starts), SILENT)
    assert {"jq", "cloud-init"} <= {package.name for package in output.packages}
    raw = raw_of(output.images[0], tmp_path / "new")
    (tmp_path / "look").mkdir()
    tree = Ext4Disk(raw, disks.ROOT_START_BYTES, tmp_path / "look").tree()
    assert (tree.text("/etc/said") or "").splitlines() == ["jq-1.6", "hello world"]
    greeting, jq = tree.get("/etc/greeting"), tree.find("/usr/bin/jq")
    assert greeting is not None
    assert jq is not None
    assert (greeting.mode & 0o7777, greeting.group) == (0o640, 4)
    assert [each.name for each in output.inputs if each.name.startswith("provisioner")] == ["provisioner say"]
    report = audit(output.images[0], definition, work_directory=tmp_path, clock=SystemClock())
    assert report.inventory.find("/usr/bin/jq") is not None
