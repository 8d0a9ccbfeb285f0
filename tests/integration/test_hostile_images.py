# SPDX-License-Identifier: Apache-2.0
"""Every hostile image is refused with its code by the real command line before any program was started.

All of them are given to ``image inspect`` and to ``convert`` in one process. It is watched from inside (an audit hook
sees each start of a program, whoever asks for it) and from outside (stand-ins for all tools, canaries, its memory).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coppice.errors import ImageRefusedError, all_error_types
from coppice.process import TOOLS
from coppice.testing.hostile import cases

if TYPE_CHECKING:
    from coppice.testing.hostile.case import HostileCase

# Three bombs are unpacked up to the gibibyte that is believed of any file, twice.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("hostile"), pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
CASES = cases()
THREATS = [f"T{number}" for number in range(58, 69)]
REFUSALS = {kind.code for kind in all_error_types() if issubclass(kind, ImageRefusedError)}
MOST_MEMORY_KIB = 200 * 1024
"""Of the process that looks at all of them, one after the other: twice of what it takes."""
STAND_INS = sorted(
    {*TOOLS, "qemu-img", "qemu-io", "qemu-nbd", "bwrap", "unshare", "setpriv", "prlimit", "tar", "unzip", "7z", "sh"}
    | {"gzip", "gunzip", "bzip2", "xz", "zstd", "debugfs", "xfs_db", "btrfs", "mcopy", "mdir", "minfo", "file", "mount"}
)
BENIGN = "benign.raw"

DRIVER = """
import contextlib, io, json, os, sys
started = []
WATCHED = {"subprocess.Popen", "pty.spawn"}
WATCHED |= {"os." + name for name in ("posix_spawn", "exec", "fork", "forkpty", "system", "spawn")}
sys.addaudithook(lambda event, about: started.append(repr((event, about))[:300]) if event in WATCHED else None)
from coppice.cli.main import main
images, out = sys.argv[1:]
told = {}
for name in sorted(os.listdir(images)):
    for command in (("image", "inspect"), ("convert", "--to", "vdi", "--output", os.path.join(out, name + ".out"))):
        del started[:]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = main(["--json", *command, os.path.join(images, name)])
        told.setdefault(name, {})[command[0]] = {
            "exit": code, "errors": json.loads(said.getvalue())["errors"], "started": list(started)
        }
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"told": told, "peak_kib": peak}))
"""


@dataclass(frozen=True)
class World:
    """A folder with hostile images, canaries beside them, and what the command line said of each."""

    root: Path
    told: dict[str, Any]
    peak_kib: int
    before: dict[str, str]

    @property
    def images(self) -> Path:
        return self.root / "a" / "b" / "images"


def tree(root: Path) -> dict[str, str]:
    """Return everything below a folder, with what changes when it is changed; the state directory is left out."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if not name.startswith("state"):
            about = path.lstat()
            # What is unpacked lies beside the new file for a while, which changes the time of the folder.
            when = "" if path.is_dir() else about.st_mtime_ns
            found[name] = f"{about.st_mode} {about.st_ino} {about.st_size} {when}"
    return found


def stand_ins(root: Path) -> Path:
    """Write programs that leave a mark and do nothing else, under the names of all that could be called."""
    folder = root / "bin"
    folder.mkdir()
    for name in STAND_INS:
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "{root}/state/called"\nexit 1\n')
        path.chmod(0o755)
    return folder


def environment(root: Path) -> dict[str, str]:
    return {
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "home"),
        "COPPICE_STATE_DIRECTORY": str(root / "state"),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("hostile")
    images = root / "a" / "b" / "images"
    for folder in (images, root / "out", root / "home", root / "state"):
        folder.mkdir(parents=True)
    for case in CASES:
        case.make(images / case.name)
    (images / BENIGN).write_bytes(bytes(1024 * 1024))
    for folder in (root, root / "a", root / "a" / "b", root / "out", root / "home"):
        (folder / "canary").write_text("nobody writes here\n")
    stand_ins(root)
    before = tree(root)
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, str(images), str(root / "out")],
        env=environment(root),
        cwd=root / "home",
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stderr == ""
    said = json.loads(ended.stdout)
    return World(root, said["told"], said["peak_kib"], before)


