# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from coppice.errors import InterruptedRunError, ToolFailedError, ToolMissingError, ToolTimeoutError
from coppice.process import CAPTURE_LIMIT_BYTES, Limits, ended_when, find_tool, run

pytestmark = pytest.mark.integration


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def wait_until(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.05)
    pytest.fail("did not happen in time")


def test_what_a_program_says_is_kept_apart_and_in_order() -> None:
    done = run(["sh", "-c", "echo one; echo two >&2; exit 3"], timeout_seconds=10, ok=(3,))
    assert (done.returncode, done.stdout, done.stderr) == (3, b"one\n", b"two\n")
    assert sorted(done.combined.split()) == ["one", "two"]


def test_what_comes_line_by_line_arrives_whole_and_while_it_is_said() -> None:
    talk = "import sys, time\nfor n in range(3000):\n    print(n, flush=True)\nprint('last', flush=True)\ntime.sleep(3)"
    pieces: list[tuple[float, str]] = []
    ended = run(
        [sys.executable, "-c", talk],
        timeout_seconds=60,
        on_output=lambda piece: pieces.append((time.monotonic(), piece)),
    )
    over = time.monotonic()
    assert ended.text().split() == [*map(str, range(3000)), "last"]
    assert "".join(piece for _, piece in pieces) == ended.text()
    # Not only once the program has ended.
    assert over - pieces[-1][0] > 0.5


def test_arguments_reach_the_program_untouched() -> None:
    hostile = ["; touch x", "$(id)", "a b", "`x`", "\n", "*"]
    done = run(["printf", "%s\\0", *hostile], timeout_seconds=10)
    assert done.stdout.split(b"\0")[:-1] == [word.encode() for word in hostile]


def test_the_environment_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "canary")
    seen = run(["env"], timeout_seconds=10, env={"EXTRA": "1"}).text()
    assert "canary" not in seen
    assert "EXTRA=1" in seen
    assert "LC_ALL=C.UTF-8" in seen


def test_input_is_fed_and_closed_even_when_it_is_large() -> None:
    data = os.urandom(3 * 1024 * 1024)
    assert run(["cat"], timeout_seconds=20, input_bytes=data).stdout == data
    assert run(["true"], timeout_seconds=20, input_bytes=data).returncode == 0


def test_a_failure_shows_the_command_and_the_end_of_its_output() -> None:
    with pytest.raises(ToolFailedError) as caught:
        run(["sh", "-c", "seq 100; echo broken >&2; exit 7"], timeout_seconds=10)
    assert "status 7" in caught.value.message
    assert "broken" in (caught.value.details or "")
    assert "seq 100" in (caught.value.details or "")


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coppice.process._SEARCH_PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError) as caught:
        find_tool("qemu-img")
    assert "apt-get install qemu-utils" in (caught.value.resolution or "")


def test_a_program_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/pid; trap '' TERM; wait"
    started = time.monotonic()
    with pytest.raises(ToolTimeoutError):
        run(["sh", "-c", script], timeout_seconds=3)
    assert time.monotonic() - started < 15
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_an_interrupted_run_ends_the_program(tmp_path: Path) -> None:
    def interrupt() -> None:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
        os.kill(os.getpid(), signal.SIGINT)

    teller = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - who tells it starts within it
        teller.start()
        run(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 300"], timeout_seconds=60)
    teller.join()
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))


AT_FORK = """
import os, signal, sys, threading, time
from coppice.process import run
tell = lambda: [os.kill(os.getpid(), number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
told = []
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
signal.signal(signal.SIGUSR1, lambda *_: told.append("SIGUSR1"))
handlers = [signal.getsignal(number) for number in signal.valid_signals()]
def state():
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return sorted(told), mask, handlers == [signal.getsignal(number) for number in signal.valid_signals()]
"""
ANOTHER_THREAD = "threading.Thread(target=time.sleep, args=(300,), daemon=True).start()\n"


def told_by(script: str) -> str:
    argv = [sys.executable, "-c", AT_FORK + script]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize("before", ["", ANOTHER_THREAD])
@pytest.mark.parametrize("is_main", [True, False])
def test_a_signal_to_a_child_that_is_not_yet_its_program_is_the_parents_matter(before: str, *, is_main: bool) -> None:
    script = before + (
        "os.register_at_fork(after_in_child=tell)\n"
        "asked = 'import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(2).__name__)'\n"
        "ask = lambda: print(run([sys.executable, '-c', asked], timeout_seconds=30).text().strip(), state())\n"
    )
    script += "ask()" if is_main else "(asking := threading.Thread(target=ask)).start(); asking.join()"
    # It ran, with nothing held back from it, and no handler of the parent ran in its copy.
    assert told_by(script) == "set() default_int_handler ([], set(), True)\n"


@pytest.mark.parametrize("before", ["", ANOTHER_THREAD])
def test_a_signal_while_a_program_starts_is_told_once_it_is_known_and_ends_it(tmp_path: Path, before: str) -> None:
    script = before + (
        "os.register_at_fork(after_in_parent=tell)\n"
        "try:\n"
        f"    run(['sh', '-c', 'echo $$ > {tmp_path}/pid; exec sleep 300'], timeout_seconds=60)\n"
        "except KeyboardInterrupt:\n"
        "    print(state())\n"
        "try:\n"
        "    os.waitpid(-1, 0)\n"
        "except ChildProcessError:\n"
        "    print('nothing is left')"
    )
    assert told_by(script) == "(['SIGTERM', 'SIGUSR1'], set(), True)\nnothing is left\n"


