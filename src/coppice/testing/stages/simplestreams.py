# SPDX-License-Identifier: Apache-2.0
"""Simplestreams at nginx: signed as Ubuntu's are, and believed by the server's name as those of LXD and Incus."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.subscription.model import SourceReference, Subscription, TrustBasis
from coppice.testing import streams
from coppice.testing.nginx import Nginx
from coppice.testing.openpgp import GnuPg
from coppice.testing.stages.stage import NO_TRUST, NOW, SourceStage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class StreamsByKey(SourceStage):
    """Index and products as Ubuntu publishes them, clear-signed."""

    driver = "simplestreams"
    basis = TrustBasis.OPENPGP
    is_signed = True
    tampered_codes = frozenset({"list-tampered"})
    content_id = "com.ubuntu.cloud:released:download"
    products_name = "com.ubuntu.cloud:released:download.sjson"
    index_name = "index.sjson"

    def start(self) -> None:
        """Start nginx, and make keys."""
        self.server = Nginx(self.directory / "nginx").__enter__()
        self.gnupg = GnuPg(at=NOW - timedelta(minutes=1)).__enter__()
        self.key = self.gnupg.make_key(at=NOW - timedelta(days=100))
        self.keyring = self.directory / "keyring.gpg"
        self.keyring.write_bytes(self.gnupg.export(self.key))
        self.options: dict[str, object] = {"keyring": [str(self.keyring)]}

    def stop(self) -> None:
        """End both."""
        self.server.stop()
        self.gnupg.__exit__(None, None, None)

    def subscription(self) -> Subscription:
        """Return a subscription to the mirror."""
        return Subscription(
            name="demo",
            uri=self.server.url("/releases/"),
            list_identifier=None,
            trust=NO_TRUST,
            added_at=NOW,
            source=SourceReference(driver="simplestreams", options=self.options),
        )

    def date(self, number: int) -> datetime:
        """Return when a version was published."""
        return NOW - timedelta(hours=100 - number)

    def publish(self, number: int) -> Mapping[str, bytes]:
        """Publish disks, products and index."""
        disks = {arch: f"{arch} {number} ".encode() * 1000 for arch in ARCHITECTURES}
        for arch, disk in disks.items():
            self.put(self.disk_path(arch, number), disk)
        products = self.products(disks, number)
        contents = {
            self.content_id: streams.entry(
                f"streams/v1/{self.products_name}", products, updated=self.entry_date(number)
            ),
            "com.ubuntu.cloud:released:aws": streams.entry(
                "streams/v1/aws.sjson", {"products": {}}, datatype="image-ids", updated=self.entry_date(number)
            ),
        }
        self.put(f"streams/v1/{self.products_name}", self.sealed(streams.written(products), number))
        index = streams.index(contents, updated=self.entry_date(number))
        self.put(f"streams/v1/{self.index_name}", self.sealed(streams.written(index), number))
        return disks

    def products(self, disks: Mapping[str, bytes], number: int) -> streams.Json:
        """Return the products."""
        found = {
            f"com.ubuntu.cloud:server:24.04:{ARCHITECTURES[arch]}": streams.ubuntu_product(
                "noble", ARCHITECTURES[arch], {"20250101": b"old", f"20260101.{number}": disk}
            )
            for arch, disk in disks.items()
        }
        return streams.products(self.content_id, found, updated=self.date(number))

    def disk_path(self, arch: str, number: int) -> str:
        """Return where a disk is, below the mirror's base."""
        name = f"ubuntu-24.04-server-cloudimg-{ARCHITECTURES[arch]}.img"
        return f"server/releases/noble/release-20260101.{number}/{name}"

    def entry_date(self, number: int) -> datetime | None:
        """Return what the index says of the products' date."""
        return self.date(number)

    def sealed(self, document: bytes, number: int) -> bytes:
        """Return a document as it is published."""
        return self.gnupg.clear_sign(document, self.key, at=self.date(number))

    def put(self, path: str, data: bytes) -> None:
        """Put a file below the mirror's base."""
        self.server.put(f"releases/{path}", data)

    def tamper(self) -> None:
        """Change a digest in the products."""
        place = self.server.root / f"releases/streams/v1/{self.products_name}"
        self.put(f"streams/v1/{self.products_name}", place.read_bytes().replace(b'"sha256": "', b'"sha256": "0'))

    def fail(self, how: str) -> None:
        """Make the source fail."""
        index = f"streams/v1/{self.index_name}"
        if how == "gone":
            (self.server.root / "releases" / index).unlink()
        elif how == "empty":
            self.put(index, b"")
        else:
            self.server.go_down()

    def distrust(self) -> None:
        """Keep another key in the keyring."""
        self.keyring.write_bytes(self.gnupg.export(self.gnupg.make_key("Somebody else")))


class StreamsByTransport(StreamsByKey):
    """A server of LXD's, which signs nothing and dates nothing."""

    basis = TrustBasis.TRANSPORT
    is_signed = False
    tampered_codes = frozenset()
    content_id = "images"
    products_name = "images.json"
    index_name = "index.json"

    def start(self) -> None:
        """Start nginx."""
        super().start()
        self.options = {"trust": "transport"}

    def products(self, disks: Mapping[str, bytes], number: int) -> streams.Json:
        """Return the products."""
        found = {
            f"alpine:3.22:{ARCHITECTURES[arch]}:default": streams.lxd_product(
                "Alpine", "3.22", ARCHITECTURES[arch], {"20250101_00:00": b"old", f"20260101_13:0{number}": disk}
            )
            for arch, disk in disks.items()
        }
        return streams.products(self.content_id, found, updated=None)

    def disk_path(self, arch: str, number: int) -> str:
        """Return where a disk is, below the server's base."""
        return f"images/alpine/3.22/{ARCHITECTURES[arch]}/default/20260101_13:0{number}/disk.qcow2"

    def entry_date(self, number: int) -> datetime | None:
        """Say nothing of dates."""
        return None

    def sealed(self, document: bytes, number: int) -> bytes:
        """Sign nothing."""
        return document
