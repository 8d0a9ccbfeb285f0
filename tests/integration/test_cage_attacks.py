# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for a converter that an image has taken over: each tries what it must not, and says how far it got.

Whatever a stand-in does is bounded even if the cage were open: it runs as a user that is not root, may have few
processes, and finds no room but a small file system in memory. Each attack is made without a cage as well, where it
succeeds: so it is known to be one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

DRIVER = """
import json, os, resource, subprocess, sys
from pathlib import Path
from coppice import cage, errors, process
from coppice.cage.bubblewrap import tasks_of

room, code, walls, limits = Path(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
for each in (cage.Cage(), cage.Cage(means=cage.Means(walls=cage.Walls.LANDLOCK))):
    each.run(["true"], timeout_seconds=60)  # all modules are loaded from now on
cage.forget_means()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=1777", "tmpfs", room], check=True)
if sys.argv[5] == "root":
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
most = tasks_of(os.geteuid()) + 100
resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
(room / "secret").write_text("secret")
(room / "given").write_text("given")
means = {
    "strongest": cage.find_means,
    "landlock": lambda: cage.Means(walls=cage.Walls.LANDLOCK),
    "none": lambda: cage.Means(walls=cage.Walls.NONE, is_filtered=False),
}[walls]()
den = cage.Cage(reads=[room / "given"], writes=[room / "out"], means=means)
argv = ["/usr/bin/python3", "-I", "-S", "-c", code, den.inside(room / "given"), den.inside(room / "out"), str(room)]
try:
    done = den.run(argv, timeout_seconds=60, limits=process.Limits(**limits), ok=range(-255, 256))
    said = {"code": done.returncode, "out": done.text(), "err": done.stderr.decode(errors="replace")}
except errors.CoppiceError as problem:
    said = {"error": problem.code, "message": problem.message}
left = os.statvfs(room)
held = {str(each.relative_to(room)): each.lstat().st_size for each in room.rglob("*")}
room_left = left.f_bavail * left.f_frsize
print(json.dumps({**said, "walls": str(means.walls), "held": held, "left": room_left, "user": os.geteuid()}))
"""
TRIED = """
import errno, json, os, socket, sys, time
given, out, room = sys.argv[1:4]
found = {}
def tried(name, do):
    try:
        found[name] = do()
    except Exception as problem:
        number = getattr(problem, "errno", None)
        found[name] = errno.errorcode.get(number, repr(problem)) if number else repr(problem)
"""
READING = """
tried("given", lambda: open(given).read())
for name, path in {"secret": f"{room}/secret", "passwd": "/etc/passwd", "environment": "/proc/1/environ"}.items():
    tried(name, lambda: open(path).read()[:6])
tried("home", lambda: len(os.listdir("/home")) >= 0)
tried("beside", lambda: open(f"{room}/beside", "w").write("x"))
tried("given written", lambda: open(given, "r+").write("x"))
tried("cut", lambda: os.truncate(f"{room}/secret", 0))
tried("moved", lambda: os.rename(f"{room}/secret", f"{room}/gone"))
tried("removed", lambda: os.unlink(f"{room}/given"))
tried("opened to all", lambda: os.chmod(f"{room}/secret", 0o777))
tried("linked", lambda: os.symlink("/etc/passwd", f"{os.path.dirname(out)}/link"))
print(json.dumps(found))
"""
STARTING = """
for path in ("/bin/sh", "/usr/bin/env", "/bin/busybox", "/usr/bin/perl"):
    tried(path, lambda: os.execv(path, [path, "-c", "exit 77"]))
tried("killed", lambda: os.kill(os.getppid(), 9))
tried("outliving", lambda: os.setsid() and None)
import fcntl
pipe = os.pipe()
tried("killed by the kernel", lambda: fcntl.fcntl(pipe[0], fcntl.F_SETOWN, os.getppid()) and None)
tried("slowed down", lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19))
print(json.dumps(found))
"""
CONNECTING = """
for name, family, kind in (
    ("inet", socket.AF_INET, socket.SOCK_STREAM),
    ("datagram", socket.AF_INET, socket.SOCK_DGRAM),
    ("inet6", socket.AF_INET6, socket.SOCK_STREAM),
    ("unix", socket.AF_UNIX, socket.SOCK_STREAM),
    ("netlink", socket.AF_NETLINK, socket.SOCK_RAW),
):
    tried(name, lambda: socket.socket(family, kind).close())
tried("pair", lambda: [each.close() for each in socket.socketpair()] and None)
print(json.dumps(found))
"""
FORKING = """
count = 0
try:
    for _ in range(1000):
        if os.fork() == 0:
            time.sleep(2)
            os._exit(0)
        count += 1
except OSError as problem:
    found["stopped by"] = errno.errorcode[problem.errno]
print(json.dumps({**found, "processes": count}))
"""
THREADS = """
import threading
gate, count = threading.Event(), 0
threading.stack_size(65536)
try:
    for _ in range(1000):
        threading.Thread(target=gate.wait, daemon=True).start()
        count += 1
except RuntimeError:
    pass
print(json.dumps({"threads": count}), flush=True)
os._exit(0)
"""
FILLING = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill(path):
    with open(path, "wb", buffering=0) as file:
        for _ in range(256):
            file.write(bytes(1 << 20))
