# SPDX-License-Identifier: Apache-2.0
"""Where the demonstration plays: a directory with a publisher, an endorser, a web server on loopback and a site.

The directory bears a mark; one that holds anything else and no mark is not touched. Builds and boot verdicts in it are
kept for the next time, all else is made anew. The settings files that are written here work with every command.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coppice import atomic
from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.model import EndorserIdentity
from coppice.catalogue.selections import Selections
from coppice.clock import ShiftedClock
from coppice.cloud.clouds import open_cloud
from coppice.cloud.draft import fingerprint
from coppice.database import Database
from coppice.errors import ExistsError
from coppice.factory.files import describe_image
from coppice.formats.cms import open_message
from coppice.formats.cms_sign import sign
from coppice.http import Client
from coppice.model.image import DiskFormat
from coppice.settings.load import load_settings
from coppice.subscription.model import PinnedEndorser, Subscription, TrustPolicy
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.server import StaticServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import RegisteredImage
    from coppice.factory.model import BuiltImage
    from coppice.imagelist.model import Publication
    from coppice.model.endorser import DistinguishedName
    from coppice.settings.model import Settings

LIST = "demo"
SITE_CLOUD = "here"
_MARK = ".coppice-demo"
_ANEW = ("publisher.toml", "site.toml", "web", "trust", "endorser", "site", "cloud")
_ANEW_OF_PUBLISHER = ("catalogue", "coppice.sqlite", "coppice.sqlite-wal", "coppice.sqlite-shm")

_PUBLISHER_TOML = """\
# The publisher of the demonstration: builds, endorses and publishes.
state_directory = "{directory}/publisher"

[publishers.web]
driver = "directory"
path = "{directory}/web"
url = "{url}"
"""

_SITE_TOML = """\
# The site of the demonstration: subscribes, verifies and registers.
state_directory = "{directory}/site"

[transfer]
allow_private_addresses = true  # the publisher of the demonstration is on loopback
attempts = 1

[plan]
grace_days = 7

[clouds.here]
driver = "directory"
site = "demo.site"
path = "{directory}/cloud"
formats = ["raw"]  # so that there is something to convert
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """Something that must change nothing.

    Attributes:
        title: What is tried.
        code: The error that answers it.
        act: Does it.
    """

    title: str
    code: str
    act: Callable[[], None]


