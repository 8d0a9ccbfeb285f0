# SPDX-License-Identifier: Apache-2.0
"""Files that are no disk, are several at once, or are of formats that are not taken."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from coppice.errors import (
    CorruptImageError,
    EncryptedImageError,
    NotAnImageError,
    OutsideReferenceError,
    OversizedImageError,
    SeveralFormatsError,
    UnsupportedImageError,
)
from coppice.testing import images
from coppice.testing.hostile.case import HostileCase
from coppice.testing.qcow2 import TinyQcow2

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.errors import ImageRefusedError

_BOOT = b"\x55\xaa"
_PARTITION = struct.pack("<B3sB3sII", 0x80, b"\1\1\0", 0x83, b"\xfe\xff\xff", 1, 64)
_DESCRIPTOR = images.vmdk_descriptor("/etc/passwd")
_VOLUME = 32768
_KIB = 1024
_SPARSE_BYTES = 3 * 2**39


def cases() -> tuple[HostileCase, ...]:
    """Return the files."""
    return (*_documents(), *_other_formats(), *_several(), *_broken_discs(), *_sizes())


def _documents() -> list[HostileCase]:
    page = b"<!DOCTYPE html>\n<html><title>404 Not Found</title>\xc3\xa9"
    program = bytearray(4 * _KIB)
    program[:2], program[60:64], program[128:132] = b"MZ", struct.pack("<I", 128), b"PE\0\0"
    found = {
        "empty.raw": b"",
        "one-byte.raw": b"\0",
        "page.raw": page.ljust(4 * _KIB),
        "page-with-a-byte-order-mark.raw": (b"\xef\xbb\xbf \r\n" + page).ljust(4 * _KIB, b"\0"),
        "page-in-utf-16.raw": b"\xff\xfe" + page.decode().ljust(2 * _KIB).encode("utf-16-le"),
        "error.xml": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'.ljust(_KIB),
        "error.json": b'{"error": {"code": 404, "message": "not found"}}'.ljust(_KIB),
        "error-filled-up.json": b'{"error": {"code": 404, "message": "not found"}}'.ljust(4 * _KIB, b"\0"),
        "checksums.txt": (b"0123456789abcdef" * 8 + b"  disk.qcow2\n") * 8,
        "text-of-large-files.raw": b"oid sha256:0123\nsize 734003200\n".ljust(_KIB, b"\n"),
        "key.pem": b"-----BEGIN CERTIFICATE-----\n".ljust(_KIB, b"A"),
        "document.pdf": b"%PDF-1.7\n\xe2\xe3\xcf\xd3".ljust(_KIB, b"\0"),
        "program.elf": b"\x7fELF\2\1\1".ljust(_KIB, b"\0"),
        "program.exe": bytes(program),
        "kernel.raw": bytes(510) + _BOOT + b"\xeb\x66HdrS" + bytes(2 * _KIB),
        "picture.png": b"\x89PNG\r\n\x1a\n".ljust(_KIB, b"\0"),
        "package.deb": b"!<arch>\ndebian-binary".ljust(_KIB, b"\0"),
        "package.rpm": b"\xed\xab\xee\xdb\3".ljust(_KIB, b"\0"),
        "library.a.7z": b"7z\xbc\xaf\x27\x1c\0\4".ljust(_KIB, b"\0"),
        "disk.lz4": b"\x04\x22\x4d\x18\x64\x40".ljust(_KIB, b"\0"),
        "disk.lz": b"LZIP\1\x0c".ljust(_KIB, b"\0"),
    }
    return [_case(f"foreign-{name}", "T62", NotAnImageError, content) for name, content in found.items()]


def _other_formats() -> list[HostileCase]:
    found = {
        "qed.qcow2": b"QED\0\0\0\1\0",
        "cowd.vmdk": b"COWD\1\0\0\0",
        "sesparse.vmdk": b"\xbe\xba\xfe\xca\0\0\0\0",
        "parallels.hdd": b"WithoutFreeSpace\2\0\0\0",
        "parallels-extended.hdd": b"WithouFreSpacExt\2\0\0\0",
        "bochs.img": b"Bochs Virtual HD Image\0",
        "cloop.img": b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop\n\0",
        "android.img": b"\x3a\xff\x26\xed\1\0\0\0",
    }
    unsupported = [
        _case(f"foreign-{name}", "T62", UnsupportedImageError, content.ljust(64 * _KIB, b"\0"))
        for name, content in found.items()
    ]
    return [
        *unsupported,
        _case("foreign-apple.dmg", "T62", UnsupportedImageError, bytes(4 * _KIB) + b"koly\0\0\0\4".ljust(512, b"\0")),
        _case("foreign-luks.raw", "T64", EncryptedImageError, b"LUKS\xba\xbe\0\1".ljust(64 * _KIB, b"\0")),
        _case("foreign-luks-2.raw", "T64", EncryptedImageError, b"LUKS\xba\xbe\0\2".ljust(64 * _KIB, b"\0")),
        _case("foreign-bitlocker.raw", "T64", EncryptedImageError, b"\xeb\x58\x90-FVE-FS-".ljust(64 * _KIB, b"\0")),
        _case("foreign-descriptor.raw", "T60", OutsideReferenceError, _DESCRIPTOR),
        _case("foreign-descriptor-after-comments.raw", "T60", OutsideReferenceError, _commented()),
    ]


def _commented() -> bytes:
    return b'#\n# \xff\n \n  \r\nversion=1\nRW 2 FLAT "/etc/passwd" 0\n'.ljust(_KIB, b"\0")


def _several() -> list[HostileCase]:
    whole = TinyQcow2(size_bytes=64 * _KIB)
    qcow2 = whole.content()
    mbr = _over(qcow2, {446: _PARTITION, 510: _BOOT})
    footer = b"conectix".ljust(512, b"\0")
    tar = bytearray(512)
    tar[257:265] = b"ustar\x0000"
    found = {
        "iso-and-qcow2.iso": images.iso(system_area=qcow2[:28672]),
        "iso-and-qcow1.iso": images.iso(system_area=b"QFI\xfb\0\0\0\1"),
        "iso-and-descriptor.iso": images.iso(system_area=_DESCRIPTOR),
        "iso-and-descriptor-after-comments.iso": images.iso(system_area=_commented()),
        "iso-and-vmdk.iso": images.iso(system_area=b"KDMV\1\0\0\0"),
        "iso-and-vdi.iso": images.iso(system_area=bytes(64) + b"\x7f\x10\xda\xbe"),
        "iso-and-vhd.iso": images.iso(system_area=footer),
        "iso-and-vhd-at-its-end.iso": images.iso() + footer,
        "iso-and-vhdx.iso": images.iso(system_area=b"vhdxfile"),
        "iso-and-qed.iso": images.iso(system_area=b"QED\0"),
        "iso-and-luks.iso": images.iso(system_area=b"LUKS\xba\xbe\0\1"),
        "iso-and-gzip.iso": images.iso(system_area=b"\x1f\x8b\x08\0"),
        "iso-and-tar.iso": images.iso(system_area=bytes(tar)),
        "iso-and-page.iso": images.iso(system_area=b"<html>"),
        "iso-and-program.iso": images.iso(system_area=b"\x7fELF\2\1\1"),
        "mbr-and-qcow2.raw": mbr,
        "gpt-and-qcow2.raw": _over(mbr, {512: b"EFI PART\0\0\1\0"}),
        "gpt-without-mbr-and-qcow2.raw": _over(qcow2, {512: b"EFI PART\0\0\1\0"}),
        "qcow2-and-vdi.qcow2": _over(qcow2, {64: b"\x7f\x10\xda\xbe"}),
        "qcow2-and-vhd.qcow2": qcow2 + footer,
        "qcow2-and-tar.qcow2": _over(qcow2, {257: b"ustar\x0000"}),
        "qcow2-and-dmg.qcow2": qcow2 + b"koly".ljust(512, b"\0"),
        "page-and-vhd.raw": b"<html>".ljust(4 * _KIB) + footer,
    }
    return [_case(f"several-{name}", "T62", SeveralFormatsError, content) for name, content in found.items()]


def _broken_discs() -> list[HostileCase]:
    disc = images.iso()
    found = {
        "iso-without-a-volume.iso": _over(disc, {_VOLUME: b"\xff"}),
        "iso-with-a-boot-record-alone.iso": _over(disc, {_VOLUME: b"\0"}),
        "iso-with-two-sizes.iso": _over(disc, {_VOLUME + 84: struct.pack(">I", 33)}),
        "iso-with-two-block-sizes.iso": _over(disc, {_VOLUME + 130: struct.pack(">H", 512)}),
        "iso-with-odd-blocks.iso": _over(disc, {_VOLUME + 128: struct.pack("<H", 3), _VOLUME + 130: b"\0\3"}),
        "iso-without-blocks.iso": _over(disc, {_VOLUME + 80: bytes(8)}),
        "iso-cut-off.iso": _over(disc, {_VOLUME + 80: struct.pack("<I", 10**6) + struct.pack(">I", 10**6)}),
        "iso-cut-off-in-its-volume.iso": disc[: _VOLUME + 100],
        "udf-mark-alone.iso": _over(disc, {_VOLUME: b"\0NSR03\1"}),
        "raw-of-odd-length.raw": images.raw_disk()[:-1],
        "raw-of-600-bytes.raw": bytes(600),
    }
    return [_case(name, "T62", CorruptImageError, content) for name, content in found.items()]


def _sizes() -> list[HostileCase]:
    def sparse(path: Path, *, head: bytes = b"") -> None:
        with path.open("wb") as stream:
            stream.write(head)
            stream.truncate(_SPARSE_BYTES)

    disc = images.iso()
    return [
        HostileCase(name="raw-of-1.5-tib.raw", threat="T63", code=OversizedImageError.code, make=sparse),
        HostileCase(
            name="iso-of-1.5-tib.iso",
            threat="T63",
            code=OversizedImageError.code,
            make=lambda path: sparse(path, head=disc),
        ),
    ]


def _over(content: bytes, pieces: dict[int, bytes]) -> bytes:
    whole = bytearray(content)
    for offset, piece in pieces.items():
        whole[offset : offset + len(piece)] = piece
    return bytes(whole)


def _case(name: str, threat: str, kind: type[ImageRefusedError], content: bytes) -> HostileCase:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return HostileCase(name=name, threat=threat, code=kind.code, make=make)
