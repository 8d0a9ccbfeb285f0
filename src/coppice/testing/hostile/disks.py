# SPDX-License-Identifier: Apache-2.0
"""Hostile VMDK, VDI, VHD and VHDX images."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

from coppice.testing import disks, vhdx
from coppice.testing.disks import KIB, MIB, SECTOR, patched, write_sparsely
from coppice.testing.hostile.case import HostileCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_OUTSIDE = "image-outside-reference"
_UNSUPPORTED = "image-unsupported"
_CORRUPT = "image-corrupt"
_OVERSIZED = "image-oversized"
_ENCRYPTED = "image-encrypted"
_EIB = 1024**6
_TIB = 1024**4
_PARENT = 'parentFileNameHint="/etc/passwd"'

Content = bytes | tuple[bytes, int]
"""Bytes; with a number: followed by zeros up to that length."""
Row = tuple[str, str, str, "Callable[[], Content]"]
"""A name, a threat, a code, and what makes the bytes."""


def cases() -> tuple[HostileCase, ...]:
    """Return the hostile images of these formats."""
    rows = (*_vmdk_outside(), *_vmdk_patched(), *_vmdk_descriptors(), *_vmdk_streams(), *_vdi(), *_vhd(), *_vhdx())
    return tuple(
        HostileCase(name=name, threat=threat, code=code, make=partial(_write, content))
        for name, threat, code, content in rows
    )


def _write(content: Callable[[], Content], path: Path) -> None:
    made = content()
    if isinstance(made, bytes):
        write_sparsely(path, made)
        return
    write_sparsely(path, made[0])
    with path.open("r+b") as stream:
        stream.truncate(made[1])


def _vmdk_outside() -> Iterator[Row]:
    """Yield VMDKs that lead to another file: by their descriptor alone, and by one in a sparse extent (T60, T61)."""
    for kind, extents in (
        ("monolithicFlat", 'RW 2048 FLAT "/etc/passwd" 0'),
        ("twoGbMaxExtentFlat", 'RW 1024 FLAT "a-f001.vmdk" 0\nRW 1024 FLAT "a-f002.vmdk" 0'),
        ("twoGbMaxExtentSparse", 'RW 1024 SPARSE "a-s001.vmdk"\nRW 1024 SPARSE "a-s002.vmdk"'),
        ("vmfs", 'RW 2048 VMFS "../../etc/passwd"'),
        ("vmfsSparse", 'RW 2048 VMFSSPARSE "delta.vmdk"'),
        ("seSparse", 'RW 2048 SESPARSE "/etc/shadow"'),
    ):
        text = disks.vmdk_text(kind, extents=extents)
        yield f"vmdk-{kind}.vmdk", "T60", _OUTSIDE, partial(_alone, text)
        inside = partial(disks.sparse_vmdk, descriptor=text)
        yield f"vmdk-sparse-with-{kind}-descriptor.vmdk", "T60", _OUTSIDE, inside
        no_size = partial(disks.sparse_vmdk, descriptor=text, capacity=0)
        yield f"vmdk-without-size-and-{kind}-descriptor.vmdk", "T60", _OUTSIDE, no_size
    for name, device in (("fifo", "/tmp/pipe"), ("device", "/dev/zero")):  # noqa: S108 - only named, never opened
        text = disks.vmdk_text("monolithicFlat", extents=f'RW 2048 FLAT "{device}" 0')
        yield f"vmdk-extent-{name}.vmdk", "T61", _OUTSIDE, partial(_alone, text)
    for name, text in (
        ("parent-hint", disks.vmdk_text(more=_PARENT)),
        ("parent-hint-in-comment", disks.vmdk_text(more=f"# {_PARENT}")),
        ("parent-hint-in-capitals", disks.vmdk_text(more=_PARENT.upper())),
        ("parent-hint-behind-nul", disks.vmdk_text()[: -20 * len(_PARENT)] + (_PARENT * 20).encode()),
        ("parent-content-id", disks.vmdk_text(parent="12345678")),
        ("native-parent", disks.vmdk_text(more='ddb.nativeParentHint = "/vmfs/volumes/x"')),
        ("changed-blocks-file", disks.vmdk_text(more='changeTrackPath="/etc/passwd"')),
        ("digest-file", disks.vmdk_text(more='digestFilename = "/etc/passwd"')),
        ("sidecars", disks.vmdk_text(more='ddb.sidecars = "x-1.vmfd,/etc/passwd"')),
        ("extent-absolute", disks.vmdk_text(extents='RW 2048 SPARSE "/etc/passwd"')),
        ("extent-protocol", disks.vmdk_text(extents='RW 2048 SPARSE "nbd:localhost:10809"')),
        ("two-extents", disks.vmdk_text(extents='RW 1024 SPARSE "a.vmdk"\nRW 1024 SPARSE "b.vmdk"')),
        ("extent-flat", disks.vmdk_text(extents='RW 2048 FLAT "disk.vmdk" 0')),
    ):
        yield f"vmdk-{name}.vmdk", "T60", _OUTSIDE, partial(disks.sparse_vmdk, descriptor=text)
    short = _with_short_room()
    yield "vmdk-parent-hint-behind-room.vmdk", "T60", _OUTSIDE, partial(bytes, short)
    yield "vmdk-part-of-split-image.vmdk", "T60", _OUTSIDE, partial(disks.sparse_vmdk, descriptor_sector=0, room=0)


def _changed(make: Callable[[], bytes], *places: tuple[int, str, int]) -> bytes:
    """Return an image with some numbers replaced: where, in which form, by what."""
    content = make()
    for offset, form, value in places:
        content = patched(content, offset, form, value)
    return content


def _cut(make: Callable[[], bytes], length: int = -1) -> bytes:
    return make()[:length]


def _alone(text: bytes) -> bytes:
    return text.rstrip(b"\0").ljust(KIB, b"\n")


def _with_short_room() -> bytes:
    """Return a VMDK whose descriptor fills its room, so that QEMU reads on and finds a parent behind."""
    text = disks.vmdk_text().rstrip(b"\0").ljust(SECTOR, b"\n")
    return disks.sparse_vmdk(descriptor=(text + _PARENT.encode()).ljust(20 * SECTOR, b"\0"), room=1)


def _vmdk_patched() -> Iterator[Row]:
    """Yield sparse VMDKs with something wrong in their header or tables (T63, T64)."""
    sparse = disks.sparse_vmdk
    for name, code, fields in (
        ("8-eib", _OVERSIZED, {"capacity": 8 * _EIB // SECTOR - 1}),
        ("63-tib", _OVERSIZED, {"capacity": 63 * _TIB // SECTOR}),
        ("version-4", _UNSUPPORTED, {"version": 4}),
        ("unknown-flag", _UNSUPPORTED, {"flags": disks.SPARSE_FLAGS | 1 << 5}),
        ("compressed-without-markers", _UNSUPPORTED, {"flags": disks.SPARSE_FLAGS | 1 << 16, "compression": 1}),
        ("unknown-compression", _UNSUPPORTED, {"compression": 2}),
        ("grain-of-1-gib", _UNSUPPORTED, {"grain": 2**21}),
        ("grain-of-none", _UNSUPPORTED, {"grain": 0}),
        ("tables-of-2-to-31", _UNSUPPORTED, {"entries": 2**31}),
        ("line-ends-changed", _CORRUPT, {"newlines": b"\n \n\n"}),
        ("not-closed", _CORRUPT, {"unclean": 1}),
        ("directory-outside", _CORRUPT, {"directory": 2**32}),
        ("directory-far-outside", _CORRUPT, {"directory": 2**63}),
        ("directory-in-descriptor", _CORRUPT, {"directory": 2}),
        ("redundant-directory-outside", _CORRUPT, {"redundant": 2**40}),
        ("first-grain-outside", _CORRUPT, {"overhead": 2**50}),
        ("descriptor-elsewhere", _UNSUPPORTED, {"descriptor_sector": 100}),
        ("descriptor-of-1-gib", _UNSUPPORTED, {"room": 2**21}),
        ("footer-wanted-of-sparse", _CORRUPT, {"directory": disks.AT_END}),
    ):
        threat = "T63" if code == _OVERSIZED or "outside" in name else "T64"
        yield f"vmdk-{name}.vmdk", threat, code, partial(sparse, **fields)
    good = sparse()
    gt, rgt = disks.GT * SECTOR, disks.RGT * SECTOR

    def both(entry: int, sector: int) -> bytes:
        return patched(patched(good, gt + 4 * entry, "<I", sector), rgt + 4 * entry, "<I", sector)

    for name, content in (
        ("table-outside", patched(good, disks.GD * SECTOR, "<I", 2**32 - 1)),
        ("grain-outside", both(0, 2**32 - 1)),
        ("grain-twice", both(1, disks.OVERHEAD)),
        ("grains-overlap", both(1, disks.OVERHEAD + 1)),
        ("grain-in-table", both(1, disks.GT)),
        ("grain-behind-disk", both(16, disks.OVERHEAD)),
        ("copies-of-table-differ", patched(good, rgt, "<I", 0)),
        ("cut-off", good[:-1]),
    ):
        yield f"vmdk-{name}.vmdk", "T64", _CORRUPT, partial(bytes, content)


def _vmdk_descriptors() -> Iterator[Row]:
    """Yield sparse VMDKs with something wrong in their descriptor (T64)."""
    for name, code, text in (
        ("descriptor-of-stream", _CORRUPT, disks.vmdk_text("streamOptimized")),
        ("descriptor-of-other-size", _CORRUPT, disks.vmdk_text(extents='RW 999999 SPARSE "disk.vmdk"')),
        ("descriptor-says-size-twice", _CORRUPT, disks.vmdk_text(more='createType="vmfs"')),
        ("descriptor-content-id", _CORRUPT, disks.vmdk_text().replace(b"CID=fffffffe", b"CID=%n%n%n%n")),
        ("descriptor-without-extent", _CORRUPT, disks.vmdk_text(extents="")),
        ("descriptor-control-characters", _CORRUPT, disks.vmdk_text(more="x=\x07")),
        ("descriptor-one-endless-line", _CORRUPT, b"a=" + b" " * (20 * SECTOR - 3) + b'"'),
        ("encrypted", _ENCRYPTED, disks.vmdk_text(more='encryption.keySafe = "vmware:key"')),
        ("encrypted-by-filter", _ENCRYPTED, disks.vmdk_text(more='ddb.iofilters = "vmwarevmcrypt"')),
    ):
        yield f"vmdk-{name}.vmdk", "T64", code, partial(disks.sparse_vmdk, descriptor=text)


def _vmdk_streams() -> Iterator[Row]:
    """Yield streams whose header, footer, tables and markers contradict each other (T60, T63)."""
    stream = disks.stream_vmdk
    for name, footer in (
        ("other-size", {"capacity": 2**31}),
        ("no-size", {"capacity": 0}),
        ("other-descriptor", {"descriptor_sector": 100}),
        ("other-grains", {"grain": 8}),
        ("no-directory", {"directory": disks.AT_END}),
        ("directory-outside", {"directory": 2**33}),
        ("no-magic", {"magic": b"\0\0\0\0"}),
    ):
        yield f"vmdk-stream-footer-{name}.vmdk", "T63", _CORRUPT, partial(stream, footer=footer)
    good = stream()
    first = disks.OVERHEAD * SECTOR
    for name, content in (
        ("cut-off", good[:-SECTOR]),
        ("more-behind-end", good + bytes(SECTOR)),
        ("no-end-marker", patched(good, -SECTOR + 12, "<I", 7)),
        ("grain-for-other-place", patched(good, first, "<Q", 128)),
        ("grain-of-4-gib", patched(good, first + 8, "<I", 2**32 - 1)),
        ("grain-of-none", patched(good, first + 8, "<I", 0)),
        ("grains-overlap", patched(good, first + 8, "<I", 2 * SECTOR)),
    ):
        yield f"vmdk-stream-{name}.vmdk", "T63", _CORRUPT, partial(bytes, content)
    yield "vmdk-stream-two-footers.vmdk", "T62", _CORRUPT, _stream_with_two_footers
    flat = disks.vmdk_text("monolithicFlat", extents='RW 2048 FLAT "/etc/passwd" 0')
    yield "vmdk-stream-with-flat-descriptor.vmdk", "T60", _OUTSIDE, partial(stream, descriptor=flat)


def _stream_with_two_footers() -> bytes:
    """Return a stream that ends within a sector: one footer counted from there, another from the sector's end."""
    good = disks.stream_vmdk()
    end = bytearray(good[-3 * SECTOR :])
    other = disks.vmdk_header(version=3, flags=disks.STREAM_FLAGS, capacity=2**21, redundant=0, compression=1)
    shift = 412
    end[shift : shift + 16] = struct.pack("<QII", 1, 0, 3)
    end[shift + SECTOR : shift + SECTOR + 79] = other[:79]
    return good[: -3 * SECTOR] + bytes(SECTOR - shift) + bytes(end)