for name, path in {"out": out, "beside": f"{room}/more"}.items():
    tried(name, lambda: fill(path))
for folder in ("/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/in", "/out", os.path.dirname(out), os.getcwd()):
    tried(folder, lambda: open(f"{folder}/.coppice-attack", "xb").close() or os.unlink(f"{folder}/.coppice-attack"))
tried("memory file", lambda: os.memfd_create("x") and None)
print(json.dumps(found))
"""
ROOM_BYTES = 64 * 1024 * 1024
MEBIBYTE = 1024 * 1024
SHUT_IN = ("strongest", "landlock")


@pytest.fixture
def room() -> Iterator[Path]:
    """Return an empty folder that every user gets to; those of pytest are their owner's."""
    with tempfile.TemporaryDirectory(prefix="coppice-room-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def attack(folder: Path, code: str, walls: str, **limits: int) -> dict[str, Any]:
    """Let a stand-in loose in a small room, shut in by ``walls``; return what became of it and of the room."""
    is_root = os.geteuid() == 0
    argv = ["unshare", "--mount", *([] if is_root else ["--user", "--map-root-user"]), sys.executable, "-c", DRIVER]
    argv += [str(folder), TRIED + code, walls, json.dumps(limits), "root" if is_root else "user"]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def found_by(said: dict[str, Any]) -> dict[str, Any]:
    assert said.get("code") == 0, said
    found: dict[str, Any] = json.loads(said["out"])
    return found


@pytest.mark.parametrize("walls", SHUT_IN)
def test_it_reads_and_changes_no_file_but_its_own(room: Path, walls: str) -> None:
    said = attack(room, READING, walls)
    found = found_by(said)
    assert found.pop("given") == "given"
    assert set(found.values()) <= {"ENOENT", "EACCES", "EPERM", "EROFS", "EBUSY"}
    assert said["held"] == {"secret": 6, "given": 5, "out": 0}


def test_without_a_cage_it_reads_and_changes_them(room: Path) -> None:
    found = found_by(attack(room, READING, "none"))
    assert (found["secret"], found["beside"], found["cut"], found["given written"]) == ("secret", 1, None, 1)


@pytest.mark.parametrize("walls", SHUT_IN)
def test_it_becomes_no_other_program_and_ends_nobody(room: Path, walls: str) -> None:
    found = found_by(attack(room, STARTING, walls))
    # The parent that it sees in a tree of its own is one that it cannot end; that this was said shows that it did not.
    assert found.pop("killed") == (None if walls == "strongest" else "EPERM")
    assert set(found.values()) <= {"ENOENT", "EACCES", "EPERM"}


def test_without_a_cage_it_becomes_a_shell(room: Path) -> None:
    assert attack(room, STARTING, "none")["code"] == 77


@pytest.mark.parametrize("walls", SHUT_IN)
def test_it_opens_no_socket(room: Path, walls: str) -> None:
    found = found_by(attack(room, CONNECTING, walls))
    assert len(found) == 6
    assert set(found.values()) == {"EPERM"}


def test_without_a_cage_it_opens_sockets(room: Path) -> None:
    found = found_by(attack(room, CONNECTING, "none"))
    assert (found["inet"], found["unix"], found["pair"]) == (None, None, None)


@pytest.mark.parametrize("walls", SHUT_IN)
def test_it_starts_not_one_process(room: Path, walls: str) -> None:
    assert found_by(attack(room, FORKING, walls)) == {"processes": 0, "stopped by": "EPERM"}


def test_without_a_cage_it_starts_as_many_as_its_user_may(room: Path) -> None:
    found = found_by(attack(room, FORKING, "none", processes=100))
    assert found["processes"] > 10
    assert found["stopped by"] == "EAGAIN"


@pytest.mark.parametrize("walls", SHUT_IN)
def test_it_has_as_many_threads_as_it_was_given(room: Path, walls: str) -> None:
    found = found_by(attack(room, THREADS, walls, processes=20))
    assert 1 <= found["threads"] < 200


@pytest.mark.parametrize("walls", SHUT_IN)
def test_it_fills_its_own_file_up_to_the_limit_and_nothing_else(room: Path, walls: str) -> None:
    said = attack(room, FILLING, walls, file_size_bytes=8 * MEBIBYTE)
    found = found_by(said)
    assert found.pop("out") == "EFBIG"
    assert set(found.values()) <= {"ENOENT", "EACCES", "EPERM", "EROFS"}
    assert said["held"] == {"secret": 6, "given": 5, "out": 8 * MEBIBYTE}
    assert said["left"] > ROOM_BYTES - 9 * MEBIBYTE


def test_without_a_cage_it_fills_the_disk(room: Path) -> None:
    said = attack(room, FILLING, "none", file_size_bytes=ROOM_BYTES * 2)
    assert found_by(said)["out"] == "ENOSPC"
    assert said["left"] == 0


def test_the_stand_ins_run_under_a_user_that_is_not_root(room: Path) -> None:
    said = attack(room, "print(json.dumps({'user': os.geteuid()}))", "strongest")
    if os.geteuid() == 0:
        assert found_by(said)["user"] == said["user"] == 65534
    assert said["walls"] == "bubblewrap"
