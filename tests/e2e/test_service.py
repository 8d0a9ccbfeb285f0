# SPDX-License-Identifier: Apache-2.0
"""``coppice run`` with real jobs: what fails, hangs or is killed is one run of one job, and the service goes on."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coppice.database import Database
from coppice.schedule.model import Ended, Outcome
from coppice.schedule.records import JobRecords
from coppice.testing.server import serve
from coppice.testing.service import RunningService, is_running, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SERVICE = """
[service]
listen = "127.0.0.1:0"
sync_seconds = {sync}
retire_seconds = 3600
prune_seconds = 86400
jitter = 0
stop_seconds = {stop}
"""


def settle(site, *, sync=1.0, stop=15, more=""):
    """Give the site's settings what the service reads; what else than sync would be due at once was done just now."""
    if not hasattr(site, "bare"):
        site.bare = site.settings.read_text()
    site.settings.write_text(site.bare + SERVICE.format(sync=sync, stop=stop) + more)
    with closing(Database(f"sqlite:///{site.state}/coppice.sqlite")) as database:
        for name in ("retire", "prune"):
            records, now = JobRecords(database), datetime.now(UTC)
            records.begin(name, now)
            records.end(name, Ended(outcome=Outcome.SUCCESS, exit_code=0), at=now, seconds=1.0)


def start(site, **environ):
    return RunningService(site.argv(), env=site.environment(environ), log=site.root / "service.log")


def hang(site):
    """Have the server begin to give the image of the next version, and go on only when it is released."""
    data = site.renewed
    name = site.first["hv:uri"].rpartition("/lists/")[2]
    site.held, site.released = [], False

    def behave(talk):
        talk.head(200, {"Content-Length": str(len(data))})
        talk.body(data[:100])
        site.held.append(talk)
        while not site.released and talk.pause(0.05):
            pass
        talk.body(data[100:])

    site.server.set(f"/lists/{name}", behave)

    def release():
        site.released = True
        site.server.set(f"/lists/{name}", serve(data))

    return release


@pytest.fixture
def waiting(site, kit, tmp_path):
    """Return a site whose next version is listed, and whose image does not come; and what lets it come."""
    site.renewed = kit.tiny_qcow2(tmp_path, seed=2)
    site.renew(site.first, site.renewed, "2")
    site.next_version()
    site.publish()
    return site, hang(site)


def test_what_a_publisher_lists_comes_by_itself_and_the_metrics_tell_of_it(site, kit, tmp_path):
    settle(site)
    with start(site) as service:
        service.wait_for(lambda: service.ended("sync", outcome="success"))
        site.renew(site.first, kit.tiny_qcow2(tmp_path, seed=2), "2")
        site.next_version()
        site.publish()
        service.wait_for(lambda: site.images(is_at_work=True).get(("Debian 12", "2")) == "available")
        service.wait_for(lambda: len(service.ended("sync", outcome="success")) > 1)
        assert service.ask("/healthz") == (200, "alive\n")
        assert service.reasons() == []

        def told():
            found = service.metrics()
            fetched = found["coppice_fetched_bytes_total", ()] > 0
            shown = [labels for name, labels in found if name == "coppice_image_info"]
            return found if fetched and shown and dict(shown[0])["version"] == "2" else None

        found = service.wait_for(told)
        assert found["coppice_ready", ()] == 1
        assert found["coppice_facts_readable", ()] == 1
        (behind,) = [value for (name, _), value in found.items() if name == "coppice_image_behind_seconds"]
        assert behind == 0
        assert found["coppice_list_state", (("state", "unchanged"), ("subscription", "demo"))] + found[
            "coppice_list_state", (("state", "fresh"), ("subscription", "demo"))
        ] == pytest.approx(1)
        assert found["coppice_cloud_up", (("cloud", "here"),)] == 1
        assert found["coppice_store_bytes", (("store", "cache"),)] > 0
        assert found["coppice_events_total", (("cloud", "here"), ("kind", "ImageRegistered"))] == 1
        assert service.stop() == 0
    assert service.records()[-1]["message"] == "the service has stopped"


