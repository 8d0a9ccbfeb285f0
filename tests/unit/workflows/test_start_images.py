# SPDX-License-Identifier: Apache-2.0
"""Which bytes a start names, before they are had; fetching and opening them is in tests/integration."""

from __future__ import annotations

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
from coppice.errors import NotFoundError
from coppice.factory.build import build_key
from coppice.factory.model import BuildOptions
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.settings.load import load_settings
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
