# SPDX-License-Identifier: Apache-2.0
"""What it takes to bring an image from its publisher into a cloud: download, verify, convert raw to qcow2, send.

    python benchmarks/whole_way.py [DIRECTORY] [--mebibytes N] [--only NAME ...] [--json]

The image has 2 GiB, two fifths of it zeros; nginx on loopback serves it, and a server on loopback that throws away what
it is sent stands for the cloud. Each way runs in a process of its own, in turns; of several turns the quickest counts.
DIRECTORY is where the files lie meanwhile: ``/dev/shm`` where that has room, else ``/tmp``. Prints a table, or with
``--json`` one line a figure: ``{"name", "figure", "goal", "holds"}``; exits 1 when a goal is missed.

What is measured of Coppice is a whole `coppice sync` but the start of the interpreter: the list is refreshed, verified
and planned with, the image fetched, verified, looked into, converted in its cage and registered. Nobody compresses.

``floor`` is what could be had at all: bytes are hashed and written as qcow2 while they arrive, and nothing is looked
into. The ways of the predecessors are made again from what is known of them: vmcatcher let ``wget`` write the file,
hashed it in pieces of 4 KiB, and a handler converted and sent it; cloudkeeper hashed the file twice before and once
after the conversion; atrope wrote pieces of 1 KiB, each flushed, and hashed the file in pieces of 128 bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import mmap
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import download
from download import MIB, Figures, make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TURNS = 3
FLOOR_GOAL = 1.2
GOALS = {"vmcatcher": 2.0, "cloudkeeper": 5.0, "atrope": 6.0}
"""How many times as long as Coppice each takes, at least."""
CLUSTER = 64 * 1024
PIECE = MIB


class Sink(BaseHTTPRequestHandler):
    """Throws away what it is sent."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        """Read to the end, and say so."""
        buffer = memoryview(bytearray(PIECE))
        left = int(self.headers["Content-Length"])
        while left:
            read = self.rfile.readinto(buffer[: min(left, PIECE)])
            if not read:
                return
            left -= read
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Say nothing."""


@contextmanager
def sink() -> Iterator[str]:
    """Run a sink in a process of its own; its address."""
    with subprocess.Popen([sys.executable, __file__, "--sink"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/image"
        finally:
            process.terminate()


def send(path: Path, url: str) -> None:
    """Send a file as curl does."""
    argv = ["curl", "-q", "-sS", "--noproxy", "*", "--fail", "-T", str(path), url]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def convert(source: Path, target: Path) -> None:
    """Convert with what qemu-img does of itself."""
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(target)], check=True)


class Qcow2Writer:
    """Writes an uncompressed qcow2 image as its disk's bytes come in order; tables first (they have a known place)."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._stream = path.open("wb", buffering=0)
        self._size = size_bytes
        clusters = -(-size_bytes // CLUSTER)
        self._tables = -(-clusters * 8 // CLUSTER)
        most = 3 + self._tables + clusters + 64
        self._refcount_blocks = -(-most * 2 // CLUSTER)
        self._first = 3 + self._refcount_blocks + self._tables
        self._next = self._first
        self._entries = bytearray(self._tables * CLUSTER)
        self._at = 0
        self._zeros = bytes(CLUSTER)

    def write(self, piece: memoryview) -> None:
        """Take the next clusters of the disk."""
        run: list[memoryview] = []
        begun = self._next
        for at in range(0, len(piece), CLUSTER):
            cluster = piece[at : at + CLUSTER]
            if cluster != self._zeros[: len(cluster)]:
                entry = self._next * CLUSTER | 1 << 63
                self._entries[self._at * 8 : self._at * 8 + 8] = entry.to_bytes(8, "big")
                run.append(cluster)
                self._next += 1
            self._at += 1
        if run:
            os.pwritev(self._stream.fileno(), run, begun * CLUSTER)

    def close(self) -> None:
        """Write header and tables."""
        blocks = bytearray(self._refcount_blocks * CLUSTER)
        blocks[: self._next * 2] = (1).to_bytes(2, "big") * self._next
        header = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(12) + (16).to_bytes(4, "big")
        header += self._size.to_bytes(8, "big") + bytes(4) + self._tables.to_bytes(4, "big")
        header += (2 * CLUSTER).to_bytes(8, "big") + CLUSTER.to_bytes(8, "big") + (1).to_bytes(4, "big")
        header += bytes(4 + 8 + 8 + 8 + 8) + (4).to_bytes(4, "big") + (104).to_bytes(4, "big")
        refcounts = b"".join(((3 + each) * CLUSTER).to_bytes(8, "big") for each in range(self._refcount_blocks))
        first = 3 + self._refcount_blocks
        tables = b"".join(((first + each) * CLUSTER | 1 << 63).to_bytes(8, "big") for each in range(self._tables))
        handle = self._stream.fileno()
        for number, content in enumerate((header, refcounts, tables, bytes(blocks))):
            os.pwrite(handle, content, number * CLUSTER)
        os.pwrite(handle, self._entries, first * CLUSTER)
        os.ftruncate(handle, self._next * CLUSTER)
        self._stream.close()


def floor(url: str, path: Path, checksum: str, target: str) -> None:
    """Hash and write qcow2 while the bytes arrive, then send."""
    import urllib3

    digest, waiting = hashlib.sha512(), queue.Queue[memoryview | None](8)

    def hash_all() -> None:
        while (piece := waiting.get()) is not None:
            digest.update(piece)

    hasher = threading.Thread(target=hash_all)
    hasher.start()
    answer = urllib3.PoolManager().request("GET", url, preload_content=False, decode_content=False)
    writer = Qcow2Writer(path, int(answer.headers["Content-Length"]))
    while data := answer.read(PIECE):
        piece = memoryview(data)
        waiting.put(piece)
        writer.write(piece)
    waiting.put(None)
    writer.close()
    hasher.join()
    if digest.hexdigest() != checksum:
        raise AssertionError("another file")
    send(path, target)


def vmcatcher(url: str, path: Path, checksum: str, target: str) -> None:
    """Fetch with wget, hash in pieces of 4 KiB, convert, send."""
    download.vmcatcher(url, path, checksum)
    _convert_and_send(path, target)


def cloudkeeper(url: str, path: Path, checksum: str, target: str) -> None:
    """Fetch with Ruby's library, hash twice, convert, hash what came of it, send."""
    download.cloudkeeper(url, path, checksum)
    converted = path.with_suffix(".qcow2")
    convert(path, converted)
    code = 'require "digest"; puts Digest::SHA512.file(ARGV[0]).hexdigest'
    subprocess.run(["ruby", "-e", code, str(converted)], check=True, stdout=subprocess.DEVNULL)
    send(converted, target)


