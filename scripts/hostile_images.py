# SPDX-License-Identifier: Apache-2.0
"""Write hostile image files into a folder, with a table of what each is and how it has to be refused.

Run it as ``python scripts/hostile_images.py FOLDER``; without a folder it only prints the table. The files are small or
sparse, are the same each time, and do harm to whoever gives them to a tool that believes them: keep them to yourself.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from coppice.testing.hostile import cases

INDEX = "index.json"


def main(arguments: list[str]) -> int:
    """Write the files, or tell what they would be."""
    parser = argparse.ArgumentParser(description="Write hostile image files into a folder.")
    parser.add_argument("folder", nargs="?", type=Path, help="an empty folder, or one that is not there yet")
    folder: Path | None = parser.parse_args(arguments).folder
    found = cases()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            sys.stderr.write(f"{folder} is not empty; nothing was written\n")
            return 1
        for case in found:
            case.make(folder / case.name)
        index = [{"name": case.name, "threat": case.threat, "code": case.code} for case in found]
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    width = max(len(case.name) for case in found)
    for case in found:
        print(f"{case.threat}  {case.name:<{width}}  {case.code}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
