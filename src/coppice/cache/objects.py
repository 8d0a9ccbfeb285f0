# SPDX-License-Identifier: Apache-2.0
"""Files of the cache by their digest: names, records beside them, locks, hashing of an open file.

An object is a read-only file ``objects/<aa>/<digest>``, where ``aa`` are the digest's first two digits. The record
``<digest>.json`` beside it says that this cache made it; a file without a record is somebody else's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.clock import to_rfc3339
from coppice.errors import ImageRefusedError, LockedError
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PIECE_BYTES = 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64,128}")
_PARTIAL = re.compile(
    re.escape(atomic.PARTIAL_PREFIX) + r"([0-9a-f]{64,128})-[0-9a-f]+" + re.escape(atomic.PARTIAL_SUFFIX)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """An object of the cache.

    Attributes:
        checksum: Of its bytes.
        size_bytes: Its length.
        path: The file.
        fetched_at: When it came; aware, UTC.
        uri: Where it came from.
    """

    checksum: Checksum
    size_bytes: int
    path: Path
    fetched_at: datetime
    uri: str


class Layout:
    """Where things are below the cache's directory."""

    def __init__(self, directory: Path) -> None:
        self.objects = directory / "objects"
        self.partial = directory / "partial"
        self.quarantine = directory / "quarantine"
        self._locks = directory / "locks"

    def path(self, checksum: Checksum) -> Path:
        """Return where the bytes with that checksum are, or would be."""
        return self.objects / checksum.hexdigest[:2] / checksum.hexdigest

    def record(self, checksum: Checksum) -> Path:
        """Return where the record of an object is, or would be."""
        return self.path(checksum).with_suffix(".json")

    def write_record(self, checksum: Checksum, *, size_bytes: int, fetched_at: datetime, uri: str) -> None:
        """Say that this cache made the object."""
        content = {
            "checksum": str(checksum),
            "size_bytes": size_bytes,
            "fetched_at": to_rfc3339(fetched_at),
            "uri": uri,
        }
        atomic.write_text(self.record(checksum), json.dumps(content, indent=1) + "\n")

    def entries(self) -> Iterator[CacheEntry]:
        """Yield what this cache made, in the order of the digests."""
        for path in sorted(self.objects.glob("[0-9a-f][0-9a-f]/*.json")):
            entry = self._entry(path)
            if entry is not None:
                yield entry

    def _entry(self, record: Path) -> CacheEntry | None:
        path = record.with_suffix("")
        # A record that cannot be read proves nothing, so that its object is not this cache's to remove.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(record.read_text(encoding="utf-8"))
            checksum = Checksum.parse(content["checksum"])
            state = path.lstat()
            if checksum.hexdigest == path.name and _DIGEST.fullmatch(path.name) and stat.S_ISREG(state.st_mode):
                return CacheEntry(
                    checksum=checksum,
                    size_bytes=state.st_size,
                    path=path,
                    fetched_at=datetime.fromisoformat(content["fetched_at"]),
                    uri=str(content["uri"]),
                )
        return None

    @contextmanager
    def locked(
        self, hexdigest: str, *, wait_seconds: float, on_wait: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Hold the lock on one digest.

        Raises:
            LockedError: Another run held it for longer than ``wait_seconds``.
        """
        path = self._locks / hexdigest
        with atomic.storage_errors("locking", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            deadline = time.monotonic() + wait_seconds
            while not _try_lock(handle):
                if time.monotonic() >= deadline:
                    raise LockedError(
                        f"another run is working on the image {hexdigest[:16]}…",
                        resolution="Wait until it ends, then run again.",
                        context={"digest": hexdigest},
                    )
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                time.sleep(0.1)
            yield
        finally:
            os.close(handle)

    def sweep(self) -> None:
        """Remove what runs that are dead left half-made."""
        for path in self.partial.glob(f"{atomic.PARTIAL_PREFIX}*"):
            named = _PARTIAL.fullmatch(path.name)
            if named is None:
                continue
            with contextlib.suppress(LockedError), self.locked(named[1], wait_seconds=0):
                path.unlink(missing_ok=True)


def fingerprint(state: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file is changed or replaced."""
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def hash_file(
    path: Path, algorithm: str, on_piece: Callable[[int], object] = lambda _: None
) -> tuple[Checksum, tuple[int, ...]]:
    """Hash a file; return its checksum and its fingerprint.

    Raises:
        ImageRefusedError: It is no regular file, or changed while it was read.
        OSError: It cannot be read (a symbolic link among others).
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb", buffering=0) as stream:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise ImageRefusedError(f"{path} is not a regular file")
        digest = hashlib.new(algorithm)
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
            on_piece(len(piece))
        if fingerprint(os.fstat(handle)) != fingerprint(before):
            raise ImageRefusedError(f"{path} changed while it was read", resolution="Run again.")
    return Checksum(algorithm, digest.hexdigest()), fingerprint(before)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
