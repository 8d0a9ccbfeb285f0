# SPDX-License-Identifier: Apache-2.0
"""A real appliance whose root is btrfs: built, audited, built again, and started. A campaign: it takes long."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.clock import SystemClock
from coppice.definition.model import FileSystemKind, GuestTest, Provisioner, ProvisionerKind
from coppice.definition.read import find_definition
from coppice.factory.audit import GATE
from coppice.factory.boot import BootSettings, boot_test
from coppice.factory.boot_model import promise_of
from coppice.factory.build import build
from coppice.factory.model import BuildOptions, Outcome
from coppice.factory.verification import verify_build
from coppice.monitor import SILENT

pytestmark = [pytest.mark.e2e, pytest.mark.soak, pytest.mark.timeout(10800), pytest.mark.xdist_group("boot")]

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("COPPICE_TEST_CACHE", CHECKOUT / ".cache" / "tests")) / "factory"
DEBIAN_12 = find_definition(CHECKOUT / "definitions", "debian-12")
CLOCK = SystemClock()
CAPABLE = b"#!/bin/sh -e\nsetcap cap_net_raw+ep /usr/bin/ping\n"
# Also with what only the kernel tells: that every checksum is right.
LOOK = b"""\
#!/bin/sh -e
[ "$(findmnt -no FSTYPE /)" = btrfs ]
getcap /usr/bin/ping | grep cap_net_raw
[ "$(stat -c %h /usr/bin/perl)" = 2 ]
btrfs scrub start -B / > /run/scrub
cat /run/scrub
grep -q 'Error summary: *no errors found' /run/scrub
! dmesg | grep -i 'btrfs.*\\(error\\|warn\\|corrupt\\)'
"""
WITH_BTRFS = replace(
    DEBIAN_12,
    name="debian-12-btrfs",
    file_system=FileSystemKind.BTRFS,
    packages=("libcap2-bin",),
    provisioners=(
        Provisioner(name="capable", kind=ProvisionerKind.SHELL, files={"capable.sh": CAPABLE}, entry="capable.sh"),
    ),
    tests=(*DEBIAN_12.tests, GuestTest(name="btrfs", script=LOOK)),
)


def test_a_debian_on_btrfs_is_the_same_twice_passes_its_audit_and_starts_under_each_firmware(tmp_path):
    options = BuildOptions(cache_directory=CACHE / "parents", timeout_seconds=7000)
    result = build(WITH_BTRFS, root=tmp_path / "builds", options=options, clock=CLOCK, monitor=SILENT)
    assert any(verdict.gate == GATE and verdict.outcome is Outcome.PASSED for verdict in result.verdicts)
    assert "btrfs-progs" in {package.name for package in result.packages}
    assert verify_build(result, options=options, monitor=SILENT).is_identical
    for firmware in result.definition.firmware:
        verdict = boot_test(
            result.images[0],
            firmware=firmware,
            promise=promise_of(result.definition),
            settings=BootSettings(timeout_seconds=3000, work_directory=tmp_path / "boot"),
            monitor=SILENT,
            clock=CLOCK,
        )
        assert verdict.outcome is Outcome.PASSED


def test_a_child_may_be_of_another_file_system_than_its_parent(tmp_path):
    options = BuildOptions(cache_directory=CACHE / "parents", timeout_seconds=7000)
    parent = build(DEBIAN_12, root=tmp_path, options=options, clock=CLOCK, monitor=SILENT)
    child = replace(WITH_BTRFS, name="child", parent=DEBIAN_12.name)
    result = build(child, root=tmp_path, options=replace(options, ancestors=(parent,)), clock=CLOCK, monitor=SILENT)
    assert any(verdict.gate == GATE and verdict.outcome is Outcome.PASSED for verdict in result.verdicts)
