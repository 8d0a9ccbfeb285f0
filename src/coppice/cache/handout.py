# SPDX-License-Identifier: Apache-2.0
"""Hand out: a verified object under a name that hooks know, without a second copy of its bytes where that is possible.

First as a reflink (bytes of its own, shared until one side changes them), then as a hard link, last as a copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.objects import PIECE_BYTES, fingerprint, is_same_content, listing
from coppice.digests import new_digest
from coppice.errors import ChecksumMismatchError, ImageRefusedError
from coppice.model.identifiers import ImageKey, is_uuid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from coppice.cache.model import CachedImage
    from coppice.cache.objects import CacheEntry
    from coppice.cache.shelf import Shelf

_FICLONE = 0x40049409
"""ioctl of Linux (``linux/fs.h``): share all extents of a file."""
_EXPIRED = re.compile(r"[0-9a-fA-F-]{36,64}\.(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:\.\d+)?", re.ASCII)
_TRIES = 5
_INSTANT = "%Y-%m-%d_%H-%M-%S"


def name_of(key: ImageKey, others: Iterable[tuple[ImageKey, str]]) -> str:
    """Return under which name an image is handed out: its identifier where that is a UUID and nobody else's name.

    Otherwise it is made of a digest, so that no text of a list ever becomes part of a path; two that differ in case
    only do not meet on a file system that takes them for one.

    Args:
        key: Which image.
        others: Other images, each with its name.
    """
    identifier = key.image_identifier
    taken = {name.casefold() for other, name in others if other != key}
    if is_uuid(identifier) and identifier.casefold() not in taken:
        return identifier
    text = f"{key.list_identifier}\0{identifier}".encode("utf-8", errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()[:40]


class HandOut:
    """The two folders that hooks of the old kind read: what is handed out, and what was until lately.

    Args:
        shelf: Of the cache.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.directory = shelf.layout.handed_out
        self.expired = shelf.layout.expired

    def give(self, cached: CachedImage, name: str) -> tuple[int, ...]:
        """Put an image's published file there; what is there under that name is replaced in one step.

        Returns:
            What `is_as_given` is asked with later: the inode of the object, and the state of the file where it is one
            of its own.

        Raises:
            ChecksumMismatchError: The file was altered since it was verified.
            StorageError: The disk failed.
        """
        destination = self.directory / name
        with self._shelf.locked(cached.checksum, wait_seconds=60.0):
            before = self._verified(cached)
            with atomic.storage_errors("handing out", destination):
                self.directory.mkdir(parents=True, exist_ok=True)
                # One run at a time hands out, so whoever left one of this name is dead.
                atomic.sweep_partials(self.directory, older_than_seconds=0, of=name)
                temporary = atomic.partial_path(destination)
                try:
                    is_own = _reflink(cached.path, temporary)
                    if not is_own and not _hard_link(cached.path, temporary):
                        _copy(cached, temporary)
                        is_own = True
                    self._state(cached, but_links=before)
                    temporary.replace(destination)
                    given = (before[1], *(fingerprint(destination.lstat()) if is_own else ()))
                    atomic.fsync_directory(self.directory)
                finally:
                    temporary.unlink(missing_ok=True)
            self._shelf.linked(cached.checksum, before)
        return given

    def is_as_given(self, name: str, given: tuple[int, ...], entry: CacheEntry) -> bool:
        """Tell whether what is handed out under that name is what was, of the same object; no bytes are read."""
        with contextlib.suppress(OSError):
            there, kept = (self.directory / name).lstat(), entry.path.lstat()
            if not stat.S_ISREG(there.st_mode) or not given or given[0] != kept.st_ino:
                return False
            if len(given) == 1:
                return (there.st_dev, there.st_ino) == (kept.st_dev, kept.st_ino)
            return fingerprint(there) == given[1:]
        return False

    def take_back(self, name: str, now: datetime) -> Path | None:
        """Move what is handed out under that name to the expired files; None: nothing is.

        Raises:
            StorageError: The disk failed.
        """
        source = self.directory / name
        target = self.expired / f"{name}.{now.strftime(_INSTANT)}"
        with atomic.storage_errors("taking back", source):
            if not os.path.lexists(source):
                return None
            self.expired.mkdir(parents=True, exist_ok=True)
            count = 0
            while os.path.lexists(target):
                count += 1
                target = self.expired / f"{name}.{now.strftime(_INSTANT)}.{count}"
            source.rename(target)
            atomic.fsync_directory(self.directory)
            atomic.fsync_directory(self.expired)
        return target

    def prune(self, *, taken_back_before: datetime) -> tuple[Path, ...]:
        """Remove expired files that were taken back before that; only names that `take_back` makes are touched.

        Raises:
            StorageError: The disk failed.
        """
        removed = []
        for path in listing(self.expired):
            named = _EXPIRED.fullmatch(path.name)
            if named is None or not _instant(named[1]) < taken_back_before:
                continue
            with contextlib.suppress(FileNotFoundError), atomic.storage_errors("removing", path):
                if stat.S_ISREG(path.lstat().st_mode):
                    path.unlink()
                    removed.append(path)
        return tuple(removed)

    def _verified(self, cached: CachedImage) -> tuple[int, ...]:
        """Return the state of an object that is as it was verified.

        A cloud may link to it at any time, whoever holds the lock; that looks like a change, so it is read again.
        """
        for _ in range(_TRIES):
            expected = self._shelf.state_of(cached.checksum)
            state = fingerprint(cached.path.lstat()) if os.path.lexists(cached.path) else ()
            if state == expected or not is_same_content(expected, state):
                break
            self._shelf.rehash(cached.checksum)
        return self._state(cached)

    def _state(self, cached: CachedImage, but_links: tuple[int, ...] = ()) -> tuple[int, ...]:
        state = fingerprint(cached.path.lstat()) if os.path.lexists(cached.path) else ()
        expected = self._shelf.state_of(cached.checksum)
        # A link changes the last of the times, and nothing else.
        if state == expected or (but_links and state[:4] == but_links[:4]):
            return state
        raise ChecksumMismatchError(
            f"the cached file of image {cached.key} was altered after it was verified",
            resolution="It is not handed out. Run again: the cache fetches it anew. Find out who writes to the cache.",
            context={"image": str(cached.key), "path": str(cached.path)},
        )


def _instant(text: str) -> datetime:
    try:
        return datetime.strptime(text, _INSTANT).replace(tzinfo=UTC)
    except ValueError:
        # No such day: nothing that was made here.
        return datetime.max.replace(tzinfo=UTC)


def _reflink(source: Path, destination: Path) -> bool:
    try:
        with source.open("rb") as origin:
            handle = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with os.fdopen(handle, "wb") as made:
                fcntl.ioctl(made, _FICLONE, origin.fileno())
                os.fsync(made)
    except OSError:
        destination.unlink(missing_ok=True)
        return False
    return True


def _hard_link(source: Path, destination: Path) -> bool:
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError:
        return False
    return True


def _copy(cached: CachedImage, destination: Path) -> None:
    digest = new_digest(cached.checksum.algorithm)
    handle = os.open(cached.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    made = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(handle, "rb", buffering=0) as source, os.fdopen(made, "wb") as sink:
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            sink.write(piece)
        sink.flush()
        os.fsync(sink)
    if digest.hexdigest() != cached.checksum.hexdigest:
        raise ImageRefusedError(f"{cached.path} changed while it was copied", resolution="Run again.")
