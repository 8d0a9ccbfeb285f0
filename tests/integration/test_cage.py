# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.cage import Cage, Means, Strength, Walls, find_means, landlock
from coppice.errors import InterruptedRunError, StorageError, ToolFailedError, ToolMissingError, ToolTimeoutError
from coppice.process import Limits

if TYPE_CHECKING:
    from coppice.testing.server import LoopbackServer

pytestmark = pytest.mark.integration

MEANS = {
    "strongest": find_means,
    "user namespace": lambda: Means(walls=Walls.BUBBLEWRAP),
    "landlock": lambda: Means(walls=Walls.LANDLOCK, is_privileged=os.geteuid() == 0),
    "limits": lambda: Means(walls=Walls.NONE),
}
WITH_TREE = ("strongest", "user namespace")
CLOSED = (*WITH_TREE, "landlock")
MEBIBYTE = 1024 * 1024
SOMEBODY = 4321
HOLDING = (
    "import fcntl, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "file = open(sys.argv[1], 'r+b')\n"
    "fcntl.flock(file, fcntl.LOCK_EX)\n"
    "file.write(b'x')\nfile.flush()\n"
    "time.sleep(600)\n"
)
"""A program that holds a lock on its file for as long as it lives, and does not mind being asked to end."""


def python(code: str, *words: str) -> list[str]:
    return ["/usr/bin/python3", "-I", "-S", "-c", code, *words]


def is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def wait_until(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            pytest.fail("did not happen in time")
        time.sleep(0.05)


@pytest.mark.parametrize("means", sorted(MEANS))
@pytest.mark.parametrize(
    "name",
    [
        "plain.qcow2",
        "a b",
        "a,b=c",
        "line\nline",
        "back\\slash\\040",
        "-n",
        "colon:x",
        "ümlaut",
        b"\xff\xfe",
        "'\"$(id)`",
    ],
)
def test_files_in_closed_folders_and_with_odd_names_reach_the_program(
    tmp_path: Path, name: str | bytes, means: str
) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    image = folder / os.fsdecode(name)
    image.write_bytes(b"content")
    image.chmod(0o400)
    out = folder / f"{os.fsdecode(name)}.out"
    if os.geteuid() == 0 and means != "user namespace":
        # Root reads the files of others too, as it does without a cage.
        os.chown(image, SOMEBODY, SOMEBODY)
        os.chown(folder, SOMEBODY, SOMEBODY)
    cage = Cage(reads=[image], writes=[out], means=MEANS[means]())
    cage.run(["dd", f"if={cage.inside(image)}", f"of={cage.inside(out)}", "status=none"], timeout_seconds=60)
    assert out.read_bytes() == b"content"
    assert {path.name for path in folder.iterdir()} == {image.name, out.name}


@pytest.mark.threat("T71")
def test_a_file_that_takes_the_place_of_what_is_written_is_no_result(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    other.write_bytes(b"somebody's")

    def exchange(_text: str) -> None:
        other.replace(out)

    cage = Cage(writes=[out])
    with pytest.raises(StorageError, match="took its place"):
        cage.run(["echo", "begun"], timeout_seconds=60, on_output=exchange)


@pytest.mark.parametrize("means", sorted(MEANS))
def test_how_a_program_ended_is_told_as_it_is_without_a_cage(tmp_path: Path, means: str) -> None:
    image = tmp_path / "disk.qcow2"
    image.write_bytes(b"")
    cage = Cage(reads=[image], means=MEANS[means]())
    assert cage.run(python("raise SystemExit(7)"), timeout_seconds=60, ok=(7,)).returncode == 7
    with pytest.raises(ToolFailedError, match="was ended by signal 9"):
        cage.run(python("import os; os.kill(os.getpid(), 9)"), timeout_seconds=60)
    with pytest.raises(ToolFailedError, match="was ended by signal 6"):
        cage.run(python("import os; os.abort()"), timeout_seconds=60)
    with pytest.raises(ToolFailedError, match="status 1") as caught:
        cage.run(["qemu-img", "info", "-f", "qcow2", cage.inside(image)], timeout_seconds=60)
    assert f"$ qemu-img info -f qcow2 {image}" in (caught.value.details or "")
    assert f"'{image}'" in (caught.value.details or "")
    with pytest.raises(ToolMissingError):
        cage.run(["no-such-program"], timeout_seconds=60)


@pytest.mark.parametrize("means", sorted(MEANS))
def test_input_output_and_environment_are_the_programs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, means: str
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "canary")
    cage = Cage(means=MEANS[means]())
    said: list[str] = []
    done = cage.run(
        python("import os, sys; print(sys.stdin.read()); print(dict(os.environ)); print('said', file=sys.stderr)"),
        timeout_seconds=60,
        input_bytes=b"given",
        env={"EXTRA": "1"},
        on_output=said.append,
    )
    assert done.text().startswith("given\n")
    assert done.stderr == b"said\n"
    assert "canary" not in done.combined
    assert "'EXTRA': '1'" in done.combined
    assert "".join(said).count("said") == 1
    flood = cage.run(python("print('x' * 10_000_000); print('the end')"), timeout_seconds=60, capture_bytes=1000)
    assert len(flood.stdout) == 1000
    assert flood.stdout.endswith(b"the end\n")


@pytest.mark.parametrize("means", sorted(MEANS))
def test_when_time_is_up_it_has_ended_before_anybody_hears_of_it(tmp_path: Path, means: str) -> None:
    out = tmp_path / "out"
    cage = Cage(writes=[out], means=MEANS[means]())
    with pytest.raises(ToolTimeoutError, match="/usr/bin/python3 did not end within") as caught:
        cage.run(python(HOLDING, cage.inside(out)), timeout_seconds=3)
    assert not is_held(out)
    assert "bwrap" not in (caught.value.details or "")


@pytest.mark.parametrize("means", sorted(MEANS))
def test_a_run_that_is_stopped_has_ended_likewise(tmp_path: Path, means: str) -> None:
    out = tmp_path / "out"
    cage = Cage(writes=[out], means=MEANS[means]())
    with pytest.raises(InterruptedRunError):
        cage.run(python(HOLDING, cage.inside(out)), timeout_seconds=120, stopped=lambda: out.read_bytes() == b"x")
    assert not is_held(out)


@pytest.mark.parametrize("means", sorted(MEANS))
def test_it_does_not_outlive_a_killed_run(tmp_path: Path, means: str) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"")
    chosen = MEANS[means]()
    script = (
        "from pathlib import Path; from coppice.cage import *\n"
        f"means = Means(walls=Walls({str(chosen.walls)!r}), is_privileged={chosen.is_privileged})\n"
        f"cage = Cage(writes=[Path({str(out)!r})], means=means)\n"
        f"cage.run({python(HOLDING)!r} + [cage.inside(Path({str(out)!r}))], timeout_seconds=600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        wait_until(lambda: out.read_bytes() == b"x")
        assert is_held(out)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_held(out))


