# SPDX-License-Identifier: Apache-2.0
"""Find out what an image file is, by its content, before any tool opens it; refuse what is dangerous.

Two opinions are asked: own looks (`coppice.conversion.signatures`) and the inspectors of oslo.utils, as OpenStack's
services use them. They have to agree on exactly one format. What the list says the format is counts for nothing.
"""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, NoReturn

from coppice.conversion.model import ConversionLimits, Detection, Inspection
from coppice.conversion.signatures import (
    HEAD_BYTES,
    foreign,
    qcow2_header,
    qcow2_problem,
    signatures,
    vdi_problem,
    vhd_problem,
    vhd_virtual_size,
    vmdk_problem,
)
from coppice.errors import ImageRefusedError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from pathlib import Path

    from oslo_utils.imageutils.format_inspector import FileInspector

SMALLEST_IMAGE_BYTES = 512
_INSPECTED_BYTES = 8 * 1024 * 1024
_STEP_BYTES = 64 * 1024
_EXTENDED_L2 = 1 << 4


def inspect(path: Path, limits: ConversionLimits) -> Inspection:
    """Return what the file is.

    Args:
        path: A regular file; a symbolic link is refused.
        limits: What a disk may have.

    Raises:
        ImageRefusedError: It is no disk image, more than one thing at once, or dangerous; the message says what was
            found and why that matters.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as problem:
        raise ImageRefusedError(
            f"the image file {path} cannot be opened as a regular file", details=str(problem)
        ) from problem
    with os.fdopen(handle, "rb", buffering=0) as stream:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            _refuse(path, "it is not a regular file")
        size = state.st_size
        if size < SMALLEST_IMAGE_BYTES:
            _refuse(path, f"it has {size} bytes; no disk image is that small")
        head = os.pread(handle, HEAD_BYTES, 0)
        tail = os.pread(handle, SMALLEST_IMAGE_BYTES, size - SMALLEST_IMAGE_BYTES)
        words = foreign(head)
        if words is not None:
            _refuse(path, f"it is {words}, not a disk image")
        kind = _one_format(path, signatures(head, tail))
        inspector = _second_opinion(path, stream, size, kind, head)
        virtual = _virtual_size(kind, head, tail, size, inspector)
    if not 0 < virtual <= limits.maximum_virtual_size_bytes:
        _refuse(
            path,
            f"its disk would have {virtual} bytes; from 1 to {limits.maximum_virtual_size_bytes} are taken",
            "Raise conversion.maximum_virtual_size_bytes if such disks are wanted.",
        )
    disk = Detection(format=kind, virtual_size_bytes=virtual)
    return Inspection(format=kind, size_bytes=size, virtual_size_bytes=virtual, disk=disk)


def _one_format(path: Path, found: frozenset[DiskFormat]) -> DiskFormat:
    if len(found) > 1:
        _refuse(path, f"it is several formats at once ({', '.join(sorted(found))}): each tool would read another disk")
    return next(iter(found), DiskFormat.RAW)


def _second_opinion(path: Path, stream: io.FileIO, size: int, kind: DiskFormat, head: bytes) -> FileInspector | None:
    """Ask the library; return its inspector of the format, None for raw."""
    from oslo_utils.imageutils import format_inspector

    tail = os.pread(stream.fileno(), SMALLEST_IMAGE_BYTES, size - SMALLEST_IMAGE_BYTES)
    problem = {
        DiskFormat.QCOW2: lambda: qcow2_problem(qcow2_header(head)),
        DiskFormat.VMDK: lambda: vmdk_problem(head, os.pread(stream.fileno(), 1024, max(0, size - 1024))),
        DiskFormat.VHD: lambda: vhd_problem(head, tail, size),
        DiskFormat.VDI: lambda: vdi_problem(head),
    }.get(kind, lambda: None)()
    if problem is not None:
        _refuse(path, problem)
    data = os.pread(stream.fileno(), min(size, _INSPECTED_BYTES), 0)
    if kind is DiskFormat.VMDK and size > _INSPECTED_BYTES:
        # A stream-optimised image has a second header at its end, which counts.
        data += os.pread(stream.fileno(), 4096, size - 4096)
    wrapper = format_inspector.InspectWrapper(io.BytesIO(data))
    while wrapper.read(_STEP_BYTES):
        pass
    wrapper.close()
    matches = {each.NAME: each for each in wrapper.formats or () if each.NAME not in {"raw", "gpt"}}
    if set(matches) - {str(kind)}:
        _refuse(path, f"it is {kind} and looks like {', '.join(sorted(set(matches) - {str(kind)}))} as well")
    inspector = matches.get(str(kind))
    fixed_vhd = kind is DiskFormat.VHD and not head.startswith(b"conectix")
    if inspector is None:
        if kind is not DiskFormat.RAW and not fixed_vhd:
            _refuse(path, f"it begins like {kind}, but its header is broken")
        return None
    try:
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed as failed:
        known = kind is DiskFormat.QCOW2 and qcow2_header(head).incompatible & _EXTENDED_L2
        if not (known and set(failed.failures) == {"unknown_features"}):
            reasons = "; ".join(f"{name}: {why}" for name, why in failed.failures.items())
            _refuse(path, f"it failed the checks of its format ({reasons})")
    except format_inspector.ImageFormatError as failed:
        _refuse(path, f"its {kind} header cannot be checked ({failed})")
    return inspector


def _virtual_size(kind: DiskFormat, head: bytes, tail: bytes, size: int, inspector: FileInspector | None) -> int:
    if kind is DiskFormat.QCOW2:
        return qcow2_header(head).virtual_size_bytes
    if kind is DiskFormat.VHD:
        return vhd_virtual_size(head, tail)
    if kind in {DiskFormat.RAW, DiskFormat.ISO} or inspector is None:
        return size
    return int(inspector.virtual_size)


def _refuse(path: Path, why: str, resolution: str | None = None) -> NoReturn:
    raise ImageRefusedError(
        f"the image file {path.name} is refused: {why}",
        resolution=resolution or "No tool opened it. Tell whoever publishes it.",
        context={"path": str(path)},
    )