def _fixed_vhd_with_two_footers() -> bytes:
    """Return a fixed VHD that ends within a sector, with one footer counted from there and another from its end."""
    shift = 100
    size = 4 * MIB - shift
    other = disks.vhd_footer(kind=2, header_offset=disks.AT_END, current=64 * MIB)[:85]
    footer = disks.vhd_footer(kind=2, header_offset=disks.AT_END, current=size)
    footer = disks.resealed_vhd(footer[:shift] + other + footer[shift + len(other) :], 64)
    return bytes(size) + footer


def _vdi() -> Iterator[Row]:
    make = disks.vdi
    for name, threat, code, fields in (
        ("8-eib", "T63", _OVERSIZED, {"size": 8 * _EIB}),
        ("16-eib", "T63", _OVERSIZED, {"size": 2**64 - 1}),
        ("63-tib", "T63", _OVERSIZED, {"size": 63 * _TIB, "blocks": 63 * MIB}),
        ("blocks-4-gi", "T63", _CORRUPT, {"blocks": 2**32 - 1}),
        ("empty", "T63", _CORRUPT, {"size": 0, "blocks": 0, "allocated": 0}),
        ("allocated-4-gi", "T63", _CORRUPT, {"allocated": 2**32 - 1}),
        ("differencing", "T58", _OUTSIDE, {"kind": 4}),
        ("undo", "T58", _OUTSIDE, {"kind": 3}),
        ("link", "T58", _OUTSIDE, {"link": b"\x05" * 16}),
        ("parent", "T58", _OUTSIDE, {"parent": b"\x05" * 16}),
        ("unknown-kind", "T64", _UNSUPPORTED, {"kind": 9}),
        ("version-2", "T64", _UNSUPPORTED, {"version": 0x00020000}),
        ("block-size", "T64", _UNSUPPORTED, {"block": 2**31}),
        ("sector-size", "T64", _UNSUPPORTED, {"sector": 4 * KIB}),
        ("extra-bytes", "T64", _UNSUPPORTED, {"extra": SECTOR}),
        ("map-outside", "T63", _CORRUPT, {"map": 2**31, "data": 2**31 + SECTOR, "allocated": 0}),
        ("map-in-header", "T63", _CORRUPT, {"map": 0}),
        ("map-not-aligned", "T63", _CORRUPT, {"map": 516}),
        ("map-in-data", "T63", _CORRUPT, {"data": SECTOR}),
        ("data-outside", "T63", _CORRUPT, {"data": 2**31}),
        ("count-wrong", "T64", _CORRUPT, {"allocated": 1}),
    ):
        yield f"vdi-{name}.vdi", threat, code, partial(make, **fields)
    for name, entries in (("block-twice", {1: 0}), ("block-outside", {2: 3}), ("block-far-outside", {2: 2**32 - 3})):
        yield f"vdi-{name}.vdi", "T63", _CORRUPT, partial(make, entries=entries)
    yield "vdi-cut-off.vdi", "T63", _CORRUPT, partial(_cut, make)


