# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import DefinedFile, Definition, Provisioner, ProvisionerKind
from coppice.formats.definition import definition_document, definition_from
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements
from coppice.workflows.staleness import changed_keys, reference_of

pytestmark = pytest.mark.unit

WEB = Definition(
    name="web",
    path=Path("/definitions/web/appliance.toml"),
    title="Web",
    description="For a test.",
    groups=("Test",),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    suite="bookworm",
    builder="bootstrap",
    packages=("nginx",),
    disk_size_bytes=1 << 30,
    firmware=(Firmware.BIOS,),
    formats=(DiskFormat.QCOW2,),
    user="debian",
    requirements=Requirements(),
    provisioners=(Provisioner(name="10-tune", kind=ProvisionerKind.SHELL, files={"run": b"#!/bin/sh\n"}, entry="run"),),
    metadata={"a": [1, "two", {"three": True}]},
)


def test_a_definition_is_the_same_after_it_was_written_down_and_read_again():
    assert changed_keys(definition_from(definition_document(WEB)), WEB) == ()


def test_where_a_definition_lies_and_what_it_is_called_is_no_change():
    assert changed_keys(WEB, replace(WEB, path=Path("/elsewhere/web/appliance.toml"), name="web-server")) == ()


def test_a_script_that_changed_is_a_change_of_its_provisioner():
    [provisioner] = WEB.provisioners
    other = replace(provisioner, files={"run": b"#!/bin/sh\nset -e\n"})
    assert changed_keys(WEB, replace(WEB, provisioners=(other,))) == ("provisioners",)


def test_each_part_that_changed_is_named():
    other = replace(
        WEB, packages=("apache2",), files=(DefinedFile(path="/etc/motd", content=b"hi"),), disk_size_bytes=2
    )
    assert changed_keys(WEB, other) == ("disk size bytes", "files", "packages")


@pytest.mark.parametrize(
    ("name", "variant", "reference"), [("web", "", "web"), ("web-small", "small", "web@small"), ("a-b-c", "c", "a-b@c")]
)
def test_a_variant_is_looked_for_by_the_name_of_its_definition(name, variant, reference):
    assert reference_of(replace(WEB, name=name, variant=variant)) == reference
