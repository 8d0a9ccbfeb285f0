# SPDX-License-Identifier: Apache-2.0
"""Appliances that keep fresh by themselves: real mirror, catalogue and publisher; builder and guest stand in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.endorsers import Endorsers
from coppice.cli.build import definition_finder
from coppice.cli.context import Context
from coppice.cli.main import main
from coppice.database import Database
from coppice.definition.model import Definition, RebuildPolicy
from coppice.errors import BootTestError, BuildError, ClusterError, LockedError, NotFoundError, UntrustedSignerError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.execution.model import ENDED_WORKERS
from coppice.factory import build as factory_building
from coppice.factory import builders
from coppice.factory.audit import AuditReport
from coppice.factory.evidence.inventory import Inventory
from coppice.factory.model import BuilderOutput, BuiltImage, Outcome, Package, Verdict
from coppice.factory.staleness import Choice, Trigger
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements
from coppice.monitor import SILENT
from coppice.schedule.lock import run_lock
from coppice.subscription.model import PinnedEndorser
from coppice.testing.desk import Desk
from coppice.testing.libvirt_stand import bootable
from coppice.testing.openpgp import GnuPg
from coppice.testing.repository import PackageMirror
from coppice.testing.site_world import World
from coppice.testing.used_clouds import UsedDirectory
from coppice.workflows import build as building
from coppice.workflows import rebuild as rebuilding
from coppice.workflows.add import add_build
from coppice.workflows.build import Here, build_appliance
from coppice.workflows.rebuild import LOCK, rebuild
from coppice.workflows.staleness import Appraiser

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)
FIRST = {"openssl": "3.0.1-1", "jq": "1.6-2"}


@pytest.fixture(scope="module")
def gnupg():
    with GnuPg() as found:
        yield found


@pytest.fixture(scope="module")
def mirror_once(gnupg, tmp_path_factory):
    mirror = PackageMirror(tmp_path_factory.mktemp("mirror"), gnupg, gnupg.make_key("Archive"))
    for name, version in FIRST.items():
        mirror.main.add(name, version)
    mirror.publish()
    return mirror


def definition(name, parent=None, **other):
    said = {
        "title": name.title(),
        "description": "For a test.",
        "groups": (),
        "operating_system": OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        "suite": "bookworm",
        "builder": "stand-in",
        "packages": (),
        "disk_size_bytes": 1 << 30,
        "firmware": (Firmware.BIOS,),
        "formats": (DiskFormat.RAW,),
        "user": "debian",
        "requirements": Requirements(),
        "parent": parent,
    }
    return Definition(name=name, path=Path(f"/definitions/{name}/appliance.toml"), **{**said, **other})


class StandIn:
    """A builder whose image says what went into it: the definition, its parent's image, the packages of the day."""

    name = "stand-in"
    version = "1"
    installed: dict[str, str]
    built: list[str]
    broken: set[str]

    def build(self, wanted, into, options, monitor):
        self.built.append(wanted.name)
        if wanted.name in self.broken:
            raise BuildError(f"{wanted.name} is broken")
        parent = [str(each.images[0].image.checksum) for each in options.ancestors]
        said = [wanted.name, parent, self.installed, wanted.packages]
        content = json.dumps(said).encode()
        [disk_format] = wanted.formats
        content = bootable(content) if disk_format is DiskFormat.QCOW2 else content
        path = into / f"{wanted.name}.{disk_format}"
        path.write_bytes(content)
        size, checksum = len(content), Checksum.of(content)
        image = Image(format=disk_format, size_bytes=size, virtual_size_bytes=size, checksum=checksum)
        packages = tuple(
            Package(name=each, version=self.installed[each], architecture="amd64") for each in self.installed
        )
        return BuilderOutput(images=(BuiltImage(path=path, image=image),), packages=packages, tools=())


class Point:
    """The entry point of the builder that stands in."""

    name = StandIn.name
    value = "tests:StandIn"

    def load(self):
        return StandIn


def passed(gate, image, clock):
    digest = str(image.image.checksum)
    return Verdict(gate=gate, image_digest=digest, outcome=Outcome.PASSED, decided_at=clock.now(), seconds=1, facts=())


