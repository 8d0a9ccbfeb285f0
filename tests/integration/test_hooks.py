# SPDX-License-Identifier: Apache-2.0
"""Hooks as they are: programs that misbehave, web servers that do, files; and runs that are killed."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coppice.clock import FixedClock, SystemClock
from coppice.database import Database
from coppice.events.deliveries import Deliveries
from coppice.events.journal import Journal
from coppice.events.model import DeliveryState, EventKind
from coppice.events.webhook import sign, signing_key
from coppice.monitor import SILENT, SilentMonitor
from coppice.settings.load import load_settings
from coppice.testing.server import LoopbackServer, in_turn, redirect, serve, status
from coppice.testing.tls import throw_away_tls
from coppice.workflows.tell import TellReport, meet_hooks, tell

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
SECRET = "a secret that nobody guesses"  # noqa: S105 - of the tests


class Listener(SilentMonitor):
    """Keeps what a reader is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


class Site:
    """A site with hooks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(f"sqlite:///{path / 'state' / 'coppice.sqlite'}")
        self.clock = FixedClock(datetime.now(UTC).replace(microsecond=0))
        self.journal = Journal(self.database)
        self.deliveries = Deliveries(self.database)

    def hooks(self, text: str) -> None:
        file = self.path / "coppice.toml"
        file.write_text(
            f'state_directory = "{self.path}/state"\n[transfer]\nallow_private_addresses = true\nattempts = 1\n'
            "[events]\nattempts = 2\n" + textwrap.dedent(text)
        )
        self.settings = load_settings(config=file, environ={}, options={}, system_file=file)
        meet_hooks(self.settings, self.database, self.clock)

    def program(self, name: str, script: str) -> Path:
        path = self.path / f"{name}.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def happen(self, image: str = "i", kind: EventKind = EventKind.IMAGE_CACHED, **facts: object) -> None:
        said = {"list": "l", "image": image, **facts}
        self.journal.record(kind, subject=f"l/{image}", facts=said, at=self.clock.now())

    def tell(self) -> TellReport:
        return tell(self.settings, self.database, self.clock, SILENT)

    def state(self, hook: str, number: int = 1) -> Any:
        return next(each for each in self.deliveries.of_event(number) if each.hook == hook)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.database.close()


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def wait_until(condition: Any, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("did not happen in time")
        time.sleep(0.05)


def test_a_program_reads_the_event_and_what_it_says_is_kept(site: Site) -> None:
    script = site.program("hook", f'cat > {site.path}/got; env > {site.path}/env; echo "$1"; echo oops >&2')
    site.hooks(f'[hooks.h]\nkind = "program"\ncommand = ["{script}", "$(id) ; x"]\n')
    site.happen(version="1")
    assert site.tell().hooks[0].delivered == 1
    event = json.loads((site.path / "got").read_text())
    assert (event["number"], event["kind"], event["image"], event["facts"]["version"]) == (1, "ImageCached", "i", "1")
    assert event["delivery"]["attempt"] == 1
    assert sorted(site.state("h").output.splitlines()) == ["$(id) ; x", "oops"]
    assert "VMCATCHER" not in (site.path / "env").read_text()


def test_a_program_that_fails_is_told_again_then_parked_and_holds_up_no_other_hook(site: Site) -> None:
    bad = site.program("bad", "echo broken; exit 3")
    site.hooks(
        f"""
        [hooks.bad]
        kind = "program"
        command = ["{bad}"]
        [hooks.good]
        kind = "file"
        path = "{site.path}/lines"
        """
    )
    site.happen()
    report = site.tell()
    assert [(each.hook, each.delivered, each.waiting) for each in report.hooks] == [("bad", 0, 1), ("good", 1, 0)]
    assert (site.state("bad").error_code, site.state("bad").output) == ("hook-failed", "broken\n")
    site.clock.advance(timedelta(days=1))
    assert site.tell().hooks[0].given_up == 1
    assert site.state("bad").state is DeliveryState.PARKED
    assert len((site.path / "lines").read_text().splitlines()) == 1


@pytest.mark.threat("T74")
def test_a_run_notes_which_hook_failed_and_why(site: Site) -> None:
    listener = Listener()
    site.hooks(
        f"""
        [hooks.bad]
        kind = "program"
        command = ["{site.program("bad", "exit 3")}"]
        [hooks.good]
        kind = "program"
        command = ["{site.program("good", "exit 0")}"]
        """
    )
    site.happen()
    tell(site.settings, site.database, site.clock, listener)
    (said,) = listener.said
    assert said.startswith("the hook 'bad' failed: 1 waiting, 0 parked")
    assert "ended with status 3" in said


def test_a_program_that_hangs_forks_and_ignores_signals_is_ended_with_all_it_started(site: Site) -> None:
    script = site.program(
        "hook",
        f"""
        trap '' TERM INT HUP
        echo started
        (trap '' TERM; exec sleep 300) & echo $! > {site.path}/child
        setsid sh -c 'trap "" TERM; echo $$ > {site.path}/daemon; sleep 300; sleep 300' > /dev/null 2>&1 &
        while :; do sleep 1; done
        """,
    )
    site.hooks(f'[hooks.h]\nkind = "program"\ncommand = ["{script}"]\ntimeout_seconds = 2\n')
    site.happen()
    started = time.monotonic()
    assert site.tell().hooks[0].errors[0].code == "hook-timeout"
    assert time.monotonic() - started < 20
    assert "started" in site.state("h").output
    for name in ("child", "daemon"):
        wait_until(lambda name=name: not alive(int((site.path / name).read_text())))


@pytest.mark.threat("T74")
def test_a_gigabyte_of_output_takes_no_memory(site: Site) -> None:
    script = site.program("hook", "head -c 1000000000 /dev/zero | tr '\\\\0' x; echo; echo the end")
    site.hooks(
        f'[hooks.h]\nkind = "program"\ncommand = ["{script}"]\ntimeout_seconds = 100\noutput_limit_bytes = "10 KiB"\n'
    )
    site.happen()
    program = textwrap.dedent(
        f"""
        import re
        from coppice.clock import SystemClock
        from coppice.database import Database
        from coppice.monitor import SILENT
        from coppice.settings.load import load_settings
        from coppice.workflows.tell import tell
        from pathlib import Path
        file = Path("{site.path}/coppice.toml")
        settings = load_settings(config=file, environ={{}}, options={{}}, system_file=file)
        report = tell(settings, Database(settings.database_url), SystemClock(), SILENT)
        # The process's own peak; what getrusage says began with that of whoever started it.
        print(report.hooks[0].delivered, re.search("VmHWM:[ \\t]*([0-9]+)", Path("/proc/self/status").read_text())[1])
        """
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=100)
    delivered, resident_kib = map(int, done.stdout.split())
    assert delivered == 1
    assert resident_kib < 200 * 1024
    output = site.state("h").output
    assert output.endswith("the end\n")
    assert len(output) <= 10_240


def test_what_a_program_leaves_behind_holds_nobody_up(site: Site) -> None:
    script = site.program("hook", f"sleep 60 & echo $! > {site.path}/child; echo done")
    site.hooks(f'[hooks.h]\nkind = "program"\ncommand = ["{script}"]\ntimeout_seconds = 60\n')
    site.happen()
    started = time.monotonic()
    assert site.tell().hooks[0].delivered == 1
    assert time.monotonic() - started < 30
    wait_until(lambda: not alive(int((site.path / "child").read_text())))


def test_a_daemon_that_a_program_leaves_behind_in_good_order_lives_on(site: Site) -> None:
    script = site.program("hook", f"sleep 60 > /dev/null 2>&1 & echo $! > {site.path}/child")
    site.hooks(f'[hooks.h]\nkind = "program"\ncommand = ["{script}"]\n')
    site.happen()
    assert site.tell().hooks[0].delivered == 1
    pid = int((site.path / "child").read_text())
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_program_that_is_not_there_costs_no_event(site: Site) -> None:
    site.hooks('[hooks.h]\nkind = "program"\ncommand = ["/nonexistent/handler"]\n')
    site.happen()
    for _ in range(5):
        (error,) = site.tell().errors
        assert error.code == "hook-failed"
    assert site.deliveries.of_event(1) == ()


@pytest.mark.threat("T74")
def test_a_handler_of_vmcatcher_gets_hostile_values_byte_by_byte(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "a\nb $(touch /tmp/pwned) `id` ' \" \\ ; é \U0001f4be \u202e"
    monkeypatch.setenv("OF_THE_SITE", "kept")
    monkeypatch.setenv("HOOK_SECRET", "not for handlers")
    monkeypatch.setenv("VMCATCHER_EVENT_VO", "of an outer handler")
    script = site.program(
        "hook",
        f"printf '%s' \"$VMCATCHER_EVENT_DC_TITLE\" | od -An -tx1 -v > {site.path}/hex; env -0 > {site.path}/env",
    )
    site.hooks(
        f"""
        [hooks.h]
        kind = "program"
        compat = "vmcatcher"
        command = ["{script}"]
        [hooks.w]
        kind = "webhook"
        events = ["BundleImported"]
        url = "https://localhost/"
        secret_env = "HOOK_SECRET"
        """
    )
    site.happen(listed={"title": "x\x00" + hostile}, file_name="f")
    site.happen(kind=EventKind.IMAGE_REGISTERED)
    assert [each.delivered for each in site.tell().hooks if each.hook == "h"] == [1]
    assert bytes.fromhex((site.path / "hex").read_text()) == ("x" + hostile).encode()
    variables = dict(
        each.split("=", 1) for each in (site.path / "env").read_bytes().decode().split("\0") if "=" in each
    )
    assert variables["OF_THE_SITE"] == "kept"
    assert "HOOK_SECRET" not in variables
    assert "VMCATCHER_EVENT_VO" not in variables
    assert variables["VMCATCHER_CACHE_DIR_CACHE"] == f"{site.path}/state/cache/handed-out"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[LoopbackServer, Path]]:
    context, trusted = throw_away_tls(tmp_path)
    with LoopbackServer(tls=context) as server:
        yield server, trusted


def web_hook(site: Site, server: LoopbackServer, trusted: Path) -> None:
    secret = site.path / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    site.hooks(
        f"""
        [hooks.w]
        kind = "webhook"
        url = "{server.url("/hook")}"
        secret_file = "{secret}"
        server_anchors = "{trusted}"
        """
    )


def test_a_webhook_is_told_with_a_signature_that_a_receiver_can_verify(
    site: Site, receiver: tuple[LoopbackServer, Path]
) -> None:
    server, trusted = receiver
    web_hook(site, server, trusted)
    server.set("/hook", serve(b"thanks"))
    site.happen(version="1\u2028\r\n")
    assert site.tell().hooks[0].errors == ()
    (request,) = server.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    expected = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", SECRET, "-binary"], input=signed, capture_output=True, check=True
    )
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected.stdout).decode()
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["content-type"] == "application/json"
    assert json.loads(request.body)["facts"]["version"] == "1\u2028\r\n"
    assert request.body.count(b"\n") == 1
    assert site.state("w").output == "status 200\nthanks"


def test_a_delivery_keeps_its_identifier_until_it_is_taken(site: Site, receiver: tuple[LoopbackServer, Path]) -> None:
    server, trusted = receiver
    web_hook(site, server, trusted)
    server.set("/hook", in_turn(status(500), serve(b"")))
    site.happen()
    assert site.tell().hooks[0].waiting == 1
    site.clock.advance(timedelta(minutes=5))
    assert site.tell().hooks[0].delivered == 1
    assert len({each.headers["webhook-id"] for each in server.requests}) == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_webhook_follows_no_redirect(site: Site, receiver: tuple[LoopbackServer, Path], code: int) -> None:
    server, trusted = receiver
    web_hook(site, server, trusted)
    server.set("/hook", redirect(server.url("/elsewhere"), code))
    server.set("/elsewhere", serve(b""))
    site.happen()
    (error,) = site.tell().errors
    assert "redirects" in error.message
    assert [each.path for each in server.requests] == ["/hook"]


def test_a_secret_that_cannot_be_read_costs_no_event(site: Site, receiver: tuple[LoopbackServer, Path]) -> None:
    server, trusted = receiver
    web_hook(site, server, trusted)
    (site.path / "secret").write_text("short\n")
    site.happen()
    (error,) = site.tell().errors
    assert "shorter" in error.message
    assert (server.requests, site.deliveries.of_event(1)) == ([], ())
    assert "short" not in json.dumps(error.context)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert key == base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = b"msg_1.1614265330." + b'{"test": 2432232314}'
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert sign(key, "msg_1", 1614265330, b'{"test": 2432232314}') == f"v1,{expected}"


def test_a_file_gets_one_line_an_event_and_may_be_moved_away_at_any_time(site: Site) -> None:
    lines = site.path / "lines"
    site.hooks(f'[hooks.f]\nkind = "file"\npath = "{lines}"\n')
    site.happen(text="a\nb\u2028\x1b[2J\r")
    site.tell()
    lines.rename(site.path / "lines.1")
    site.happen()
    site.tell()
    assert json.loads((site.path / "lines.1").read_text())["facts"]["text"] == "a\nb\u2028\x1b[2J\r"
    assert (site.path / "lines.1").read_bytes().count(b"\n") == 1
    assert (site.path / "lines.1").read_bytes().isascii()
    assert json.loads(lines.read_text())["number"] == 2


def test_half_a_line_of_a_killed_writer_spoils_no_other(site: Site) -> None:
    lines = site.path / "lines"
    lines.write_text('{"half": ')
    site.hooks(f'[hooks.f]\nkind = "file"\npath = "{lines}"\n')
    site.happen()
    site.tell()
    assert json.loads(lines.read_text().splitlines()[1])["number"] == 1


@pytest.mark.parametrize("odd", ["directory", "pipe", "missing folder"])
def test_a_file_that_cannot_be_written_is_an_error_of_its_hook(site: Site, odd: str) -> None:
    path = site.path / "lines"
    if odd == "directory":
        path.mkdir()
    elif odd == "pipe":
        os.mkfifo(path)
    else:
        path = path / "x" / "y"
    site.hooks(f'[hooks.f]\nkind = "file"\npath = "{path}"\n')
    site.happen()
    assert [each.code for each in site.tell().errors] == ["hook-failed"]


def test_a_full_disk_leaves_no_half_line(site: Site) -> None:
    lines = site.path / "lines"
    lines.write_text('{"first": 1}\n')
    program = textwrap.dedent(
        f"""
        import resource, signal
        from pathlib import Path
        from types import SimpleNamespace
        from coppice.errors import HookFailedError
        from coppice.events.line_file import LineFile
        from coppice.settings.model import HookSettings
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        hook = LineFile(HookSettings(name="f", kind="file", path=Path("{lines}")))
        try:
            hook.tell(SimpleNamespace(line=lambda: b"x" * 500 + b"\\n"))
        except HookFailedError as problem:
            print(problem.message)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert "cannot write" in done.stdout
    assert lines.read_text() == '{"first": 1}\n'


