# SPDX-License-Identifier: Apache-2.0
"""The partitions of a raw disk and what each of them holds, as sfdisk and blkid say; what is ambiguous is an error."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.caged import run_caged
from coppice.factory.partition_table import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TOOL_SECONDS = 300.0
_CHUNK_BYTES = 1024 * 1024
_NOTHING, _SEVERAL = 2, 8
"""What blkid ends with where it found nothing, and where it found more than one thing."""
_LABELS = frozenset({"gpt", "dos"})
_EXTENDED = frozenset({"5", "f", "85"})
_DOS_TYPES = frozenset({"1", "4", "6", "b", "c", "e", "82", "83", "ef", *_EXTENDED})
"""Without tables of their own in which a kernel would find more partitions: FAT, Linux and extended ones."""
_BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
"""Of GPT: the boot loader's code, which has no form that others know."""
_PROTECTIVE = "ee"
"""The whole disk, to those who do not know GPT."""
_FIRST_IS_DAMAGED = "primary GPT table is corrupt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition.

    Attributes:
        start_bytes: Where it begins.
        size_bytes: Its length.
        kind: What it holds, as blkid calls it; empty: zeros, or what only firmware reads.
    """

    start_bytes: int
    size_bytes: int
    kind: str


def find_partitions(raw: Path) -> tuple[Partition, ...]:
    """Return the partitions of the disk ``raw``, the largest first.

    Raises:
        BuildError: It has no partition table, not every machine would read the same out of it, or a partition looks
            like several things.
        StorageError: It cannot be read.
    """
    with storage_errors("reading", raw):
        disk_bytes = raw.stat().st_size
    label, rows = _table(raw)
    whole = _probed(raw, [])
    if whole.get("TYPE") or whole.get("PTTYPE") != label:
        held = " and ".join(filter(None, (whole.get("TYPE"), whole.get("PTTYPE")))) or "nothing"
        raise _ambiguous(f"its table is {label}, and the disk as a whole looks like {held}")
    found = []
    for start, size, is_firmwares in rows:
        if start + size > disk_bytes:
            raise _ambiguous(f"a partition goes from byte {start} to {start + size}, and it has {disk_bytes}")
        said = _probed(raw, ["-O", str(start), "-S", str(size)])
        if "PTTYPE" in said and "TYPE" not in said:
            raise _ambiguous(f"the partition at byte {start} has a partition table of its own")
        if "TYPE" not in said and not is_firmwares and not _is_zeros(raw, start, start + size):
            raise _ambiguous(f"what is in the partition at byte {start} is not known")
        found.append(Partition(start_bytes=start, size_bytes=size, kind=said.get("TYPE", "")))
    return tuple(sorted(found, key=lambda each: each.size_bytes, reverse=True))


def _is_zeros(raw: Path, at: int, end: int) -> bool:
    with storage_errors("reading", raw), raw.open("rb") as stream:
        while at < end:
            try:
                at = os.lseek(stream.fileno(), at, os.SEEK_DATA)
            except OSError as problem:
                if problem.errno == errno.ENXIO:
                    return True
                raise
            piece = os.pread(stream.fileno(), max(0, min(_CHUNK_BYTES, end - at)), at)
            if any(piece):
                return False
            at += max(1, len(piece))
    return True


def _table(raw: Path) -> tuple[str, list[tuple[int, int, bool]]]:
    """Return the kind of the partition table; where each partition begins, its length, whether firmware reads it."""
    table = read_table(raw)
    if table.label not in _LABELS:
        raise _ambiguous(f"its table is {table.label}")
    if _FIRST_IS_DAMAGED in table.complaints:
        raise _ambiguous("the first copy of its table is damaged")
    if table.label == "dos":
        types = {each.type for each in table.entries}
        if _PROTECTIVE in types:
            raise _ambiguous("its GPT is damaged, or cut off")
        if not types <= _DOS_TYPES:
            raise _ambiguous(f"it has a partition of the type {min(types - _DOS_TYPES)}")
    return table.label, [
        (each.start_bytes, each.size_bytes, each.type == _BIOS_BOOT)
        for each in table.entries
        if table.label == "gpt" or each.type not in _EXTENDED
    ]


def _probed(raw: Path, words: Sequence[str]) -> dict[str, str]:
    try:
        completed = run_caged(
            lambda inside: ["blkid", "-p", "-o", "export", *words, inside(raw)],
            reads=[raw],
            timeout_seconds=_TOOL_SECONDS,
            ok=(0, _NOTHING, _SEVERAL),
        )
    except ToolFailedError as problem:
        raise BuildError(f"looking into the image failed: {problem.message}", details=problem.details) from problem
    if completed.returncode == _SEVERAL:
        where = f"the partition at byte {words[1]}" if words else "the disk"
        raise _ambiguous(f"{where} looks like several file systems or partition tables at once")
    lines = (line.partition("=") for line in completed.text().splitlines())
    return {name: value for name, _, value in lines}


def _ambiguous(why: str) -> BuildError:
    return BuildError(
        f"which system a machine would start from the image is not known: {why}",
        resolution="Take an image with a GPT or DOS partition table whose partitions are each of one kind.",
    )
