# SPDX-License-Identifier: Apache-2.0
"""Signed image lists: at nginx, in a folder, in a registry, and in a bucket."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from coppice.formats.hepix import read_list
from coppice.imagelist.model import SignedImageList
from coppice.imagelist.place import Kind
from coppice.imagelist.publication import PlacePublisher
from coppice.imagelist.publishers import load_publisher
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT
from coppice.settings.model import PublisherSettings
from coppice.subscription.model import Subscription, TrustBasis
from coppice.testing.authority import Authority
from coppice.testing.nginx import Nginx
from coppice.testing.publishing import open_server
from coppice.testing.publishing.swift import BUCKET, SwiftServer
from coppice.testing.simulator import Simulator
from coppice.testing.stages.stage import NOW, SourceStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.testing.publishing.server import PublishingServer


class _SignedLists(SourceStage):
    """A publisher of one signed list, wherever it lies."""

    driver = "hepix"
    basis = TrustBasis.X509
    is_signed = True
    tampered_codes = frozenset({"list-tampered"})

    def start(self) -> None:
        """Make an authority and an endorser."""
        self.authority = Authority.create("Example CA")
        self.anchors = self.authority.write_to(self.directory / "anchors")
        self.publisher = Simulator.create(self.authority)
        for architecture in ("x86_64", "aarch64"):
            self.publisher.add_image(title=f"Debian {architecture}", data=b"-", sl_arch=architecture)

    def subscription(self) -> Subscription:
        """Return a subscription that pins the endorser."""
        return replace(self.publisher.subscription(self.anchors), list_identifier=None)

    def distrust(self) -> None:
        """Revoke the endorser's certificate."""
        self.authority.revoke(self.publisher.endorser.certificate)
        shutil.rmtree(self.anchors)
        self.authority.write_to(self.anchors)

    def images(self, number: int) -> dict[str, tuple[str, bytes]]:
        """Return the name and the bytes of each image, by architecture."""
        self.publisher.version = str(number)
        self.publisher.created = NOW - timedelta(hours=100 - number)
        return {
            image["sl:arch"]: (
                f"{image['dc:identifier']}-{number}.img",
                f"{image['sl:arch']} {number} ".encode() * 1000,
            )
            for image in self.publisher.images
        }

    def sign(self, number: int, images: Mapping[str, tuple[str, bytes]], uris: Mapping[str, str]) -> bytes:
        """Return the list of these images."""
        for image in self.publisher.images:
            name, data = images[image["sl:arch"]]
            image["hv:uri"], image["hv:version"], image["hv:size"] = uris[name], str(number), str(len(data))
            image["sl:checksum:sha512"] = hashlib.sha512(data).hexdigest()
        return self.publisher.message()


class HepixOverHttp(_SignedLists):
    """A signed image list at nginx."""

    def start(self) -> None:
        """Start nginx."""
        super().start()
        self.server = Nginx(self.directory / "nginx").__enter__()
        self.publisher.uri = self.server.url("/demo.list")

    def stop(self) -> None:
        """End it."""
        self.server.stop()

    def publish(self, number: int) -> Mapping[str, bytes]:
        """Put the images and the list there."""
        images = self.images(number)
        for name, data in images.values():
            self.server.put(name, data)
        uris = {name: self.server.url(f"/{name}") for name, _ in images.values()}
        self.server.put("demo.list", self.sign(number, images, uris))
        return {architecture: data for architecture, (_, data) in images.items()}

    def tamper(self) -> None:
        """Change the title after it was signed."""
        self.server.put("demo.list", self.publisher.tampered())

    def fail(self, how: str) -> None:
        """Make the source fail."""
        if how == "gone":
            (self.server.root / "demo.list").unlink()
        elif how == "empty":
            self.server.put("demo.list", b"")
        else:
            self.server.go_down()


class _Published(_SignedLists):
    """A signed image list where a publisher of Coppice puts it."""

    publisher_driver: ClassVar[str]

    def start(self) -> None:
        """Start the server."""
        super().start()
        self.server = self.open()
        settings = PublisherSettings(name="here", driver=self.publisher_driver, options=self.options())
        opened = load_publisher(settings)
        if not isinstance(opened, PlacePublisher):
            message = f"{self.publisher_driver} is no publisher of Coppice's own"
            raise TypeError(message)
        self.place_publisher = opened
        self.publisher.uri = opened.list_uri("demo")

    def open(self) -> PublishingServer:
        """Start the server."""
        return open_server(self.publisher_driver, self.directory / "server").__enter__()

    def options(self) -> dict[str, object]:
        """Return the publisher's options."""
        return self.server.options("demo")

    def stop(self) -> None:
        """End the server."""
        self.server.stop()

    def publish(self, number: int) -> Mapping[str, bytes]:
        """Publish images and list."""
        images = self.images(number)
        files = {}
        for name, data in images.values():
            files[name] = self.directory / name
            files[name].write_bytes(data)
        self.place_publisher.prepare(files, SILENT)
        message = self.sign(number, images, {name: self.place_publisher.image_uri(name) for name in files})
        payload = self.publisher.payload()
        signed = SignedImageList(
            content=read_list(payload),
            message=message,
            payload_checksum=Checksum.of(payload),
            signer=self.publisher.endorser.subject,
        )
        self.place_publisher.publish("demo", signed, files, SILENT)
        return {architecture: data for architecture, (_, data) in images.items()}

    def tamper(self) -> None:
        """Change the title after it was signed."""
        self.place_publisher.place.replace(Kind.LIST, "demo", self.publisher.tampered())

    def fail(self, how: str) -> None:
        """Take the list away, empty it, or end the server."""
        if how == "gone":
            self.place_publisher.place.delete(Kind.LIST, "demo")
        elif how == "empty":
            self.place_publisher.place.replace(Kind.LIST, "demo", b"")
        else:
            self.server.stop()


class HepixInFolder(_Published):
    """A signed image list in a folder of this machine."""

    publisher_driver = "directory"

    def fail(self, how: str) -> None:
        """Take the list away or empty it; or put a folder in its place, which cannot be read."""
        if how != "down":
            super().fail(how)
            return
        path = self.server.directory / "demo" / "demo.list"
        found = next(each for each in (path, path.with_suffix("")) if each.exists())
        found.unlink()
        found.mkdir()


class HepixInRegistry(_Published):
    """A signed image list in Debian's registry."""

    publisher_driver = "oci"


class HepixInBucket(_Published):
    """A signed image list in a bucket that everybody may read; all have one server, which takes long to start."""

    publisher_driver = "s3"
    failures = ("gone", "empty")
    _shared: ClassVar[SwiftServer | None] = None

    def open(self) -> PublishingServer:
        """Start the server, if none of these stages did before."""
        if HepixInBucket._shared is None:
            scratch = Path(tempfile.mkdtemp(prefix="coppice-bucket-"))
            HepixInBucket._shared = SwiftServer(scratch).__enter__()
            HepixInBucket._shared.client().put_bucket_acl(Bucket=BUCKET, ACL="public-read")
        return HepixInBucket._shared

    def options(self) -> dict[str, object]:
        """Return the publisher's options, with the address at which Swift answers whoever has no key."""
        area = uuid.uuid4().hex
        url = f"http://127.0.0.1:{self.server.port}/v1/AUTH_test/{BUCKET}/{area}"
        return {**self.server.options(area), "url": url}

    def stop(self) -> None:
        """Leave the server to the others."""

    @classmethod
    def close(cls) -> None:
        """End the server."""
        shared, HepixInBucket._shared = HepixInBucket._shared, None
        if shared is not None:
            shared.stop()
            shutil.rmtree(shared.directory)