def atrope(url: str, path: Path, checksum: str, target: str) -> None:
    """Write pieces of 1 KiB, each flushed, hash in pieces of 128 bytes, convert, send."""
    download.atrope(url, path, checksum)
    _convert_and_send(path, target)


def _convert_and_send(path: Path, target: str) -> None:
    converted = path.with_suffix(".qcow2")
    convert(path, converted)
    send(converted, target)


def coppice(url: str, path: Path, checksum: str, target: str) -> None:  # noqa: ARG001 - the list says it
    """Sync a site that follows one list of one image, which it has not yet."""
    from coppice.clock import SystemClock
    from coppice.cloud.memory import MemoryCloud
    from coppice.database import Database
    from coppice.http import Client
    from coppice.monitor import SILENT
    from coppice.settings.load import load_settings
    from coppice.workflows.sync import sync

    class SendingCloud(MemoryCloud):
        def register(self, converted, marker, presentation, monitor):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            parts = urlsplit(target)
            size = str(converted.path.stat().st_size)
            with (
                converted.path.open("rb") as stream,
                closing(http.client.HTTPConnection(parts.netloc, blocksize=PIECE)) as connection,
            ):
                connection.request("PUT", parts.path, body=stream, headers={"Content-Length": size})
                if connection.getresponse().status != 204:  # noqa: PLR2004 - what the sink says
                    raise AssertionError("the sink did not take it")
            return super().register(converted, marker, presentation, monitor)

    site = path.parent / "site"
    config = site / "coppice.toml"
    settings = load_settings(config=config, environ={}, options={}, system_file=config)
    database = Database(settings.database_url)
    from coppice.model.image import DiskFormat

    cloud = SendingCloud("cloud", "benchmark", (DiskFormat.QCOW2,))
    report = sync(
        settings=settings,
        database=database,
        clock=SystemClock(),
        monitor=SILENT,
        clouds={"cloud": cloud},
        client=Client(settings.transfer),
    )
    if report.errors:
        raise report.errors[0]
    if len(cloud.describe()) != 1:
        raise AssertionError("nothing was registered")
    database.close()


WAYS: dict[str, Callable[[str, Path, str, str], None]] = {
    each.__name__: each for each in (floor, coppice, vmcatcher, cloudkeeper, atrope)
}


def make_site(directory: Path, image: Path, checksum: str, url: str) -> None:
    """Write a signed list of the image, and a site that follows it."""
    from coppice.database import Database
    from coppice.settings.load import load_settings
    from coppice.subscription.store import SubscriptionStore
    from coppice.testing.authority import Authority
    from coppice.testing.simulator import Simulator

    authority = Authority.create("Benchmark CA")
    anchors = authority.write_to(directory / "anchors")
    publisher = Simulator.create(authority, uri=(directory / "www" / "demo.list").as_uri())
    publisher.add_image(hv_uri=url, hv_format="raw", hv_size=str(image.stat().st_size))
    listed = publisher.images[0]
    listed["sl:checksum:sha512"] = checksum
    publisher.files.clear()
    publisher.write_to(directory / "www")
    site = directory / "site"
    site.mkdir()
    config = site / "coppice.toml"
    config.write_text(
        f'state_directory = "{site}/state"\n'
        "[transfer]\nallow_private_addresses = true\n"
        '[conversion]\nqcow2_compression = "none"\n'
    )
    settings = load_settings(config=config, environ={}, options={}, system_file=config)
    database = Database(settings.database_url)
    SubscriptionStore(database).add(publisher.subscription(anchors))
    database.close()


