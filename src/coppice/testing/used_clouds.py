# SPDX-License-Identifier: Apache-2.0
"""Clouds as their users see them, each beside the section of settings by which a site registers there.

What is seen never comes through the driver: Glance is asked by REST as a member of another project, OpenNebula as an
ordinary user, libvirt through definitions and files, a directory by its links.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from coppice.cloud.memory import MemoryCloud
from coppice.testing.desired import SITE
from coppice.testing.libvirtd import POOL, library
from coppice.testing.opennebula.objects import Right, State
from coppice.testing.opennebula_stand import OpenNebulaStand

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from coppice.cloud.driver import Cloud
    from coppice.testing.fault_proxy import FaultProxy
    from coppice.testing.libvirtd import Libvirtd
    from coppice.testing.opennebula.simulator import OpenNebulaSimulator
    from coppice.testing.openstack import OpenStack

_OK, _MADE, _NOTHING = 200, 201, 204
_RECORD = "{urn:coppice:libvirt}"


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

    def is_empty(self) -> bool:
        """Look for anything but the empty place of the links."""
        return not [path for path in self.path.iterdir() if path.name != "current"] and not any(
            (self.path / "current").glob("*")
        )


class UsedOpenStack(UsedCloud):
    """A project in a real Glance that shares its images with two others.

    `GAMMA`'s users find what is shared at once, since the site's credentials accept it for them; those of `BETA` when
    they accepted it themselves.

    Args:
        openstack: The services; Glance forgets all that it has.
        entry: Of ``clouds.yaml``; ``faulty`` leads through the proxies.
        more: Further options of the driver, as lines.
    """

    name = "openstack"
    owner, gamma_user, beta_user = "alice", "gus", "bob"

    def __init__(self, openstack: OpenStack, entry: str = "alice", more: str = "") -> None:
        openstack.forget_all()
        self.openstack = openstack
        members = json.dumps(sorted(openstack.project(name) for name in ("beta", "gamma")))
        self.options = (
            f'cloud = "{entry}"\nclouds_file = "{openstack.clouds_file}"\nretry_delay = 0.01\ntimeout = 10\n'
            f"accept_members = true\n{more}\n"
            f'[clouds.openstack.vos."vo.example.org"]\nvisibility = "shared"\nmembers = {members}\n'
        )

    @property
    def faults(self) -> FaultProxy:
        """What goes wrong for the entry ``faulty``."""
        return self.openstack.faults

    def seen(self) -> dict[tuple[str, str], Seen]:
        """Ask what the project owns, and what of it a member of another project finds and gets."""
        listed = {image["id"] for image in self._list(self.gamma_user, "status=active")}
        return {
            (image["coppice_image"], image["coppice_version"]): Seen(
                state=image["coppice_state"],
                listed=image["id"] in listed,
                startable=self.can_start(image["id"]),
                title=image["name"],
                reason=image.get("coppice_reason", ""),
            )
            for image in self.owned()
            if image.get("coppice_site") == SITE
        }

    def usable(self, image: str) -> str | None:
        """Look for it as a member of another project, and fetch its bytes as Nova would."""
        for _ in range(2):
            for each in self._list(self.gamma_user, f"status=active&coppice_image={image}"):
                if self.can_start(each["id"]):
                    return str(each["coppice_version"])
        return None

    def owned(self) -> list[dict[str, Any]]:
        """Return all images of the project, hidden ones included."""
        owner = f"visibility=all&owner={self.openstack.project('alpha')}"
        return [
            image for hidden in ("true", "false") for image in self._list(self.owner, f"os_hidden={hidden}&{owner}")
        ]

    def can_start(self, identifier: str, person: str = gamma_user) -> bool:
        """Fetch an image's bytes as a member of another project."""
        status, _ = self.openstack.ask(person, "GET", f"/v2/images/{identifier}/file")
        return status == _OK

    def accept(self, person: str = beta_user, project: str = "beta") -> int:
        """Accept, as a user of another project, all that was shared with it; return how many images."""
        pending = self._list(person, "visibility=shared&member_status=pending")
        for image in pending:
            path = f"/v2/images/{image['id']}/members/{self.openstack.project(project)}"
            status, said = self.openstack.ask(person, "PUT", path, {"status": "accepted"})
            assert status == _OK, said
        return len(pending)

    def finds(self, person: str) -> set[tuple[str, str]]:
        """Return the images and versions that a person of another project finds."""
        return {
            (each["coppice_image"], each["coppice_version"])
            for each in self._list(person, "status=active")
            if "coppice_image" in each
        }

    def make(self, **fields: object) -> str:
        """Make an image of the same project as somebody else does; return its identifier."""
        status, said = self.openstack.ask(
            self.owner, "POST", "/v2/images", {"disk_format": "raw", "container_format": "bare", **fields}
        )
        assert status == _MADE, said
        path, kind = f"/v2/images/{said['id']}/file", "application/octet-stream"
        status, answer = self.openstack.ask(self.owner, "PUT", path, b"theirs" * 100, content_type=kind)
        assert status == _NOTHING, answer
        return str(said["id"])

    def delete(self, image: str, version: str) -> None:
        """Remove an image behind the site's back."""
        for each in self.owned():
            if (each.get("coppice_image"), each.get("coppice_version")) == (image, version):
                status, said = self.openstack.ask(self.owner, "DELETE", f"/v2/images/{each['id']}")
                assert status == _NOTHING, said

    def _list(self, person: str, query: str) -> list[dict[str, Any]]:
        status, said = self.openstack.ask(person, "GET", f"/v2/images?limit=1000&{query}")
        assert status == _OK, said
        images: list[dict[str, Any]] = said["images"]
        return images