def test_only_events_of_the_chosen_subscriptions_and_kinds_are_told(site: Site) -> None:
    site.hooks(
        f"""
        [hooks.f]
        kind = "file"
        path = "{site.path}/lines"
        events = ["ImageCached", "CacheRunBegun"]
        subscriptions = ["egi"]
        """
    )
    site.happen("a", subscription="egi")
    site.happen("b", subscription="other")
    site.happen("c")
    site.happen("d", kind=EventKind.IMAGE_REMOVED, subscription="egi")
    site.journal.record(EventKind.CACHE_RUN_BEGUN, subject="cache", facts={"session": "s"}, at=site.clock.now())
    site.tell()
    told = [json.loads(line)["number"] for line in (site.path / "lines").read_text().splitlines()]
    assert told == [1, 5]


TELLER = """
from pathlib import Path
from coppice.clock import SystemClock
from coppice.database import Database
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.workflows.tell import tell
file = Path("{path}/coppice.toml")
settings = load_settings(config=file, environ={{}}, options={{}}, system_file=file)
tell(settings, Database(settings.database_url), SystemClock(), SILENT)
"""


@pytest.mark.threat("T79")
def test_a_run_that_is_killed_at_any_time_delivers_everything_at_least_once_and_in_order(site: Site) -> None:
    script = site.program("hook", f"cat >> {site.path}/got; sleep 0.05")
    site.hooks(f'[hooks.h]\nkind = "program"\ncommand = ["{script}"]\n')
    for _ in range(30):
        site.happen()
    kills = 0
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", TELLER.format(path=site.path)])
        before = (site.path / "got").read_bytes().count(b"\n") if (site.path / "got").exists() else 0
        wait_until(
            lambda before=before, child=child: (
                child.poll() is not None
                or ((site.path / "got").exists() and (site.path / "got").read_bytes().count(b"\n") >= before + 2)
            )
        )
        kills += child.poll() is None
        child.kill()
        child.wait()
    site.clock.advance(SystemClock().now() - site.clock.now() + timedelta(days=1))
    site.tell()
    assert kills >= 3
    told = [json.loads(line)["number"] for line in (site.path / "got").read_text().splitlines()]
    assert [number for at, number in enumerate(told) if number not in told[:at]] == list(range(1, 31))
    assert told == sorted(told)
    assert len(told) <= 30 + kills
    assert all(site.state("h", number).state is DeliveryState.DELIVERED for number in range(1, 31))