@pytest.mark.threat("T82")
def test_a_job_that_is_killed_is_one_run_that_failed_and_the_next_goes_on(waiting):
    site, release = waiting
    told = site.root / "told"
    settle(site, more=f'[hooks.front]\nkind = "file"\npath = "{told}"\nevents = ["JobFailed", "JobRecovered"]\n')
    with start(site) as service:
        service.wait_for(lambda: site.held)
        (job,) = [each for each in service.children() if b"sync" in cmdline(each)]
        os.kill(job, signal.SIGKILL)
        (ended, *_) = service.wait_for(lambda: service.ended("sync"))
        assert (ended["level"], ended["fields"]["exit_code"]) == ("error", 137)
        assert ended["fields"]["error"] == "it was ended by SIGKILL"
        assert service.ask("/healthz")[0] == 200
        release()
        service.wait_for(lambda: service.ended("sync", outcome="success"))
        service.wait_for(lambda: told.exists() and "JobRecovered" in told.read_text())
        assert service.reasons() == []
        failures = service.metrics()["coppice_job_failures_total", (("job", "sync"),)]
        assert failures == 1
        assert service.stop() == 0
    assert site.images()["Debian 12", "2"] == "available"
    assert site.leftovers() == []


@pytest.mark.threat("T82")
def test_stopped_in_the_middle_of_a_job_it_leaves_nothing_running_and_goes_on_when_it_starts_again(waiting):
    site, release = waiting
    settle(site, sync=3600.0)
    with start(site) as service:
        service.wait_for(lambda: site.held)
        pids = service.descendants()
        assert service.stop() == 0
        assert service.ended("sync", outcome="stopped")
    assert not [pid for pid in pids if is_running(pid)]
    release()
    with start(site) as service:
        # It did not come to its end, and so it does not wait for its hour.
        service.wait_for(lambda: service.ended("sync", outcome="success"))
        assert service.stop() == 0
    assert site.images()["Debian 12", "2"] == "available"


@pytest.mark.threat("T79")
def test_a_service_that_is_killed_leaves_neither_a_job_nor_a_lock(waiting):
    site, release = waiting
    settle(site)
    with start(site) as service:
        service.wait_for(lambda: site.held)
        pids = service.descendants()
        service.kill()
        wait_for(lambda: not [pid for pid in pids if is_running(pid)])
    release()
    with start(site) as service:
        service.wait_for(lambda: service.ended("sync", outcome="success"))
        assert service.stop() == 0
    assert site.images()["Debian 12", "2"] == "available"


@pytest.mark.threat("T84")
def test_of_two_services_one_works_and_the_other_says_who(site):
    settle(site, sync=3600.0)
    with start(site) as service:
        service.wait_for(lambda: service.logged("job begins"))
        second = site.run("--json", "run")
        assert (second.code, second.codes) == (75, ["locked"])
        assert f"pid {service.pid}" in second.said["errors"][0]["message"]
        assert service.stop() == 0


def test_settings_are_read_anew_and_wrong_ones_do_no_harm(site):
    settle(site, sync=3600.0)
    with start(site) as service:
        service.wait_for(lambda: service.ended("sync"))
        port = service.port
        site.settings.write_text("this is [ no TOML")
        service.tell(signal.SIGHUP)
        service.wait_for(lambda: service.reasons() == ["settings: settings-invalid"])
        assert service.metrics()["coppice_settings_valid", ()] == 0
        settle(site, sync=3600.0, more=f'state_directory_is_elsewhere = "{site.root}"\n')
        service.tell(signal.SIGHUP)
        service.wait_for(
            lambda: len(service.logged("the settings could not be read anew; those from before count")) == 2
        )
        elsewhere = site.settings.read_text().partition("state_directory_is")[0].replace("/state", "/other")
        site.settings.write_text(elsewhere)
        service.tell(signal.SIGHUP)
        service.wait_for(
            lambda: len(service.logged("the settings could not be read anew; those from before count")) == 3
        )
        settle(site, sync=1.0)
        service.tell(signal.SIGHUP)
        service.wait_for(lambda: len(service.ended("sync")) > 2)
        assert service.reasons() == []
        assert service.port == port
        assert service.stop() == 0


def test_it_needs_no_network_to_start_and_a_source_that_is_gone_is_told_of(site):
    settle(site)
    site.server.set("/lists/demo.list", lambda talk: talk.head(503, {}))
    with start(site) as service:
        service.wait_for(lambda: service.ended("sync"))
        wait_for(
            lambda: service.metrics().get(("coppice_list_state", (("state", "failed"), ("subscription", "demo")))) == 1
        )
        assert service.ask("/healthz")[0] == 200
        assert site.images() == {("Debian 12", "1"): "available"}
        assert service.stop() == 0


