# SPDX-License-Identifier: Apache-2.0
"""Packer for real: a machine from an appliance's image, and the installer of Debian as far as a mirror is not asked."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.clock import SystemClock
from coppice.definition.model import DefinedFile, DefinedUser, Provisioner, ProvisionerKind
from coppice.definition.read import read_definition
from coppice.errors import InterruptedRunError
from coppice.factory.build import build
from coppice.factory.evidence.inventory import read_inventory
from coppice.factory.model import BuildOptions
from coppice.factory.packer.builder import PackerBuilder
from coppice.model.checksum import Checksum
from coppice.model.operating_system import Firmware
from coppice.monitor import SILENT
from coppice.process import ended_when

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

CHECKOUT = Path(__file__).parents[2]
DEBIAN = read_definition(CHECKOUT / "definitions" / "debian-12")
INSTALLER = Path("/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64")
MENU = """\
prompt 1
timeout 0
label auto
  kernel linux
  append initrd=initrd.gz auto=true priority=critical vga=normal --- console=ttyS0,115200
"""


def test_packer_makes_an_appliance_of_another_ones_image_over_ssh(tmp_path):
    clock = SystemClock()
    parent = build(DEBIAN, root=tmp_path / "factory", options=BuildOptions(), clock=clock, monitor=SILENT)
    script = b'#!/bin/sh\nset -eu\necho "$who" > /etc/who\nsystemctl is-system-running --wait || true\n'
    child = replace(
        DEBIAN,
        name="packed",
        parent="debian-12",
        builder="packer",
        packages=("tree",),
        users=(DefinedUser(name="worker", groups=("games",)),),
        files=(DefinedFile(path="/etc/it's", content=b"{{ user `key` }}\n", owner="worker", mode=0o640),),
        provisioners=(
            Provisioner(
                name="say",
                kind=ProvisionerKind.SHELL,
                files={"run": script},
                entry="run",
                variables={"who": "you 'there' $(reboot) {{ user `key` }}"},
            ),
        ),
    )
    # What it makes passes the audit, or there is no build.
    options = BuildOptions(ancestors=(parent,), timeout_seconds=3000)
    result = build(child, root=tmp_path / "factory", options=options, clock=clock, monitor=SILENT)
    assert result.verdicts[0].gate == "audit"
    names = {package.name for package in result.packages}
    assert names - {package.name for package in parent.packages} == {"tree"}
    files = read_inventory(result.directory).files
    assert {"/etc/it's", "/usr/bin/tree", "/home/worker/.bashrc"} <= files.keys()
    said = b"you 'there' $(reboot) {{ user `key` }}\n"
    assert files["/etc/who"].sha256 == Checksum.of(said, "sha256").hexdigest
    assert files["/etc/it's"].sha256 == Checksum.of(b"{{ user `key` }}\n", "sha256").hexdigest
    assert not [path for path in files if "coppice-build" in path]


def test_packer_starts_an_installer_that_fetches_its_answers(tmp_path):
    tree = tmp_path / "medium"
    tree.mkdir()
    for name in ("linux", "initrd.gz"):
        shutil.copy(INSTALLER / name, tree)
    shutil.copy("/usr/lib/ISOLINUX/isolinux.bin", tree)
    shutil.copy("/usr/lib/syslinux/modules/bios/ldlinux.c32", tree)
    (tree / "isolinux.cfg").write_text(MENU)
    iso = tmp_path / "medium.iso"
    argv = ["genisoimage", "-quiet", "-R", "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size"]
    subprocess.run([*argv, "4", "-boot-info-table", "-o", iso, tree], check=True)
    checksum = str(Checksum.of(iso.read_bytes(), "sha256"))
    qemu = {"iso-url": str(iso), "iso-checksum": checksum, "boot-wait": "20s", "boot-key-interval": "300ms"}
    definition = replace(
        DEBIAN, name="installed", builder="packer", firmware=(Firmware.BIOS,), platforms={"qemu": qemu}
    )
    work = tmp_path / "work"

    def fetched() -> bool:
        # Reading a file for the first time tells when.
        found = list(work.glob("*/served/preseed.cfg"))
        return any(each.stat().st_atime_ns > each.stat().st_mtime_ns + 10**9 for each in found)

    (tmp_path / "into").mkdir()
    options = BuildOptions(work_directory=work, timeout_seconds=1500)
    with ended_when(fetched), pytest.raises(InterruptedRunError):
        PackerBuilder().build(definition, tmp_path / "into", options, SILENT)
    said = (tmp_path / "into" / "build.log").read_text()
    assert "Typing the boot command over VNC" in said
    assert list(work.iterdir()) == []
