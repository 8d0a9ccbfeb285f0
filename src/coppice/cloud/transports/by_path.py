# SPDX-License-Identifier: Apache-2.0
"""The transport ``path``: a directory that this machine and the front-end share, or both of which are one machine.

Each offer is a sub-directory of its own, with the image as a hard link where the file system and the permissions that
are asked for allow it, else as a copy. The sub-directory holds a lock for as long as it is offered, by which a later
run knows what a killed one left.
"""

from __future__ import annotations

import fcntl
import grp
import os
import shutil
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cloud.transports import folder
from coppice.cloud.transports.content import opened, speakable
from coppice.cloud.transports.transport import Offered
from coppice.errors import CoppiceError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.cloud.transports.content import Content
    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor
    from coppice.settings.driver_options import Options

_BLOCK_BYTES = 64 * 1024
_ZEROES = bytes(_BLOCK_BYTES)
_FOR_ALL, _FOR_GROUP = (0o755, 0o644), (0o750, 0o640)


class PathTransport:
    """Puts images into a directory.

    Args:
        directory: Where this machine has it; the datastore's SAFE_DIRS must allow it.
        front_end_directory: How the front-end calls it.
        group: Who may read besides; None: everybody.
        links: Whether hard links are made where they can be.
    """

    name = "path"

    def __init__(
        self, directory: Path, front_end_directory: str, *, group: int | None = None, links: bool = True
    ) -> None:
        self.directory = directory
        self._front_end_directory = front_end_directory.rstrip("/")
        self._group = group
        self._links = links
        self._has_swept = False

    @contextmanager
    def offer(self, converted: ConvertedImage, monitor: Monitor) -> Iterator[Offered]:
        """Have the image below the directory as long as the context is open.

        Raises:
            ChecksumMismatchError: The file is not the one that was converted.
            NoSpaceError: The disk is full.
            StorageError: The file system failed otherwise.
        """
        with self._swept_afterwards(), opened(converted) as content, self._place() as place:
            disk = place / folder.disk_name(converted)
            if self._links and self._link(converted, content, disk):
                content.check(monitor)
            else:
                self._copy(content, disk, monitor)
            self._settle(place, disk)
            yield Offered(
                path_or_url=f"{self._front_end_directory}/{place.name}/{disk.name}",
                checksums=content.checksums,
                size_bytes=content.size_bytes,
            )

    def sweep(self) -> tuple[str, ...]:
        """Remove the sub-directories whose run is dead; return their paths.

        Raises:
            StorageError: The directory could not be read.
        """
        removed: list[str] = []
        if not self.directory.is_dir():
            return ()
        with atomic.storage_errors("reading", self.directory):
            found = sorted(path for path in self.directory.iterdir() if folder.is_offer(path.name))
        for path in found:
            if not path.is_symlink() and path.is_dir() and _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(str(path))
        return tuple(removed)

    @contextmanager
    def _swept_afterwards(self) -> Iterator[None]:
        """Remove, once a run, what killed runs left; what a front-end still copies of it, it has open."""
        yield
        if not self._has_swept:
            self._has_swept = True
            with suppress(CoppiceError):
                self.sweep()

    @contextmanager
    def _place(self) -> Iterator[Path]:
        place = self.directory / folder.offer_name()
        with atomic.storage_errors("writing", self.directory):
            place.mkdir(mode=0o700)
        try:
            with atomic.storage_errors("writing", place):
                lock = os.open(place / folder.LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with atomic.storage_errors("locking", place):
                    # Held by the kernel until this process lets go of it, whatever becomes of it.
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Outside of the words for the disk's errors: what fails in the block that uses it is not the disk's.
                yield place
            finally:
                os.close(lock)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _link(self, converted: ConvertedImage, content: Content, disk: Path) -> bool:
        status = os.fstat(content.handle)
        # The mode of a hard link is the original's: what asks for another must be a copy.
        if self._group is not None or stat.S_IMODE(status.st_mode) & _FOR_ALL[1] != _FOR_ALL[1]:
            return False
        with suppress(OSError):
            os.link(converted.path, disk, follow_symlinks=False)
            linked = disk.lstat()
            if (linked.st_dev, linked.st_ino) == (status.st_dev, status.st_ino):
                return True
            disk.unlink()
        return False

    def _copy(self, content: Content, disk: Path, monitor: Monitor) -> None:
        partial = disk.with_name(disk.name + folder.PARTIAL_SUFFIX)
        with atomic.storage_errors("writing", partial), partial.open("xb") as writer:
            for piece in content.pieces(monitor, "copy"):
                for at in range(0, len(piece), _BLOCK_BYTES):
                    block = piece[at : at + _BLOCK_BYTES]
                    if block == _ZEROES[: len(block)]:
                        writer.seek(len(block), os.SEEK_CUR)
                    else:
                        writer.write(block)
            writer.truncate()
            writer.flush()
            os.fchmod(writer.fileno(), 0o600)
            partial.rename(disk)

    def _settle(self, place: Path, disk: Path) -> None:
        for_folder, for_file = _FOR_ALL if self._group is None else _FOR_GROUP
        with atomic.storage_errors("giving permissions to", place):
            is_link = disk.lstat().st_nlink > 1
            for path, mode in ((disk, for_file), (place, for_folder)):
                if path is disk and is_link:
                    continue
                if self._group is not None:
                    os.chown(path, -1, self._group, follow_symlinks=False)
                path.chmod(mode)


def _is_abandoned(place: Path) -> bool:
    try:
        with (place / folder.LOCK).open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        with suppress(OSError):
            return time.time() - place.lstat().st_mtime > folder.ABANDONED_SECONDS
        return False
    except OSError:
        # It is held, or another user's: neither is ours to remove.
        return False


def open_path(options: Options) -> PathTransport:
    """Return the transport that the options describe.

    Raises:
        SettingsError: One is missing or wrong.
    """
    directory = options.path("directory")
    name = options.optional_text("group")
    return PathTransport(
        directory,
        speakable(options.text("front_end_directory", str(directory)), "front_end_directory"),
        group=None if name is None else _group(name),
        links=options.switch("link", default=True),
    )


def _group(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as problem:
        raise SettingsError(
            f"the option `group`: there is no group {name!r} on this machine",
            resolution="Name the group that OpenNebula's `oneadmin` is in, or leave the option away.",
        ) from problem
