# SPDX-License-Identifier: Apache-2.0
"""What conversions made and keep: one file for each source, format and options, with its record beside it.

A record without its file, or a file without its record, is nothing: it is made again. Who uses a file holds a lease on
it, so that no other process removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from coppice import atomic
from coppice.conversion.keep_facts import inspection_from, inspection_values
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from coppice.conversion.model import Inspection

_SOURCE_DIGITS = 40
_IDENTITY_DIGITS = 24


class Leases(Protocol):
    """What a process uses, told to all others."""

    def take(self, checksum: Checksum) -> None:
        """Use what is known by a checksum from now on."""
        ...

    def is_used(self, checksum: Checksum) -> bool:
        """Tell whether any process uses it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The record of a converted file.

    Attributes:
        image: Facts about it.
        source: Of the file that it was made from.
        converter: What made it.
        is_seed: It serves deltas alone; no cloud asked for it.
        found: What the source was found to be, so that it need not be unpacked to know that.
    """

    image: Image
    source: Checksum
    converter: str
    is_seed: bool
    found: Inspection


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A converted file that is there, with its record; its bytes were not read.

    Attributes:
        path: The file.
        made: Its record.
        held_bytes: What it takes on the disk.
        used_ns: When it was needed last, by the clock of the file system.
        is_linked: Whether it has another name, in the folder of a cloud: to remove this one frees nothing.
    """

    path: Path
    made: Made
    held_bytes: int
    used_ns: int
    is_linked: bool


def place_of(directory: Path, source: Checksum, identity: Sequence[str], wanted: DiskFormat) -> Path:
    """Return where a result is kept.

    Args:
        directory: The converter's.
        source: Checksum of the source.
        identity: All that decides what is made of it, the converter's version included.
        wanted: The format.
    """
    digest = hashlib.sha512("\0".join((str(source), *identity)).encode()).hexdigest()
    return directory / "objects" / f"{source.hexdigest[:_SOURCE_DIGITS]}-{digest[:_IDENTITY_DIGITS]}.{wanted}"


def lease_of(path: Path) -> Checksum:
    """Return by what the lease on a converted file is known."""
    return Checksum.of(path.name.encode())


def lock_of(path: Path) -> Path:
    """Return the lock under which a converted file is made, taken and removed."""
    return path.parent.parent / "locks" / path.name


def record_of(path: Path) -> Path:
    """Return where the record of a converted file is."""
    return path.with_name(path.name + ".json")


def read_made(path: Path) -> Made | None:
    """Return the record of a converted file; None: there is none that can be read, so that it is made again."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
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
            found=inspection_from(content["found"]),
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
        "found": inspection_values(made.found),
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


def all_kept(directory: Path, source: Checksum | None = None) -> Iterator[Kept]:
    """Yield what is kept, of one source or of all, in the order of names.

    Args:
        directory: The converter's.
        source: Of which; None: of all.
    """
    pattern = "*.json" if source is None else f"{source.hexdigest[:_SOURCE_DIGITS]}-*.json"
    for record in sorted((directory / "objects").glob(pattern)):
        path = record.with_suffix("")
        made = read_made(path)
        if made is None or (source is not None and made.source != source):
            continue
        with contextlib.suppress(OSError):
            state, used = path.lstat(), record.lstat().st_mtime_ns
            if stat.S_ISREG(state.st_mode) and state.st_size == made.image.size_bytes:
                linked = state.st_nlink > 1
                yield Kept(path=path, made=made, held_bytes=state.st_blocks * 512, used_ns=used, is_linked=linked)
