# SPDX-License-Identifier: Apache-2.0
"""Deltas of small disks, made in memory, and a remote that gives their files (tests)."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.errors import ChecksumMismatchError, TransferCutError, UnreachableError
from coppice.formats.delta import BLOCK_BYTES, Extent, IndexWriter, PackWriter, PatchWriter, block_hash
from coppice.imagelist.model import DeltaPatch, ImageDelta, RemoteFile
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from coppice.formats.delta import PackLayout
    from coppice.monitor import Task


def disk(*blocks: int, tail: int = 0) -> bytes:
    """Return a disk: each block is zeros (0), or of content that its number alone decides; and ``tail`` more bytes."""
    return b"".join(map(block_of, blocks)) + block_of(999_983)[:tail]


def block_of(number: int) -> bytes:
    """Return the block of that number."""
    return random.Random(number).randbytes(BLOCK_BYTES) if number else bytes(BLOCK_BYTES)  # noqa: S311 - test content


def blocks_of(data: bytes) -> list[bytes]:
    """Return the blocks of a disk; the last one is filled up."""
    return [data[start : start + BLOCK_BYTES].ljust(BLOCK_BYTES, b"\0") for start in range(0, len(data), BLOCK_BYTES)]


@dataclass
class MadeDelta:
    """A delta and its files.

    Attributes:
        delta: What a list says of it.
        files: By URI.
    """

    delta: ImageDelta
    files: dict[str, bytes]


def make_delta(
    data: bytes, *, origins: Sequence[bytes] = (), uri: str = "mem:", packs: int = 1, frame_blocks: int = 2
) -> MadeDelta:
    """Make the delta of a disk: its blocks in packs in turn, and a patch from each of ``origins``."""
    files: dict[str, bytes] = {}
    prefix = f"{uri}{Checksum.of(data).hexdigest[:12]}"

    def keep(name: str, content: bytes) -> RemoteFile:
        files[f"{prefix}-{name}"] = content
        return RemoteFile(uri=f"{prefix}-{name}", size_bytes=len(content), checksum=Checksum.of(content))

    streams = [io.BytesIO() for _ in range(packs)]
    writers = [PackWriter(stream, frame_blocks=frame_blocks) for stream in streams]
    places: dict[bytes, tuple[int, int]] = {}
    stored = [block for block in blocks_of(data) if any(block)]
    for block in stored:
        if block_hash(block) not in places:
            pack = len(places) * packs // len(stored)
            places[block_hash(block)] = (pack, writers[pack].add(block))
    used = [number for number, writer in enumerate(writers) if writer.blocks]
    layouts = [writers[number].finish() for number in used]
    made = [keep(f"pack-{number}", streams[number].getvalue()) for number in used]
    index = keep("index", _index(data, layouts, {key: (used.index(p), n) for key, (p, n) in places.items()}))
    patches = tuple(
        DeltaPatch(origin=Checksum.of(origin), file=keep(f"patch-{number}", make_patch(origin, data)))
        for number, origin in enumerate(origins)
    )
    delta = ImageDelta(
        guest_size_bytes=len(data),
        guest_checksum=Checksum.of(data),
        index=index,
        packs=tuple(made),
        patches=patches,
    )
    return MadeDelta(delta=delta, files=files)


def _index(data: bytes, layouts: Sequence[PackLayout], places: Mapping[bytes, tuple[int, int]]) -> bytes:
    writer = IndexWriter(layouts)
    for block in blocks_of(data):
        if any(block):
            pack, number = places[block_hash(block)]
            writer.block(block_hash(block), pack=pack, number=number)
        else:
            writer.zeros()
    return writer.finish(guest_size_bytes=len(data), guest_checksum=Checksum.of(data))


def make_patch(origin: bytes, target: bytes) -> bytes:
    """Return the patch from one disk to another; the whole origin, up to a bound, is the reference."""
    segments = io.BytesIO()
    writer = PatchWriter(segments)
    known = {block: number for number, block in reversed(list(enumerate(blocks_of(origin))))}
    literal = []
    for block in blocks_of(target):
        if not any(block):
            writer.zeros()
        elif block in known:
            writer.copy(known[block])
        else:
            writer.literal()
            literal.append(block)
    count = min(len(blocks_of(origin)), 1024)
    for start in range(0, len(literal), 1024):
        data = b"".join(literal[start : start + 1024])
        writer.segment(data, b"".join(blocks_of(origin)[:count]), [Extent(0, count)])
    head = writer.finish(
        target_size_bytes=len(target),
        target_checksum=Checksum.of(target),
        origin_size_bytes=len(origin),
        origin_checksum=Checksum.of(origin),
    )
    return head + segments.getvalue()


@dataclass
class MemoryRemote:
    """Gives files out of memory, as `coppice.cache.assembly_remote.Remote` does, and counts.

    Attributes:
        files: By URI.
        spoil: Takes the place of the bytes of ranges: URI, position, bytes → bytes.
        cut_after_bytes: Fails when so many bytes of ranges were given in all; None: never.
        ranges: What was asked for, by URI.
        given_bytes: How many bytes went out.
    """

    files: dict[str, bytes]
    spoil: Callable[[str, int, bytes], bytes] | None = None
    cut_after_bytes: int | None = None
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    given_bytes: int = 0

    def fetch(self, file: RemoteFile, partial: Path, task: Task) -> int:
        """Write the whole file, unless it is there."""
        content = self._content(file)
        if not Checksum.of(content).matches(file.checksum):
            raise ChecksumMismatchError("not the file that was signed")
        had = partial.read_bytes() if partial.exists() else b""
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        task.advance(len(content))
        self.given_bytes += len(content) - len(had)
        return len(content) - len(had)

    def is_near(self, file: RemoteFile) -> bool:
        """Say that it is far."""
        return False

    def read_ranges(
        self, file: RemoteFile, ranges: Sequence[tuple[int, int]], sink: Callable[[int, bytes], object], task: Task
    ) -> None:
        """Give ranges in small pieces."""
        content = self._content(file)
        for start, length in ranges:
            self.ranges.append((file.uri, start, length))
            for position in range(start, start + length, 1000):
                piece = content[position : min(position + 1000, start + length)]
                if self.cut_after_bytes is not None and self.given_bytes + len(piece) > self.cut_after_bytes:
                    raise TransferCutError("the line went dead")
                if self.spoil is not None:
                    piece = self.spoil(file.uri, position, piece)
                sink(position, piece)
                task.advance(len(piece))
                self.given_bytes += len(piece)

    def _content(self, file: RemoteFile) -> bytes:
        if file.uri not in self.files:
            raise UnreachableError(f"there is no {file.uri}")
        return self.files[file.uri]
