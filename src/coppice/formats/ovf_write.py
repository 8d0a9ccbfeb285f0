# SPDX-License-Identifier: Apache-2.0
"""OVF descriptors written (DMTF DSP0243 1.x): one machine, one disk, the same bytes for the same facts.

Which rules such a descriptor keeps is in docs/formats/ova.md.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from coppice.formats.ovf import NAMESPACES
from coppice.formats.ovf_hardware import DISK, IDE, MEMORY, OTHER_STORAGE, PROCESSOR, SCSI, SETTINGS, VMWARE
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus

if TYPE_CHECKING:
    from coppice.model.requirements import Requirements

DEFAULT_CORES = 1
DEFAULT_RAM_MIB = 1024
VMDK_STREAM = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
"""The address of the one format of a disk that every program that reads OVAs reads."""
_SYSTEM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
_HARDWARE_FAMILY = "vmx-10"
_NETWORK = "network"
_ADAPTER = "10"
USUAL_ADAPTER = "E1000"
"""A network adapter that every hypervisor has."""
VIRTUAL_ADAPTER = "VmxNet3"
"""One that kernels for clouds alone know, too, which have no driver of any real one."""
_LINUX_64, _UNKNOWN = 101, 1
"""CIM's numbers of operating systems."""
_MAX_STEM = 60
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_CONTROLLERS = {
    DiskBus.IDE: (IDE, "IDE Controller", "PIIX4"),
    DiskBus.SCSI: (SCSI, "SCSI Controller", "lsilogic"),
    DiskBus.SATA: (OTHER_STORAGE, "SATA Controller", "AHCI"),
    DiskBus.VIRTIO: (OTHER_STORAGE, "VirtIO Controller", "virtio"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OvfDisk:
    """The disk of a machine that is described.

    Attributes:
        file: Name of its file.
        file_bytes: Length of the file.
        virtual_size_bytes: Length of the disk that a guest sees.
    """

    file: str
    file_bytes: int
    virtual_size_bytes: int


def file_stem(name: str) -> str:
    """Return what the files of an appliance are called: ASCII, without anything that leads elsewhere."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return _NOT_PLAIN.sub("-", plain).strip("-._")[:_MAX_STEM].strip("-._") or "appliance"


def write_ovf(
    disk: OvfDisk, *, requirements: Requirements, name: str, is_linux: bool = False, adapter: str = USUAL_ADAPTER
) -> bytes:
    """Return a descriptor.

    Args:
        disk: Its one disk, a VMDK of the kind streamOptimized.
        requirements: What the machine needs; the recommended amounts count where there are any.
        name: Of the machine, for people.
        is_linux: Whether Linux runs on it, on 64 bits; else nothing is said of that.
        adapter: Its network adapter, as VMware calls it.
    """
    title = _text(name) or "appliance"
    kind, description = (_LINUX_64, "Linux, 64 bits") if is_linux else (_UNKNOWN, "not said")
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<Envelope xmlns="{NAMESPACES[0]}" xmlns:ovf="{NAMESPACES[0]}"',
        f'    xmlns:rasd="{SETTINGS}"',
        f'    xmlns:vssd="{_SYSTEM}"',
        f'    xmlns:vmw="{VMWARE}">',
        "  <References>",
        f'    <File ovf:id="file1" ovf:href={quoteattr(disk.file)} ovf:size="{disk.file_bytes}"/>',
        "  </References>",
        "  <DiskSection>",
        "    <Info>The disk of the machine</Info>",
        f'    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:format="{VMDK_STREAM}"',
        f'        ovf:capacity="{disk.virtual_size_bytes}" ovf:capacityAllocationUnits="byte"/>',
        "  </DiskSection>",
        "  <NetworkSection>",
        "    <Info>The network of the machine</Info>",
        f'    <Network ovf:name="{_NETWORK}">',
        "      <Description>A network with DHCP</Description>",
        "    </Network>",
        "  </NetworkSection>",
        f'  <VirtualSystem ovf:id="{file_stem(name)}">',
        "    <Info>A machine</Info>",
        f"    <Name>{escape(title)}</Name>",
        f'    <OperatingSystemSection ovf:id="{kind}">',
        "      <Info>The operating system</Info>",
        f"      <Description>{description}</Description>",
        "    </OperatingSystemSection>",
        *_hardware(requirements, title, adapter),
        "  </VirtualSystem>",
        "</Envelope>",
    ]
    return ("\n".join(lines) + "\n").encode()


def _hardware(requirements: Requirements, title: str, adapter: str) -> list[str]:
    system = {
        "ElementName": "Virtual Hardware Family",
        "InstanceID": "0",
        "VirtualSystemIdentifier": title,
        "VirtualSystemType": _HARDWARE_FAMILY,
    }
    config = []
    if requirements.firmware is not None:
        value = "efi" if requirements.firmware is Firmware.UEFI else "bios"
        config.append(f'      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{value}"/>')
    return [
        "    <VirtualHardwareSection>",
        "      <Info>What the machine is made of</Info>",
        *_element("System", "vssd", system),
        *(line for item in _items(requirements, adapter) for line in _element("Item", "rasd", item)),
        *config,
        "    </VirtualHardwareSection>",
    ]


def _items(requirements: Requirements, adapter: str) -> tuple[dict[str, str], ...]:
    """Return the pieces of hardware; the schema has their fields in the order of the alphabet."""
    cores = requirements.recommended_cores or requirements.minimum_cores or DEFAULT_CORES
    ram_mib = requirements.recommended_ram_mib or requirements.minimum_ram_mib or DEFAULT_RAM_MIB
    kind, controller, model = _CONTROLLERS[requirements.disk_bus or DiskBus.SATA]
    return (
        {"ElementName": "Processors", "InstanceID": "1", "ResourceType": PROCESSOR, "VirtualQuantity": str(cores)},
        {
            "AllocationUnits": "byte * 2^20",
            "ElementName": "Memory",
            "InstanceID": "2",
            "ResourceType": MEMORY,
            "VirtualQuantity": str(ram_mib),
        },
        {
            "Address": "0",
            "ElementName": f"{controller} 0",
            "InstanceID": "3",
            "ResourceSubType": model,
            "ResourceType": kind,
        },
        {
            "AddressOnParent": "0",
            "ElementName": "Hard Disk 1",
            "HostResource": "ovf:/disk/disk1",
            "InstanceID": "4",
            "Parent": "3",
            "ResourceType": DISK,
        },
        {
            "AutomaticAllocation": "true",
            "Connection": _NETWORK,
            "ElementName": "Network Adapter 1",
            "InstanceID": "5",
            "ResourceSubType": adapter,
            "ResourceType": _ADAPTER,
        },
    )


def _element(tag: str, prefix: str, fields: dict[str, str]) -> list[str]:
    inside = [f"        <{prefix}:{key}>{escape(value)}</{prefix}:{key}>" for key, value in fields.items()]
    return [f"      <{tag}>", *inside, f"      </{tag}>"]


def _text(name: str) -> str:
    """Return a name on one line, without what XML cannot hold."""
    words = " ".join(name.split())
    return "".join(letter for letter in words if letter.isprintable())[:255]
