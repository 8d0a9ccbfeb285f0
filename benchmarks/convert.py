# SPDX-License-Identifier: Apache-2.0
"""What a conversion takes, cage and checks included, against bare ``qemu-img`` with the options that serve it best.

    python benchmarks/convert.py [DIRECTORY] [--mebibytes N] [--turns N] [--only WORDS] [--json]

The image has 2 GiB, two fifths of it zeros. Each way runs in a process of its own, in turns; of several turns the
quickest counts. For bare ``qemu-img`` several sets of options are tried, and the quickest of all is what Coppice is
held against. A conversion by Coppice includes looking at the image, setting up the cage, and looking at the result;
what a process does once (load its modules, find out how programs are shut in here) is a figure of its own. The whole
way is that of an image in the cache: the digest of what was converted as well. DIRECTORY is where the files lie
meanwhile: ``/dev/shm`` where that has room, else ``/tmp``. Prints a table, or with ``--json`` one line a figure:
``{"name", "figure", "goal", "holds"}``; exits 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
TURNS = 3
FILLED = 0.6
GOAL, OVA_GOAL, RSS_MB_GOAL = 1.1, 1.2, 300.0
ZSTD = ("-c", "-o", "compression_type=zstd")
BARE_OPTIONS = ((), ("-W",), ("-m", "16"), ("-W", "-m", "16"), ("-W", "-m", "16", "-T", "none", "-t", "none"))
"""Sets of options of qemu-img; one that the file system cannot do (the last, in memory) does not count."""


@dataclass(frozen=True)
class Case:
    """One conversion that is measured.

    Attributes:
        name: For the table.
        source: The file that Coppice converts.
        bare: The one that bare qemu-img converts.
        bare_format: Its format.
        wanted: The format.
        compression: Of qcow2.
        goal: How many times as long as bare qemu-img Coppice may take.
    """

    name: str
    source: str
    bare: str
    bare_format: str
    wanted: str
    compression: str
    goal: float


CASES = (
    Case("qcow2 → raw", "x.qcow2", "x.qcow2", "qcow2", "raw", "none", GOAL),
    Case("qcow2 (zstd) → raw", "x.zstd.qcow2", "x.zstd.qcow2", "qcow2", "raw", "none", GOAL),
    Case("raw → qcow2", "x.raw", "x.raw", "raw", "qcow2", "none", GOAL),
    Case("raw → qcow2 (zstd)", "x.raw", "x.raw", "raw", "qcow2", "zstd", GOAL),
    Case("OVA → qcow2 (zstd)", "x.ova", "x.vmdk", "vmdk", "qcow2", "zstd", OVA_GOAL),
)


def make_sources(directory: Path, size: int) -> None:
    """Write the disk, and the same in the other formats."""
    raw = directory / "x.raw"
    chance = random.Random(7)  # noqa: S311 - content for a measurement
    words = [chance.randbytes(chance.randint(3, 9)) for _ in range(3000)]
    step = 4 * MIB
    with raw.open("wb") as stream:
        stream.truncate(size)
        for start in range(0, size, step):
            kind = chance.random()
            if kind >= FILLED:
                continue
            stream.seek(start)
            # A third is what is compressed already, the rest compresses to about a half, as programs and texts do.
            half = chance.randbytes(step)
            stream.write(half if kind < FILLED / 3 else b"".join(chance.choices(words, k=step // 6))[:step])
    convert = ("qemu-img", "convert", "-f", "raw")
    subprocess.run([*convert, "-O", "qcow2", raw, directory / "x.qcow2"], check=True)
    subprocess.run([*convert, "-O", "qcow2", "-W", *ZSTD, raw, directory / "x.zstd.qcow2"], check=True)
    transformed(directory / "x.raw", "ova", directory / "x.ova")
    with tarfile.open(directory / "x.ova") as archive:
        member = next(each for each in archive if each.name.endswith(".vmdk"))
        content = archive.extractfile(member)
        with (directory / "x.vmdk").open("wb") as stream:
            shutil.copyfileobj(content, stream, MIB)  # type: ignore[arg-type]


def transformed(source: Path, wanted: str, destination: Path, compression: str = "zstd") -> None:
    """Convert one file as Coppice does."""
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.options import Options, Qcow2Compression
    from coppice.conversion.transform import transform
    from coppice.conversion.unpack import opened_disk
    from coppice.model.image import DiskFormat
    from coppice.monitor import SILENT

    limits = ConversionLimits()
    options = Options(qcow2_compression=Qcow2Compression(compression))
    with opened_disk(source, limits, spool=destination.parent) as disk:
        transform(disk, DiskFormat(wanted), destination, options=options, limits=limits, monitor=SILENT)


def one(source: Path, wanted: str, destination: Path, compression: str) -> None:
    """Measure the conversion of one file."""
    warm_up(destination)
    began = time.monotonic()
    transformed(source, wanted, destination, compression)
    report(began)


def whole(source: Path, wanted: str, destination: Path, compression: str) -> None:
    """Convert one image of a cache as a run does; its bytes were verified when they came."""
    from coppice.cache.locks import Leases
    from coppice.cache.model import CachedImage
    from coppice.conversion.convert import Converter
    from coppice.conversion.files import state_of
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.options import Options, Qcow2Compression
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
    from coppice.model.image import DiskFormat

    warm_up(destination)
    began = time.monotonic()
    checksum = Checksum.of(source.name.encode())
    cached = CachedImage(
        key=ImageKey(ListIdentifier("list"), ImageIdentifier("image")),
        version="1",
        path=source,
        checksum=checksum,
        listed_checksum=checksum,
        size_bytes=source.stat().st_size,
        declared_format=None,
        reused=True,
        fingerprint=state_of(source),
    )
    converter = Converter(
        destination,
        ConversionLimits(),
        leases=Leases(destination / "leases"),
        options=Options(qcow2_compression=Qcow2Compression(compression)),
    )
    converter.convert(cached, (DiskFormat(wanted),))
    report(began)


def warm_up(destination: Path) -> None:
    """Convert a disk of a megabyte: what a process does once is done then."""
    small, made = destination.with_name("small"), destination.with_name("small-made")
    small.write_bytes(bytes(MIB))
    transformed(small, "qcow2", made)
    small.unlink()
    made.unlink()


def first(_source: Path, _wanted: str, destination: Path, _compression: str) -> None:
    """Measure the conversion of a megabyte in a process that has done nothing yet."""
    began = time.monotonic()
    warm_up(destination)
    report(began)


WAYS = {each.__name__: each for each in (one, whole, first)}


def report(began: float) -> None:
    """Print what it took: seconds, and megabytes of this process and of the largest that it started, added."""
    taken = time.monotonic() - began
    used = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"seconds": taken, "rss_mb": used / 1024}))


def own(way: str, case: Case, directory: Path) -> tuple[float, float]:
    """Return seconds and megabytes of a conversion by Coppice, in a process of its own."""
    made = directory / "made"
    argv = [sys.executable, __file__, "--way", way, str(directory / case.source), case.wanted, str(made)]
    said = subprocess.run([*argv, case.compression], check=True, capture_output=True, text=True).stdout
    shutil.rmtree(made, ignore_errors=True)
    made.unlink(missing_ok=True)
    found = json.loads(said.splitlines()[-1])
    return found["seconds"], found["rss_mb"]


def bare(case: Case, directory: Path, options: tuple[str, ...]) -> float | None:
    """Return the seconds of bare qemu-img; None: it cannot do that here."""
    made = directory / "made"
    packed = ZSTD if case.compression == "zstd" and case.wanted == "qcow2" else ()
    argv = ["qemu-img", "convert", "-f", case.bare_format, "-O", case.wanted, *options, *packed]
    began = time.monotonic()
    ended = subprocess.run([*argv, directory / case.bare, made], check=False, capture_output=True)
    taken = time.monotonic() - began
    made.unlink(missing_ok=True)
    return taken if ended.returncode == 0 else None


def measure(directory: Path, turns: int, only: str) -> list[tuple[str, float, float | None]]:
    """Return the figures: name, figure, goal; of those ways whose names have ``only`` in them."""
    firsts = [own("first", CASES[0], directory)[0] for _ in range(turns)]
    figures: list[tuple[str, float, float | None]] = [
        ("first conversion of a process, of 1 MiB: seconds", min(firsts), None)
    ]
    for case in (each for each in CASES if only in each.name):
        bares: dict[tuple[str, ...], list[float]] = {each: [] for each in BARE_OPTIONS}
        ours, wholes = [], []
        for _ in range(turns):
            for each, found in bares.items():
                taken = bare(case, directory, each)
                found.extend([] if taken is None else [taken])
            ours.append(own("one", case, directory))
            wholes.append(own("whole", case, directory))
        quickest = {each: min(found) for each, found in bares.items() if found}
        best = min(quickest, key=lambda each: quickest[each])
        words = " ".join(best) or "no options"
        figures += [
            (f"{case.name}: times bare qemu-img", min(ours)[0] / quickest[best], case.goal),
            (f"{case.name}: peak memory with children, MB", max(rss for _, rss in ours + wholes), RSS_MB_GOAL),
            (f"{case.name}: seconds", min(ours)[0], None),
            (f"{case.name}: seconds of bare qemu-img ({words})", quickest[best], None),
            (f"{case.name}: the whole way, times bare qemu-img", min(wholes)[0] / quickest[best], None),
        ]
        figures += [(f"    bare, {' '.join(each) or 'no options'}: seconds", quickest[each], None) for each in quickest]
    return figures


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--mebibytes", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--only", default="", help="part of the name of a way")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = options.mebibytes * MIB
    memory = Path("/dev/shm")  # noqa: S108 - a measurement wants no disk in it
    place = options.directory or (memory if shutil.disk_usage(memory).free > 8 * size else Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(dir=place, prefix="coppice-convert-") as directory:
        make_sources(Path(directory), size)
        figures = measure(Path(directory), options.turns, options.only)
    return show(figures, as_json=options.json)


def show(figures: list[tuple[str, float, float | None]], *, as_json: bool) -> int:
    """Print name, figure and goal; return 1 when a goal is missed."""
    missed = False
    for name, figure, goal in figures:
        holds = goal is None or figure <= goal
        missed = missed or not holds
        if as_json:
            print(json.dumps({"name": name, "figure": round(figure, 4), "goal": goal, "holds": holds}))
            continue
        said = "" if goal is None else f"goal {goal}: {'holds' if holds else 'MISSED'}"
        print(f"{name:<72} {figure:10.3f}  {said}")
    return int(missed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--way"]:
        WAYS[sys.argv[2]](Path(sys.argv[3]), sys.argv[4], Path(sys.argv[5]), sys.argv[6])
        sys.exit(0)
    sys.exit(main())
