# SPDX-License-Identifier: Apache-2.0
"""What conversions made and keep: the record beside each file, and how many raw files stay that serve deltas alone."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice import atomic
from coppice.conversion.files import try_locked
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image

if TYPE_CHECKING:
    from pathlib import Path

GUEST_FILES_KEPT = 8
"""Raw files that were made only so that deltas can start from them; the ones used last stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The record of a converted file.

    Attributes:
        image: Facts about it.
        source: Of the file that it was made from.
        converter: What made it.
        is_seed: It serves deltas alone; no cloud asked for it.
    """

    image: Image
    source: Checksum
    converter: str
    is_seed: bool


def record_of(path: Path) -> Path:
    """Return where the record of a converted file is."""
    return path.with_name(path.name + ".json")


def read_made(path: Path) -> Made | None:
    """Return the record of a converted file; None: there is none that can be read, so that it is made again."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content: dict[str, Any] = json.loads(record_of(path).read_text(encoding="utf-8"))
        return Made(
            image=Image(
                format=DiskFormat(content["format"]),
                size_bytes=int(content["size_bytes"]),
                virtual_size_bytes=int(content["virtual_size_bytes"]),
                checksum=Checksum.parse(content["checksum"]),
            ),
            source=Checksum.parse(content["source"]),
            converter=str(content["converter"]),
            is_seed=content.get("seed") is True,
        )
    return None


def write_made(path: Path, made: Made) -> None:
    """Write the record of a converted file.

    Raises:
        StorageError: It cannot be written.
    """
    content = {
        "format": str(made.image.format),
        "size_bytes": made.image.size_bytes,
        "virtual_size_bytes": made.image.virtual_size_bytes,
        "checksum": str(made.image.checksum),
        "source": str(made.source),
        "converter": made.converter,
        "seed": made.is_seed,
    }
    atomic.write_text(record_of(path), json.dumps(content, indent=1) + "\n")


def mark_used(path: Path) -> None:
    """Say that a converted file was needed now."""
    with contextlib.suppress(OSError):
        os.utime(record_of(path))


def size_of(path: Path) -> int | None:
    """Return the length of a regular file; None: there is none."""
    with contextlib.suppress(OSError):
        state = path.lstat()
        if stat.S_ISREG(state.st_mode):
            return state.st_size
    return None


def prune_guest_bytes(directory: Path, *, keep: int = GUEST_FILES_KEPT) -> tuple[Path, ...]:
    """Remove raw files that serve deltas alone, but for those used last; return what was removed.

    Whatever a cloud asked for stays, and so does what is being made.

    Args:
        directory: The converter's.
        keep: How many stay.

    Raises:
        StorageError: One cannot be removed.
    """
    seeds: list[tuple[int, Path]] = []
    for record in (directory / "objects").glob("*.raw.json"):
        path = record.with_suffix("")
        made = read_made(path)
        if made is not None and made.is_seed:
            with contextlib.suppress(OSError):
                seeds.append((record.stat().st_mtime_ns, path))
    removed = []
    for _, path in sorted(seeds)[: max(0, len(seeds) - keep)]:
        with try_locked(directory / "locks" / path.name) as held:
            if held:
                with atomic.storage_errors("removing", path):
                    path.unlink(missing_ok=True)
                    record_of(path).unlink(missing_ok=True)
                removed.append(path)
    return tuple(removed)
