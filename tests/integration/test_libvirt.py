# SPDX-License-Identifier: Apache-2.0
"""What only a libvirt can be asked: machines that boot, files that others are based on, daemons that fall over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.libvirt_pool import naming
from coppice.cloud.model import ImageState
from coppice.cloud.properties import presentation_of
from coppice.errors import (
    ChecksumMismatchError,
    CloudChecksumError,
    CloudError,
    CloudFaultError,
    CloudForbiddenError,
    CloudImageInUseError,
    CloudNameTakenError,
    CloudQuotaError,
    CloudTimeoutError,
    CloudUnreachableError,
    MarkerError,
    SettingsError,
)
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat
from coppice.model.requirements import DiskBus, Requirements
from coppice.monitor import SILENT, SILENT_TASK
from coppice.testing.contracts.stand import described, register, to_state
from coppice.testing.desired import converted_image, desired_image, marker_of
from coppice.testing.libvirt_stand import SAID, LibvirtStand
from coppice.testing.libvirtd import POOL, SMALL_POOL, SMALL_POOL_BYTES, Libvirtd, library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from coppice.cloud.model import RegisteredImage
    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Task, Unit

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
_WAIT_SECONDS = 60.0


class Meddling:
    """A monitor that does something once, when a task of a name has come some way."""

    def __init__(self, label: str, deed: Callable[[], None]) -> None:
        self._label = label
        self._deed: Callable[[], None] | None = deed

    @contextmanager
    def task(self, label: str, *, total: int | None = None, unit: Unit | None = None) -> Iterator[Task]:
        del total, unit
        yield self if label.startswith(self._label) else SILENT_TASK

    def message(self, text: str) -> None:
        del text

    def advance(self, amount: int) -> None:
        del amount
        deed, self._deed = self._deed, None
        if deed is not None:
            deed()

    def reach(self, amount: int, total: int | None = None) -> None:
        del amount, total

    def note(self, text: str) -> None:
        del text


@pytest.fixture
def stand(libvirtd: Libvirtd) -> Iterator[LibvirtStand]:
    libvirtd.clear()
    stand = LibvirtStand(libvirtd)
    yield stand
    stand.close()


@pytest.fixture
def frail(tmp_path: Path) -> Iterator[LibvirtStand]:
    """Return a stand on a libvirtd of its own, to which anything may happen."""
    with Libvirtd(tmp_path / "libvirtd") as daemon:
        stand = LibvirtStand(daemon)
        yield stand
        stand.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def noise(store: Path, megabytes: int) -> ConvertedImage:
    """Return a raw image that holds as much noise."""
    data = random.Random(7).randbytes(megabytes * MIB)  # noqa: S311 - content for tests
    converted = converted_image(desired_image(), store, data)
    return replace(converted, image=replace(converted.image, format=DiskFormat.RAW, virtual_size_bytes=len(data)))


def sent(stand: LibvirtStand, converted: ConvertedImage, monitor: Any = SILENT, **placing: Any) -> RegisteredImage:
    """Register an image under the marker of `desired_image`."""
    desired = desired_image()
    cloud = stand.of_site(stand.cloud.site, **placing)
    return cloud.register(converted, marker_of(desired), presentation_of(desired), monitor)


def console_of(machine: Any, connection: Any) -> bytes:
    """Return what a paused machine says when it runs on, until it said `SAID`."""
    stream = connection.newStream(0)
    machine.openConsole(None, stream, 0)
    said = bytearray()

    def listen() -> None:
        while SAID not in said and (got := stream.recv(1024)):
            said.extend(got)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    machine.resume()
    listener.join(_WAIT_SECONDS)
    return bytes(said)


def test_a_machine_boots_from_the_current_version_and_the_image_stays_as_it_was(
    stand: LibvirtStand, store: Path
) -> None:
    image = register(stand, desired_image(), store)
    before = stand.path(image).read_bytes()
    current, own = stand.current(image), stand.machine(image)
    assert current is not None
    for machine in (current, own):
        # Both at once: they share the disk.
        machine.createWithFlags(library().VIR_DOMAIN_START_PAUSED)
    assert SAID in console_of(current, stand.connection)
    assert stand.cloud.in_use(image)
    for machine in (current, own):
        machine.destroy()
    assert not stand.cloud.in_use(image)
    assert stand.path(image).read_bytes() == before
    assert [path.name for path in stand.pool.iterdir()] == [stand.path(image).name]


@pytest.mark.threat("T36")
@pytest.mark.parametrize("state", sorted(ImageState))
def test_libvirt_itself_starts_what_may_start_and_says_why_not(
    stand: LibvirtStand, store: Path, state: ImageState
) -> None:
    image = to_state(stand.cloud, register(stand, desired_image(), store), state)
    startable = state in {ImageState.AVAILABLE, ImageState.STAGED, ImageState.SUPERSEDED}
    assert stand.can_start(image) is startable
    # The suite of clouds looks at the definition alone, which takes less time: it is not wrong in that.
    stand.starts = True
    assert stand.can_start(image) is startable
    if not startable:
        with pytest.raises(library().libvirtError, match=f"not-startable-{state}"):
            stand.machine(image).create()
        assert f"Version 1: {state}" in stand.machine(image).metadata(0, None)


def test_a_machine_is_of_the_best_kind_that_there_is_and_has_a_network_of_its_own(
    stand: LibvirtStand, store: Path
) -> None:
    desired = desired_image()
    cloud = stand.of_site(stand.cloud.site, hypervisor="auto", network="user")
    image = cloud.register(stand.convert(desired, store), marker_of(desired), presentation_of(desired), SILENT)
    xml = stand.machine(image).XMLDesc(0)
    assert "<domain type='kvm'" in xml or "<domain type='qemu'" in xml
    assert "<interface type='user'>" in xml
    assert naming.network_address(image.cloud_identifier) in xml


@pytest.mark.parametrize("bus", [DiskBus.SCSI, DiskBus.SATA, DiskBus.IDE])
def test_a_machine_starts_from_a_disk_on_the_bus_that_its_image_asks_for(
    stand: LibvirtStand, store: Path, bus: DiskBus
) -> None:
    desired = desired_image()
    converted = replace(stand.convert(desired, store), hardware=Requirements(disk_bus=bus))
    image = stand.cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
    before = stand.path(image).read_bytes()
    stand.starts = True
    assert stand.can_start(image)
    assert stand.path(image).read_bytes() == before


def test_what_this_libvirt_cannot_do_is_said_before_anything_is_sent(stand: LibvirtStand, store: Path) -> None:
    desired = desired_image()
    shown = presentation_of(desired)
    arm = replace(shown, facts={**shown.facts, "architecture": "aarch64"})
    with pytest.raises(CloudError) as caught:
        stand.cloud.register(stand.convert(desired, store), marker_of(desired), arm, SILENT)
    assert caught.value.resolution
    assert stand.connection.listAllDomains(0) == []
    assert list(stand.pool.iterdir()) == []


@pytest.mark.threat("T37")
def test_what_runs_from_the_former_version_goes_on_and_keeps_it(stand: LibvirtStand, store: Path) -> None:
    old = register(stand, desired_image(version="1"), store)
    current = stand.current(old)
    assert current is not None
    current.createWithFlags(library().VIR_DOMAIN_START_PAUSED)
    new = register(stand, desired_image(version="2"), store)
    assert stand.is_listed(new)
    old = to_state(stand.cloud, old, ImageState.SUPERSEDED)
    assert stand.cloud.in_use(old)
    assert not stand.cloud.in_use(new)
    with pytest.raises(CloudImageInUseError):
        stand.cloud.remove(old)
    assert set(stand.cloud.describe()) == {old, new}
    assert stand.can_start(old)
    assert current.isActive()
    current.destroy()
    stand.cloud.remove(old)
    assert stand.cloud.describe() == (new,)
    assert [path.name for path in stand.pool.iterdir()] == [stand.path(new).name]


def test_the_last_version_is_hidden_and_removed_while_its_machine_of_before_runs(
    stand: LibvirtStand, store: Path
) -> None:
    image = register(stand, desired_image(), store)
    current = stand.current(image)
    assert current is not None
    current.createWithFlags(library().VIR_DOMAIN_START_PAUSED)
    gone = to_state(stand.cloud, image, ImageState.WITHDRAWN)
    assert current.isActive()
    assert not stand.is_listed(gone)
    with pytest.raises(CloudImageInUseError):
        stand.cloud.remove(gone)
    current.destroy()
    stand.cloud.remove(gone)
    assert stand.cloud.describe() == ()
    # What led to it was kept for the machine, and is found.
    (left,) = stand.cloud.leftovers()
    assert left.can_be_cleared
    stand.cloud.clear(left)
    assert stand.connection.listAllDomains(0) == []


@pytest.mark.threat("T37")
@pytest.mark.parametrize("place", ["pool", "elsewhere"])
def test_an_image_that_another_file_is_based_on_is_in_use(
    stand: LibvirtStand, store: Path, place: str, tmp_path: Path
) -> None:
    image = to_state(stand.cloud, register(stand, desired_image(), store), ImageState.EXPIRED)
    directory = stand.pool
    if place == "elsewhere":
        directory = stand.pool.parent / "more"
        stand.libvirtd.add_pool(stand.connection, "more", directory)
    overlay = directory / "mine.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(stand.path(image)), str(overlay)]
    # Past libvirt, which has to look.
    subprocess.run(argv, check=True, cwd=tmp_path)
    try:
        assert stand.cloud.in_use(image)
        with pytest.raises(CloudImageInUseError):
            stand.cloud.remove(image)
        assert stand.cloud.describe() == (image,)
        overlay.unlink()
        assert not stand.cloud.in_use(image)
    finally:
        if place == "elsewhere":
            more = stand.connection.storagePoolLookupByName("more")
            more.destroy()
            more.undefine()


@pytest.mark.threat("T37")
def test_an_image_that_somebodys_own_machine_has_as_its_disk_is_in_use(stand: LibvirtStand, store: Path) -> None:
    image = register(stand, desired_image(), store)
    theirs = stand.connection.defineXML(
        "<domain type='qemu'><name>theirs</name><memory>65536</memory><os><type>hvm</type></os><devices>"
        f"<disk type='file'><source file='{stand.path(image)}'/><target dev='vda'/></disk></devices></domain>"
    )
    assert stand.cloud.in_use(image)
    theirs.undefine()
    assert not stand.cloud.in_use(image)


def test_a_copy_of_a_definition_is_its_makers_marker_or_not(stand: LibvirtStand, store: Path) -> None:
    image = register(stand, desired_image(), store)
    xml = stand.machine(image).XMLDesc(0)
    copy = xml.replace(f"<uuid>{image.cloud_identifier}</uuid>", "").replace(f"<name>{image.name}<", "<name>mine<")
    mine = stand.connection.defineXML(copy)
    assert stand.cloud.describe() == (image,)
    mine.undefine()
    stand.cloud.remove(image)
    assert stand.cloud.describe() == ()


def test_two_available_versions_are_one_that_is_led_to_and_the_older_takes_over_when_the_newer_goes(
    stand: LibvirtStand, store: Path
) -> None:
    old = register(stand, desired_image(version="1"), store)
    new = register(stand, desired_image(version="2"), store)
    identifiers = [machine.UUIDString() for machine in stand.connection.listAllDomains(0)]
    assert naming.current_uuid(new.marker.site, str(new.marker.key)) in identifiers
    to_state(stand.cloud, new, ImageState.REVOKED, reason="the test says so")
    assert stand.is_listed(old)
    assert all(image.drift is None for image in stand.cloud.describe())


@pytest.mark.threat("T88")
def test_somebody_elses_machine_of_the_very_name_is_left_and_told(stand: LibvirtStand, store: Path) -> None:
    desired = desired_image()
    name = naming.current_name(marker_of(desired), presentation_of(desired).name)
    stand.add_foreign(name)
    with pytest.raises(CloudNameTakenError, match=name):
        register(stand, desired, store)
    assert stand.foreign_is_whole()
    # Its file is there, and is not sent again and again while the name is taken.
    (image,) = stand.cloud.describe()
    assert image.ready
    assert image.drift is not None
    stand.connection.lookupByName(name).undefine()
    assert stand.cloud.change_state(image, image.marker).drift is None
    assert stand.is_listed(image)


def test_what_a_machine_wrote_whose_host_went_down_is_seen_and_taken_out_of_the_way(
    stand: LibvirtStand, store: Path
) -> None:
    image = register(stand, desired_image(), store)
    (stand.pool / naming.overlay_name(stand.path(image).name, image.name)).write_bytes(b"left")
    found = described(stand.cloud, image)
    assert found.drift is not None
    assert "in the way" in found.drift
    stand.starts = True
    assert not stand.can_start(image)
    assert not stand.cloud.in_use(image)
    mended = stand.cloud.change_state(found, found.marker)
    assert mended.drift is None
    assert stand.can_start(mended)


def test_what_a_running_machine_writes_is_nobodys_leftover(stand: LibvirtStand, store: Path) -> None:
    image = register(stand, desired_image(), store)
    stand.use(image)
    assert any(naming.OVERLAY in path.name for path in stand.pool.iterdir())
    assert stand.cloud.leftovers() == ()
    (now,) = stand.cloud.describe()
    assert now == image
    stand.end_use(image)


def test_a_definition_whose_machines_would_write_to_the_image_is_not_as_it_should_be(
    stand: LibvirtStand, store: Path
) -> None:
    image = register(stand, desired_image(), store)
    xml = stand.machine(image).XMLDesc(0)
    stand.connection.defineXML(xml.replace("<transient shareBacking='yes'/>", ""))
    found = described(stand.cloud, image)
    assert found.drift == "a machine that is started from it would write to it"
    assert stand.cloud.change_state(found, found.marker).drift is None


def test_a_record_that_cannot_be_read_is_an_error_that_names_the_definition(stand: LibvirtStand, store: Path) -> None:
    image = register(stand, desired_image(), store)
    xml = stand.machine(image).XMLDesc(0)
    stand.connection.defineXML(xml.replace('"marker": {', '"marker": ['))
    with pytest.raises(MarkerError, match=image.cloud_identifier):
        stand.cloud.describe()


def test_holes_of_an_image_are_sent_as_holes(stand: LibvirtStand, store: Path) -> None:
    converted = noise(store, 1)
    length = 64 * MIB
    with converted.path.open("r+b") as stream:
        stream.truncate(length)
    with converted.path.open("rb") as stream:
        checksum = Checksum.of(stream.read())
    facts = replace(converted.image, size_bytes=length, virtual_size_bytes=length, checksum=checksum)
    image = sent(stand, replace(converted, image=facts))
    assert image.ready
    (path,) = stand.pool.iterdir()
    assert path.suffix == ".raw"
    assert path.stat().st_size == length
    assert path.stat().st_blocks * 512 < 16 * MIB


def test_an_image_whose_bytes_changed_after_conversion_is_not_registered(stand: LibvirtStand, store: Path) -> None:
    converted = noise(store, 1)
    for content in (bytes(MIB), b"short"):
        converted.path.write_bytes(content)
        with pytest.raises(ChecksumMismatchError):
            sent(stand, converted)
        assert stand.cloud.describe() == ()
        assert list(stand.pool.iterdir()) == []


@pytest.mark.parametrize("verify", [True, False])
def test_bytes_that_change_on_the_way_are_seen_when_they_are_read_back(
    stand: LibvirtStand, store: Path, *, verify: bool
) -> None:
    def damage() -> None:
        (path,) = stand.pool.iterdir()
        with path.open("r+b") as stream:
            stream.seek(MIB // 2)
            stream.write(b"rotten")

    class Late(Meddling):
        @contextmanager
        def task(self, label: str, *, total: int | None = None, unit: Unit | None = None) -> Iterator[Task]:
            yield SILENT_TASK
            if label.startswith("upload"):
                damage()

    monitor = Late("upload", damage)
    if not verify:
        assert sent(stand, noise(store, 1), monitor, verify=False).ready
        return
    with pytest.raises(CloudChecksumError):
        sent(stand, noise(store, 1), monitor)
    assert stand.cloud.describe() == ()
    assert list(stand.pool.iterdir()) == []


@pytest.mark.threat("T88")
def test_a_pool_without_room_refuses_before_anything_is_sent_and_keeps_nothing(
    stand: LibvirtStand, store: Path
) -> None:
    with pytest.raises(CloudQuotaError, match="bytes left"):
        sent(stand, noise(store, 5), pool=SMALL_POOL)
    assert stand.cloud.describe() == ()
    assert stand.connection.listAllDomains(0) == []


@pytest.mark.threat("T88")
def test_a_pool_that_is_full_while_an_image_is_sent_keeps_nothing_of_it(stand: LibvirtStand, store: Path) -> None:
    def fill() -> None:
        with stand.libvirtd.connection() as connection:
            size = SMALL_POOL_BYTES * 3 // 4
            connection.storagePoolLookupByName(SMALL_POOL).createXML(
                f"<volume><name>theirs</name><capacity>{size}</capacity><allocation>{size}</allocation></volume>", 0
            )

    with pytest.raises(CloudQuotaError, match="No space left"):
        sent(stand, noise(store, 3), Meddling("upload", fill), pool=SMALL_POOL)
    assert stand.cloud.describe() == ()
    pool = stand.connection.storagePoolLookupByName(SMALL_POOL)
    pool.refresh(0)
    assert [volume.name() for volume in pool.listAllVolumes(0)] == ["theirs"]
    pool.storageVolLookupByName("theirs").delete(0)
    assert sent(stand, noise(store, 3), pool=SMALL_POOL).ready


@pytest.mark.threat("T88")
def test_a_pool_that_cannot_be_looked_into_is_an_error_and_no_absence(stand: LibvirtStand, store: Path) -> None:
    image = register(stand, desired_image(), store)
    pool = stand.connection.storagePoolLookupByName(POOL)
    pool.destroy()
    try:
        for ask in (stand.cloud.describe, stand.cloud.leftovers, lambda: stand.cloud.in_use(image)):
            with pytest.raises(CloudFaultError, match="not active"):
                ask()
    finally:
        pool.create(0)
    assert stand.cloud.describe() == (image,)
    with pytest.raises(CloudError, match="no storage pool nowhere"):
        stand.of_site("test-site", pool="nowhere").describe()


@pytest.mark.threat("T88")
def test_a_pool_that_may_not_be_written_is_told_and_nothing_is_left(stand: LibvirtStand, store: Path) -> None:
    stand.pool.chmod(0o555)
    try:
        with pytest.raises(CloudForbiddenError) as caught:
            register(stand, desired_image(), store)
    finally:
        stand.pool.chmod(0o755)
    assert caught.value.resolution
    assert stand.cloud.describe() == ()
    assert stand.connection.listAllDomains(0) == []


@pytest.mark.threat("T88")
def test_an_image_whose_file_somebody_deleted_is_not_ready_and_is_made_anew(stand: LibvirtStand, store: Path) -> None:
    image = register(stand, desired_image(), store)
    stand.path(image).unlink()
    found = described(stand.cloud, image)
    assert not found.ready
    assert found.problem is not None
    assert "is not in the pool" in found.problem
    assert not stand.cloud.in_use(found)
    assert register(stand, desired_image(), store) == image
    assert stand.can_start(image)
    assert stand.is_listed(image)


def test_a_pool_of_another_kind_is_refused(stand: LibvirtStand) -> None:
    library_of_disks = "<pool type='mpath'><name>disks</name><target><path>/dev/mapper</path></target></pool>"
    pool = stand.connection.storagePoolCreateXML(library_of_disks, 0)
    try:
        with pytest.raises(SettingsError, match="mpath"):
            stand.of_site("test-site", pool="disks").describe()
    finally:
        pool.destroy()


def test_nobody_there_is_an_error_and_no_absence(stand: LibvirtStand, tmp_path: Path) -> None:
    with pytest.raises(CloudUnreachableError):
        stand.of_site("test-site", uri=f"qemu+unix:///session?socket={tmp_path}/nothing").describe()


@pytest.mark.threat("T88")
def test_a_daemon_that_is_killed_while_an_image_is_sent_leaves_what_the_next_run_makes_whole(
    frail: LibvirtStand, store: Path
) -> None:
    old = register(frail, desired_image(version="0"), store)
    with pytest.raises(CloudUnreachableError):
        sent(frail, noise(store, 8), Meddling("upload", frail.libvirtd.kill))
    with pytest.raises(CloudUnreachableError):
        frail.cloud.describe()
    frail.libvirtd.resume()
    frail.connection = library().open(frail.libvirtd.uri)
    half = {image.marker.version: image for image in frail.cloud.describe()}
    assert half["0"] == old
    assert not half["1"].ready
    assert half["1"].problem == "its registration did not end"
    assert frail.can_start(old)
    assert frail.is_listed(old)
    assert sent(frail, noise(store, 8)).ready
    assert all(image.ready for image in frail.cloud.describe())
    assert frail.cloud.leftovers() == ()


def test_a_daemon_that_was_started_anew_is_spoken_to_anew(frail: LibvirtStand, store: Path) -> None:
    image = register(frail, desired_image(), store)
    frail.libvirtd.kill()
    frail.libvirtd.resume()
    assert frail.cloud.describe() == (image,)


@pytest.mark.threat("T88")
def test_a_daemon_that_hangs_is_given_up_and_nothing_is_changed_afterwards(frail: LibvirtStand, store: Path) -> None:
    image = register(frail, desired_image(), store)
    hasty = frail.of_site("test-site", call_seconds=1.0)
    assert hasty.describe() == (image,)
    (process,) = frail.libvirtd.processes
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(CloudTimeoutError, match="did not answer"):
            hasty.describe()
        with pytest.raises(CloudTimeoutError):
            to_state(hasty, image, ImageState.WITHDRAWN)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    assert hasty.describe() == (image,)
    assert frail.cloud.describe() == (image,)


def test_the_file_of_an_image_that_somebody_undefined_is_found_and_kept_while_something_uses_it(
    stand: LibvirtStand, store: Path, tmp_path: Path
) -> None:
    image = register(stand, desired_image(), store)
    overlay = stand.pool / "mine.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(stand.path(image)), str(overlay)]
    subprocess.run(argv, check=True, cwd=tmp_path)
    stand.delete_behind(image)
    found = {left.identifier: left for left in stand.cloud.leftovers()}
    file = found[f"{POOL}/{stand.path(image).name}"]
    assert not file.can_be_cleared
    with pytest.raises(CloudImageInUseError):
        stand.cloud.clear(file)
    overlay.unlink()
    for left in stand.cloud.leftovers():
        assert left.can_be_cleared
        stand.cloud.clear(left)
    assert stand.connection.listAllDomains(0) == []
    assert list(stand.pool.iterdir()) == []


def test_an_image_that_somebody_undefined_while_it_runs_is_registered_again_without_harm_to_it(
    stand: LibvirtStand, store: Path
) -> None:
    image = register(stand, desired_image(), store)
    current = stand.current(image)
    assert current is not None
    current.createWithFlags(library().VIR_DOMAIN_START_PAUSED)
    inode = stand.path(image).stat().st_ino
    stand.delete_behind(image)
    again = register(stand, desired_image(), store)
    assert again == image
    assert stand.path(image).stat().st_ino == inode
    assert current.isActive()
    current.destroy()
    assert stand.can_start(again)
