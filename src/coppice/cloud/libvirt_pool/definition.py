# SPDX-License-Identifier: Apache-2.0
"""The XML that is given to libvirt. Pure.

Whatever a list says gets into texts that libvirt only keeps, escaped; into what it acts on get numbers within bounds
and words from literal tables. What a machine writes goes into a file of its own that is removed when it ends
(``<transient shareBacking='yes'/>``): the image stays as it was published, and several machines share it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.libvirt_pool import naming
from coppice.cloud.libvirt_pool.record import CURRENT, IMAGE, NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.cloud.libvirt_pool.record import CurrentRecord, Record

DEFAULT_MEMORY_MIB = 1024
MOST_MEMORY_MIB = 16 * 1024 * 1024
MOST_CORES = 1024
USER_NETWORK = "user"
"""Word for the network that each machine has of its own, for which nothing has to be set up."""
NO_NETWORK = "none"
_MOST_TITLE = 250
_MOST_DESCRIPTION = 20_000
_ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "x86_64": ("x86_64", "q35"),
    "amd64": ("x86_64", "q35"),
    "i386": ("x86_64", "q35"),
    "i686": ("x86_64", "q35"),
    "aarch64": ("aarch64", "virt"),
    "arm64": ("aarch64", "virt"),
}
"""What lists say, and which architecture and kind of machine libvirt has for it."""
_DEVICES: Mapping[str, str] = {"virtio": "vda", "scsi": "sda", "sata": "sda"}
"""Buses that a disk can be attached to while a machine starts, as shared disks are; others are taken as ``sata``."""

_NOT_OF_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""All but the characters of XML 1.0, section 2.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How this site wants its machines, beside what an image asks for.

    Attributes:
        hypervisor: ``kvm`` or ``qemu``.
        network: Name of one of libvirt's networks, `USER_NETWORK` or `NO_NETWORK`.
    """

    hypervisor: str
    network: str


def architecture_of(record: Record) -> str:
    """Return the architecture of an image's machines, as libvirt calls it."""
    return _architecture(record)[0]


def blocked_path(path: str, why: str) -> str:
    """Return the path that a definition has for its disk when nothing may start from it; nothing is ever there.

    A start is refused by libvirt, whose message names the path, and by it the reason.
    """
    return f"{path}.not-startable-{why}"


def image_definition(
    record: Record, *, identifier: str, name: str, disk_path: str, machine: Machine, remark: str
) -> str:
    """Return the machine definition of an image in one version.

    Args:
        record: What is written on it.
        identifier: Its UUID.
        name: Its name.
        disk_path: Where its disk is, or `blocked_path`.
        machine: As this site wants it.
        remark: What people are told first.
    """
    return _definition(
        record, identifier, name, disk_path=disk_path, machine=machine, remark=remark, written=(IMAGE, record.as_text())
    )


def current_definition(
    record: Record, current: CurrentRecord, *, identifier: str, name: str, disk_path: str, machine: Machine
) -> str:
    """Return the machine definition that leads to the current version, whose record is ``record``."""
    return _definition(
        record,
        identifier,
        name,
        disk_path=disk_path,
        machine=machine,
        remark="The current version: a machine that is started anew gets it.",
        written=(CURRENT, current.as_text()),
    )


def volume_definition(name: str, size_bytes: int) -> str:
    """Return the definition of a file that an image's bytes are put into; its format is found by libvirt afterwards."""
    return (
        f"<volume><name>{escaped(name)}</name><capacity unit='bytes'>{size_bytes}</capacity>"
        "<allocation unit='bytes'>0</allocation><target><format type='raw'/></target></volume>"
    )


