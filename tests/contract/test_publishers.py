# SPDX-License-Identifier: Apache-2.0
"""What every publisher keeps to, each against the real server of its kind."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.errors import CoppiceError, ExistsError, InputError, SettingsError
from coppice.imagelist.directory import DirectoryPublisher
from coppice.imagelist.place import Kind
from coppice.imagelist.publication import PlacePublisher
from coppice.imagelist.publishers import BUILT_IN, load_publisher
from coppice.monitor import SILENT
from coppice.settings.model import PublisherSettings
from coppice.testing.publishing import SERVERS, open_server
from coppice.testing.publishing.edition import Editor
from coppice.testing.publishing.memory import MemoryPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.testing.publishing.server import PublishingServer

# The servers are started once for all tests of this file, so one process has to run them.
pytestmark = [pytest.mark.contract, pytest.mark.xdist_group("publishers")]
NAME = "0f0c.qcow2"
LARGE = 6 * 1024 * 1024
"""More than a part of an S3 upload, or a chunk of an OCI upload, as the test servers have them."""


class Stage:
    """A publisher at a place of its own, and a reader's view of it."""

    def __init__(self, driver: str, server: PublishingServer | None, area: str) -> None:
        self.driver, self.server, self.area = driver, server, area
        self.memory = MemoryPlace()

    def publisher(self) -> PlacePublisher:
        if self.server is None:
            return PlacePublisher(self.memory)
        found = load_publisher(
            PublisherSettings(name="here", driver=self.driver, options=self.server.options(self.area))
        )
        assert isinstance(found, PlacePublisher)
        return found

    def fetch(self, uri: str) -> bytes | None:
        if self.server is not None:
            return self.server.fetch(uri)
        return {self.memory.address(*key): data for key, data in self.memory.held.items()}.get(uri)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], PublishingServer]]:
    running: dict[str, PublishingServer] = {}

    def get(driver: str) -> PublishingServer:
        if driver not in running:
            running[driver] = open_server(driver, tmp_path_factory.mktemp(driver)).__enter__()
        return running[driver]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture(params=["memory", *SERVERS])
def stage(request: pytest.FixtureRequest, servers: Callable[[str], PublishingServer], tmp_path: Path) -> Stage:
    area = tmp_path.name.lower().replace("[", "").replace("]", "").replace("_", "-").strip("-")
    return Stage(request.param, None if request.param == "memory" else servers(request.param), area)


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    return Editor(tmp_path)


def test_every_publisher_that_coppice_brings_is_tested_here() -> None:
    assert set(SERVERS) == set(BUILT_IN)


def test_list_and_images_lie_where_their_addresses_say(stage: Stage, editor: Editor) -> None:
    publisher = stage.publisher()
    image = editor.image("a", LARGE)
    edition = editor.edition(publisher, {NAME: image})
    assert publisher.published("demo") is None
    publication = edition.publish(publisher)
    assert (publication.images_written, publication.bytes_written) == ((NAME,), LARGE)
    assert publication.list_uri == publisher.list_uri("demo")
    assert stage.fetch(publisher.list_uri("demo")) == edition.signed.message
    assert stage.fetch(publisher.image_uri(NAME)) == image.read_bytes()
    assert stage.publisher().published("demo") == edition.signed.message


def test_publishing_again_copies_nothing_and_replaces_the_list(stage: Stage, editor: Editor) -> None:
    files = {NAME: editor.image("a")}
    first = editor.edition(stage.publisher(), files)
    first.publish(stage.publisher())
    assert first.publish(stage.publisher()).images_written == ()
    newer = editor.edition(stage.publisher(), files)
    assert newer.publish(stage.publisher()).images_written == ()
    assert stage.fetch(stage.publisher().list_uri("demo")) == newer.signed.message


def test_an_image_never_changes_under_its_name(stage: Stage, editor: Editor) -> None:
    publisher = stage.publisher()
    image = editor.image("a")
    first = editor.edition(publisher, {NAME: image})
    first.publish(publisher)
    before, where = image.read_bytes(), publisher.image_uri(NAME)
    other = editor.edition(publisher, {NAME: editor.image("a")})
    with pytest.raises(ExistsError):
        other.publish(stage.publisher())
    assert stage.fetch(where) == before
    assert stage.fetch(publisher.list_uri("demo")) == first.signed.message


def test_an_image_that_is_not_what_the_list_says_keeps_the_list_back(stage: Stage, editor: Editor) -> None:
    publisher = stage.publisher()
    image = editor.image("a")
    edition = editor.edition(publisher, {NAME: image})
    image.write_bytes(b"another")
    with pytest.raises(InputError):
        publisher.publish("demo", edition.signed, edition.files, SILENT)
    assert stage.fetch(publisher.list_uri("demo")) is None


