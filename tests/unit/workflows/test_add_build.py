# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coppice.clock import FixedClock
from coppice.database import Database
from coppice.definition.read import find_definition
from coppice.factory.model import BuildResult, BuiltImage, Provenance
from coppice.formats.event_descriptor import read_event_descriptor
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.settings.load import load_settings
from coppice.workflows.add import add_build

pytestmark = pytest.mark.unit

MADE_AT = datetime(2026, 11, 26, 6, 5, tzinfo=UTC)
NOW = MADE_AT + timedelta(hours=3)
PLAIN = """\
[appliance]
title = "Tiny"
description = "A tiny appliance."
groups = ["Science"]
[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"
[build]
user = "debian"
disk-size = "4 GiB"
"""
SAID = PLAIN.replace(
    "[operating-system]",
    'vo = "vo.example.org"\nvalidity-days = 30\nidentifier = "COMFY-$n-$v"\nversion = "$v.$t"\n[operating-system]',
)
METADATA = '[metadata]\nowner = "ops"\nnested = { list = [1] }\n'


@pytest.fixture
def add(tmp_path):
    settings = load_settings(
        config=None, environ={}, options={"state_directory": str(tmp_path / "state")}, system_file=tmp_path / "none"
    )
    database = Database(f"sqlite:///{tmp_path}/x.sqlite")

    def call(text, content=b"disk", **more):
        (tmp_path / "defs" / "tiny").mkdir(parents=True, exist_ok=True)
        (tmp_path / "defs" / "tiny" / "appliance.toml").write_text(text)
        directory = tmp_path / "build"
        directory.mkdir(exist_ok=True)
        (directory / "tiny.qcow2").write_bytes(content)
        (directory / "build.json").write_text("{}")
        image = Image(
            format=DiskFormat.QCOW2,
            size_bytes=len(content),
            virtual_size_bytes=4 * 1024**3,
            checksum=Checksum.of(content, "sha512"),
        )
        result = BuildResult(
            definition=find_definition(tmp_path / "defs", "tiny"),
            key="k",
            directory=directory,
            images=(BuiltImage(path=directory / "tiny.qcow2", image=image),),
            packages=(),
            provenance=Provenance(definition_digest="d", builder="b", tools=(), started_at=MADE_AT, seconds=1),
            verdicts=(),
            reused=False,
        )
        clock = FixedClock(NOW)
        return add_build(result, settings=settings, database=database, clock=clock, untested=True, **more)

    yield call
    database.close()


def test_version_and_end_are_as_the_definition_says(add):
    version = add(SAID)
    assert (version.version, version.expires) == ("12.202611260605", NOW + timedelta(days=30))


def test_what_is_said_when_it_is_added_counts_more(add):
    version = add(SAID, version="7", expires=NOW + timedelta(days=1))
    assert (version.version, version.expires) == ("7", NOW + timedelta(days=1))


def test_a_definition_that_says_nothing_leaves_it_to_the_catalogue(add):
    version = add(PLAIN)
    assert (version.version, version.expires) == ("2026.11.26", None)


def test_the_same_bytes_stay_the_same_version_and_others_get_another(add):
    assert add(SAID).version == add(SAID).version
    assert add(SAID, b"other").version == "12.202611260605.1"


def test_metadata_and_vo_are_in_the_descriptor_as_they_were_written(add, tmp_path):
    add(SAID + METADATA)
    document = json.loads((tmp_path / "build" / "tiny-12.202611260605.json").read_text())
    assert document["metadata"] == {"owner": "ops", "nested": {"list": [1]}}
    assert document["vo"] == "vo.example.org"
    assert document["identifier"] == "tiny"


def test_tools_of_the_old_form_can_read_what_was_added(add, tmp_path):
    version = add(SAID + METADATA)
    found = read_event_descriptor((tmp_path / "build" / f"tiny-{version.version}.cloud-appliance.json").read_bytes())
    assert (found.identifier, found.version, found.groups) == ("COMFY-Debian-12", version.version, ("Science",))
    assert (found.operating_system.distribution, found.requirements.minimum_cores) == ("Debian", 1)
    assert version.evidence is not None
    assert found.attributes == {"owner": "ops", "coppice_build_record": str(version.evidence / "build.json")}
    assert found.disk is not None
    assert Path(found.disk.path).read_bytes() == b"disk"


def test_without_a_template_the_old_form_has_the_appliances_name(add, tmp_path):
    add(PLAIN)
    document = json.loads((tmp_path / "build" / "tiny-2026.11.26.cloud-appliance.json").read_text())
    assert document["identifier"] == "tiny"
    assert len(document["disks"]) == 1
