# SPDX-License-Identifier: Apache-2.0
"""Images as the programs before Coppice left them in clouds: prepared populations for tests of adoption.

Each writes what its program is known to have written: names, properties, tags, virtual machine templates, of whatever a
test lists. They are imitations: the programs themselves do not run here.
"""

from __future__ import annotations

import http.client
import json
import time
import xmlrpc.client
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from coppice.cloud.adoption import Program
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from coppice.cloud.memory import MemoryCloud
    from coppice.cloud.model import DesiredImage
    from coppice.testing.openstack import OpenStack

OPENSTACK = "openstack"
OPENNEBULA = "opennebula"
NO = False
"""As an argument by position: XML-RPC knows no names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An image as a program left it.

    Attributes:
        program: Which.
        kind: Of the cloud: ``openstack`` or ``opennebula``.
        name: The image's name.
        properties: What the program wrote on it.
        content: The bytes that it gave to the cloud.
        tags: Tags of an OpenStack image.
        visibility: Of an OpenStack image.
        template: What it wrote on the virtual machine template (OpenNebula), but for the disk; empty: it made none.
    """

    program: Program
    kind: str
    name: str
    properties: Mapping[str, str]
    content: bytes
    tags: tuple[str, ...] = ()
    visibility: str = "private"
    template: Mapping[str, str] = field(default_factory=dict)


def nifty(image: DesiredImage, content: bytes) -> Prepared:
    """Return what NIFTY leaves in OpenNebula of an image that came through vmcatcher and ITCHY."""
    event = _event(image)
    said = {
        "NIFTY_APPLIANCE_ID": image.key.image_identifier,
        "NIFTY_APPLIANCE_DESCRIPTION": image.listed.title,
        **event,
    }
    name = f"{image.listed.title}@default"
    return Prepared(
        program=Program.NIFTY,
        kind=OPENNEBULA,
        name=name,
        properties={"DRIVER": "qcow2", **said},
        content=content,
        template={"CPU": "1", "MEMORY": "1024", **said},
    )


def cloudkeeper_one(image: DesiredImage, content: bytes) -> Prepared:
    """Return what cloudkeeper-one leaves in OpenNebula."""
    appliance = {f"CLOUDKEEPER_APPLIANCE_{key.upper()}": value for key, value in _appliance(image).items()}
    said = {
        "CLOUDKEEPER_ID": "cloudkeeper-site",
        "CLOUDKEEPER_APPLIANCE_ID": image.key.image_identifier,
        "CLOUDKEEPER_APPLIANCE_IMAGE_LIST_ID": image.key.list_identifier,
        **appliance,
        "CLOUDKEEPER_IMAGE_URI": image.listed.uri,
        "CLOUDKEEPER_IMAGE_CHECKSUM": Checksum.of(content).hexdigest,
        "CLOUDKEEPER_IMAGE_SIZE": str(len(content)),
        "CLOUDKEEPER_IMAGE_FORMAT": "QCOW2",
    }
    return Prepared(
        program=Program.CLOUDKEEPER_ONE,
        kind=OPENNEBULA,
        name=f"{image.key.image_identifier}@default",
        properties={"DISK_TYPE": "BLOCK", "DRIVER": "qcow2", **said},
        content=content,
        template={"CPU": "1", "VCPU": "1", "MEMORY": "1024", **said},
    )


def cloudkeeper_os(image: DesiredImage, content: bytes) -> Prepared:
    """Return what cloudkeeper-os 0.9.9 leaves in Glance."""
    appliance = {f"APPLIANCE_{key.upper()}": value for key, value in _appliance(image).items()}
    return Prepared(
        program=Program.CLOUDKEEPER_OS,
        kind=OPENSTACK,
        name=image.listed.title,
        properties={
            "APPLIANCE_ID": image.key.image_identifier,
            "APPLIANCE_IMAGE_LIST_ID": image.key.list_identifier,
            **appliance,
            "APPLIANCE_STATUS": "ACTIVE",
            "vmcatcher_event_ad_mpuri": image.listed.mpuri or "",
        },
        content=content,
    )


def cloudkeeper_os_head(image: DesiredImage, content: bytes) -> Prepared:
    """Return what the newest cloudkeeper-os leaves in Glance: it does not say which image it is."""
    system = image.listed.operating_system
    return Prepared(
        program=Program.CLOUDKEEPER_OS,
        kind=OPENSTACK,
        name=f"{system.kind} {system.distribution} {system.version}-{image.listed.version}-{system.architecture}",
        properties={
            "CLOUDKEEPER_image_list_identifier": image.key.list_identifier,
            **{f"CLOUDKEEPER_{key}": value for key, value in _appliance(image).items()},
            "description": image.listed.description,
        },
        content=content,
    )