@pytest.mark.threat("T78")
@pytest.mark.parametrize("name", ["../x", "/etc/x", ".", "..", ".hidden", "a/b", "a\n", ""])
def test_names_cannot_leave_their_place(stage: Stage, name: str, tmp_path: Path) -> None:
    publisher = stage.publisher()
    for address in (publisher.image_uri, publisher.list_uri, publisher.published):
        with pytest.raises(InputError):
            address(name)
    with pytest.raises(InputError):
        publisher.prepare({name: tmp_path}, SILENT)


def test_an_image_is_removed_when_no_list_has_named_it_for_long_enough(stage: Stage, editor: Editor) -> None:
    publisher = stage.publisher()
    old, kept = editor.image("a"), editor.image("b")
    editor.edition(publisher, {"old.raw": old, "kept.raw": kept}).publish(publisher)
    old_uri, kept_uri = publisher.image_uri("old.raw"), publisher.image_uri("kept.raw")
    before = datetime.now(UTC)
    newer = editor.edition(publisher, {"kept.raw": kept})
    newer.publish(publisher)
    assert stage.publisher().retire(unnamed_since=before, monitor=SILENT) == ()
    assert stage.fetch(old_uri) == old.read_bytes()
    assert stage.publisher().retire(unnamed_since=datetime.now(UTC), monitor=SILENT) == ("old.raw",)
    assert stage.publisher().place.names(Kind.IMAGE) == ("kept.raw",)
    assert stage.fetch(kept_uri) == kept.read_bytes()
    assert stage.fetch(publisher.list_uri("demo")) == newer.signed.message
    if stage.driver != "oci":
        # A registry collects the bytes of what nothing names in its own time.
        assert stage.fetch(old_uri) is None


def test_an_image_that_another_list_of_the_place_names_stays(stage: Stage, editor: Editor) -> None:
    publisher = stage.publisher()
    image, other = editor.image("a"), editor.image("b")
    editor.edition(publisher, {NAME: image}).publish(publisher, "one")
    editor.edition(publisher, {NAME: image}).publish(publisher, "two")
    editor.edition(publisher, {"other.raw": other}).publish(publisher, "one")
    assert publisher.retire(unnamed_since=datetime.now(UTC) + timedelta(days=1), monitor=SILENT) == ()
    assert stage.fetch(publisher.image_uri(NAME)) == image.read_bytes()


def test_files_of_deltas_are_held_like_images(stage: Stage, editor: Editor) -> None:
    publisher = stage.publisher()
    image, parts = editor.image("a"), {f"delta-{each}": editor.image(f"delta-{each}") for each in ("x.index", "y.pack")}
    edition = editor.edition(publisher, {NAME: image}, parts)
    assert set(edition.publish(publisher).images_written) == {NAME, *parts}
    uris = {name: publisher.image_uri(name) for name in parts}
    for name, path in parts.items():
        assert uris[name].encode() in edition.payload
        assert stage.fetch(uris[name]) == path.read_bytes()
    later = datetime.now(UTC) + timedelta(days=1)
    assert stage.publisher().retire(unnamed_since=later, monitor=SILENT) == ()
    # They are there already: the next version need not bring them along.
    again = editor.edition(publisher, {NAME: image}, parts)
    assert publisher.publish("demo", again.signed, {NAME: image}, SILENT).images_written == ()
    editor.edition(publisher, {NAME: image}).publish(publisher)
    assert set(stage.publisher().retire(unnamed_since=later, monitor=SILENT)) == set(parts)
    assert stage.fetch(publisher.image_uri(NAME)) == image.read_bytes()


def test_a_list_that_names_a_file_of_a_delta_that_is_not_there_is_not_published(stage: Stage, editor: Editor) -> None:
    publisher = stage.publisher()
    image, parts = editor.image("a"), {"delta-x.index": editor.image("delta-x.index")}
    edition = editor.edition(publisher, {NAME: image}, parts)
    other = editor.image("other")
    if stage.driver == "oci":
        # Nothing at a registry has that digest: whose it is, nobody can tell.
        return
    with pytest.raises(InputError, match="not handed in"):
        publisher.publish("demo", edition.signed, {NAME: image}, SILENT)
    with pytest.raises(InputError, match="not the one"):
        publisher.publish("demo", edition.signed, {NAME: image, "delta-x.index": other}, SILENT)
    assert publisher.published("demo") is None