def _vhd() -> Iterator[Row]:
    make = disks.dynamic_vhd
    locator = struct.pack(">I", 0x57326B75)
    for name, threat, code, fields in (
        ("8-eib", "T63", _OVERSIZED, {"current": 8 * _EIB}),
        ("63-tib", "T63", _OVERSIZED, {"current": 63 * _TIB}),
        ("empty", "T63", _CORRUPT, {"current": 0}),
        ("no-geometry", "T63", _CORRUPT, {"creator": b"vpc ", "heads": 0}),
        ("geometry-far-shorter", "T63", _CORRUPT, {"creator": b"vpc ", "cylinders": 1}),
        ("geometry-far-longer", "T63", _CORRUPT, {"creator": b"vpc ", "cylinders": 300}),
        ("differencing", "T58", _OUTSIDE, {"kind": 4}),
        ("kind-5", "T64", _UNSUPPORTED, {"kind": 5}),
        ("fixed-with-two-footers", "T62", "image-several-formats", {"kind": 2}),
        ("version-2", "T64", _UNSUPPORTED, {"version": 0x00020000}),
        ("unknown-feature", "T64", _UNSUPPORTED, {"features": 1 << 9}),
        ("of-suspended-machine", "T64", _UNSUPPORTED, {"saved": 1}),
        ("header-outside", "T63", _CORRUPT, {"header_offset": 2**63}),
        ("header-in-footer", "T63", _CORRUPT, {"header_offset": 0}),
    ):
        yield f"vhd-{name}.vhd", threat, code, partial(make, **fields)
    for name, threat, code, header in (
        ("parent-identifier", "T58", _OUTSIDE, {"parent": b"\x01" * 16}),
        ("parent-name", "T58", _OUTSIDE, {"parent_name": "/etc/passwd".encode("utf-16-be")}),
        ("parent-locator", "T58", _OUTSIDE, {"locators": locator}),
        ("table-outside", "T63", _CORRUPT, {"table": 2**62}),
        ("table-in-header", "T63", _CORRUPT, {"table": 512}),
        ("entries-4-gi", "T63", _CORRUPT, {"entries": 2**32 - 1}),
        ("entries-too-few", "T63", _CORRUPT, {"entries": 1}),
        ("entries-beyond-file", "T63", _CORRUPT, {"entries": 2**20}),
        ("blocks-of-2-gib", "T64", _UNSUPPORTED, {"block": 2**31}),
        ("blocks-of-512", "T64", _UNSUPPORTED, {"block": SECTOR}),
        ("blocks-of-none", "T64", _UNSUPPORTED, {"block": 0}),
        ("header-version-2", "T64", _UNSUPPORTED, {"version": 0x00020000}),
        ("header-cookie", "T64", _CORRUPT, {"cookie": b"cxsparsE"}),
    ):
        yield f"vhd-{name}.vhd", threat, code, partial(make, header=header)
    yield from _vhd_patched()


