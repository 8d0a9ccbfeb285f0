# SPDX-License-Identifier: Apache-2.0
"""Files of the cache by their content: names, records beside them, hashing of an open file.

An object is a read-only file ``objects/<aa>/<sha512>``, where ``aa`` are the digest's first two digits. The record
``<sha512>.json`` beside it says that this cache made it; a file without a record is somebody else's, and is never
removed. Nothing that a list or a server says becomes part of a name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice import atomic
from coppice.cache.model import Held
from coppice.clock import require_aware, to_rfc3339
from coppice.digests import new_digest
from coppice.errors import ImageRefusedError
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from coppice.model.identifiers import ImageKey

PIECE_BYTES = 1024 * 1024
ALGORITHM = "sha512"
"""What the cache keys by, whatever a list has."""
MAX_RECORD_BYTES = 64 * 1024
MAX_ANSWERS = 20
MAX_IMAGE_TEXT = 200
_DIGEST = re.compile(r"[0-9a-f]{128}")
_SHELF = re.compile(r"[0-9a-f]{2}")
_SETTLED_NS = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """An object of the cache, as its record has it.

    Attributes:
        checksum: sha512 of its bytes.
        size_bytes: Its length.
        path: The file.
        fetched_at: When it came; aware, UTC.
        uri: Where it came from.
        held: Which bytes of an image these are.
        also: Digests of the same bytes by other algorithms.
        answers: Checksums of published files, as lists have them, in whose stead these bytes were used.
        images: Of which images (``list/image``) they were a version.
        fingerprint: State of the file when its bytes were verified last; empty where that is not known.
    """

    checksum: Checksum
    size_bytes: int
    path: Path
    fetched_at: datetime
    uri: str
    held: Held = Held.PUBLISHED
    also: tuple[Checksum, ...] = ()
    answers: tuple[Checksum, ...] = ()
    images: tuple[str, ...] = ()
    fingerprint: tuple[int, ...] = ()

    def has(self, checksum: Checksum) -> bool:
        """Tell whether these bytes are known to have that checksum."""
        return checksum == self.checksum or checksum in self.also

    def is_untouched(self) -> bool:
        """Tell whether the file is in the state in which its bytes were verified last; nothing of it is read."""
        with contextlib.suppress(OSError):
            return bool(self.fingerprint) and fingerprint(self.path.lstat()) == self.fingerprint
        return False


class Layout:
    """Where things are below the cache's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.objects = directory / "objects"
        self.partial = directory / "partial"
        self.quarantine = directory / "quarantine"
        self.locks = directory / "locks"
        self.handed_out = directory / "handed-out"
        self.expired = directory / "expired"
        self._shelves: dict[str, tuple[int, tuple[CacheEntry, ...]]] = {}

    def path(self, checksum: Checksum) -> Path:
        """Return where the bytes with that sha512 are, or would be."""
        return self.objects / checksum.hexdigest[:2] / checksum.hexdigest

    def record(self, checksum: Checksum) -> Path:
        """Return where the record of an object is, or would be."""
        return self.path(checksum).with_suffix(".json")

    def partial_path(self, checksum: Checksum) -> Path:
        """Return where a wanted file is gathered; one for each digest, so that what is there is taken up."""
        return self.partial / f"{checksum.algorithm}-{checksum.hexdigest}{atomic.PARTIAL_SUFFIX}"

    def write_record(self, entry: CacheEntry) -> None:
        """Say that this cache made an object, and what is known of it; the caller holds the lock on the object."""
        content = {
            "checksum": str(entry.checksum),
            "size_bytes": entry.size_bytes,
            "fetched_at": to_rfc3339(entry.fetched_at),
            "uri": entry.uri,
            "held": str(entry.held),
            "also": [str(each) for each in entry.also],
            "answers": [str(each) for each in entry.answers],
            "images": list(entry.images),
            "fingerprint": list(entry.fingerprint),
        }
        record = self.record(entry.checksum)
        # The lock is held, so whoever left the half of one is dead.
        atomic.sweep_partials(record.parent, older_than_seconds=0, of=record.name)
        atomic.write_text(record, json.dumps(content, indent=1) + "\n")

    def entry(self, checksum: Checksum) -> CacheEntry | None:
        """Return the object with that sha512, if this cache made it and it is a file."""
        return read_record(self.record(checksum))

    def entries(self) -> Iterator[CacheEntry]:
        """Yield what this cache made, in the order of the digests; a folder is read again only when it changed.

        Raises:
            StorageError: The cache's directory cannot be read.
        """
        for folder in listing(self.objects):
            yield from self._shelf(folder)

    def find(self, checksum: Checksum) -> CacheEntry | None:
        """Return the object that is known to have that checksum, by whatever algorithm."""
        if checksum.algorithm == ALGORITHM:
            return self.entry(checksum)
        return next((entry for entry in self.entries() if entry.has(checksum)), None)

    def foreign(self) -> tuple[Path, ...]:
        """Return what lies among the objects and is none of this cache's.

        Raises:
            StorageError: The cache's directory cannot be read.
        """
        found: list[Path] = []
        for folder in listing(self.objects):
            with atomic.storage_errors("looking at", folder):
                is_shelf = _is_shelf(folder)
            if not is_shelf:
                found.append(folder)
                continue
            own = {entry.path for entry in self._shelf(folder)}
            own |= {path.with_suffix(".json") for path in own}
            for path in listing(folder):
                # A record whose object did not come yet, and a file that is being written, are this cache's.
                is_record = path.suffix == ".json" and _DIGEST.fullmatch(path.stem) and not path.is_symlink()
                if path not in own and not is_record and not path.name.startswith(atomic.PARTIAL_PREFIX):
                    found.append(path)
        return tuple(found)

    def _shelf(self, folder: Path) -> tuple[CacheEntry, ...]:
        try:
            changed = folder.lstat().st_mtime_ns
            if not _is_shelf(folder):
                return ()
            known = self._shelves.get(folder.name)
            if known is not None and known[0] == changed:
                return known[1]
            found = tuple(
                entry
                for path in sorted(folder.iterdir())
                if path.suffix == ".json" and (entry := read_record(path)) is not None
            )
            # What changes within the clock's grain after a look would not show; such a look is not kept.
            if time.time_ns() - changed > _SETTLED_NS:
                self._shelves[folder.name] = (changed, found)
        except OSError:
            return ()
        return found


