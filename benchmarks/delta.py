# SPDX-License-Identifier: Apache-2.0
"""What a new version costs with deltas: three real builds of the Debian 12 appliance, nginx on loopback.

    python benchmarks/delta.py [DIRECTORY] [--json] [--chart FILE.png]

From *before* to *updated* (its security updates) and to *new-kernel* (those of its kernel too); see
``delta_images.py``, which makes them once, in DIRECTORY (``.cache/delta``). A subscriber who holds *before* gets each
by a patch, and by blocks alone. Prints tables, or with ``--json`` one line a figure: ``{"name", "figure", "goal",
"holds"}``; exits 1 when a goal is missed. ``--chart`` also measures other ways of cutting and draws them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard
from delta_images import obtain, packages

from coppice.cache.assembly import Seed, assemble
from coppice.cache.assembly_remote import ClientRemote
from coppice.http import Client
from coppice.imagelist.delta_make import DeltaMaker
from coppice.imagelist.delta_scan import Guest
from coppice.imagelist.delta_store import DeltaFile, DeltaStore
from coppice.imagelist.model import DeltaPatch, ImageDelta, ListedImage, RemoteFile
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.testing.nginx import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator

MB = 1_000_000
FETCH_GOALS = {"updated": 0.06, "new-kernel": 0.25}
"""Most bytes fetched, as a share of the compressed image's."""
REBUILD_GOAL, RSS_MB_GOAL = 2.0, 400.0
TURNS = 1
CUTS = (4096, 16 * 1024, 64 * 1024, 4 * 1024 * 1024)


@dataclass(frozen=True)
class Build:
    """One build: the published file, and its disk."""

    name: str
    image: Path
    guest: Guest


@dataclass(frozen=True)
class Got:
    """How a subscriber got a build."""

    method: str
    fetched: int
    seconds: float


def builds(directory: Path) -> dict[str, Build]:
    """Return the builds, their disks made beside them."""
    found = {}
    for name, image in obtain(directory).items():
        raw = image.with_suffix(".raw")
        if not raw.exists():
            made = raw.with_suffix(".tmp")
            subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, made], check=True)
            made.rename(raw)
        guest = Guest(path=raw, size_bytes=raw.stat().st_size, checksum=digest_of(raw))
        found[name] = Build(name, image, guest)
    return found


def digest_of(path: Path) -> Checksum:
    """Return the sha512 of a file, kept beside it."""
    kept = path.with_suffix(".sha512")
    if not kept.exists():
        with path.open("rb") as stream:
            kept.write_text(hashlib.file_digest(stream, "sha512").hexdigest())
    return Checksum("sha512", kept.read_text())


def listed(build: Build, delta: ImageDelta, uri: str) -> ListedImage:
    """Return what a list would say of a build."""
    return ListedImage(
        identifier=ImageIdentifier("0"),
        version="2",
        title=build.name,
        description="",
        uri=uri,
        size_bytes=build.image.stat().st_size,
        checksum=Checksum.of(b"not fetched here"),
        declared_format="qcow2",
        operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        hypervisor="",
        comments="",
        expires=None,
        requirements=Requirements(),
        groups=(),
        mpuri=None,
        base_mpuri=None,
        delta=delta,
    )


class Publisher:
    """Makes the deltas, and measures that."""

    def __init__(self, directory: Path, nginx: Nginx) -> None:
        self._store = DeltaStore(directory)
        self._maker = DeltaMaker(self._store, SILENT)
        self._nginx = nginx
        self.seconds: dict[str, float] = {}
        self.space: dict[str, int] = {}

    def make(self, build: Build, origin: Build | None) -> ImageDelta:
        """Return the delta of a build."""
        began = time.monotonic()
        checksum = Checksum.of(build.name.encode())
        record = self._maker.image(checksum, lambda: build.guest, build.name)
        self.seconds[f"{build.name}: index and pack"] = time.monotonic() - began
        self.space[f"{build.name}: index"] = record.index.facts.size_bytes
        self.space[f"{build.name}: new pack"] = record.packs[-1].file.facts.size_bytes
        patches: tuple[DeltaPatch, ...] = ()
        if origin is not None:
            began = time.monotonic()
            file = self._maker.patch(
                (Checksum.of(origin.name.encode()), lambda: origin.guest),
                (checksum, lambda: build.guest),
                most_bytes=build.image.stat().st_size,
                name=build.name,
            )
            if file is None:
                message = "the patch is not worth it"
                raise RuntimeError(message)
            patches = (DeltaPatch(origin=origin.guest.checksum, file=self._remote(file)),)
            self.seconds[f"{build.name}: patch"] = time.monotonic() - began
            self.space[f"{build.name}: patch"] = file.facts.size_bytes
        return ImageDelta(
            guest_size_bytes=record.guest_size_bytes,
            guest_checksum=record.guest_checksum,
            index=self._remote(record.index),
            packs=tuple(self._remote(pack.file) for pack in record.packs),
            patches=patches,
        )

    def _remote(self, file: DeltaFile) -> RemoteFile:
        place = self._nginx.root / file.name
        if not place.exists():
            os.link(self._store.path(file), place)
        return RemoteFile(
            uri=self._nginx.url(f"/{file.name}"),
            size_bytes=file.facts.size_bytes,
            checksum=Checksum("sha512", file.facts.sha512),
        )


def get(image: ListedImage, seed: Build, client: Client, directory: Path) -> Got:
    """Have a subscriber who holds ``seed`` get an image."""
    destination = directory / "made"
    destination.unlink(missing_ok=True)
    began = time.monotonic()
    made = assemble(
        image,
        destination=destination,
        seeds=[Seed(path=seed.guest.path, checksum=seed.guest.checksum)],
        remote=ClientRemote(client),
        directory=directory,
        limit_bytes=1 << 40,
    )
    return Got(str(made.method), made.fetched_bytes, time.monotonic() - began)