def test_a_signal_whenever_it_comes_leaves_no_program_and_no_handler_behind() -> None:
    """Told by another thread, at a random point of starting: before, within, after."""
    script = (
        "import random\n"
        "left = 0\n"
        "for turn in range(60):\n"
        "    wait = random.Random(turn).uniform(0, 0.006)\n"
        "    begin = threading.Event()\n"
        "    def interrupt():\n"
        "        begin.wait(); time.sleep(wait); os.kill(os.getpid(), signal.SIGINT)\n"
        "    teller = threading.Thread(target=interrupt); teller.start()\n"
        "    try:\n"
        "        begin.set()\n"
        "        run(['sleep', '300'], timeout_seconds=60)\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "    teller.join()\n"
        "    try:\n"
        "        left += os.waitpid(-1, os.WNOHANG)[0] == 0\n"
        "    except ChildProcessError:\n"
        "        pass\n"
        "print(left, state())\n"
    )
    assert told_by(script) == "0 ([], set(), True)\n"


@pytest.mark.parametrize("numbers", [(2, 2), (2, 15), (14,)])
def test_who_asks_again_is_heard_while_a_program_starts(numbers: tuple[int, ...]) -> None:
    """By the same signal or another; a timer asks but once."""
    script = (
        "def hang(): time.sleep(30)\n"
        "def interrupt():\n"
        f"    for number in {numbers}: time.sleep(1.5); os.kill(os.getpid(), number)\n"
        f"signal.signal({numbers[0]}, signal.default_int_handler)\n"
        f"signal.signal({numbers[-1]}, signal.default_int_handler)\n"
        "handlers = [signal.getsignal(number) for number in signal.valid_signals()]\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "started = time.monotonic()\n"
        "try:\n"
        "    run(['true'], timeout_seconds=60, before_start=hang)\n"
        "except KeyboardInterrupt:\n"
        "    print(time.monotonic() - started < 20, state()[2])\n"
        "try:\n"
        "    os.waitpid(-1, 0)\n"
        "except ChildProcessError:\n"
        "    print('nothing is left')\n"
    )
    assert told_by(script) == "True True\nnothing is left\n"


def test_a_flood_of_output_is_bounded_and_its_end_is_kept() -> None:
    done = run(["sh", "-c", "head -c 30000000 /dev/zero; echo the end"], timeout_seconds=30)
    assert len(done.stdout) <= CAPTURE_LIMIT_BYTES
    assert done.stdout.endswith(b"the end\n")


def test_limits_hold_in_the_child(tmp_path: Path) -> None:
    limits = Limits(file_size_bytes=4096, open_files=64, cpu_seconds=5, address_space_bytes=512 * 1024 * 1024)
    with pytest.raises(ToolFailedError):
        run(["sh", "-c", f"head -c 100000 /dev/zero > {tmp_path}/big"], timeout_seconds=10, limits=limits)
    assert (tmp_path / "big").stat().st_size <= 4096


def test_a_program_does_not_outlive_a_killed_run(tmp_path: Path) -> None:
    argv = ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 300"]
    script = f"from coppice.process import run; run({argv!r}, timeout_seconds=60)"
    parent = subprocess.Popen([sys.executable, "-c", script])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_what_cannot_be_prepared_in_the_child_is_an_error_and_no_defect() -> None:
    def refuse() -> None:
        raise OSError(1, "not permitted")

    with pytest.raises(ToolFailedError, match="cannot prepare to run"):
        run(["true"], timeout_seconds=10, before_start=refuse)


def test_open_files_are_handed_on_only_when_they_are_named() -> None:
    ours, theirs = os.pipe()
    try:
        saying = [sys.executable, "-c", f"import os; os.write({theirs}, b'said')"]
        run(saying, timeout_seconds=30, handed_on=[theirs])
        assert os.read(ours, 100) == b"said"
        with pytest.raises(ToolFailedError):
            run(saying, timeout_seconds=30)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_limit_above_what_is_left_to_this_user_is_what_is_left() -> None:
    script = (
        "import resource; from coppice.process import Limits, run\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "print(run(['sh', '-c', 'ulimit -n'], limits=Limits(open_files=1000), timeout_seconds=10).text())"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "100"


def test_processes_are_limited() -> None:
    asking = [sys.executable, "-c", "import resource as r; print(r.getrlimit(r.RLIMIT_NPROC))"]
    assert run(asking, limits=Limits(processes=1234), timeout_seconds=30).text().strip() == "(1234, 1234)"


def test_a_program_of_a_thread_that_is_told_to_stop_is_ended_and_one_beside_it_is_not() -> None:
    stopping = threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        with ended_when(stopping.is_set):
            try:
                run(["sleep", "60"], timeout_seconds=60)
            except InterruptedRunError as problem:
                raised.append(problem)

    worker = threading.Thread(target=work)
    worker.start()
    stopping.set()
    assert run(["echo", "beside"], timeout_seconds=60).stdout == b"beside\n"
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert len(raised) == 1
