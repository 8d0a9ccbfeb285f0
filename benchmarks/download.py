# SPDX-License-Identifier: Apache-2.0
"""What it takes to have an image here, verified and stored, against ``curl``, ``openssl dgst``, and the predecessors.

    python benchmarks/download.py [DIRECTORY] [--mebibytes N] [--json]

The image has 2 GiB, two fifths of it zeros; nginx on loopback serves it. Each way runs in a process of its own, in
turns; of several turns the quickest counts. DIRECTORY is where the files lie meanwhile: ``/dev/shm`` where that has
room, else ``/tmp``. Prints a table, or with ``--json`` one line a figure: ``{"name", "figure", "goal", "holds"}``;
exits 1 when a goal is missed.

The ways of the predecessors are made again from what is known of them: vmcatcher let ``wget`` write the file, then read
it in pieces of 4 KiB to hash it; cloudkeeper wrote what Ruby's HTTP library gave it and hashed the file twice; atrope
wrote the pieces of 1 KiB that requests gave it, each flushed, and hashed the file in pieces of 128 bytes. Their
conversion and upload are not in these figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
TURNS = 3
FILLED = 0.6
OWN_GOAL, RSS_MB_GOAL = 1.15, 150.0
GOALS = {"vmcatcher": 1.8, "cloudkeeper": 4.0, "atrope": 5.0}
"""How many times as long as Coppice each takes, at least."""
_RUBY = """\
require "net/http"
require "digest"
uri = URI(ARGV[0])
File.open(ARGV[1], "wb") do |file|
  Net::HTTP.start(uri.host, uri.port, nil) do |http|
    http.request_get(uri.path) { |answer| answer.read_body { |piece| file.write(piece) } }
  end
end
2.times { puts Digest::SHA512.file(ARGV[1]).hexdigest }
"""


@dataclass(frozen=True)
class Figures:
    """What one run of one way came to."""

    seconds: float
    cpu_seconds: float
    rss_mb: float


def make_image(path: Path, mebibytes: int) -> None:
    """Write an image: stretches of random bytes and of zeros, three to two, each of some mebibytes."""
    source = random.Random(4)  # noqa: S311 - the same image each time; no secret
    with path.open("wb") as stream:
        written = 0
        while written < mebibytes:
            share = min(source.choice((1, 4, 16, 64)), mebibytes - written)
            filled = max(1, round(share * FILLED)) if share > 1 else int(source.random() < FILLED)
            stream.write(source.randbytes(filled * MIB))
            # Written, not skipped: the server must not profit from holes.
            stream.write(bytes((share - filled) * MIB))
            written += share


def coppice(url: str, path: Path, checksum: str) -> None:
    """Fetch as the cache does."""
    from coppice.cache.partial import PartialFile
    from coppice.cache.transfer import fetch_file
    from coppice.http import Client
    from coppice.model.checksum import Checksum
    from coppice.settings.load import load_settings

    nothing = path.with_name("coppice.toml")
    nothing.write_text("[transfer]\nallow_private_addresses = true\n")
    settings = load_settings(config=nothing, environ={}, options={}, system_file=nothing)
    size = int(urllib.request.urlopen(urllib.request.Request(url, method="HEAD")).headers["Content-Length"])  # noqa: S310 - our own server
    with PartialFile(path.with_name("coppice.partial")) as partial:
        fetch_file(
            [url],
            size_bytes=size,
            partial=partial,
            client=Client(settings.transfer),
            expected=Checksum("sha512", checksum),
        )
        partial.keep_as(path)


def vmcatcher(url: str, path: Path, checksum: str) -> None:
    """Fetch with wget, then hash in pieces of 4 KiB."""
    subprocess.run(["wget", "-q", "--no-proxy", "-O", str(path), url], check=True)
    compare(path, 4096, checksum)


def cloudkeeper(url: str, path: Path, checksum: str) -> None:
    """Write what Ruby's HTTP library gives, then hash twice with its digests."""
    said = subprocess.run(["ruby", "-e", _RUBY, url, str(path)], check=True, capture_output=True, text=True).stdout
    if said.split() != [checksum, checksum]:
        message = f"{path} is another file"
        raise AssertionError(message)


def atrope(url: str, path: Path, checksum: str) -> None:
    """Write the pieces of 1 KiB that requests gives, each flushed, then hash in pieces of 128 bytes."""
    import requests

    with requests.get(url, stream=True, timeout=60) as answer, path.open("wb") as stream:
        for piece in answer.iter_content(1024):
            stream.write(piece)
            stream.flush()
    compare(path, 128, checksum)


