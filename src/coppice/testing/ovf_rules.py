# SPDX-License-Identifier: Apache-2.0
"""The rules that docs/formats/ova.md gives for a descriptor that Coppice writes, held against one.

They are those of DMTF's schema DSP8023 1.x as far as such a descriptor goes, and what the schema cannot say: that
identifiers lead to something. Nothing of the product's is used.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
_CIM = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_"
RASD, VSSD = f"{_CIM}ResourceAllocationSettingData}}", f"{_CIM}VirtualSystemSettingData}}"
VMW = "{http://www.vmware.com/schema/ovf}"
_PARTS = ["References", "DiskSection", "NetworkSection", "VirtualSystem"]
_MACHINE = ["Info", "Name", "OperatingSystemSection", "VirtualHardwareSection"]
_BEGINNING = b'<?xml version="1.0" encoding="UTF-8"?>\n'
_STREAM = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_DIGITS = re.compile(r"[0-9]{1,19}")
_NAMELESS = ("ElementName", "InstanceID", "ResourceType")


def broken_rules(descriptor: bytes) -> list[str]:
    """Return what is wrong with a descriptor, in words; nothing where it keeps the rules."""
    if not descriptor.startswith(_BEGINNING):
        return ["1: it begins with the declaration of XML 1.0 in UTF-8"]
    try:
        root = ET.fromstring(descriptor)  # noqa: S314 - written by the test itself
    except ET.ParseError as problem:
        return [f"1: it is well-formed: {problem}"]
    if root.tag != f"{OVF}Envelope" or [child.tag for child in root] != [OVF + part for part in _PARTS]:
        return ["2: the envelope has files, disks, networks, one machine, in this order"]
    broken: list[str] = []
    files = _files(root[0], broken)
    disks = _disks(root[1], files, broken)
    networks = [each.get(f"{OVF}name") for each in root[2].findall(f"{OVF}Network")]
    if [child.tag for child in root[3]] != [OVF + part for part in _MACHINE] or not root[3].get(f"{OVF}id"):
        return [*broken, "5: the machine has its parts in this order, and an identifier"]
    broken.extend(
        f"4: a section begins with a text for people: {section.tag}"
        for section in (root[1], root[2], *root[3][2:])
        if len(section) == 0 or section[0].tag != f"{OVF}Info"
    )
    if not _DIGITS.fullmatch(root[3][2].get(f"{OVF}id", "")):
        broken.append("5: the operating system is one of CIM's numbers")
    _hardware(root[3][3], disks, networks, broken)
    return broken


def _files(references: ET.Element, broken: list[str]) -> list[str]:
    files = references.findall(f"{OVF}File")
    if len(files) != 1 or len(references) != 1:
        broken.append("3: there is one file")
    broken.extend(
        "3: a file has a name and a length"
        for file in files
        if not file.get(f"{OVF}href") or not _DIGITS.fullmatch(file.get(f"{OVF}size", ""))
    )
    return [file.get(f"{OVF}id", "") for file in files]


def _disks(section: ET.Element, files: list[str], broken: list[str]) -> list[str]:
    disks = section.findall(f"{OVF}Disk")
    if len(disks) != 1:
        broken.append("4: there is one disk")
    for disk in disks:
        is_right = (
            disk.get(f"{OVF}fileRef") in files
            and bool(disk.get(f"{OVF}fileRef"))
            and disk.get(f"{OVF}format") == _STREAM
            and disk.get(f"{OVF}capacityAllocationUnits") == "byte"
            and _DIGITS.fullmatch(disk.get(f"{OVF}capacity", ""))
        )
        if not is_right:
            broken.append("4: the disk has its file, its format and its length in bytes")
    return [f"ovf:/disk/{disk.get(f'{OVF}diskId')}" for disk in disks]


def _hardware(section: ET.Element, disks: list[str], networks: list[str | None], broken: list[str]) -> None:
    inside = [child.tag for child in section]
    items = section.findall(f"{OVF}Item")
    configs = section.findall(f"{VMW}Config")
    order = [f"{OVF}Info", f"{OVF}System", *[f"{OVF}Item"] * len(items), *[f"{VMW}Config"] * len(configs)]
    if inside != order:
        broken.append("6: the hardware has the system, the items, what is VMware's, in this order")
        return
    if any(config.get(f"{OVF}required") != "false" for config in configs):
        broken.append("7: nobody has to understand what is VMware's")
    if section[1].find(f"{VSSD}InstanceID") is None or section[1].find(f"{VSSD}ElementName") is None:
        broken.append("6: the system has an identifier and a name")
    fields = [{child.tag.removeprefix(RASD): child.text or "" for child in item} for item in items]
    numbers = [each.get("InstanceID", "") for each in fields]
    if len(set(numbers)) != len(numbers):
        broken.append("6: each item has an identifier of its own")
    for item, each in zip(items, fields, strict=True):
        names = [child.tag.removeprefix(RASD) for child in item]
        if names != sorted(names) or len(set(names)) != len(names) or not set(_NAMELESS) <= set(names):
            broken.append("6: an item has a name, an identifier and a type; its fields stand in the schema's order")
        if "Parent" in each and each["Parent"] not in numbers:
            broken.append("6: what an item hangs on is there")
        if "HostResource" in each and each["HostResource"] not in disks:
            broken.append("6: the disk of an item is there")
        if "Connection" in each and each["Connection"] not in networks:
            broken.append("6: the network of an item is there")
    kinds = sorted(each.get("ResourceType", "") for each in fields)
    memory = [each.get("AllocationUnits") for each in fields if each.get("ResourceType") == "4"]
    if memory != ["byte * 2^20"] or [kinds.count(kind) for kind in ("3", "4", "10", "17")] != [1, 1, 1, 1]:
        broken.append("6: there are processors, memory in MiB, a controller, a disk and a network adapter")
