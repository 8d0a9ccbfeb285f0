# SPDX-License-Identifier: Apache-2.0
"""A publisher of disks with deltas, in a folder, and sites that follow it (tests)."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from coppice.clock import FixedClock
from coppice.cloud.directory import DirectoryCloud
from coppice.database import Database
from coppice.events.journal import Journal
from coppice.formats.hepix_delta import DELTA_KEY, write_delta
from coppice.http import Client
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.deltas import make_delta
from coppice.testing.simulator import Simulator
from coppice.workflows.sync import sync

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coppice.imagelist.model import RemoteFile
    from coppice.workflows.converge import SyncReport

_UUID = "8f0b2f52-0d9b-4c4e-9a53-2d9d1a3b6f10"


def file_system(directory: Path, name: str, files: dict[str, bytes], *, size: str = "16M") -> bytes:
    """Return a disk with an ext4 file system of these files, the same for the same files."""
    tree = directory / f"{name}.tree"
    tree.mkdir()
    for path, content in files.items():
        (tree / path).write_bytes(content)
        os.utime(tree / path, (1, 1))
    os.utime(tree, (1, 1))
    disk = directory / f"{name}.img"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), "-b", "4096", "-U", _UUID]
    environment = {**os.environ, "E2FSPROGS_FAKE_TIME": "1"}
    subprocess.run([*argv, "-E", f"hash_seed={_UUID}", str(disk), size], check=True, env=environment, timeout=60)
    return disk.read_bytes()


class VersionsPublisher:
    """Publishes a list into ``directory / "www"``; its addresses are below ``base``.

    Args:
        directory: Where it keeps everything.
        base: Address of ``www``; None: the folder itself.
    """

    def __init__(self, directory: Path, *, base: str | None = None) -> None:
        self.directory = directory
        self.www = directory / "www"
        self.www.mkdir(parents=True)
        self.base = base or f"file://{self.www}"
        authority = Authority.create("Example CA")
        self.anchors = authority.write_to(directory / "anchors")
        self.simulator = Simulator.create(authority, uri=f"{self.base}/demo.list")

    def add(self, title: str, disk: bytes) -> dict[str, Any]:
        """List an image, without patches."""
        image = self.simulator.add_image(title=title, data=self._qcow2(disk))
        self._describe(image, disk, ())
        return image

    def renew(self, image: dict[str, Any], version: str, disk: bytes, origins: Sequence[bytes]) -> None:
        """List the next version of an image in its place, with patches from ``origins``."""
        data = self._qcow2(disk)
        name = f"{image['dc:identifier']}-{version}.qcow2"
        self.simulator.files[name] = data
        image |= {
            "hv:version": version,
            "hv:uri": f"{self.base}/images/{name}",
            "hv:size": str(len(data)),
            "sl:checksum:sha512": Checksum.of(data).hexdigest,
        }
        self._describe(image, disk, origins)

    def publish(self) -> None:
        """Publish the next version of the list."""
        self.simulator.version = str(int(self.simulator.version) + 1)
        self.simulator.write_to(self.www)

    def _describe(self, image: dict[str, Any], disk: bytes, origins: Sequence[bytes]) -> None:
        made = make_delta(disk, origins=origins, frame_blocks=8)
        (self.www / "deltas").mkdir(exist_ok=True)
        for uri, content in made.files.items():
            (self.www / "deltas" / uri.removeprefix("mem:")).write_bytes(content)

        def moved(file: RemoteFile) -> RemoteFile:
            return replace(file, uri=f"{self.base}/deltas/{file.uri.removeprefix('mem:')}")

        delta = made.delta
        image[DELTA_KEY] = write_delta(
            replace(
                delta,
                index=moved(delta.index),
                packs=tuple(map(moved, delta.packs)),
                patches=tuple(replace(each, file=moved(each.file)) for each in delta.patches),
            )
        )

    def _qcow2(self, disk: bytes) -> bytes:
        raw, made = self.directory / "raw", self.directory / "qcow2"
        raw.write_bytes(disk)
        argv = ["qemu-img", "convert", "-O", "qcow2", "-c", str(raw), str(made)]
        subprocess.run(argv, check=True, timeout=60)
        return made.read_bytes()


class VersionsSite:
    """A site with a state directory and a cloud that is a folder.

    Args:
        directory: Where it keeps everything.
        publisher: Whom it follows.
        uri: Address that it follows; None: the publisher's own.
    """

    def __init__(self, directory: Path, publisher: VersionsPublisher, *, uri: str | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "coppice.toml"
        config.write_text(
            f'state_directory = "{directory}/state"\n[transfer]\nallow_private_addresses = true\nattempts = 1\n'
            "connect_timeout_seconds = 1\nread_timeout_seconds = 2\n"
        )
        self.directory = directory
        self.config = config
        self.clock = FixedClock(datetime.now(UTC).replace(microsecond=0))
        self.settings = load_settings(config=config, environ={}, options={}, system_file=config)
        self.database = Database(self.settings.database_url)
        self.store = SubscriptionStore(self.database)
        self.journal = Journal(self.database)
        self.cloud = DirectoryCloud("folder", "test-site", directory / "cloud")
        subscription = publisher.simulator.subscription(publisher.anchors)
        self.store.add(subscription if uri is None else replace(subscription, uri=uri))

    @property
    def everything(self) -> dict[str, Any]:
        """What workflows of the site are called with."""
        return {
            "settings": self.settings,
            "database": self.database,
            "clock": self.clock,
            "monitor": SILENT,
            "client": Client(self.settings.transfer),
        }

    def sync(self) -> SyncReport:
        """Bring the cloud up to date."""
        return sync(**self.everything, clouds={"folder": self.cloud})

    def registered(self) -> dict[str, str]:
        """Return version → state of what is registered."""
        return {each.marker.version: str(each.marker.state) for each in self.cloud.describe()}

    def close(self) -> None:
        """Close the database."""
        self.database.close()
