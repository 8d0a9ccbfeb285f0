# SPDX-License-Identifier: Apache-2.0
"""The process of a `ProvisionHook`: ``python -m coppice.factory.provision DIRECTORY TREE``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from coppice.errors import CoppiceError
from coppice.factory.provision.hook import ERROR, MATERIALS, MODULE, PLAN, REPORT
from coppice.factory.provision.run import provision
from coppice.formats.definition import definition_from


def main(directory: Path, tree: Path) -> int:
    """Provision ``tree`` as the plan in ``directory`` says, and return the exit status."""
    said = json.loads((directory / PLAN).read_text(encoding="utf-8"))
    try:
        provision(
            tree,
            definition_from(said["definition"]),
            parent=None if said["parent"] is None else definition_from(said["parent"]),
            materials=directory / MATERIALS,
            apt_config=os.environ.get("MMDEBSTRAP_APT_CONFIG"),
            epoch=said["epoch"],
            tell=_tell,
        )
    except CoppiceError as problem:
        _tell(f"{problem.message}\n")
        (directory / REPORT / ERROR).write_text(json.dumps(problem.as_dict(), default=str), encoding="utf-8")
        return 1
    return 0


def see_own_processes() -> None:
    """Start anew where /proc shows the processes of another namespace, as it does in one that was just made.

    bwrap would wait for ever for what it cannot find there.
    """
    if Path("/proc/self").readlink().name != str(os.getpid()):
        words = ["unshare", "--mount", "--mount-proc", sys.executable, "-I", "-m", MODULE, *sys.argv[1:]]
        os.execvp("unshare", words)  # noqa: S606, S607 - no shell, and looked up as everything else is


def _tell(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


if __name__ == "__main__":
    see_own_processes()
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
