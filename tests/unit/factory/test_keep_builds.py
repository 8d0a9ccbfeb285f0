# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coppice.clock import FixedClock
from coppice.definition.model import AuditException, Definition
from coppice.errors import AuditError, BuildError, NotFoundError, SettingsError, StorageError
from coppice.factory import build as building
from coppice.factory import builders, workplace
from coppice.factory.audit import AuditReport
from coppice.factory.build import build, build_key, load_build_result
from coppice.factory.builders import builder_names, load_builder
from coppice.factory.evidence.inventory import Inventory, InventoryFile, read_inventory
from coppice.factory.lock import is_free, locked
from coppice.factory.model import BuilderOutput, BuildOptions, BuiltImage, Outcome, Package, Verdict
from coppice.factory.verdicts import find_verdict, has_passed, keep_verdict
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements
from coppice.monitor import SILENT

pytestmark = pytest.mark.unit

CLOCK = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
DEFINITION = Definition(
    name="tiny",
    path=Path("/definitions/tiny/appliance.toml"),
    title="Tiny",
    description="A tiny appliance.",
    groups=("Test",),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    suite="bookworm",
    builder="fake",
    packages=("jq",),
    disk_size_bytes=1 << 30,
    firmware=(Firmware.BIOS,),
    formats=(DiskFormat.RAW,),
    user="debian",
    requirements=Requirements(minimum_ram_mib=512),
)


INVENTORY = Inventory({"/etc/x": InventoryFile(path="/etc/x", mode=0o100644, owner=0, group=0, size_bytes=0)})


class FakeBuilder:
    name = "fake"
    version = "1"

    def __init__(self) -> None:
        self.builds = 0
        self.fails = False

    def build(self, definition, into, options, monitor):
        self.builds += 1
        path = into / f"{definition.name}.raw"
        path.write_bytes(b"disk %d" % self.builds)
        if self.fails:
            raise BuildError("no")
        image = Image(
            format=DiskFormat.RAW,
            size_bytes=6,
            virtual_size_bytes=6,
            checksum=Checksum.of(path.read_bytes()),
        )
        return BuilderOutput(
            images=(BuiltImage(path=path, image=image),),
            packages=(Package(name="jq", version="1.6", architecture="amd64"),),
            tools=(("fake", "1"),),
        )


def verdict(digest=None, gate="audit", outcome=Outcome.PASSED):
    return Verdict(
        gate=gate,
        image_digest=digest or str(Checksum.of(b"")),
        outcome=outcome,
        decided_at=CLOCK.now(),
        seconds=1.5,
        facts=(("a", "b"),),
    )


def passed(image):
    verdict_of_it = verdict(str(image.image.checksum))
    return AuditReport(verdict=verdict_of_it, inventory=INVENTORY, unused=())


@pytest.fixture
def builder(monkeypatch):
    fake = FakeBuilder()
    monkeypatch.setattr(building, "load_builder", lambda _name: fake)
    monkeypatch.setattr(building, "audit", lambda image, _definition, **_: passed(image))
    return fake


def make(root, definition=DEFINITION, **options):
    return build(definition, root=root, options=BuildOptions(), clock=CLOCK, monitor=SILENT, **options)


def test_the_second_build_of_the_same_definition_is_the_first(tmp_path, builder):
    first = make(tmp_path)
    second = make(tmp_path)
    assert (first.reused, second.reused) == (False, True)
    assert builder.builds == 1
    assert second == replace(first, reused=True)
    assert load_build_result(first.directory) == second
    assert first.images[0].path.read_bytes() == b"disk 1"
    assert read_inventory(first.directory) == INVENTORY


def test_an_audit_exception_that_covers_nothing_is_told_while_building(tmp_path, builder, monkeypatch):
    told = []
    exception = AuditException(check="log", path="/var/log/x", reason="a test")

    def report(image, _definition, **_):
        return replace(passed(image), unused=(exception,))

    monkeypatch.setattr(building, "audit", report)
    monitor = type("Told", (type(SILENT),), {"message": lambda _self, text: told.append(text)})()
    build(DEFINITION, root=tmp_path, options=BuildOptions(), clock=CLOCK, monitor=monitor)
    assert told == ["tiny: the audit exception log /var/log/x covers nothing"]


def test_a_build_is_found_again_when_the_definition_moved(tmp_path, builder):
    make(tmp_path)
    moved = make(tmp_path, replace(DEFINITION, path=Path("/elsewhere/appliance.toml")))
    assert moved.reused
    assert moved.definition.path == Path("/elsewhere/appliance.toml")


