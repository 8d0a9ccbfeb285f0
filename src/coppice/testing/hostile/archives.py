# SPDX-License-Identifier: Apache-2.0
"""Hostile tar archives and OVAs: members that lead elsewhere, two readings of one archive, manifests that lie."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from coppice.errors import ArchiveError, CorruptImageError, DiskCountError, ManifestError, OvfError
from coppice.testing.archives import (
    DISK,
    END,
    GNU,
    NO_MARK,
    archive,
    extended,
    header,
    manifest,
    member,
    ova,
    ovf,
    padded,
    records,
)
from coppice.testing.hostile.case import HostileCase

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.errors import ImageRefusedError

_THREAT = "T67"
_8_EIB = b"\x80" + (2**63 - 1).to_bytes(11, "big")
_OVF = ovf().encode()
_VICTIM = "/tmp/coppice-canary"  # noqa: S108 - named by hostile files, and never opened


def cases() -> tuple[HostileCase, ...]:
    """Return the files."""
    return (*_names(), *_kinds(), *_two_readings(), *_broken(), *_manifests())


def _names() -> list[HostileCase]:
    names: dict[str, str | bytes] = {
        "traversal": "../../../../tmp/coppice-canary",
        "traversal-inside": "a/../../coppice-canary",
        "absolute": _VICTIM,
        "option-to-command": "--to-command=touch coppice-canary",
        "option-checkpoint": "--checkpoint-action=exec=touch coppice-canary",
        "control-characters": "disk\x1b[2J.vmdk",
        "backslash": "..\\..\\coppice-canary",
        "not-utf-8": b"disk\xff.vmdk",
        "too-long": "d/" * 130 + "x",
    }
    found = [_case(f"name-{kind}", ArchiveError, ova(more=_named(name))) for kind, name in names.items()]
    found.append(_case("name-empty", ArchiveError, archive(extended(comment="x"), member(b"", b"x"))))
    found.append(_case("name-in-a-directory", ArchiveError, ova(more=member("inner/readme.txt", b"text"))))
    return found


def _named(name: str | bytes) -> bytes:
    content = b"text"
    told = name.encode() if isinstance(name, str) else name
    if len(told) <= 100:  # noqa: PLR2004 - what a plain header holds
        return member(told, content)
    return member("././@LongLink", told + b"\0", kind="L", mark=GNU) + member(told, content, mark=GNU)


def _kinds() -> list[HostileCase]:
    kinds = {"hard-link": "1", "symbolic-link": "2", "character-device": "3", "block-device": "4", "directory": "5"}
    kinds |= {"fifo": "6", "contiguous": "7", "gnu-volume": "V", "gnu-multi-volume": "M", "unknown": "Z"}
    found = [
        _case(f"member-{kind}", ArchiveError, ova(more=member("extra.vmdk", kind=letter, link="/etc/passwd")))
        for kind, letter in kinds.items()
    ]
    linked = archive(member("vm.ovf", _OVF), header("disk.raw", kind="2", link="/etc/passwd"))
    through = archive(header("d", kind="2", link="/tmp"), member("d/coppice-canary", b"x"))  # noqa: S108 - never opened
    return [
        *found,
        _case("disk-is-a-link", ArchiveError, linked),
        _case("directory-is-a-link", ArchiveError, through),
        _case("sparse-gnu", ArchiveError, ova(more=member("extra.vmdk", kind="S", mark=GNU))),
        _case("sparse-pax", ArchiveError, ova(more=extended(GNU__sparse__major="1") + member("extra.vmdk", b"x"))),
        _case("long-link-name", ArchiveError, ova(more=member("././@LongLink", b"/etc/passwd\0", kind="K", mark=GNU))),
        _case("many-members", ArchiveError, archive(*(member(f"{number}.txt", b"x") for number in range(2000)))),
        _case("many-global-headers", ArchiveError, ova(more=extended("g", comment="x") * 500)),
    ]


def _two_readings() -> list[HostileCase]:
    disk = member("disk.raw", DISK)
    text = member("vm.ovf", _OVF)
    other = {
        "duplicate-member": archive(text, disk, disk),
        "duplicate-by-case": archive(text, disk, member("DISK.RAW", DISK)),
        "duplicate-by-form": archive(text, disk, member("e\u0301.txt", b"x"), member("\xe9.txt", b"x")),
        "duplicate-by-dot": archive(disk, member("./disk.raw", DISK)),
        "duplicate-descriptor": archive(text, member("other.ovf", _OVF), disk),
        "pax-path": archive(text, extended(path="disk.raw") + member("another.raw", DISK)),
        "pax-path-absolute": archive(text, extended(path=_VICTIM) + member(_VICTIM[:50], DISK)),
        "pax-size": archive(text, extended(size="512") + disk),
        "pax-link": archive(text, extended(linkpath="/etc/passwd") + disk),
        "pax-path-for-all": archive(extended("g", path="disk.raw"), text, disk),
        "pax-size-for-all": archive(extended("g", size="1"), text, disk),
        "pax-charset": archive(text, extended(hdrcharset="BINARY") + disk),
        "pax-unknown": archive(text, extended(EXAMPLE__path="x") + disk),
        "pax-behind-its-length": archive(text, header("x", 12, kind="x") + padded(b"12 mtime=1.\n11 path=no\n") + disk),
        "pax-twice": archive(text, extended(comment="x") + extended(comment="y") + disk),
        "pax-huge": archive(text, member("x", bytes(100_000), kind="x") + disk),
        "gnu-long-name": archive(
            text, member("././@LongLink", b"disk.raw\0", kind="L", mark=GNU) + member("other.raw", DISK, mark=GNU)
        ),
        "after-the-end": ova(end=END + member("hidden.vmdk", DISK)),
        "lone-zero-block": archive(text, bytes(512), disk),
    }
    found = [_case(name, ArchiveError, content) for name, content in other.items()]
    zeros = HostileCase(
        name="archive-zeros-after-the-end.ova",
        threat=_THREAT,
        code=ArchiveError.code,
        make=partial(_write_sparse, content=ova(), length=1 << 30),
    )
    return [*found, zeros]


def _broken() -> list[HostileCase]:
    text, disk = member("vm.ovf", _OVF), member("disk.raw", DISK)
    key = records(path="x")
    cut = ova()
    broken = {
        "size-8-eib": archive(text, header("disk.raw", size_field=_8_EIB) + padded(DISK)),
        "size-beyond-the-end": archive(text, header("disk.raw", 2**33 - 1) + padded(DISK)),
        "size-negative": archive(text, header("disk.raw", size_field=b"\xff" * 12) + padded(DISK)),
        "size-no-number": archive(text, header("disk.raw", size_field=b"12345678xyz\0") + padded(DISK)),
        "pax-size-beyond-the-end": archive(text, extended(size=str(2**62)) + header("disk.raw") + padded(DISK)),
        "checksum": archive(text, header("disk.raw", len(DISK), checksum=1) + padded(DISK)),
        "gnu-prefix": archive(text, member("disk.raw", DISK, mark=GNU, prefix=b"../../tmp")),
        "old-tar": archive(member("disk.raw", DISK, mark=NO_MARK)),
        "cut-in-a-header": cut[: len(text) + 100],
        "cut-in-the-disk": cut[: len(text) + 5000],
        "cut-before-the-end": cut[: -len(END)],
        "global-header-only": archive(extended("g", comment="x")),
        "pax-without-a-file": archive(text, disk, extended(comment="x")),
        "pax-cut": archive(text, member("x", key[:-1], kind="x") + disk),
        "pax-length": archive(text, member("x", b"9999 path=x\n", kind="x") + disk),
        "pax-length-zero": archive(text, member("x", b"0 path=x\n", kind="x") + disk),
        "pax-key-twice": archive(text, member("x", key + key, kind="x") + disk),
    }
    found = [_case(name, CorruptImageError, content) for name, content in broken.items()]
    two = ovf().replace("</DiskSection>", '<Disk ovf:diskId="vmdisk2" ovf:capacity="1"/></DiskSection>')
    counts = {
        "plain-two-disks": archive(disk, member("other.raw", DISK)),
        "plain-no-disk": archive(member("readme.txt", b"text"), member("licence.txt", b"text")),
        "plain-flat-vmdk": archive(member("d.vmdk", b"# Disk DescriptorFile\nversion=1\n"), member("flat.vmdk", DISK)),
        "ovf-two-disks": ova(two),
    }
    found += [_case(name, DiskCountError, content) for name, content in counts.items()]
    found.append(_case("disk-not-described", ArchiveError, ova(more=member("other.vmdk", DISK))))
    lost = archive(member("vm.mf", manifest([("disk.raw", DISK)])), disk)
    return [*found, _case("descriptor-missing", OvfError, lost)]


def _manifests() -> list[HostileCase]:
    files = [("vm.ovf", _OVF), ("disk.raw", DISK)]
    good = manifest(files)
    other = {
        "descriptor-digest": manifest([("vm.ovf", b"another"), files[1]]),
        "disk-digest": manifest([files[0], ("disk.raw", b"another")]),
        "disk-not-named": manifest(files[:1]),
        "descriptor-not-named": manifest(files[1:]),
        "names-what-is-missing": manifest([*files, ("other.vmdk", b"")]),
        "names-itself": manifest([*files, ("vm.mf", b"")]),
        "names-elsewhere": manifest([*files, ("/etc/passwd", b"")]),
        "twice": good + manifest(files[1:]),
        "md5": b"MD5(vm.ovf)= 00000000000000000000000000000000\n" + good,
        "digest-too-short": good.replace(b"SHA256(disk", b"SHA512(disk"),
        "garbage": b"<html>\n" + good,
        "empty": b"",
        "not-utf-8": b"\xff\n" + good,
        "huge": good + b"\n" * 300_000,
    }
    found = [
        _case(f"manifest-{name}", ManifestError, ova(more=member("vm.mf", content))) for name, content in other.items()
    ]
    certificate = b"SHA256(vm.mf)= " + b"00" * 256 + b"\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    signed = {
        "without-manifest": member("vm.cert", certificate),
        "no-certificate": member("vm.mf", good) + member("vm.cert", b"SHA256(vm.mf)= " + b"00" * 256 + b"\n"),
        "broken-certificate": member("vm.mf", good) + member("vm.cert", certificate),
        "of-another-file": member("vm.mf", good) + member("vm.cert", certificate.replace(b"vm.mf", b"vm.ovf")),
        "empty": member("vm.mf", good) + member("vm.cert", b""),
    }
    return found + [_case(f"signature-{name}", ManifestError, ova(more=more)) for name, more in signed.items()]


def _case(name: str, kind: type[ImageRefusedError], content: bytes) -> HostileCase:
    return HostileCase(
        name=f"archive-{name}.ova", threat=_THREAT, code=kind.code, make=partial(_write, content=content)
    )


def _write(path: Path, *, content: bytes) -> None:
    path.write_bytes(content)


def _write_sparse(path: Path, *, content: bytes, length: int) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.truncate(length)
