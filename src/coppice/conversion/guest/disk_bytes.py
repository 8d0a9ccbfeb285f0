# SPDX-License-Identifier: Apache-2.0
"""`DiskBytes`: the bytes that a guest sees of a disk, whatever its format, a stretch at a time."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.conversion.guest.unknown import NotFoundOutError
from coppice.conversion.qemu import source_of
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.conversion.guest.caged import Reader
    from coppice.conversion.unpack import OpenedDisk

PIECE_BYTES = 1024 * 1024
"""As much is brought at once out of a disk that is not raw."""
MOST_PIECES = 64
"""As many pieces are brought: what needs more of a disk than that does not get it."""
SMALL_BYTES = 64 * 1024 * 1024
"""So much is brought without asking whether there is room; of more, half of what is free may be taken."""
_AS_IT_IS = frozenset({DiskFormat.RAW, DiskFormat.ISO})
_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a disk, as it lies in a file that a program can read.

    Attributes:
        path: The file.
        offset: Where the part begins there.
        size_bytes: Its length.
    """

    path: Path
    offset: int
    size_bytes: int


class DiskBytes:
    """What a guest sees of a disk.

    Of a raw disk the bytes are read where they lie. Of another, QEMU brings them in pieces, shut in the cage.

    Args:
        disk: The disk, of which all is known that there is to refuse.
        reader: Runs qemu-img.
        workplace: A directory for what is brought; it is left as it was.
    """

    def __init__(self, disk: OpenedDisk, reader: Reader, workplace: Path) -> None:
        self._disk = disk
        self._reader = reader
        self._workplace = workplace
        self._pieces: dict[int, bytes] = {}
        self._is_plain = disk.inspection.disk.format in _AS_IT_IS
        self.size_bytes = disk.size_bytes if self._is_plain else disk.inspection.disk.virtual_size_bytes

    def read(self, start: int, length: int) -> bytes:
        """Return bytes from ``start`` on; fewer where the disk ends.

        Raises:
            NotFoundOutError: They cannot be had.
        """
        end = min(start + length, self.size_bytes)
        if end <= start:
            return b""
        if self._is_plain:
            try:
                return self._disk.window.read(start, end - start)
            except OSError as problem:
                raise NotFoundOutError(f"the image cannot be read: {problem.strerror}") from problem
        first, last = start // PIECE_BYTES, (end - 1) // PIECE_BYTES
        joined = b"".join(self._piece(index) for index in range(first, last + 1))
        at = start - first * PIECE_BYTES
        return joined[at : at + end - start]

    @contextmanager
    def in_place(self, start: int, size_bytes: int) -> Iterator[Stretch]:
        """Give a part of the disk as a stretch of a file: where it lies if the disk is raw, else a file of its own.

        Raises:
            NotFoundOutError: It cannot be brought.
        """
        if self._is_plain:
            yield Stretch(path=self._disk.path, offset=self._disk.offset + start, size_bytes=size_bytes)
        else:
            with self.as_file(start, size_bytes) as path:
                yield Stretch(path=path, offset=0, size_bytes=size_bytes)

    @contextmanager
    def as_file(self, start: int, size_bytes: int) -> Iterator[Path]:
        """Give a part of the disk as a file of its own, its zeros as holes; it goes away with the context.

        Raises:
            NotFoundOutError: It cannot be brought.
        """
        with tempfile.TemporaryDirectory(prefix="guest-", dir=self._workplace) as directory:
            path = Path(directory) / "part.raw"
            path.touch()
            self._bring(start, size_bytes, path)
            yield path

    def _piece(self, index: int) -> bytes:
        if index not in self._pieces:
            if len(self._pieces) >= MOST_PIECES:
                raise NotFoundOutError(f"more than {MOST_PIECES} pieces of the disk would have to be brought")
            start = index * PIECE_BYTES
            length = min(PIECE_BYTES, self.size_bytes - start)
            with self.as_file(start, length) as path:
                self._pieces[index] = path.read_bytes()[:length].ljust(length, b"\0")
        return self._pieces[index]

    def _bring(self, start: int, size_bytes: int, destination: Path) -> None:
        if start % _SECTOR_BYTES or size_bytes % _SECTOR_BYTES:
            raise NotFoundOutError("it does not begin and end with a sector")
        if size_bytes > SMALL_BYTES:
            self._check_room(start, size_bytes)
        cage = self._reader.cage(self._disk.path, writes=[destination])
        source = self._source(cage.inside(self._disk.path), start, size_bytes)
        argv = ["qemu-img", "convert", "-O", "raw", source, cage.inside(destination)]
        self._reader.bring(cage, argv, file_size_bytes=size_bytes)

    def _check_room(self, start: int, size_bytes: int) -> None:
        cage = self._reader.cage(self._disk.path)
        source = self._source(cage.inside(self._disk.path), start, size_bytes)
        # Of raw, QEMU would say the whole length; of qcow2 it says the data, and a little for tables.
        said = self._reader.look(cage, ["qemu-img", "measure", "-O", "qcow2", "--output=json", source]).stdout
        try:
            needed = int(json.loads(said)["required"])
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            raise NotFoundOutError("qemu-img does not say how many bytes of data there are") from problem
        free = shutil.disk_usage(self._workplace).free
        if needed > free // 2:
            raise NotFoundOutError(f"it has {needed} bytes of data, and there is room for {free // 2}")

    def _source(self, inside: str, start: int, size_bytes: int) -> str:
        whole = json.loads(source_of(self._disk, inside).removeprefix("json:"))
        return f"json:{json.dumps({'driver': 'raw', 'offset': start, 'size': size_bytes, 'file': whole})}"