class UsedOpenNebula(UsedCloud):
    """A simulated front-end, and an ordinary user of it.

    Args:
        path: An empty directory.
    """

    name = "opennebula"

    def __init__(self, path: Path) -> None:
        self.stand = OpenNebulaStand(path)
        self.simulator: OpenNebulaSimulator = self.stand.simulator
        self.options = (
            f'visibility = "public"\nendpoint = "{self.simulator.endpoint}"\nsecret_file = "{path}/one_auth"\n'
            'timeout = 20\nimage_timeout = 10\n[clouds.opennebula.transport]\ndriver = "path"\n'
            f'directory = "{self.stand.transport.directory}"\n'
        )

    def running(self) -> AbstractContextManager[object]:
        """Return the front-end as a context."""
        return self.simulator

    def opened(self) -> Cloud:
        """Return a driver that waits less than the settings let one."""
        return self.stand.driver

    def seen(self) -> dict[tuple[str, str], Seen]:
        """Look at images and VM templates with an ordinary user's rights."""
        user, found = self.stand.user, {}
        with self.simulator.world.lock:
            leads_to = {
                dict(disk).get("IMAGE_ID"): template.name
                for template in self.simulator.templates()
                if template.allows(user, Right.USE)
                for disk in template.template.all("DISK")
                if not isinstance(disk, str)
            }
            for image in self.simulator.images():
                said = image.template
                if not said.first("COPPICE_SITE"):
                    continue
                usable = image.state in {State.READY, State.USED} and image.allows(user, Right.USE)
                found[str(said.first("COPPICE_IMAGE")), str(said.first("COPPICE_VERSION"))] = Seen(
                    state=str(said.first("COPPICE_STATE")),
                    listed=str(image.identifier) in leads_to,
                    startable=usable and image.written is not None and image.written.exists(),
                    title=leads_to.get(str(image.identifier), image.name),
                    reason=str(said.first("COPPICE_REASON") or ""),
                )
        return found

    def is_empty(self) -> bool:
        """Look for images, VM templates, files, and what is offered."""
        stand, simulator = self.stand, self.simulator
        kept = (simulator.images(), simulator.templates(), simulator.stray_files())
        return not any(kept) and not any(stand.transport.directory.iterdir())


class UsedLibvirt(UsedCloud):
    """A real libvirtd of the tests' own.

    Args:
        libvirtd: Its machines and files are removed.
    """

    name = "libvirt"

    def __init__(self, libvirtd: Libvirtd) -> None:
        libvirtd.clear()
        self.libvirtd = libvirtd
        self.options = f'uri = "{libvirtd.uri}"\npool = "{POOL}"\nhypervisor = "qemu"\nnetwork = "none"'

    def seen(self) -> dict[tuple[str, str], Seen]:
        """Look at machine definitions, and at whether the files that they name are there.

        Raises:
            libvirt.libvirtError: It does not answer.
        """
        with self.libvirtd.connection() as connection:
            documents = [machine.XMLDesc(library().VIR_DOMAIN_XML_INACTIVE) for machine in _machines(connection)]
        images, leads_to = [], {}
        for xml in documents:
            root = ET.fromstring(xml)  # noqa: S314 - of the tests' own libvirtd
            disk = node.get("file", "") if (node := root.find("./devices/disk/source")) is not None else ""
            for kind, text in ((each.tag, each.text or "") for each in root.findall("./metadata/*")):
                if kind == f"{_RECORD}current" and Path(disk).is_file():
                    leads_to[disk] = root.findtext("title", "")
                elif kind == f"{_RECORD}image":
                    images.append((json.loads(text), disk, root.findtext("title", "")))
        return {
            (document["marker"]["coppice_image"], document["marker"]["coppice_version"]): Seen(
                state=document["marker"]["coppice_state"],
                listed=disk in leads_to,
                startable=document["whole"] and Path(disk).is_file(),
                title=title,
                reason=document["marker"].get("coppice_reason", ""),
            )
            for document, disk, title in images
        }

    def is_empty(self) -> bool:
        """Look for machine definitions and files."""
        with self.libvirtd.connection() as connection:
            machines = connection.listAllDomains(0)
        return not machines and not any(self.libvirtd.scratch_files())


def _machines(connection: Any) -> list[Any]:
    return [machine for machine in connection.listAllDomains(0) if re.search("coppice", machine.XMLDesc(0))]