def curl(url: str, path: Path, checksum: str) -> None:  # noqa: ARG001 - it verifies nothing
    """Fetch with curl to a file."""
    subprocess.run(["curl", "-q", "-sS", "--noproxy", "*", "-o", str(path), url], check=True)


def openssl(url: str, path: Path, checksum: str) -> None:  # noqa: ARG001 - it fetches nothing
    """Hash the image where it lies."""
    subprocess.run(
        ["openssl", "dgst", "-sha512", str(path.with_name("www") / "image")], check=True, stdout=subprocess.DEVNULL
    )


WAYS: dict[str, Callable[[str, Path, str], None]] = {
    each.__name__: each for each in (curl, openssl, coppice, vmcatcher, cloudkeeper, atrope)
}


def compare(path: Path, piece_bytes: int, checksum: str) -> None:
    """Hash a file in pieces of that size, as a program does that reads them so."""
    digest = hashlib.sha512()
    with path.open("rb") as stream:
        while piece := stream.read(piece_bytes):
            digest.update(piece)
    if digest.hexdigest() != checksum:
        message = f"{path} is another file"
        raise AssertionError(message)


def measure(name: str, url: str, directory: Path, checksum: str) -> Figures:
    """Run one way in a process of its own; return its time, and the greatest memory of that process alone."""
    path = directory / f"{name}.image"
    argv = [sys.executable, __file__, "--way", name, url, str(path), checksum]
    said = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    path.unlink(missing_ok=True)
    return Figures(**said)


def one_way(name: str, url: str, path: Path, checksum: str) -> None:
    """Go one way, and say what it took; what an interpreter needs to start is nobody's."""
    if name == "coppice":
        import coppice.cache.transfer
        import coppice.settings.load  # noqa: F401 - as a run that fetches many images has them
    started = time.monotonic()
    WAYS[name](url, path, checksum)
    seconds = time.monotonic() - started
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_seconds = sum(each.ru_utime + each.ru_stime for each in used)
    rss_mb = int(status["VmHWM"].split()[0]) * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "rss_mb": rss_mb}))


def run(directory: Path, mebibytes: int) -> dict[str, Figures]:
    """Return the best figures of each way."""
    from coppice.testing.nginx import Nginx

    www = directory / "www"
    www.mkdir()
    make_image(www / "image", mebibytes)
    with (www / "image").open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha512").hexdigest()
    best: dict[str, Figures] = {}
    with Nginx(directory) as server:
        url = f"http://127.0.0.1:{server.port}/image"
        for turn in range(TURNS):
            for name in WAYS:
                if turn and name in GOALS:
                    # Their way takes many times as long: once is enough to see it.
                    continue
                found = measure(name, url, directory, checksum)
                known = best.get(name)
                if known is None or found.seconds < known.seconds:
                    best[name] = found
    return best


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--mebibytes", type=int, default=2048)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    # A termination ends it in order: the server is stopped, the files go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    room = shutil.disk_usage("/dev/shm").free > 4 * given.mebibytes * MIB  # noqa: S108 - a name is made below it
    parent = given.directory or (Path("/dev/shm") if room else Path("/tmp"))  # noqa: S108 - likewise
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        # nginx reads as another user.
        os.chmod(directory, 0o755)  # noqa: PTH101, S103 - likewise
        best = run(Path(directory), given.mebibytes)
    own = best["coppice"]
    slower = max(best["curl"].seconds, best["openssl"].seconds)
    rows = [
        ("coppice / slower of curl and openssl", own.seconds / slower, OWN_GOAL, own.seconds <= OWN_GOAL * slower),
        ("peak memory, MB", own.rss_mb, RSS_MB_GOAL, own.rss_mb < RSS_MB_GOAL),
    ]
    for name, goal in GOALS.items():
        ratio = best[name].seconds / own.seconds
        rows.append((f"{name} / coppice", ratio, goal, ratio >= goal))
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", file=sys.stderr)
    for name, figures in best.items():
        told = f"{figures.seconds:7.2f} s {figures.cpu_seconds:7.2f} s of CPU {figures.rss_mb:7.1f} MB"
        print(f"{name:12} {told}", file=sys.stderr)
    for title, figure, goal, holds in rows:
        if given.json:
            print(json.dumps({"name": title, "figure": round(figure, 2), "goal": goal, "holds": holds}))
        else:
            print(f"{title:40} {figure:7.2f}, goal {goal}: {'holds' if holds else 'MISSED'}")
    return 0 if all(row[-1] for row in rows) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--way"]:
        one_way(sys.argv[2], sys.argv[3], Path(sys.argv[4]), sys.argv[5])
    else:
        sys.exit(main())
