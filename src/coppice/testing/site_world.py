# SPDX-License-Identifier: Apache-2.0
"""A publisher, and a site that keeps one or several clouds fresh by its list: `World`.

Workflows run in this process by a clock that is moved by hand, or as ``python -m coppice`` by the machine's own.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from coppice.clock import FixedClock
from coppice.cloud.clouds import open_cloud
from coppice.cloud.revocations import Target
from coppice.database import Database
from coppice.events.journal import Journal
from coppice.http import Client
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.libvirt_stand import bootable
from coppice.testing.simulator import Simulator
from coppice.workflows.converge import Site
from coppice.workflows.retire import retire
from coppice.workflows.revoke import revoke, take_back
from coppice.workflows.rollback import release, rollback
from coppice.workflows.sync import sync

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

    from coppice.testing.used_clouds import UsedCloud
    from coppice.workflows.converge import SyncReport

SET = ("coppice:set", "coppice:set_version", "coppice:set_size")
_SETTINGS = """\
state_directory = "{root}/state"

[transfer]
allow_private_addresses = true

[plan]
grace_days = {grace_days}
{plan}
"""


class World:
    """A publisher whose list and images are files of this machine, and a site that follows it.

    Args:
        path: An empty directory.
        clouds: What the site keeps fresh.
        grace_days: From superseded, expired, withdrawn or revoked to removal.
        plan: Further lines of the section ``[plan]``, and sections after it.
        more: Further lines of a cloud's section, by its name.
    """

    def __init__(
        self,
        path: Path,
        *clouds: UsedCloud,
        grace_days: float = 7,
        plan: str = "",
        more: dict[str, str] | None = None,
    ) -> None:
        self.path = path
        self.used = clouds
        file = path / "coppice.toml"
        sections = "\n".join(each.section((more or {}).get(each.name, "")) for each in clouds)
        file.write_text(_SETTINGS.format(root=path, grace_days=grace_days, plan=plan) + sections, encoding="utf-8")
        self.file = file
        self.settings = load_settings(config=file, environ={}, options={}, system_file=path / "none.toml")
        self.clock = FixedClock(datetime.now(UTC).replace(microsecond=0))
        self.database = Database(self.settings.database_url)
        self.store = SubscriptionStore(self.database)
        self.clouds = {each.name: each.opened() or open_cloud(self.settings.clouds[each.name]) for each in clouds}
        authority = Authority.create("Example CA")
        self.anchors = authority.write_to(path / "anchors")
        self.publisher = Simulator.create(authority, uri=f"file://{path}/www/demo.list")
        self._disks = 0

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    # -- the publisher ----------------------------------------------------------------------------

    def add(self, title: str, **fields: object) -> dict[str, Any]:
        """List a new image, version 1; return its entry."""
        return self.publisher.add_image(title=title, data=self._disk(), **fields)

    def renew(self, image: dict[str, Any], version: str) -> None:
        """List other bytes for an image, as another version."""
        data, name = self._disk(), f"{image['dc:identifier']}-{version}.qcow2"
        self.publisher.files[name] = data
        image |= {
            "hv:version": version,
            "hv:uri": f"file://{self.path}/www/images/{name}",
            "hv:size": str(len(data)),
            "sl:checksum:sha512": hashlib.sha512(data).hexdigest(),
        }

    def bind(self, images: Sequence[dict[str, Any]], version: str, name: str = "lab") -> None:
        """Make a set of images, in one of its releases."""
        for image in images:
            image |= dict(zip(SET, (name, version, len(images)), strict=True))

    def publish(self) -> None:
        """Publish the next version of the list."""
        self.publisher.version = str(int(self.publisher.version) + 1)
        self.publisher.write_to(self.path / "www")

    def renew_dates(self, days: float = 28) -> None:
        """Let the list be made now, by the site's clock, and expire after ``days``."""
        from datetime import timedelta as days_of

        self.publisher.created = self.clock.now()
        self.publisher.expires = self.clock.now() + days_of(days=days)

    def subscribe(self) -> None:
        """Let the site follow the list."""
        self.store.add(self.publisher.subscription(self.anchors))

    def key(self, image: dict[str, Any]) -> ImageKey:
        """Return the key of an image at the site."""
        return ImageKey(ListIdentifier(self.publisher.identifier), ImageIdentifier(image["dc:identifier"]))

    # -- the site, in this process ----------------------------------------------------------------

    @property
    def site(self) -> Site:
        """What workflows are given."""
        return Site(settings=self.settings, database=self.database, clock=self.clock, monitor=SILENT)

    def sync(self, **options: Any) -> SyncReport:
        """Sync all clouds."""
        return sync(
            settings=self.settings,
            database=self.database,
            clock=self.clock,
            monitor=SILENT,
            clouds=self.clouds,
            client=Client(self.settings.transfer),
            **options,
        )

    def synced(self, **options: Any) -> SyncReport:
        """Sync all clouds; it must end well."""
        return whole(self.sync(**options))

    def retire(self) -> SyncReport:
        """Do what the dates demand."""
        return whole(
            retire(settings=self.settings, database=self.database, clock=self.clock, monitor=SILENT, clouds=self.clouds)
        )

    def revoke(self, image: dict[str, Any], version: str, reason: str) -> SyncReport:
        """Revoke a version."""
        return whole(revoke(Target(key=self.key(image), version=version), reason, self.clouds, self.site).run)

    def unrevoke(self, image: dict[str, Any], version: str) -> SyncReport:
        """Take that back."""
        return whole(take_back(Target(key=self.key(image), version=version), self.clouds, self.site).run)

    def rollback(self, image: dict[str, Any], version: str) -> SyncReport:
        """Go back to a version."""
        return whole(rollback(self.key(image), version, self.clouds, self.site))

    def release(self, image: dict[str, Any]) -> SyncReport:
        """Follow the list again."""
        return whole(release(self.key(image), self.clouds, self.site))

    def advance(self, by: timedelta) -> None:
        """Move the site's clock."""
        self.clock.advance(by)

    def told(self) -> list[str]:
        """Return the kinds of all events but those of the lists themselves."""
        kinds = [str(event.kind) for event in Journal(self.database).events()]
        return [kind for kind in kinds if not kind.startswith("ImageList")]

    # -- the site, as processes of its own ---------------------------------------------------------

    def argv(self, *words: str) -> list[str]:
        """Return the arguments of a command of Coppice's at this site."""
        return ["--json", "--config", str(self.file), *words]

    def environment(self) -> dict[str, str]:
        """Return all of a command's environment."""
        home = self.path / "home"
        home.mkdir(exist_ok=True)
        return {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command of Coppice's, in a process group of its own."""
        argv = [sys.executable, "-m", "coppice", *self.argv(*words)]
        environment = self.environment()
        return subprocess.Popen(
            argv,
            env=environment,
            cwd=environment["HOME"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def kill(child: subprocess.Popen[str]) -> bool:
        """Kill a command and all that it started; tell whether it was still at work."""
        if child.poll() is not None:
            return False
        # It is not waited for yet: its number is nobody else's.
        os.killpg(child.pid, signal.SIGKILL)
        return True

    # -- what is seen ------------------------------------------------------------------------------

    def states(self) -> dict[str, dict[str, dict[str, str]]]:
        """Return what each cloud's users see, by cloud, image and version."""
        return {each.name: each.states() for each in self.used}

    def _disk(self) -> bytes:
        self._disks += 1
        return bootable(f"disk {self._disks} of {self.publisher.identifier}".encode())


def whole(report: SyncReport) -> SyncReport:
    """Return the report of a run that went well.

    Raises:
        AssertionError: It did not.
    """
    assert report.errors == (), [(error.code, error.message, error.details) for error in report.errors]
    return report
