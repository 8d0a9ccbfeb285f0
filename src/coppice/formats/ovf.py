# SPDX-License-Identifier: Apache-2.0
"""OVF descriptors (DMTF DSP0243, versions 1.x and 2.x): which files an appliance has, and what machine it needs.

Read for one machine with one disk. What the descriptor says of a network, a licence or properties is left aside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from coppice.errors import DiskCountError, EncryptedImageError, ImageRefusedError, OutsideReferenceError, OvfError
from coppice.formats.ovf_hardware import hardware_of
from coppice.formats.ovf_units import LARGEST, bytes_per_unit, whole_number
from coppice.formats.ovf_xml import Element, parse_xml
from coppice.formats.refusal import refusal
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.model.requirements import Requirements

NAMESPACES = ("http://schemas.dmtf.org/ovf/envelope/1", "http://schemas.dmtf.org/ovf/envelope/2")
"""Of OVF 1.x and 2.x."""
_MAX_NAME = 255
_WHY_ONE = "nobody knows which one is meant"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_FORMATS = (
    ("vmdk", DiskFormat.VMDK),
    ("vhdx", DiskFormat.VHDX),
    ("vhd", DiskFormat.VHD),
    ("vdi", DiskFormat.VDI),
    ("qcow", DiskFormat.QCOW2),
    ("iso", DiskFormat.ISO),
    ("raw", DiskFormat.RAW),
)
"""What the address of a format has in it: there is no registry of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OvfFile:
    """A file that a descriptor refers to.

    Attributes:
        identifier: By which the descriptor means it.
        href: Where it lies: the name of a member.
        size_bytes: Its length; None: not said.
        compression: ``gzip`` …; empty: none.
        offset: Where the reference stands in the file that was read.
    """

    identifier: str
    href: str
    size_bytes: int | None
    compression: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OvfDescriptor:
    """What a descriptor says.

    Attributes:
        version: Of OVF: ``1`` or ``2``.
        name: Of the machine; may be empty.
        files: All that it refers to.
        disk: The file of its one disk.
        capacity_bytes: Length of the disk that the machine gets; None: not said, or left to whoever installs it.
        disk_format: Which format it says the disk has; None: not said, or not known.
        requirements: What the machine needs.
        notes: What is worth saying, and no reason to refuse it.
    """

    version: str
    name: str
    files: tuple[OvfFile, ...]
    disk: OvfFile
    capacity_bytes: int | None
    disk_format: DiskFormat | None
    requirements: Requirements
    notes: tuple[str, ...]


def read_ovf(content: bytes, *, name: str, offset: int = 0) -> OvfDescriptor:
    """Return what a descriptor says.

    Args:
        content: All of it.
        name: Of the file that it lies in, for messages.
        offset: Where it begins in that file.

    Raises:
        OvfError: It is no OVF 1.x or 2.x, is dangerous as XML, or contradicts itself.
        DiskCountError: It has no disk, or several.
        OutsideReferenceError: It takes a file from elsewhere, or its disk is only what differs from another one.
        EncryptedImageError: Parts of it are encrypted.
    """
    return _Reading(parse_xml(content, name=name, offset=offset), name).descriptor()