def escaped(text: str) -> str:
    """Return ``text`` as the content of an element; what XML cannot hold is left out."""
    return (
        _NOT_OF_XML.sub("", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
    )


def attribute(text: str) -> str:
    """Return ``text`` as an attribute's value, with its quotes."""
    return "'" + escaped(text).replace("'", "&apos;").replace("\n", "&#10;").replace("\t", "&#9;") + "'"


def _definition(
    record: Record,
    identifier: str,
    name: str,
    *,
    disk_path: str,
    machine: Machine,
    remark: str,
    written: tuple[str, str],
) -> str:
    element, text = written
    description = "\n".join((remark, *(f"{key}: {value}" for key, value in sorted(record.facts.items()))))
    architecture, board = _architecture(record)
    return f"""\
<domain type={attribute(machine.hypervisor)}>
  <name>{escaped(name)}</name>
  <uuid>{escaped(identifier)}</uuid>
  <title>{escaped(shown_title(record.name))}</title>
  <description>{escaped(description[:_MOST_DESCRIPTION])}</description>
  <metadata>
    <coppice:{element} xmlns:coppice='{NAMESPACE}'>{escaped(text)}</coppice:{element}>
  </metadata>
  <memory unit='MiB'>{_memory_mib(record)}</memory>
  <vcpu>{_cores(record)}</vcpu>
  <os{_firmware(record, architecture)}>
    <type arch='{architecture}' machine='{board}'>hvm</type>
  </os>
  <features><acpi/>{"<apic/>" if architecture == "x86_64" else ""}</features>
  <cpu mode='maximum'/>
  <devices>
    {_disk(record, disk_path)}
    {_interface(machine.network, identifier)}
    <console type='pty'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
"""


def shown_title(name: str) -> str:
    """Return an image's name as the title of a definition: libvirt wants one line, and something on it."""
    return " ".join(name.split())[:_MOST_TITLE] or "image"


def _disk(record: Record, path: str) -> str:
    bus = record.hardware.get("disk_bus", "virtio")
    bus = bus if bus in _DEVICES else "sata"
    controller = "<controller type='scsi' model='virtio-scsi'/>" if bus == "scsi" else ""
    # A disk that several machines share is attached while a machine starts, which not every bus allows.
    shared = "<transient/>" if bus == "sata" else "<transient shareBacking='yes'/>"
    return (
        f"{controller}<disk type='file' device='disk'><driver name='qemu' type='{record.format}'/>"
        f"<source file={attribute(path)}/><target dev='{_DEVICES[bus]}' bus='{bus}'/>{shared}<boot order='1'/></disk>"
    )


def _interface(network: str, identifier: str) -> str:
    if network == NO_NETWORK:
        return ""
    card = f"<mac address='{naming.network_address(identifier)}'/><model type='virtio'/>"
    if network == USER_NETWORK:
        return f"<interface type='user'>{card}</interface>"
    return f"<interface type='network'><source network={attribute(network)}/>{card}</interface>"


def _firmware(record: Record, architecture: str) -> str:
    asked = record.additions.get("firmware") or record.hardware.get("firmware", "")
    return " firmware='efi'" if asked == "uefi" and architecture == "x86_64" else ""


def _memory_mib(record: Record) -> int:
    return (
        _number(record.additions, "memory_mib", MOST_MEMORY_MIB)
        or _number(record.facts, "recommended_ram_mib", MOST_MEMORY_MIB)
        or _number(record.facts, "minimum_ram_mib", MOST_MEMORY_MIB)
        or DEFAULT_MEMORY_MIB
    )


def _cores(record: Record) -> int:
    return (
        _number(record.additions, "cores", MOST_CORES)
        or _number(record.facts, "recommended_cores", MOST_CORES)
        or _number(record.facts, "minimum_cores", MOST_CORES)
        or 1
    )


def _architecture(record: Record) -> tuple[str, str]:
    return _ARCHITECTURES.get(record.facts.get("architecture", "").lower(), _ARCHITECTURES["x86_64"])


def _number(texts: Mapping[str, str], key: str, most: int) -> int | None:
    text = texts.get(key, "")
    is_short = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return int(text) if is_short and 0 < int(text) <= most else None