class Scene:
    """The publisher, the site and what lies between them.

    Args:
        directory: Made ready by `prepare`.
        server: Serves the publisher's web directory.
    """

    def __init__(self, directory: Path, server: StaticServer) -> None:
        self.directory = directory
        self.clock = ShiftedClock()
        self.web_directory = directory / "web"
        self.cloud_directory = directory / "cloud"
        self.url = server.url()
        self._server = server
        self._published: list[bytes] = []
        self._list_file = self.web_directory
        self._list_uri = ""
        self.publisher_settings = self._settings("publisher.toml", _PUBLISHER_TOML)
        self.site_settings = self._settings("site.toml", _SITE_TOML)
        self.publisher_database = Database(self.publisher_settings.database_url)
        self.site_database = Database(self.site_settings.database_url)
        self.cloud: Cloud = open_cloud(self.site_settings.clouds[SITE_CLOUD])
        self._authority = Authority.create("Coppice demonstration CA")
        self._endorser = self._authority.issue("Demonstration endorser")
        self._stranger = self._authority.issue("Somebody else")

    @classmethod
    @contextmanager
    def prepare(cls, directory: Path) -> Iterator[Scene]:
        """Make the directory ready, keeping builds of an earlier time; serve the publisher's web directory.

        Raises:
            ExistsError: The directory holds something that is not of the demonstration.
            StorageError: It cannot be written.
        """
        directory = directory.resolve()
        with atomic.storage_errors("preparing", directory):
            _clear(directory)
            (directory / "web").mkdir()
        with StaticServer(directory / "web") as server:
            scene = cls(directory, server)
            try:
                yield scene
            finally:
                scene.close()

    def close(self) -> None:
        """Give back databases and the server."""
        self.publisher_database.close()
        self.site_database.close()
        self._server.stop()

    def make_endorser(self) -> DistinguishedName:
        """Write the throw-away authority and the endorser's certificate and key; have the publisher know both."""
        in_two_months = self.clock.now() + timedelta(days=60)
        self._authority.write_to(self.directory / "trust", crl=self._authority.crl(next_update=in_two_months))
        certificate, key = self._endorser.write_to(self.directory / "endorser", "endorser")
        Endorsers(self.publisher_database).add(
            EndorserIdentity(
                name="demo",
                certificate=certificate,
                key=key,
                passphrase_file=None,
                creator="Demonstration endorser",
                email="endorser@demo.example",
            )
        )
        Selections(self.publisher_database).create(
            LIST,
            title="Coppice demonstration",
            description="One appliance that lives its whole life",
            source=self.url,
            endorser="demo",
            publisher="web",
        )
        return self._endorser.subject

    def endorse(self, appliance: str) -> None:
        """Have the list carry ``appliance``."""
        Selections(self.publisher_database).select(LIST, appliance)

    def remember(self, publication: Publication) -> None:
        """Keep what was just published, to replay it and to put it back after an attack."""
        self._list_uri = publication.list_uri
        self._list_file = self.web_directory / unquote(urlsplit(publication.list_uri).path).lstrip("/")
        self._published.append(self._list_file.read_bytes())

    def subscribe(self) -> Subscription:
        """Have the site follow the published list, believing its endorser and nobody else."""
        subscription = Subscription(
            name=LIST,
            uri=self._list_uri,
            list_identifier=None,
            trust=TrustPolicy(
                endorsers=(PinnedEndorser(subject=self._endorser.subject, issuer=self._endorser.issuer),),
                anchors=self.directory / "trust",
            ),
            added_at=self.clock.now(),
        )
        SubscriptionStore(self.site_database).add(subscription)
        return subscription

    def client(self) -> Client:
        """Return the site's HTTP client."""
        return Client(self.site_settings.transfer)

    def clouds(self) -> dict[str, Cloud]:
        """Return the site's clouds by name."""
        return {SITE_CLOUD: self.cloud}

    def registered_file(self, registered: RegisteredImage) -> BuiltImage:
        """Return the file that the cloud has of a registered image, read in full."""
        folder = self.cloud_directory / registered.cloud_identifier
        disk = next(folder.glob("disk.*"))
        return describe_image(disk, DiskFormat(disk.suffix.removeprefix(".")))

    def fingerprint(self) -> str:
        """Return a digest of all that is registered."""
        return fingerprint(self.cloud.describe())

    def attacks(self) -> tuple[Attack, ...]:
        """Return what is tried against the site: each must be refused by its own code."""
        good = self._published[-1]
        payload = open_message(good).payload
        by_stranger = sign(payload, certificate=self._stranger.certificate, key=self._stranger.key)
        return (
            Attack(
                title="One digit of the list is changed", code="list-tampered", act=lambda: self._put(_tampered(good))
            ),
            Attack(title="The signature is left away", code="list-unsigned", act=lambda: self._put(payload)),
            Attack(title="Somebody else signs", code="signer-not-pinned", act=lambda: self._put(by_stranger)),
            Attack(title="The old list is served again", code="list-older", act=lambda: self._put(self._published[0])),
            Attack(title="The server is dead", code="source-unreachable", act=self.silence),
        )

    @contextmanager
    def under(self, act: Callable[[], None]) -> Iterator[None]:
        """Do an attack while the block runs, and put everything back."""
        port = self._server.port
        act()
        try:
            yield
        finally:
            self._put(self._published[-1])
            self._server.stop()
            self._server = StaticServer(self.web_directory, port=port).start()

    def silence(self) -> None:
        """Stop the publisher's server."""
        self._server.stop()

    def _put(self, message: bytes) -> None:
        atomic.write_bytes(self._list_file, message)

    def _settings(self, name: str, template: str) -> Settings:
        path = self.directory / name
        atomic.write_text(path, template.format(directory=self.directory, url=self.url))
        return load_settings(config=path, environ={}, options={}, system_file=path)


def _tampered(message: bytes) -> bytes:
    # A digit of the image's size: the attack that would have another file accepted.
    place = message.index(b'"hv:size"') + len(b'"hv:size": ')
    while not message[place : place + 1].isdigit():
        place += 1
    return message[:place] + (b"1" if message[place : place + 1] != b"1" else b"2") + message[place + 1 :]


def _clear(directory: Path) -> None:
    mark = directory / _MARK
    if directory.exists() and not mark.exists() and any(directory.iterdir()):
        raise ExistsError(
            f"{directory} holds something that is not of the demonstration; nothing in it is touched",
            resolution="Name an empty or a new directory with --directory.",
        )
    directory.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for name in _ANEW:
        _remove(directory / name)
    for name in _ANEW_OF_PUBLISHER:
        _remove(directory / "publisher" / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