def listing(folder: Path) -> list[Path]:
    """Return what lies in a folder, in order; nothing where there is no such folder.

    Raises:
        StorageError: That cannot be found out.
    """
    with atomic.storage_errors("listing", folder):
        return sorted(folder.iterdir()) if os.path.lexists(folder) else []


def read_record(record: Path) -> CacheEntry | None:
    """Return what a record says of its object; None when it cannot be read, or the object is not there.

    A record that cannot be read proves nothing, so that its object is not this cache's to remove.
    """
    path = record.with_suffix("")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if not _DIGEST.fullmatch(path.name) or not stat.S_ISREG(path.lstat().st_mode):
            return None
        handle = os.open(record, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as stream:
            content = json.loads(stream.read(MAX_RECORD_BYTES))
        checksum = Checksum.parse(content["checksum"])
        if (checksum.algorithm, checksum.hexdigest) != (ALGORITHM, path.name):
            return None
        return CacheEntry(
            checksum=checksum,
            size_bytes=int(content["size_bytes"]),
            path=path,
            fetched_at=require_aware(datetime.fromisoformat(content["fetched_at"])),
            uri=str(content["uri"]),
            held=Held(content.get("held", Held.PUBLISHED)),
            also=tuple(Checksum.parse(each) for each in content.get("also", ())),
            answers=tuple(Checksum.parse(each) for each in content.get("answers", ())),
            images=tuple(str(each) for each in content.get("images", ())),
            fingerprint=tuple(int(each) for each in content.get("fingerprint", ())),
        )
    return None


def answering(entry: CacheEntry, key: ImageKey, listed: Checksum, also: Iterable[Checksum] = ()) -> CacheEntry:
    """Return the record's content with what is newly known of the same bytes; the oldest of it gives way."""
    digests = {each for each in (*entry.also, *also) if each.algorithm != ALGORITHM}
    image = str(key)[:MAX_IMAGE_TEXT]
    answers = entry.answers if listed in entry.answers else (*entry.answers, listed)[-MAX_ANSWERS:]
    images = entry.images if image in entry.images else (*entry.images, image)[-MAX_ANSWERS:]
    return replace(entry, also=tuple(sorted(digests, key=str)), answers=answers, images=images)


def public_uri(uri: str) -> str:
    """Return an address without user and password, which are secrets."""
    try:
        parts = urlsplit(uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return ""


def fingerprint(state: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file is changed or replaced: device, inode, size, and two times in ns."""
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def is_same_content(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Tell whether a file was merely renamed or linked between two fingerprints: all but the last time is the same."""
    return bool(before) and before[:4] == after[:4]


def hash_file(
    path: Path, algorithms: Iterable[str], on_piece: Callable[[int], object] = lambda _: None
) -> tuple[dict[str, Checksum], tuple[int, ...]]:
    """Hash a file; return its checksums by algorithm, and its fingerprint.

    Raises:
        ImageRefusedError: It is no regular file, or changed while it was read.
        OSError: It cannot be read (a symbolic link among others).
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb", buffering=0) as stream:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise ImageRefusedError(f"{path} is not a regular file")
        digests = {algorithm: new_digest(algorithm) for algorithm in algorithms}
        while piece := stream.read(PIECE_BYTES):
            for digest in digests.values():
                digest.update(piece)
            on_piece(len(piece))
        # A link that comes or goes meanwhile changes the last time alone; what is returned then holds no more.
        if not is_same_content(fingerprint(before), fingerprint(os.fstat(handle))):
            raise ImageRefusedError(f"{path} changed while it was read", resolution="Run again.")
    found = {algorithm: Checksum(algorithm, digest.hexdigest()) for algorithm, digest in digests.items()}
    return found, fingerprint(before)


def _is_shelf(folder: Path) -> bool:
    return _SHELF.fullmatch(folder.name) is not None and stat.S_ISDIR(folder.lstat().st_mode)
