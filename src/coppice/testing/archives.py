# SPDX-License-Identifier: Apache-2.0
"""Archives and OVF descriptors byte by byte, right or wrong as a test needs them; nothing of the product's is used."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from coppice.testing import images

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 512
END = bytes(2 * BLOCK)
POSIX, GNU, NO_MARK = b"ustar\x0000", b"ustar  \x00", bytes(8)
DISK = images.raw_disk(16 * images.KIB)
ENVELOPE = "http://schemas.dmtf.org/ovf/envelope/1"
ENVELOPE_2 = "http://schemas.dmtf.org/ovf/envelope/2"
_CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2"


def header(
    name: str | bytes,
    size: int = 0,
    *,
    kind: str = "0",
    link: str = "",
    mark: bytes = POSIX,
    prefix: bytes = b"",
    size_field: bytes | None = None,
    checksum: int | None = None,
) -> bytes:
    """Return one header; its checksum is right unless it is given."""
    block = bytearray(BLOCK)
    told = name.encode() if isinstance(name, str) else name
    block[0:100] = told[:100].ljust(100, b"\0")
    block[100:124] = b"".join(b"%07o\0" % number for number in (0o644, 0, 0))
    block[124:136] = (b"%011o\0" % size if size_field is None else size_field).ljust(12, b"\0")
    block[136:148] = b"00000000000\0"
    block[156] = ord(kind)
    block[157:257] = link.encode()[:100].ljust(100, b"\0")
    block[257:265] = mark
    block[345:500] = prefix[:155].ljust(155, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) if checksum is None else checksum)
    return bytes(block)


def padded(content: bytes) -> bytes:
    """Return content with zeros up to a whole block."""
    return content + bytes(-len(content) % BLOCK)


def member(name: str | bytes, content: bytes = b"", **wrong: object) -> bytes:
    """Return a header and its content; see `header`."""
    return header(name, len(content), **wrong) + padded(content)  # type: ignore[arg-type]  # passed on


def records(**values: str) -> bytes:
    """Return the content of an extended header; ``__`` in a key stands for a dot."""
    made = b""
    for key, value in values.items():
        text = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(text) + 1
        while len(str(length)) + len(text) != length:
            length += 1
        made += str(length).encode() + text
    return made


def extended(kind: str = "x", **values: str) -> bytes:
    """Return an extended header of pax."""
    return member("PaxHeaders/x", records(**values), kind=kind)


def archive(*members: bytes, end: bytes = END) -> bytes:
    """Return an archive."""
    return b"".join(members) + end


def item(kind: int, number: int, *, attributes: str = "", **fields: str) -> str:
    """Return one piece of hardware."""
    inside = "".join(f"<rasd:{key}>{value}</rasd:{key}>" for key, value in sorted(fields.items()))
    return (
        f"<Item {attributes}><rasd:InstanceID>{number}</rasd:InstanceID>"
        f"<rasd:ResourceType>{kind}</rasd:ResourceType>{inside}</Item>"
    )


HARDWARE = (
    item(3, 1, VirtualQuantity="2")
    + item(4, 2, VirtualQuantity="2048", AllocationUnits="byte * 2^20")
    + item(6, 3, ResourceSubType="lsilogic")
    + item(17, 4, Parent="3", HostResource="ovf:/disk/vmdisk1")
)


def ovf(
    *,
    href: str = "disk.raw",
    file: str = "",
    disk: str = "",
    references: str | None = None,
    disks: str | None = None,
    hardware: str = HARDWARE,
    machine: str = "",
    systems: str | None = None,
    sections: str = "",
    namespace: str = ENVELOPE,
    beginning: str = '<?xml version="1.0" encoding="UTF-8"?>',
) -> str:
    """Return a descriptor; each piece may be given otherwise.

    Args:
        href: Name of the disk's file.
        file: Further attributes of its reference.
        disk: Further attributes of the disk.
        references: All references.
        disks: All disks.
        hardware: All pieces of hardware.
        machine: More of the machine, after its hardware.
        systems: All machines.
        sections: More of the envelope.
        namespace: Of the envelope.
        beginning: Before the envelope.
    """
    one_file = f'<File ovf:id="file1" ovf:href="{href}" {file}/>'
    one_disk = f'<Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="16384" {disk}/>'
    one_system = (
        '<VirtualSystem ovf:id="vm"><Info>A machine</Info><Name>test machine</Name>'
        f"<VirtualHardwareSection><Info>Hardware</Info>{hardware}</VirtualHardwareSection>{machine}</VirtualSystem>"
    )
    return (
        f'{beginning}\n<Envelope xmlns="{namespace}" xmlns:ovf="{namespace}"'
        f' xmlns:rasd="{_CIM}/CIM_ResourceAllocationSettingData"'
        f' xmlns:sasd="{_CIM}/CIM_StorageAllocationSettingData.xsd"'
        ' xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vbox="http://www.virtualbox.org/ovf/machine">'
        f"<References>{one_file if references is None else references}</References>"
        f"<DiskSection><Info>Disks</Info>{one_disk if disks is None else disks}</DiskSection>{sections}"
        f"{one_system if systems is None else systems}</Envelope>\n"
    )


def manifest(files: Iterable[tuple[str, bytes]], algorithm: str = "SHA256") -> bytes:
    """Return a manifest of files, by name and content."""
    return b"".join(
        f"{algorithm}({name})= {hashlib.new(algorithm.lower(), content).hexdigest()}\n".encode()
        for name, content in files
    )


def ova(
    descriptor: str | bytes | None = None,
    *,
    disk: bytes = DISK,
    name: str = "disk.raw",
    more: bytes = b"",
    end: bytes = END,
) -> bytes:
    """Return an OVA of a descriptor and a disk.

    Args:
        descriptor: The descriptor; None: a good one.
        disk: The disk.
        name: Of the disk's member.
        more: Further members.
        end: What ends it.
    """
    text = ovf() if descriptor is None else descriptor
    content = text.encode() if isinstance(text, str) else text
    return archive(member("vm.ovf", content), member(name, disk), more, end=end)
