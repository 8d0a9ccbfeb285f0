# SPDX-License-Identifier: Apache-2.0
"""Write a raw disk as an image file of each format that builders offer, the same bytes each time."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.caged import run_caged
from coppice.factory.files import describe_image, qemu_format, sha512_of
from coppice.factory.model import BuiltImage
from coppice.factory.qcow2 import read_qcow2, write_qcow2
from coppice.formats.ova_frame import OvaFrame
from coppice.formats.ovf_write import VIRTUAL_ADAPTER
from coppice.model.image import DiskFormat
from coppice.model.requirements import DiskBus
from coppice.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.factory.qcow2 import ReadQcow2
    from coppice.model.requirements import Requirements

# Never with -W: writing out of order is quicker, but no two runs then give the same bytes. qcow2 is written here.
_OPTIONS: dict[DiskFormat, tuple[str, ...]] = {
    DiskFormat.RAW: (),
    DiskFormat.VMDK: ("-o", "subformat=streamOptimized"),
    DiskFormat.VDI: (),
    DiskFormat.VHD: ("-o", "subformat=dynamic,force_size=on"),
}
FORMATS = (DiskFormat.QCOW2, *_OPTIONS)
"""What `write_image` writes: formats of disks."""
ALL_FORMATS = (*FORMATS, DiskFormat.OVA)
"""What `write_images` writes."""
_VMDK_DESCRIPTOR_AT = 512
_VMDK_DESCRIPTOR_BYTES = 20 * 512
_CID = re.compile(rb"^CID=[0-9a-f]{1,8}$", re.MULTILINE)
_VDI_UUIDS_AT = 0x188
_UUID_BYTES = 16
_COPY_BYTES = 1024 * 1024
_VHD_FOOTER_BYTES = 512
_VHD_TIME_AT = 24
_VHD_CHECKSUM_AT = 64
_VHD_UUID_AT = 68


def check_formats(definition: Definition, builder: str) -> None:
    """Refuse formats of ``definition`` that cannot be written.

    Args:
        definition: What is built.
        builder: Name of the builder, for the message.

    Raises:
        BuildError: One cannot.
    """
    unknown = [each.value for each in definition.formats if each not in ALL_FORMATS]
    if unknown:
        raise BuildError(
            f"{definition.name}: the builder {builder} does not write {', '.join(unknown)}",
            resolution=f"Set build.formats to some of: {', '.join(ALL_FORMATS)}. Subscribers convert to what they "
            "need, and `coppice image convert` does it here.",
        )
    if definition.formats[0] is DiskFormat.OVA:
        raise BuildError(
            f"{definition.name}: build.formats begins with ova, and the first is the one that is booted, looked into "
            "and published",
            resolution="Put a format of disks before it, such as qcow2.",
        )


def write_images(
    raw: Path, into: Path, definition: Definition, *, deadline: float, like: ReadQcow2 | None = None
) -> tuple[BuiltImage, ...]:
    """Write the disk ``raw`` in each format of ``definition``: one content, as many files.

    Args:
        raw: The disk.
        into: The directory where the images are made.
        definition: What is built; its formats were checked.
        deadline: When it has to be done, by `time.monotonic`.
        like: An image of much the same disk; None: there is none.

    Raises:
        BuildError: One could not be written.
        ToolMissingError: ``qemu-img`` is not installed.
        StorageError: The disk failed.
    """
    made = []
    for each in definition.formats:
        path, seed = into / f"{definition.name}.{each.value}", f"{definition.name}/{each.value}"
        left_seconds = deadline - time.monotonic()
        if each is DiskFormat.OVA:
            made.append(_write_ova(raw, path, definition, seed=seed, timeout_seconds=left_seconds))
        else:
            made.append(write_image(raw, path, each, seed=seed, timeout_seconds=left_seconds, like=like))
    return tuple(made)


def write_image(
    raw: Path, path: Path, disk_format: DiskFormat, *, seed: str, timeout_seconds: float, like: ReadQcow2 | None = None
) -> BuiltImage:
    """Write the disk ``raw`` to ``path``.

    Args:
        raw: The disk.
        path: Where the image is made.
        disk_format: Its format, one of `FORMATS`.
        seed: What its identifiers are made from, where the format has some.
        timeout_seconds: For it.
        like: An image of much the same disk: what is the same need not be compressed again.

    Raises:
        BuildError: It could not be written.
        ToolMissingError: ``qemu-img`` is not installed.
        StorageError: The disk failed.
    """
    if disk_format is DiskFormat.QCOW2:
        write_qcow2(raw, path, timeout_seconds=max(1.0, timeout_seconds), like=like)
        return describe_image(path, disk_format)
    argv: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", qemu_format(disk_format)]
    argv += [*_OPTIONS[disk_format], "--", raw, path]
    try:
        run(argv, timeout_seconds=max(1.0, timeout_seconds))
    except ToolFailedError as problem:
        raise BuildError(f"writing {path.name} failed: {problem.message}", details=problem.details) from problem
    _settle(path, disk_format, hashlib.sha256(seed.encode()).digest())
    return describe_image(path, disk_format)


def _write_ova(raw: Path, path: Path, definition: Definition, *, seed: str, timeout_seconds: float) -> BuiltImage:
    part = path.with_suffix(".vmdk.part")
    disk = write_image(raw, part, DiskFormat.VMDK, seed=seed, timeout_seconds=timeout_seconds)
    frame = OvaFrame(
        disk_bytes=disk.image.size_bytes,
        virtual_size_bytes=disk.image.virtual_size_bytes,
        requirements=_machine(definition),
        name=definition.title,
        is_linux=definition.operating_system.kind == "Linux",
        adapter=VIRTUAL_ADAPTER,
    )
    with storage_errors("writing", path), part.open("rb") as source, path.open("xb") as target:
        target.write(frame.before(hashlib.file_digest(source, "sha256").hexdigest()))
        source.seek(0)
        shutil.copyfileobj(source, target, _COPY_BYTES)
        target.write(frame.behind)
        part.unlink()
    image = replace(disk.image, format=DiskFormat.OVA, size_bytes=path.stat().st_size, checksum=sha512_of(path))
    return BuiltImage(path=path, image=image)


def _machine(definition: Definition) -> Requirements:
    said = definition.requirements
    only = definition.firmware[0] if len(set(definition.firmware)) == 1 else None
    # Kernels for clouds know no disk of real machines but one on IDE.
    return replace(said, firmware=said.firmware or only, disk_bus=said.disk_bus or DiskBus.IDE)


def read_disk(image: BuiltImage, raw: Path, *, timeout_seconds: float, remembers: bool = False) -> ReadQcow2 | None:
    """Write the disk of ``image`` to ``raw``, sparse.

    Args:
        image: The image.
        raw: Where its disk is written.
        timeout_seconds: For it.
        remembers: Whether an image will be written of that disk.

    Returns:
        What an image that is written of that disk can take over; None: nothing.

    Raises:
        BuildError: It cannot be read.
    """
    found = read_qcow2(image.path, raw, remembers=remembers) if image.image.format is DiskFormat.QCOW2 else None
    if found is not None:
        return found
    argv = ["qemu-img", "convert", "-f", qemu_format(image.image.format), "-O", "raw", "--"]
    try:
        run_caged(
            lambda inside: [*argv, inside(image.path), inside(raw)],
            reads=[image.path],
            writes=[raw],
            timeout_seconds=max(1.0, timeout_seconds),
            most_bytes=image.image.virtual_size_bytes,
        )
    except ToolFailedError as problem:
        raise BuildError(
            f"the image {image.path} cannot be read: {problem.message}", details=problem.details
        ) from problem
    return None


def _settle(path: Path, disk_format: DiskFormat, seed: bytes) -> None:
    # qemu-img draws identifiers by chance, and writes the time.
    with storage_errors("settling", path), path.open("r+b") as stream:
        if disk_format is DiskFormat.VMDK:
            stream.seek(_VMDK_DESCRIPTOR_AT)
            settled = settled_descriptor(stream.read(_VMDK_DESCRIPTOR_BYTES), seed)
            stream.seek(_VMDK_DESCRIPTOR_AT)
            stream.write(settled)
        elif disk_format is DiskFormat.VDI:
            stream.seek(_VDI_UUIDS_AT)
            stream.write(seed[: 2 * _UUID_BYTES])
        elif disk_format is DiskFormat.VHD:
            end = path.stat().st_size - _VHD_FOOTER_BYTES
            for at in (0, end):
                stream.seek(at)
                footer = settled_footer(stream.read(_VHD_FOOTER_BYTES), seed)
                stream.seek(at)
                stream.write(footer)


def settled_descriptor(descriptor: bytes, seed: bytes) -> bytes:
    """Return the descriptor of a VMDK, as long as before, with the identifier of its content taken from ``seed``."""
    text = _CID.sub(b"CID=" + seed[:4].hex().encode(), descriptor.rstrip(b"\0"), count=1)
    return text.ljust(len(descriptor), b"\0")


def settled_footer(footer: bytes, seed: bytes) -> bytes:
    """Return the footer of a VHD with the time of its making and its identifier taken from ``seed`` alone."""
    settled = bytearray(footer)
    settled[_VHD_TIME_AT : _VHD_TIME_AT + 4] = bytes(4)
    settled[_VHD_UUID_AT : _VHD_UUID_AT + _UUID_BYTES] = seed[:_UUID_BYTES]
    settled[_VHD_CHECKSUM_AT : _VHD_CHECKSUM_AT + 4] = bytes(4)
    struct.pack_into(">I", settled, _VHD_CHECKSUM_AT, ~sum(settled) & 0xFFFFFFFF)
    return bytes(settled)