def copy_seconds(source: Path, directory: Path) -> float:
    """Return how long ``cp`` of every byte of a disk takes, durably."""
    place = directory / "copied"
    began = time.monotonic()
    subprocess.run(["cp", "--sparse=never", "--reflink=never", source, place], check=True)
    subprocess.run(["sync", place], check=True)
    taken = time.monotonic() - began
    place.unlink()
    return taken


def hash_seconds(size: int) -> float:
    """Return how long the sha512 of so many bytes takes, out of memory: what is put together is held against it."""
    digest, piece, began = hashlib.sha512(), bytes(1024 * 1024), time.monotonic()
    for _ in range(size // len(piece)):
        digest.update(piece)
    return time.monotonic() - began


def cut_bytes(new: Path, old: Path, size: int) -> int:
    """Return how many bytes are fetched when both files are cut in pieces of that size: each zstd -3 by itself."""
    compressor, known, fetched = zstandard.ZstdCompressor(level=3), set(), 0
    for piece in pieces(old, size):
        known.add(hashlib.sha256(piece).digest())
    for piece in pieces(new, size):
        found = hashlib.sha256(piece).digest()
        if found not in known:
            known.add(found)
            fetched += len(compressor.compress(piece))
    return fetched


def pieces(path: Path, size: int) -> Iterator[bytes]:
    """Yield the pieces of a file that are not all zeros."""
    zeros = bytes(size)
    with path.open("rb") as stream:
        while piece := stream.read(size):
            if piece != zeros[: len(piece)]:
                yield piece


def draw(shares: dict[str, dict[str, float]], chart: Path) -> None:
    """Draw bytes by method."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5))
    methods = list(shares["updated"])
    for at, (name, label) in enumerate(
        (("updated", "19 packages updated, same kernel"), ("new-kernel", "the same, and a new kernel"))
    ):
        places = [row + (at - 0.5) * 0.4 for row in range(len(methods))]
        bars = axes.barh(places, [shares[name][each] * 100 for each in methods], height=0.38, label=label)
        axes.bar_label(bars, fmt="%.1f %%", padding=3, fontsize=8)
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_xlabel("bytes fetched, % of the compressed image")
    axes.set_title("What a new version of a Debian 12 appliance costs a site that holds the one before")
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(chart, dpi=110, metadata={"Software": None})


def measure_cuts(found: dict[str, Build], name: str) -> dict[str, float]:
    """Return what other ways of cutting fetch, as shares of the compressed image."""
    new, old = found[name], found["before"]
    full = new.image.stat().st_size
    shares = {"whole file": 1.0}
    for size in (64 * 1024, 4 * 1024 * 1024):
        shares[f"qcow2, pieces of {size // 1024} KiB"] = cut_bytes(new.image, old.image, size) / full
    for size in reversed(CUTS):
        shares[f"disk, pieces of {size // 1024} KiB"] = cut_bytes(new.guest.path, old.guest.path, size) / full
    return shares


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(".cache/delta"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--chart", type=Path)
    options = parser.parse_args()
    options.directory = options.directory.resolve()
    found = builds(options.directory)
    figures: list[tuple[str, float, float | None]] = []
    shares: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as place, Nginx(Path(place) / "nginx_") as nginx:
        work = Path(place)
        nothing = work / "coppice.toml"
        nothing.write_text("[transfer]\nallow_private_addresses = true\n")
        client = Client(load_settings(config=nothing, environ={}, options={}, system_file=nothing).transfer)
        base = work / "publisher"
        first = Publisher(base, nginx)
        first.make(found["before"], None)
        disk = found["before"].guest.path
        copied, hashed = copy_seconds(disk, work), hash_seconds(disk.stat().st_size)
        figures.extend(
            (("sha512 of as many bytes, times copying", hashed / copied, None), ("copying: seconds", copied, None))
        )
        for name, goal in FETCH_GOALS.items():
            build = found[name]
            full = build.image.stat().st_size
            delta = first.make(build, found["before"])
            ways = (("patch", delta, goal), ("blocks", replace(delta, patches=()), None))
            for way, each, most in ways:
                image = listed(build, each, nginx.url("/whole"))
                turns = (get(image, found["before"], client, work / f"{name}-{way}-{turn}") for turn in range(TURNS))
                got = min(turns, key=lambda got: got.seconds)
                said = f"{name}, by {got.method}"
                figures.append((f"{said}: share fetched", got.fetched / full, most))
                figures.append((f"{said}: MB fetched", got.fetched / MB, None))
                figures.append((f"{said}: rebuilding, times copying", got.seconds / copied, most and REBUILD_GOAL))
                figures.append((f"{said}: rebuilding, times its sha512 alone", got.seconds / hashed, None))
                shares.setdefault(name, {})[f"coppice: {way}"] = got.fetched / full
            changed = {k for k, v in packages(build.image).items() if packages(found["before"].image).get(k) != v}
            figures.append((f"{name}: packages that differ", len(changed), None))
        figures += [(f"publisher, {name}: seconds", taken, None) for name, taken in first.seconds.items()]
        figures += [(f"publisher, {name}: MB", size / MB, None) for name, size in first.space.items()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures.append(("making and rebuilding: peak memory, MB", peak, RSS_MB_GOAL))
    if options.chart is not None:
        draw({name: {**measure_cuts(found, name), **shares[name]} for name in FETCH_GOALS}, options.chart)
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
        print(f"{name:<60} {figure:10.3f}  {said}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
