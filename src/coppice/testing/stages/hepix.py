# SPDX-License-Identifier: Apache-2.0
"""Signed image lists, at nginx."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.subscription.model import Subscription, TrustBasis
from coppice.testing.authority import Authority
from coppice.testing.nginx import Nginx
from coppice.testing.simulator import Simulator
from coppice.testing.stages.stage import NOW, SourceStage

if TYPE_CHECKING:
    from collections.abc import Mapping


class HepixOverHttp(SourceStage):
    """A signed image list at nginx."""

    driver = "hepix"
    basis = TrustBasis.X509
    is_signed = True
    tampered_codes = frozenset({"list-tampered"})

    def start(self) -> None:
        """Start nginx."""
        self.server = Nginx(self.directory / "nginx").__enter__()
        self.authority = Authority.create("Example CA")
        self.anchors = self.authority.write_to(self.directory / "anchors")
        self.publisher = Simulator.create(self.authority, uri=self.address("demo.list"))
        self.bytes: dict[str, bytes] = {}
        for architecture in ("x86_64", "aarch64"):
            self.publisher.add_image(title=f"Debian {architecture}", data=b"-", sl_arch=architecture)

    def stop(self) -> None:
        """End it."""
        self.server.stop()

    def address(self, name: str) -> str:
        """Return where a file of that name is fetched."""
        return self.server.url(f"/{name}")

    def put(self, name: str, data: bytes) -> None:
        """Put a file where `address` says."""
        self.server.put(name, data)

    def take_away(self, name: str) -> None:
        """Remove a file from there."""
        (self.server.root / name).unlink()

    def subscription(self) -> Subscription:
        """Return a subscription that pins the endorser."""
        return replace(self.publisher.subscription(self.anchors), list_identifier=None)

    def publish(self, number: int) -> Mapping[str, bytes]:
        """Publish a version."""
        self.publisher.version = str(number)
        self.publisher.created = NOW - timedelta(hours=100 - number)
        found = {}
        for image in self.publisher.images:
            data = f"{image['sl:arch']} {number} ".encode() * 1000
            name = f"{image['dc:identifier']}-{number}.img"
            self.put(name, data)
            image.update(
                {
                    "hv:uri": self.address(name),
                    "hv:version": str(number),
                    "hv:size": str(len(data)),
                    "sl:checksum:sha512": hashlib.sha512(data).hexdigest(),
                }
            )
            found[image["sl:arch"]] = data
        self.put("demo.list", self.publisher.message())
        return found

    def tamper(self) -> None:
        """Change the title after it was signed."""
        self.put("demo.list", self.publisher.tampered())

    def fail(self, how: str) -> None:
        """Make the source fail."""
        if how == "gone":
            self.take_away("demo.list")
        elif how == "empty":
            self.put("demo.list", b"")
        else:
            self.server.go_down()

    def distrust(self) -> None:
        """Revoke the endorser's certificate."""
        self.authority.revoke(self.publisher.endorser.certificate)
        shutil.rmtree(self.anchors)
        self.authority.write_to(self.anchors)
