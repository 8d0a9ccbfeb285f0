# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from coppice.definition.model import Definition
from coppice.descriptor.model import Action, Descriptor, Disk, EvidenceFile, Gate
from coppice.descriptor.read import read_descriptor
from coppice.descriptor.write import describe, write_descriptor
from coppice.errors import DocumentError, UnreadableFileError
from coppice.factory.model import BuildResult, BuiltImage, Provenance
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
DESCRIPTOR = Descriptor(
    action=Action.REGISTRATION,
    identifier="debian-12",
    version="2026.11.22",
    title="Debian 12",
    description="minimal",
    groups=("General",),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    requirements=Requirements(minimum_cores=1, minimum_ram_mib=512, recommended_cores=2),
    disks=(
        Disk(
            path="debian-12.qcow2",
            image=Image(
                format=DiskFormat.QCOW2, size_bytes=4, virtual_size_bytes=8, checksum=Checksum.of(b"disk", "sha512")
            ),
        ),
    ),
    created=datetime(2026, 11, 22, 10, tzinfo=UTC),
    provenance="/builds/x/build.json",
    built_on=(Checksum.of(b"parent"), Checksum.of(b"grandparent")),
    gates=(Gate(name="audit", outcome="passed", decided_at=datetime(2026, 11, 22, 11, tzinfo=UTC)),),
    evidence=(EvidenceFile(kind="sbom-spdx", path="sbom.spdx.json", checksum=Checksum.of(b"sbom", "sha256")),),
    extra={"attributes": {"x": "y"}},
)


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    write_descriptor(DESCRIPTOR, path)
    assert read_descriptor(path) == DESCRIPTOR
    document = json.loads(path.read_text())
    assert (document["cpu"], document["memory"]) == (1, 512)
    assert document["disks"][0]["type"] == "os"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("action",), "explode"),
        (("os",), None),
        (("os", "distribution"), 7),
        (("disks", 0, "format"), "floppy"),
        (("disks", 0, "sha512"), "abc"),
        (("disks", 0, "size_bytes"), "many"),
        (("created",), "soon"),
        (("groups",), [1]),
        (("memory",), -5),
        (("built_on",), ["md5:abc"]),
        (("built_on",), [f"sha256:{number:064x}" for number in range(65)]),
        (("gates",), "all of them"),
        (("gates", 0, "decided_at"), "soon"),
        (("evidence", 0, "checksum"), None),
        (("evidence", 0, "path"), []),
    ],
)
def test_a_wrong_field_is_named_with_the_file(tmp_path: Path, place: tuple[Any, ...], value: object) -> None:
    path = tmp_path / "d.json"
    write_descriptor(DESCRIPTOR, path)
    document: Any = json.loads(path.read_text())
    inner = document
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    path.write_text(json.dumps(document))
    with pytest.raises(DocumentError, match=str(place[-1])) as caught:
        read_descriptor(path)
    assert str(path) in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"missing\.json"):
        read_descriptor(tmp_path / "missing.json")


def test_a_build_is_described_with_paths_relative_to_it(tmp_path: Path) -> None:
    definition = Definition(
        name="debian-12",
        path=tmp_path / "appliance.toml",
        title="Debian 12",
        description="minimal",
        groups=("General",),
        operating_system=DESCRIPTOR.operating_system,
        suite="bookworm",
        builder="bootstrap",
        packages=(),
        disk_size_bytes=8,
        firmware=(Firmware.BIOS,),
        formats=(DiskFormat.QCOW2,),
        user="debian",
        requirements=DESCRIPTOR.requirements,
    )
    result = BuildResult(
        definition=definition,
        key="k",
        directory=tmp_path,
        images=(BuiltImage(path=tmp_path / "debian-12.qcow2", image=DESCRIPTOR.disks[0].image),),
        packages=(),
        provenance=Provenance(
            definition_digest="d", builder="bootstrap 1", tools=(), started_at=DESCRIPTOR.created, seconds=1
        ),
        verdicts=(),
        reused=False,
    )
    described = describe(result, version="2026.11.22", identifier="debian-12")
    assert described.disks == DESCRIPTOR.disks
    assert described.created == DESCRIPTOR.created
    assert described.extra["build"] == {"key": "k", "definition_digest": "d"}
    write_descriptor(described, tmp_path / "d.json")
    assert read_descriptor(tmp_path / "d.json") == described