def _vhd_patched() -> Iterator[Row]:
    make = disks.dynamic_vhd
    first = disks.VHD_FIRST_BLOCK // SECTOR
    for name, content in (
        ("footer-checksum", partial(_changed, make, (9, "B", 1))),
        ("header-checksum", partial(_changed, make, (SECTOR + 9, "B", 1))),
        ("footers-differ", partial(make, end=disks.vhd_footer(current=4 * MIB - SECTOR))),
        ("no-footer-at-end", partial(make, end=bytes(SECTOR))),
        ("no-footer-at-beginning", partial(_changed, make, (0, ">Q", 0))),
        ("cut-off", partial(_cut, make)),
        ("block-outside", partial(make, table=(0xFFFFFFFF, 2**32 - 2))),
        ("block-in-footer", partial(make, table=(0xFFFFFFFF, first + 1))),
        ("block-twice", partial(make, table=(first, first))),
        ("block-in-table", partial(make, table=(0xFFFFFFFF, 3))),
        ("hidden-sector", partial(make, bitmap=b"\x7f" + b"\xff" * 511)),
    ):
        yield f"vhd-{name}.vhd", "T63", _CORRUPT, content
    fixed = disks.fixed_vhd
    yield "vhd-fixed-cut-off.vhd", "T63", _CORRUPT, partial(fixed, size_bytes=4 * MIB - SECTOR)
    yield "vhd-fixed-longer.vhd", "T63", _CORRUPT, partial(fixed, size_bytes=5 * MIB)
    yield "vhd-fixed-two-footers.vhd", "T62", _CORRUPT, _fixed_vhd_with_two_footers
    yield "vhd-fixed-8-eib.vhd", "T63", _OVERSIZED, partial(fixed, current=8 * _EIB)
    beyond = partial(fixed, creator=b"vpc ", cylinders=124)
    yield "vhd-fixed-geometry-beyond-end.vhd", "T63", _CORRUPT, beyond
    third = (0xFFFFFFFF, 0xFFFFFFFF, first)
    more = partial(make, table=third, header={"entries": 3}, creator=b"vpc ", cylinders=124)
    yield "vhd-geometry-has-more-content.vhd", "T63", _UNSUPPORTED, more