@pytest.mark.parametrize("means", sorted(MEANS))
def test_its_memory_time_and_files_are_bounded(tmp_path: Path, means: str) -> None:
    cage = Cage(writes=[tmp_path / "out"], means=MEANS[means]())

    def run(code: str, limits: Limits) -> str:
        return cage.run(python(code, cage.inside(tmp_path / "out")), timeout_seconds=120, limits=limits).text()

    with pytest.raises(ToolFailedError) as caught:
        run("bytearray(1 << 30)", Limits(address_space_bytes=256 * MEBIBYTE))
    assert "MemoryError" in (caught.value.details or "")
    with pytest.raises(ToolFailedError, match=f"signal {int(signal.SIGKILL)}"):
        run("while True: pass", Limits(cpu_seconds=1))
    with pytest.raises(ToolFailedError) as caught:
        run("import os; [os.dup(0) for _ in range(100)]", Limits(open_files=32))
    assert f"Errno {errno.EMFILE}" in (caught.value.details or "")
    with pytest.raises(ToolFailedError):
        run("import sys; open(sys.argv[1], 'wb').write(bytes(1 << 20))", Limits(file_size_bytes=4096))
    assert (tmp_path / "out").stat().st_size <= 4096
    # What was not said is bounded all the same.
    assert "unlimited" not in run("import resource as r; print(r.getrlimit(r.RLIMIT_AS))", Limits())
    assert run("import resource as r; print(r.getrlimit(r.RLIMIT_CORE))", Limits()).strip() == "(0, 0)"


