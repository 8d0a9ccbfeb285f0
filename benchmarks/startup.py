# SPDX-License-Identifier: Apache-2.0
"""How much processor time the command line takes before it does anything, against bare Python in the same run.

    python benchmarks/startup.py [--json]

Prints a table, or with ``--json`` one line a figure: ``{"name", "figure", "goal", "holds"}``; exits 1 when a goal is
missed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

RUNS = 15
GOALS = {"coppice --help": 0.3, "coppice --json status": 1.0}
"""Seconds of user and system time."""


def cpu_seconds(argv: list[str], home: str) -> float:
    """Return the median processor time of ``argv`` over `RUNS` runs, in seconds."""
    figures = []
    for _ in range(RUNS):
        before = os.times()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "HOME": home})
        after = os.times()
        figures.append(
            after.children_user - before.children_user + after.children_system - before.children_system,
        )
    return statistics.median(figures)


def main() -> int:
    """Measure and print; return the exit code."""
    as_json = "--json" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        bare = cpu_seconds([sys.executable, "-c", "pass"], home)
        rows = []
        for name, goal in GOALS.items():
            figure = cpu_seconds([sys.executable, "-m", *name.split()], home)
            rows.append(
                {"name": f"{name}: CPU seconds", "figure": round(figure, 3), "goal": goal, "holds": figure < goal}
            )
    if not as_json:
        print(f"{'figure':<36} {'CPU s':>8} {'goal':>8} {'x bare Python':>14}  holds")
    for row in rows:
        if as_json:
            print(json.dumps(row))
        else:
            ratio = float(row["figure"]) / bare if bare else float("nan")
            held = "yes" if row["holds"] else "NO"
            print(f"{row['name']:<36} {row['figure']:>8} {row['goal']:>8} {ratio:>14.1f}  {held}")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
