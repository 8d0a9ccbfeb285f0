# SPDX-License-Identifier: Apache-2.0
"""Builds on a Dask cluster of two workers on loopback, each a process of its own; the builder is a stand-in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from coppice.cli.main import main
from coppice.clock import SystemClock
from coppice.database import Database
from coppice.definition.read import find_definition
from coppice.errors import BuildError, ClusterError, InterruptedRunError
from coppice.events.journal import Journal
from coppice.execution.cluster import opened_cluster
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.settings.model import ClusterSettings
from coppice.testing.cluster import LocalCluster
from coppice.testing.desk import Desk
from coppice.testing.openpgp import GnuPg
from coppice.testing.repository import PackageMirror
from coppice.workflows.add import add_build
from coppice.workflows.build import build_appliances
from coppice.workflows.cluster_build import on_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# What workers import: a builder, stand-ins for what looks at real disks, and work that goes wrong.
STAND_INS = """
import json, os, signal, time
from datetime import UTC, datetime
from pathlib import Path

from coppice.errors import BuildError
from coppice.factory import build as building
from coppice.factory.audit import AuditReport
from coppice.factory.evidence.inventory import Inventory
from coppice.factory.files import describe_image
from coppice.factory.model import BuilderOutput, BuiltImage, Outcome, Package, Verdict
from coppice.model.image import DiskFormat
from coppice.workflows import build as workflow

WHO = os.environ.get("WHO", "nobody")


def note(what, name):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps([what, name, WHO, os.getpid()]) + "\\n")