@pytest.mark.parametrize("means", sorted(MEANS))
def test_a_folder_takes_files_up_to_the_limit(tmp_path: Path, means: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    cage = Cage(writes=[folder], means=MEANS[means]())
    filling = (
        "import os, sys, time\n"
        "for number in range(4):\n    open(f'{sys.argv[1]}/{number}', 'wb').write(bytes(1 << 20))\n"
        "os.mkdir(f'{sys.argv[1]}/below')\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    cage.run(python(filling, cage.inside(folder), "0"), timeout_seconds=60, limits=Limits(file_size_bytes=8 * MEBIBYTE))
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "2", "3", "below"]
    (folder / "below").rmdir()
    with pytest.raises(ToolFailedError, match="wrote more than"):
        cage.run(
            python(filling, cage.inside(folder), "600"),
            timeout_seconds=120,
            limits=Limits(file_size_bytes=2 * MEBIBYTE),
        )


PROBE = """#!/usr/bin/python3 -IS
import json, os, socket, sys
def first(path):
    try:
        return open(path, "rb").read(40).decode("latin-1")
    except OSError as problem:
        return problem.errno
def names(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return None
def reached():
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[2])), 2).close()
    except OSError as problem:
        return problem.errno
print(json.dumps({
    "root": names("/"), "etc": names("/etc"), "home": names("/home"), "roots": names("/root"), "tmp": names("/tmp"),
    "processes": names("/proc"), "passwd": first("/etc/passwd"), "shadow": first("/etc/shadow"),
    "canary": first(sys.argv[1]), "reached": reached(), "environment": sorted(os.environ), "folder": os.getcwd(),
}))
"""


@pytest.mark.threat("T71")
@pytest.mark.parametrize("means", CLOSED)
def test_a_probe_in_place_of_qemu_img_finds_no_network_no_home_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loopback_server: LoopbackServer, means: str
) -> None:
    probe = tmp_path / "bin" / "qemu-img"
    probe.parent.mkdir()
    probe.write_text(PROBE)
    probe.chmod(0o755)
    canary = tmp_path / "canary"
    canary.write_text("secret")
    monkeypatch.setenv("PATH", str(probe.parent))
    port = str(loopback_server.port)
    image = tmp_path / "image"
    image.write_bytes(b"x")
    found = json.loads(
        Cage(reads=[image], means=MEANS[means]()).run(["qemu-img", str(canary), port], timeout_seconds=60).stdout
    )
    refused = (errno.EACCES, errno.ENOENT, errno.EPERM)
    assert found["passwd"] in refused
    assert found["shadow"] in refused
    assert found["canary"] in refused
    assert found["reached"] == errno.EPERM
    assert set(found["environment"]) <= {"HOME", "LC_ALL", "LC_CTYPE", "PATH", "PWD"}
    if means in WITH_TREE:
        assert found["etc"] == ["ld.so.cache"]
        assert found["home"] is None
        assert found["roots"] is None
        assert found["processes"] == ["self"]
        assert "sys" not in found["root"]
        assert found["folder"] == "/"


@pytest.mark.parametrize("means", WITH_TREE)
def test_a_program_of_the_machine_sees_no_other_program(tmp_path: Path, means: str) -> None:
    code = "import os, sys; print([path for path in sys.argv[1:] if os.access(path, os.R_OK)])"
    done = Cage(means=MEANS[means]()).run(
        python(code, "/usr/bin/python3", "/bin/sh", "/usr/bin/env", "/usr/bin/qemu-img", "/usr/share"),
        timeout_seconds=60,
    )
    assert done.text().strip() == "['/usr/bin/python3']"


@pytest.mark.parametrize("means", sorted(MEANS))
def test_many_may_run_at_once(tmp_path: Path, means: str) -> None:
    chosen = MEANS[means]()

    def run(number: int) -> str:
        out = tmp_path / f"out-{number}"
        cage = Cage(writes=[out], means=chosen)
        cage.run(["dd", f"of={cage.inside(out)}", "status=none"], input_bytes=str(number).encode(), timeout_seconds=120)
        return out.read_text()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(24))) == [str(number) for number in range(24)]


IN_A_CHROOT = """
import os, subprocess, sys
from pathlib import Path
from coppice.cage import Cage, find_means
top = Path(sys.argv[1])
for entry in Path("/").iterdir():
    place = top / entry.name
    if entry.is_symlink():
        place.symlink_to(os.readlink(entry))
    elif entry.is_dir():
        place.mkdir()
        subprocess.run(["mount", "--rbind", entry, place], check=True)
os.chroot(top)
os.chdir("/")
means = find_means()
image = Path(sys.argv[2])
cage = Cage(reads=[image], means=means)
print(means.strength, cage.run(["cat", cage.inside(image)], timeout_seconds=60).text())
"""