def have_memory(mebibytes: int) -> None:
    """Touch as much memory as a way needs: a virtual machine gets it from its host only then, which takes time."""
    with mmap.mmap(-1, mebibytes * MIB) as memory:
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


def measure(name: str, url: str, directory: Path, checksum: str, target: str) -> Figures:
    """Run one way in a process of its own; return its time, and the greatest memory of that process alone."""
    work = directory / "work"
    work.mkdir()
    if name == "coppice":
        make_site_copy = work / "site"
        shutil.copytree(directory / "site", make_site_copy)
        text = (make_site_copy / "coppice.toml").read_text().replace(f"{directory}/site", str(make_site_copy))
        (make_site_copy / "coppice.toml").write_text(text)
    argv = [sys.executable, __file__, "--way", name, url, str(work / "image"), checksum, target]
    have_memory(2 * sum(each.stat().st_size for each in (directory / "www").iterdir()) // MIB)
    try:
        return Figures(**json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout))
    finally:
        shutil.rmtree(work)


def one_way(name: str, url: str, path: Path, checksum: str, target: str) -> None:
    """Go one way, and say what it took; what an interpreter needs to start is nobody's."""
    if name == "coppice":
        import coppice.workflows.sync  # noqa: F401 - as a service has it
    download.WAYS[name] = lambda url, path, checksum: WAYS[name](url, path, checksum, target)
    download.one_way(name, url, path, checksum)


def run(directory: Path, mebibytes: int, ways: list[str]) -> dict[str, Figures]:
    """Return the best figures of each way."""
    from coppice.testing.nginx import Nginx

    www = directory / "www"
    www.mkdir()
    make_image(www / "image", mebibytes)
    with (www / "image").open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha512").hexdigest()
    best: dict[str, Figures] = {}
    with Nginx(directory) as server, sink() as target:
        url = f"http://127.0.0.1:{server.port}/image"
        make_site(directory, www / "image", checksum, url)
        for turn in range(TURNS):
            for name in ways:
                if turn and name in GOALS:
                    # Their way takes many times as long: once is enough to see it.
                    continue
                found = measure(name, url, directory, checksum, target)
                known = best.get(name)
                if known is None or found.seconds < known.seconds:
                    best[name] = found
    return best


def show(best: dict[str, Figures], *, as_json: bool) -> bool:
    """Print the figures; tell whether every goal is met."""
    own = best["coppice"]
    rows = []
    if "floor" in best:
        ratio = own.seconds / best["floor"].seconds
        rows.append(("coppice / overlapped floor", ratio, FLOOR_GOAL, ratio <= FLOOR_GOAL))
    for name, goal in GOALS.items():
        if name in best:
            ratio = best[name].seconds / own.seconds
            rows.append((f"{name} / coppice", ratio, goal, ratio >= goal))
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", file=sys.stderr)
    for name, figures in best.items():
        told = f"{figures.seconds:7.2f} s {figures.cpu_seconds:7.2f} s of CPU {figures.rss_mb:7.1f} MB"
        print(f"{name:12} {told}", file=sys.stderr)
    for title, figure, goal, holds in rows:
        if as_json:
            print(json.dumps({"name": title, "figure": round(figure, 2), "goal": goal, "holds": holds}))
        else:
            print(f"{title:40} {figure:7.2f}, goal {goal}: {'holds' if holds else 'MISSED'}")
    return all(row[-1] for row in rows)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--mebibytes", type=int, default=2048)
    parser.add_argument("--only", nargs="+", choices=sorted(WAYS), help="beside coppice")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    # A termination ends it in order: the servers are stopped, the files go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    room = shutil.disk_usage("/dev/shm").free > 6 * given.mebibytes * MIB  # noqa: S108 - a name is made below it
    parent = given.directory or (Path("/dev/shm") if room else Path("/tmp"))  # noqa: S108 - likewise
    ways = list(WAYS) if given.only is None else [each for each in WAYS if each in {"coppice", *given.only}]
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        # nginx reads as another user.
        os.chmod(directory, 0o755)  # noqa: PTH101, S103 - likewise
        best = run(Path(directory), given.mebibytes, ways)
    return 0 if show(best, as_json=given.json) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sink"]:
        with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
            print(server.server_address[1], flush=True)
            server.serve_forever()
    elif sys.argv[1:2] == ["--way"]:
        one_way(sys.argv[2], sys.argv[3], Path(sys.argv[4]), sys.argv[5], sys.argv[6])
    else:
        sys.exit(main())
