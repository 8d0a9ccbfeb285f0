# SPDX-License-Identifier: Apache-2.0
"""What opening a compressed image costs, beside the bare program that unpacks it into a file.

    python benchmarks/unpack.py [DIRECTORY] [--mib 1024] [--turns 3] [--only NAME] [--json]

A disk of programs and libraries of this machine, two fifths of it zeros, is packed once, in DIRECTORY
(``.cache/unpack``): ``disk.raw.xz``, ``disk.raw.zst``, ``disk.raw.gz`` and ``disk.qcow2.gz``. Each is then unpacked by
``xz -dc``, ``zstd -dc`` or ``gzip -dc`` into a file, and by `opened_disk` in a process of its own, which looks at the
disk as well. They take turns, and the best of each counts. Prints a table, or with ``--json`` one line a figure:
``{"name", "figure", "goal", "holds"}``; exits 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
RATIO_GOAL, MEMORY_GOAL_MB = 1.15, 100.0
PACKED = {
    "disk.raw.xz": ("disk.raw", ("xz", "-T2", "-3", "-c")),
    "disk.raw.zst": ("disk.raw", ("zstd", "-q", "-T2", "-3", "-c")),
    "disk.raw.gz": ("disk.raw", ("gzip", "-c")),
    "disk.qcow2.gz": ("disk.qcow2", ("gzip", "-c")),
}
BARE = {".xz": "xz", ".zst": "zstd", ".gz": "gzip"}
OPENING = """
import json, resource, sys, time
from pathlib import Path
from coppice.conversion.model import ConversionLimits
from coppice.conversion.unpack import opened_disk
image, small, spool = map(Path, sys.argv[1:])
with opened_disk(small, ConversionLimits(), spool=spool):
    pass  # everything is imported by now
before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
with opened_disk(image, ConversionLimits(), spool=spool) as disk:
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    size = disk.size_bytes
print(json.dumps({
    "seconds": seconds,
    "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    "mb": after.ru_maxrss / 1024,
    "size": size,
}))
"""


@dataclass(frozen=True)
class Taken:
    """What one turn took."""

    seconds: float
    processor: float
    mb: float = 0.0


def make_images(directory: Path, size_mib: int) -> None:
    """Write the disk and what it is packed into, unless they are there."""
    directory.mkdir(parents=True, exist_ok=True)
    raw = directory / "disk.raw"
    if not raw.exists() or raw.stat().st_size != size_mib * MIB:
        fill(raw, size_mib)
        for name in (*PACKED, "disk.qcow2"):
            (directory / name).unlink(missing_ok=True)
    if not (directory / "disk.qcow2").exists():
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, directory / "disk.qcow2"], check=True)
    for name, (source, command) in PACKED.items():
        if not (directory / name).exists():
            with (directory / source).open("rb") as content, (directory / f"{name}.tmp").open("wb") as stream:
                subprocess.run(command, stdin=content, stdout=stream, check=True)
            (directory / f"{name}.tmp").rename(directory / name)
    (directory / "small.raw").write_bytes(bytes(MIB))


def fill(raw: Path, size_mib: int) -> None:
    """Write programs and libraries, three MiB of them and then two of zeros, until the disk is full."""
    with raw.open("wb") as stream:
        stream.seek(510)
        stream.write(b"\x55\xaa")
        stream.seek(MIB)
        pieces = 0
        for path in sorted(Path("/usr/lib").rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            with path.open("rb") as content:
                while (piece := content.read(MIB)) and stream.tell() < size_mib * MIB:
                    stream.write(piece)
                    pieces += len(piece)
                    if pieces >= 3 * MIB:
                        stream.seek(2 * MIB, os.SEEK_CUR)
                        pieces = 0
        stream.truncate(size_mib * MIB)


def bare(image: Path, place: Path) -> Taken:
    """Unpack with the program."""
    os.sync()
    out = place / "out"
    before, began = os.times(), time.monotonic()
    with out.open("wb") as stream:
        subprocess.run([BARE[image.suffix], "-dc", image], stdout=stream, check=True)
    seconds, after = time.monotonic() - began, os.times()
    out.unlink()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(seconds, processor)


def opening(image: Path, place: Path) -> Taken:
    """Open with the product."""
    os.sync()
    command = [sys.executable, "-c", OPENING, image, image.parent / "small.raw", place]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return Taken(found["seconds"], found["processor"], found["mb"])


def measure(directory: Path, turns: int, only: str) -> list[tuple[str, float, float | None]]:
    """Return name, figure and goal; of those images whose names have ``only`` in them."""
    figures: list[tuple[str, float, float | None]] = []
    place = directory / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in (each for each in PACKED if only in each):
        theirs, ours = [], []
        for _ in range(turns):
            theirs.append(bare(directory / name, place))
            ours.append(opening(directory / name, place))
        best_theirs, best_ours = min(each.seconds for each in theirs), min(each.seconds for each in ours)
        figures += [
            (f"{name}: times the bare program", best_ours / best_theirs, RATIO_GOAL),
            (f"{name}: seconds", best_ours, None),
            (f"{name}: seconds of the bare program", best_theirs, None),
            (
                f"{name}: processor time, times the bare program's",
                min(each.processor for each in ours) / min(each.processor for each in theirs),
                None,
            ),
            (f"{name}: peak memory, MB", max(each.mb for each in ours), MEMORY_GOAL_MB),
        ]
    shutil.rmtree(place)
    return figures


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(".cache/unpack"))
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", default="", help="part of the name of an image")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    make_images(options.directory.resolve(), options.mib)
    missed = False
    for name, figure, goal in measure(options.directory.resolve(), options.turns, options.only):
        holds = goal is None or figure <= goal
        missed = missed or not holds
        if options.json:
            print(json.dumps({"name": name, "figure": round(figure, 4), "goal": goal, "holds": holds}))
            continue
        said = "" if goal is None else f"goal {goal}: {'holds' if holds else 'MISSED'}"
        print(f"{name:<60} {figure:10.3f}  {said}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
