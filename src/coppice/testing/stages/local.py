# SPDX-License-Identifier: Apache-2.0
"""What needs no server: the site's own catalogue, and a folder of descriptors."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING

from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.model import EndorserIdentity
from coppice.catalogue.selections import Selections
from coppice.descriptor.model import Action, Descriptor, Disk
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.subscription.model import SourceReference, Subscription, TrustBasis
from coppice.testing.stages.stage import NO_TRUST, NOW, SourceStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.database import Database

_ARCHITECTURES = ("x86_64", "aarch64")
_TICK_SECONDS = 0.15
"""A file that was written just now may be written again within a tick of the clock, and is not taken for unchanged."""


class Descriptors(SourceStage):
    """A folder with a descriptor for each image, as ITCHY names and COMFY writes them."""

    driver = "descriptors"
    basis = TrustBasis.LOCAL
    is_signed = False

    def start(self) -> None:
        """Make the folder."""
        self.folder = self.directory / "descriptors"
        self.folder.mkdir()

    def subscription(self) -> Subscription:
        """Return a subscription that believes who may write to the folder."""
        return Subscription(
            name="demo",
            uri=self.folder.as_uri(),
            list_identifier=None,
            trust=NO_TRUST,
            added_at=NOW,
            source=SourceReference(driver=self.driver, options={"trust": "local"}),
        )

    def publish(self, number: int) -> Mapping[str, bytes]:
        """Register a version of both images."""
        found = {}
        for architecture in _ARCHITECTURES:
            data = f"{architecture} {number} ".encode() * 1000
            (self.folder / f"{architecture}-{number}.img").write_bytes(data)
            document = {
                "action": "registration",
                "title": f"Debian {architecture}",
                "identifier": f"debian-{architecture}",
                "version": f"12.{number}",
                "groups": ["example"],
                "os": {"distribution": "debian", "version": "12", "arch": architecture},
                "disks": [{"type": "os", "format": "raw", "path": f"{architecture}-{number}.img"}],
            }
            name = f"{1_700_000_000 + number}_AvailablePostfix_debian-{architecture}.json"
            (self.folder / name).write_text(json.dumps(document))
            found[architecture] = data
        time.sleep(_TICK_SECONDS)
        return found

    def fail(self, how: str) -> None:
        """Take the folder away, empty it, or put a file in its place."""
        shutil.rmtree(self.folder)
        if how == "empty":
            self.folder.mkdir()
        elif how == "down":
            self.folder.write_bytes(b"")


class OwnCatalogue(SourceStage):
    """An image list of the site's own database, into which the stage puts its images."""

    driver = "catalogue"
    basis = TrustBasis.LOCAL
    is_signed = False
    failures = ("gone",)
    is_shared = False

    def enter(self, database: Database) -> None:
        """Make the list in the site's database."""
        self.database = database
        Endorsers(database).add(
            EndorserIdentity(
                name="nobody", certificate=None, key="nobody.key", creator="Nobody", email="nobody@example.org"
            )
        )
        Selections(database).create(
            "own",
            title="Own images",
            description="What this site builds",
            source="https://site.example.org/",
            endorser="nobody",
            publisher="nowhere",
        )

    def subscription(self) -> Subscription:
        """Return a subscription that believes the site."""
        return Subscription(
            name="demo",
            uri="catalogue:own",
            list_identifier=None,
            trust=NO_TRUST,
            added_at=NOW,
            source=SourceReference(driver=self.driver, options={"trust": "local"}),
        )

    def publish(self, number: int) -> Mapping[str, bytes]:
        """Add a version of both appliances."""
        found = {}
        for architecture in _ARCHITECTURES:
            data = f"{architecture} {number} ".encode() * 1000
            name = f"debian-{architecture.replace('_', '-')}"
            path = self.directory / f"{name}-{number}.img"
            path.write_bytes(data)
            image = Image(
                format=DiskFormat.RAW,
                size_bytes=len(data),
                virtual_size_bytes=len(data),
                checksum=Checksum.of(data),
            )
            system = OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture=architecture)
            descriptor = Descriptor(
                action=Action.REGISTRATION,
                identifier=name,
                version=f"12.{number}",
                title=name,
                description="An image",
                groups=(),
                operating_system=system,
                requirements=Requirements(),
                disks=(Disk(path=path.name, image=image),),
                created=NOW,
                provenance=None,
            )
            Catalogue(self.database).add(name, descriptor, directory=self.directory)
            Selections(self.database).select("own", name)
            found[architecture] = data
        return found

    def fail(self, how: str) -> None:
        """Delete the list."""
        del how
        Selections(self.database).delete("own", force=True)
