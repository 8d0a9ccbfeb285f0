# SPDX-License-Identifier: Apache-2.0
"""Make the crafted lists and chains: those that must be refused, each named by its defect, and those that must not.

::

    python tests/data/lists/make.py DIRECTORY     # write them all, dated from this instant on
    python tests/data/lists/make.py --manifest    # write the table beside this file anew

Keys and dates are new each time, so the bytes are not kept; `manifest.json` is the table of what is made. Below the
directory: ``refused/``, ``accepted/`` and ``before/`` (what the subscription verified before) with one file a case, and
``trust/`` with the folders of trust anchors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import bad_certificates  # noqa: E402, F401 - its cases register themselves
import bad_contents  # noqa: E402, F401 - likewise
import bad_signatures  # noqa: E402, F401 - likewise
import good  # noqa: E402, F401 - likewise
from world import CASES, Case, World  # noqa: E402

MANIFEST = HERE / "manifest.json"


def make(directory: Path, world: World | None = None) -> list[dict[str, Any]]:
    """Write every case below ``directory``; return the table with what depends on the keys."""
    world = world or World()
    table = []
    for case in CASES:
        made = case.make(world)
        file = directory / _file(case)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(made.message)
        before = None
        if made.before is not None:
            before = directory / "before" / file.name
            before.parent.mkdir(exist_ok=True)
            before.write_bytes(made.before)
        endorsers = (world.jane,) if made.endorsers is None else made.endorsers
        row = _row(case)
        row["trust"] = made.trust
        row["options"] = list(made.options)
        row["endorsers"] = [[str(one.subject), str(one.issuer)] for one in endorsers]
        row["before"] = None if before is None else str(before.relative_to(directory))
        table.append(row)
    for name, trust in world.trusts.items():
        trust.write_to(directory / "trust" / name)
    return table


def _file(case: Case) -> str:
    return f"{'accepted' if case.code is None else 'refused'}/{case.name}.p7m"


def _row(case: Case) -> dict[str, Any]:
    return {
        "name": case.name,
        "file": _file(case),
        "code": case.code,
        "threats": list(case.threats),
        "openssl": "accepts" if case.openssl else "refuses",
        "why": case.why,
    }


def _text(table: list[dict[str, Any]]) -> str:
    """Return the table as JSON, one line a case."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in table) + "\n]\n"


def main(arguments: list[str]) -> int:
    """Make what is asked for."""
    if len(arguments) != 1:
        sys.stderr.write(__doc__)
        return 2
    if arguments[0] == "--manifest":
        import tempfile

        with tempfile.TemporaryDirectory() as scratch:
            table = make(Path(scratch))
        MANIFEST.write_text(_text(table))
        sys.stdout.write(f"{len(table)} cases: {MANIFEST}\n")
        return 0
    table = make(Path(arguments[0]))
    (Path(arguments[0]) / "manifest.json").write_text(_text(table))
    sys.stdout.write(f"{len(table)} cases: {arguments[0]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
