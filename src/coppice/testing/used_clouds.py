# SPDX-License-Identifier: Apache-2.0
"""Clouds as their users see them, each beside the section of settings by which a site registers there.

What is seen never comes through the driver. Those that need a server are in `coppice.testing.used_servers`.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.memory import MemoryCloud, StoredImage
from coppice.testing.desired import SITE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from coppice.cloud.driver import Cloud


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One version of an image, as it stands in a cloud.

    Attributes:
        state: As it is written on it.
        listed: Whether users who look for images find it.
        startable: Whether a machine of theirs would start from it.
        title: Under which name they find it, as far as the cloud shows one.
        reason: Why it is in its state, as it is written on it.
    """

    state: str
    listed: bool
    startable: bool
    title: str = ""
    reason: str = ""

    def __str__(self) -> str:
        """Return what tests compare at a glance: the state, and what differs from what it asks for."""
        wanted = (self.state == "available", self.state in {"available", "superseded", "staged"})
        return self.state if wanted == (self.listed, self.startable) else f"{self.state}, but {self!r}"


class UsedCloud(ABC):
    """A cloud and its users.

    Attributes:
        name: In the settings.
        options: Lines of its section beside ``driver`` and ``site``; tables that belong to it may follow.
    """

    name: str
    options: str

    def section(self, more: str = "") -> str:
        """Return the section of the settings file; ``more``: further lines of it."""
        return f'[clouds.{self.name}]\ndriver = "{self.name}"\nsite = "{SITE}"\n{more}\n{self.options}\n'

    def opened(self) -> Cloud | None:
        """Return the driver that tests in this process use; None: the one that the settings describe."""
        return None

    @abstractmethod
    def seen(self) -> Mapping[tuple[str, str], Seen]:
        """Return all that this site registered, by image and version."""

    @abstractmethod
    def delete(self, image: str, version: str) -> None:
        """Remove a version behind the site's back, as the cloud's administrator does."""

    @abstractmethod
    def add_foreign(self, name: str) -> Callable[[], bool]:
        """Make an image of somebody else under a name; return what tells whether it is as it was."""

    def usable(self, image: str) -> str | None:
        """Return the version that a user who looks for ``image`` finds and can start; None: there is none.

        Who is told that what was found is gone looks again, as anybody would.
        """
        for _ in range(2):
            for (identifier, version), each in self.seen().items():
                if identifier == image and each.listed and each.startable:
                    return version
        return None

    def states(self) -> dict[str, dict[str, str]]:
        """Return the state of each version by image, with what is not as the state asks for."""
        found: dict[str, dict[str, str]] = {}
        for (image, version), each in sorted(self.seen().items()):
            found.setdefault(image, {})[version] = str(each)
        return found

    def is_empty(self) -> bool:
        """Tell whether nothing of this site is left, files included."""
        return not self.seen()


class UsedMemory(UsedCloud):
    """A cloud in this process."""

    name, options = "memory", ""

    def __init__(self) -> None:
        self.cloud = MemoryCloud("memory", SITE)

    def opened(self) -> Cloud:
        """Return it: it is in this process alone."""
        return self.cloud

    def seen(self) -> dict[tuple[str, str], Seen]:
        """Look at what is kept."""
        return {
            (image.properties["coppice_image"], image.properties["coppice_version"]): Seen(
                state=image.properties["coppice_state"],
                listed=image.listed,
                startable=image.ready and image.startable and image.file in self.cloud.files,
                title=image.name,
                reason=image.properties.get("coppice_reason", ""),
            )
            for image in list(self.cloud.images.values())
            if image.properties.get("coppice_site") == SITE
        }

    def delete(self, image: str, version: str) -> None:
        """Forget it."""
        for identifier, each in list(self.cloud.images.items()):
            if (each.properties.get("coppice_image"), each.properties.get("coppice_version")) == (image, version):
                self.cloud.files.pop(self.cloud.images.pop(identifier).file or "", None)

    def add_foreign(self, name: str) -> Callable[[], bool]:
        """Keep an image without a marker."""
        theirs = self.cloud.images["theirs"] = StoredImage(name=name, properties={"owner": "them"}, checksum="x")
        return lambda: self.cloud.images["theirs"] is theirs and theirs.properties == {"owner": "them"}

    def is_empty(self) -> bool:
        """Look at the files too."""
        return not self.cloud.images and not self.cloud.files


class UsedDirectory(UsedCloud):
    """A folder.

    Args:
        path: Where; it need not be there.
    """

    name = "directory"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options = f'path = "{path}"'

    def seen(self) -> dict[tuple[str, str], Seen]:
        """Look at descriptions, disks and links."""
        current = {path.readlink().name: path.name for path in (self.path / "current").glob("*")}
        found = {}
        for path in sorted(self.path.glob("[!.]*/image.json")):
            document, folder = json.loads(path.read_bytes()), path.parent
            said = document["properties"]
            found[said["coppice_image"], said["coppice_version"]] = Seen(
                state=said["coppice_state"],
                listed=folder.name in current,
                startable=any(folder.glob("disk.*")) and (folder / "run-qemu.sh").exists(),
                title=document["metadata"]["name"],
                reason=said.get("coppice_reason", ""),
            )
        return found

    def usable(self, image: str) -> str | None:
        """Follow the links, as people do; one that was changed meanwhile is followed again."""
        for _ in range(2):
            for link in sorted((self.path / "current").glob("*")):
                try:
                    said = json.loads((link / "image.json").read_bytes())["properties"]
                    if said["coppice_image"] == image and any((link / "").glob("disk.*")):
                        return str(said["coppice_version"])
                except FileNotFoundError:
                    continue
        return None

    def delete(self, image: str, version: str) -> None:
        """Remove its folder; the link to it leads nowhere then."""
        for path in sorted(self.path.glob("[!.]*/image.json")):
            said = json.loads(path.read_bytes())["properties"]
            if (said["coppice_image"], said["coppice_version"]) == (image, version):
                shutil.rmtree(path.parent)

    def add_foreign(self, name: str) -> Callable[[], bool]:
        """Make a folder with a disk in it."""
        disk = self.path / name / "disk.qcow2"
        disk.parent.mkdir(parents=True)
        disk.write_bytes(b"theirs")
        return lambda: disk.read_bytes() == b"theirs"

    def is_empty(self) -> bool:
        """Look for anything but the empty place of the links."""
        return not [path for path in self.path.iterdir() if path.name != "current"] and not any(
            (self.path / "current").glob("*")
        )
