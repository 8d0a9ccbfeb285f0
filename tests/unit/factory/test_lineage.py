# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.definition.model import DefinedFile, Definition, Provisioner, ProvisionerKind
from coppice.factory.evidence.inventory import Inventory, InventoryFile
from coppice.factory.evidence.lineage import Cause, Layer, origins_of
from coppice.factory.model import BuildResult, Package, Provenance
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements

pytestmark = pytest.mark.unit

DEFINITION = Definition(
    name="base",
    path=Path("/d/appliance.toml"),
    title="",
    description="",
    groups=(),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    suite="bookworm",
    builder="bootstrap",
    packages=(),
    disk_size_bytes=1,
    firmware=(Firmware.BIOS,),
    formats=(DiskFormat.RAW,),
    user="debian",
    requirements=Requirements(),
)


def layer(name: str, holds: dict[str, tuple[str, str]], packages=(), **said) -> Layer:
    """Return a build: of each file what stands for its content, and its package."""
    result = BuildResult(
        definition=replace(DEFINITION, name=name, **said),
        key=f"key-{name}",
        directory=Path("/builds") / name,
        images=(),
        packages=tuple(Package(name=each, version="1", architecture="amd64") for each in packages),
        provenance=Provenance(
            definition_digest="", builder="b 1", tools=(), started_at=datetime(2026, 1, 1, tzinfo=UTC), seconds=1
        ),
        verdicts=(),
        reused=False,
    )
    listed = [
        InventoryFile(path=path, mode=0o100644, owner=0, group=0, size_bytes=1, sha256=content, package=package)
        for path, (content, package) in holds.items()
    ]
    return Layer(result=result, inventory=Inventory({each.path: each for each in listed}))


def told(path, *layers):
    return [(each.definition, each.cause) for each in origins_of(path, layers)]


def test_a_file_that_an_ancestor_brought_is_told_of_that_ancestor_alone():
    base = layer("base", {"/bin/sh": ("a", "dash")}, ["dash"])
    middle = layer("middle", {"/bin/sh": ("a", "dash")}, ["dash"])
    top = layer("top", {"/bin/sh": ("a", "dash")}, ["dash"])
    assert told("/bin/sh", top, middle, base) == [("base", Cause.PACKAGE)]


def test_each_content_that_it_had_is_told_the_newest_first():
    layers = (
        layer("top", {"/x": ("c", "")}, provisioners=(PROVISIONER,)),
        layer("middle", {"/x": ("b", "p")}, ["p"], files=(DefinedFile(path="/x", content=b""),)),
        layer("base", {"/x": ("a", "p")}, ["p"]),
    )
    found = origins_of("/x", layers)
    assert [(each.definition, each.cause) for each in found] == [
        ("top", Cause.SCRIPT),
        ("middle", Cause.DEFINITION),
        ("base", Cause.PACKAGE),
    ]
    assert [each.provisioners for each in found] == [("10-x",), (), ()]
    assert [each.package and each.package.name for each in found] == [None, None, "p"]


PROVISIONER = Provisioner(name="10-x", kind=ProvisionerKind.SHELL, files={"x": b""}, entry="x")


def test_a_file_that_is_not_there_has_no_origin_although_an_ancestor_had_it():
    assert told("/x", layer("top", {}), layer("base", {"/x": ("a", "")})) == []


def test_a_file_that_was_away_in_between_begins_anew():
    layers = (layer("top", {"/x": ("a", "")}), layer("middle", {}), layer("base", {"/x": ("a", "")}))
    assert told("/x", *layers) == [("top", Cause.SCRIPT)]


def test_another_owner_or_mode_is_another_file():
    base = layer("base", {"/x": ("a", "p")}, ["p"])
    changed = replace(base.inventory.files["/x"], mode=0o100755)
    top = Layer(result=layer("top", {}).result, inventory=Inventory({"/x": changed}))
    assert told("/x", top, base) == [("top", Cause.SCRIPT), ("base", Cause.PACKAGE)]


@given(st.lists(st.sampled_from(["", "a", "b"]), min_size=1, max_size=6))
def test_there_is_one_origin_for_each_change_since_the_file_was_last_away(contents):
    layers = [layer(str(number), {"/x": (each, "")} if each else {}) for number, each in enumerate(contents)]
    alive = contents[: contents.index("")] if "" in contents else contents
    changes = sum(1 for number, each in enumerate(alive) if alive[number + 1 : number + 2] != [each])
    assert len(origins_of("/x", layers)) == changes