def test_while_one_list_cannot_be_understood_nothing_is_removed(stage: Stage, editor: Editor) -> None:
    publisher = stage.publisher()
    editor.edition(publisher, {NAME: editor.image("a")}).publish(publisher, "one")
    editor.edition(publisher, {"other.raw": editor.image("b")}).publish(publisher, "one")
    publisher.place.replace(Kind.LIST, "strange", b"what is this?")
    later = datetime.now(UTC) + timedelta(days=1)
    assert publisher.retire(unnamed_since=later, monitor=SILENT) == ()
    publisher.place.replace(Kind.LIST, "strange", publisher.published("one") or b"")
    assert publisher.retire(unnamed_since=later, monitor=SILENT) == (NAME,)


def test_two_lists_are_published_to_one_place_at_the_same_time(stage: Stage, editor: Editor, tmp_path: Path) -> None:
    shared = editor.image("shared", LARGE)
    failures: list[CoppiceError] = []
    editions = {}
    for list_name in ("one", "two"):
        publisher = stage.publisher()
        files = {"shared.raw": shared, f"{list_name}.raw": editor.image(list_name)}
        editions[list_name] = (publisher, editor.edition(publisher, files))

    def publish(list_name: str) -> None:
        publisher, edition = editions[list_name]
        try:
            edition.publish(publisher, list_name)
        except CoppiceError as error:
            failures.append(error)

    threads = [threading.Thread(target=publish, args=(list_name,)) for list_name in editions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0].details or failures[0].message
    for list_name, (publisher, edition) in editions.items():
        assert stage.fetch(publisher.list_uri(list_name)) == edition.signed.message
        for name, path in edition.files.items():
            assert stage.fetch(publisher.image_uri(name)) == path.read_bytes()
    publisher = stage.publisher()
    publisher.place.sweep(older_than_seconds=0)
    assert publisher.place.names(Kind.IMAGE) == ("one.raw", "shared.raw", "two.raw")
    assert all(name.startswith("ledger-") for name in publisher.place.names(Kind.NOTE))


def test_an_empty_image_and_many_small_ones_are_published(stage: Stage, editor: Editor) -> None:
    publisher = stage.publisher()
    files = {f"image-{number}.raw": editor.image(f"i{number}", number) for number in range(12)}
    edition = editor.edition(publisher, files)
    assert len(edition.publish(publisher).images_written) == 12
    assert publisher.place.names(Kind.IMAGE) == tuple(sorted(files))
    assert stage.fetch(publisher.image_uri("image-0.raw")) == b""


def test_a_directory_hides_nothing_half_made(tmp_path: Path, editor: Editor) -> None:
    publisher = DirectoryPublisher(tmp_path / "public", "https://lists.example.org/")
    image = editor.image("a")
    before = image.read_bytes()
    editor.edition(publisher, {NAME: image}).publish(publisher)
    found = sorted(path.relative_to(tmp_path / "public").as_posix() for path in (tmp_path / "public").rglob("*"))
    notes = [".coppice", ".coppice/ledger-demo.json"]
    assert found == [*notes, "demo.list", "images", f"images/{NAME}"]
    assert publisher.image_uri(NAME) == f"https://lists.example.org/images/{NAME}"
    image.write_bytes(b"changed later")
    assert (tmp_path / "public/images" / NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("pigeon", {}),
        ("directory", {}),
        ("directory", {"path": "/x", "ulr": "y"}),
        ("directory", {"path": 7}),
        ("sftp", {"host": "h", "user": "u", "path": "/x", "url": "https://x", "key_file": "/k"}),
        ("sftp", {"host": "h", "user": "u", "path": "/x", "url": "https://x", "known_hosts": "/k"}),
        ("sftp", {"host": "h", "user": "u", "path": "/x", "url": "https://x", "known_hosts": "/k", "key_file": 1}),
        ("webdav", {}),
        ("webdav", {"url": "https://x", "username": "u"}),
        ("webdav", {"url": "https://x", "bearer_token_file": "/a", "access_token_file": "/b"}),
        ("webdav", {"url": "https://x", "bearer_token_file": "/a", "bearer_token_env": "B"}),
        ("webdav", {"url": "https://x", "verify": "never"}),
        ("webdav", {"url": "https://x", "allow_private_addresses": "yes"}),
        ("s3", {"endpoint": "https://x", "bucket": "b"}),
        ("s3", {"endpoint": "x", "bucket": "b", "access_key_env": "A", "secret_key_env": "B"}),
        ("s3", {"endpoint": "https://x", "bucket": "b", "access_key_env": "A", "secret_key_env": "B", "part_size": 1}),
        ("oci", {"registry": "r/x", "repository": "y"}),
        ("oci", {"registry": "r", "repository": "UPPER"}),
        ("oci", {"registry": "r", "repository": "y", "verify": "full"}),
    ],
)
def test_wrong_settings_are_named(driver: str, options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"publishers\.here"):
        load_publisher(PublisherSettings(name="here", driver=driver, options=options))