class Site:
    """A publisher with a mirror, whose appliances are built by the stand-in."""

    def __init__(self, root, mirror) -> None:
        self.mirror = mirror
        self.desk = Desk(root / "desk")
        factory = replace(self.desk.settings.factory, mirror=mirror.uri, keyring=str(mirror.keyring))
        self.desk.settings = replace(self.desk.settings, factory=factory)
        self.definitions = {
            "base": definition("base"),
            "web": definition("web", "base"),
            "other": definition("other"),
        }
        self.no_boot: set[str] = set()

    @property
    def where(self):
        desk = self.desk
        return {"settings": desk.settings, "database": desk.database, "clock": desk.clock, "monitor": SILENT}

    def find(self, name):
        try:
            return self.definitions[name]
        except KeyError:
            raise NotFoundError(f"no definition named {name!r}") from None

    def boot(self, image, *, firmware, clock, **_):
        name = image.path.stem
        if name in self.no_boot:
            raise BootTestError(f"{name} does not boot")
        return passed(f"boot-{firmware}", image, clock)

    def add(self, *names, publish=True, **options):
        """Build appliances, add them, and publish the list that carries them."""
        if not self.desk.selections.all():
            self.desk.create()
        for name in names:
            add_build(
                build_appliance(self.definitions[name], **self.where, find=self.find),
                **{each: self.where[each] for each in ("settings", "database", "clock")},
                **options,
            )
            self.desk.selections.select("general", name)
        if publish:
            self.desk.publish()
        StandIn.built.clear()

    def update(self, name, version, suite="security"):
        """Put an update into the mirror; images that are built from now on have it."""
        there = getattr(self.mirror, suite)
        there.add(name, version)
        # Its index must be newer than the one that was seen.
        there.publish(at=self.desk.clock.now())
        StandIn.installed[name] = version

    def rebuild(self, *names, **options):
        return rebuild(names, **self.where, find=self.find, **options)

    def choices(self):
        appraiser = Appraiser(**self.where, find=self.find)
        return {each.name: each.decision.choice for each in appraiser.appraise()}

    def versions(self, name):
        return [each.version for each in Catalogue(self.desk.database).versions(name)]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    file = tmp_path_factory.mktemp("database") / "coppice.sqlite"
    Database(f"sqlite:///{file}").close()
    return file


@pytest.fixture
def site(mirror_once, empty_database, tmp_path, monkeypatch):
    state = tmp_path / "desk" / "state"
    state.mkdir(parents=True)
    shutil.copyfile(empty_database, state / "coppice.sqlite")
    site = Site(tmp_path, mirror_once.copy(tmp_path / "mirror"))
    monkeypatch.setattr(StandIn, "installed", dict(FIRST), raising=False)
    monkeypatch.setattr(StandIn, "built", [], raising=False)
    monkeypatch.setattr(StandIn, "broken", set(), raising=False)
    monkeypatch.setattr(builders, "_installed", lambda: [Point()])
    monkeypatch.setattr(
        factory_building,
        "audit",
        lambda image, _definition, *, clock, **_: AuditReport(
            verdict=passed("audit", image, clock), inventory=Inventory({}), unused=()
        ),
    )
    monkeypatch.setattr(building, "boot_test", site.boot)
    yield site
    site.desk.close()


def test_what_has_no_updates_is_fresh_and_is_left_alone(site):
    site.add("base", "web", "other")
    report = site.rebuild()
    assert {each.name: each.decision.choice for each in report.appraisals} == dict.fromkeys(
        ("base", "other", "web"), Choice.FRESH
    )
    assert (report.ended, report.errors, StandIn.built) == ((), (), [])


def test_a_security_update_is_noticed_built_tested_and_published_the_children_after_their_parent(site):
    site.add("base", "web")
    before = site.desk.listed()
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    looked = site.rebuild(dry_run=True)
    assert StandIn.built == []
    assert [each.decision.triggers for each in looked.appraisals] == [(Trigger.SECURITY,), (Trigger.SECURITY,)]
    assert "openssl" in looked.appraisals[0].decision.reasons[0]
    report = site.rebuild()
    assert StandIn.built == ["base", "web"]
    assert all(each.is_done and each.result.is_new for each in report.ended)
    after = site.desk.listed()
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after)
    assert [each.publication.list_uri for each in report.published.lists]
    assert site.rebuild().ended == ()
    assert set(site.choices().values()) == {Choice.FRESH}