def atrope(image: DesiredImage, content: bytes) -> Prepared:
    """Return what atrope leaves in Glance."""
    return _atrope(image, content, {"sha512": image.listed.checksum.hexdigest})


def atrope_egi(image: DesiredImage, content: bytes) -> Prepared:
    """Return what EGI's atrope leaves in Glance."""
    source = {
        "dc:identifier": image.key.image_identifier,
        "dc:title": image.listed.title,
        "hv:version": image.listed.version,
        "ad:mpuri": image.listed.mpuri or "",
    }
    said = {"image_hash": str(image.listed.checksum), "APPLIANCE_ATTRIBUTES": json.dumps(source)}
    return _atrope(image, content, said)


def _atrope(image: DesiredImage, content: bytes, said: Mapping[str, str]) -> Prepared:
    system = image.listed.operating_system
    return Prepared(
        program=Program.ATROPE,
        kind=OPENSTACK,
        name=f"FEDCLOUD {image.listed.title}",
        properties={
            "vmcatcher_event_dc_description": image.listed.description,
            "vmcatcher_event_ad_mpuri": image.listed.mpuri or "",
            "appdb_id": image.key.image_identifier,
            "image_list": "vo.fedcloud",
            "os_distro": system.distribution.lower(),
            "os_version": system.version,
            "architecture": system.architecture,
            **said,
        },
        content=content,
        tags=("atrope",),
        visibility="shared",
    )


def vmcatcher_opennebula(image: DesiredImage, content: bytes) -> Prepared:
    """Return what a handler of vmcatcher's events leaves in OpenNebula."""
    return Prepared(
        program=Program.VMCATCHER,
        kind=OPENNEBULA,
        name=image.key.image_identifier,
        properties={"DRIVER": "raw", **_event(image)},
        content=content,
    )


def glancepush(image: DesiredImage, content: bytes) -> Prepared:
    """Return what glancepush leaves in Glance when vmcatcher feeds it."""
    return Prepared(
        program=Program.VMCATCHER,
        kind=OPENSTACK,
        name=image.listed.title,
        properties={
            "VMCATCHER_EVENT_TYPE": "AvailablePostfix",
            "VMCATCHER_EVENT_SL_COMMENTS": "undefined",
            **_event(image),
        },
        content=content,
    )


POPULATIONS: dict[str, Callable[[DesiredImage, bytes], Prepared]] = {
    "atrope": atrope,
    "atrope-egi": atrope_egi,
    "cloudkeeper-one": cloudkeeper_one,
    "cloudkeeper-os": cloudkeeper_os,
    "cloudkeeper-os-head": cloudkeeper_os_head,
    "glancepush": glancepush,
    "nifty": nifty,
    "vmcatcher-opennebula": vmcatcher_opennebula,
}
"""Every program whose images are recognised, by a name for tests."""


def keep_in_memory(cloud: MemoryCloud, prepared: Prepared, identifier: str, *, tells_checksum: bool = True) -> None:
    """Put an image into a cloud in memory, as its program would have.

    Args:
        cloud: Where.
        prepared: What.
        identifier: The cloud's own.
        tells_checksum: Whether the cloud tells a checksum of what it holds, as Glance does and OpenNebula does not.
    """
    from coppice.cloud.memory import StoredImage

    cloud.images[identifier] = StoredImage(
        name=prepared.name,
        properties=dict(prepared.properties),
        checksum=str(Checksum.of(prepared.content)) if tells_checksum else "",
    )


def keep_in_opennebula(
    endpoint: str, session: str, prepared: Prepared, path: Path, *, datastore: int = 1, seconds: float = 60.0
) -> tuple[int, int | None]:
    """Register an image, and its virtual machine template, as its program would have; return their numbers.

    Args:
        endpoint: Of the XML-RPC interface, on loopback.
        session: ``name:password`` of the owner.
        prepared: What.
        path: Where its bytes are put for the front-end to read: a directory that it allows.
        datastore: Where it is to lie.
        seconds: How long it may take.

    Raises:
        AssertionError: The server refused, or took too long.
    """
    file = path / f"{Checksum.of(prepared.content + prepared.name.encode()).hexdigest[:16]}.img"
    file.write_bytes(prepared.content)
    file.chmod(0o644)
    said = {"NAME": prepared.name, "TYPE": "OS", "PATH": str(file), **prepared.properties}
    proxy = xmlrpc.client.ServerProxy(endpoint, transport=_Bounded())
    number = int(_called(proxy.one.image.allocate(session, _as_xml(said), datastore, NO)))
    until = time.monotonic() + seconds
    while "<STATE>1</STATE>" not in (told := _called(proxy.one.image.info(session, number, NO))):
        assert time.monotonic() < until, told
        time.sleep(0.05)
    file.unlink()
    if not prepared.template:
        return number, None
    template = _as_xml({"NAME": prepared.name, **prepared.template}, f"<DISK><IMAGE_ID>{number}</IMAGE_ID></DISK>")
    return number, int(_called(proxy.one.template.allocate(session, template)))


