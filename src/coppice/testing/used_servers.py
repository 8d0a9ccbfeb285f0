# SPDX-License-Identifier: Apache-2.0
"""OpenStack, OpenNebula and libvirt as their users see them; see `coppice.testing.used_clouds`.

Glance is asked by REST as a member of another project, OpenNebula looked at with the rights of an ordinary user,
libvirt through machine definitions and the files that they name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from coppice.testing.desired import SITE
from coppice.testing.fault_proxy import rewrites
from coppice.testing.libvirtd import POOL, library
from coppice.testing.opennebula.faults import Act, Fault
from coppice.testing.opennebula.objects import Right, State
from coppice.testing.opennebula_stand import OpenNebulaStand
from coppice.testing.used_clouds import Seen, UsedCloud

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from coppice.cloud.driver import Cloud
    from coppice.testing.fault_proxy import FaultProxy
    from coppice.testing.libvirtd import Libvirtd
    from coppice.testing.opennebula.simulator import OpenNebulaSimulator
    from coppice.testing.openstack import OpenStack

_OK, _MADE, _NOTHING = 200, 201, 204
_RECORD = "{urn:coppice:libvirt}"


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

    def delete(self, image: str, version: str) -> None:
        """Remove it as its owner."""
        for each in self.owned():
            if (each.get("coppice_image"), each.get("coppice_version")) == (image, version):
                status, said = self.openstack.ask(self.owner, "DELETE", f"/v2/images/{each['id']}")
                assert status == _NOTHING, said

    def add_foreign(self, name: str) -> Callable[[], bool]:
        """Make an image of the same project, as its owner does."""
        fields = {"name": name, "disk_format": "raw", "container_format": "bare", "theirs": "yes"}
        status, said = self.openstack.ask(self.owner, "POST", "/v2/images", fields)
        assert status == _MADE, said
        path, kind = f"/v2/images/{said['id']}", "application/octet-stream"
        status, answer = self.openstack.ask(self.owner, "PUT", f"{path}/file", b"theirs" * 100, content_type=kind)
        assert status == _NOTHING, answer
        _, made = self.openstack.ask(self.owner, "GET", path)
        return lambda: self.openstack.ask(self.owner, "GET", path) == (_OK, made)

    def list_half(self) -> None:
        """Let what lists images end in its middle, for the entry ``faulty``."""
        half = rewrites(lambda body: body[: len(body) // 2], times=None)
        self.faults.add(half, method="GET", path=r"/v2/images\?")

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

    def opened(self, **seconds: float) -> Cloud:
        """Return a driver that waits less than the settings let one; ``seconds``: how long, where another is meant."""
        driver = self.stand.of_site(SITE, **seconds)
        driver.name = self.name
        return driver

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

    def delete(self, image: str, version: str) -> None:
        """Drop it."""
        with self.simulator.world.lock:
            for each in self.simulator.images():
                if (each.template.first("COPPICE_IMAGE"), each.template.first("COPPICE_VERSION")) == (image, version):
                    self.simulator.world.drop(each, with_file=True)

    def add_foreign(self, name: str) -> Callable[[], bool]:
        """Make an image of the same user."""
        self.stand.add_foreign(name)
        return self.stand.foreign_is_whole

    def list_half(self) -> None:
        """Let what lists images end in its middle."""
        self.simulator.faults.add(Fault(method="one.imagepool.info", act=Act.HALF, times=None))

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
            disk = _disk(root)
            for kind, text in ((each.tag, each.text or "") for each in root.findall("./metadata/*")):
                if kind == f"{_RECORD}current" and disk.is_file():
                    leads_to[disk] = root.findtext("title", "")
                elif kind == f"{_RECORD}image":
                    images.append((json.loads(text), disk, root.findtext("title", "")))
        return {
            (document["marker"]["coppice_image"], document["marker"]["coppice_version"]): Seen(
                state=document["marker"]["coppice_state"],
                listed=disk in leads_to,
                startable=document["whole"] and disk.is_file(),
                title=title,
                reason=document["marker"].get("coppice_reason", ""),
            )
            for document, disk, title in images
        }

    def delete(self, image: str, version: str) -> None:
        """Undefine its machine, and remove its file."""
        with self.libvirtd.connection() as connection:
            for machine in _machines(connection):
                root = ET.fromstring(machine.XMLDesc(library().VIR_DOMAIN_XML_INACTIVE))  # noqa: S314 - as above
                text = root.findtext(f"./metadata/{_RECORD}image")
                said = json.loads(text)["marker"] if text else {}
                if (said.get("coppice_image"), said.get("coppice_version")) == (image, version):
                    machine.undefine()
                    _disk(root).unlink()

    def add_foreign(self, name: str) -> Callable[[], bool]:
        """Define a machine without a disk."""
        xml = f"<domain type='qemu'><name>{name}</name><memory>65536</memory><os><type>hvm</type></os></domain>"
        with self.libvirtd.connection() as connection:
            made = connection.defineXML(xml).XMLDesc(0)

        def is_whole() -> bool:
            with self.libvirtd.connection() as connection:
                return bool(connection.lookupByName(name).XMLDesc(0) == made)

        return is_whole

    def is_empty(self) -> bool:
        """Look for machine definitions and files."""
        with self.libvirtd.connection() as connection:
            machines = connection.listAllDomains(0)
        return not machines and not any(self.libvirtd.scratch_files())


def _disk(root: ET.Element) -> Path:
    source = root.find("./devices/disk/source")
    return Path("/nowhere" if source is None else source.get("file", "/nowhere"))


def _machines(connection: Any) -> list[Any]:
    return [machine for machine in connection.listAllDomains(0) if re.search("coppice", machine.XMLDesc(0))]