def _vhdx() -> Iterator[Row]:
    make = vhdx.vhdx
    items = dict(vhdx.GOOD_ITEMS)
    for name, threat, code, changed in (
        ("8-eib", "T63", _OVERSIZED, {vhdx.DISK_SIZE: struct.pack("<Q", 8 * _EIB)}),
        ("63-tib", "T63", _OVERSIZED, {vhdx.DISK_SIZE: struct.pack("<Q", 63 * _TIB)}),
        ("empty", "T63", _CORRUPT, {vhdx.DISK_SIZE: bytes(8)}),
        ("odd-size", "T63", _CORRUPT, {vhdx.DISK_SIZE: struct.pack("<Q", 1000)}),
        ("size-in-4-bytes", "T63", _CORRUPT, {vhdx.DISK_SIZE: bytes(4)}),
        ("has-parent", "T58", _OUTSIDE, {vhdx.PARAMETERS: struct.pack("<II", MIB, 2)}),
        ("parent-locator", "T58", _OUTSIDE, {vhdx.PARENT: b"/etc/passwd"}),
        ("blocks-of-512", "T63", _UNSUPPORTED, {vhdx.PARAMETERS: struct.pack("<II", SECTOR, 0)}),
        ("blocks-of-3-mib", "T63", _UNSUPPORTED, {vhdx.PARAMETERS: struct.pack("<II", 3 * MIB, 0)}),
        ("blocks-of-2-gib", "T63", _UNSUPPORTED, {vhdx.PARAMETERS: struct.pack("<II", 2**31, 0)}),
        ("unknown-parameter", "T64", _UNSUPPORTED, {vhdx.PARAMETERS: struct.pack("<II", MIB, 4)}),
        ("sectors-of-4-kib", "T64", _UNSUPPORTED, {vhdx.LOGICAL: struct.pack("<I", 4 * KIB)}),
        ("physical-sectors-of-3", "T64", _UNSUPPORTED, {vhdx.PHYSICAL: struct.pack("<I", 3)}),
        ("unknown-item", "T64", _UNSUPPORTED, {b"\x09" * 16: b"x"}),
    ):
        yield f"vhdx-{name}.vhdx", threat, code, partial(make, items=vhdx.metadata(items | changed))
    without = {kind: value for kind, value in items.items() if kind != vhdx.DISK_SIZE}
    yield "vhdx-no-size.vhdx", "T63", _CORRUPT, partial(make, items=vhdx.metadata(without))
    for name, threat, code, bat in (
        ("block-outside", "T63", _CORRUPT, (2**44 & ~(MIB - 1) | 6, 0, 0, 0)),
        ("block-far-outside", "T63", _CORRUPT, (2**64 - MIB | 6, 0, 0, 0)),
        ("block-in-header", "T63", _CORRUPT, (6, 0, 0, 0)),
        ("block-in-table", "T63", _CORRUPT, (vhdx.BAT | 6, 0, 0, 0)),
        ("block-twice", "T63", _CORRUPT, (vhdx.DATA | 6, vhdx.DATA | 6, 0, 0)),
        ("block-in-part", "T58", _OUTSIDE, (vhdx.DATA | 7, 0, 0, 0)),
        ("unknown-state", "T64", _UNSUPPORTED, (vhdx.DATA | 4, 0, 0, 0)),
        ("unknown-bits", "T64", _CORRUPT, (vhdx.DATA | 1 << 10 | 6, 0, 0, 0)),
    ):
        yield f"vhdx-{name}.vhdx", threat, code, partial(make, bat=bat)
    yield from _vhdx_head()


