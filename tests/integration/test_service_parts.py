# SPDX-License-Identifier: Apache-2.0
"""What the service is made of, with real sockets, signals and processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from http.client import HTTPConnection

import pytest

from coppice.clock import SystemClock
from coppice.errors import MachineError, SettingsError, ToolFailedError
from coppice.process.child import Child
from coppice.schedule import listener as listening
from coppice.schedule.announce import Announcer
from coppice.schedule.listener import MAX_TALKS, Listener, read_address
from coppice.schedule.model import Job, Outcome
from coppice.schedule.pages import Page, plain_page
from coppice.schedule.runs import Runs
from coppice.schedule.signals import Signals

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ENVIRON = {"PATH": os.environ["PATH"]}


def wait_until(what, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not (seen := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return seen


def answer(path, accept):
    if path == "/big":
        return Page(status=200, content_type="text/plain", body=b"x" * 20_000_000)
    return plain_page(200 if path == "/there" else 404, f"{path} {accept}")


@pytest.fixture
def listener():
    with Listener("127.0.0.1:0", answer) as made:
        yield made


def ask(listener, path, method="GET", **fields):
    connection = HTTPConnection("127.0.0.1", listener.port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, headers=fields)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def say(listener, data, *, shut=False):
    """Send bytes as they are; return all that is answered."""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as talk:
        talk.sendall(data)
        if shut:
            talk.shutdown(socket.SHUT_WR)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := talk.recv(65536):
                found += piece
        return found


def test_a_page_is_answered_with_its_length_and_the_connection_ends(listener):
    status, headers, body = ask(listener, "/there?x=1", Accept="application/openmetrics-text")
    assert (status, body) == (200, b"/there application/openmetrics-text\n")
    assert headers["Content-Length"] == str(len(body))
    assert headers["Connection"] == "close"
    assert ask(listener, "/nowhere")[0] == 404


def test_of_a_page_its_head_can_be_asked_for(listener):
    status, headers, body = ask(listener, "/there", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "CONNECT", "TRACE", "get", "G" * 100])
def test_what_could_change_something_is_refused(listener, method):
    assert b" 405 " in say(listener, f"{method} /there HTTP/1.1\r\n\r\n".encode()).split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", b"400"),
        (b"GET /there\r\n\r\n", b"400"),
        (b"GET  /there HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /there HTTP/2.0\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET /there HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", b"431"),
        (b"GET /there HTTP/1.1\r\n\xff\xfe: \x00\r\n\r\n", b"200"),
    ],
)
def test_what_is_no_small_request_is_refused_and_the_next_is_answered(listener, data, status):
    assert say(listener, data).split(b" ", 2)[1:2] in ([status], [])
    assert ask(listener, "/there")[0] == 200


def test_who_leaves_in_the_middle_harms_nobody(listener):
    assert say(listener, b"GET /th", shut=True) == b""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as talk:
        talk.sendall(b"GET /big HTTP/1.1\r\n\r\n")
        talk.recv(10)
    assert ask(listener, "/there")[0] == 200


def test_who_says_nothing_is_left_after_a_time_and_never_keeps_others_out_for_longer(listener, monkeypatch):
    monkeypatch.setattr(listening, "REQUEST_SECONDS", 0.5)
    talks = [socket.create_connection(("127.0.0.1", listener.port), timeout=30) for _ in range(MAX_TALKS + 4)]
    for number, talk in enumerate(talks):
        if number % 2:
            talk.sendall(b"GET /there HTTP/1.1\r\nX: ")
    answers = [talk.recv(65536) for talk in talks]
    for talk in talks:
        talk.close()
    kinds = {said.split(b" ", 2)[1] for said in answers}
    assert kinds <= {b"408", b"503"}
    wait_until(lambda: ask(listener, "/there")[0] == 200)
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "talk"])


def test_who_takes_nothing_is_left_after_a_time(listener, monkeypatch):
    monkeypatch.setattr(listening, "ANSWER_SECONDS", 0.5)
    with socket.socket() as talk:
        talk.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        talk.connect(("127.0.0.1", listener.port))
        talk.sendall(b"GET /big HTTP/1.1\r\n\r\n")
        wait_until(lambda: [each for each in threading.enumerate() if each.name == "talk"])
        wait_until(lambda: not [each for each in threading.enumerate() if each.name == "talk"])


def test_many_at_once_are_answered_or_told_to_come_again(listener):
    found = []
    threads = [threading.Thread(target=lambda: found.append(ask(listener, "/there")[0])) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    assert set(found) <= {200, 503}
    assert 200 in found


def test_an_address_that_is_taken_is_told_of():
    with Listener("127.0.0.1:0", answer) as first, pytest.raises(MachineError, match=r"cannot listen on 127\.0\.0\.1"):
        Listener(f"127.0.0.1:{first.port}", answer)


def test_once_closed_nobody_is_answered_and_the_port_is_free():
    first = Listener("127.0.0.1:0", answer)
    port = first.port
    first.close()
    with Listener(f"127.0.0.1:{port}", answer) as second:
        assert ask(second, "/there")[0] == 200


@pytest.mark.parametrize(
    "text",
    [
        *("", "9477", ":9477", "localhost:9477", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536"),
        *("127.0.0.1:-1", "[127.0.0.1]:1", "::1:9477", "[::1]", "[::1:9477", "127.0.0.1:\u0661", "unix:/x", "x" * 900),
    ],
)
def test_what_is_no_address_with_a_port_is_refused(text):
    with pytest.raises(SettingsError, match=r"service\.listen"):
        read_address(text)


def test_addresses_of_both_kinds_are_read():
    assert read_address("127.0.0.1:9477") == ("127.0.0.1", 9477)
    assert read_address("[::1]:0") == ("::1", 0)


@pytest.fixture
def manager(tmp_path):
    """Return the socket on which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(10)
        yield made


