# SPDX-License-Identifier: Apache-2.0
"""What a build costs, as ratios in one run: against a bare bootstrap, of a child against its parent, and in bytes.

    python benchmarks/build.py DIRECTORY [--json]

As root, with mmdebstrap and a mirror that can be reached. DIRECTORY keeps packages, so that they are fetched once;
the first run warms it up. Prints a table; or with ``--json`` one line a figure:
``{"name", "figure", "goal", "holds"}``. Exits 1 when a goal is missed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from coppice.clock import SystemClock
from coppice.definition.read import read_definition
from coppice.factory.bootstrap.assembly import Assembly
from coppice.factory.bootstrap.layers import adopt_layers, keep_layer, layer_name, layer_paths
from coppice.factory.bootstrap.overlay import packages_for
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.bootstrap.tree import TreeMaker
from coppice.factory.build import build
from coppice.factory.model import BuildOptions, BuildResult
from coppice.monitor import SILENT

DEFINITION = read_definition(Path(__file__).parents[1] / "definitions" / "debian-12")
SUITE = find_suite(DEFINITION.suite)
GOALS = {
    "whole build, CPU as a multiple of bare mmdebstrap": 1.25,
    "child with one package more, CPU as a part of the whole build": 0.15,
    "blocks changed by an update of one package, as a part of those written": 0.03,
    "unchanged definition, seconds": 1.0,
    "compressed qcow2, MB": 180.0,
    "largest process and the tree in memory, GiB": 1.5,
}
UPDATED = "libssl3"
"""Replaced by the version that the release began with: as many bytes as its security update."""
_APT = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -oDPkg::Chroot-Directory="$1"'
_SECONDS = 3600.0
_BLOCK = 4096


def cpu_seconds() -> float:
    """Return the CPU time of this process and of all that it started and that has ended."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, -1)))


def bare(place: Path, packages: Path) -> float:
    """Return the CPU time of a bare bootstrap of the same packages into a tar file."""
    names = ",".join(sorted({*SUITE.base_packages, *packages_for(DEFINITION)}))
    copied = f'mkdir -p "$1"/var/cache/apt/archives && cp {packages}/*.deb "$1"/var/cache/apt/archives/'
    argv = ["unshare", "--mount", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]
    argv += ["--architectures=amd64", "--components=main", f"--include={names}", f"--setup-hook={copied}"]
    argv += ["--skip=download/empty,essential/unlink", SUITE.name, str(place / "bare.tar"), *sources(SUITE, None)]
    # In memory as well, where there is a place for it.
    memory = Path("/dev/shm")  # noqa: S108 - made and removed by mmdebstrap, whose names are drawn by chance
    work = memory if memory.is_dir() else place
    started = cpu_seconds()
    subprocess.run(argv, check=True, capture_output=True, env={**os.environ, "TMPDIR": str(work)})
    (place / "bare.tar").unlink()
    return cpu_seconds() - started


def timed(place: Path, caches: Path, definition: object, *ancestors: BuildResult) -> tuple[BuildResult, float, float]:
    """Build; return the build, CPU seconds and seconds."""
    options = BuildOptions(cache_directory=caches, timeout_seconds=_SECONDS, ancestors=ancestors)
    started, since = cpu_seconds(), time.monotonic()
    result = build(definition, root=place, options=options, clock=SystemClock(), monitor=SILENT)  # type: ignore[arg-type]
    return result, cpu_seconds() - started, time.monotonic() - since


def changed_by_update(place: Path, caches: Path, base: Path) -> float:
    """Return the part of the written blocks that differ once one package was replaced."""
    maker = TreeMaker(
        suite=SUITE,
        sources=sources(SUITE, None),
        work=place / "making",
        timeout_seconds=_SECONDS,
        on_output=lambda _: None,
        packages=caches / "packages" / "debian",
    )
    (place / "making").mkdir()
    disks = []
    for name in ("before", "after"):
        tree = place / f"{name}.tree"
        adopt_layers(base, tree)
        if name == "after":
            oldest = f"$(apt-cache -c \"$MMDEBSTRAP_APT_CONFIG\" madison {UPDATED} | awk 'END {{ print $3 }}')"
            hook = f"{_APT} install --allow-downgrades {UPDATED}={oldest}"
            made = maker.make_child(layer_paths(tree), (), hook)
            keep_layer(made.tar, tree / layer_name(len(layer_paths(tree))))
        work = place / f"{name}.work"
        work.mkdir()
        assembly = Assembly(
            definition=DEFINITION,
            suite=SUITE,
            tree=tree,
            ancestors=(),
            private_mirror=False,
            builder="benchmark",
            work=work,
            note=lambda _: None,
        )
        disks.append(assembly.make())
    return compared(*disks)


def compared(first: Path, second: Path) -> float:
    """Return the part of the blocks written in ``second`` that are other ones in ``first``."""
    changed = written = at = 0
    with first.open("rb") as old, second.open("rb") as new:
        while True:
            try:
                at = os.lseek(new.fileno(), at, os.SEEK_DATA) // _BLOCK * _BLOCK
            except OSError:
                return changed / written
            blocks = [os.pread(each.fileno(), _BLOCK, at) for each in (old, new)]
            changed += blocks[0] != blocks[1]
            written += any(blocks[1])
            at += _BLOCK


def measured(directory: Path) -> dict[str, float]:
    """Return the figures."""
    caches, place = directory / "caches", directory / "work"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if not (caches / "packages" / "debian").is_dir():
        timed(place / "warm", caches, DEFINITION)
    packages = (caches / "packages" / "debian").resolve()
    for kept in caches.glob("*.tar.zst"):
        kept.unlink()
    plain = bare(place, packages)
    parent, whole, _ = timed(place / "built", caches, DEFINITION)
    _, _, again = timed(place / "built", caches, DEFINITION)
    more = replace(DEFINITION, name="more", parent=DEFINITION.name, packages=("jq",))
    _, child, _ = timed(place / "built", caches, more, parent)
    layers = layer_paths(parent.directory / "tree")
    # Compressed, a tree has a third of its length.
    tree_bytes = sum(path.stat().st_size for path in layers) * 3
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 + tree_bytes
    figures = {
        "whole build, CPU as a multiple of bare mmdebstrap": whole / plain,
        "child with one package more, CPU as a part of the whole build": child / whole,
        "blocks changed by an update of one package, as a part of those written": changed_by_update(
            place, caches, layers[0]
        ),
        "unchanged definition, seconds": again,
        "compressed qcow2, MB": parent.images[0].image.size_bytes / 1e6,
        "largest process and the tree in memory, GiB": peak / 1024**3,
    }
    print(f"CPU seconds: bare {plain:.1f}, whole {whole:.1f}, child {child:.1f}", file=sys.stderr)
    shutil.rmtree(place)
    return figures


def main() -> int:
    """Measure and print."""
    words = [word for word in sys.argv[1:] if word != "--json"]
    figures = measured(Path(words[0]).resolve())
    for name, figure in figures.items():
        goal = GOALS[name]
        if "--json" in sys.argv:
            print(json.dumps({"name": name, "figure": round(figure, 4), "goal": goal, "holds": figure <= goal}))
        else:
            print(f"{name:75} {figure:8.3f}  goal {goal:6.2f}  {'ok' if figure <= goal else 'MISSED'}")
    return int(any(figure > GOALS[name] for name, figure in figures.items()))


if __name__ == "__main__":
    sys.exit(main())
