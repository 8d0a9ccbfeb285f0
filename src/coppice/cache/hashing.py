# SPDX-License-Identifier: Apache-2.0
"""`PrefixHasher`: hashes a file from its beginning on, in a thread of its own, as far as it is whole.

What was just written is hashed from memory; what was written out of order, or was there before, is read back from the
file. The writer waits while it is only a little ahead: more pieces in memory help nobody. When it is far ahead, it goes
on, and the hasher reads the file.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from coppice.digests import new_digest
from coppice.errors import CoppiceError, StorageError
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READ_BYTES = 1024 * 1024
KEPT_BYTES = 32 * 1024 * 1024
"""Most bytes in memory between writer and hasher."""


class PrefixHasher:
    """Hashes what it is told is whole.

    Args:
        read: Takes a position and a length; returns bytes of the file from there on.
        algorithms: Names of digests.
    """

    def __init__(self, read: Callable[[int, int], bytes], algorithms: Sequence[str]) -> None:
        self._read = read
        self._algorithms = tuple(algorithms)
        self._digests = [new_digest(each) for each in self._algorithms]
        self._pieces: dict[int, bytes] = {}
        self._hashed = 0
        self._whole = 0
        self._generation = 0
        self._is_closed = False
        self._problem: CoppiceError | OSError | None = None
        self._busy_seconds = 0.0
        self._busy_bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def rate_bytes_per_second(self) -> float | None:
        """How fast hashing is here; None: not known yet."""
        with self._changed:
            return self._busy_bytes / self._busy_seconds if self._busy_seconds > 0 else None

    def extend(self, whole: int, piece: bytes | None = None, start: int = 0) -> None:
        """Say that the file is whole up to ``whole``; ``piece`` is what lies at ``start``.

        Raises:
            StorageError: What was to be hashed before could not be read.
        """
        with self._changed:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="coppice-hasher", daemon=True)
                self._thread.start()
            lag = start - self._hashed
            if piece is not None and KEPT_BYTES < lag <= 2 * KEPT_BYTES:
                self._changed.wait_for(
                    lambda: start - self._hashed <= KEPT_BYTES or self._problem is not None or self._is_closed, 10.0
                )
                lag = start - self._hashed
            if piece is not None and 0 <= lag <= KEPT_BYTES:
                self._pieces[start] = piece
            self._whole = max(self._whole, whole)
            self._changed.notify_all()
            self._raise_problem()

    def begin_anew(self) -> None:
        """Forget what was hashed."""
        with self._changed:
            self._generation += 1
            self._pieces.clear()
            self._hashed = self._whole = 0
            self._digests = [new_digest(each) for each in self._algorithms]
            self._problem = None

    def checksums(self) -> dict[str, Checksum]:
        """Wait until all that is whole was hashed, and return the checksums of it.

        Raises:
            StorageError: The file could not be read back.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._hashed == self._whole or self._problem is not None or self._is_closed)
            self._raise_problem()
            if self._hashed != self._whole:
                raise StorageError("a file that is being fetched was closed before all of it was hashed")
            return {
                name: Checksum(name, digest.hexdigest())
                for name, digest in zip(self._algorithms, self._digests, strict=True)
            }

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closed = True
            self._pieces.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closed or (self._hashed < self._whole and self._problem is None)
                )
                if self._is_closed:
                    return
                position, generation, digests = self._hashed, self._generation, self._digests
                piece = self._pieces.pop(position, None)
                length = min(READ_BYTES, self._whole - position)
            started = time.monotonic()
            try:
                piece = self._read(position, length) if piece is None else piece
                if not piece:
                    raise StorageError(f"a file that is being fetched ended at {position}, before what was written")
                for digest in digests:
                    digest.update(piece)
            except (CoppiceError, OSError) as problem:
                piece = b""
                with self._changed:
                    if generation == self._generation:
                        self._problem = problem
            self._done(position + len(piece), generation, time.monotonic() - started, len(piece))

    def _done(self, hashed: int, generation: int, seconds: float, size: int) -> None:
        with self._changed:
            self._busy_seconds += seconds
            self._busy_bytes += size
            if generation == self._generation:
                self._hashed = hashed
                for start in [each for each in self._pieces if each < hashed]:
                    del self._pieces[start]
            self._changed.notify_all()