def test_systemd_is_told_how_the_service_is(manager, tmp_path):
    told = Announcer({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"})
    assert told.watchdog_seconds == 30
    told.ready("jobs: sync,\nretire")
    assert manager.recv(999) == b"READY=1\nSTATUS=jobs: sync, retire"
    told.reloading()
    first, second = manager.recv(999).split(b"\n")
    assert first == b"RELOADING=1"
    assert second.startswith(b"MONOTONIC_USEC=")
    told.alive()
    told.stopping()
    assert [manager.recv(999) for _ in range(2)] == [b"WATCHDOG=1", b"STOPPING=1\nSTATUS=stopping"]


def test_an_abstract_socket_is_found():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(f"\0coppice-test-{os.getpid()}")
        Announcer({"NOTIFY_SOCKET": f"@coppice-test-{os.getpid()}"}).alive()
        made.settimeout(10)
        assert made.recv(99) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000"},
    ],
)
def test_where_nobody_listens_nothing_fails_and_nobody_waits_to_hear(environ):
    told = Announcer(environ)
    told.ready("x")
    told.alive()
    assert told.watchdog_seconds is None


def test_signals_are_noted_and_wake_who_waits():
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        begun = time.monotonic()
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGHUP))
        timer.start()
        signals.wait(60)
        timer.join()
        assert time.monotonic() - begun < 50
        assert (signals.take_reload(), signals.take_reload(), signals.stops) == (True, False, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert signals.stops == 2
        signals.wait(60)
    assert signal.getsignal(signal.SIGTERM) is before


class Script:
    """Runs, in place of Coppice, a script of Python."""

    def __init__(self, text) -> None:
        self.text = text

    def start(self, job, environ):
        return Child((sys.executable, "-c", self.text), env=environ, oom_score=500)


JOB = Job(name="sync", words=("sync",), interval_seconds=1.0)
HANGS = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print('on', flush=True); time.sleep(600)"


def finished(runs, stop_seconds=0.2):
    def look():
        runs.check_time(stop_seconds)
        return runs.finished()

    (found,) = wait_until(look)
    assert len(runs) == 0
    return found.ended


def test_what_a_job_answers_is_read_however_long_it_is():
    said = json.dumps({"status": "success", "errors": [], "data": "x" * 5_000_000})
    runs = Runs(
        Script(f"import json; print(json.dumps(dict(status='success', errors=[], data='x' * {len(said)})))"),
        ENVIRON,
        SystemClock(),
    )
    assert runs.start(JOB, 60) is None
    assert finished(runs).outcome is Outcome.SUCCESS


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os; os.abort()", 134),
        ("raise SystemExit(70)", 70),
        ("import os; os.close(1)", 0),
    ],
)
def test_a_job_that_crashes_or_says_nothing_has_failed(script, exit_code):
    runs = Runs(Script(script), ENVIRON, SystemClock())
    runs.start(JOB, 60)
    ended = finished(runs)
    assert (ended.outcome, ended.exit_code) == (Outcome.FAILED, exit_code)


def test_a_job_that_does_not_end_in_time_is_told_so_and_then_ended():
    runs = Runs(Script(HANGS), ENVIRON, SystemClock())
    runs.start(JOB, 0.5)
    ended = finished(runs)
    assert (ended.outcome, ended.exit_code, ended.error_code) == (Outcome.FAILED, 137, "job-timeout")


def test_a_job_that_is_stopped_and_does_not_obey_is_ended_and_has_not_failed():
    runs = Runs(Script(HANGS), ENVIRON, SystemClock())
    runs.start(JOB, 60)
    runs.stop()
    assert finished(runs).outcome is Outcome.STOPPED


def test_a_job_is_ended_before_the_service_when_memory_is_short_and_ends_with_it():
    child = Child((sys.executable, "-c", HANGS), env=ENVIRON, oom_score=500)
    wait_until(lambda: child.answer() == b"on\n")
    with open(f"/proc/{child.pid}/oom_score_adj") as score:  # noqa: PTH123 - a file of the kernel
        assert score.read().strip() == "500"
    assert os.getpgid(child.pid) == child.pid
    child.end()
    assert child.poll() == -signal.SIGKILL
    child.close()
    owner = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from coppice.process.child import Child\n"
        f"child = Child((sys.executable, '-c', {HANGS!r}), env={{}})\n"
        "while child.answer() != b'on\\n': pass\n"
        "print(child.pid, flush=True)\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = Child((sys.executable, "-c", owner), env=ENVIRON)
    assert wait_until(lambda: parent.poll() is not None)
    orphan = int(parent.answer())
    parent.close()
    wait_until(lambda: not is_running(orphan))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - likewise
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_program_that_is_not_there_cannot_be_started_and_leaves_no_open_file():
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - likewise
    with pytest.raises(ToolFailedError, match="cannot start /nowhere/python"):
        Child(("/nowhere/python",), env={})
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - likewise