class _Reading:
    """One descriptor, read from its tree."""

    def __init__(self, root: Element, name: str) -> None:
        self._root, self._name = root, name
        self._ovf = root.namespace
        self._notes: list[str] = []
        if root.tag != "Envelope" or root.namespace not in NAMESPACES:
            where = f"of {root.namespace[:80]!r}" if root.namespace else "of no namespace"
            self._refuse(
                f"the descriptor's root is {root.tag[:40]!r} {where}", root, why="it is no OVF of version 1.x or 2.x"
            )

    def descriptor(self) -> OvfDescriptor:
        self._refuse_encrypted()
        files = self._files()
        disk = self._disk()
        machine = self._machine()
        reference = self._attribute(disk, "fileRef")
        if reference is None:
            self._refuse(
                "its disk has no file: it is an empty one", disk, why="there is nothing to take", kind=DiskCountError
            )
        file = files.get(reference)
        if file is None:
            self._refuse(f"its disk is in a file {reference[:80]!r}, which is not listed", disk, why=_WHY_ONE)
        identifier = self._attribute(disk, "diskId") or ""
        capacity = self._capacity(disk)
        requirements = hardware_of(
            machine, self._root, disk=identifier, capacity_bytes=capacity, name=self._name, notes=self._notes
        )
        return OvfDescriptor(
            version=self._ovf[-1],
            name=self._title(machine),
            files=tuple(files.values()),
            disk=file,
            capacity_bytes=capacity,
            disk_format=_format_of(self._attribute(disk, "format") or ""),
            requirements=requirements,
            notes=tuple(self._notes),
        )

    def _refuse_encrypted(self) -> None:
        left = [self._root]
        while left:
            element = left.pop()
            if element.tag in {"EncryptedData", "EncryptionSection"}:
                self._refuse(
                    "the descriptor is encrypted in parts",
                    element,
                    why="nobody here has the key",
                    kind=EncryptedImageError,
                )
            left.extend(element.children)

    def _files(self) -> dict[str, OvfFile]:
        files: dict[str, OvfFile] = {}
        hrefs: set[str] = set()
        for element in self._only("References").all(self._ovf, "File"):
            identifier, href = self._attribute(element, "id"), self._attribute(element, "href")
            if not identifier or not href:
                self._refuse("a file has no identifier, or no address", element, why=_WHY_ONE)
            if identifier in files or href in hrefs:
                self._refuse(f"the file {identifier[:80]!r} or its address is there twice", element, why=_WHY_ONE)
            if _SCHEME.match(href) or href.startswith("/"):
                self._refuse(
                    f"a file lies elsewhere: {href[:120]!r}",
                    element,
                    why="a file of this machine, or of another one, would come into the disk",
                    kind=OutsideReferenceError,
                )
            if self._attribute(element, "chunkSize") is not None:
                self._refuse(f"the file {href[:80]!r} is cut into chunks", element, why="a disk is taken in one piece")
            files[identifier] = OvfFile(
                identifier=identifier,
                href=href,
                size_bytes=self._number(element, "size"),
                compression=(self._attribute(element, "compression") or "").strip().lower(),
                offset=element.offset,
            )
            hrefs.add(href)
        return files

    def _disk(self) -> Element:
        sections = [*self._root.all(self._ovf, "DiskSection"), *self._root.all(self._ovf, "SharedDiskSection")]
        disks = [disk for section in sections for disk in section.children if disk.tag in {"Disk", "SharedDisk"}]
        if len(disks) != 1:
            self._refuse(
                f"the descriptor has {len(disks) or 'no'} disks",
                disks[1] if disks else self._root,
                why="an image is one disk",
                kind=DiskCountError,
            )
        if self._attribute(disks[0], "parentRef") is not None:
            self._refuse(
                "its disk is only what differs from another disk",
                disks[0],
                why="the other one is not here",
                kind=OutsideReferenceError,
            )
        return disks[0]

    def _machine(self) -> Element:
        machines: list[Element] = []
        left = [self._root]
        while left:
            element = left.pop()
            machines.extend(element.all(self._ovf, "VirtualSystem"))
            left.extend(element.all(self._ovf, "VirtualSystemCollection"))
        if len(machines) != 1:
            self._refuse(
                f"the descriptor has {len(machines) or 'no'} machines",
                self._root,
                why="an image is the disk of one machine",
            )
        return machines[0]

    def _capacity(self, disk: Element) -> int | None:
        text = (self._attribute(disk, "capacity") or "").strip()
        if not text or text.startswith("${"):
            return None
        unit = self._attribute(disk, "capacityAllocationUnits") or "byte"
        number, factor = whole_number(text), bytes_per_unit(unit)
        if number is None:
            self._refuse(f"its disk has the capacity {text[:40]!r}", disk, why="that is no number")
        if factor is None:
            self._notes.append(f"the descriptor gives the disk's capacity in a unit that is not known: {unit[:40]!r}")
            return None
        if number * factor > LARGEST:
            self._refuse(f"its disk has the capacity {text} times {factor} bytes", disk, why="no disk is that large")
        return number * factor

    def _title(self, machine: Element) -> str:
        named = next(machine.all(self._ovf, "Name"), None)
        text = named.text if named is not None else self._attribute(machine, "id") or ""
        return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:_MAX_NAME]

    def _only(self, tag: str) -> Element:
        found = list(self._root.all(self._ovf, tag))
        if len(found) != 1:
            self._refuse(f"the descriptor has {len(found)} parts {tag}; there is one", self._root, why=_WHY_ONE)
        return found[0]

    def _attribute(self, element: Element, key: str) -> str | None:
        return element.attributes.get((self._ovf, key))

    def _number(self, element: Element, key: str) -> int | None:
        text = self._attribute(element, key)
        if text is None:
            return None
        number = whole_number(text)
        if number is None:
            self._refuse(f"{key} is {text[:40]!r}", element, why="that is no number")
        return number

    def _refuse(self, found: str, element: Element, *, why: str, kind: type[ImageRefusedError] = OvfError) -> NoReturn:
        raise refusal(kind, self._name, found, why=why, offset=element.offset)


def _format_of(address: str) -> DiskFormat | None:
    lowered = address.lower()
    return next((kind for mark, kind in _FORMATS if mark in lowered), None)