def test_other_updates_wait_for_the_interval(site):
    site.add("base")
    site.update("jq", "1.6-3", suite="updates")
    assert site.choices() == {"base": Choice.LATER}
    assert site.rebuild().ended == ()
    site.desk.clock.advance(7 * DAY)
    [ended] = site.rebuild().ended
    assert ended.result.is_new


def test_what_does_not_boot_is_not_published_and_is_tried_again_later(site):
    site.add("base", "other")
    before = site.desk.listed()
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    site.no_boot = {"base"}
    report = site.rebuild()
    assert [type(problem) for problem in report.errors] == [BootTestError]
    assert site.desk.listed()["Base"] == before["Base"]
    assert site.desk.listed()["Other"] != before["Other"]
    told = [each for each in Journal(site.desk.database).events() if each.kind is EventKind.APPLIANCE_REBUILD_FAILED]
    assert [(each.subject, each.facts["code"], each.facts["tries"]) for each in told] == [
        ("base", "boot-test-failed", 1)
    ]
    assert site.choices() == {"base": Choice.LATER, "other": Choice.FRESH}
    assert site.rebuild().ended == ()
    site.no_boot = set()
    site.desk.clock.advance(timedelta(hours=1))
    StandIn.built.clear()
    [ended] = site.rebuild().ended
    # The build that failed its test is there, and has every update: it is tested again, not built again.
    assert StandIn.built == []
    assert ended.result.is_new
    assert site.desk.listed()["Base"] != before["Base"]


def test_a_parent_that_fails_keeps_its_children_back_and_nobody_else(site):
    site.add("base", "web", "other")
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    StandIn.broken = {"base"}
    ended = {each.name: each for each in site.rebuild().ended}
    assert ended["base"].error.message == "base is broken"
    assert ended["web"].kept_by == "base"
    assert ended["other"].result.is_new
    assert "web" not in StandIn.built


def test_nothing_is_built_upon_a_parent_that_does_not_boot(site):
    site.add("base", "web")
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    site.no_boot = {"base"}
    site.rebuild()
    StandIn.built.clear()
    assert site.choices() == {"base": Choice.LATER, "web": Choice.LATER}
    assert site.rebuild("web").ended == ()
    site.no_boot = set()
    site.desk.clock.advance(timedelta(hours=1))
    assert [each.name for each in site.rebuild().ended if each.result.is_new] == ["base", "web"]


def test_while_a_parent_cannot_be_built_a_child_is_built_upon_the_one_that_is_there(site):
    site.add("base", "web")
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    StandIn.broken = {"base"}
    site.rebuild()
    [ended] = site.rebuild().ended
    assert (ended.name, ended.result.is_new) == ("web", True)


def test_what_its_parent_has_become_makes_a_child_stale(site):
    site.add("base", "web")
    site.definitions["base"] = replace(site.definitions["base"], title="Base, better", packages=("jq",))
    build_appliance(site.definitions["base"], **site.where, find=site.find)
    appraiser = Appraiser(**site.where, find=site.find)
    base, web = appraiser.appraise()
    assert (base.decision.choice, base.decision.triggers) == (Choice.LATER, (Trigger.DEFINITION,))
    assert "packages, title" in base.decision.reasons[0]
    assert (web.decision.choice, web.decision.triggers) == (Choice.LATER, (Trigger.PARENT,))


@pytest.mark.threat("T35")
def test_an_index_that_cannot_be_believed_is_told_and_never_taken_for_fresh(site, gnupg):
    site.add("base")
    site.mirror.security.publish(key=gnupg.make_key("Mallory"))
    report = site.rebuild()
    assert [each.decision.choice for each in report.appraisals] == [Choice.UNKNOWN]
    assert [type(problem) for problem in report.errors] == [UntrustedSignerError]
    assert StandIn.built == []
    [partly] = [each.evidence for each in report.appraisals]
    assert partly.updates == ()
    shutil.rmtree(site.mirror.folder / "debian")
    assert site.choices() == {"base": Choice.UNKNOWN}
    [wholly] = [each.evidence for each in site.rebuild().appraisals]
    assert wholly.updates is None, "that there are none was not found out"


