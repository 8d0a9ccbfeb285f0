# SPDX-License-Identifier: Apache-2.0
"""Hostile compressed files: bombs, cut and lengthened streams, and zips whose records contradict one another."""

from __future__ import annotations

import struct
import zlib
from functools import cache, partial
from typing import TYPE_CHECKING

from coppice.errors import (
    ArchiveError,
    CorruptImageError,
    DecompressionBombError,
    DiskCountError,
    EncryptedImageError,
    NotAnImageError,
    OversizedImageError,
    SeveralFormatsError,
    UnsupportedImageError,
)
from coppice.testing.archives import archive, header, member
from coppice.testing.hostile.case import HostileCase
from coppice.testing.packings import (
    DISK,
    Zipped,
    bzip2_stream,
    deflated,
    gzip_member,
    xz_stream,
    zeros,
    zip_file,
    zstd_block,
    zstd_frame,
    zstd_raw,
    zstd_skippable,
    zstd_zeros,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.errors import ImageRefusedError

_BOMBS, _STREAMS, _POLYGLOTS = "T65", "T66", "T62"
_BOMB_MIB = 1152
"""More than is believed of any file, and than a thousand times what the bombs have."""
_STREAM_MIB = 8
_GARBAGE = b"and something else"
_PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "bzip2": ("bz2", bzip2_stream),
    "gzip": ("gz", gzip_member),
    "xz": ("xz", xz_stream),
    "zstd": ("zst", zstd_raw),
}
_1_GIB_DICTIONARY = 36
_2_GIB_WINDOW = 21 << 3
_RESERVED_BIT = 0x08
_CONTENT_SIZE_64 = 0xC0
_ISO_MARK_OFFSET = 32769


def cases() -> tuple[HostileCase, ...]:
    """Return the files."""
    return (*_bombs(), *_nested(), *_cut(), *_zstd(), *_zip_members(), *_zip_records(), *_polyglots())


def _bombs() -> list[HostileCase]:
    repeats = _BOMB_MIB // _STREAM_MIB
    found = [
        _case(f"{kind}-bomb.raw.{ending}", DecompressionBombError, partial(_repeated, kind, repeats), _BOMBS)
        for kind, (ending, _) in _PACKERS.items()
        if kind != "zstd"
    ]
    tar_head = header("disk.raw", _BOMB_MIB << 20)
    return [
        *found,
        _case("zstd-bomb.raw.zst", DecompressionBombError, lambda: zstd_zeros(_BOMB_MIB << 20), _BOMBS),
        _case(
            "tar-zstd-bomb.tar.zst",
            DecompressionBombError,
            lambda: zstd_raw(tar_head) + zstd_zeros(_BOMB_MIB << 20),
            _BOMBS,
        ),
        _case("zstd-window-2-gib.raw.zst", DecompressionBombError, lambda: _window(_2_GIB_WINDOW), _BOMBS),
        _case(
            "xz-dictionary-1-gib.raw.xz",
            DecompressionBombError,
            lambda: xz_stream(DISK, dictionary=_1_GIB_DICTIONARY),
            _BOMBS,
        ),
        _case("zstd-states-8-eib.raw.zst", OversizedImageError, _stated_8_eib, _BOMBS),
        _case(
            "zip-states-4-gib.zip",
            OversizedImageError,
            lambda: zip_file(Zipped(stated={"size": 2**32 - 2}, told={"size": 2**32 - 2})),
            _BOMBS,
        ),
        _case(
            "zip-unpacks-to-more.zip",
            CorruptImageError,
            lambda: zip_file(Zipped(stated={"size": len(DISK) - 1}, told={"size": len(DISK) - 1})),
            _BOMBS,
        ),
    ]


def _nested() -> list[HostileCase]:
    contents: dict[str, Callable[[], bytes]] = {
        "gzip-in-gzip.raw.gz.gz": lambda: gzip_member(gzip_member(DISK)),
        "bzip2-in-xz.raw.bz2.xz": lambda: xz_stream(bzip2_stream(DISK)),
        "zstd-in-zip-stored.zip": lambda: zip_file(Zipped(method=0, content=zstd_raw(DISK))),
        "zip-in-gzip.zip.gz": lambda: gzip_member(zip_file(Zipped())),
        "xz-in-tar-in-gzip.tar.gz": lambda: gzip_member(archive(member(b"disk.raw.xz", xz_stream(DISK)))),
        "tar-in-tar.tar": lambda: archive(member(b"disk.tar", archive(member(b"disk.raw", DISK)))),
        "tar-in-tar-in-zstd.tar.zst": lambda: zstd_raw(
            archive(member(b"disk.tar", archive(member(b"disk.raw", DISK * 9))))
        ),
        "tar-in-gzip-in-tar.tar": lambda: archive(
            member(b"disk.tar.gz", gzip_member(archive(member(b"disk.raw", DISK))))
        ),
    }
    return [_case(name, UnsupportedImageError, make, _BOMBS) for name, make in contents.items()]


