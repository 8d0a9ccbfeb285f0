# SPDX-License-Identifier: Apache-2.0
"""Bundles between two sites, of which one has no network: what comes, what is refused, what is left out."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coppice.cache.shelf import Shelf
from coppice.cli.main import main
from coppice.errors import BundleError, ChecksumMismatchError, CoppiceError, OlderListError, StateError
from coppice.formats.bundle import Manifest, parse_manifest, read_layout, write_bundle
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.model.checksum import Checksum
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import SourceReference, Subscription, TrustPolicy
from coppice.subscription.source.gathered import Document, Gathered, write_gathered
from coppice.subscription.source.protocol import Circumstances
from coppice.testing.versions import VersionsPublisher, VersionsSite, file_system
from coppice.workflows.bundle import read_inventory, take_inventory, write_inventory
from coppice.workflows.export_bundle import export_bundle
from coppice.workflows.import_bundle import import_bundle
from coppice.workflows.sources import open_sources

pytestmark = pytest.mark.integration
NOWHERE = "http://127.0.0.1:1/demo.list"


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    directory = tmp_path_factory.mktemp("disks")
    files = {f"file-{number}": os.urandom(60_000) for number in range(60)}
    made = []
    for version in range(2):
        files |= {f"file-{number}": os.urandom(60_000) for number in range(2 * version)}
        made.append(file_system(directory, str(version), files))
    return made


class Pair:
    """A publisher, a site that reaches it, and one that reaches nobody."""

    def __init__(self, directory, disks) -> None:
        self.directory = directory
        self.publisher = VersionsPublisher(directory / "publisher")
        self.image = self.publisher.add("Debian 12", disks[0])
        self.publisher.publish()
        self.near = VersionsSite(directory / "near", self.publisher)
        self.far = VersionsSite(directory / "far", self.publisher, uri=NOWHERE)
        assert self.near.sync().failure() is None

    def renew(self, disks, *, with_patch):
        self.publisher.renew(self.image, "2", disks[1], disks[:1] if with_patch else [])
        self.publisher.publish()
        assert self.near.sync().failure() is None

    def export(self, name="bundle.tar", **options):
        path = self.directory / name
        return path, export_bundle(path, **self.near.everything, **options)

    def held(self):
        return set(take_inventory(self.far.settings).objects)

    def close(self):
        self.near.close()
        self.far.close()


@pytest.fixture
def pair(tmp_path, disks):
    pair = Pair(tmp_path, disks)
    yield pair
    pair.close()


def test_a_site_without_a_network_gets_lists_and_images_and_registers_them(pair):
    bundle, exported = pair.export()
    assert [each.form for each in exported.images] == ["whole"]
    assert exported.errors == ()
    assert exported.size_bytes == bundle.stat().st_size
    preview = import_bundle(bundle, **pair.far.everything, dry_run=True)
    assert ([each.change for each in preview.images], preview.errors) == (["carried"], ())
    assert pair.held() == set()
    report = import_bundle(bundle, **pair.far.everything)
    assert ([each.change for each in report.images], report.errors) == (["came"], ())
    failed = pair.far.sync()
    assert {error.code for error in failed.errors} == {"source-unreachable"}
    assert pair.far.registered() == {"1": "available"}
    again = import_bundle(bundle, **pair.far.everything)
    assert ([each.change for each in again.images], again.errors) == (["here"], ())


@pytest.mark.parametrize("told", ["inventory", "since"])
@pytest.mark.parametrize("with_patch", [True, False])
def test_of_what_is_there_only_the_difference_is_carried(pair, disks, with_patch, told):
    bundle, whole = pair.export()
    import_bundle(bundle, **pair.far.everything)
    pair.far.sync()
    if told == "inventory":
        path = pair.directory / "inventory.json"
        write_inventory(path, take_inventory(pair.far.settings), now=pair.far.clock.now())
        options = {"there": read_inventory(path)}
    else:
        pair.near.clock.advance(timedelta(hours=1))
        pair.far.clock.advance(timedelta(hours=1))
        options = {"since": pair.near.clock.now()}
    _, report = pair.export("same.tar", **options)
    assert [each.form for each in report.images] == ["there"]
    pair.renew(disks, with_patch=with_patch)
    bundle, report = pair.export("second.tar", **options)
    assert [each.form for each in report.images] == ["patch" if with_patch else "blocks"]
    assert report.size_bytes < whole.size_bytes / 4
    # Nothing that was fetched for the bundle alone stays.
    assert list((pair.near.settings.state_directory / "cache" / "partial" / "deltas").glob("*")) == []
    came = import_bundle(bundle, **pair.far.everything)
    assert came.errors == ()
    assert [each.method for each in came.images] == ["patch" if with_patch else "blocks"]
    pair.far.sync()
    assert pair.far.registered() == {"1": "superseded", "2": "available"}
    (link,) = (pair.directory / "far" / "cloud" / "current").iterdir()
    (disk,) = link.glob("disk.*")
    assert disk.read_bytes() == disks[1]


def test_a_difference_for_something_that_is_not_there_is_told_and_harms_nothing(pair, disks):
    pair.near.clock.advance(timedelta(hours=1))
    since = pair.near.clock.now()
    pair.renew(disks, with_patch=True)
    bundle, _ = pair.export(since=since)
    report = import_bundle(bundle, **pair.far.everything)
    assert [each.change for each in report.images] == ["failed"]
    assert len(report.errors) == 1
    assert pair.held() == set()


@pytest.mark.threat("T5")
def test_a_bundle_that_was_altered_at_any_part_changes_nothing(pair):
    bundle, _ = pair.export()
    good = bundle.read_bytes()
    with bundle.open("rb") as stream:
        layout = read_layout(stream)
    places = {0, 100, 300, 511, 520, 700, len(good) - 1, len(good) - 1024}
    for (_, size, _), offset in zip(layout.manifest.members(), layout.offsets, strict=True):
        places |= {offset - 512, offset - 300, offset - 1, offset, offset + size // 2, offset + size - 1, offset + size}
    altered = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in sorted(places) if at < len(good)]
    for bad in (*altered, b"", good[:-1], good[:511], good[: len(good) // 2], good + b"\0", good + bytes(512)):
        bundle.write_bytes(bad)
        with pytest.raises(BundleError):
            import_bundle(bundle, **pair.far.everything)
    assert pair.held() == set()
    assert pair.far.store.known()["demo"].in_force is None
    bundle.write_bytes(good)
    assert import_bundle(bundle, **pair.far.everything).errors == ()


def rewritten(bundle, change):
    """The bundle as somebody writes it who knows the format: the manifest fits what was altered."""
    with bundle.open("rb") as stream:
        layout = read_layout(stream)
        contents = []
        for (_, size, _), offset in zip(layout.manifest.members(), layout.offsets, strict=True):
            stream.seek(offset)
            contents.append(stream.read(size))
    old = layout.manifest
    lists, files, contents = change(list(old.lists), list(old.files), contents)
    with bundle.open("wb") as stream:
        write_bundle(
            stream,
            Manifest(created_at=old.created_at, lists=tuple(lists), files=tuple(files)),
            [[each] for each in contents],
        )


@pytest.mark.threat("T5")
def test_a_forged_list_is_refused_though_the_manifest_fits(pair):
    bundle, _ = pair.export()

    def change(lists, files, contents):
        forged = contents[0].replace(b"Debian 12", b"Debian 13")
        assert forged != contents[0]
        return [replace(lists[0], content=Checksum.of(forged))], files, [forged, *contents[1:]]

    rewritten(bundle, change)
    report = import_bundle(bundle, **pair.far.everything)
    assert [error.exit_code for error in report.errors] == [5]
    assert (report.images, pair.held()) == ((), set())


def told_by_nobody(source, subscription, clock):
    """What anybody can write for a subscription that asks for no signature."""
    disk = b"a disk of somebody else"
    digest = hashlib.sha512(disk).hexdigest()
    if source == "descriptors":
        told = {
            "action": "registration",
            "title": "Debian",
            "identifier": "debian",
            "version": "1",
            "os": {"distribution": "debian", "version": "12"},
            "disks": [{"type": "os", "format": "raw", "path": "a.raw"}],
        }
        image = {"path": "/a.raw", "sha512": digest, "size_bytes": len(disk)}
        documents = [("descriptor a.json", told), ("image a.json", image)]
        documents = [(name, f"{subscription.uri}/a", json.dumps(each).encode()) for name, each in documents]
    else:
        sums = f"{digest}  a.raw\n".encode()
        sizes = json.dumps({"a.raw": len(disk)}).encode()
        documents = [("checksums", f"{subscription.uri}/SHA256SUMS", sums), ("sizes", f"{subscription.uri}/", sizes)]
    documents = tuple(Document(name=name, uri=uri, data=data) for name, uri, data in documents)
    return disk, write_gathered(Gathered(driver=source, gathered_at=clock.now(), documents=documents), DEFAULT_LIMITS)


@pytest.mark.threat("T6")
@pytest.mark.parametrize(
    ("source", "uri", "options"),
    [
        ("descriptors", "file:///srv/descriptors", {"trust": "local"}),
        ("files", "https://example.org/images", {"trust": "transport", "pattern": ".*", "architecture": "x86_64"}),
    ],
)
def test_what_nobody_signed_is_not_taken_from_a_bundle_by_whomever_its_source_is_believed(pair, source, uri, options):
    far, now = pair.far, pair.far.clock.now()
    trust = TrustPolicy(endorsers=(), anchors=None)
    reference = SourceReference(driver=source, options=options)
    subscription = Subscription(
        name="unsigned", uri=uri, list_identifier=None, trust=trust, added_at=now, source=reference
    )
    far.store.add(subscription)
    disk, message = told_by_nobody(source, subscription, far.clock)
    # From its source it would be believed.
    opened = open_sources(far.database, None, far.clock, far.settings).open(reference)
    circumstances = Circumstances(last=None, now=now, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    assert len(opened.verify(message, subscription, circumstances).content.images) == 1
    bundle, _ = pair.export()

    def change(lists, files, contents):
        digest = Checksum.of(disk)
        forged = replace(lists[0], driver=source, uri=uri, size_bytes=len(message), content=Checksum.of(message))
        file = replace(files[0], checksums=(digest,), whole_bytes=len(disk), size_bytes=len(disk), content=digest)
        return [*lists, forged], [*files, file], [contents[0], message, *contents[1:], disk]

    rewritten(bundle, change)
    for dry_run in (True, False):
        report = import_bundle(bundle, **far.everything, dry_run=dry_run)
        assert [error.code for error in report.errors] == ["source-unverified"]
        assert len(report.images) == 1
    assert far.store.known()["unsigned"].in_force is None
    assert Checksum.of(disk) not in pair.held()


def test_a_list_that_nobody_signed_is_not_put_into_a_bundle_and_that_is_said(pair):
    near, now = pair.near, pair.near.clock.now()
    options = {"trust": "local"}
    reference = SourceReference(driver="descriptors", options=options)
    subscription = Subscription(
        name="unsigned",
        uri="file:///srv/descriptors",
        list_identifier=None,
        trust=TrustPolicy(endorsers=(), anchors=None),
        added_at=now,
        source=reference,
    )
    near.store.add(subscription)
    _, message = told_by_nobody("descriptors", subscription, near.clock)
    opened = open_sources(near.database, None, near.clock, near.settings).open(reference)
    circumstances = Circumstances(last=None, now=now, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    verified = opened.verify(message, subscription, circumstances)
    near.store.record(verified, message, as_of=subscription, etag=None, last_modified=None, terms=DEFAULT_TERMS)
    _, report = pair.export()
    assert [error.code for error in report.list_errors] == ["source-unverified"]
    assert "unsigned" not in [name for name, _ in report.lists]


def test_a_bundle_is_written_only_where_there_is_a_directory(pair, capsys):
    place = pair.directory / "stick" / "b.tar"
    pair.close()
    assert main(["--config", str(pair.near.config), "bundle", "export", str(place), "--json"]) == 3
    assert "there is no directory" in json.loads(capsys.readouterr().out)["errors"][0]["message"]
    assert not place.parent.exists()


@pytest.mark.threat("T86")
def test_a_forged_image_is_refused_though_the_manifest_fits(pair):
    bundle, _ = pair.export()

    def change(lists, files, contents):
        forged = contents[1][:-1] + bytes([contents[1][-1] ^ 1])
        return lists, [replace(files[0], content=Checksum.of(forged))], [contents[0], forged]

    rewritten(bundle, change)
    report = import_bundle(bundle, **pair.far.everything)
    assert [type(error) for error in report.errors] == [ChecksumMismatchError]
    assert pair.held() == set()


def test_an_older_list_is_refused_as_from_its_source(pair, disks):
    old, _ = pair.export("old.tar")
    pair.renew(disks, with_patch=False)
    new, _ = pair.export("new.tar")
    assert import_bundle(new, **pair.far.everything).errors == ()
    for dry_run in (True, False):
        report = import_bundle(old, **pair.far.everything, dry_run=dry_run)
        assert [type(error) for error in report.errors] == [OlderListError]
    assert pair.far.store.known()["demo"].in_force.version == pair.publisher.simulator.version


def test_a_list_that_nobody_follows_is_not_taken(pair):
    bundle, _ = pair.export()
    pair.far.store.remove("demo", now=pair.far.clock.now())
    with pytest.raises(StateError, match="nobody here follows"):
        import_bundle(bundle, **pair.far.everything)


def test_nothing_is_taken_for_a_paused_subscription_and_that_is_said(pair):
    bundle, _ = pair.export()
    now = pair.far.clock.now()
    pair.far.store.edit("demo", lambda each: replace(each, paused_at=now), now=now)
    report = import_bundle(bundle, **pair.far.everything)
    assert [error.code for error in report.errors] == ["state-invalid"]
    assert pair.held() == set()


@pytest.mark.threat("T79")
def test_an_import_that_was_cut_off_is_run_again(pair, monkeypatch):
    bundle, _ = pair.export()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("coppice.cache.shelf.Shelf.put", killed)
        with pytest.raises(KeyboardInterrupt):
            import_bundle(bundle, **pair.far.everything)
    report = import_bundle(bundle, **pair.far.everything)
    assert ([each.change for each in report.images], report.errors) == (["came"], ())


def test_no_bundle_is_half_written(pair, monkeypatch):
    Shelf(pair.near.settings.state_directory / "cache")
    for path in (pair.near.settings.state_directory / "cache" / "objects").rglob("*"):
        if path.is_file() and path.suffix != ".json":
            path.chmod(0o644)
            content = path.read_bytes()
            stamp = path.stat()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    # The file in the cache was altered: it is fetched anew, and the bundle is good.
    bundle, report = pair.export()
    assert report.errors == ()
    assert import_bundle(bundle, **pair.far.everything).errors == ()
    monkeypatch.setattr("coppice.workflows.export_bundle.write_bundle", broken)
    with pytest.raises(CoppiceError):
        pair.export("other.tar")
    assert not (pair.directory / "other.tar").exists()


def broken(stream, *_):
    stream.write(b"half")
    raise BundleError("it broke")


@pytest.mark.threat("T78")
def test_no_name_in_a_bundle_is_a_path(pair):
    bundle, _ = pair.export()
    for name in ("../../evil", "/etc/evil", "list-0"):
        with tarfile.open(bundle, "w", format=tarfile.GNU_FORMAT) as archive:
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
        with pytest.raises(BundleError):
            import_bundle(bundle, **pair.far.everything)
    with tarfile.open(bundle, "w") as archive:
        link = tarfile.TarInfo("manifest.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(BundleError):
        import_bundle(bundle, **pair.far.everything)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "coppice-bundle-2"},
        {"created_at": "yesterday"},
        {"lists": {}},
        {"files": [{}]},
        {"files": [{"checksums": [], "whole_size": 1, "ranges": None, "size": 1, "content": "sha512:00"}]},
        {"files": [{"checksums": ["x"], "whole_size": -1, "ranges": [[0, 0]], "size": 1, "content": None}]},
        {"more": 1},
    ],
)
def test_manifests_that_are_none_are_refused(change):
    good = Manifest(created_at=datetime(2026, 11, 1, tzinfo=UTC), lists=(), files=()).to_json()
    assert parse_manifest(good).files == ()
    with pytest.raises(BundleError):
        parse_manifest(json.dumps(json.loads(good) | change, indent=1).encode() + b"\n")


def test_the_commands_say_what_they_did(pair, capsys):
    bundle, inventory = str(pair.directory / "b.tar"), str(pair.directory / "i.json")
    near, far = str(pair.near.config), str(pair.far.config)
    pair.close()
    for words, code in (
        (["--config", far, "bundle", "inventory", inventory, "--json"], 0),
        (["--config", near, "bundle", "export", bundle, "--have", inventory, "--json"], 0),
        (["--config", far, "bundle", "import", "--dry-run", bundle, "--json"], 0),
        (["--config", far, "bundle", "import", bundle, "--json"], 0),
        (["--config", far, "bundle", "import", inventory, "--json"], 5),
        (["--config", near, "bundle", "export", bundle, "nobody", "--json"], 12),
    ):
        ended = main(words)
        said = json.loads(capsys.readouterr().out)
        assert ended == code, said
    assert said["errors"][0]["code"] == "not-found"
