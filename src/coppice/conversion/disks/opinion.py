# SPDX-License-Identifier: Apache-2.0
"""The second opinion: the inspectors of oslo.utils, as OpenStack's services use them.

They have to see the same format and no danger. What they are known to get wrong is answered by a rule each, and by
nothing wider: see `_KNOWN`. They judge nothing that own checks did not judge before.
"""

from __future__ import annotations

import io
import logging
import struct
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, SeveralFormatsError, UnsupportedImageError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from oslo_utils.imageutils.format_inspector import FileInspector

    from coppice.conversion.model import Detection
    from coppice.conversion.window import Window

_INSPECTED_BYTES = 2 * 1024 * 1024
"""Enough for the descriptor of a VMDK, which is the longest thing that it reads of any other format."""
_INSPECTED_OF_VHDX_BYTES = 8 * 1024 * 1024
"""Its metadata is where its region table says: in the first megabytes, by all programs that write one."""
_END_BYTES = 4096
_STEP_BYTES = 64 * 1024
_LIBRARY = "oslo_utils.imageutils.format_inspector"
_NO_FORMATS = frozenset({"raw", "gpt"})
"""``raw`` is what it calls anything; ``gpt`` each boot signature, also of a file system or a hybrid ISO."""
_SIZED = frozenset({DiskFormat.QCOW2, DiskFormat.VMDK, DiskFormat.VDI, DiskFormat.VHDX})
"""Formats whose disk's length it reads where the format has it; of a VHD it reads another field than QEMU."""
_KNOWN: frozenset[tuple[DiskFormat, str, str]] = frozenset({(DiskFormat.QCOW2, "extended-l2", "unknown_features")})
"""Format, word of the variant, check that fails though nothing is wrong: it takes extended L2 entries for unknown."""
_UNSEEN: frozenset[tuple[DiskFormat, str]] = frozenset({(DiskFormat.RAW, ""), (DiskFormat.VHD, "fixed")})
"""Format and word of the variant that it has no inspector for: a fixed VHD has its only header at its end."""


def ask(window: Window, found: Detection, name: str) -> None:
    """Ask for the second opinion on a disk that was looked at.

    Raises:
        SeveralFormatsError: It sees another format.
        CorruptImageError: It does not see that format, or another length of the disk.
        UnsupportedImageError: It finds the disk dangerous, or cannot tell.
    """
    try:
        seen = _inspectors(window, found.format)
    except _failures() as problem:
        raise refusal(
            UnsupportedImageError,
            name,
            f"the inspectors of oslo.utils failed on it ({type(problem).__name__})",
            why="a file that cannot be judged is not opened",
        ) from problem
    others = sorted(set(seen) - {str(found.format)})
    if others:
        raise refusal(
            SeveralFormatsError,
            name,
            f"it is {found.format}, and oslo.utils sees {', '.join(others)}",
            why="each tool would read another disk",
        )
    inspector = seen.get(str(found.format))
    words = found.variant.split()
    if inspector is None:
        if not any(found.format is kind and (not word or word in words) for kind, word in _UNSEEN):
            raise refusal(
                CorruptImageError,
                name,
                f"it begins like {found.format}, and oslo.utils does not see that format in it",
                why="a header that two readers read in two ways is broken or made to mislead",
            )
        return
    _no_danger(inspector, found, words, name)


def _no_danger(inspector: FileInspector, found: Detection, words: list[str], name: str) -> None:
    from oslo_utils.imageutils import format_inspector

    try:
        inspector.safety_check()
        size = inspector.virtual_size
    except format_inspector.SafetyCheckFailed as failed:
        excused = {check for kind, word, check in _KNOWN if kind is found.format and word in words}
        if set(failed.failures) - excused:
            reasons = "; ".join(f"{check}: {why}" for check, why in failed.failures.items())
            raise refusal(
                UnsupportedImageError,
                name,
                f"it fails the checks of oslo.utils ({reasons})",
                why="OpenStack would refuse it, for a reason",
            ) from failed
        return
    except _failures() as problem:
        raise refusal(
            CorruptImageError,
            name,
            f"the {found.format} inspector of oslo.utils cannot judge it ({type(problem).__name__})",
            why="its header is incomplete or broken",
        ) from problem
    if found.format in _SIZED and _in_sectors(size) != _in_sectors(found.virtual_size_bytes):
        raise refusal(
            CorruptImageError,
            name,
            f"its disk has {found.virtual_size_bytes} bytes, and {size} where oslo.utils looks",
            why="each tool would read another disk",
        )


def _failures() -> tuple[type[Exception], ...]:
    """Return what the library raises on odd bytes, declared or not."""
    from oslo_utils.imageutils import format_inspector

    undeclared = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
    return (*undeclared, struct.error, format_inspector.ImageFormatError, format_inspector.SafetyViolation)


def _in_sectors(size_bytes: int) -> int:
    # A format's length in bytes is rounded up by QEMU; the library gives it as it is.
    return -(-size_bytes // SECTOR_BYTES)


def _inspectors(window: Window, kind: DiskFormat) -> dict[str, FileInspector]:
    from oslo_utils.imageutils import format_inspector

    # It warns of what it finds on its own; the refusal says it here.
    logging.getLogger(_LIBRARY).setLevel(logging.CRITICAL)
    most = _INSPECTED_OF_VHDX_BYTES if kind is DiskFormat.VHDX else _INSPECTED_BYTES
    data = window.read(0, min(window.size_bytes, most))
    if window.size_bytes > most:
        # A stream-optimised VMDK has a second header at its end, which counts.
        data += window.read(window.size_bytes - _END_BYTES, _END_BYTES)
    wrapper = format_inspector.InspectWrapper(io.BytesIO(data))
    while wrapper.read(_STEP_BYTES):
        pass
    wrapper.close()
    return {each.NAME: each for each in wrapper.formats or () if each.NAME not in _NO_FORMATS}
