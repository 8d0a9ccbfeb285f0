# SPDX-License-Identifier: Apache-2.0
"""How a chain of appliances is built; the factory itself is stood in for."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coppice.clock import FixedClock
from coppice.database import Database
from coppice.definition.model import Definition
from coppice.errors import BootTestError, BuildError, DefinitionError, InterruptedRunError, NotFoundError
from coppice.events.journal import Journal
from coppice.factory.model import BuildResult, BuiltImage, Outcome, Provenance, Verdict
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.workflows import build as building
from coppice.workflows.build import build_appliance, build_appliances, find_build, parents_of

pytestmark = pytest.mark.unit

CLOCK = FixedClock(datetime(2026, 11, 1, tzinfo=UTC))


def definition(name, parent=None):
    return Definition(
        name=name,
        path=Path(f"/definitions/{name}/appliance.toml"),
        title=name.title(),
        description="For a test.",
        groups=(),
        operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        suite="bookworm",
        builder="fake",
        packages=(),
        disk_size_bytes=1 << 30,
        firmware=(Firmware.BIOS, Firmware.UEFI),
        formats=(DiskFormat.RAW,),
        user="debian",
        requirements=Requirements(minimum_ram_mib=512),
        parent=parent,
    )


DEFINITIONS = {
    each.name: each
    for each in (
        definition("base"),
        definition("hardened", "base"),
        definition("web", "hardened"),
        definition("database", "hardened"),
        definition("other"),
    )
}


def find(name):
    try:
        return DEFINITIONS[name]
    except KeyError:
        raise NotFoundError(f"no definition named {name!r}") from None


def result_of(wanted, *, upon=(), reused=False):
    content = "/".join([wanted.name, *(each.definition.name for each in upon)]).encode()
    checksum = Checksum.of(content)
    image = Image(format=DiskFormat.RAW, size_bytes=1, virtual_size_bytes=1, checksum=checksum)
    return BuildResult(
        definition=wanted,
        key=checksum.hexdigest[:64],
        directory=Path("/builds") / wanted.name,
        images=(BuiltImage(path=Path("/builds") / wanted.name / "disk.raw", image=image),),
        packages=(),
        provenance=Provenance(definition_digest="d", builder="fake 1", tools=(), started_at=CLOCK.now(), seconds=1),
        verdicts=(),
        reused=reused,
    )


class Factory:
    """Stands in for the factory: notes what it was asked for."""

    def __init__(self) -> None:
        self.built = []
        self.ancestors = {}
        self.fresh = set()
        self.broken = set()
        self.booted = []
        self.lock = threading.Lock()

    def build(self, wanted, *, root, options, clock, monitor, fresh):
        with self.lock:
            self.built.append(wanted.name)
            self.ancestors[wanted.name] = [each.definition.name for each in options.ancestors]
            if fresh:
                self.fresh.add(wanted.name)
        if wanted.name in self.broken:
            raise BuildError(f"{wanted.name} is broken")
        return result_of(wanted, upon=options.ancestors)

    def boot(self, image, *, firmware, **_):
        name = image.path.parent.name
        with self.lock:
            self.booted.append((name, str(firmware)))
        if f"boot {name}" in self.broken:
            raise BootTestError(f"{name} does not boot")
        return Verdict(
            gate=f"boot-{firmware}",
            image_digest=str(image.image.checksum),
            outcome=Outcome.PASSED,
            decided_at=CLOCK.now(),
            seconds=1,
            facts=(),
        )


@pytest.fixture
def factory(monkeypatch):
    stand_in = Factory()
    monkeypatch.setattr(building, "build", stand_in.build)
    monkeypatch.setattr(building, "boot_test", stand_in.boot)
    return stand_in


@pytest.fixture
def site(tmp_path):
    file = tmp_path / "coppice.toml"
    file.write_text(f'state_directory = "{tmp_path}/state"\n')
    settings = load_settings(config=file, environ={"HOME": str(tmp_path)}, options={})
    database = Database(settings.database_url)
    yield {"settings": settings, "database": database, "clock": CLOCK, "monitor": SILENT, "find": find}
    database.close()


def test_an_appliance_is_built_upon_its_parents_the_farthest_first(factory, site):
    result = build_appliance(DEFINITIONS["web"], **site)
    assert factory.built == ["base", "hardened", "web"]
    assert factory.ancestors == {"base": [], "hardened": ["base"], "web": ["hardened", "base"]}
    assert result.definition.name == "web"


def test_of_a_chain_only_what_was_asked_for_is_booted_and_built_anew(factory, site):
    result = build_appliance(DEFINITIONS["web"], **site, fresh=True)
    assert sorted(factory.booted) == [("web", "bios"), ("web", "uefi")]
    assert factory.fresh == {"web"}
    assert sorted(verdict.gate for verdict in result.verdicts) == ["boot-bios", "boot-uefi"]


def test_without_boot_tests_nothing_is_booted(factory, site):
    build_appliance(DEFINITIONS["base"], **site, boot=False)
    assert factory.booted == []


def test_children_of_one_parent_have_it_built_once(factory, site):
    ended = build_appliances([DEFINITIONS["web"], DEFINITIONS["database"]], **site, boot=False)
    assert [each.name for each in ended] == ["web", "database"]
    assert sorted(factory.built) == ["base", "database", "hardened", "web"]
    assert factory.built[:2] == ["base", "hardened"]


def test_a_parent_that_fails_stops_its_children_and_nobody_else(factory, site):
    factory.broken = {"hardened"}
    names = ["web", "other", "database"]
    ended = build_appliances([DEFINITIONS[name] for name in names], **site, boot=False)
    by_name = {each.name: each for each in ended}
    assert (by_name["web"].kept_by, by_name["database"].kept_by) == ("hardened", "hardened")
    assert by_name["other"].is_done
    assert by_name["hardened"].error.message == "hardened is broken"
    assert [each.name for each in ended] == [*names, "hardened"]
    assert "web" not in factory.built


def test_what_does_not_boot_stops_its_children_where_it_was_asked_for(factory, site):
    factory.broken = {"boot hardened"}
    ended = {each.name: each for each in build_appliances([DEFINITIONS["web"], DEFINITIONS["hardened"]], **site)}
    assert isinstance(ended["hardened"].error, BootTestError)
    assert ended["web"].kept_by == "hardened"


def test_no_more_are_built_at_a_time_than_the_settings_say(factory, site, monkeypatch):
    asked = []
    monkeypatch.setattr(building, "run_all", lambda _works, *, at_once, **_: asked.append(at_once) or ())
    build_appliances([], **site)
    build_appliances([], **site, at_once=7)
    assert asked == [site["settings"].factory.builds_at_once, 7]


def test_each_build_is_told_of_in_the_journal(factory, site):
    build_appliance(DEFINITIONS["hardened"], **site, boot=False)
    told = [(event.kind, event.subject) for event in Journal(site["database"]).events()]
    assert told == [("ApplianceBuilt", "base"), ("ApplianceBuilt", "hardened")]


def test_a_definition_without_parents_has_none():
    assert parents_of(DEFINITIONS["base"], find) == ()
    assert [each.name for each in parents_of(DEFINITIONS["web"], find)] == ["hardened", "base"]


def test_parents_in_a_circle_are_refused_with_the_whole_chain():
    circle = {"a": definition("a", "b"), "b": definition("b", "a")}
    with pytest.raises(DefinitionError, match="a → b → a"):
        parents_of(circle["a"], circle.__getitem__)


def test_more_parents_than_there_may_be_are_refused():
    with pytest.raises(DefinitionError, match="more than 16"):
        parents_of(definition("n0", "n1"), lambda name: definition(name, f"n{int(name[1:]) + 1}"))


def test_a_parent_that_is_not_there_is_told_before_anything_is_built(factory, site):
    orphan = replace(DEFINITIONS["web"], name="orphan", parent="nobody")
    with pytest.raises(NotFoundError, match="nobody"):
        build_appliances([DEFINITIONS["base"], orphan], **site)
    assert factory.built == []


def test_a_kept_build_is_found_only_upon_kept_builds_of_its_parents(factory, site, monkeypatch):
    kept = {"base", "hardened", "web"}

    def find_kept(wanted, *, root, options):
        return result_of(wanted, upon=options.ancestors, reused=True) if wanted.name in kept else None

    monkeypatch.setattr(building, "find_kept", find_kept)
    where = {"settings": site["settings"], "find": find}
    found = find_build(DEFINITIONS["web"], **where)
    assert found.images[0].image.checksum == Checksum.of(b"web/hardened/base")
    kept.discard("base")
    with pytest.raises(NotFoundError, match="no build of web") as caught:
        find_build(DEFINITIONS["web"], **where)
    assert "coppice build web" in (caught.value.resolution or "")


def test_a_run_that_is_to_stop_does_not_wait_for_its_boot_tests(factory, site, monkeypatch):
    stops = []

    def boot(image, *, stop, **_):
        stops.append(stop.wait(30))
        raise InterruptedRunError("stopped")

    monkeypatch.setattr(building, "boot_test", boot)
    monkeypatch.setattr(building, "_POLL_SECONDS", 0.01)
    with pytest.raises(InterruptedRunError):
        build_appliance(DEFINITIONS["base"], **site, stopped=lambda: True)
    assert stops == [True, True]


def test_the_keyring_of_the_settings_goes_with_each_build(factory, site, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        building, "build", lambda wanted, *, options, **_: seen.append(options.keyring) or result_of(wanted)
    )
    settings = site["settings"]
    named = replace(settings, factory=replace(settings.factory, keyring=str(tmp_path / "keys.gpg")))
    build_appliance(DEFINITIONS["base"], **{**site, "settings": named}, boot=False)
    assert seen == [tmp_path / "keys.gpg"]
