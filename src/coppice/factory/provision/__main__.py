# SPDX-License-Identifier: Apache-2.0
"""The process of a `ProvisionHook`: ``python -m coppice.factory.provision DIRECTORY TREE``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from coppice.errors import CoppiceError
from coppice.factory.bootstrap.rpm_inside import PLAN_VARIABLE, dnf_words, read_plan
from coppice.factory.provision.hook import ERROR, MATERIALS, MODULE, PLAN, REPORT
from coppice.factory.provision.run import provision
from coppice.formats.definition import definition_from
from coppice.process import run

# Each thing that is run has a limit of its own.
_SECONDS = 7 * 24 * 3600.0


def main(directory: Path, tree: Path) -> int:
    """Provision ``tree`` as the plan in ``directory`` says, and return the exit status."""
    plan = os.environ.get(PLAN_VARIABLE)
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
            dnf=() if plan is None else dnf_words(read_plan(Path(plan)), tree),
        )
    except CoppiceError as problem:
        _tell(f"{problem.message}\n")
        (directory / REPORT / ERROR).write_text(json.dumps(problem.as_dict(), default=str), encoding="utf-8")
        return 1
    return 0


def sees_own_processes() -> bool:
    """Tell whether /proc shows the processes of this one's namespace; in one that was just made, it does not."""
    return Path("/proc/self").readlink().name == str(os.getpid())


def main_with_own_processes() -> int:
    """Do the same where /proc is this namespace's own: bwrap would wait for ever for what it cannot find there."""
    argv = ["unshare", "--mount", "--mount-proc", sys.executable, "-I", "-m", MODULE, *sys.argv[1:]]
    return run(
        argv, timeout_seconds=_SECONDS, ok=range(256), whole_environment=True, env=os.environ, on_output=_tell
    ).returncode


def _tell(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])) if sees_own_processes() else main_with_own_processes())
