# SPDX-License-Identifier: Apache-2.0
"""What the record of a build says of its parents, its inputs and its log; the builder is a stand-in."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coppice.clock import FixedClock
from coppice.definition.read import read_definition
from coppice.errors import BuildError, StorageError
from coppice.factory import build as building
from coppice.factory.audit import AuditReport
from coppice.factory.bootstrap.supported import check_supported
from coppice.factory.build import build, build_key, failed_log, is_intact, load_build_result
from coppice.factory.evidence.contents import Contents
from coppice.factory.evidence.inventory import Inventory
from coppice.factory.model import BuilderOutput, BuildInput, BuildOptions, BuiltImage, Outcome, Package, Verdict
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT

pytestmark = pytest.mark.unit

CLOCK = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
DEFINITION = read_definition(Path(__file__).parents[3] / "definitions" / "debian-12")
CHILD = replace(DEFINITION, name="child", parent="debian-12")
INDEX = BuildInput(name="index bookworm", uri="http://mirror.example", digest="sha256:00")
JQ = Package(name="jq", version="1.6", architecture="amd64", source="jq-src", source_version="1.6-1")


class FakeBuilder:
    name = "fake"
    version = "1"
    fails = False

    def build(self, definition, into, options, monitor):
        del options, monitor
        (into / "build.log").write_text("E: what went wrong\n")
        if self.fails:
            raise BuildError("no", details="the end of it")
        path = into / f"{definition.name}.qcow2"
        path.write_bytes(definition.name.encode())
        image = Image(
            format=DiskFormat.QCOW2,
            size_bytes=path.stat().st_size,
            virtual_size_bytes=512,
            checksum=Checksum.of(path.read_bytes()),
        )
        (into / "tree").mkdir()
        return BuilderOutput(
            images=(BuiltImage(path=path, image=image),),
            packages=(JQ,),
            tools=(),
            inputs=(INDEX,),
            tree=into / "tree",
            log=into / "build.log",
        )


@pytest.fixture
def builder(monkeypatch):
    def audit(image, _definition, **_):
        verdict = Verdict(
            gate="audit",
            image_digest=str(image.image.checksum),
            outcome=Outcome.PASSED,
            decided_at=CLOCK.now(),
            seconds=1,
            facts=(),
        )
        return AuditReport(verdict=verdict, inventory=Inventory(files={}), unused=())

    fake = FakeBuilder()
    monkeypatch.setattr(building, "load_builder", lambda _name: fake)
    monkeypatch.setattr(building, "audit", audit)
    monkeypatch.setattr(building, "write_evidence", lambda *_given: None)
    return fake


def make(root, definition=DEFINITION, *ancestors):
    options = BuildOptions(ancestors=ancestors)
    return build(definition, root=root, options=options, clock=CLOCK, monitor=SILENT)


def test_a_child_says_what_it_was_built_upon_and_from(tmp_path, builder):
    parent = make(tmp_path)
    child = make(tmp_path, CHILD, parent)
    again = load_build_result(child.directory)
    assert [each.definition for each in again.provenance.lineage] == ["debian-12"]
    assert again.provenance.lineage[0].image_digest == str(parent.images[0].image.checksum)
    assert again.provenance.inputs == (INDEX,)
    assert again.packages == (JQ,)
    assert again.tree == child.directory / "tree"
    assert (child.directory / "build.log").read_text() == "E: what went wrong\n"


def test_a_child_of_another_snapshot_than_its_parents_is_refused(tmp_path, builder):
    then, later = "20260101T000000Z", "20260201T000000Z"
    parent = replace(make(tmp_path), definition=replace(DEFINITION, snapshot=then))
    options = BuildOptions(ancestors=(parent,), mirror="http://mirror.example/{snapshot}/debian")
    check_supported(replace(CHILD, snapshot=then), options)
    with pytest.raises(BuildError, match=f"is of {later}, and debian-12, which it is built upon, of {then}"):
        check_supported(replace(CHILD, snapshot=later), options)


def test_a_child_is_another_when_its_parent_is(tmp_path, builder):
    parent = make(tmp_path)
    key = build_key(CHILD, builder, BuildOptions(ancestors=(parent,)))
    assert key != build_key(CHILD, builder, BuildOptions())
    image = replace(parent.images[0].image, checksum=Checksum.of(b"newer"))
    newer = replace(parent, images=(replace(parent.images[0], image=image),))
    assert key != build_key(CHILD, builder, BuildOptions(ancestors=(newer,)))


def test_a_build_that_other_keys_vouch_for_or_an_older_audit_let_pass_is_another(tmp_path, builder, monkeypatch):
    keyring = tmp_path / "keys.gpg"
    options = BuildOptions(keyring=keyring)
    without = build_key(DEFINITION, builder, BuildOptions())
    keyring.write_bytes(b"one")
    first = build_key(DEFINITION, builder, options)
    keyring.write_bytes(b"another")
    assert len({without, first, build_key(DEFINITION, builder, options)}) == 3
    monkeypatch.setattr("coppice.factory.build.EDITION", 0)
    assert build_key(DEFINITION, builder, BuildOptions()) != without


def test_a_build_whose_tree_is_gone_is_made_anew(tmp_path, builder):
    first = make(tmp_path)
    assert is_intact(first, rehash=True)
    shutil.rmtree(first.tree)
    assert not is_intact(first, rehash=False)
    assert not make(tmp_path).reused


def test_the_log_of_a_build_that_failed_is_kept_and_named_until_it_succeeds(tmp_path, builder):
    builder.fails = True
    with pytest.raises(BuildError) as caught:
        make(tmp_path)
    log = failed_log(tmp_path, build_key(DEFINITION, builder, BuildOptions()))
    assert log.read_text() == "E: what went wrong\n"
    assert caught.value.details == f"the end of it\nThe whole log: {log}"
    builder.fails = False
    make(tmp_path)
    assert not log.exists()


@pytest.mark.parametrize("name", ["../tree", "..", "", "/etc", 7])
def test_a_record_whose_tree_is_elsewhere_is_refused(tmp_path, builder, name):
    record = make(tmp_path).directory / "build.json"
    document = json.loads(record.read_text())
    document["tree"] = name
    record.write_text(json.dumps(document))
    with pytest.raises(StorageError):
        load_build_result(record.parent)


def test_a_record_of_before_there_were_sources_and_inputs_is_read(tmp_path, builder):
    record = make(tmp_path).directory / "build.json"
    document = json.loads(record.read_text())
    document["packages"] = [["jq", "1.6", "amd64"]]
    del document["tree"]
    for name in ("inputs", "lineage", "definition_source"):
        del document["provenance"][name]
    record.write_text(json.dumps(document))
    old = load_build_result(record.parent)
    assert old.packages == (Package(name="jq", version="1.6", architecture="amd64"),)
    assert (old.tree, old.provenance.inputs, old.provenance.lineage) == (None, (), ())


class LeavesDisk(FakeBuilder):
    elsewhere = None

    def build(self, definition, into, options, monitor):
        output = super().build(definition, into, options, monitor)
        disk = (self.elsewhere or options.disk_directory) / "disk.raw"
        disk.write_bytes(b"disk")
        return replace(output, disk=disk)


def test_the_disk_that_a_builder_left_is_what_is_looked_into_and_is_gone_afterwards(tmp_path, builder, monkeypatch):
    seen, before = [], building.audit

    def audit(image, definition, *, disk, **given):
        seen.append((disk, disk.read_bytes()))
        return before(image, definition, **given)

    monkeypatch.setattr(building, "load_builder", lambda _name: LeavesDisk())
    monkeypatch.setattr(building, "audit", audit)
    make(tmp_path)
    ((disk, content),) = seen
    assert content == b"disk"
    assert not disk.exists()


def test_the_audit_of_a_child_is_told_what_its_parent_contains_and_leaves_it_to_the_next(
    tmp_path, builder, monkeypatch
):
    seen, before = [], building.audit
    content = b"content" * 1000

    def audit(image, definition, *, contents, **given):
        seen.append(contents)
        met = Contents() if contents is None else contents
        met.digests_of(len(content), lambda: [content], md5=False, sha1=False)
        return replace(before(image, definition, **given), contents=met)

    monkeypatch.setattr(building, "audit", audit)
    parent = make(tmp_path)
    make(tmp_path, CHILD, parent)
    first, second = seen
    assert first is None
    monkeypatch.setattr("coppice.factory.evidence.contents.hashed", None)
    # It would be hashed if it were not known.
    found = second.digests_of(len(content), lambda: [content], md5=False, sha1=False)
    assert found.sha256 == hashlib.sha256(content).hexdigest()


def test_a_disk_from_elsewhere_is_not_looked_into(tmp_path, builder, monkeypatch):
    other = LeavesDisk()
    other.elsewhere = tmp_path
    monkeypatch.setattr(building, "load_builder", lambda _name: other)
    with pytest.raises(BuildError, match="disk that it did not make there"):
        make(tmp_path / "root")
