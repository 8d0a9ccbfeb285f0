# SPDX-License-Identifier: Apache-2.0
"""What it costs to start a program in the cage, against the bare start of the same program in the same run.

    python benchmarks/cage.py [--json]

Prints a table, or with ``--json`` one line a figure: ``{"name", "figure", "goal", "holds"}``; exits 1 when a goal is
missed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

from coppice import process
from coppice.cage import Cage, Means, Walls, find_means

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 40
GOAL_MILLISECONDS = 50.0
PROGRAM = ["qemu-img", "--version"]


def milliseconds(start: Callable[[], object]) -> float:
    """Return how long one start took, in milliseconds."""
    before = time.perf_counter()
    start()
    return (time.perf_counter() - before) * 1000


def main() -> int:
    """Measure and print; return the exit code."""
    as_json = "--json" in sys.argv[1:]
    strongest = find_means()
    ways: dict[str, Callable[[], object]] = {"bare": lambda: process.run(PROGRAM, timeout_seconds=60)}
    for means in (strongest, Means(walls=Walls.LANDLOCK, is_privileged=strongest.is_privileged)):
        ways[f"in a cage ({means.walls})"] = lambda means=means: Cage(means=means).run(PROGRAM, timeout_seconds=60)
    # In turn, so that a busy moment falls on all of them.
    rounds = [{name: milliseconds(start) for name, start in ways.items()} for _ in range(RUNS)]
    medians = {name: statistics.median(each[name] for each in rounds) for name in ways}
    rows = [
        {
            "name": f"start {name}: ms more than bare",
            "figure": round(figure - medians["bare"], 1),
            "goal": GOAL_MILLISECONDS,
            "holds": figure - medians["bare"] < GOAL_MILLISECONDS,
        }
        for name, figure in medians.items()
        if name != "bare"
    ]
    if not as_json:
        print(f"bare start of qemu-img: {medians['bare']:.1f} ms")
    for row in rows:
        held = "yes" if row["holds"] else "NO"
        print(json.dumps(row) if as_json else f"{row['name']:<52} {row['figure']:>8} {row['goal']:>8}  {held}")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
