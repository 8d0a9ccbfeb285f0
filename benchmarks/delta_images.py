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
import shutil
import sys
from pathlib import Path

from coppice.definition.read import read_definition
from coppice.factory.bootstrap.assembly import Assembly
from coppice.factory.bootstrap.dpkg import STATUS, read_packages
from coppice.factory.bootstrap.layers import adopt_layers, keep_layer, layer_name, layer_paths
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.bootstrap.tree import TreeMaker
from coppice.factory.outputs import write_image
from coppice.model.image import DiskFormat

UPDATED = sources(find_suite("bookworm"), None)
RELEASE = UPDATED[:1]
DEFINITION = Path(__file__).parents[1] / "definitions" / "debian-12"
KERNEL = "linux-image-cloud-amd64"
BUILDS = ("before", "updated", "new-kernel")
_SECONDS = 1800.0


def obtain(directory: Path) -> dict[str, Path]:
    """Return the three images by name, as compressed qcow2; make those that are not there."""
    suite = find_suite("bookworm")
    said = json.dumps([suite.name, suite.epoch, RELEASE, UPDATED, suite.base_packages, "2"])
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
    tree = place / f"{name}.tree"
    if not layer_paths(tree):
        print(f"bootstrapping {name}", file=sys.stderr)
        _tree(place, name, work, tree)
    assembly = Assembly(
        definition=read_definition(DEFINITION),
        suite=find_suite("bookworm"),
        tree=tree,
        ancestors=(),
        private_mirror=False,
        builder="benchmark/delta",
        work=work,
        note=lambda _: None,
    )
    made = work / image.name
    write_image(assembly.make(), made, DiskFormat.QCOW2, seed=name, timeout_seconds=_SECONDS)
    installed = {each.name: each.version for each in read_packages(assembly.content(STATUS) or b"")}
    image.with_suffix(".json").write_text(json.dumps(installed), "utf-8")
    made.rename(image)
    shutil.rmtree(work)
    return image


def _tree(place: Path, name: str, work: Path, tree: Path) -> None:
    sources = RELEASE if name == "before" else UPDATED
    making = work / "making"
    making.mkdir(mode=0o711)
    maker = TreeMaker(
        suite=find_suite("bookworm"),
        sources=sources,
        work=making,
        timeout_seconds=_SECONDS,
        on_output=lambda _: None,
        packages=place / "packages",
    )
    shutil.rmtree(tree, ignore_errors=True)
    if name == "updated":
        # The same machine brought up to date, its kernel kept: as a weekly build finds it when there is no new one.
        kernel = packages(place / "before.qcow2")[KERNEL]
        adopt_layers(place / "before.tree", tree)
        made = maker.make_child(layer_paths(tree), (f"{KERNEL}={kernel}",), None)
    else:
        tree.mkdir()
        made = maker.make_base()
    keep_layer(made.tar, tree / layer_name(len(layer_paths(tree))))


if __name__ == "__main__":
    for built in obtain(Path(sys.argv[1])).values():
        print(built, built.stat().st_size)