def test_what_decides_the_content_decides_the_key(builder):
    options = BuildOptions()
    key = build_key(DEFINITION, builder, options)
    assert key == build_key(DEFINITION, builder, replace(options, timeout_seconds=1, work_directory=Path("/x")))
    assert key != build_key(replace(DEFINITION, packages=()), builder, options)
    assert key != build_key(DEFINITION, builder, replace(options, mirror="http://mirror.example/debian"))
    builder.version = "2"
    assert key != build_key(DEFINITION, builder, options)


def test_a_fresh_build_replaces_the_kept_one(tmp_path, builder):
    make(tmp_path)
    fresh = make(tmp_path, fresh=True)
    assert not fresh.reused
    assert fresh.images[0].path.read_bytes() == b"disk 2"
    assert sorted(path.name for path in (tmp_path / "builds").iterdir()) == [fresh.key, f"{fresh.key}.lock"]


def test_a_kept_build_with_a_missing_or_shorter_image_is_built_again(tmp_path, builder):
    image = make(tmp_path).images[0].path
    image.write_bytes(b"")
    assert not make(tmp_path).reused
    image.unlink()
    assert not make(tmp_path).reused


def test_changed_bytes_of_the_same_length_are_found_when_asked(tmp_path, builder):
    image = make(tmp_path).images[0].path
    image.write_bytes(b"DISK 1")
    assert make(tmp_path).reused
    assert not make(tmp_path, rehash=True).reused


@pytest.mark.parametrize("fresh", [False, True])
def test_a_failed_build_leaves_nothing_new_and_what_was_there(tmp_path, builder, fresh):
    if fresh:
        make(tmp_path)
    builder.fails = True
    with pytest.raises(BuildError):
        make(tmp_path, fresh=fresh)
    kept = [path for path in (tmp_path / "builds").iterdir() if path.is_dir()]
    assert len(kept) == (1 if fresh else 0)
    if fresh:
        assert load_build_result(kept[0]).images[0].path.read_bytes() == b"disk 1"


def test_an_image_that_fails_its_audit_is_not_kept(tmp_path, builder, monkeypatch):
    def fail(image, _definition, **_):
        raise AuditError("an SSH host key is baked in")

    monkeypatch.setattr(building, "audit", fail)
    with pytest.raises(BuildError, match="host key"):
        make(tmp_path)
    assert [path for path in (tmp_path / "builds").iterdir() if path.is_dir()] == []


def test_what_a_killed_build_left_is_swept_by_the_next(tmp_path, builder):
    key = build_key(DEFINITION, builder, BuildOptions())
    left = tmp_path / "builds" / f".coppice-{key}-0123.partial"
    left.mkdir(parents=True)
    (left / "half").touch()
    make(tmp_path)
    assert not left.exists()


def test_a_builder_that_makes_another_format_is_refused(tmp_path, builder):
    with pytest.raises(BuildError, match="the builder made raw, not qcow2"):
        make(tmp_path, replace(DEFINITION, formats=(DiskFormat.QCOW2,)))


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"schema": 2}', "\0"])
def test_a_damaged_record_is_an_error_and_not_a_missing_build(tmp_path, builder, damage):
    directory = make(tmp_path).directory
    (directory / "build.json").write_text(damage)
    with pytest.raises(StorageError, match="not the record of a build"):
        load_build_result(directory)


def test_a_record_that_names_a_file_elsewhere_is_refused(tmp_path, builder):
    record = make(tmp_path).directory / "build.json"
    document = json.loads(record.read_text())
    document["images"][0]["file"] = "../../../etc/passwd"
    record.write_text(json.dumps(document))
    with pytest.raises(StorageError):
        load_build_result(record.parent)


def test_a_build_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        load_build_result(tmp_path / "nothing")


def test_a_verdict_is_found_by_digest_and_gate(tmp_path):
    kept = verdict()
    keep_verdict(tmp_path, kept)
    assert find_verdict(tmp_path, kept.image_digest, kept.gate) == kept
    assert has_passed(tmp_path, kept.image_digest, kept.gate) == kept
    assert find_verdict(tmp_path, kept.image_digest, "boot-bios") is None
    assert find_verdict(tmp_path, str(Checksum.of(b"other")), kept.gate) is None


def test_a_failed_verdict_has_not_passed(tmp_path):
    kept = verdict(outcome=Outcome.FAILED)
    keep_verdict(tmp_path, kept)
    assert has_passed(tmp_path, kept.image_digest, kept.gate) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", "null"])
