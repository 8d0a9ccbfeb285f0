# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from coppice.errors import ExistsError, InputError, SettingsError
from coppice.formats.hepix import read_list
from coppice.imagelist.directory import DirectoryPublisher
from coppice.imagelist.model import Publication, SignedImageList
from coppice.imagelist.publishers import load_publisher
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT
from coppice.settings.model import PublisherSettings
from coppice.testing.authority import Authority
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.imagelist.model import Publisher
    from coppice.monitor import Monitor

pytestmark = pytest.mark.contract
NAME = "0f0c.qcow2"


class MemoryPublisher:
    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def image_uri(self, file_name: str) -> str:
        return f"memory:///images/{self._safe(file_name)}"

    def list_uri(self, list_name: str) -> str:
        return f"memory:///{self._safe(list_name)}.list"

    def publish(
        self, list_name: str, signed: SignedImageList, files: Mapping[str, Path], monitor: Monitor
    ) -> Publication:
        written = {}
        for name, path in files.items():
            data, uri = path.read_bytes(), self.image_uri(name)
            if any(image.uri == uri and image.checksum != Checksum.of(data) for image in signed.content.images):
                raise InputError(f"{path} is not the one in the catalogue")
            if self.held.get(uri, data) != data:
                raise ExistsError(f"{uri} is there with other content")
            if uri not in self.held:
                written[name] = len(data)
            self.held[uri] = data
        self.held[self.list_uri(list_name)] = signed.message
        return Publication(
            list_uri=self.list_uri(list_name), images_written=tuple(written), bytes_written=sum(written.values())
        )

    @staticmethod
    def _safe(name: str) -> str:
        if "/" in name or name.startswith("."):
            raise InputError(f"{name!r} is not safe")
        return name


@pytest.fixture(params=["memory", "directory"])
def publisher(request: pytest.FixtureRequest, tmp_path: Path) -> Publisher:
    if request.param == "memory":
        return MemoryPublisher()
    settings = PublisherSettings(name="here", driver="directory", options={"path": str(tmp_path / "public")})
    return load_publisher(settings)


def fetched(publisher: Publisher, uri: str) -> bytes:
    if isinstance(publisher, MemoryPublisher):
        return publisher.held[uri]
    return Path(unquote(urlsplit(uri).path)).read_bytes()


def signed_list(publisher: Publisher, data: bytes, version: str = "1") -> SignedImageList:
    simulator = Simulator.create(Authority.create("Example CA"))
    simulator.version = version
    simulator.add_image(data=data)["hv:uri"] = publisher.image_uri(NAME)
    return SignedImageList(
        content=read_list(simulator.payload()),
        message=simulator.message(),
        payload_checksum=Checksum.of(b""),
        signer=simulator.endorser.subject,
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "source.qcow2"
    path.write_bytes(b"disk")
    return path


def test_list_and_images_lie_where_their_addresses_say(publisher: Publisher, image: Path) -> None:
    signed = signed_list(publisher, b"disk")
    publication = publisher.publish("demo", signed, {NAME: image}, SILENT)
    assert (publication.images_written, publication.bytes_written) == ((NAME,), 4)
    assert publication.list_uri == publisher.list_uri("demo")
    assert fetched(publisher, publisher.list_uri("demo")) == signed.message
    assert fetched(publisher, publisher.image_uri(NAME)) == b"disk"


def test_publishing_again_copies_nothing_and_replaces_the_list(publisher: Publisher, image: Path) -> None:
    publisher.publish("demo", signed_list(publisher, b"disk"), {NAME: image}, SILENT)
    newer = signed_list(publisher, b"disk", version="2")
    assert publisher.publish("demo", newer, {NAME: image}, SILENT).images_written == ()
    assert fetched(publisher, publisher.list_uri("demo")) == newer.message


def test_an_image_never_changes_under_its_name(publisher: Publisher, image: Path) -> None:
    first = signed_list(publisher, b"disk")
    publisher.publish("demo", first, {NAME: image}, SILENT)
    image.write_bytes(b"other")
    with pytest.raises(ExistsError):
        publisher.publish("demo", signed_list(publisher, b"other", version="2"), {NAME: image}, SILENT)
    assert fetched(publisher, publisher.image_uri(NAME)) == b"disk"
    assert fetched(publisher, publisher.list_uri("demo")) == first.message


def test_an_image_that_is_not_what_the_list_says_keeps_the_list_back(publisher: Publisher, image: Path) -> None:
    with pytest.raises(InputError, match="catalogue"):
        publisher.publish("demo", signed_list(publisher, b"promised"), {NAME: image}, SILENT)
    with pytest.raises((FileNotFoundError, KeyError)):
        fetched(publisher, publisher.list_uri("demo"))


@pytest.mark.threat("T78")
@pytest.mark.parametrize("name", ["../x", "/etc/x", ".", "..", ".hidden", "a/b"])
def test_names_cannot_leave_their_place(publisher: Publisher, name: str) -> None:
    for address in (publisher.image_uri, publisher.list_uri):
        with pytest.raises(InputError):
            address(name)


def test_a_directory_hides_nothing_half_made(tmp_path: Path, image: Path) -> None:
    publisher = DirectoryPublisher(tmp_path / "public", "https://lists.example.org/")
    publisher.publish("demo", signed_list(publisher, b"disk"), {NAME: image}, SILENT)
    found = sorted(path.relative_to(tmp_path / "public").as_posix() for path in (tmp_path / "public").rglob("*"))
    notes = [".coppice", ".coppice/ledger-demo.json"]
    assert found == [*notes, "demo.list", "images", f"images/{NAME}"]
    assert publisher.image_uri(NAME) == f"https://lists.example.org/images/{NAME}"
    image.write_bytes(b"changed later")
    assert (tmp_path / "public/images" / NAME).read_bytes() == b"disk"


def test_an_image_that_is_not_handed_in_keeps_the_list_back(tmp_path: Path) -> None:
    publisher = DirectoryPublisher(tmp_path, "https://lists.example.org")
    with pytest.raises(InputError, match="not handed in"):
        publisher.publish("demo", signed_list(publisher, b"disk"), {}, SILENT)


@pytest.mark.parametrize(
    ("driver", "options"),
    [("pigeon", {}), ("directory", {}), ("directory", {"path": "/x", "ulr": "y"}), ("directory", {"path": 7})],
)
def test_wrong_settings_are_named(driver: str, options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"publishers\.here"):
        load_publisher(PublisherSettings(name="here", driver=driver, options=options))