def test_what_is_known_of_one_repository_counts_though_another_is_silent(site):
    site.add("base")
    site.update("openssl", "3.0.1-1+deb12u1")
    shutil.rmtree(site.mirror.folder / "debian")
    [appraisal] = site.rebuild(dry_run=True).appraisals
    assert appraisal.decision.triggers == (Trigger.SECURITY,)
    assert appraisal.errors


@pytest.mark.threat("T79")
def test_a_run_that_ends_before_it_publishes_is_made_good_by_the_next(site, monkeypatch):
    site.add("base")
    before = site.desk.listed()
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")

    def killed(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rebuilding, "publish_rebuilt", killed)
        with pytest.raises(KeyboardInterrupt):
            site.rebuild()
    assert len(site.versions("base")) == 2
    assert site.desk.listed() == before
    StandIn.built.clear()
    report = site.rebuild()
    assert (report.ended, StandIn.built) == ((), [])
    assert len(report.published.lists) == 1
    assert site.desk.listed() != before
    assert site.rebuild().published.lists == ()


@pytest.mark.threat("T79")
def test_a_build_that_an_ended_run_left_is_taken_up(site, monkeypatch):
    site.add("base")
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")

    def killed(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rebuilding, "add_build", killed)
        with pytest.raises(KeyboardInterrupt):
            site.rebuild()
    assert StandIn.built == ["base"]
    [ended] = site.rebuild().ended
    assert StandIn.built == ["base"]
    assert ended.result.is_new


def test_the_same_bytes_are_endorsed_anew_when_their_end_nears(site):
    site.definitions["base"] = definition("base", validity_days=20, rebuild=RebuildPolicy(before_expiry_days=5))
    site.add("base", expires=site.desk.clock.now() + 20 * DAY)
    [before] = site.desk.read().images
    site.desk.clock.advance(14 * DAY)
    assert site.choices() == {"base": Choice.FRESH}
    site.desk.clock.advance(2 * DAY)
    [ended] = site.rebuild().ended
    assert not ended.result.is_new
    [after] = site.desk.read().images
    assert (after.version, after.expires > before.expires) == (before.version, True)
    assert site.choices() == {"base": Choice.FRESH}


def test_an_update_that_does_not_come_in_is_not_waited_for_again_and_again(site):
    site.add("base")
    site.update("openssl", "3.0.1-1+deb12u1")
    StandIn.installed["openssl"] = FIRST["openssl"]
    [ended] = site.rebuild().ended
    assert not ended.result.is_new
    assert site.choices() == {"base": Choice.LATER}
    assert site.rebuild().ended == ()


def test_nothing_is_built_for_what_has_ended(site):
    site.definitions["other"] = definition("other", end_of_life=date(2020, 1, 1))
    site.add("base", "other")
    site.update("openssl", "3.0.1-1+deb12u1")
    site.desk.appliances.discontinue("base", on=site.desk.clock.now() + 90 * DAY)
    report = site.rebuild(waits=False)
    assert {each.decision.choice for each in report.appraisals} == {Choice.NEVER}
    assert StandIn.built == []


def test_only_so_many_versions_stay_as_the_definition_says(site):
    site.definitions["base"] = definition("base", rebuild=RebuildPolicy(keep_versions=2))
    site.add("base")
    first = site.versions("base")[0]
    for number in (1, 2):
        site.desk.clock.advance(DAY)
        site.update("openssl", f"3.0.1-1+deb12u{number}")
        report = site.rebuild()
    assert len(site.versions("base")) == 2
    assert [each.version for each in report.published.deleted] == [first]
    assert [each.exists() for each in report.published.deleted[0].files] == [False]


def test_images_of_builds_that_others_have_followed_go_and_what_tells_of_them_stays(site):
    site.add("base", "web")
    builds = site.desk.settings.state_directory / "factory" / "builds"
    [first] = builds.glob("*/web.raw")
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    site.rebuild()
    assert len(list(builds.glob("*/web.raw"))) == 2
    site.desk.clock.advance(DAY)
    site.rebuild()
    assert not first.exists()
    assert (first.parent / "build.json").exists()
    assert len(list(builds.glob("*/web.raw"))) == len(list(builds.glob("*/base.raw"))) == 1
    StandIn.built.clear()
    assert build_appliance(site.definitions["web"], **site.where, find=site.find).reused
    assert set(site.choices().values()) == {Choice.FRESH}


