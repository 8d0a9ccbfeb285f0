# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.conversion.declared import DeclaredFormat, difference
from coppice.conversion.model import Archive, Compression, Detection, Inspection, Packaging
from coppice.errors import DeclaredFormatError
from coppice.model.image import DiskFormat

pytestmark = [pytest.mark.unit, pytest.mark.threat("T62")]
F = DiskFormat


def found(disk, *, archive=None, compression=None):
    return Inspection(
        format=F.OVA if archive is Archive.OVA else disk,
        size_bytes=1000,
        virtual_size_bytes=1000,
        disk=Detection(format=disk, virtual_size_bytes=1000),
        packaging=Packaging(archive=archive, compression=compression) if archive or compression else None,
    )


@pytest.mark.parametrize("rule", sorted(DeclaredFormat))
@pytest.mark.parametrize(
    ("declared", "image"),
    [
        (None, found(F.QCOW2)),
        ("", found(F.QCOW2)),
        ("  ", found(F.QCOW2)),
        ("qcow2", found(F.QCOW2)),
        (" QCOW2\n", found(F.QCOW2)),
        (".vmdk", found(F.VMDK)),
        ("vpc", found(F.VHD)),
        ("img", found(F.RAW)),
        ("raw", found(F.RAW)),
        ("raw", found(F.RAW, compression=Compression.XZ)),
        ("OVA", found(F.VMDK, archive=Archive.OVA)),
        ("vmdk", found(F.VMDK, archive=Archive.OVA)),
        ("qcow2", found(F.QCOW2, archive=Archive.TAR)),
    ],
)
def test_a_list_that_says_what_an_image_is_says_nothing_new(rule, declared, image):
    assert difference(declared, image, rule, "x") is None


@pytest.mark.parametrize("declared", ["qcow2", "ova", "docker", "ra\x1b[31mw"])
def test_an_image_that_its_list_calls_something_else_is_told(declared):
    said = difference(declared, found(F.VDI), DeclaredFormat.REPORT, "l/i")
    assert said is not None
    assert "l/i is vdi" in said
    assert said.isprintable()


@pytest.mark.parametrize("disk", sorted(set(F) - {F.OVA, F.RAW}))
def test_an_image_that_its_list_calls_raw_must_be_raw(disk):
    with pytest.raises(DeclaredFormatError, match="another disk"):
        difference("raw", found(disk), DeclaredFormat.REPORT, "x")


def test_a_site_may_demand_that_both_agree():
    with pytest.raises(DeclaredFormatError, match=r"conversion\.declared_format"):
        difference("vmdk", found(F.QCOW2), DeclaredFormat.REQUIRE, "x")
    with pytest.raises(DeclaredFormatError):
        difference("docker", found(F.QCOW2), DeclaredFormat.REQUIRE, "x")


def test_a_declaration_without_end_is_cut():
    said = difference("q" * 100_000, found(F.VDI), DeclaredFormat.REPORT, "x")
    assert said is not None
    assert len(said) < 200
