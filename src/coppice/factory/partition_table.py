# SPDX-License-Identifier: Apache-2.0
"""What the partition table of a raw disk says, and which partition is a system's root."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.caged import run_caged

if TYPE_CHECKING:
    from pathlib import Path

_TOOL_SECONDS = 300.0
_SECTOR_BYTES = 512
_EXT_MAGIC_AT = 1080
_EXT_MAGIC = b"\x53\xef"
_MOST_BYTES = 1 << 62
_STRANGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading an answer of another form than expected raises: a disk may have taken over the program that gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A partition as the table has it.

    Attributes:
        number: Its number.
        start_bytes: Where it begins.
        size_bytes: Its length.
        type: A UUID of GPT, or hexadecimal digits of a DOS table; in lower case.
    """

    number: int
    start_bytes: int
    size_bytes: int
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A partition table.

    Attributes:
        label: Its kind: ``gpt``, ``dos`` or another that sfdisk knows.
        entries: All partitions that have a length.
        complaints: What sfdisk found wrong.
    """

    label: str
    entries: tuple[Entry, ...]
    complaints: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root partition of a disk.

    Attributes:
        number: Of the partition.
        start_bytes: Where it begins.
        size_bytes: Its length.
        is_last: Whether nothing lies behind it.
        label: Of the partition table: ``gpt`` or ``dos``.
    """

    number: int
    start_bytes: int
    size_bytes: int
    is_last: bool
    label: str


def read_table(raw: Path) -> Table:
    """Return the partition table of the disk ``raw``.

    Raises:
        BuildError: It has none that can be read.
    """
    try:
        done = run_caged(lambda inside: ["sfdisk", "--json", inside(raw)], reads=[raw], timeout_seconds=_TOOL_SECONDS)
        said = json.loads(done.text())["partitiontable"]
        sector_bytes = int(said.get("sectorsize", _SECTOR_BYTES))
        rows: list[dict[str, Any]] = said["partitions"]
        entries = [_entry(row, sector_bytes) for row in rows]
        return Table(
            label=str(said["label"]),
            entries=tuple(entry for entry in entries if entry.size_bytes),
            complaints=done.stderr.decode("utf-8", errors="replace"),
        )
    except (ToolFailedError, *_STRANGE) as problem:
        raise BuildError("the image has no partition table that could be read", details=str(problem)) from problem


def find_root(raw: Path) -> Root:
    """Return the largest partition of ``raw`` that holds ext4: the system's root.

    Raises:
        BuildError: There is no partition table, or no such partition.
        StorageError: It cannot be read.
    """
    table = read_table(raw)
    end = max((each.start_bytes + each.size_bytes for each in table.entries), default=0)
    largest_first = sorted(table.entries, key=lambda each: (each.size_bytes, each.start_bytes), reverse=True)
    with storage_errors("reading", raw), raw.open("rb") as stream:
        for each in largest_first:
            stream.seek(each.start_bytes + _EXT_MAGIC_AT)
            if stream.read(len(_EXT_MAGIC)) == _EXT_MAGIC:
                return Root(
                    number=each.number,
                    start_bytes=each.start_bytes,
                    size_bytes=each.size_bytes,
                    is_last=each.start_bytes + each.size_bytes == end,
                    label=table.label,
                )
    raise BuildError(
        "the image has no ext4 partition: its files cannot be read",
        resolution="Start from an image whose root is ext4.",
    )


def _entry(row: dict[str, Any], sector_bytes: int) -> Entry:
    node, start, size = str(row["node"]), int(row["start"]) * sector_bytes, int(row["size"]) * sector_bytes
    if not (0 <= start < _MOST_BYTES and 0 <= size < _MOST_BYTES):
        message = f"a partition from byte {start} that is {size} long"
        raise ValueError(message)
    number = int(node[len(node.rstrip("0123456789")) :])
    return Entry(number=number, start_bytes=start, size_bytes=size, type=str(row["type"]).lower())
