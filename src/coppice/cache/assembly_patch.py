# SPDX-License-Identifier: Apache-2.0
"""A disk out of an earlier one and a patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cache.assembly_write import read_held
from coppice.errors import DeltaError
from coppice.formats.delta import BLOCK_BYTES, InstructionKind, literals, read_patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from coppice.cache.assembly_write import DiskWriter
    from coppice.formats.delta import Patch
    from coppice.imagelist.model import DeltaPatch, ImageDelta

    ReadAt = Callable[[int, int], bytes]


class PatchAssembly:
    """A patch that came, checked against what the list says.

    Args:
        delta: What the list signed.
        chosen: Which of its patches.
        stream: The patch file.

    Raises:
        DeltaError: It is malformed, or for other disks.
    """

    def __init__(self, delta: ImageDelta, chosen: DeltaPatch, stream: BinaryIO) -> None:
        self._stream = stream
        self._patch = _checked(read_patch(stream, size_bytes=chosen.file.size_bytes), delta, chosen)

    @property
    def stored_bytes(self) -> int:
        """At most how many bytes of the disk are not zeros."""
        kept = sum(each.count for each in self._patch.instructions() if each.kind is not InstructionKind.ZEROS)
        return kept * BLOCK_BYTES

    @property
    def literal_bytes(self) -> int:
        """How many bytes of the disk come with the patch."""
        return sum(each.blocks for each in self._patch.segments) * BLOCK_BYTES

    def write(self, writer: DiskWriter, origin: int) -> None:
        """Put the disk together.

        Args:
            writer: Takes it.
            origin: Open file of the earlier disk.

        Raises:
            DeltaError: A segment is malformed, or the earlier disk is not what it was.
            StorageError: The disk cannot be written.
        """
        patch = self._patch
        left = patch.target_size_bytes
        source = _Pieces(literals(patch, self._stream, _reader(origin)))
        for instruction in patch.instructions():
            whole = instruction.count * BLOCK_BYTES
            length = min(whole, left)
            left -= length
            if instruction.kind is InstructionKind.ZEROS:
                writer.zeros(length)
            elif instruction.kind is InstructionKind.COPY:
                self._copy(writer, origin, instruction.origin * BLOCK_BYTES, length)
            else:
                for piece in source.take(whole):
                    shown = piece[:length]
                    length -= len(shown)
                    if shown:
                        writer.data(shown)
        source.refuse_more()

    def _copy(self, writer: DiskWriter, origin: int, offset: int, length: int) -> None:
        # The last block of a disk is filled up with zeros where its length is no multiple of a block's.
        held = min(length, max(0, self._patch.origin_size_bytes - offset))
        writer.copy(origin, offset, held)
        writer.zeros(length - held)


def _reader(origin: int) -> ReadAt:
    def read(offset: int, length: int) -> bytes:
        found = bytearray()
        while len(found) < length and (piece := read_held(origin, offset + len(found), length - len(found))):
            found += piece
        return bytes(found)

    return read


class _Pieces:
    """Gives the literal bytes in the lengths that are asked for."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._pending = b""

    def take(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self._pending or next(self._source, b"")
            if not piece:
                raise DeltaError("the segments of a patch end too early")
            given, self._pending = piece[:length], piece[length:]
            length -= len(given)
            yield given

    def refuse_more(self) -> None:
        # The end of the last segment is read as well: what is wrong there is wrong.
        if self._pending or next(self._source, b""):
            raise DeltaError("the segments of a patch hold more than its instructions ask for")


def _checked(patch: Patch, delta: ImageDelta, chosen: DeltaPatch) -> Patch:
    if (patch.target_size_bytes, patch.target_checksum) != (delta.guest_size_bytes, delta.guest_checksum):
        raise DeltaError("a patch makes another disk than the list says")
    if patch.origin_checksum != chosen.origin:
        raise DeltaError("a patch starts from another disk than the list says")
    return patch