@pytest.mark.threat("T84")
def test_several_runs_at_once_tell_each_event_once(site: Site) -> None:
    script = site.program("hook", f"cat >> {site.path}/got; sleep 0.05")
    site.hooks(f'[hooks.h]\nkind = "program"\ncommand = ["{script}"]\n')
    for count in range(20):
        site.happen(f"{count}")
    children = [subprocess.Popen([sys.executable, "-c", TELLER.format(path=site.path)]) for _ in range(4)]
    assert [child.wait(timeout=100) for child in children] == [0, 0, 0, 0]
    told = [json.loads(line)["number"] for line in (site.path / "got").read_text().splitlines()]
    assert told == list(range(1, 21))


def test_a_hook_that_is_told_by_another_run_is_not_waited_for(site: Site) -> None:
    site.hooks(f'[hooks.f]\nkind = "file"\npath = "{site.path}/lines"\n')
    site.happen()
    lock = site.path / "state" / "locks" / "hook-f.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert site.tell().hooks[0].busy
    assert site.tell().hooks[0].delivered == 1


@pytest.mark.threat("T82")
def test_an_interrupted_run_ends_its_hooks_soon_and_tells_them_again(site: Site) -> None:
    script = site.program("hook", f"echo $$ > {site.path}/pid; sleep 300")
    site.hooks(
        f"""
        [hooks.a]
        kind = "program"
        command = ["{script}"]
        [hooks.b]
        kind = "file"
        path = "{site.path}/lines"
        """
    )
    site.happen()

    def interrupt() -> None:
        wait_until(lambda: (site.path / "pid").exists() and (site.path / "pid").read_text().strip())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        site.tell()
    assert time.monotonic() - started < 30
    wait_until(lambda: not alive(int((site.path / "pid").read_text())))
    assert site.state("a").state is DeliveryState.WAITING
    site.settings = replace(site.settings, hooks={"a": replace(site.settings.hooks["a"], command=("true",))})
    assert site.tell().hooks[0].delivered == 1