def _cut() -> list[HostileCase]:
    found = []
    for kind, (ending, pack) in _PACKERS.items():
        whole = pack(DISK)
        middle = len(whole) // 2
        broken = {
            "cut-in-half": whole[:middle],
            "cut-by-a-byte": whole[:-1],
            "header-alone": whole[:12],
            "garbage-after": whole + _GARBAGE,
            "second-stream-cut": whole + whole[:middle],
            "zeros-and-another-stream": whole + bytes(3) + whole,
            "second-stream-of-another-kind": whole + (gzip_member(b"x") if kind != "gzip" else xz_stream(b"x")),
        }
        if kind != "zstd":
            broken["checksum-wrong"] = whole[:-8] + bytes(8) if kind == "gzip" else _flipped(whole)
        found += [
            _case(f"{kind}-{name}.raw.{ending}", CorruptImageError, partial(bytes, content))
            for name, content in broken.items()
        ]
        no_images = {"empty": b"", "error-page": b"<!DOCTYPE html><html>404 Not Found</html>".ljust(2048)}
        found += [
            _case(f"{kind}-{name}.raw.{ending}", NotAnImageError, partial(pack, content))
            for name, content in no_images.items()
        ]
    return found


def _zstd() -> list[HostileCase]:
    first = zstd_block(DISK[:65536])
    broken: dict[str, tuple[type[ImageRefusedError], bytes]] = {
        "dictionary-needed": (UnsupportedImageError, zstd_frame(first, descriptor=1, fields=b"\x07")),
        "reserved-bit": (CorruptImageError, zstd_frame(first, descriptor=_RESERVED_BIT)),
        "reserved-block": (CorruptImageError, zstd_frame(zstd_block(DISK[:65536], kind=3))),
        "block-too-long": (CorruptImageError, zstd_frame(zstd_block(DISK[:1] * 200000))),
        "run-too-long": (CorruptImageError, zstd_frame(zstd_block(b"\0", kind=1, size=2**21 - 1))),
        "compressed-block-broken": (CorruptImageError, zstd_frame(zstd_block(b"\xff" * 65536, kind=2))),
        "nothing-but-skipped": (NotAnImageError, zstd_skippable(DISK)),
        "skipped-frame-cut": (CorruptImageError, zstd_raw(DISK) + zstd_skippable(DISK)[:-1]),
        "less-than-it-states": (
            CorruptImageError,
            zstd_frame(first, descriptor=_CONTENT_SIZE_64, fields=struct.pack("<Q", 65537)),
        ),
    }
    return [_case(f"zstd-{name}.raw.zst", kind, partial(bytes, content)) for name, (kind, content) in broken.items()]


def _zip_members() -> list[HostileCase]:
    of_name = {
        "absolute": b"/tmp/coppice-canary",
        "traversal": b"../../coppice-canary",
        "option": b"--use-compress-program=touch",
        "directory": b"images/",
        "unknown-encoding": b"disk\xe4.raw",
    }
    found = [
        _case(f"zip-name-{name}.zip", ArchiveError, partial(zip_file, Zipped(name=raw)))
        for name, raw in of_name.items()
    ]
    members: dict[str, tuple[type[ImageRefusedError], tuple[Zipped, ...]]] = {
        "symbolic-link": (ArchiveError, (Zipped(name=b"disk.raw", content=b"/etc/passwd", method=0, mode=0o120777),)),
        "device": (ArchiveError, (Zipped(mode=0o020644),)),
        "encrypted": (EncryptedImageError, (Zipped(flags=1),)),
        "encrypted-strongly": (EncryptedImageError, (Zipped(flags=0x41),)),
        "packed-by-lzma": (UnsupportedImageError, (Zipped(method=14),)),
        "packed-by-zstd": (UnsupportedImageError, (Zipped(method=93),)),
        "patch": (UnsupportedImageError, (Zipped(flags=0x20),)),
        "two-disks": (DiskCountError, (Zipped(), Zipped(name=b"second.raw"))),
        "one-disk-twice": (DiskCountError, (Zipped(), Zipped())),
        "overlapping": (DiskCountError, (Zipped(), Zipped(name=b"second.raw", stated={"local": 0}))),
        "folder-and-disk": (DiskCountError, (Zipped(name=b"images/", content=b"", method=0), Zipped())),
    }
    return [
        *found,
        *(_case(f"zip-{name}.zip", kind, partial(zip_file, *each)) for name, (kind, each) in members.items()),
    ]


