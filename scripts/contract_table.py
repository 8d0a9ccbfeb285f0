# SPDX-License-Identifier: Apache-2.0
"""Print the contract suite of clouds as a table, members by cases, from a report that pytest wrote.

    .venv/bin/pytest tests/contract --junitxml report.xml
    .venv/bin/python scripts/contract_table.py report.xml [--markdown]

A cell says how many variants of the case passed; ``-`` where the member lacks the ability that the case is about
(who may use an image, drift, leftovers, adoption). Exits 1 when one failed or was skipped.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

PREFIX = "tests.contract.test_cloud"


def read(report: Path) -> tuple[list[str], dict[str, dict[str, list[bool]]]]:
    """Return the members, and of each case and member whether each variant passed."""
    members: set[str] = set()
    cases: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for each in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it
        place, _, member = each.get("classname", "").rpartition(".Test")
        if not place.startswith(PREFIX) or not member:
            continue
        members.add(member)
        case = each.get("name", "").partition("[")[0].removeprefix("test_").replace("_", " ")
        cases[case][member].append(not any(child.tag in {"failure", "error", "skipped"} for child in each))
    return sorted(members), cases


def cell(variants: list[bool]) -> str:
    """Return what a cell says."""
    if not variants:
        return "-"
    return str(len(variants)) if all(variants) else f"{variants.count(False)} of {len(variants)} failed"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=Path)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    members, cases = read(given.report)
    rows = [["case", *members], *([case, *(cell(cases[case][each]) for each in members)] for case in sorted(cases))]
    counted = [sum(len(variants[each]) for variants in cases.values()) for each in members]
    rows.append(["all", *map(str, counted)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        texts = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        print("| " + " | ".join(texts) + " |" if given.markdown else "  ".join(texts).rstrip())
        if given.markdown and number == 0:
            print("|" + "---|" * len(row))
    passed = all(all(variants) for by_member in cases.values() for variants in by_member.values())
    return 0 if cases and passed else 1


if __name__ == "__main__":
    sys.exit(main())
