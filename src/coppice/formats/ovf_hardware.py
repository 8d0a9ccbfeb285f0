# SPDX-License-Identifier: Apache-2.0
"""The machine that an OVF descriptor describes, as `Requirements` (DSP0243, "Virtual Hardware Description").

Types of resources are those of CIM's ResourceAllocationSettingData: 3 processor, 4 memory, 5 IDE, 6 SCSI, 17 disk,
20 other storage, 31 logical disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from coppice.errors import OvfError
from coppice.formats.ovf_units import bytes_per_unit, whole_number
from coppice.formats.refusal import refusal
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coppice.formats.ovf_xml import Element

PROCESSOR, MEMORY, IDE, SCSI, DISK, OTHER_STORAGE, LOGICAL_DISK = "3", "4", "5", "6", "17", "20", "31"
VMWARE = "http://www.vmware.com/schema/ovf"
VIRTUALBOX = "http://www.virtualbox.org/ovf/machine"
SETTINGS = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
_SETTINGS = re.compile(
    r"http://schemas\.dmtf\.org/wbem/wscim/1/cim-schema/2/CIM_[A-Za-z]*AllocationSettingData(?:\.xsd)?"
)
_ITEMS = ("Item", "StorageItem", "EthernetPortItem")
_DISK_OF = re.compile(r"(?:ovf:)?/{1,2}disk/(.+)")
_MIB = 2**20
_MOST = 2**31 - 1
_FIRMWARE = {
    "bios": Firmware.BIOS,
    "efi": Firmware.UEFI,
    "uefi": Firmware.UEFI,
    "efi32": Firmware.UEFI,
    "efi64": Firmware.UEFI,
    "efidual": Firmware.UEFI,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One piece of hardware; its fields by name, more than one value only where that is allowed."""

    fields: dict[str, str]
    disks: tuple[str, ...]
    bound: str
    offset: int


def hardware_of(
    machine: Element, root: Element, *, disk: str, capacity_bytes: int | None, name: str, notes: list[str]
) -> Requirements:
    """Return what a machine needs.

    Args:
        machine: The one machine of a descriptor.
        root: The whole descriptor.
        disk: Identifier of the disk.
        capacity_bytes: Its length.
        name: Of the file, for messages.
        notes: Where it is written what is worth saying.

    Raises:
        OvfError: A number is none, or a part is described twice.
    """
    return _Hardware(machine, root, name, notes).requirements(disk, capacity_bytes)


