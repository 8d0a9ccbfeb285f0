# SPDX-License-Identifier: Apache-2.0
"""A publisher's desk for tests: a catalogue, two endorsers, a directory to publish to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coppice.catalogue.appliances import Appliances
from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.history import PublicationHistory
from coppice.catalogue.model import EndorserIdentity
from coppice.catalogue.selections import Selections
from coppice.catalogue.sets import Sets
from coppice.clock import ShiftedClock
from coppice.database import Database
from coppice.descriptor.model import Action, Descriptor, Disk
from coppice.formats.cms import open_message
from coppice.formats.hepix import read_list
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.model import TrustPolicy
from coppice.testing.authority import Authority
from coppice.workflows.import_list import import_list
from coppice.workflows.publish import preview, publish

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.catalogue.model import ApplianceVersion, Selection
    from coppice.imagelist.model import ImageList
    from coppice.workflows.publish import PublishPreview, PublishReport

SETTINGS = """
state_directory = "{root}/state"

[publishing]
retire_images_days = 7

[publishers.web]
driver = "directory"
path = "{root}/web"
url = "https://{host}.example.org"
"""


class Desk:
    """A publisher's desk: a catalogue, two endorsers, a directory to publish to."""

    def __init__(self, root: Path, host: str = "images") -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / "coppice.toml").write_text(SETTINGS.format(root=root, host=host))
        self.settings = load_settings(config=root / "coppice.toml", environ={"HOME": str(root)}, options={})
        self.database = Database(self.settings.database_url)
        self.clock = ShiftedClock()
        self.authority = Authority.create("Example CA")
        self.authority.write_to(root / "anchors", crl=self.authority.crl())
        for name in ("jane", "joe"):
            identity = self.authority.issue(name.title())
            certificate, key = identity.write_to(root / "keys", name)
            Endorsers(self.database).add(
                EndorserIdentity(
                    name=name,
                    certificate=certificate,
                    key=key,
                    creator=name.title(),
                    email=f"{name}@example.org",
                    subject=identity.subject,
                    issuer=identity.issuer,
                )
            )
        self.selections = Selections(self.database, self.clock)
        self.appliances = Appliances(self.database, self.clock)
        self.sets = Sets(self.database, self.clock)
        self.history = PublicationHistory(self.database)

    def add(
        self,
        name: str,
        version: str,
        content: bytes,
        *,
        disk_format: DiskFormat = DiskFormat.RAW,
        virtual_size: int | None = None,
    ) -> ApplianceVersion:
        """Put an image into the catalogue."""
        path = self.settings.state_directory / "catalogue/images" / f"{Checksum.of(content).hexdigest}.{disk_format}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        image = Image(
            format=disk_format,
            size_bytes=len(content),
            virtual_size_bytes=virtual_size or len(content),
            checksum=Checksum.of(content),
        )
        descriptor = Descriptor(
            action=Action.REGISTRATION,
            identifier=name,
            version=version,
            title=name.title(),
            description="",
            groups=(),
            operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
            requirements=Requirements(),
            disks=(Disk(path=str(path), image=image),),
            created=self.clock.now(),
            provenance=None,
        )
        return Catalogue(self.database, self.clock).add(name, descriptor, directory=self.root)

    def create(self, name: str = "general") -> Selection:
        """Make a list."""
        return self.selections.create(
            name, title="General", description="", source="https://x/", endorser="jane", publisher="web"
        )

    def publish(self, name: str = "general", **options: Any) -> PublishReport:
        """Publish a list."""
        arguments: dict[str, Any] = {
            "settings": self.settings,
            "database": self.database,
            "clock": self.clock,
            "monitor": SILENT,
        }
        return publish(name, **arguments, **options)

    def preview(self, name: str = "general", **options: Any) -> PublishPreview:
        """Show what publishing would do."""
        arguments: dict[str, Any] = {
            "settings": self.settings,
            "database": self.database,
            "clock": self.clock,
            "monitor": SILENT,
        }
        return preview(name, **arguments, **options)

    def read(self, name: str = "general") -> ImageList:
        """Return a list as readers get it."""
        return read_list(open_message((self.root / "web" / f"{name}.list").read_bytes()).payload)

    def listed(self, name: str = "general") -> dict[str, str]:
        """Return title and version of what a list names."""
        return {image.title: image.version for image in self.read(name).images}

    def import_file(self, message: bytes, **options: Any) -> Any:
        """Take a signed list over."""
        arguments: dict[str, Any] = {
            "name": "taken",
            "endorser": "jane",
            "publisher": "web",
            "trust": TrustPolicy(endorsers=(), anchors=self.root / "anchors"),
            "settings": self.settings,
            "database": self.database,
            "clock": self.clock,
            **options,
        }
        return import_list(message, **arguments)

    def close(self) -> None:
        """Close the database."""
        self.database.close()
