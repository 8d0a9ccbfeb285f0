# SPDX-License-Identifier: Apache-2.0
"""Hostile OVF descriptors, each in an archive that is right: entities, files from elsewhere, unclear machines."""

from __future__ import annotations

import gzip
import itertools
from functools import partial
from typing import TYPE_CHECKING

from coppice.errors import (
    ArchiveError,
    DiskCountError,
    EncryptedImageError,
    OutsideReferenceError,
    OvfError,
    UnsupportedImageError,
)
from coppice.testing.archives import DISK, ENVELOPE, HARDWARE, archive, item, member, ova, ovf
from coppice.testing.hostile.case import HostileCase

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.errors import ImageRefusedError

_LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {name} "{(chr(38) + former + ";") * 10}">' for former, name in itertools.pairwise("abcdefghijklm")
)
_FILE = '<File ovf:id="file1" ovf:href="disk.raw"/>'
_DISK = '<Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="16384"/>'


def cases() -> tuple[HostileCase, ...]:
    """Return the files."""
    return (*_xml(), *_references(), *_machines())


def _xml() -> list[HostileCase]:
    good = ovf()
    texts: dict[str, str | bytes] = {
        "billion-laughs": ovf(beginning=_LAUGHS + "]>", machine="<x>&m;</x>"),
        "external-entity": ovf(
            beginning='<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>', machine="<x>&e;</x>"
        ),
        "parameter-entity": ovf(beginning='<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/x">%p;]>'),
        "document-type": ovf(beginning="<!DOCTYPE Envelope>"),
        "document-type-elsewhere": ovf(beginning='<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd">'),
        "unknown-entity": ovf(machine="<x>&e;</x>"),
        "ten-megabytes": good + " " * 10_000_000,
        "utf-16": good.replace("UTF-8", "UTF-16").encode("utf-16"),
        "utf-16-without-mark": good.replace("UTF-8", "UTF-16").encode("utf-16-be"),
        "utf-32": good.replace("UTF-8", "UTF-32").encode("utf-32"),
        "utf-7": good.replace("UTF-8", "UTF-7"),
        "latin-1": good.replace("UTF-8", "ISO-8859-1"),
        "not-utf-8": good.replace("test machine", "\udcff").encode("utf-8", "surrogateescape"),
        "nul": good.replace("test machine", "te\0st"),
        "cut": good[: len(good) // 2],
        "two-roots": good + good.partition("\n")[2],
        "empty": "",
        "html": "<!doctype html><html></html>",
        "json": "{}",
        "deep": ovf(machine="<x>" * 5000 + "</x>" * 5000),
        "many-elements": ovf(machine="<x/>" * 25_000),
        "no-namespace": "<Envelope/>",
        "other-namespace": ovf(namespace="http://www.vmware.com/schema/ovf/1/envelope"),
        "other-root": f'<Machine xmlns="{ENVELOPE}"/>',
    }
    return [_case(f"xml-{name}", OvfError, ova(text)) for name, text in texts.items()]


def _references() -> list[HostileCase]:
    outside, count = OutsideReferenceError, DiskCountError
    other = member("other.txt", b"text")
    named = {
        "href-file": (outside, ova(ovf(href="file:///etc/passwd"))),
        "href-http": (outside, ova(ovf(href="http://127.0.0.1/disk.vmdk"))),
        "href-other-host": (outside, ova(ovf(href="//127.0.0.1/disk.vmdk"))),
        "href-absolute": (outside, ova(ovf(href="/etc/passwd"))),
        "href-traversal": (OvfError, ova(ovf(href="../disk.raw"))),
        "href-mismatch": (OvfError, ova(ovf(href="other.raw"))),
        "href-case": (OvfError, ova(ovf(href="DISK.RAW"))),
        "href-descriptor": (OvfError, archive(member("vm.ovf", ovf(href="vm.ovf").encode()))),
        "href-empty": (OvfError, ova(ovf(href=""))),
        "href-two-readings": (
            OvfError,
            archive(member("vm.ovf", ovf(href="a%62.raw").encode()), member("a%62.raw", DISK), member("ab.raw", b"x")),
        ),
        "file-size": (OvfError, ova(ovf(file='ovf:size="1"'))),
        "file-size-no-number": (OvfError, ova(ovf(file='ovf:size="-1"'))),
        "file-chunks": (OvfError, ova(ovf(file='ovf:chunkSize="1000"'))),
        "file-twice": (
            OvfError,
            ova(ovf(references=_FILE + '<File ovf:id="file1" ovf:href="other.txt"/>'), more=other),
        ),
        "file-by-two-names": (OvfError, ova(ovf(references=_FILE + _FILE.replace("file1", "file2")))),
        "compression-unknown": (UnsupportedImageError, ova(ovf(file='ovf:compression="rar"'))),
        "compression-lie": (OvfError, ova(ovf(file='ovf:compression="gzip"'))),
        "compression-other": (OvfError, ova(ovf(file='ovf:compression="bzip2"'), disk=gzip.compress(DISK, mtime=0))),
        "disk-none": (count, ova(ovf(disks=""))),
        "disks-two": (
            count,
            ova(
                ovf(
                    references=_FILE + '<File ovf:id="file2" ovf:href="b.raw"/>',
                    disks=_DISK + '<Disk ovf:diskId="b" ovf:fileRef="file2" ovf:capacity="1"/>',
                ),
                more=member("b.raw", DISK),
            ),
        ),
        "disk-empty": (count, ova(ovf(disks='<Disk ovf:diskId="vmdisk1" ovf:capacity="16384"/>'))),
        "disk-parent": (outside, ova(ovf(disk='ovf:parentRef="vmdisk0"'))),
        "disk-of-no-file": (OvfError, ova(ovf(disks=_DISK.replace("file1", "file9")))),
        "disk-capacity": (OvfError, ova(ovf(disks=_DISK.replace("16384", "much")))),
        "disk-capacity-huge": (OvfError, ova(ovf(disk='ovf:capacityAllocationUnits="byte * 2^60"'))),
        "no-references": (OvfError, ova(ovf().replace("References", "Reference"))),
        "member-unknown": (ArchiveError, ova(more=member("hidden.bin", bytes(512)))),
    }
    return [_case(name, kind, content) for name, (kind, content) in named.items()]


def _machines() -> list[HostileCase]:
    machine = '<VirtualSystem ovf:id="{0}"><Info>i</Info></VirtualSystem>'
    both = machine.format("a") + machine.format("b")
    collection = f'<VirtualSystemCollection ovf:id="c"><Info>i</Info>{both}</VirtualSystemCollection>'
    twice = HARDWARE + item(17, 5, Parent="3", HostResource="ovf:/disk/vmdisk1")
    texts = {
        "machines-none": ovf(systems=""),
        "machines-two": ovf(systems=both),
        "machines-collected": ovf(systems=collection),
        "hardware-disk-twice": ovf(hardware=twice),
        "hardware-other-disk": ovf(hardware=item(17, 4, HostResource="ovf:/disk/another")),
        "hardware-same-identifier": ovf(hardware=HARDWARE + item(10, 3)),
        "hardware-no-identifier": ovf(hardware=HARDWARE.replace("rasd:InstanceID", "rasd:Other")),
        "hardware-two-amounts": ovf(
            hardware=HARDWARE.replace(
                "</rasd:VirtualQuantity>", "</rasd:VirtualQuantity><rasd:VirtualQuantity>9</rasd:VirtualQuantity>"
            )
        ),
        "hardware-no-number": ovf(hardware=HARDWARE.replace(">2048<", ">lots<")),
    }
    encrypted = ovf(sections='<EncryptedData xmlns="http://www.w3.org/2001/04/xmlenc#"/>')
    return [
        *(_case(name, OvfError, ova(text)) for name, text in texts.items()),
        _case("encrypted", EncryptedImageError, ova(encrypted)),
    ]


def _case(name: str, kind: type[ImageRefusedError], content: bytes) -> HostileCase:
    return HostileCase(name=f"ovf-{name}.ova", threat="T68", code=kind.code, make=partial(_write, content=content))


def _write(path: Path, *, content: bytes) -> None:
    path.write_bytes(content)