def _vhdx_head() -> Iterator[Row]:
    make, header, table = vhdx.vhdx, vhdx.header, vhdx.region_table
    bat, metadata = vhdx.GOOD_REGIONS
    for name, threat, code, headers in (
        ("log-not-empty", "T64", _CORRUPT, (header(7), header(8, log=b"\x06" * 16))),
        ("one-number-twice", "T64", _CORRUPT, (header(8), header(8, log_length=0))),
        ("version-2", "T64", _UNSUPPORTED, (header(7), header(8, version=2))),
        ("log-version-1", "T64", _UNSUPPORTED, (header(7), header(8, log_version=1))),
        ("log-outside", "T63", _CORRUPT, (header(7), header(8, log_offset=2**63))),
        ("log-in-table", "T63", _CORRUPT, (header(7), header(8, log_offset=vhdx.BAT))),
    ):
        yield f"vhdx-{name}.vhdx", threat, code, partial(make, headers=headers)
    unknown = (b"\x07" * 16, vhdx.DATA, MIB, 1)
    for name, code, made in (
        ("unknown-region", _UNSUPPORTED, table((bat, metadata, unknown))),
        ("no-metadata", _CORRUPT, table((bat,))),
        ("two-tables", _CORRUPT, table((bat, bat, metadata))),
        ("region-outside", _CORRUPT, table(((vhdx.TABLE_REGION, 2**62, MIB, 1), metadata))),
        ("region-not-aligned", _CORRUPT, table(((vhdx.TABLE_REGION, vhdx.BAT + 512, MIB, 1), metadata))),
        ("regions-overlap", _CORRUPT, table(((vhdx.TABLE_REGION, vhdx.METADATA, MIB, 1), metadata))),
        ("regions-65535", _CORRUPT, table(vhdx.GOOD_REGIONS, count=65535)),
    ):
        yield f"vhdx-{name}.vhdx", "T63", code, partial(make, tables=(made, made))
    differing = (table(), table((metadata, bat)))
    yield "vhdx-region-tables-differ.vhdx", "T64", _CORRUPT, partial(make, tables=differing)
    for name, offset in (("first-header", 64 * KIB), ("second-header", 128 * KIB)):
        yield f"vhdx-{name}-checksum.vhdx", "T64", _CORRUPT, partial(_changed, make, (offset + 8, "B", 99))
    both = partial(_changed, make, (192 * KIB + 60, "B", 99), (256 * KIB + 60, "B", 99))
    yield "vhdx-region-table-checksum.vhdx", "T64", _CORRUPT, both
    yield "vhdx-cut-off.vhdx", "T63", _CORRUPT, partial(_cut, make)
    yield "vhdx-identifier-only.vhdx", "T62", _CORRUPT, partial(_cut, make, 4 * KIB)