def test_a_list_that_was_never_published_is_left_to_a_person(site):
    site.add("base", publish=False)
    site.update("openssl", "3.0.1-1+deb12u1")
    report = site.rebuild()
    assert report.published.lists == ()
    assert "imagelist publish general" in report.published.held[0]


def test_without_publishing_the_next_run_does_it(site):
    site.add("base")
    site.update("openssl", "3.0.1-1+deb12u1")
    before = site.desk.listed()
    assert site.rebuild(publish=False).published is None
    assert site.desk.listed() == before
    assert len(site.rebuild().published.lists) == 1
    assert site.desk.listed() != before


def test_a_list_that_cannot_be_published_is_told_and_published_by_the_next_run(site):
    site.add("base")
    site.update("openssl", "3.0.1-1+deb12u1")
    before = site.desk.listed()
    keys = site.desk.root / "keys"
    keys.rename(site.desk.root / "away")
    report = site.rebuild()
    assert [each.code for each in report.errors] == ["file-unreadable"]
    assert site.desk.listed() == before
    (site.desk.root / "away").rename(keys)
    assert len(site.rebuild().published.lists) == 1
    assert site.desk.listed() != before


def test_the_parts_of_a_set_are_released_together_or_not_at_all(site):
    site.add("base", "other", publish=False)
    for name in ("base", "other"):
        site.desk.selections.deselect("general", name)
    site.desk.sets.create("pair", title="Pair")
    site.desk.sets.add("pair", "base", "other")
    site.desk.sets.release("pair")
    site.desk.selections.bind_set("general", "pair")
    site.desk.publish()
    before = site.desk.listed()
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    site.no_boot = {"other"}
    report = site.rebuild()
    assert "other failed" in report.published.held[0]
    assert site.desk.listed() == before
    site.no_boot = set()
    report = site.rebuild(waits=False)
    assert report.published.releases == ("pair 2",)
    assert set(site.desk.listed().values()).isdisjoint(before.values())


def test_what_was_not_built_here_is_not_judged(site):
    site.add("base")
    site.desk.add("foreign", "1", b"foreign")
    assert site.choices() == {"base": Choice.FRESH, "foreign": Choice.NEVER}


def test_a_definition_that_is_gone_is_told(site):
    site.add("base")
    del site.definitions["base"]
    report = site.rebuild()
    assert [each.decision.choice for each in report.appraisals] == [Choice.UNKNOWN]
    assert "not here any more" in report.errors[0].message


def test_one_appliance_of_which_nothing_can_be_read_keeps_no_other_from_being_judged(site):
    site.add("base", "other")
    site.update("openssl", "3.0.1-1+deb12u1")
    notes = site.desk.settings.state_directory / "factory" / "rebuilds" / "base.json"
    notes.parent.mkdir()
    notes.write_text("nonsense")
    report = site.rebuild()
    assert {each.name: each.decision.choice for each in report.appraisals} == {
        "base": Choice.UNKNOWN,
        "other": Choice.REBUILD,
    }
    assert [each.code for each in report.errors] == ["storage-failed"]
    assert [each.selection.name for each in report.published.lists] == ["general"]


def test_one_appliance_can_be_named_and_need_not_wait(site):
    site.add("base", "other")
    site.update("jq", "1.6-3", suite="updates")
    report = site.rebuild("other", waits=False)
    assert [each.name for each in report.ended] == ["other"]
    with pytest.raises(NotFoundError):
        site.rebuild("nobody")


def test_the_record_of_what_is_published_outlives_a_build_that_fails_its_test(site):
    site.add("base")
    site.update("openssl", "3.0.1-1+deb12u1")
    site.no_boot = {"base"}
    site.rebuild()
    site.desk.clock.advance(DAY)
    [appraisal] = Appraiser(**site.where, find=site.find).appraise()
    assert {each.name: each.version for each in appraisal.record.packages} == FIRST


@pytest.mark.threat("T84")
def test_two_runs_do_not_rebuild_at_once(site):
    site.add("base")
    with run_lock(site.desk.settings.state_directory / LOCK), pytest.raises(LockedError):
        site.rebuild()