def test_in_a_chroot_a_program_is_shut_in_too(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_text("content")
    with tempfile.TemporaryDirectory(prefix="coppice-root-") as top:
        entry = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
        argv = [*entry, sys.executable, "-c", IN_A_CHROOT, top, str(image)]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        for each in Path(top).iterdir():
            each.unlink() if each.is_symlink() else each.rmdir()
    strength, content = done.stdout.split()
    assert content == "content"
    best = Strength.CLOSED if landlock.version() >= landlock.LEAST_VERSION else Strength.LIMITS
    assert strength in {Strength.FULL, best}


WITHOUT_NAMESPACES = """
import sys
from pathlib import Path
Path("/proc/sys/user/max_user_namespaces").write_text("0")
from coppice.cage import Cage, find_means
means = find_means()
image = Path(sys.argv[1])
cage = Cage(reads=[image], means=means)
print(means.strength, len(means.lacking), cage.run(["cat", cage.inside(image)], timeout_seconds=60).text())
"""


def test_where_no_namespaces_can_be_made_a_program_is_shut_in_too(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_text("content")
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", WITHOUT_NAMESPACES, str(image)]
    strength, lacking, content = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    assert content == "content"
    best = Strength.CLOSED if landlock.version() >= landlock.LEAST_VERSION else Strength.LIMITS
    assert strength == best
    assert int(lacking) >= 2


def test_where_programs_cannot_be_shut_in_bubblewrap_is_what_the_person_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("coppice.process._SEARCH_PATH", "/nonexistent")
    with pytest.raises(ToolMissingError, match="bwrap") as caught:
        Cage(means=Means(walls=Walls.BUBBLEWRAP)).run(["/usr/bin/true"], timeout_seconds=60)
    assert "apt-get install bubblewrap" in (caught.value.resolution or "")


def made(folder: Path) -> dict[str, Path]:
    """Make a disk of each kind that is read by a program of its own; each with one file."""
    tree = folder / "tree"
    tree.mkdir()
    (tree / "os-release").write_text("ID=debian\n")
    disks = {}
    for kind, size, argv in (
        ("ext4", 16, ["mke2fs", "-q", "-t", "ext4", "-d", tree]),
        ("btrfs", 128, ["mkfs.btrfs", "-q", "--rootdir", tree]),
        ("xfs", 320, ["mkfs.xfs", "-q"]),
        ("fat", 8, ["mkfs.vfat"]),
    ):
        disks[kind] = folder / kind
        with disks[kind].open("wb") as file:
            file.truncate(size * MEBIBYTE)
        subprocess.run([*argv, disks[kind]], check=True, capture_output=True)
    subprocess.run(["mcopy", "-i", disks["fat"], tree / "os-release", "::"], check=True, capture_output=True)
    return disks


@pytest.mark.parametrize("means", CLOSED)
def test_the_programs_that_read_disks_work_in_it(tmp_path: Path, means: str) -> None:
    disks = made(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    chosen = MEANS[means]()

    def run(argv: list[str | Path], *writes: Path) -> str:
        reads = [word for word in argv if isinstance(word, Path) and word not in writes]
        cage = Cage(reads=reads, writes=writes, means=chosen)
        words = [word if isinstance(word, str) else cage.inside(word) for word in argv]
        return cage.run(words, timeout_seconds=60).text()

    assert run(["debugfs", "-R", "cat /os-release", disks["ext4"]]) == "ID=debian\n"
    assert "lost+found" in run(["debugfs", "-R", "ls -p /", disks["ext4"]])
    assert "magicnum = 0x58465342" in run(["xfs_db", "-r", "-c", "sb 0", "-c", "print", disks["xfs"]])
    assert run(["mtype", "-i", disks["fat"], "::os-release"]) == "ID=debian\n"
    assert "_BHRfS_M" in run(["btrfs", "inspect-internal", "dump-super", disks["btrfs"]])
    assert "00000000:" in run(["qemu-io", "-r", "-f", "raw", "-c", "read -v 0 64", disks["fat"]])
    if means in WITH_TREE:
        # Without a tree of its own it cannot be told what is mounted, on which it insists.
        run(["btrfs", "restore", disks["btrfs"], folder], folder)
        assert (folder / "os-release").read_text() == "ID=debian\n"