def keep_in_glance(openstack: OpenStack, person: str, prepared: Prepared, *, disk_format: str = "raw") -> str:
    """Register an image in Glance as its program would have; return its identifier.

    Args:
        openstack: The services.
        person: As whom.
        prepared: What.
        disk_format: What its bytes are.

    Raises:
        AssertionError: The server refused.
    """
    said = {
        "name": prepared.name,
        "disk_format": disk_format,
        "container_format": "bare",
        "visibility": prepared.visibility,
        "tags": list(prepared.tags),
        **prepared.properties,
    }
    status, made = openstack.ask(person, "POST", "/v2/images", said)
    assert status == 201, made  # noqa: PLR2004 - HTTP's "Created"
    path, kind = f"/v2/images/{made['id']}/file", "application/octet-stream"
    status, told = openstack.ask(person, "PUT", path, prepared.content, content_type=kind)
    assert status == 204, told  # noqa: PLR2004 - HTTP's "No Content"
    return str(made["id"])


class _Bounded(xmlrpc.client.Transport):
    """No answer is waited for without end; the standard library's own has no setting for that."""

    def make_connection(self, host: object) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(str(host), timeout=60)


def _called(answer: object) -> str:
    assert isinstance(answer, list)
    assert answer[0] is True, answer
    return str(answer[1])


def _as_xml(said: Mapping[str, str], more: str = "") -> str:
    parts = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in said.items())
    return f"<TEMPLATE>{parts}{more}</TEMPLATE>"


def _event(image: DesiredImage) -> dict[str, str]:
    listed, system = image.listed, image.listed.operating_system
    said = {
        "VMCATCHER_EVENT_DC_DESCRIPTION": listed.description,
        "VMCATCHER_EVENT_DC_IDENTIFIER": image.key.image_identifier,
        "VMCATCHER_EVENT_DC_TITLE": listed.title,
        "VMCATCHER_EVENT_HV_HYPERVISOR": listed.hypervisor,
        "VMCATCHER_EVENT_HV_SIZE": str(listed.size_bytes),
        "VMCATCHER_EVENT_HV_URI": listed.uri,
        "VMCATCHER_EVENT_HV_VERSION": listed.version,
        "VMCATCHER_EVENT_HV_FORMAT": listed.declared_format or "",
        "VMCATCHER_EVENT_SL_ARCH": system.architecture,
        "VMCATCHER_EVENT_SL_CHECKSUM_SHA512": listed.checksum.hexdigest,
        "VMCATCHER_EVENT_SL_OS": system.kind,
        "VMCATCHER_EVENT_SL_OSVERSION": system.version,
        "VMCATCHER_EVENT_FILENAME": image.key.image_identifier,
        "VMCATCHER_EVENT_IL_DC_IDENTIFIER": image.key.list_identifier,
        "VMCATCHER_EVENT_AD_MPURI": listed.mpuri or "",
        "VMCATCHER_EVENT_VO": image.vo or "",
    }
    return {key: value for key, value in said.items() if value}


def _appliance(image: DesiredImage) -> dict[str, str]:
    listed, system = image.listed, image.listed.operating_system
    said = {
        "title": listed.title,
        "description": listed.description,
        "mpuri": listed.mpuri or "",
        "group": ", ".join(listed.groups),
        "ram": str(listed.requirements.minimum_ram_mib or ""),
        "core": str(listed.requirements.minimum_cores or ""),
        "version": listed.version,
        "architecture": system.architecture,
        "operating_system": f"{system.kind} {system.distribution} {system.version}",
        "vo": image.vo or "",
        "expiration_date": str(int(image.expires.timestamp())),
        "base_mpuri": listed.base_mpuri or "",
    }
    return {key: value for key, value in said.items() if value}
