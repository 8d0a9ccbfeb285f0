# SPDX-License-Identifier: Apache-2.0
"""Plot what the metrics of the service said while it was let run beside a publisher, faults and kills.

COPPICE_SOAK_CSV=soak.csv pytest -m soak tests/e2e/test_soak_service.py
python benchmarks/plot_soak.py soak.csv soak.png
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

MIB = 1024 * 1024
PANELS: tuple[tuple[str, str, float], ...] = (
    ("behind_seconds", "newest version awaited for (s)", 1),
    ("images", "images in the cloud", 1),
    ("job_runs", "runs of jobs", 1),
    ("job_failures", "runs that failed", 1),
    ("memory_bytes", "memory of the service (MiB)", MIB),
    ("open_files", "open files of the service", 1),
    ("store_bytes", "cache and conversions (MiB)", MIB),
)
"""Column, what it shows, and by what it is divided."""


def plot(table: Path, picture: Path) -> None:
    """Draw the columns of ``table`` over time; grey is where the service did not answer: it was killed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    minutes = [float(row["seconds"]) / 60 for row in rows]
    figure, axes = plt.subplots(len(PANELS), 1, sharex=True, figsize=(10, 1.7 * len(PANELS)))
    for axis, (column, title, unit) in zip(axes, PANELS, strict=True):
        values = [float(row[column]) / unit if row.get(column) else float("nan") for row in rows]
        axis.plot(minutes, values, color="tab:blue", linewidth=1)
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_ylim(0, 1.1 * max([value for value in values if value == value], default=1) or 1)  # noqa: PLR0124 - no NaN
        axis.grid(visible=True, alpha=0.3)
        for minute, row in zip(minutes, rows, strict=True):
            if row["up"] == "0":
                axis.axvspan(minute - 1 / 120, minute + 1 / 120, color="grey", alpha=0.4, linewidth=0)
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def main(arguments: list[str]) -> int:
    """Plot; return the exit status."""
    if len(arguments) != 2:  # noqa: PLR2004 - table and picture
        print(__doc__)
        return 2
    plot(Path(arguments[0]), Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
