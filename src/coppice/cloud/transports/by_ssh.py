# SPDX-License-Identifier: Apache-2.0
"""The transport ``ssh``: a directory of the front-end, written over SFTP by a user whom its server knows.

The server's key must be known beforehand. Each offer is a sub-directory of its own; the file is written under another
name and gets its own when all bytes are there. What a killed run left is known by its age alone: no lock reaches over
SFTP.
"""

from __future__ import annotations

import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from coppice.cloud.transports import folder
from coppice.cloud.transports.content import opened, speakable
from coppice.cloud.transports.transport import Offered
from coppice.errors import (
    CloudError,
    CloudQuotaError,
    CloudUnreachableError,
    CoppiceError,
    NoSpaceError,
    TransferError,
)
from coppice.ssh import Session, Words, login_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.cloud.transports.content import Content
    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor
    from coppice.settings.driver_options import Options
    from coppice.ssh import Login

_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
_PIECE_BYTES = 256 * 1024
_IDLE_SECONDS = 20.0
_DAY_SECONDS = 24 * 3600.0
_ENTRIES_LIMIT = 10_000
_WORDS = Words(
    refused=CloudError,
    again="Run again",
    whole="nothing was registered",
    user="this transport",
)


class SshTransport:
    """Writes images into a directory of an SSH server.

    Args:
        login: How to get in.
        directory: At the server; it exists, and the datastore's SAFE_DIRS must allow it.
        sweep_after_seconds: After which what is there is a dead run's: longer than any image is on offer.
    """

    name = "ssh"

    def __init__(self, login: Login, directory: str, *, sweep_after_seconds: float = _DAY_SECONDS) -> None:
        self._login = login
        self._directory = directory.rstrip("/")
        self._label = f"sftp://{login.host}{self._directory}"
        self._sweep_after_seconds = sweep_after_seconds
        self._has_swept = False

    @contextmanager
    def offer(self, converted: ConvertedImage, monitor: Monitor) -> Iterator[Offered]:
        """Have the image in the directory as long as the context is open.

        Raises:
            ChecksumMismatchError: The file is not the one that was converted.
            CloudError: The server refused, is full, cannot be reached, or holds another length than it was given.
            StorageError: The disk of this machine failed.
        """
        place = f"{self._directory}/{folder.offer_name()}"
        disk = folder.disk_name(converted)
        # A session of one's own: several offers go on at once, and one of paramiko's clients is for one thread.
        session = Session(self._login, self._label, _WORDS)
        brought = time.monotonic()
        try:
            with opened(converted) as content, _cloud_errors():
                self._bring(session, content, place, disk, monitor)
            brought = time.monotonic()
            yield Offered(path_or_url=f"{place}/{disk}", checksums=content.checksums, size_bytes=content.size_bytes)
        finally:
            if time.monotonic() - brought > _IDLE_SECONDS:
                # The cloud took its time: the server, or what is between, may have forgotten the connection.
                session.close()
            # What cannot be removed now is swept later: the image's own fate is what the caller wants to know.
            with suppress(CoppiceError):
                _clear(session, place, [disk, disk + folder.PARTIAL_SUFFIX])
                self._sweep_once(session)
            session.close()

    def sweep(self) -> tuple[str, ...]:
        """Remove sub-directories that are older than any offer; return their paths.

        Raises:
            CloudError: The server refused, or cannot be reached.
        """
        session = Session(self._login, self._label, _WORDS)
        try:
            with _cloud_errors():
                return self._swept(session)
        finally:
            session.close()

    def _sweep_once(self, session: Session) -> None:
        """Remove, once a run, what killed runs left."""
        if not self._has_swept:
            self._has_swept = True
            self._swept(session)

    def _swept(self, session: Session) -> tuple[str, ...]:
        removed: list[str] = []
        for entry in _listed(session, self._directory):
            age = time.time() - (entry.st_mtime or time.time())
            is_folder = stat.S_ISDIR(entry.st_mode or 0)
            if is_folder and folder.is_offer(entry.filename) and age > self._sweep_after_seconds:
                place = f"{self._directory}/{entry.filename}"
                _clear(session, place, [each.filename for each in _listed(session, place)])
                removed.append(place)
        return tuple(removed)

    def _bring(self, session: Session, content: Content, place: str, disk: str, monitor: Monitor) -> None:
        final, partial = f"{place}/{disk}", f"{place}/{disk}{folder.PARTIAL_SUFFIX}"
        with session.asked(f"making {place}") as sftp:
            try:
                sftp.mkdir(place, 0o700)
            except FileNotFoundError as problem:
                raise CloudError(
                    f"there is no directory {self._directory} at {self._login.host}",
                    resolution="Make it there, writable for this user, and name it in the datastore's SAFE_DIRS.",
                ) from problem
        with session.asked(f"writing {final}") as sftp, sftp.open(partial, "wxb") as writer:
            writer.set_pipelined(True)
            for piece in content.pieces(monitor, "copy"):
                for at in range(0, len(piece), _PIECE_BYTES):
                    writer.write(piece[at : at + _PIECE_BYTES])
        with session.asked(f"finishing {final}") as sftp:
            # Pipelined writes are answered late: the length says whether all of them were taken.
            there = sftp.stat(partial).st_size
            if there != content.size_bytes:
                raise CloudError(
                    f"{self._label} holds {there} bytes of {content.size_bytes}",
                    resolution="Nothing was registered. A full disk at the server is the most common cause.",
                )
            sftp.chmod(partial, _FILE_MODE)
            sftp.rename(partial, final)
            sftp.chmod(place, _FOLDER_MODE)


@contextmanager
def _cloud_errors() -> Iterator[None]:
    """Say of a server that is part of a cloud what the shared session says of any server."""
    try:
        yield
    except TransferError as problem:
        raise CloudUnreachableError(
            problem.message, details=problem.details, resolution=problem.resolution
        ) from problem
    except NoSpaceError as problem:
        raise CloudQuotaError(problem.message, details=problem.details, resolution=problem.resolution) from problem


def _clear(session: Session, place: str, names: list[str]) -> None:
    for name in names:
        if folder.is_of_offer(name):
            with suppress(FileNotFoundError), session.asked(f"removing {place}/{name}") as sftp:
                sftp.unlink(f"{place}/{name}")
    with suppress(FileNotFoundError), session.asked(f"removing {place}") as sftp:
        sftp.rmdir(place)


def _listed(session: Session, directory: str) -> list[Any]:
    found: list[Any] = []
    with suppress(FileNotFoundError), session.asked(f"reading {directory}") as sftp:
        for entry in sftp.listdir_iter(directory):
            found.append(entry)
            if len(found) > _ENTRIES_LIMIT:
                break
    return sorted(found, key=lambda entry: str(entry.filename))


def open_ssh(options: Options) -> SshTransport:
    """Return the transport that the options describe.

    Raises:
        SettingsError: One is missing or wrong.
    """
    return SshTransport(
        login_of(options),
        speakable(options.text("directory"), "directory"),
        sweep_after_seconds=options.seconds("sweep_after", _DAY_SECONDS),
    )