class Elsewhere:
    """A place that is not this process: it notes what is made in it."""

    def __init__(self, site) -> None:
        self._here = Here(settings=site.desk.settings, clock=site.desk.clock)
        self.at_once = 3
        self.made = []
        self.tested = []

    def make(self, wanted, **words):
        self.made.append(wanted.name)
        return self._here.make(wanted, **words)

    def test(self, result, **words):
        self.tested.append(result.definition.name)
        return self._here.test(result, **words)


@contextlib.contextmanager
def not_there():
    raise ClusterError("the cluster's scheduler cannot be reached")
    yield


def test_what_is_stale_is_built_and_booted_in_the_place_that_was_asked_for(site, monkeypatch):
    site.add("base", "web", "other")
    before = site.desk.listed()
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    place, asked = Elsewhere(site), []
    run_all = rebuilding.run_all
    monkeypatch.setattr(rebuilding, "run_all", lambda works, **words: asked.append(words) or run_all(works, **words))
    report = site.rebuild(place=contextlib.nullcontext(place))
    assert report.errors == ()
    assert sorted(place.tested) == ["base", "other", "web"]
    # A child is built upon the build of its parent, which is asked for once more.
    assert sorted(place.made) == ["base", "base", "other", "web"]
    assert all(after != before[name] for name, after in site.desk.listed().items())
    assert [each["at_once"] for each in asked] == [3]


def test_nobody_asks_for_the_cluster_where_nothing_is_to_be_built(site):
    site.add("base")
    assert site.rebuild(place=not_there()).errors == ()
    site.update("openssl", "3.0.1-1+deb12u1")
    assert site.rebuild(dry_run=True, place=not_there()).errors == ()


def test_a_cluster_that_is_not_there_keeps_back_builds_and_nothing_that_is_built(site):
    site.add("base")
    before = site.desk.listed()
    site.update("openssl", "3.0.1-1+deb12u1")
    site.rebuild(publish=False)
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u2")
    StandIn.built.clear()
    report = site.rebuild(place=not_there())
    assert [type(each) for each in report.errors] == [ClusterError]
    assert (report.ended, StandIn.built) == ((), [])
    assert site.desk.listed() != before
    # It is no fault of the appliance: the next run does not wait.
    assert site.choices() == {"base": Choice.REBUILD}


@pytest.mark.parametrize(
    ("facts", "next_choice"), [({}, Choice.REBUILD), ({ENDED_WORKERS: 2}, Choice.LATER)], ids=["cluster", "build"]
)
def test_a_cluster_that_ends_while_it_builds_makes_no_appliance_wait(site, monkeypatch, facts, next_choice):
    site.add("base")
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    place = Elsewhere(site)

    def gone(*_args, **_words):
        raise ClusterError("the cluster's scheduler does not answer any more", context=facts)

    monkeypatch.setattr(place, "make", gone)
    report = site.rebuild(place=contextlib.nullcontext(place))
    assert [type(each) for each in report.errors] == [ClusterError]
    # A build over which workers end, one after the other, is another matter.
    assert site.choices() == {"base": next_choice}


def test_a_cluster_that_cannot_be_left_leaves_what_was_built(site):
    site.add("base")
    before = site.desk.listed()
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")

    @contextlib.contextmanager
    def stuck():
        yield Elsewhere(site)
        raise ClusterError("the cluster's scheduler does not answer any more")

    report = site.rebuild(place=stuck())
    assert [type(each) for each in report.errors] == [ClusterError]
    assert [(each.name, each.is_done) for each in report.ended] == [("base", True)]
    assert site.desk.listed() != before


def test_an_endorser_of_a_list_signs_what_is_rebuilt(site):
    site.add("base")
    site.update("openssl", "3.0.1-1+deb12u1")
    [report] = site.rebuild().published.lists
    identity = Endorsers(site.desk.database).get("jane")
    assert str(report.signed.signer) == str(identity.subject)


