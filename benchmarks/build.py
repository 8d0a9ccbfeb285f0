# SPDX-License-Identifier: Apache-2.0
"""What a build costs, as ratios in one run: against a bare bootstrap and kiwi, of a child, and in bytes.

    python benchmarks/build.py [DIRECTORY] [--json] [--without-kiwi]

As root, with mmdebstrap and a mirror that can be reached; kiwi comes from PyPI, and needs a loop device and Debian's
package ``rsync`` (see ``build_by_kiwi.py``). DIRECTORY keeps packages and kiwi, so that they are fetched once; the
first run warms it up. It takes about ten minutes on two quiet cores, and kiwi half of them.

Prints a table; or with ``--json`` one line a figure: ``{"name", "figure", "goal", "holds"}``. A figure that could not
be had is null, and ``"why"`` is with it. Exits 1 when a goal is missed or a figure could not be had; not for what was
left out by ``--without-kiwi``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from build_by_kiwi import OWN_SPACE, KiwiError, build_by_kiwi
from build_memory import peak_memory

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
    "whole build, CPU as a part of kiwi's": 0.5,
    "child with one package more, CPU as a part of the whole build": 0.15,
    "blocks changed by an update of one package, as a part of those written": 0.03,
    "unchanged definition, seconds": 1.0,
    "compressed qcow2, MB": 180.0,
    "virtual size beyond what was asked for, bytes": 0.0,
    "peak memory of all processes and the tree, GiB": 1.5,
}
UPDATED = "libssl3"
"""Replaced by the version that the release began with: as many bytes as its security update."""
_APT = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -oDPkg::Chroot-Directory="$1"'
_DIRECTORY = Path(__file__).parents[1] / ".cache" / "benchmarks" / "build"
_SECONDS = 3600.0
_CHILDREN = 3
_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was measured.

    Attributes:
        name: One of ``GOALS``.
        value: None: it could not be had.
        why: It could not be had.
        is_left_out: Nobody wanted it.
    """

    name: str
    value: float | None
    why: str = ""
    is_left_out: bool = False

    @property
    def holds(self) -> bool:
        """Whether the goal is reached."""
        return self.value is not None and self.value <= GOALS[self.name]

    def line(self) -> str:
        """Return it as a line of the table."""
        verdict = "left out" if self.is_left_out else "ok" if self.holds else "MISSED"
        value = "-" if self.value is None else f"{self.value:.3f}"
        return f"{self.name:75} {value:>8}  goal {GOALS[self.name]:6.2f}  {verdict} {self.why}".rstrip()

    def document(self) -> dict[str, object]:
        """Return it for programs."""
        value = None if self.value is None else round(self.value, 4)
        said: dict[str, object] = {"name": self.name, "figure": value, "goal": GOALS[self.name], "holds": self.holds}
        return {**said, "why": self.why} if self.why else said


def cpu_seconds() -> float:
    """Return the CPU time of this process and of all that it started and that has ended."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, -1)))


def package_names() -> tuple[str, ...]:
    """Return what each of the builders is asked to install."""
    return tuple(sorted({*SUITE.base_packages, *packages_for(DEFINITION)}))


def bare(place: Path, packages: Path) -> float:
    """Return the CPU time of a bare bootstrap of the same packages into a tar file."""
    names = ",".join(package_names())
    copied = f'mkdir -p "$1"/var/cache/apt/archives && cp {packages}/*.deb "$1"/var/cache/apt/archives/'
    # In memory as well, and gone with its processes when this program is ended.
    argv = [*OWN_SPACE, "sh", "-c", 'mount -t tmpfs bare "$TMPDIR" && "$@"', "bare"]
    argv += ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]
    argv += ["--architectures=amd64", "--components=main", f"--include={names}", f"--setup-hook={copied}"]
    argv += ["--skip=download/empty,essential/unlink", SUITE.name, str(place / "bare.tar"), *sources(SUITE, None)]
    work = place / "bare"
    work.mkdir()
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


def against_kiwi(place: Path, packages: Path, whole: float) -> Figure:
    """Return what part of kiwi's CPU time the whole build took."""
    name = "whole build, CPU as a part of kiwi's"
    size = DEFINITION.disk_size_bytes
    try:
        built = build_by_kiwi(
            place, packages=package_names(), sources=sources(SUITE, None), size_bytes=size, debs=packages
        )
    except KiwiError as problem:
        return Figure(name=name, value=None, why=str(problem))
    print(
        f"kiwi: CPU seconds {built.cpu_seconds:.1f}, seconds {built.seconds:.0f}, "
        f"compressed qcow2 {built.image_bytes / 1e6:.1f} MB",
        file=sys.stderr,
    )
    return Figure(name=name, value=whole / built.cpu_seconds)


def measured(directory: Path, *, with_kiwi: bool) -> list[Figure]:
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
    with peak_memory() as peak:
        parent, whole, _ = timed(place / "built", caches, DEFINITION)
    _, _, again = timed(place / "built", caches, DEFINITION)
    more = replace(DEFINITION, name="more", parent=DEFINITION.name, packages=("jq",))
    # So short that what else happens on a machine shows: the one in the middle.
    child = statistics.median(timed(place / f"child-{n}", caches, more, parent)[1] for n in range(_CHILDREN))
    print(f"CPU seconds: bare {plain:.1f}, whole {whole:.1f}, child {child:.1f}", file=sys.stderr)
    changed = changed_by_update(place, caches, layer_paths(parent.directory / "tree")[0])
    shutil.rmtree(place)
    image = parent.images[0].image
    if with_kiwi:
        kiwi = against_kiwi(directory / "kiwi", packages, whole)
    else:
        kiwi = Figure(name="whole build, CPU as a part of kiwi's", value=None, why="(--without-kiwi)", is_left_out=True)
    beyond = abs(image.virtual_size_bytes - DEFINITION.disk_size_bytes)
    values = (whole / plain, None, child / whole, changed, again, image.size_bytes / 1e6, beyond, peak.bytes / 1024**3)
    return [
        kiwi if value is None else Figure(name=name, value=value) for name, value in zip(GOALS, values, strict=True)
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=_DIRECTORY)
    parser.add_argument("--json", action="store_true", help="one line a figure, for programs")
    parser.add_argument("--without-kiwi", action="store_true", help="leave kiwi's build out")
    arguments = parser.parse_args()
    figures = measured(arguments.directory.resolve(), with_kiwi=not arguments.without_kiwi)
    for figure in figures:
        print(json.dumps(figure.document()) if arguments.json else figure.line())
    return int(not all(figure.holds or figure.is_left_out for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
