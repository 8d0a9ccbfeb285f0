# SPDX-License-Identifier: Apache-2.0
"""A folder of descriptors: events in their true order, a poison file holds nobody up, and an image that is in doubt
stays."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.clock import FixedClock
from coppice.errors import InputError, MalformedListError, TransferTooLargeError, UnreachableError
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.model.checksum import Checksum
from coppice.subscription.anchors import AnchorShelf
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import SourceReference, Subscription, TrustBasis, TrustPolicy
from coppice.subscription.source import descriptor_folder
from coppice.subscription.source.descriptors import DescriptorsSource
from coppice.subscription.source.gathered import Gathered, image_identifier_of, read_gathered, write_gathered
from coppice.subscription.source.protocol import Circumstances, SourceSupplies

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.model.identifiers import ImageIdentifier
    from coppice.subscription.model import VerifiedImageList

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC)
UUID = "8a1f2f60-1111-4222-8333-444444444444"


class Folder:
    """A folder, and a site that follows it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "descriptors"
        self.path.mkdir()
        self.notes = path / "notes"
        self.clock = FixedClock(NOW)
        supplies = SourceSupplies(
            client=None, clock=self.clock, limits=DEFAULT_LIMITS, anchors=AnchorShelf(), notes_directory=self.notes
        )
        self.source = DescriptorsSource(supplies)
        self.subscription = Subscription(
            name="demo",
            uri=self.path.as_uri(),
            list_identifier=None,
            trust=TrustPolicy(endorsers=(), anchors=None),
            added_at=NOW,
            source=SourceReference(driver="descriptors", options={"trust": "local"}),
        )

    def image(self, name: str, data: bytes = b"disk") -> Path:
        path = self.path / name
        path.write_bytes(data)
        return path

    def register(self, name: str, identifier: str = "debian", version: str = "1", **changed: Any) -> dict[str, Any]:
        document = {
            "action": "registration",
            "title": "Debian",
            "identifier": identifier,
            "version": version,
            "groups": ["metacloud"],
            "os": {"distribution": "debian", "version": "8.4.0"},
            "disks": [{"type": "os", "format": "qcow2", "path": "a.qcow2"}],
            **changed,
        }
        self.write(name, document)
        return document

    def expire(self, name: str, identifier: str = "debian", **changed: Any) -> None:
        self.write(name, {"action": "expiration", "identifier": identifier, **changed})

    def write(self, name: str, document: object) -> None:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())

    def message(self) -> bytes:
        body = self.source.fetch(self.subscription, None).body
        assert body is not None
        return body

    def verified(self) -> VerifiedImageList:
        circumstances = Circumstances(last=None, now=self.clock.now(), limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
        return self.source.verify(self.message(), self.subscription, circumstances)

    def versions(self) -> list[str]:
        return [each.version for each in self.verified().content.images]

    def in_doubt(self) -> set[str]:
        return {each.identifier for each in self.verified().content.unreadable}

    def identifier(self, given: str) -> ImageIdentifier:
        return image_identifier_of(self.verified().content.identifier, given)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.image("a.qcow2")
    return folder


def test_an_image_is_as_its_descriptor_and_its_file_say(folder: Folder):
    folder.register("1461000000_AvailablePostfix_debian.json", cpu=2, memory=1024, description="An image")
    verified = folder.verified()
    (image,) = verified.content.images
    assert (verified.trusted_by.basis, verified.trusted_by.signer) == (TrustBasis.LOCAL, f"the folder {folder.path}")
    assert (image.identifier, image.version, image.title) == (folder.identifier("debian"), "1", "Debian")
    assert (image.uri, image.size_bytes) == ((folder.path / "a.qcow2").as_uri(), 4)
    assert (image.checksum, image.declared_format) == (Checksum.of(b"disk"), "qcow2")
    assert (image.requirements.minimum_cores, image.requirements.minimum_ram_mib) == (2, 1024)
    assert (image.groups, image.operating_system.architecture) == (("metacloud",), "x86_64")
    assert image.operating_system.distribution == "debian"


def test_what_itchy_wrote_is_read_with_what_it_was_told(folder: Folder):
    attributes = {
        "vmcatcher_event_sl_osversion": "8.4",
        "vmcatcher_event_sl_os": "Debian",
        "vmcatcher_event_sl_arch": "amd64",
        "vmcatcher_event_ad_mpuri": "https://example.org/1",
    }
    folder.register("1461000000_AvailablePostfix_x.json", UUID, os={"distribution": "8.4"}, attributes=attributes)
    (image,) = folder.verified().content.images
    assert (image.identifier, image.mpuri) == (UUID, "https://example.org/1")
    found = image.operating_system
    assert (found.distribution, found.version, found.architecture) == ("Debian", "8.4", "x86_64")


def test_a_path_may_be_absolute_and_a_descriptor_in_a_folder_of_the_folder(folder: Folder, tmp_path: Path):
    (tmp_path / "elsewhere.raw").write_bytes(b"other")
    folder.register("sub/one.json", "one", disks=[{"type": "os", "path": "../a.qcow2"}])
    folder.register("sub/two.json", "two", disks=[{"type": "os", "path": str(tmp_path / "elsewhere.raw")}])
    uris = {each.uri for each in folder.verified().content.images}
    assert uris == {(folder.path / "a.qcow2").as_uri(), (tmp_path / "elsewhere.raw").as_uri()}


def test_an_expiration_takes_an_image_out_and_a_later_registration_brings_it_back(folder: Folder):
    folder.register("100_AvailablePostfix_debian.json")
    folder.expire("200_ExpirePostfix_debian.json")
    assert folder.versions() == []
    assert folder.in_doubt() == set()
    folder.register("300_AvailablePostfix_debian.json", version="2")
    assert folder.versions() == ["2"]


@pytest.mark.threat("T80")
def test_of_one_second_the_expiration_comes_first_although_its_name_is_later(folder: Folder):
    folder.register("100_AvailablePostfix_debian.json", version="1")
    folder.expire("200_ExpirePostfix_debian.json", version="1")
    folder.register("200_AvailablePostfix_debian.json", version="2")
    assert folder.versions() == ["2"]


def test_times_are_numbers_and_not_texts(folder: Folder):
    folder.register("999_AvailablePostfix_debian.json", version="1")
    folder.register("1000_AvailablePostfix_debian.json", version="2")
    assert folder.versions() == ["2"]


def test_without_a_time_in_the_name_it_counts_when_a_file_was_written(folder: Folder):
    folder.register("b.json", version="1")
    folder.register("a.json", version="2")
    os.utime(folder.path / "b.json", (100, 100))
    os.utime(folder.path / "a.json", (200, 200))
    assert folder.versions() == ["2"]
    os.utime(folder.path / "b.json", (300, 300))
    assert folder.versions() == ["1"]


def test_an_expiration_of_an_older_version_leaves_the_newer_one(folder: Folder):
    folder.register("100_AvailablePostfix_debian.json", version="2")
    folder.expire("200_ExpirePostfix_debian.json", version="1")
    assert folder.versions() == ["2"]
    folder.expire("201_ExpirePostfix_debian.json", version="2")
    assert folder.versions() == []


def test_of_several_formats_of_one_version_qcow2_is_taken(folder: Folder):
    folder.image("a.ova", b"ova")
    folder.register("qemu/COMFY-Debian.json", disks=[{"type": "os", "format": "qcow2", "path": "../a.qcow2"}])
    folder.register("vbox/COMFY-Debian.json", disks=[{"type": "os", "format": "ova", "path": "../a.ova"}])
    (image,) = folder.verified().content.images
    assert image.declared_format == "qcow2"


POISON = {
    "half of it": b'{"action": "registration", "ident',
    "no JSON": b"\xff\xfe\x00",
    "an array": b"[]",
    "deep": b'{"a":' * 1000,
    "another action": json.dumps({"action": "burn", "identifier": "debian", "version": "2"}).encode(),
    "no disk": json.dumps(
        {"action": "registration", "identifier": "debian", "version": "2", "title": "t", "disks": []}
    ).encode(),
    "a version without order": json.dumps({"action": "expiration", "identifier": "debian", "version": "?"}).encode(),
    "too long": b" " * (1024 * 1024 + 1),
    "empty": b"",
}


@pytest.mark.threat("T80")
@pytest.mark.parametrize("data", POISON.values(), ids=POISON.keys())
def test_a_poison_file_is_told_and_its_image_stays_as_it_is_while_others_go_on(folder: Folder, data: bytes):
    folder.register("100_AvailablePostfix_debian.json")
    folder.register("101_AvailablePostfix_other.json", "other")
    folder.write("200_AvailablePostfix_debian.json", data)
    verified = folder.verified()
    assert [each.identifier for each in verified.content.images] == [folder.identifier("other")]
    assert folder.in_doubt() == {folder.identifier("debian")}
    assert any("200_AvailablePostfix_debian.json is passed over" in each.text for each in verified.warnings)
    folder.register("300_AvailablePostfix_debian.json", version="3")
    assert sorted(folder.versions()) == ["1", "3"]
    assert folder.in_doubt() == set()


def test_what_is_no_file_that_can_be_read_is_a_poison_file(folder: Folder):
    folder.register("100_AvailablePostfix_other.json", "other")
    os.mkfifo(folder.path / "200_AvailablePostfix_pipe.json")
    (folder.path / "200_AvailablePostfix_link.json").symlink_to("nowhere")
    (folder.path / ".hidden.json").write_bytes(b"x")
    (folder.path / "folder.json").mkdir()
    (folder.path / os.fsdecode(b"200_AvailablePostfix_\xff.json")).touch()
    assert len(folder.verified().content.images) == 1
    assert {folder.identifier("pipe"), folder.identifier("link")} <= folder.in_doubt()
    assert len(folder.in_doubt()) == 3


@pytest.mark.parametrize("how", ["missing", "empty", "folder", "pipe"])
def test_an_image_whose_file_cannot_be_had_stays_as_it_is(folder: Folder, how: str):
    folder.register("100_AvailablePostfix_debian.json", disks=[{"path": "b"}])
    folder.register("101_AvailablePostfix_other.json", "other")
    path = folder.path / "b"
    {"missing": lambda: None, "empty": path.touch, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[how]()
    assert folder.versions() == ["1"]
    assert folder.in_doubt() == {folder.identifier("debian")}


def test_images_of_events_that_are_over_are_not_looked_for(folder: Folder):
    folder.register("100_AvailablePostfix_debian.json", disks=[{"path": "gone"}])
    folder.register("200_AvailablePostfix_debian.json", version="2")
    assert folder.versions() == ["2"]


@pytest.mark.parametrize("how", ["gone", "empty", "a file"])
def test_a_folder_that_says_nothing_is_a_failure_and_no_list_without_images(folder: Folder, how: str):
    folder.image("a.qcow2").unlink()
    if how != "empty":
        folder.path.rmdir()
    if how == "a file":
        folder.path.write_bytes(b"")
    with pytest.raises(UnreachableError):
        folder.message()


def test_a_folder_in_it_that_cannot_be_read_is_a_failure(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    folder.register("one.json")
    (folder.path / "sub").mkdir()
    real = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(descriptor_folder.os, "scandir", refuse)
    with pytest.raises(UnreachableError, match="Permission denied"):
        folder.message()


def test_more_files_than_a_list_may_have_images_are_refused(folder: Folder):
    for number in range(4):
        folder.register(f"{number}.json")
    supplies = replace(folder.source._supplies, limits=replace(DEFAULT_LIMITS, images=3))
    with pytest.raises(TransferTooLargeError):
        DescriptorsSource(supplies).fetch(folder.subscription, None)


def test_an_image_is_read_once_and_again_when_it_changed(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    folder.register("one.json")
    time.sleep(0.15)  # a file that was written within a tick of the clock may be written once more
    read: list[int] = []
    real = os.read

    def counted(handle: int, count: int) -> bytes:
        read.append(count)
        return real(handle, count)

    monkeypatch.setattr(descriptor_folder.os, "read", counted)
    first = folder.source.fetch(folder.subscription, None)
    assert read
    read.clear()
    again = folder.source.fetch(folder.subscription, first.validators)
    assert (again.body, read) == (None, [])
    folder.image("a.qcow2", b"disc")
    changed = folder.source.fetch(folder.subscription, first.validators)
    assert changed.body is not None
    assert read
    (image,) = folder.verified().content.images
    assert image.checksum == Checksum.of(b"disc")


@pytest.mark.parametrize("notes", [b"", b"{", b"[1]", b'{"a": "no checksum"}', b'{"a": 1}'])
def test_damaged_notes_cost_time_and_nothing_else(folder: Folder, notes: bytes):
    folder.register("one.json")
    time.sleep(0.15)
    folder.message()
    (file,) = folder.notes.iterdir()
    file.write_bytes(notes)
    assert folder.versions() == ["1"]


def test_a_checksum_that_the_descriptor_has_is_kept_as_it_is(folder: Folder):
    given = Checksum.of(b"another")
    folder.register("one.json", disks=[{"path": "a.qcow2", "sha512": given.hexdigest}])
    (image,) = folder.verified().content.images
    assert image.checksum == given


def test_a_message_that_is_gathered_again_says_the_same_and_holds_for_longer(folder: Folder):
    folder.register("one.json")
    one = folder.verified()
    folder.clock.advance(timedelta(days=100))
    two = folder.verified()
    assert two.payload_checksum == one.payload_checksum
    assert two.content.validity.expires == one.content.validity.expires + timedelta(days=100)


def test_facts_that_cannot_be_are_refused(folder: Folder):
    folder.register("one.json")
    gathered = read_gathered(folder.message(), driver="descriptors", limits=DEFAULT_LIMITS)
    circumstances = Circumstances(last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    for data in (b"{}", b"x", b'{"size_bytes": true, "sha512": "00"}', b'{"size_bytes": 4, "sha512": "zz"}'):
        documents = tuple(
            replace(each, data=data) if each.name.startswith("image ") else each for each in gathered.documents
        )
        made = Gathered(driver="descriptors", gathered_at=NOW, documents=documents)
        with pytest.raises(MalformedListError):
            folder.source.verify(write_gathered(made, DEFAULT_LIMITS), folder.subscription, circumstances)


@pytest.mark.parametrize("options", [{}, {"trust": "transport"}, {"trust": "local", "keyring": "/x"}])
def test_nobody_is_believed_by_default_nor_by_another_name(options: dict[str, object]):
    with pytest.raises(InputError):
        DescriptorsSource.check_options(options)
