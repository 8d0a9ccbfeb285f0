# SPDX-License-Identifier: Apache-2.0
"""Plans for many images and clouds: CPU seconds and memory, and whether the work is linear.

    .venv/bin/python benchmarks/plan.py [--images 10000] [--clouds 10] [--json FILE]

Three sights of "10,000 listed and 10,000 registered images over 10 clouds" are measured, each in a process of its own:

* ``spread``: the images are spread over the clouds: each wants and has a tenth of them.
* ``every``: every cloud wants all of the images and has a tenth of them: the rest is to be registered.
* ``full``: every cloud wants all of them and has all of them: ten times the work, shown for its growth.

Of what is registered, a tenth is as listed in an older version, a tenth is described otherwise, and the rest stays.
Reading the lists and asking the clouds is not part of it; the digests of what is shown are.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from coppice.cloud.model import Desired, DesiredList, ImageState, Policy, RegisteredImage
from coppice.cloud.plan import plan
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageKey
from coppice.testing.desired import desired_image, image_identifier, list_identifier, marker_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.cloud.model import DesiredImage

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LISTS = 20
SUPERSEDED_IN_TEN = 2
SIGHTS = ("spread", "every", "full")
CPU_SECONDS = 2.0
MEMORY_MIB = 500.0
LINEAR = 1.5
"""Four times the images may cost four times as much, and this much more for what a machine does beside."""


def images(count: int) -> list[DesiredImage]:
    """Return as many images, of 20 lists."""
    made = []
    for number in range(count):
        name = f"list{number % LISTS}"
        image = desired_image(of_list=name, version="2", title=f"An appliance of number {number}")
        key = ImageKey(list_identifier(name), image_identifier(str(number)))
        listed = replace(image.listed, identifier=key.image_identifier, checksum=Checksum.of(str(number).encode()))
        made.append(replace(image, key=key, listed=listed))
    return made


def registered(wanted: Sequence[DesiredImage], cloud: str) -> list[RegisteredImage]:
    """Return what a cloud has: most as listed, some older, some described otherwise."""
    found = []
    for number, image in enumerate(wanted):
        marker = marker_of(image)
        if number % 10 == 0:
            marker = replace(marker, version="1", digest=Checksum.of(b"older"))
        elif number % 10 == 1:
            marker = replace(marker, metadata_digest="0" * 64)
        elif number % 10 == SUPERSEDED_IN_TEN:
            since = NOW - timedelta(days=30)
            marker = replace(marker, version="1", state=ImageState.SUPERSEDED, state_since=since)
        identifier = f"{cloud}-{number:06d}"
        found.append(
            RegisteredImage(cloud=cloud, cloud_identifier=identifier, name=identifier, marker=marker, ready=True)
        )
    return found


def desired(wanted: Sequence[DesiredImage]) -> Desired:
    """Return the lists of what is wanted."""
    lists: dict[str, list[DesiredImage]] = {}
    for image in wanted:
        lists.setdefault(image.key.list_identifier, []).append(image)
    return Desired(
        lists=tuple(
            DesiredList(
                identifier=parts[0].key.list_identifier, version="1", expires=parts[0].expires, images=tuple(parts)
            )
            for parts in lists.values()
        )
    )


def measure(sight: str, count: int, clouds: int) -> dict[str, float]:
    """Plan once for each cloud; return CPU seconds, peak memory in MiB, and how many actions were planned."""
    everything = images(count)
    share = count // clouds
    situations = []
    for number in range(clouds):
        part = everything[number * share : (number + 1) * share]
        wanted = desired(part if sight == "spread" else everything)
        situations.append((wanted, registered(everything if sight == "full" else part, f"cloud{number}")))
    policy = Policy(grace=timedelta(days=7))
    # Nothing that was worked out while the images were made is known to the plans.
    begun, actions = time.process_time(), 0
    for number, (wanted, there) in enumerate(situations):
        actions += len(plan(wanted, there, policy, NOW, f"cloud{number}").actions)
    seconds = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_seconds": seconds, "peak_mib": peak, "actions": actions}


def in_a_process(sight: str, count: int, clouds: int) -> dict[str, float]:
    """Measure in a process of its own; the best of three, as other work on the machine only ever adds."""
    command = [sys.executable, __file__, "--measure", sight, "--images", str(count), "--clouds", str(clouds)]
    runs = []
    for _ in range(3):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    return min(runs, key=lambda run: run["cpu_seconds"])


def main() -> int:
    """Measure all sights, print a table, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--clouds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", choices=SIGHTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.images, options.clouds)))
        return 0
    figures: list[tuple[str, float, float]] = []
    table = sys.stderr if options.json else sys.stdout
    print(f"{'sight':8} {'images':>8} {'actions':>8} {'CPU s':>8} {'MiB':>8} {'growth':>8}", file=table)
    for sight in SIGHTS:
        quarter = in_a_process(sight, options.images // 4, options.clouds)
        whole = in_a_process(sight, options.images, options.clouds)
        growth = whole["cpu_seconds"] / quarter["cpu_seconds"]
        print(
            f"{sight:8} {options.images:8} {whole['actions']:8} {whole['cpu_seconds']:8.2f} "
            f"{whole['peak_mib']:8.0f} {growth:8.2f}",
            file=table,
        )
        figures.append((f"{sight}: work for four times the images", growth, 4 * LINEAR))
        figures.append((f"{sight}: MiB", whole["peak_mib"], MEMORY_MIB))
        if sight != "full":
            figures.append((f"{sight}: seconds of CPU", whole["cpu_seconds"], CPU_SECONDS))
    print(
        f"bounds: {CPU_SECONDS} s CPU, {MEMORY_MIB:.0f} MiB, four times the images at most {4 * LINEAR} times the work",
        file=table,
    )
    for name, figure, goal in figures if options.json else ():
        print(json.dumps({"name": name, "figure": round(figure, 2), "goal": goal, "holds": figure < goal}))
    return 0 if all(figure < goal for _, figure, goal in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