class _Hardware:
    """The hardware section of one machine."""

    def __init__(self, machine: Element, root: Element, name: str, notes: list[str]) -> None:
        self._machine, self._root, self._name, self._notes = machine, root, name, notes
        self._ovf = root.namespace
        sections = list(machine.all(self._ovf, "VirtualHardwareSection"))
        if len(sections) > 1:
            notes.append("the descriptor offers several kinds of hardware; the first is read")
        self._section = sections[0] if sections else None
        self._items = self._chosen()

    def requirements(self, disk: str, capacity_bytes: int | None) -> Requirements:
        least_cores, more_cores = self._amounts(PROCESSOR, self._count)
        least_ram, more_ram = self._amounts(MEMORY, self._mebibytes)
        return Requirements(
            minimum_cores=least_cores,
            minimum_ram_mib=least_ram,
            minimum_disk_bytes=capacity_bytes,
            recommended_cores=more_cores,
            recommended_ram_mib=more_ram,
            firmware=self._firmware(),
            disk_bus=self._bus(disk),
        )

    def _chosen(self) -> list[_Item]:
        """Return the items that hold where nobody chooses a configuration; a configuration's own replace the others."""
        chosen: dict[tuple[str, str], _Item] = {}
        default = self._default_configuration()
        elements = [] if self._section is None else self._section.children
        for wanted in ("", default):
            found: set[tuple[str, str]] = set()
            for element in elements:
                if element.namespace != self._ovf or element.tag not in _ITEMS:
                    continue
                configurations = element.attributes.get((self._ovf, "configuration"), "").split()
                if wanted not in configurations if wanted else configurations:
                    continue
                item = self._item(element)
                key = (item.fields.get("InstanceID", ""), item.bound)
                if not key[0] or key in found:
                    self._refuse("a piece of hardware has no identifier of its own", element.offset)
                found.add(key)
                chosen[key] = item
            if not default:
                break
        return list(chosen.values())

    def _default_configuration(self) -> str:
        options = [
            option
            for section in self._root.all(self._ovf, "DeploymentOptionSection")
            for option in section.all(self._ovf, "Configuration")
        ]
        named = [option for option in options if option.attributes.get((self._ovf, "default")) in {"true", "1"}]
        first = (named or options)[:1]
        return first[0].attributes.get((self._ovf, "id"), "") if first else ""

    def _item(self, element: Element) -> _Item:
        fields: dict[str, str] = {}
        disks: list[str] = []
        for child in element.children:
            if not _SETTINGS.fullmatch(child.namespace):
                continue
            text = child.text.strip()
            if child.tag == "HostResource":
                found = _DISK_OF.fullmatch(text)
                disks.extend([found[1]] if found else [])
            elif child.tag in fields and child.tag != "Connection":
                self._refuse(f"a piece of hardware has two values for {child.tag[:40]!r}", child.offset)
            else:
                fields[child.tag] = text
        bound = element.attributes.get((self._ovf, "bound"), "normal")
        return _Item(fields=fields, disks=tuple(disks), bound=bound, offset=element.offset)

    def _of(self, *kinds: str) -> Iterator[_Item]:
        return (item for item in self._items if item.fields.get("ResourceType") in kinds)

    def _amounts(self, kind: str, read: Callable[[_Item], int | None]) -> tuple[int | None, int | None]:
        """Return the least that is needed, and what is better where both are said."""
        sums: dict[str, int] = {}
        for item in self._of(kind):
            amount = read(item)
            if amount is not None and item.bound in {"normal", "min"}:
                sums[item.bound] = min(_MOST, sums.get(item.bound, 0) + amount)
        normal, least = sums.get("normal"), sums.get("min")
        return (normal, None) if least is None else (least, normal)

    def _count(self, item: _Item) -> int | None:
        text = item.fields.get("VirtualQuantity", "")
        if not text:
            return None
        number = whole_number(text)
        if number is None:
            self._refuse(f"a piece of hardware is there {text[:40]!r} times, which is no number", item.offset)
        return number or None

    def _mebibytes(self, item: _Item) -> int | None:
        number = self._count(item)
        unit = item.fields.get("AllocationUnits", "")
        factor = bytes_per_unit(unit)
        if number is not None and factor is None:
            self._notes.append(f"the descriptor gives the memory in a unit that is not known: {unit[:40]!r}")
        return None if number is None or factor is None else -(-number * factor // _MIB)

    def _firmware(self) -> Firmware | None:
        said = set()
        for config in [] if self._section is None else self._section.all(VMWARE, "Config"):
            if config.attributes.get((VMWARE, "key")) == "firmware":
                said.add(config.attributes.get((VMWARE, "value"), "").lower())
        for machine in self._machine.all(VIRTUALBOX, "Machine"):
            for hardware in (child for child in machine.children if child.tag == "Hardware"):
                said |= {
                    child.attributes.get(("", "type"), "").lower()
                    for child in hardware.children
                    if child.tag == "Firmware"
                }
        known = {_FIRMWARE.get(word) for word in said}
        if len(known) > 1 or None in known:
            self._notes.append(
                "the descriptor's firmware is not known: " + ", ".join(ascii(word[:40]) for word in sorted(said))
            )
            return None
        return next(iter(known), None)

    def _bus(self, disk: str) -> DiskBus | None:
        attached = [item for item in self._of(DISK, LOGICAL_DISK) if item.disks]
        if len(attached) > 1 or any(item.disks != (disk,) for item in attached):
            offset = attached[-1].offset
            self._refuse("the machine has other disks than the descriptor's one, or has it twice", offset)
        if not attached:
            return None
        parent = attached[0].fields.get("Parent", "")
        controllers = [item for item in self._items if parent and item.fields.get("InstanceID") == parent]
        found = {_bus_of(item.fields) for item in controllers}
        return found.pop() if len(found) == 1 else None

    def _refuse(self, found: str, offset: int) -> NoReturn:
        raise refusal(OvfError, self._name, found, why="nobody knows which machine is meant", offset=offset)


def _bus_of(fields: dict[str, str]) -> DiskBus | None:
    kind, model = fields.get("ResourceType", ""), fields.get("ResourceSubType", "").lower()
    if kind == IDE:
        return DiskBus.IDE
    if "virtio" in model and "scsi" not in model:
        return DiskBus.VIRTIO
    if kind == SCSI or "scsi" in model:
        return DiskBus.SCSI
    return DiskBus.SATA if kind == OTHER_STORAGE and ("ahci" in model or "sata" in model) else None