def test_there_are_enough_of_them_and_of_each_threat() -> None:
    assert len(CASES) >= 50
    assert sorted({case.threat for case in CASES}, key=lambda threat: int(threat[1:])) == THREATS
    assert {case.code for case in CASES} == REFUSALS - {"image-refused", "image-declared-format"}


@pytest.mark.threat("T58", "T59", "T60", "T62", "T63", "T64", "T65", "T66", "T67", "T68")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_image_is_refused_with_its_code_and_reasons_and_no_program_was_started(
    world: World, case: HostileCase
) -> None:
    for command in ("image", "convert"):
        told = world.told[case.name][command]
        assert [error["code"] for error in told["errors"]] == [case.code], told
        assert told["exit"] == 7
        assert told["started"] == []
    error = world.told[case.name]["image"]["errors"][0]
    assert case.name in error["message"]
    assert error["context"]["found"]
    assert error["context"]["why"]
    offset = error["context"]["offset"]
    assert offset is None or f"(at byte {offset})" in error["message"]
    assert not re.search(r"[\x00-\x1f\x7f]", error["message"])
    assert error["resolution"]


def test_most_refusals_say_at_which_offset(world: World) -> None:
    errors = [world.told[case.name]["image"]["errors"][0] for case in CASES]
    told = [error for error in errors if error["context"]["offset"] is not None]
    assert len(told) > len(errors) * 2 // 3


@pytest.mark.threat("T67")
def test_nothing_is_written_anywhere_and_nothing_stays_in_the_spool(world: World) -> None:
    after = tree(world.root)
    # The stand-ins are called for the benign one, which fails then.
    assert after == world.before
    spool = world.root / "state" / "conversion" / "spool"
    assert [path for path in world.root.rglob("*") if path.name.endswith((".spool", ".partial"))] == []
    assert not spool.exists() or list(spool.iterdir()) == []


def test_who_looks_at_all_of_them_needs_little_memory(world: World) -> None:
    assert world.peak_kib < MOST_MEMORY_KIB


def test_the_watch_sees_the_programs_that_an_image_is_given_to_that_is_not_refused(world: World) -> None:
    told = world.told[BENIGN]["convert"]
    assert told["started"] != []
    assert (world.root / "state" / "called").exists()


@pytest.mark.threat("T61")
@pytest.mark.parametrize("threat", THREATS)
def test_the_command_as_a_process_of_its_own_refuses_and_calls_no_stand_in(
    threat: str, world: World, tmp_path: Path
) -> None:
    case = next(each for each in CASES if each.threat == threat)
    for folder in ("home", "state"):
        (tmp_path / folder).mkdir()
    stand_ins(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "coppice", "image", "inspect", str(world.images / case.name)],
        env=environment(tmp_path),
        cwd=tmp_path / "home",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 7, ended
    assert ended.stdout == ""
    # What takes a while tells how far it is before.
    assert f"\nerror[{case.code}]: " in f"\n{ended.stderr}"
    assert not (tmp_path / "state" / "called").exists()


def test_the_files_are_the_same_each_time(world: World, tmp_path: Path) -> None:
    small = [case for case in CASES if (world.images / case.name).stat().st_size < 1024 * 1024]
    for case in small:
        case.make(tmp_path / case.name)
        again = hashlib.sha256((tmp_path / case.name).read_bytes()).digest()
        assert again == hashlib.sha256((world.images / case.name).read_bytes()).digest(), case.name
        (tmp_path / case.name).unlink()


def test_they_can_be_written_into_a_folder_with_a_list_of_what_they_are(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "hostile_images.py")]
    done = subprocess.run([*script, str(tmp_path / "images")], capture_output=True, text=True, timeout=300, check=True)
    assert len(done.stdout.splitlines()) == len(CASES)
    listed = json.loads((tmp_path / "images" / "index.json").read_text())
    assert [each["name"] for each in listed] == [case.name for case in CASES]
    assert sorted([*(each["name"] for each in listed), "index.json"]) == sorted(
        path.name for path in (tmp_path / "images").iterdir()
    )
    again = subprocess.run([*script, str(tmp_path / "images")], capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 1
    assert "is not empty" in again.stderr
