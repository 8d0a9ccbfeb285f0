# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from coppice.cloud.directory import DirectoryCloud
from coppice.cloud.memory import MemoryCloud, StoredImage
from coppice.cloud.model import ImageState
from coppice.cloud.properties import STATE, presentation_of
from coppice.errors import ChecksumMismatchError, CloudError, StorageError
from coppice.monitor import SILENT
from coppice.testing.desired import LATER, NOW, SITE, content_of, converted_image, desired_image, marker_of

if TYPE_CHECKING:
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import DesiredImage, RegisteredImage

pytestmark = pytest.mark.contract


class Stand(Protocol):
    """What the suite needs to know of a member beyond its methods."""

    cloud: Cloud

    def of_site(self, site: str) -> Cloud: ...

    def add_foreign(self) -> None: ...

    def foreign_is_whole(self) -> bool: ...

    def break_off(self, image: RegisteredImage) -> None: ...

    def damage_marker(self, image: RegisteredImage) -> None: ...

    def can_start(self, image: RegisteredImage) -> bool: ...

    def is_listed(self, image: RegisteredImage) -> bool: ...


class MemoryStand:
    def __init__(self, path: Path) -> None:
        self.cloud = MemoryCloud("test", SITE)

    def of_site(self, site: str) -> Cloud:
        other = MemoryCloud("test", site)
        other.images = self.cloud.images
        other._numbers = self.cloud._numbers
        return other

    def add_foreign(self) -> None:
        self.cloud.images["foreign"] = StoredImage(name="theirs", properties={"owner": "them"}, checksum="x")

    def foreign_is_whole(self) -> bool:
        return self.cloud.images["foreign"].properties == {"owner": "them"}

    def break_off(self, image: RegisteredImage) -> None:
        self.cloud.images[image.cloud_identifier].ready = False

    def damage_marker(self, image: RegisteredImage) -> None:
        self.cloud.images[image.cloud_identifier].properties[STATE] = "ripe"

    def can_start(self, image: RegisteredImage) -> bool:
        try:
            self.cloud.start_machine(image.cloud_identifier)
        except CloudError:
            return False
        self.cloud.stop_machines(image.cloud_identifier)
        return True

    def is_listed(self, image: RegisteredImage) -> bool:
        return self.cloud.images[image.cloud_identifier].properties[STATE] == ImageState.AVAILABLE


class DirectoryStand:
    def __init__(self, path: Path) -> None:
        self.path = path / "cloud"
        self.cloud = DirectoryCloud("test", SITE, self.path)

    def of_site(self, site: str) -> Cloud:
        return DirectoryCloud("test", site, self.path)

    def add_foreign(self) -> None:
        for name in ("theirs", ".coppice-theirs-0123456789ab.partial"):
            foreign = self.path / name
            foreign.mkdir(parents=True)
            (foreign / "disk.qcow2").write_bytes(b"theirs")
        (self.path / "theirs" / "image.json").write_text("{not json")

    def foreign_is_whole(self) -> bool:
        return all(
            (self.path / name / "disk.qcow2").read_bytes() == b"theirs"
            for name in ("theirs", ".coppice-theirs-0123456789ab.partial")
        )

    def break_off(self, image: RegisteredImage) -> None:
        whole = self.path / image.cloud_identifier
        partial = self.path / f".coppice-{image.cloud_identifier}-00000000000f.partial"
        whole.rename(partial)
        (partial / "disk.qcow2").unlink()
        (partial / "disk.qcow2").write_bytes(b"half")
        shutil.rmtree(self.path / "current")

    def damage_marker(self, image: RegisteredImage) -> None:
        path = self.path / image.cloud_identifier / "image.json"
        document = json.loads(path.read_text())
        document["properties"][STATE] = "ripe"
        path.write_text(json.dumps(document))

    def can_start(self, image: RegisteredImage) -> bool:
        folder = self.path / image.cloud_identifier
        there = {(folder / name).exists() for name in ("disk.qcow2", "run-qemu.sh")}
        assert len(there) == 1
        return there == {True}

    def is_listed(self, image: RegisteredImage) -> bool:
        folder = (self.path / image.cloud_identifier).resolve()
        return any(link.resolve() == folder for link in (self.path / "current").iterdir())


