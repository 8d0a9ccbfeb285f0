# SPDX-License-Identifier: Apache-2.0
"""What it takes to bring a file into Glance, against ``curl``; and how many requests a look at what is there takes.

    python benchmarks/glance.py [--mebibytes N] [--turns N] [--json]

A real Keystone and a real Glance on loopback, in processes of their own. The image has 1 GiB; ``curl`` sends the file
to an image that was made before, as the driver `openstack` does, which looks at Glance's checksum besides. Each way
runs in a process of its own, in turns; of several turns the quickest counts. Memory is that of the process that sends:
for a file and for one a fourth as long. Prints a table, or with ``--json`` one line a figure: ``{"name", "figure",
"goal", "holds"}``; exits 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.testing.openstack import OpenStack

MIB = 1024 * 1024
UPLOAD_GOAL, GROWTH_MB_GOAL, REQUESTS_GOAL = 1.15, 16.0, 1.0
IMAGES = 40


def make_image(path: Path, mebibytes: int) -> None:
    """Write random bytes."""
    source = random.Random(6)  # noqa: S311 - the same image each time; no secret
    with path.open("wb") as stream:
        for _ in range(mebibytes):
            stream.write(source.randbytes(MIB))


def coppice(path: Path, given: dict[str, str]) -> float:
    """Register the file as a raw image; return the seconds that it took, login and all."""
    from dataclasses import replace

    from coppice.cloud.openstack import open_openstack
    from coppice.cloud.properties import presentation_of
    from coppice.model.checksum import Checksum
    from coppice.model.image import DiskFormat, Image
    from coppice.monitor import SILENT
    from coppice.settings.clouds import CloudSettings
    from coppice.testing.desired import SITE, converted_image, desired_image, marker_of

    options = json.loads(given["options"])
    settings = CloudSettings(name="glance", driver="openstack", site=SITE, formats=("raw",), options=options)
    cloud = open_openstack(settings, (DiskFormat.RAW,))
    desired = desired_image()
    size = path.stat().st_size
    checksum = Checksum("sha512", given["sha512"])
    image = Image(format=DiskFormat.RAW, size_bytes=size, virtual_size_bytes=size, checksum=checksum)
    converted = replace(converted_image(desired, path.parent / "small"), path=path, image=image)
    cloud.describe()
    begun = time.monotonic()
    registered = cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
    seconds = time.monotonic() - begun
    cloud.remove(registered)
    return seconds


def curl(path: Path, given: dict[str, str]) -> float:
    """Send the file to an image that is there and empty."""
    argv = ["curl", "-q", "-sS", "--noproxy", "*", "--fail", "-T", str(path), given["url"]]
    argv += ["-H", "Content-Type: application/octet-stream", "-H", "Expect:", "-H", f"@{given['headers']}"]
    begun = time.monotonic()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


WAYS = {"curl": curl, "coppice": coppice}


def one_way(name: str, path: Path, given: dict[str, str]) -> None:
    """Go one way, and say what it took."""
    seconds = WAYS[name](path, given)
    print(json.dumps({"seconds": seconds, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}))


def measure(name: str, path: Path, given: dict[str, str]) -> dict[str, float]:
    """Run one way in a process of its own."""
    argv = [sys.executable, __file__, "--way", name, str(path), json.dumps(given)]
    found: dict[str, float] = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def given_for(openstack: OpenStack, path: Path, directory: Path) -> dict[str, str]:
    """Return what both ways need: an empty image's address, a token, and the driver's options."""
    import hashlib

    with path.open("rb") as stream:
        sha512 = hashlib.file_digest(stream, "sha512").hexdigest()
    headers = directory / "headers"
    headers.write_text(f"X-Auth-Token: {openstack.token('alice')}\n", encoding="ascii")
    headers.chmod(0o600)
    return {
        "headers": str(headers),
        "sha512": sha512,
        "options": json.dumps(dict(openstack.settings("alice", site="benchmark").options)),
    }


def empty_image(openstack: OpenStack) -> str:
    """Make an image without bytes; return where they go."""
    status, said = openstack.ask(
        "alice", "POST", "/v2/images", {"name": "curl", "disk_format": "raw", "container_format": "bare"}
    )
    if status != 201:  # noqa: PLR2004 - created
        message = f"Glance answered {status}"
        raise RuntimeError(message)
    return f"{openstack.glance.endpoint}/v2/images/{said['id']}/file"


def requests_of_a_look(openstack: OpenStack, images: int) -> int:
    """Return how many requests it takes to describe a site of so many images, all of this site's making."""
    from coppice.cloud.openstack import open_openstack
    from coppice.cloud.openstack.words import marker_properties
    from coppice.model.image import DiskFormat
    from coppice.testing.desired import SITE, desired_image, marker_of

    openstack.forget_all()
    for number in range(images):
        fields = {"name": "one", "disk_format": "raw", "container_format": "bare", "os_hidden": True}
        fields |= marker_properties(marker_of(desired_image(f"image {number}")))
        status, said = openstack.ask("alice", "POST", "/v2/images", fields)
        if status != 201:  # noqa: PLR2004 - created
            message = f"Glance answered {status}: {said}"
            raise RuntimeError(message)
    cloud = open_openstack(openstack.settings("faulty", site=SITE), (DiskFormat.RAW,))
    cloud.describe()
    before = len(openstack.faults.asked)
    if len(cloud.describe()) != images:
        raise RuntimeError("not all of them were described")
    return len(openstack.faults.asked) - before


def run(directory: Path, mebibytes: int, turns: int) -> list[tuple[str, float, float, bool]]:
    """Measure; return title, figure, goal and whether it holds."""
    from coppice.testing.openstack import OpenStack

    large, small = directory / "large", directory / "small.raw"
    make_image(large, mebibytes)
    make_image(small, mebibytes // 4)
    best: dict[str, float] = {}
    memory: dict[Path, float] = {}
    with OpenStack(directory) as openstack:
        for _ in range(turns):
            for name in WAYS:
                given = {**given_for(openstack, large, directory), "url": empty_image(openstack)}
                found = measure(name, large, given)
                best[name] = min(best.get(name, found["seconds"]), found["seconds"])
                if name == "coppice":
                    memory[large] = found["rss_mb"]
                openstack.forget_all()
        memory[small] = measure("coppice", small, given_for(openstack, small, directory))["rss_mb"]
        few, many = requests_of_a_look(openstack, IMAGES), requests_of_a_look(openstack, 2 * IMAGES)
    for name, seconds in best.items():
        print(f"{name:10} {seconds:7.2f} s", file=sys.stderr)
    ratio, growth = best["coppice"] / best["curl"], memory[large] - memory[small]
    return [
        ("register in Glance / curl", ratio, UPLOAD_GOAL, ratio <= UPLOAD_GOAL),
        ("memory for four times the bytes, MB more", growth, GROWTH_MB_GOAL, growth <= GROWTH_MB_GOAL),
        ("requests of a look, twice the images / once", many / few, REQUESTS_GOAL, many <= few),
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    # A termination ends it in order: the servers are stopped, the files go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as directory:
        rows = run(Path(directory), given.mebibytes, given.turns)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", file=sys.stderr)
    for title, figure, goal, holds in rows:
        if given.json:
            print(json.dumps({"name": title, "figure": round(figure, 2), "goal": goal, "holds": holds}))
        else:
            print(f"{title:45} {figure:7.2f}, goal {goal}: {'holds' if holds else 'MISSED'}")
    return 0 if all(row[-1] for row in rows) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--way"]:
        one_way(sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))
    else:
        sys.exit(main())