def test_systemd_hears_of_it_and_its_jobs_do_not_answer_in_its_name(waiting, tmp_path):
    site, release = waiting
    settle(site)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        watched = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        with start(site, **watched) as service:
            assert manager.recv(999).startswith(b"READY=1\nSTATUS=jobs: sync, retire, prune")
            assert manager.recv(999) == b"WATCHDOG=1"
            service.wait_for(lambda: site.held)
            for child in service.children():
                assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
            release()
            assert service.stop() == 0
        heard = []
        while not heard or not heard[-1].startswith(b"STOPPING=1"):
            heard.append(manager.recv(999))
        assert set(heard[:-1]) <= {b"WATCHDOG=1"}


@pytest.mark.threat("T93")
@pytest.mark.threat("T94")
def test_without_a_home_and_with_secrets_in_its_environment_it_works_and_tells_none(waiting):
    site, release = waiting
    # Nobody is there to hear it: that it fails is told, too.
    hook = '[hooks.web]\nkind = "webhook"\nurl = "https://127.0.0.1:1/hook"\nsecret_env = "FRONT_KEY"\n'
    settle(site, more=hook)
    env = {"PATH": os.environ["PATH"], "FRONT_KEY": "canary-4711"}
    with RunningService(site.argv(), env=env, log=site.root / "service.log") as service:
        service.wait_for(lambda: site.held)
        assert not [each for each in (service.pid, *service.descendants()) if b"canary" in cmdline(each)]
        release()
        service.wait_for(lambda: service.ended("sync"))
        pages = "".join(service.ask(path)[1] for path in ("/metrics", "/readyz", "/"))
        assert service.stop() == 0
    kept = b"".join(path.read_bytes() for path in site.state.rglob("*") if path.is_file())
    assert b"canary" not in kept
    assert "canary" not in pages + (site.root / "service.log").read_text()


def test_every_job_can_be_run_once_by_hand(site, kit):
    settle(site)
    done = site.ok("run", "--once")
    assert [(each["job"], each["outcome"]) for each in done["jobs"]] == [
        (name, "success") for name in ("sync", "retire", "prune")
    ]
    planned = {each["job"]: each for each in site.ok("run", "--dry-run")["jobs"]}
    assert planned["retire"]["last"]["runs"] == 2
    assert planned["retire"]["next_at"] > planned["retire"]["last"]["ended_at"]
    site.server.set("/lists/demo.list", lambda talk: talk.head(503, {}))
    failed = site.run("--json", "run", "--once", "--job", "sync")
    assert (failed.code, failed.said["data"]["jobs"][0]["job"]) == (1, "sync")


@pytest.mark.parametrize("words", [("--job", "sync"), ("--once", "--job", "tell")])
def test_what_is_no_job_here_is_a_mistake_of_the_command_line(site, words):
    ended = site.run("--json", "run", *words)
    assert (ended.code, ended.codes) == (2, ["usage"])


@pytest.mark.parametrize(("listen", "code"), [("everywhere", "settings-invalid"), ("127.0.0.1:{taken}", "machine")])
def test_where_it_cannot_listen_it_does_not_begin(site, listen, code, server):
    taken = server.url("/").rpartition(":")[2].rstrip("/")
    settle(site)
    text = site.settings.read_text().replace("127.0.0.1:0", listen.format(taken=taken))
    site.settings.write_text(text)
    ended = site.run("--json", "run")
    assert ended.codes == [code]


@pytest.mark.threat("T85")
def test_with_a_damaged_database_it_does_not_begin_and_leaves_all_as_it_is(site):
    settle(site)
    before = registered(site)
    (site.state / "coppice.sqlite").write_bytes(b"not a database" * 500)
    ended = site.run("--json", "run")
    assert (ended.code, ended.codes) == (10, ["database-failed"])
    assert registered(site) == before


def registered(site):
    return sorted(str(path) for path in site.cloud.rglob("*"))


def test_a_look_at_what_would_run_makes_nothing(tmp_path, kit):
    line = kit.CommandLine(tmp_path / "new", f'state_directory = "{tmp_path}/state"\n')
    found = line.ok("run", "--dry-run")
    assert [each["last"] for each in found["jobs"]] == [None, None, None]
    assert not (tmp_path / "state").exists()


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
