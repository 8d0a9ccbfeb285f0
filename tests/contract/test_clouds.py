# SPDX-License-Identifier: Apache-2.0
"""The built-in clouds that need no server, held to the suite; what only a directory can be asked comes after."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.directory import DirectoryCloud
from coppice.cloud.memory import MemoryCloud, StoredImage
from coppice.cloud.model import ImageState, Visibility
from coppice.cloud.properties import PREFIX, STATE, presentation_of
from coppice.errors import ChecksumMismatchError, CloudError, StorageError
from coppice.monitor import SILENT
from coppice.testing.contracts.cloud_abilities import (
    AdoptingContract,
    AudienceContract,
    DriftContract,
    TidyContract,
    UseContract,
)
from coppice.testing.contracts.clouds import CloudContract
from coppice.testing.contracts.stand import (
    AdoptingStand,
    AudienceStand,
    CloudStand,
    DriftStand,
    TidyStand,
    UseStand,
    to_state,
)
from coppice.testing.desired import LATER, SITE, content_of, converted_image, desired_image, marker_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import DesiredImage, Presentation, RegisteredImage

pytestmark = pytest.mark.contract


class MemoryStand(CloudStand, DriftStand, UseStand, AudienceStand, TidyStand, AdoptingStand):
    members = ("astronomy", "biology")

    def __init__(self) -> None:
        self.cloud = self.tidy = self.adopting = MemoryCloud("test", SITE)
        self.images = self.cloud.images
        self.users = self.cloud

    def of_site(self, site: str) -> Cloud:
        return self.users.of_site(site)

    def add_foreign(self, name: str) -> None:
        self.images["foreign"] = StoredImage(name=name, properties={"owner": "them"}, checksum="x")

    def foreign_is_whole(self) -> bool:
        return self.images["foreign"].properties == {"owner": "them"}

    def break_off(self, image: RegisteredImage) -> None:
        self.images[image.cloud_identifier].ready = False

    def damage_marker(self, image: RegisteredImage) -> None:
        self.images[image.cloud_identifier].properties[STATE] = "ripe"

    def delete_behind(self, image: RegisteredImage) -> None:
        del self.images[image.cloud_identifier]

    def can_start(self, image: RegisteredImage) -> bool:
        try:
            self.users.start_machine(image.cloud_identifier)
        except CloudError:
            return False
        self.users.stop_machines(image.cloud_identifier)
        return True

    def is_listed(self, image: RegisteredImage) -> bool:
        return self.images[image.cloud_identifier].listed

    def check_shown(self, image: RegisteredImage, presentation: Presentation) -> None:
        stored = self.images[image.cloud_identifier]
        assert stored.name == presentation.name
        shown = {key: value for key, value in stored.properties.items() if not key.startswith(PREFIX)}
        assert shown == {**presentation.facts, **presentation.properties}

    def list_by_hand(self, image: RegisteredImage) -> None:
        self.images[image.cloud_identifier].listed = True

    def unlist_by_hand(self, image: RegisteredImage) -> None:
        self.images[image.cloud_identifier].listed = False

    def enable_by_hand(self, image: RegisteredImage) -> None:
        self.images[image.cloud_identifier].startable = True

    def disable_by_hand(self, image: RegisteredImage) -> None:
        self.images[image.cloud_identifier].startable = False

    def use(self, image: RegisteredImage) -> None:
        self.users.start_machine(image.cloud_identifier)

    def end_use(self, image: RegisteredImage) -> None:
        self.users.stop_machines(image.cloud_identifier)

    def shared_with(self, image: RegisteredImage) -> Sequence[str]:
        return self.images[image.cloud_identifier].members

    def visibility_of(self, image: RegisteredImage) -> Visibility:
        return self.images[image.cloud_identifier].visibility

    def leave_behind(self) -> None:
        self.users.files["file-left"] = SITE


class DirectoryStand(CloudStand, DriftStand, UseStand, TidyStand):
    def __init__(self, path: Path) -> None:
        self.path = path / "cloud"
        self.cloud = self.tidy = DirectoryCloud("test", SITE, self.path)
        self.uses = ExitStack()

    def of_site(self, site: str) -> Cloud:
        return DirectoryCloud("test", site, self.path)

    def add_foreign(self, name: str) -> None:
        # Nobody can have the name of one of our folders: it ends with a hash.
        for folder in ("theirs", ".coppice-theirs-0123456789ab.partial"):
            foreign = self.path / folder
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
        for link in self._links(image):
            link.unlink()

    def damage_marker(self, image: RegisteredImage) -> None:
        path = self.path / image.cloud_identifier / "image.json"
        document = json.loads(path.read_text())
        document["properties"][STATE] = "ripe"
        path.write_text(json.dumps(document))

    def delete_behind(self, image: RegisteredImage) -> None:
        shutil.rmtree(self.path / image.cloud_identifier)

    def can_start(self, image: RegisteredImage) -> bool:
        folder = self.path / image.cloud_identifier
        return (folder / "disk.qcow2").exists() and (folder / "run-qemu.sh").exists()

    def is_listed(self, image: RegisteredImage) -> bool:
        return bool(self._links(image))

    def _links(self, image: RegisteredImage) -> list[Path]:
        current = self.path / "current"
        links = current.iterdir() if current.is_dir() else ()
        return [link for link in links if link.readlink() == Path("..") / image.cloud_identifier]

    def check_shown(self, image: RegisteredImage, presentation: Presentation) -> None:
        document = json.loads((self.path / image.cloud_identifier / "image.json").read_text())
        assert document["metadata"] == {**presentation.facts, **presentation.properties, "name": presentation.name}

    def list_by_hand(self, image: RegisteredImage) -> None:
        (self.path / "current" / "mine").symlink_to(f"../{image.cloud_identifier}")

    def unlist_by_hand(self, image: RegisteredImage) -> None:
        for link in self._links(image):
            link.unlink()

    def enable_by_hand(self, image: RegisteredImage) -> None:
        folder = self.path / image.cloud_identifier
        (folder / "retired" / "disk.qcow2").rename(folder / "disk.qcow2")
        (folder / "run-qemu.sh").write_text("#!/bin/sh")

    def disable_by_hand(self, image: RegisteredImage) -> None:
        folder = self.path / image.cloud_identifier
        (folder / "retired").mkdir()
        (folder / "disk.qcow2").rename(folder / "retired" / "disk.qcow2")
        (folder / "run-qemu.sh").unlink()

    def use(self, image: RegisteredImage) -> None:
        _hold_as_qemu_does(self.path / image.cloud_identifier / "disk.qcow2", self.uses)

    def end_use(self, image: RegisteredImage) -> None:
        self.uses.close()

    def leave_behind(self) -> None:
        left = self.path / ".coppice-debian-1-0123456789ab-00000000000a.partial"
        left.mkdir()
        os.utime(left, (0, 0))


def _hold_as_qemu_does(disk: Path, until: ExitStack) -> None:
    import fcntl
    import struct

    stream = until.enter_context(disk.open("r+b"))
    # The kind of lock that QEMU sets: bound to the open file, not to the process.
    fcntl.fcntl(stream, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 100, 1, 0))


class TestMemory(CloudContract, DriftContract, UseContract, AudienceContract, TidyContract, AdoptingContract):
    @pytest.fixture
    def stand(self) -> MemoryStand:
        return MemoryStand()


class TestDirectory(CloudContract, DriftContract, UseContract, TidyContract):
    @pytest.fixture
    def stand(self, tmp_path: Path) -> DirectoryStand:
        return DirectoryStand(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def register(cloud: DirectoryCloud, desired: DesiredImage, store: Path) -> RegisteredImage:
    return cloud.register(converted_image(desired, store), marker_of(desired), presentation_of(desired), SILENT)


def test_a_directory_refuses_a_disk_whose_bytes_changed_after_conversion(tmp_path: Path, store: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    desired = desired_image()
    converted = converted_image(desired, store)
    converted.path.write_bytes(b"rotten")
    with pytest.raises(ChecksumMismatchError):
        cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
    assert cloud.describe() == ()
    assert list((tmp_path / "cloud").iterdir()) == []


def test_a_directory_whose_flip_was_cut_short_is_mended_by_the_next_registration(tmp_path: Path, store: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    image = register(cloud, desired_image(), store)
    shutil.rmtree(tmp_path / "cloud" / "current")
    (unlisted,) = cloud.describe()
    assert unlisted.ready
    assert unlisted.drift is not None
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
def test_a_version_that_the_link_does_not_lead_to_yet_is_not_as_it_should_be(tmp_path: Path, store: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    old, new = desired_image(version="1"), desired_image(version="2")
    before = register(cloud, old, store)
    (link,) = (tmp_path / "cloud" / "current").iterdir()
    after = register(cloud, new, store)
    # As a run leaves it that is killed between the folder's name and its link.
    link.unlink()
    link.symlink_to(f"../{before.cloud_identifier}")
    assert [image.drift is None for image in cloud.describe() if image.marker.version == "2"] == [False]
    assert register(cloud, new, store) == after
    to_state(cloud, before, ImageState.SUPERSEDED)
    assert link.resolve() == tmp_path / "cloud" / after.cloud_identifier


def test_a_directory_that_cannot_be_made_is_an_error_of_storage(store: Path):
    cloud = DirectoryCloud("test", SITE, Path("/proc/nowhere/cloud"))
    with pytest.raises(StorageError):
        register(cloud, desired_image(), store)


@pytest.mark.threat("T41")
@pytest.mark.parametrize("site", [SITE, "another-site"])
def test_an_image_with_the_link_of_another_does_not_take_its_place(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, site: str
):
    # Its identifier was looked for until the short hash in the name was the same.
    monkeypatch.setattr("coppice.cloud.directory.current_name", lambda *_arguments: "debian-5b1d90aa")
    cloud, other = DirectoryCloud("test", SITE, tmp_path / "cloud"), DirectoryCloud("test", site, tmp_path / "cloud")
    image, hostile = register(cloud, desired_image(), store), desired_image(of_list="hostile")
    with pytest.raises(CloudError, match="has the same link"):
        other.register(converted_image(hostile, store), marker_of(hostile, site=site), presentation_of(hostile), SILENT)
    assert (tmp_path / "cloud" / "current" / "debian-5b1d90aa").resolve().name == image.cloud_identifier
    assert next(each for each in cloud.describe() if each.marker.key == image.marker.key) == image