def _zip_records() -> list[HostileCase]:
    whole = zip_file(Zipped())
    size = len(DISK)
    records: dict[str, tuple[type[ImageRefusedError], bytes]] = {
        "cut": (CorruptImageError, whole[:-1]),
        "directory-missing": (CorruptImageError, whole[: -22 - 46]),
        "garbage-after": (CorruptImageError, whole + _GARBAGE),
        "two-directories": (ArchiveError, zip_file(Zipped(), comment=zip_file(Zipped()))),
        "part-of-several": (UnsupportedImageError, zip_file(Zipped(), disk=1)),
        "begins-elsewhere": (ArchiveError, zip_file(Zipped(stated={"local": 64}))),
        "gap-before-directory": (CorruptImageError, zip_file(Zipped(), after=_GARBAGE)),
        "names-differ": (CorruptImageError, zip_file(Zipped(told_name=b"other.us"))),
        "sizes-differ": (CorruptImageError, zip_file(Zipped(told={"size": size - 1}))),
        "packed-sizes-differ": (CorruptImageError, zip_file(Zipped(told={"packed": 7}))),
        "flags-differ": (CorruptImageError, zip_file(Zipped(told={"flags": 2}))),
        "checksum-wrong": (CorruptImageError, zip_file(Zipped(stated={"crc": 1}, told={"crc": 1}))),
        "stored-checksum-wrong": (CorruptImageError, zip_file(Zipped(method=0, stated={"crc": 1}, told={"crc": 1}))),
        "stored-with-two-sizes": (
            CorruptImageError,
            zip_file(Zipped(method=0, stated={"size": size + 1}, told={"size": size + 1})),
        ),
        "zip64-missing": (CorruptImageError, zip_file(Zipped(stated={"size": 2**32 - 1}))),
        "zip64-twice": (
            ArchiveError,
            zip_file(Zipped(stated={"size": 2**32 - 1}, extra=struct.pack("<2HQ", 1, 8, size) * 2)),
        ),
        "zip64-out-of-the-file": (
            CorruptImageError,
            zip_file(Zipped(stated={"packed": 2**32 - 1}, extra=struct.pack("<2HQ", 1, 8, 2**63))),
        ),
        "descriptor-wrong": (
            CorruptImageError,
            zip_file(Zipped(flags=8, told={"crc": 0, "packed": 0, "size": 0}, follows=b"PK\x07\x08" + bytes(12))),
        ),
        "descriptor-behind-stored": (
            ArchiveError,
            zip_file(
                Zipped(
                    method=0,
                    flags=8,
                    told={"crc": 0, "packed": 0, "size": 0},
                    follows=b"PK\x07\x08" + struct.pack("<3I", zlib.crc32(DISK), size, size),
                )
            ),
        ),
        "descriptor-missing": (CorruptImageError, zip_file(Zipped(flags=8))),
        "deflate-cut": (CorruptImageError, zip_file(Zipped(instead=deflated(DISK)[:-1]))),
        "deflate-and-garbage": (CorruptImageError, zip_file(Zipped(instead=deflated(DISK) + _GARBAGE))),
    }
    return [_case(f"zip-{name}.zip", kind, partial(bytes, content)) for name, (kind, content) in records.items()]


def _polyglots() -> list[HostileCase]:
    head = len(gzip_member(b"", extra=b"x")) - len(b"x") - len(deflated(b"")) - 8
    extra = bytes(_ISO_MARK_OFFSET - head) + b"CD001" + bytes(100)
    footer = b"conectix".ljust(512, b"\0")
    skipped = bytes(_ISO_MARK_OFFSET - 8) + b"CD001" + bytes(100)
    return [
        _case("gzip-and-iso.raw.gz", SeveralFormatsError, lambda: gzip_member(DISK, extra=extra), _POLYGLOTS),
        _case(
            "zstd-and-iso.raw.zst", SeveralFormatsError, lambda: zstd_skippable(skipped) + zstd_raw(DISK), _POLYGLOTS
        ),
        _case("zip-and-vhd.zip", SeveralFormatsError, lambda: zip_file(Zipped(), comment=footer), _POLYGLOTS),
    ]


@cache
def _stream(kind: str) -> bytes:
    return _PACKERS[kind][1](zeros(_STREAM_MIB))


def _repeated(kind: str, times: int) -> bytes:
    return _stream(kind) * times


def _window(byte: int) -> bytes:
    return zstd_frame(zstd_block(DISK[:65536]), window=byte)


def _stated_8_eib() -> bytes:
    fields = struct.pack("<Q", 2**63)
    return zstd_frame(zstd_block(DISK[:65536]), descriptor=_CONTENT_SIZE_64, fields=fields)


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def _case(name: str, kind: type[ImageRefusedError], make: Callable[[], bytes], threat: str = _STREAMS) -> HostileCase:
    return HostileCase(name=name, threat=threat, code=kind.code, make=partial(_write, make))


def _write(make: Callable[[], bytes], path: Path) -> None:
    path.write_bytes(make())
