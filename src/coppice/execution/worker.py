# SPDX-License-Identifier: Apache-2.0
"""What runs in a worker of the cluster: it says what it is, and does one piece of work at a time that it is handed.

A run has a directory that the machine of the run and all workers see. The machine of the run holds a lock in it: when
the run ends, however it does, the kernel lets the lock go, and whoever still works for it stops.

Orders and answers are dictionaries of plain values, so that a worker of another version can read them and refuse.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import pickle
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coppice
from coppice.errors import ClusterError, CoppiceError, InterruptedRunError
from coppice.execution.relay import SendingMonitor
from coppice.process import ended_when

if TYPE_CHECKING:
    from collections.abc import Callable

    Order = dict[str, Any]
    Answer = dict[str, Any]

LOCK = "lock"
STOP = "stop"
TOKEN = "token"  # noqa: S105 - what shows that a directory is the same; it opens nothing
MOST_TRIES = 2
_POLL_SECONDS = 1.0
_KVM = Path("/dev/kvm")


@functools.cache
def code_version() -> str:
    """Return what this Coppice is: its version, the digest of all its files, and the Python that runs it."""
    root = Path(coppice.__file__).parent
    digest = hashlib.sha256()
    # Scripts for guests and tables decide what is built, too.
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.parent.name != "__pycache__"):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    python = ".".join(platform.python_version_tuple()[:2])
    return f"{coppice.__version__} ({digest.hexdigest()[:12]}), Python {python}"


def describe(order: Order) -> Answer:
    """Return what this worker is, and why it cannot work for the run of ``order``; empty: it can."""
    return {
        "version": code_version(),
        "host": platform.node(),
        "architecture": platform.machine(),
        "root": os.geteuid() == 0,
        "kvm": os.access(_KVM, os.R_OK | os.W_OK),
        "refusal": _refusal(order),
    }


def serve(order: Order) -> Answer:
    """Do what ``order`` says; return its result, or its error, or why it was not begun."""
    refusal = _refusal(order)
    if refusal:
        return {"refusal": refusal}
    run = Path(order["run"])
    if not _begin(run, order["call"]):
        return {"lost": True}
    monitor = SendingMonitor(_sender(order["topic"], order["call"]))
    stopped = _asker(run)
    try:
        if stopped():
            raise InterruptedRunError("the run has ended")
        do, arguments = pickle.loads(order["work"])  # noqa: S301 - whoever reaches the scheduler runs programs here in any case
        with ended_when(stopped):
            return {"result": pickle.dumps(do(*arguments, monitor=monitor, stopped=stopped))}
    except CoppiceError as problem:
        return {"error": pickle.dumps(problem)}


def _refusal(order: Order) -> str:
    if order["version"] != code_version():
        return f"it runs Coppice {code_version()}, and not {order['version']}"
    run = Path(order["run"])
    try:
        token = (run / TOKEN).read_text(encoding="ascii")
    except (OSError, ValueError):
        token = ""
    if token != order["token"]:
        return f"it does not see {run.parent}, or sees another directory of that name"
    if not is_held(run / LOCK):
        return f"it does not see who holds a lock in {run.parent}"
    return ""


def begun_mark(run: Path, call: str, number: int) -> Path:
    """Return the file that says that a piece of work was begun for the ``number``-th time, from 0."""
    return run / f"{call}.begun-{number}"


def _begin(run: Path, call: str) -> bool:
    """Note that a piece of work is begun; False: it was begun too often, and whoever did so is gone."""
    for number in range(MOST_TRIES):
        try:
            os.close(os.open(begun_mark(run, call, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        except FileExistsError:
            continue
        except OSError as problem:
            raise ClusterError(f"{run} cannot be written to by the worker on {platform.node()}") from problem
        return True
    return False


def is_held(lock: Path) -> bool:
    """Tell whether somebody holds ``lock``; one that is not there any more is held by nobody."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _asker(run: Path) -> Callable[[], bool]:
    """Return what tells whether a run is over; its directory may be on another machine, so it is asked seldom."""
    next_look, over = 0.0, False

    def stopped() -> bool:
        nonlocal next_look, over
        if not over and time.monotonic() >= next_look:
            over = (run / STOP).exists() or not is_held(run / LOCK)
            next_look = time.monotonic() + _POLL_SECONDS
        return over

    return stopped


def _sender(topic: str, call: str) -> Callable[[dict[str, Any]], None]:
    from distributed import get_worker

    worker = get_worker()

    def send(note: dict[str, Any]) -> None:
        worker.log_event(topic, {"call": call, **note})

    return send