class CommandLine:
    """Commands of this site, run in this process."""

    def __init__(self, site, capsys) -> None:
        self._site, self._capsys = site, capsys
        root = site.desk.root
        self._file = root / "coppice.toml"
        factory = f'[factory]\nmirror = "{site.mirror.uri}"\nkeyring = "{site.mirror.keyring}"\n'
        self._file.write_text(f'definitions_directory = "{root}/definitions"\n{self._file.read_text()}\n{factory}')
        for name, parent in (("base", ""), ("web", 'from = "base"\n')):
            folder = root / "definitions" / name
            folder.mkdir(parents=True)
            (folder / "appliance.toml").write_text(parent + (CHILD if parent else BASE).format(name=name))
        context = Context(config=self._file)
        find = definition_finder(context)
        site.definitions = {name: find(name) for name in ("base", "web")}

    def __call__(self, *words) -> tuple[int, dict]:
        """Run a command; return its exit code and what it says."""
        self._capsys.readouterr()
        code = main(["--config", str(self._file), "--json", *words])
        return code, json.loads(self._capsys.readouterr().out)

    def text(self, *words):
        """Run a command; return what a person sees."""
        self._capsys.readouterr()
        main(["--config", str(self._file), *words])
        return self._capsys.readouterr().out


BASE = """
[appliance]
title = "{name}"
description = "For a test."
[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"
[build]
builder = "stand-in"
formats = ["raw"]
firmware = ["bios"]
disk-size = "4 GiB"
user = "debian"
"""
CHILD = """
[appliance]
title = "{name}"
[rebuild]
interval-days = 30
"""


@pytest.fixture
def coppice(site, capsys):
    return CommandLine(site, capsys)


def test_the_commands_show_build_and_publish_what_is_stale(site, coppice):
    site.add("base", "web")
    code, said = coppice("appliance", "staleness")
    assert (code, [each["decision"] for each in said["data"]]) == (0, ["fresh", "fresh"])
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    code, said = coppice("appliance", "staleness", "web")
    [web] = said["data"]
    assert (web["appliance"], web["decision"], web["updates"], web["security_updates"]) == ("web", "rebuild", 1, 1)
    assert web["packages"][0]["available"] == "3.0.1-1+deb12u1"
    code, said = coppice("rebuild", "--dry-run")
    assert (code, said["data"]["rebuilt"], StandIn.built) == (0, [], [])
    assert said["messages"] == ["Dry run: 2 appliances of 2 would be built anew."]
    code, said = coppice("rebuild")
    assert code == 0
    assert [(each["appliance"], each["is_new"]) for each in said["data"]["rebuilt"]] == [("base", True), ("web", True)]
    assert [each["list"] for each in said["data"]["published"]["lists"]] == ["general"]
    assert "openssl" not in coppice.text("rebuild", "--dry-run")


def test_the_commands_say_what_failed_and_what_is_not_known(site, coppice, gnupg):
    site.add("base", "web")
    site.update("openssl", "3.0.1-1+deb12u1")
    site.no_boot = {"base"}
    code, said = coppice("rebuild", "base")
    assert (code, said["status"], [each["code"] for each in said["errors"]]) == (11, "error", ["boot-test-failed"])
    assert "tried again" in coppice.text("rebuild", "--dry-run")
    site.mirror.security.publish(at=site.desk.clock.now(), key=gnupg.make_key("Mallory"))
    code, said = coppice("appliance", "staleness", "base")
    assert (code, said["status"], [each["decision"] for each in said["data"]]) == (1, "partial", ["unknown"])
    assert [each["code"] for each in said["errors"]] == ["signer-untrusted"]
    assert "unknown" in coppice.text("appliance", "staleness")


def test_what_is_named_can_be_built_now_and_only_then(site, coppice):
    site.add("base", "web")
    site.update("jq", "1.6-3", suite="updates")
    code, said = coppice("rebuild", "--now")
    assert (code, said["errors"][0]["code"]) == (2, "usage")
    assert coppice("rebuild", "base")[1]["data"]["rebuilt"] == []
    code, said = coppice("rebuild", "base", "--now", "--on", "cluster")
    assert (code, said["errors"][0]["code"]) == (3, "settings-invalid")
    code, said = coppice("rebuild", "base", "--now", "--no-publish", "--on", "here")
    assert (code, said["data"]["rebuilt"][0]["is_new"], said["data"]["published"]) == (0, True, None)
    assert coppice("rebuild", "nobody")[0] == 12


def test_several_definitions_are_built_by_one_command_and_a_failure_keeps_back_its_children(site, coppice):
    code, said = coppice("build", "web", "base")
    assert (code, [each["definition"] for each in said["data"]["builds"]]) == (0, ["web", "base"])
    assert [each["definition"] for each in said["data"]["builds"][0]["provenance"]["lineage"]] == ["base"]
    StandIn.broken = {"base"}
    code, said = coppice("build", "web", "base", "--fresh")
    assert (code, said["status"]) == (11, "error")
    assert [(each["definition"], each["kept_by"]) for each in said["data"]["builds"]] == [
        ("web", "base"),
        ("base", None),
    ]
    assert "not built, since base failed" in coppice.text("build", "web", "base", "--fresh")