def test_a_damaged_verdict_is_no_missing_one(tmp_path, content):
    kept = verdict()
    keep_verdict(tmp_path, kept)
    next(tmp_path.rglob("*.json")).write_text(content)
    with pytest.raises(StorageError, match="not a verdict"):
        find_verdict(tmp_path, kept.image_digest, kept.gate)


def test_a_verdict_copied_to_another_image_is_refused(tmp_path):
    kept = verdict()
    keep_verdict(tmp_path, kept)
    source = next(tmp_path.rglob("*.json"))
    target = tmp_path / "verdicts" / Checksum.of(b"other").hexdigest
    target.mkdir()
    (target / source.name).write_text(source.read_text())
    with pytest.raises(StorageError, match="another gate or image"):
        find_verdict(tmp_path, str(Checksum.of(b"other")), kept.gate)


@pytest.mark.parametrize(("digest", "gate"), [("sha512:../..", "boot-bios"), (str(Checksum.of(b"")), "../x")])
def test_a_digest_or_gate_that_leads_elsewhere_is_refused(tmp_path, digest, gate):
    with pytest.raises(ValueError, match="not"):
        find_verdict(tmp_path, digest, gate)


def test_the_built_in_builder_is_loaded_by_name():
    assert "bootstrap" in builder_names()
    assert load_builder("bootstrap").name == "bootstrap"


def test_an_unknown_builder_gets_the_nearest():
    with pytest.raises(NotFoundError) as caught:
        load_builder("bootstap")
    assert caught.value.resolution == "Did you mean 'bootstrap'?"


class Point:
    def __init__(self, name, load) -> None:
        self.name, self.value, self.load = name, "package:Class", load


def test_a_third_partys_builder_comes_by_its_entry_point(monkeypatch):
    monkeypatch.setattr(builders, "_installed", lambda: [Point("fake", lambda: FakeBuilder)])
    assert load_builder("fake").name == "fake"
    assert "fake" in builder_names()


def test_a_third_party_cannot_take_a_built_in_name(monkeypatch):
    monkeypatch.setattr(builders, "_installed", lambda: [Point("bootstrap", lambda: FakeBuilder)])
    with pytest.raises(SettingsError, match="claims the name"):
        load_builder("bootstrap")


def test_a_plug_in_that_cannot_be_loaded_is_told_without_a_traceback(monkeypatch):
    def load():
        raise ImportError("no module named x")

    monkeypatch.setattr(builders, "_installed", lambda: [Point("fake", load)])
    with pytest.raises(SettingsError) as caught:
        load_builder("fake")
    assert "no module named x" in (caught.value.details or "")


def test_a_lock_is_held_by_one_and_let_go(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        assert not is_free(path)
    assert is_free(path)
    assert not is_free(tmp_path / "missing")


def test_a_working_directory_is_gone_afterwards_also_after_ctrl_c(tmp_path):
    def interrupted():
        with workplace.workplace(tmp_path) as work:
            (work / "file").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_runs_working_directory_is_swept_and_a_living_ones_is_not(tmp_path):
    old = time.time() - 3600
    dead = tmp_path / f"{workplace.PREFIX}dead"
    dead.mkdir()
    (dead / ".lock").touch()
    os.utime(dead, (old, old))
    with workplace.workplace(tmp_path) as living:
        os.utime(living, (old, old))
        with workplace.workplace(tmp_path):
            assert living.exists()
    assert not dead.exists()


def test_what_a_run_left_that_was_killed_just_now_is_swept_by_the_next(tmp_path):
    dead, unlocked = (tmp_path / f"{workplace.PREFIX}{name}" for name in ("dead", "unlocked"))
    beginning = tmp_path / ".coppice-new-1"
    for each in (dead, unlocked, beginning):
        each.mkdir()
    (dead / ".lock").touch()
    with workplace.workplace(tmp_path) as living:
        # One that has no lock yet may be another run's that is just being made.
        assert sorted(tmp_path.iterdir()) == sorted((beginning, living))
    assert list(tmp_path.iterdir()) == [beginning]


def test_a_directory_with_something_mounted_in_it_is_never_emptied(tmp_path, monkeypatch):
    table = tmp_path / "mountinfo"
    spaced = str(tmp_path / "a b").replace(" ", "\\040")
    table.write_text(f"1 2 0:3 / {spaced}/dev rw - tmpfs none rw\n")
    assert workplace.has_mounts(tmp_path / "a b", table)
    assert not workplace.has_mounts(tmp_path / "a", table)
    assert workplace.has_mounts(tmp_path / "a", tmp_path / "missing")
    monkeypatch.setattr(workplace, "has_mounts", lambda _directory: True)
    with workplace.workplace(tmp_path) as work:
        (work / "file").touch()
    assert (work / "file").exists()