class StandIn:
    name = "stand-in"
    version = "1"

    def build(self, definition, into, options, monitor):
        note("built", definition.name)
        today = json.loads(os.environ.get("TODAY") and Path(os.environ["TODAY"]).read_text() or "{}")
        if "broken" in definition.packages or definition.name in today.get("broken", ()):
            (into / "build.log").write_text("what it said before the end")
            raise BuildError("it is broken", details="what it said before the end")
        died = Path(os.environ["NOTES"] + ".died")
        if "deadly" in definition.packages or ("frail" in definition.packages and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with monitor.task(f"building {definition.name}", total=2) as task:
            task.reach(1)
            upon = [each.images[0].path.read_bytes() for each in options.ancestors[:1]]
            if "slow" in definition.packages:
                time.sleep(1)
        path = into / f"{definition.name}.raw"
        installed = today.get("installed", {})
        said = "".join([definition.name, *installed.values()])
        path.write_bytes(b"".join(upon) + said.encode().ljust(512, b"."))
        (into / "build.log").write_text("well")
        return BuilderOutput(
            images=(describe_image(path, DiskFormat.RAW),),
            packages=tuple(Package(name=n, version=v, architecture="amd64") for n, v in installed.items()),
            tools=(),
            log=into / "build.log",
        )


def verdict(gate, image):
    now = datetime.now(UTC)
    digest = str(image.image.checksum)
    return Verdict(gate=gate, image_digest=digest, outcome=Outcome.PASSED, decided_at=now, seconds=0, facts=())


def boot(image, *, firmware, **_):
    note("booted", image.path.stem)
    return verdict(f"boot-{firmware}", image)


building.audit = lambda image, *_, **__: AuditReport(
    verdict=verdict("audit", image), inventory=Inventory({}), unused=()
)
workflow.boot_test = boot


def fail(*, monitor, stopped):
    raise BuildError("no", details="the end of its log", resolution="Mend it.")


def die(*, monitor, stopped):
    note("died", "die")
    os.kill(os.getpid(), signal.SIGKILL)


def wait(place, *, monitor, stopped):
    Path(place).touch()
    while not stopped():
        time.sleep(0.05)
    Path(place).unlink()
    return "stopped"


def who(*, monitor, stopped):
    return WHO
"""
DEFINITION = """
{parent}
[appliance]
title = "{name}"
description = "For a test."

[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"

[build]
builder = "stand-in"
disk-size = "1 GiB"
formats = ["raw"]
user = "debian"
firmware = ["bios"]
packages = [{packages}]
"""
CHILD = 'from = "{parent}"\n[appliance]\ntitle = "{name}"\ndescription = "A child."\n[build]\npackages = [{packages}]\n'
NEEDS = frozenset({"x86_64"})
GOING = {"monitor": SILENT, "stopped": lambda: False}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Return a directory from which the stand-ins are imported, and found as a plug-in."""
    place = tmp_path_factory.mktemp("modules")
    (place / "cluster_stand_ins.py").write_text(STAND_INS)
    about = place / "cluster_stand_ins-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cluster-stand-ins\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[coppice.builders]\nstand-in = cluster_stand_ins:StandIn\n")
    return place


@pytest.fixture(scope="module")
def cluster(modules, tmp_path_factory):
    place = tmp_path_factory.mktemp("cluster")
    notes = place / "notes"
    notes.touch()
    with LocalCluster(place / "cluster", path=[modules], preload=["cluster_stand_ins"]) as started:
        started.notes, started.today = notes, place / "today.json"
        started.today.write_text("{}")
        shared = {"NOTES": str(notes), "TODAY": str(started.today)}
        started.worker("first", {"x86_64": 2}, extra={**shared, "WHO": "first"})
        started.worker("second", {"x86_64": 1, "kvm": 1}, extra={**shared, "WHO": "second"})
        started.wait_for_workers("first", "second")
        yield started


@pytest.fixture
def stand_ins(modules, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setenv("NOTES", str(tmp_path / "own-notes"))
    from coppice.factory import build as building
    from coppice.workflows import build as workflow

    # Importing them puts them in place here as well; that ends with the test.
    monkeypatch.setattr(building, "audit", building.audit)
    monkeypatch.setattr(workflow, "boot_test", workflow.boot_test)
    import cluster_stand_ins

    return cluster_stand_ins


def with_modules(modules):
    return os.pathsep.join(filter(None, [str(modules), os.environ.get("PYTHONPATH")]))


def noted(cluster):
    return [tuple(json.loads(line)) for line in cluster.notes.read_text().splitlines()]


def define(place, name, *packages, parent=None):
    folder = place / "definitions" / name
    folder.mkdir(parents=True)
    text = CHILD if parent else DEFINITION
    listed = ", ".join(f'"{each}"' for each in packages)
    (folder / "appliance.toml").write_text(text.format(name=name, parent=parent or "", packages=listed))


def site(place, cluster, **settings):
    file = place / "coppice.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"scheduler": cluster.address, **settings}.items()]
    file.write_text(
        f'state_directory = "{place}/state"\ndefinitions_directory = "{place}/definitions"\n[cluster]\n'
        + "\n".join(lines)
    )
    return file


def command(place, cluster, modules, *words):
    file = site(place, cluster)
    environment = {
        **os.environ,
        "PYTHONPATH": with_modules(modules),
        "NOTES": str(place / "own-notes"),
        "HOME": str(place),
    }
    argv = [sys.executable, "-m", "coppice", "--config", str(file), "--json", "build", *words, "--on", "cluster"]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_four_builds_run_on_two_workers_and_one_failure_stops_only_its_children(cluster, modules, tmp_path):
    define(tmp_path, "base", "slow")
    define(tmp_path, "other", "slow")
    define(tmp_path, "third", "slow")
    define(tmp_path, "web", parent="base")
    define(tmp_path, "bad", "broken")
    define(tmp_path, "of-bad", parent="bad")
    done = command(tmp_path, cluster, modules, "base", "other", "third", "web", "bad", "of-bad")
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    builds = {each["definition"]: each for each in said["data"]["builds"]}
    made = {name for name, each in builds.items() if "key" in each}
    assert made == {"base", "other", "third", "web"}, said["errors"]
    # Its log is here, as if it had been built here.
    error = builds["bad"]["error"]
    assert error is not None, said["errors"]
    assert (error["message"], builds["of-bad"]["kept_by"]) == ("it is broken", "bad")
    log = Path(error["details"].rpartition("The whole log: ")[2])
    assert log.read_text() == "what it said before the end"
    assert {who for what, _, who, _ in noted(cluster) if what == "built"} == {"first", "second"}
    # Whoever has KVM boots.
    assert {(name, who) for what, name, who, _ in noted(cluster) if what == "booted"} == {(n, "second") for n in made}
    gates = {each["gate"] for each in builds["web"]["verdicts"]}
    assert gates == {"audit", "boot-bios"}
    # The child was built upon what another process made, and everything is where this machine looks for it.
    web = Path(builds["web"]["images"][0]["path"]).read_bytes()
    assert web == b"base".ljust(512, b".") + b"web".ljust(512, b".")
    assert list((tmp_path / "state" / "factory" / "cluster").iterdir()) == []


def test_errors_come_back_whole_and_nobody_is_waited_for_who_is_not_there(cluster, stand_ins, tmp_path):
    with opened_cluster(ClusterSettings(scheduler=cluster.address), shared=tmp_path) as opened:
        assert opened.capacity() == 3
        with pytest.raises(BuildError, match="no") as caught:
            opened.do(stand_ins.fail, name="it", needs=NEEDS, **GOING)
        assert (caught.value.details, caught.value.resolution) == ("the end of its log", "Mend it.")
        assert opened.do(stand_ins.who, name="it", needs=NEEDS | {"kvm"}, **GOING) == "second"
        with pytest.raises(ClusterError, match="needs aarch64") as nobody:
            opened.do(stand_ins.who, name="it", needs=frozenset({"aarch64"}), **GOING)
        assert '--resources "aarch64=1"' in nobody.value.resolution


def test_what_is_stopped_ends_on_its_worker_before_the_run_does(cluster, stand_ins, tmp_path):
    begun, stop = tmp_path / "begun", threading.Event()
    seen = []

    def stopped():
        if begun.exists():
            seen.append(True)
            stop.set()
        return stop.is_set()

    with opened_cluster(ClusterSettings(scheduler=cluster.address), shared=tmp_path) as opened:
        with pytest.raises(InterruptedRunError):
            opened.do(stand_ins.wait, str(begun), name="it", needs=NEEDS, monitor=SILENT, stopped=stopped)
        assert seen
        assert not begun.exists()


def test_what_is_under_way_ends_when_whoever_asked_is_killed(cluster, modules, tmp_path):
    begun = tmp_path / "begun"
    code = (
        "import sys; from pathlib import Path; from coppice.settings.model import ClusterSettings\n"
        "from coppice.execution.cluster import opened_cluster; from coppice.monitor import SILENT\n"
        "import cluster_stand_ins\n"
        "with opened_cluster(ClusterSettings(scheduler=sys.argv[1]), shared=Path(sys.argv[2])) as opened:\n"
        "    opened.do(cluster_stand_ins.wait, sys.argv[3], name='it', needs=frozenset({'x86_64'}), monitor=SILENT,"
        " stopped=lambda: False)\n"
    )
    environment = {**os.environ, "PYTHONPATH": with_modules(modules), "NOTES": str(tmp_path / "own-notes")}
    argv = [sys.executable, "-c", code, cluster.address, str(tmp_path), str(begun)]
    with subprocess.Popen(argv, env=environment) as asking:
        wait_until(begun.exists)
        asking.send_signal(signal.SIGKILL)
    wait_until(lambda: not begun.exists())
    # What it left is swept by the next run.
    with opened_cluster(ClusterSettings(scheduler=cluster.address), shared=tmp_path):
        assert len(list((tmp_path / "cluster").iterdir())) == 1


def test_workers_that_do_not_do_are_refused_before_anything_begins(cluster, tmp_path, monkeypatch):
    from coppice.execution import cluster as clusters

    monkeypatch.setattr(clusters, "code_version", lambda: "0.0.9 (feedfeedfeed), Python 3.11")
    with (
        pytest.raises(ClusterError, match="2 of 2 workers") as caught,
        opened_cluster(ClusterSettings(scheduler=cluster.address), shared=tmp_path),
    ):
        pass
    assert "and not 0.0.9 (feedfeedfeed)" in caught.value.details


def test_a_scheduler_that_is_not_there_is_a_clear_error(tmp_path):
    settings = ClusterSettings(scheduler="tcp://127.0.0.1:1", connect_timeout_seconds=0.5)
    with (
        pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:1 cannot be reached"),
        opened_cluster(settings, shared=tmp_path),
    ):
        pass


SITE = """
[factory]
mirror = "{mirror.uri}"
keyring = "{mirror.keyring}"
builds_on = "cluster"
[cluster]
scheduler = "{cluster.address}"
"""
FIRST, SECOND = "3.0.1-1", "3.0.1-1+deb12u1"


@pytest.fixture
def desk(cluster, stand_ins, tmp_path):
    """Return a publisher whose appliances, of which one is in a list, were built on the cluster, and their mirror."""
    with GnuPg() as gnupg:
        mirror = PackageMirror(tmp_path / "mirror", gnupg, gnupg.make_key("Archive"))
        mirror.main.add("openssl", FIRST)
        mirror.publish()
        desk = Desk(tmp_path / "desk")
        file = desk.root / "coppice.toml"
        said = file.read_text() + SITE.format(mirror=mirror, cluster=cluster)
        file.write_text(f'definitions_directory = "{tmp_path}/definitions"\n{said}')
        desk.settings = load_settings(config=file, environ={"HOME": str(tmp_path)}, options={})
        find = lambda name: find_definition((tmp_path / "definitions",), name)  # noqa: E731 - as short as it is
        cluster.today.write_text(json.dumps({"installed": {"openssl": FIRST}}))
        where = {"settings": desk.settings, "database": desk.database, "clock": desk.clock}
        desk.create()
        for name, parent in (("base", None), ("web", "base"), ("other", None), ("of-other", "other")):
            define(tmp_path, name, parent=parent)
        wanted = [find(name) for name in ("base", "web", "other", "of-other")]
        with on_cluster(desk.settings) as place:
            ended = build_appliances(wanted, **where, monitor=SILENT, find=find, place=place)
        for each in ended:
            add_build(each.result, **where, name=each.name)
            desk.selections.select("general", each.name)
        desk.publish()
        yield desk, mirror
        desk.close()


def test_the_service_has_the_workers_rebuild_what_is_stale_and_publishes_it_itself(
    cluster, modules, desk, capsys, monkeypatch
):
    desk, mirror = desk
    before = desk.listed()
    mirror.security.add("openssl", SECOND)
    mirror.security.publish()
    cluster.today.write_text(json.dumps({"installed": {"openssl": SECOND}, "broken": ["other"]}))
    begun = len(noted(cluster))
    coppice = ["--config", str(desk.root / "coppice.toml"), "--json"]
    assert main([*coppice, "rebuild", "--dry-run"]) == 0
    decided = {
        each["appliance"]: each["decision"] for each in json.loads(capsys.readouterr().out)["data"]["appliances"]
    }
    assert decided == dict.fromkeys(("base", "of-other", "other", "web"), "rebuild")
    assert len(noted(cluster)) == begun
    monkeypatch.setenv("PYTHONPATH", with_modules(modules))
    assert main([*coppice, "run", "--once", "--job", "rebuild"]) == 1
    done = noted(cluster)[begun:]
    # What failed was not booted, and what is built upon it not even begun; nothing was done but by workers.
    assert sorted(name for what, name, *_ in done if what == "built") == ["base", "other", "web"]
    assert [name for what, name, *_ in done if what == "built" and name in {"base", "web"}] == ["base", "web"]
    assert {(name, who) for what, name, who, _ in done if what == "booted"} == {("base", "second"), ("web", "second")}
    after = desk.listed()
    assert {name for name in after if after[name] != before[name]} == {"base", "web"}
    told = [(str(event.kind), event.subject) for event in Journal(desk.database).events()]
    assert ("ApplianceRebuildFailed", "other") in told
    # The next run does what is left: the one that failed waits, and its child is built upon what is there.
    capsys.readouterr()
    assert main([*coppice, "rebuild", "--at-once", "1"]) == 0
    assert [each["appliance"] for each in json.loads(capsys.readouterr().out)["data"]["rebuilt"]] == ["of-other"]


def test_a_worker_that_dies_has_its_build_tried_once_more_and_the_journal_is_written_here(cluster, stand_ins, tmp_path):
    # The last of this module: it leaves no worker.
    define(tmp_path, "frail", "frail")
    define(tmp_path, "deadly", "deadly")
    settings = load_settings(config=site(tmp_path, cluster, lost_seconds=1), environ={"HOME": "/"}, options={})
    find = lambda name: find_definition((tmp_path / "definitions",), name)  # noqa: E731 - as short as it is
    database = Database(settings.database_url)
    going = {"settings": settings, "database": database, "clock": SystemClock(), "monitor": SILENT, "find": find}
    with on_cluster(settings) as place:
        ended = build_appliances([find("frail")], **going, place=place, at_once=place.at_once)
        assert ended[0].is_done
        tries = [who for what, name, who, _ in noted(cluster) if (what, name) == ("built", "frail")]
        assert sorted(tries) == ["first", "second"]
        cluster.worker("third", {"x86_64": 1}, extra={"NOTES": str(cluster.notes), "WHO": "third"})
        cluster.wait_for_workers("third")
        ended = build_appliances([find("deadly")], **going, place=place, at_once=place.at_once)
        assert isinstance(ended[0].error, ClusterError)
        assert "begun 2 times" in ended[0].error.message
        assert len([name for what, name, *_ in noted(cluster) if (what, name) == ("built", "deadly")]) == 2
    told = [event.subject for event in Journal(database).events()]
    assert told == ["frail"]
    database.close()


def wait_until(what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