@pytest.fixture(params=[MemoryStand, DirectoryStand], ids=["memory", "directory"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Stand:
    return request.param(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def register(cloud: Cloud, desired: DesiredImage, store: Path, **changes: object) -> RegisteredImage:
    marker = replace(marker_of(desired, site=cloud.site), **changes)  # type: ignore[arg-type]
    return cloud.register(converted_image(desired, store), marker, presentation_of(desired), SILENT)


def to_state(cloud: Cloud, image: RegisteredImage, state: ImageState) -> RegisteredImage:
    return cloud.change_state(image, replace(image.marker, state=state, state_since=NOW + timedelta(days=1)))


def test_what_was_registered_is_described_with_the_marker_that_was_given(stand: Stand, store: Path):
    desired = desired_image()
    marker = marker_of(desired)
    registered = stand.cloud.register(converted_image(desired, store), marker, presentation_of(desired), SILENT)
    assert registered.marker == marker
    assert registered.ready
    assert stand.cloud.describe() == (registered,)
    assert stand.can_start(registered)
    assert stand.is_listed(registered)


def test_an_empty_cloud_has_no_images(stand: Stand):
    assert stand.cloud.describe() == ()


def test_a_marker_with_a_pin_and_without_an_end_comes_back_as_it_was(stand: Stand, store: Path):
    registered = register(stand.cloud, desired_image(), store, pin="1", expires=None)
    described = stand.cloud.describe()[0].marker
    assert (described.pin, described.expires) == ("1", None)
    assert described == registered.marker


def test_registering_twice_gives_the_same_image(stand: Stand, store: Path):
    first = register(stand.cloud, desired_image(), store)
    assert register(stand.cloud, desired_image(), store) == first
    assert len(stand.cloud.describe()) == 1


def test_describe_gives_every_image_in_one_order(stand: Stand, store: Path):
    wanted = [desired_image(name, version) for name in ("a", "b", "c") for version in ("1", "2")]
    for desired in wanted:
        register(stand.cloud, desired, store)
    described = stand.cloud.describe()
    assert {(image.marker.key, image.marker.version) for image in described} == {
        (desired.key, desired.listed.version) for desired in wanted
    }
    assert stand.cloud.describe() == described


@pytest.mark.threat("T41")
def test_the_same_image_of_two_lists_is_two_images(stand: Stand, store: Path):
    one = register(stand.cloud, desired_image(of_list="a"), store)
    two = register(stand.cloud, desired_image(of_list="b"), store)
    stand.cloud.remove(one)
    assert stand.cloud.describe() == (two,)
    assert stand.can_start(two)
    assert stand.is_listed(two)


@pytest.mark.parametrize(
    ("state", "startable", "listed"),
    [
        (ImageState.SUPERSEDED, True, False),
        (ImageState.EXPIRED, False, False),
        (ImageState.WITHDRAWN, False, False),
    ],
)
def test_a_state_shows_in_what_can_be_started_and_what_is_listed(
    stand: Stand, store: Path, state: ImageState, *, startable: bool, listed: bool
):
    image = register(stand.cloud, desired_image(), store)
    changed = to_state(stand.cloud, image, state)
    assert changed.marker.state is state
    assert changed.marker.state_since == NOW + timedelta(days=1)
    assert changed.cloud_identifier == image.cloud_identifier
    assert stand.cloud.describe() == (changed,)
    assert changed.ready
    assert stand.can_start(changed) is startable
    assert stand.is_listed(changed) is listed


@pytest.mark.threat("T36")
def test_a_withdrawn_image_becomes_available_again_under_its_identifier(stand: Stand, store: Path):
    image = register(stand.cloud, desired_image(), store)
    back = to_state(stand.cloud, to_state(stand.cloud, image, ImageState.WITHDRAWN), ImageState.AVAILABLE)
    assert back.cloud_identifier == image.cloud_identifier
    assert back.ready
    assert stand.can_start(back)
    assert stand.is_listed(back)


def test_changing_a_state_twice_changes_nothing_more(stand: Stand, store: Path):
    image = register(stand.cloud, desired_image(), store)
    first = to_state(stand.cloud, image, ImageState.EXPIRED)
    assert to_state(stand.cloud, first, ImageState.EXPIRED) == first


def test_new_metadata_and_its_marker_are_kept(stand: Stand, store: Path):
    image = register(stand.cloud, desired_image(), store)
    retitled = desired_image(title="A better title")
    changed = stand.cloud.update_metadata(image, marker_of(retitled), presentation_of(retitled))
    assert changed.marker.metadata_digest == marker_of(retitled).metadata_digest != image.marker.metadata_digest
    assert changed.ready
    assert stand.cloud.describe() == (changed,)
    assert stand.is_listed(changed)


@pytest.mark.threat("T90")
def test_a_newer_version_takes_over_while_the_older_can_still_be_started(stand: Stand, store: Path):
    old = register(stand.cloud, desired_image(version="1"), store)
    new = register(stand.cloud, desired_image(version="2"), store)
    assert stand.can_start(old)
    assert stand.is_listed(new)
    hidden = to_state(stand.cloud, old, ImageState.SUPERSEDED)
    assert stand.can_start(hidden)
    assert not stand.is_listed(hidden)
    assert stand.is_listed(new)
    assert all(image.ready for image in stand.cloud.describe())


def test_removing_twice_is_fine(stand: Stand, store: Path):
    image = register(stand.cloud, desired_image(), store)
    stand.cloud.remove(image)
    stand.cloud.remove(image)
    assert stand.cloud.describe() == ()


def test_what_bears_no_marker_is_neither_described_nor_touched(stand: Stand, store: Path):
    stand.add_foreign()
    image = register(stand.cloud, desired_image(), store)
    assert stand.cloud.describe() == (image,)
    stand.cloud.remove(image)
    assert stand.foreign_is_whole()


def test_another_sites_images_are_neither_described_nor_touched(stand: Stand, store: Path):
    other = stand.of_site("another-site")
    theirs = register(other, desired_image(), store)
    ours = register(stand.cloud, desired_image(), store)
    assert stand.cloud.describe() == (ours,)
    with pytest.raises(CloudError):
        stand.cloud.remove(theirs)
    with pytest.raises(CloudError):
        to_state(stand.cloud, theirs, ImageState.WITHDRAWN)
    with pytest.raises(CloudError):
        stand.cloud.update_metadata(theirs, theirs.marker, presentation_of(desired_image()))
    assert other.describe() == (theirs,)


def test_a_damaged_marker_of_this_site_is_an_error_and_no_absence(stand: Stand, store: Path):
    image = register(stand.cloud, desired_image(), store)
    stand.damage_marker(image)
    with pytest.raises(CloudError, match="damaged") as caught:
        stand.cloud.describe()
    assert image.cloud_identifier in caught.value.message


def test_a_registration_that_did_not_end_is_recognised_and_made_anew(stand: Stand, store: Path):
    image = register(stand.cloud, desired_image(), store)
    stand.break_off(image)
    (half,) = stand.cloud.describe()
    assert not half.ready
    assert half.marker == image.marker
    again = register(stand.cloud, desired_image(), store)
    assert again.ready
    assert stand.cloud.describe() == (again,)
    assert stand.can_start(again)


def test_a_registration_that_did_not_end_takes_a_state_and_can_be_removed(stand: Stand, store: Path):
    stand.break_off(register(stand.cloud, desired_image(), store))
    (half,) = stand.cloud.describe()
    changed = to_state(stand.cloud, half, ImageState.WITHDRAWN)
    assert changed.marker.state is ImageState.WITHDRAWN
    assert not changed.ready
    stand.cloud.remove(changed)
    assert stand.cloud.describe() == ()


@pytest.mark.parametrize(
    "title",
    ["../../etc/passwd", "a\x00b", "\u202egnp.exe", "$(reboot)", "`x`", "", ".", "current", "ü" * 5000, "a\nb", "🌱"],
)
def test_hostile_titles_do_no_harm(stand: Stand, store: Path, title: str, tmp_path: Path):
    image = register(stand.cloud, desired_image(title=title), store)
    assert image.ready
    assert stand.cloud.describe() == (image,)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"cloud", "store"}


def test_an_image_that_nothing_runs_from_is_not_in_use(stand: Stand, store: Path):
    assert not stand.cloud.in_use(register(stand.cloud, desired_image(), store))


def test_a_directory_refuses_a_disk_whose_bytes_changed_after_conversion(tmp_path: Path, store: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    desired = desired_image()
    converted = converted_image(desired, store)
    converted.path.write_bytes(b"rotten")
    with pytest.raises(ChecksumMismatchError):
        cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
    assert cloud.describe() == ()
    assert list((tmp_path / "cloud").iterdir()) == []


@pytest.mark.threat("T37")
def test_a_directorys_disk_that_a_process_locked_is_in_use(tmp_path: Path, store: Path):
    import fcntl

    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    image = register(cloud, desired_image(), store)
    disk = tmp_path / "cloud" / image.cloud_identifier / "disk.qcow2"
    with disk.open("r+b") as stream:
        # The kind of lock that QEMU sets: bound to the open file, not to the process.
        import struct

        fcntl.fcntl(stream, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 100, 1, 0))
        assert cloud.in_use(image)
        to_state(cloud, image, ImageState.EXPIRED)
        assert cloud.in_use(image)
    assert not cloud.in_use(image)


def test_a_directory_whose_flip_was_cut_short_is_mended_by_the_next_registration(tmp_path: Path, store: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    image = register(cloud, desired_image(), store)
    shutil.rmtree(tmp_path / "cloud" / "current")
    (unlisted,) = cloud.describe()
    assert not unlisted.ready
    assert register(cloud, desired_image(), store) == image


def test_a_directory_links_the_disk_and_leaves_the_stores_file_as_it_is(tmp_path: Path, store: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    desired = desired_image()
    source = converted_image(desired, store).path
    source.chmod(0o444)
    image = register(cloud, desired, store)
    assert (tmp_path / "cloud" / image.cloud_identifier / "disk.qcow2").stat().st_ino == source.stat().st_ino
    cloud.remove(to_state(cloud, image, ImageState.EXPIRED))
    assert source.read_bytes() == content_of("debian", "1")
    assert source.stat().st_mode & 0o777 == 0o444


def test_a_directory_lists_an_image_under_its_newest_title_alone(tmp_path: Path, store: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    image = register(cloud, desired_image(title="Old"), store)
    retitled = desired_image(title="New")
    cloud.update_metadata(image, marker_of(retitled), presentation_of(retitled))
    (link,) = (tmp_path / "cloud" / "current").iterdir()
    assert link.name.startswith("new-")


def test_a_foreign_file_in_the_way_of_the_current_link_is_kept(tmp_path: Path, store: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    image = register(cloud, desired_image(), store)
    (link,) = (tmp_path / "cloud" / "current").iterdir()
    link.unlink()
    link.write_text("theirs")
    with pytest.raises(CloudError, match="in the way"):
        register(cloud, desired_image(), store)
    assert link.read_text() == "theirs"
    assert image.marker.expires == LATER


@pytest.mark.threat("T90")
def test_a_version_that_the_link_does_not_lead_to_yet_is_not_ready(tmp_path: Path, store: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    old, new = desired_image(version="1"), desired_image(version="2")
    before = register(cloud, old, store)
    (link,) = (tmp_path / "cloud" / "current").iterdir()
    after = register(cloud, new, store)
    # As a run leaves it that is killed between the folder's name and its link.
    link.unlink()
    link.symlink_to(f"../{before.cloud_identifier}")
    assert [image.ready for image in cloud.describe() if image.marker.version == "2"] == [False]
    assert register(cloud, new, store) == after
    to_state(cloud, before, ImageState.SUPERSEDED)
    assert link.resolve() == tmp_path / "cloud" / after.cloud_identifier


def test_a_directory_that_cannot_be_made_is_an_error_of_storage(store: Path):
    cloud = DirectoryCloud("test", SITE, Path("/proc/nowhere/cloud"))
    with pytest.raises(StorageError):
        register(cloud, desired_image(), store)
