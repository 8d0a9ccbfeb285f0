# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from coppice.conversion.model import Detection, Inspection
from coppice.conversion.options import (
    QEMU_NAMES,
    Options,
    Qcow2Compression,
    arguments,
    identity,
    is_compressed,
    joined,
)
from coppice.conversion.qemu import source_of
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.model.requirements import Requirements

pytestmark = pytest.mark.unit
F = DiskFormat


@pytest.mark.parametrize("compression", sorted(Qcow2Compression))
def test_a_qcow2_is_compressed_as_the_site_says(compression):
    options = Options(qcow2_compression=compression)
    said = " ".join(arguments(F.QCOW2, options))
    assert is_compressed(F.QCOW2, options) == (" -c " in said) == (compression is not Qcow2Compression.NONE)
    assert (f"compression_type={compression}" in said) == is_compressed(F.QCOW2, options)


def test_whatever_changes_a_result_changes_its_identity():
    given = [
        identity(F.QCOW2, Options()),
        identity(F.QCOW2, Options(qcow2_compression=Qcow2Compression.ZLIB)),
        identity(F.RAW, Options()),
        identity(F.VMDK, Options()),
        identity(F.OVA, Options()),
        identity(F.OVA, Options(name="other")),
        identity(F.OVA, Options(requirements=Requirements(minimum_cores=1))),
    ]
    assert len(set(given)) == len(given)


def test_what_does_not_change_a_result_does_not_change_its_identity():
    other = Options(name="other", requirements=Requirements(minimum_cores=1), require_cage=True)
    for wanted in sorted(set(F) - {F.OVA}):
        assert identity(wanted, other) == identity(wanted, Options())
    raw = identity(F.RAW, Options(qcow2_compression=Qcow2Compression.NONE))
    assert raw == identity(F.RAW, Options())


def test_what_is_wished_stands_above_what_was_told():
    told = Requirements(minimum_cores=2, minimum_ram_mib=512)
    wished = Requirements(minimum_cores=4, firmware=Firmware.UEFI)
    assert joined(told, wished) == Requirements(minimum_cores=4, minimum_ram_mib=512, firmware=Firmware.UEFI)
    assert joined(told, None) == joined(None, told) == told
    assert joined(None, None) is None


def opened(path, kind, *, offset=0, size=1024):
    disk = Detection(format=kind, virtual_size_bytes=size)
    found = Inspection(format=kind, size_bytes=size, virtual_size_bytes=size, disk=disk)
    return SimpleNamespace(path=path, offset=offset, size_bytes=size, inspection=found)


@pytest.mark.threat("T58")
@pytest.mark.parametrize("kind", sorted(QEMU_NAMES))
def test_nothing_about_a_disk_is_left_to_be_guessed(tmp_path, kind):
    path = tmp_path / "x"
    path.write_bytes(bytes(1024))
    said = source_of(opened(path, kind), "/in/x")
    assert said.startswith("json:")
    told = json.loads(said[5:])
    assert told["driver"] == QEMU_NAMES[kind]
    assert told["file"] == {"driver": "file", "filename": "/in/x"}
    assert told.get("backing", "none said") == (None if kind is F.QCOW2 else "none said")


def test_a_disk_in_an_archive_is_a_stretch_of_it(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(4096))
    told = json.loads(source_of(opened(path, F.VMDK, offset=1024, size=2048), "/in/x")[5:])
    file = {"driver": "file", "filename": "/in/x"}
    assert told == {"driver": "vmdk", "file": {"driver": "raw", "offset": 1024, "size": 2048, "file": file}}


@pytest.mark.parametrize("name", ['a"b', "a,b=c", "json:{}", "nbd:x", "\u2603", "a\\b", "a\nb"])
def test_the_name_of_a_file_is_a_name_and_nothing_else(tmp_path, name):
    path = tmp_path / "x"
    path.write_bytes(bytes(1024))
    assert json.loads(source_of(opened(path, F.RAW), f"/in/{name}")[5:])["file"]["filename"] == f"/in/{name}"
