# SPDX-License-Identifier: Apache-2.0
"""Three real builds of the Debian 12 appliance: before its security updates, after them, and with their kernel too.

    python benchmarks/delta_images.py DIRECTORY

Made as the builder makes them (``coppice.factory.bootstrap``: same packages, same boot loader, same file system), but
for the package sources: the archive keeps what a release began with beside its security updates. What was made is kept
in DIRECTORY by what decides its content, with the list of its packages, and is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.builder import read_packages
from coppice.factory.bootstrap.filesystem import Ext4, Population
from coppice.factory.bootstrap.overlay import make_overlay
from coppice.factory.bootstrap.suites import BASE_PACKAGES, find_suite
from coppice.factory.bootstrap.tree import BIOS_BOOT, BIOS_CORE, EFI_CORE, TreeMaker

ARCHIVE = "http://deb.debian.org/debian"
RELEASE = (f"deb {ARCHIVE} bookworm main",)
UPDATED = (*RELEASE, f"deb {ARCHIVE} bookworm-updates main", f"deb {ARCHIVE}-security bookworm-security main")
DISK_BYTES = 4 * 1024**3
STATUS = "/var/lib/dpkg/status"
BUILDS = ("before", "updated", "new-kernel")
_APT = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -oDPkg::Chroot-Directory="$1"'


def obtain(directory: Path) -> dict[str, Path]:
    """Return the three images by name, as compressed qcow2; make those that are not there."""
    suite = find_suite("bookworm")
    said = json.dumps([suite.name, suite.epoch, RELEASE, UPDATED, BASE_PACKAGES, DISK_BYTES, "1"])
    place = directory / hashlib.sha256(said.encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    return {name: _image(place, name) for name in BUILDS}


def packages(image: Path) -> dict[str, str]:
    """Return name → version of what is installed in an image."""
    return dict(json.loads(image.with_suffix(".json").read_text("utf-8")))


def _image(place: Path, name: str) -> Path:
    image = place / f"{name}.qcow2"
    if image.exists():
        return image
    work = place / f"{name}.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    work.chmod(0o711)
    tree = place / f"{name}.tar"
    if not tree.exists():
        print(f"bootstrapping {name}", file=sys.stderr)
        _tree(place, name, work, work / "tree.tar")
        (work / "tree.tar").rename(tree)
    raw = work / "disk.raw"
    installed = _disk(tree, work, raw)
    made = work / "disk.qcow2"
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", str(raw), str(made)]
    subprocess.run(argv, check=True)
    image.with_suffix(".json").write_text(json.dumps(installed), "utf-8")
    made.rename(image)
    shutil.rmtree(work)
    return image


def _tree(place: Path, name: str, work: Path, tar: Path) -> None:
    suite = find_suite("bookworm")
    sources = RELEASE if name == "before" else UPDATED
    if name != "updated":
        maker = TreeMaker(suite=suite, sources=sources, work=work, timeout_seconds=1800, on_line=lambda _: None)
        maker.make_parent(tar)
        return
    # The same machine brought up to date, its kernel held: as a weekly build finds it when there is no new one.
    hold = "chroot \"$1\" sh -c \"dpkg-query -Wf '\\${Package}\\n' 'linux-image-*' | xargs apt-mark hold\""
    unhold = 'chroot "$1" sh -c "apt-mark showhold | xargs apt-mark unhold"'
    # What the tree brings along names the release only.
    listed = f"printf '%s\\n' {shlex.join(sources)} > \"$1\"/etc/apt/sources.list"
    hooks = [hold, f"{_APT} dist-upgrade", unhold]
    argv = ["unshare", "--mount", "--propagation=private", "mmdebstrap", "--mode=root", "--format=tar"]
    argv += ["--variant=custom", "--architectures=amd64", "--components=main"]
    argv += ["--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*"]
    argv += ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    before = shlex.quote(str((place / "before.tar").resolve()))
    argv += [
        f"--setup-hook=tar-in {before} /",
        f"--setup-hook={listed}",
        *(f"--customize-hook={hook}" for hook in hooks),
    ]
    environment = {**os.environ, "TMPDIR": str(work), "SOURCE_DATE_EPOCH": str(suite.epoch)}
    subprocess.run([*argv, suite.name, str(tar), *sources], check=True, env=environment)


def _disk(tree: Path, work: Path, raw: Path) -> dict[str, str]:
    """Write the tree into a disk, as `coppice.factory.bootstrap.builder` does; return what is installed."""
    suite, names = find_suite("bookworm"), disks.Names("benchmark/delta")
    overlay = make_overlay(title="Debian 12", user="debian", root_uuid=names.uuid("root"), private_mirror=False)
    staging = work / "staging"
    staging.mkdir()
    population = Population(staging=staging, epoch=suite.epoch)
    population.add_tree(tree, overlay, keep=(STATUS, BIOS_BOOT, BIOS_CORE, EFI_CORE))
    population.write_script(work / "script")
    disks.partition(raw, DISK_BYTES, names)
    disks.write_bios_boot(raw, population.kept[BIOS_BOOT], population.kept[BIOS_CORE])
    efi = work / "BOOTX64.EFI"
    efi.write_bytes(population.kept[EFI_CORE])
    os.utime(efi, (suite.epoch, suite.epoch))
    disks.write_esp(raw, efi, suite.epoch, names)
    size = disks.root_size_bytes(DISK_BYTES)
    root = Ext4(
        disk=raw, offset_bytes=disks.ROOT_START_BYTES, size_bytes=size, uuid=names.uuid("root"), epoch=suite.epoch
    )
    root.make()
    root.fill(work / "script")
    return {each.name: each.version for each in read_packages(population.kept[STATUS])}


if __name__ == "__main__":
    for built in obtain(Path(sys.argv[1])).values():
        print(built, built.stat().st_size)
