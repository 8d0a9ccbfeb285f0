# SPDX-License-Identifier: Apache-2.0
"""The bytes of a converted image: opened once, read once, compared with what they must be, whoever reads along."""

from __future__ import annotations

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cloud.transports.transport import ALGORITHMS
from coppice.digests import new_digest
from coppice.errors import ChecksumMismatchError, SettingsError
from coppice.model.checksum import Checksum
from coppice.monitor import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor

PIECE_BYTES = 4 * 1024 * 1024
_SPEAKABLE = re.compile(r"[A-Za-z0-9._~/:\[\]-]+")


class Content:
    """A converted image's file, held open: what is at its path later does not matter.

    Args:
        converted: Whose.
        handle: Its open file.
    """

    def __init__(self, converted: ConvertedImage, handle: int) -> None:
        self.converted = converted
        self.handle = handle
        self.size_bytes = os.fstat(handle).st_size
        self.checksums: dict[str, str] = {}

    def pieces(self, monitor: Monitor, doing: str) -> Iterator[bytes]:
        """Yield all bytes from the beginning; when the last one is out, they are compared and `checksums` is filled.

        Raises:
            ChecksumMismatchError: They are not the bytes that were converted. What was made of them must not be used.
            StorageError: The disk failed.
        """
        expected = self.converted.image.checksum
        digests = {name: new_digest(name) for name in {*ALGORITHMS, expected.algorithm}}
        path, at = self.converted.path, 0
        with (
            ThreadPoolExecutor(len(digests), thread_name_prefix="digest") as pool,
            monitor.task(f"{doing} {path.name}", total=self.size_bytes, unit=Unit.BYTES) as task,
        ):
            while piece := self._read(at):
                at += len(piece)
                # hashlib lets other threads run: several digests take hardly longer than the slowest.
                running = [pool.submit(digest.update, piece) for digest in digests.values()]
                yield piece
                for each in running:
                    each.result()
                task.advance(len(piece))
        found = Checksum(expected.algorithm, digests[expected.algorithm].hexdigest())
        if not found.matches(expected):
            raise self._changed(f"expected {expected}, found {found}")
        self.size_bytes = at
        self.checksums = {name: digest.hexdigest() for name, digest in sorted(digests.items())}

    def check(self, monitor: Monitor) -> None:
        """Read all bytes and compare them.

        Raises:
            ChecksumMismatchError: They are not the bytes that were converted.
            StorageError: The disk failed.
        """
        for _ in self.pieces(monitor, "verify"):
            pass

    def _read(self, at: int) -> bytes:
        with atomic.storage_errors("reading", self.converted.path):
            return os.pread(self.handle, PIECE_BYTES, at)

    def _changed(self, details: str) -> ChecksumMismatchError:
        return ChecksumMismatchError(
            f"the disk of image {self.converted.key} version {self.converted.version} is damaged: "
            f"{self.converted.path}",
            details=details,
            resolution="Nothing was offered to the cloud. Remove that file, then run again: it is made anew.",
            context={"path": str(self.converted.path)},
        )


@contextmanager
def opened(converted: ConvertedImage) -> Iterator[Content]:
    """Hold the image's file open; a link in its place is not followed.

    Raises:
        StorageError: It cannot be opened, or is no file.
    """
    with atomic.storage_errors("opening", converted.path):
        handle = os.open(converted.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with atomic.storage_errors("opening", converted.path):
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(0, "it is no ordinary file")
        yield Content(converted, handle)
    finally:
        os.close(handle)


def speakable(text: str, option: str) -> str:
    """Return ``text`` when it can be told to a front-end, whose drivers hand it to a shell and split it at blanks.

    Raises:
        SettingsError: It has other characters.
    """
    if not _SPEAKABLE.fullmatch(text):
        raise SettingsError(
            f"the option `{option}`: {text!r} has characters that OpenNebula's drivers do not pass on as they are",
            resolution="Use letters, digits, and - . _ ~ / alone.",
        )
    return text
