# SPDX-License-Identifier: Apache-2.0
"""Real appliances for other machines: Debian for arm64 (emulated), and for secure boot. A campaign: it takes long."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from coppice.clock import SystemClock
from coppice.definition.model import Boot
from coppice.definition.read import find_definition
from coppice.factory.boot import BootSettings, boot_test
from coppice.factory.boot_model import promise_of
from coppice.factory.bootstrap.layers import layer_paths
from coppice.factory.build import build
from coppice.factory.model import BuildOptions, Outcome
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.monitor import SILENT

pytestmark = [pytest.mark.e2e, pytest.mark.soak, pytest.mark.timeout(10800)]

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("COPPICE_TEST_CACHE", CHECKOUT / ".cache" / "tests")) / "factory"
DEBIAN_12 = find_definition(CHECKOUT / "definitions", "debian-12")
CLOCK = SystemClock()
ARM = 183
"""What ELF calls it."""


def booted(result, firmware, tmp_path):
    """Boot a build; return what was seen."""
    verdict = boot_test(
        result.images[0],
        firmware=firmware,
        promise=promise_of(result.definition),
        settings=BootSettings(timeout_seconds=3000, work_directory=tmp_path / "boot"),
        monitor=SILENT,
        clock=CLOCK,
    )
    assert verdict.outcome is Outcome.PASSED
    return dict(verdict.facts)


def processor_of(data):
    """Return what a program is for, as its header says; None: it is no program."""
    return int.from_bytes(data[18:20], "little") if data[:4] == b"\x7fELF" else None


def initial_files(packed):
    """Yield the content of each file of an initial file system."""
    data = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    at = 0
    while (header := data[at : at + 110])[:6] == b"070701":
        length, name_length = int(header[54:62], 16), int(header[94:102], 16)
        start = at + 110 + name_length
        start += -start % 4
        if data[at + 110 : start].startswith(b"TRAILER!!!"):
            return
        yield data[start : start + length]
        at = start + length
        at += -at % 4
    message = "not a cpio archive to its end"
    raise ValueError(message)


def processors_in(layer):
    """Return what the programs of a layer are for, and those in its initial file systems."""
    found, first = set(), set()
    with (
        layer.open("rb") as packed,
        zstandard.ZstdDecompressor().stream_reader(packed) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                continue
            if "/boot/initrd.img-" in member.name:
                first |= {processor_of(each) for each in initial_files(content.read())}
            else:
                found.add(processor_of(content.read(20)))
    return found, first


def test_debian_for_arm_is_built_here_and_starts(tmp_path):
    definition = find_definition(CHECKOUT / "definitions", "debian-12@arm64")
    options = BuildOptions(timeout_seconds=7000)
    result = build(definition, root=CACHE, options=options, clock=CLOCK, monitor=SILENT)
    assert {package.architecture for package in result.packages} == {"arm64", "all"}
    # Nothing of what did not have to be emulated was left in it.
    base, *_ = layer_paths(result.tree)
    assert processors_in(base) == ({ARM, None}, {ARM, None})
    assert "-arm64" in booted(result, Firmware.UEFI, tmp_path)["kernel"]


def test_debian_for_secure_boot_starts_where_only_what_is_signed_may(tmp_path):
    parent = build(DEBIAN_12, root=CACHE, options=BuildOptions(), clock=CLOCK, monitor=SILENT)
    signed = replace(
        DEBIAN_12,
        name="signed",
        parent=DEBIAN_12.name,
        boot=Boot(secure_boot=True),
        formats=(DiskFormat.QCOW2, DiskFormat.OVA),
    )
    options = BuildOptions(cache_directory=CACHE / "parents", ancestors=(parent,))
    result = build(signed, root=tmp_path, options=options, clock=CLOCK, monitor=SILENT)
    assert "shim-signed" in {package.name for package in result.packages}
    assert booted(result, Firmware.UEFI, tmp_path)["secure-boot"] == "1"
