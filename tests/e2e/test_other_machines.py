# SPDX-License-Identifier: Apache-2.0
"""Real appliances for other machines: Debian for arm64 (emulated), and for secure boot. A campaign: it takes long."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.clock import SystemClock
from coppice.definition.model import Boot
from coppice.definition.read import find_definition
from coppice.factory.boot import BootSettings, boot_test
from coppice.factory.boot_model import promise_of
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


def test_debian_for_arm_is_built_here_and_starts(tmp_path):
    system = replace(DEBIAN_12.operating_system, architecture="aarch64")
    definition = replace(DEBIAN_12, name="debian-12-arm64", operating_system=system, firmware=(Firmware.UEFI,))
    options = BuildOptions(timeout_seconds=7000)
    result = build(definition, root=CACHE, options=options, clock=CLOCK, monitor=SILENT)
    assert {package.architecture for package in result.packages} == {"arm64", "all"}
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
