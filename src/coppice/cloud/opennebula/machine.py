# SPDX-License-Identifier: Apache-2.0
"""The VM template of an appliance: what its machines are like. Pure.

Its number stays the same over all versions, so that whoever uses it, in a script or a booking, need not know of them.
A user instantiates it as it is: it has a network, a console, and takes a public key and user data for cloud-init.
Nothing of an image list but numbers and words from literal tables gets into what ``oned`` interprets; texts stand in
attributes that it only keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.opennebula import document, written
from coppice.cloud.opennebula.view import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.cloud.opennebula.document import Attribute, Attributes, Value
    from coppice.cloud.opennebula.objects import Datastore, StoredTemplate
    from coppice.cloud.opennebula.options import Placing
    from coppice.cloud.opennebula.view import Appliance

DEFAULT_MEMORY_MIB = 1024
VERSION = "COPPICE_VERSION"
_LARGEST = 1024**2
_ARCHITECTURES: Mapping[str, str] = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "i386": "i686",
    "i686": "i686",
    "aarch64": "aarch64",
    "arm64": "aarch64",
}
"""What lists say, and what libvirt calls it (``OS/ARCH``)."""
_PREFIXES: Mapping[str, str] = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd"}
"""Bus of a disk, and the prefix of device names that stands for it (``DEV_PREFIX``)."""
DEFAULT_PREFIX = "vd"
NETWORK_OWNER = "oneadmin"
"""Of virtual networks whose owner is not named."""
_RAW_ONLY_DRIVERS = frozenset({"ceph", "dev", "iscsi", "iscsi_libvirt", "rbd", "vmfs"})
_RAW_ONLY_TRANSFERS = ("fs_lvm", "ceph", "dev", "iscsi")
"""Datastores from which machines have raw devices, whatever an image's file was."""


def disk_prefix(bus: str) -> str:
    """Return ``DEV_PREFIX`` for what a disk has to be attached to."""
    return _PREFIXES.get(bus, DEFAULT_PREFIX)


def disk_driver(image_format: str, datastore: Datastore) -> str:
    """Return ``DRIVER``: as what a machine in that datastore sees the file."""
    if datastore.driver in _RAW_ONLY_DRIVERS or datastore.transfer.startswith(_RAW_ONLY_TRANSFERS):
        return "raw"
    return image_format


def template_attributes(appliance: Appliance, placing: Placing) -> Attributes:
    """Return the VM template that starts machines from a version.

    The administrator's pieces take the place of what has the same name; an interface of theirs, that of all networks.
    """
    presentation = written.read_presentation(appliance.first.attributes, name=appliance.first.name)
    hardware = written.Hardware.read(appliance.first.attributes)
    facts = presentation.facts
    cores = _number(facts, "recommended_cores") or _number(facts, "minimum_cores") or 1
    memory = _number(facts, "recommended_ram_mib") or _number(facts, "minimum_ram_mib") or DEFAULT_MEMORY_MIB
    mine: list[Attribute] = [
        ("CPU", str(cores)),
        ("VCPU", str(cores)),
        ("MEMORY", str(memory)),
        ("OS", _system(facts, hardware, placing)),
        ("GRAPHICS", (("TYPE", "VNC"), ("LISTEN", "0.0.0.0"))),  # noqa: S104 - of the machine's host, as OpenNebula's own
        ("CONTEXT", _context()),
        ("USER_INPUTS", (("USER_DATA", "O|text64|User data for cloud-init, if any| |"),)),
        *(("NIC", _interface(network)) for network in placing.networks),
    ]
    replaced = {name for name, _ in placing.pieces}
    pieces = (*((name, value) for name, value in mine if name not in replaced), *placing.pieces)
    shown = written.shown_attributes(appliance.marker, presentation)
    names = {name for name, _ in pieces}
    said = tuple((name, value) for name, value in shown if name not in names)
    disk = ("DISK", (("IMAGE_ID", appliance.identifier), ("DEV_PREFIX", disk_prefix(hardware.disk_bus))))
    ours = sorted({name for name, _ in (*pieces, *said)})
    return (
        *pieces,
        disk,
        *said,
        *identity_attributes(appliance),
        (HIDDEN, "NO"),
        (written.WRITTEN, " ".join(ours)),
    )


def identity_attributes(appliance: Appliance) -> Attributes:
    """Return what says of which image, of which site, a VM template is."""
    marker = appliance.marker
    return (
        (written.SITE, document.to_marker_value(marker.site)),
        (written.LIST, document.to_marker_value(marker.key.list_identifier)),
        (written.IMAGE, document.to_marker_value(marker.key.image_identifier)),
        (VERSION, document.to_marker_value(marker.version)),
    )


def changed(template: StoredTemplate, wanted: Attributes) -> tuple[Attributes, bool] | None:
    """Return what is to be written, and whether it takes the place of all; None: all is as wanted.

    What somebody else wrote on it stays. It is written whole where something of ours has to go: a merge takes nothing
    away.
    """
    return to_write(template.attributes, wanted)


def to_write(before: Attributes, wanted: Attributes) -> tuple[Attributes, bool] | None:
    """Return what is to be written over ``before``, and whether it takes the place of all; None: nothing."""
    kept = tuple((name, value) for name, value in wanted if _is_kept(value))
    names = {name for name, _ in kept}
    stale = written.names_of_ours(before) - names
    if not stale and all(_values(before, name) == _values(kept, name) for name in names):
        return None
    if not stale:
        return kept, False
    return document.merged(before, kept, stale), True


def _values(attributes: Attributes, name: str) -> list[object]:
    return [
        _kept(value) if isinstance(value, str) else {part: _kept(text) for part, text in value}
        for key, value in attributes
        if key == name
    ]


def _kept(text: str) -> str:
    # Some versions take blanks off both ends (`Template::trim_attributes`): no reason to write it again and again.
    return document.writable(text).strip(" \t\n\v\f")


def _is_kept(value: Value) -> bool:
    # What is empty is no attribute for oned.
    texts = (value,) if isinstance(value, str) else (text for _, text in value)
    return any(document.writable(text) for text in texts)


def _system(facts: Mapping[str, str], hardware: written.Hardware, placing: Placing) -> Value:
    parts = [("ARCH", _ARCHITECTURES.get(facts.get("architecture", "").lower(), "x86_64")), ("BOOT", "disk0")]
    if hardware.firmware == "uefi":
        parts.append(("FIRMWARE", placing.uefi_firmware))
    return tuple(parts)


def _interface(network: str) -> Value:
    if network.isdecimal():
        return (("NETWORK_ID", network),)
    # A name alone is one of the networks of whoever instantiates, who has none.
    owner, _, name = network.rpartition("/")
    return (("NETWORK", name), ("NETWORK_UNAME", owner or NETWORK_OWNER))


def _context() -> Value:
    return (
        ("NETWORK", "YES"),
        ("SSH_PUBLIC_KEY", "$USER[SSH_PUBLIC_KEY]"),
        ("USER_DATA", "$USER_DATA"),
        ("USER_DATA_ENCODING", "base64"),
    )


def _number(facts: Mapping[str, str], key: str) -> int | None:
    text = facts.get(key, "")
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(_LARGEST))
    return int(text) if is_number and 0 < int(text) <= _LARGEST else None