def test_where_nothing_was_built_there_is_nothing_to_do(tmp_path, capsys):
    file = tmp_path / "coppice.toml"
    file.write_text(f'state_directory = "{tmp_path}/state"\n')
    for words in (["rebuild"], ["rebuild", "--dry-run"], ["appliance", "staleness"]):
        assert main(["--config", str(file), "--json", *words]) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "success"
    assert not (tmp_path / "state").exists()


def in_a_child(site, *, killed_after=None):
    """Rebuild in a process of its own; kill it after so many seconds. Return how long it took."""
    settings, started = site.desk.settings, time.monotonic()
    site.desk.database.close()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            database = Database(settings.database_url)
            report = rebuild((), **{**site.where, "database": database}, find=site.find)
            code = 0 if not report.errors else 1
        os._exit(code)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if killed_after is None:
        assert status == 0
    return time.monotonic() - started


def survives_kills(site, points):
    """Kill a rebuild at ``points`` moments of its time; each time nothing is lost, and the next run goes on."""
    site.add("base", "web")
    before = site.desk.listed()
    site.desk.clock.advance(DAY)
    site.update("openssl", "3.0.1-1+deb12u1")
    site.desk.database.close()
    root = site.desk.root
    shutil.copytree(root, root.with_name("kept"))
    seconds = in_a_child(site)
    undisturbed = site.desk.read()
    after = {image.title: image.checksum for image in undisturbed.images}
    for number in range(points):
        shutil.rmtree(root)
        shutil.copytree(root.with_name("kept"), root)
        in_a_child(site, killed_after=seconds * (number + 0.5) / points)
        for image in site.desk.read().images:
            assert image.version in {before[image.title], undisturbed.images[0].version}
            [file] = [path for path in (root / "web").rglob("*") if image.checksum.hexdigest[:16] in path.name]
            assert Checksum.of(file.read_bytes(), image.checksum.algorithm) == image.checksum
        in_a_child(site)
        assert {image.title: image.checksum for image in site.desk.read().images} == after
        assert set(site.choices().values()) == {Choice.FRESH}


@pytest.mark.threat("T79")
def test_a_rebuild_that_is_killed_anywhere_is_made_good_by_the_next(site):
    survives_kills(site, 4)


@pytest.mark.soak
@pytest.mark.threat("T79")
def test_a_rebuild_that_is_killed_at_many_more_moments_is_made_good_by_the_next(site):
    survives_kills(site, 40)


def test_a_security_update_reaches_the_cloud_of_a_subscriber_and_the_old_image_is_hidden(site, tmp_path):
    publisher = site.desk.settings.publishers["web"]
    options = {**publisher.options, "url": f"file://{site.desk.root}/web"}
    site.desk.settings = replace(site.desk.settings, publishers={"web": replace(publisher, options=options)})
    site.definitions["base"] = definition("base", formats=(DiskFormat.QCOW2,))
    site.add("base")
    cloud = UsedDirectory(tmp_path / "cloud")
    (tmp_path / "site").mkdir()
    world = World(tmp_path / "site", cloud)
    [endorser] = site.desk.read().endorsers
    known = world.publisher.subscription(site.desk.root / "anchors")
    trust = replace(known.trust, endorsers=(PinnedEndorser(subject=endorser.subject, issuer=endorser.issuer),))
    world.store.add(replace(known, uri=f"{options['url']}/general.list", list_identifier=None, trust=trust))
    world.synced()
    [first] = cloud.seen()
    assert cloud.usable(first[0]) == first[1]
    site.desk.clock.advance(timedelta(minutes=1))
    site.update("openssl", "3.0.1-1+deb12u1")
    [ended] = site.rebuild().ended
    world.clock.advance(timedelta(minutes=2))
    world.synced()
    seen = {version: str(each) for (_, version), each in cloud.seen().items()}
    assert seen == {first[1]: "superseded", ended.result.version.version: "available"}
    assert cloud.usable(first[0]) == ended.result.version.version
    world.close()
