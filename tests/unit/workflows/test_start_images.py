# SPDX-License-Identifier: Apache-2.0
"""Which bytes a start names, before they are had; fetching and opening them is in tests/integration."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from coppice.catalogue.catalogue import Catalogue
from coppice.database import Database
from coppice.definition.model import Start
from coppice.definition.read import read_definition
from coppice.descriptor.model import Action, Descriptor, Disk
from coppice.errors import ChecksumMismatchError, NotFoundError, StorageError
from coppice.factory.build import build_key
from coppice.factory.lock import locked
from coppice.factory.model import BuildOptions
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.workflows import start_images
from coppice.workflows.start_images import StartImages, file_of

pytestmark = pytest.mark.unit

SHIPPED = read_definition(Path(__file__).parents[3] / "definitions" / "debian-12")
BUILDER = SimpleNamespace(name="image", version="1")


@pytest.fixture
def starts(tmp_path):
    file = tmp_path / "coppice.toml"
    file.write_text(f'state_directory = "{tmp_path}/state"\n')
    settings = load_settings(config=file, environ={}, options={}, system_file=file)
    settings.state_directory.mkdir()
    return StartImages(settings=settings)


def add(starts, version, content):
    checksum = Checksum("sha512", Checksum.of(content).hexdigest)
    image = Image(format=DiskFormat.QCOW2, size_bytes=len(content), virtual_size_bytes=1024**3, checksum=checksum)
    descriptor = Descriptor(
        action=Action.REGISTRATION,
        identifier="debian-12",
        version=version,
        title="Debian 12",
        description="A minimal Debian",
        groups=(),
        operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        requirements=Requirements(minimum_cores=1),
        disks=(Disk(path="disk.qcow2", image=image),),
        created=datetime(2026, 1, 1, tzinfo=UTC),
        provenance="build.json",
    )
    database = Database(starts.settings.database_url)
    Catalogue(database).add("debian-12", descriptor, directory=Path("/builds"))
    database.close()
    return str(checksum)


def test_the_catalogue_names_its_newest_version_or_the_one_that_is_asked_for(starts):
    first, second = add(starts, "1", b"one"), add(starts, "2", b"two")
    assert starts.identity(Start(catalogue="debian-12")) == second
    assert starts.identity(Start(catalogue="debian-12@1")) == first
    assert starts.identity(Start(url="https://images.example.org/i", checksum=first)) == ""


def test_a_version_that_the_catalogue_does_not_have_is_not_found(starts):
    add(starts, "1", b"one")
    with pytest.raises(NotFoundError, match="no version '9' of debian-12") as caught:
        starts.identity(Start(catalogue="debian-12@9"))
    assert "the newest: 1" in (caught.value.resolution or "")
    with pytest.raises(NotFoundError):
        starts.identity(Start(catalogue="nothing"))


def test_a_new_version_of_what_is_started_from_makes_a_new_build(starts):
    definition = replace(SHIPPED, start=Start(catalogue="debian-12"))
    options = BuildOptions(starts=starts)
    add(starts, "1", b"one")
    before = build_key(definition, BUILDER, options)
    assert build_key(definition, BUILDER, options) == before
    add(starts, "2", b"two")
    assert build_key(definition, BUILDER, options) != before


def test_an_address_of_a_file_names_it_with_all_its_characters():
    assert file_of("file:///srv/an%20image%25.raw") == Path("/srv/an image%.raw")
    assert file_of("https://images.example.org/i") is None


def named(content):
    return Start(url="https://images.example.org/i.raw", checksum=f"sha512:{Checksum.of(content).hexdigest}")


def kept(starts, content):
    place = starts.settings.state_directory / "factory" / "starts"
    place.mkdir(parents=True, exist_ok=True)
    return place / f"sha512-{Checksum.of(content).hexdigest}"


class OpenedError(Exception):
    pass


def opens(path, *_arguments, **_words):
    raise OpenedError(path)


def test_nothing_opens_an_image_with_other_bytes(starts, tmp_path, monkeypatch):
    monkeypatch.setattr(start_images, "opened_disk", opens)
    file = tmp_path / "i.raw"
    file.write_bytes(b"other")
    start = replace(named(b"right"), url=f"file://{file}")
    with pytest.raises(ChecksumMismatchError):
        starts.take(start, tmp_path, SILENT)
    file.write_bytes(b"right")
    with pytest.raises(OpenedError):
        starts.take(start, tmp_path, SILENT)


def test_a_link_that_leads_elsewhere_after_its_bytes_were_looked_at_is_not_followed_again(
    starts, tmp_path, monkeypatch
):
    right, other, link = tmp_path / "right.raw", tmp_path / "other.raw", tmp_path / "link.raw"
    right.write_bytes(b"right")
    other.write_bytes(b"other")
    link.symlink_to(right)
    digest_of = start_images._digest_of

    def turned(path, algorithm):
        found = digest_of(path, algorithm)
        link.unlink()
        link.symlink_to(other)
        return found

    monkeypatch.setattr(start_images, "_digest_of", turned)
    monkeypatch.setattr(start_images, "opened_disk", opens)
    with pytest.raises(OpenedError) as caught:
        starts.take(replace(named(b"right"), url=f"file://{link}"), tmp_path, SILENT)
    assert caught.value.args == (right,)


def test_a_kept_image_that_went_bad_is_removed_so_that_the_next_run_fetches_it(starts, tmp_path):
    path = kept(starts, b"right")
    path.write_bytes(b"decayed")
    with pytest.raises(ChecksumMismatchError, match="kept") as caught:
        starts.take(named(b"right"), tmp_path, SILENT)
    assert "run again" in caught.value.resolution
    assert not path.exists()


def test_a_kept_image_that_another_run_took_away_is_not_made_anew_as_an_empty_file(starts, tmp_path, monkeypatch):
    path = kept(starts, b"right")
    monkeypatch.setattr(Path, "exists", lambda _self, **_words: True)
    with pytest.raises(StorageError):
        starts.take(named(b"right"), tmp_path, SILENT)
    assert not path.is_file()


def test_images_that_nothing_used_go_and_neither_locks_nor_what_is_in_use(starts, tmp_path):
    unused, used, taken = (kept(starts, each) for each in (b"unused", b"used", b"taken"))
    locks = [each.with_name(f"{each.name}.lock") for each in (unused, used, taken)]
    for each in (unused, used, taken, *locks):
        each.write_bytes(b"")
        os.utime(each, (0, 0))
    with locked(locks[1]), pytest.raises(ChecksumMismatchError):
        starts.take(named(b"taken"), tmp_path, SILENT)
    assert not unused.exists()
    assert used.exists()
    assert all(each.exists() for each in locks)
