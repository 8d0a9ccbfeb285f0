# SPDX-License-Identifier: Apache-2.0
"""The publisher ``sftp``: a directory of an SSH server.

An upload goes on where an earlier one was cut off; the file is read back, then renamed to its name, which is free.
Lists are replaced by the rename of POSIX (OpenSSH's extension ``posix-rename@openssh.com``): SFTP's own rename refuses
a name that exists. The server's key must be known beforehand; none is ever taken on first sight.
"""

from __future__ import annotations

import hashlib
import secrets
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from coppice import atomic
from coppice.errors import NoSpaceError, PublicationError
from coppice.imagelist.place import (
    IMAGES_FOLDER,
    NOTES_FOLDER,
    SMALL_LIMIT_BYTES,
    Facts,
    Held,
    Kind,
    file_path,
    is_partial,
    last_component,
    partial_name,
    shown_names,
)
from coppice.imagelist.upload import is_abandoned, owner
from coppice.ssh import Session, Words, login_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from coppice.imagelist.model import ListedImage
    from coppice.monitor import Monitor, Task
    from coppice.settings.driver_options import Options
    from coppice.ssh import Login

_CHUNK_BYTES = 256 * 1024
_PIPELINED_READS = 64
_MODE = 0o644
_WORDS = Words(
    refused=PublicationError,
    again="Publish again",
    whole="what is published stays as it is",
    user="this publisher",
)
_FOLDERS = {Kind.LIST: "", Kind.IMAGE: f"/{IMAGES_FOLDER}", Kind.NOTE: f"/{NOTES_FOLDER}"}


class SftpPlace:
    """A directory of an SSH server.

    Args:
        login: How to get in.
        path: The directory at the server; made when missing, its parent is not.
        url: Under which address subscribers find it.
        reads_back: Images are read back after they were put.
    """

    def __init__(self, login: Login, path: str, url: str, *, reads_back: bool) -> None:
        self._path = path.rstrip("/")
        self._url = url.rstrip("/")
        self._reads_back = reads_back
        self._label = f"sftp://{login.user}@{login.host}:{login.port}{'' if path.startswith('/') else '/'}{self._path}"
        self._session = Session(login, self._label, _WORDS)
        self._made: set[Kind] = set()

    @property
    def label(self) -> str:
        """Return the address of the directory."""
        return self._label

    def prepare(self, files: Mapping[str, Path], monitor: Monitor) -> None:
        """Do nothing: addresses are made of names."""

    def address(self, kind: Kind, name: str) -> str:
        """Return the URI below the one that subscribers read."""
        return f"{self._url}/{quote(file_path(kind, name))}"

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the files of the folder."""
        return shown_names(kind, self._members(kind))

    def meant_by(self, uri: str) -> tuple[str, ...]:
        """Return the last component of ``uri``."""
        return last_component(uri)

    def describe(self, name: str) -> Held | None:
        """Return the size; the stamp is size and date, which the server sets when bytes are written."""
        with suppress(FileNotFoundError), self._session.asked(f"looking at {name}") as sftp:
            found = sftp.stat(self._at(Kind.IMAGE, name))
            return Held(size_bytes=int(found.st_size), stamp=f"{found.st_size}-{found.st_mtime}")
        return None

    def put(self, name: str, source: Path, facts: Facts, image: ListedImage | None, task: Task) -> None:
        """Send a file under a temporary name, read it back, and rename it.

        Raises:
            PublicationError: The server holds other bytes than it was given.
        """
        self._make_folder(Kind.IMAGE)
        temporary, begun = self._taken_over(name, facts)
        for offset in dict.fromkeys((begun, 0)):
            # When what was there is not the beginning of this file, it is sent anew, once.
            self._send(source, temporary, offset, facts, task)
            task.note("verifying")
            if self._is_there(temporary, facts, offset):
                self._show(temporary, name, facts)
                return
        with suppress(FileNotFoundError), self._session.asked(f"removing {temporary}") as sftp:
            sftp.unlink(temporary)
        raise PublicationError(
            f"{self._label} holds other bytes of {name} than it was given",
            resolution="The list was not published. Ask whoever runs the server; a full disk can be the cause.",
            context={"image": name},
        )

    def holds(self, name: str, facts: Facts, task: Task) -> bool:
        """Read the file and compare."""
        return self._facts(self._at(Kind.IMAGE, name)) == facts

    def announce(self, images: Mapping[str, ListedImage]) -> None:
        """Do nothing: the list says it all."""

    def read(self, kind: Kind, name: str) -> bytes | None:
        """Return what is there.

        Raises:
            PublicationError: It is far too large.
        """
        with suppress(FileNotFoundError), self._session.asked(f"reading {name}") as sftp:
            with sftp.open(self._at(kind, name), "rb") as stream:
                stream.prefetch(min(int(stream.stat().st_size), SMALL_LIMIT_BYTES + 1), _PIPELINED_READS)
                data: bytes = stream.read(SMALL_LIMIT_BYTES + 1)
            if len(data) > SMALL_LIMIT_BYTES:
                raise PublicationError(f"{name} at {self._label} is longer than {SMALL_LIMIT_BYTES} bytes")
            return data
        return None

    def replace(self, kind: Kind, name: str, data: bytes) -> None:
        """Write a temporary file, read it back, and rename it over what is there.

        Raises:
            PublicationError: The server holds other bytes than it was given, or has no rename that replaces.
        """
        self._make_folder(kind)
        final = self._at(kind, name)
        temporary = self._beside(final, partial_name(name, secrets.token_hex(6)))
        try:
            with self._session.asked(f"writing {name}") as sftp:
                with sftp.open(temporary, "wb") as stream:
                    stream.set_pipelined(True)
                    stream.write(data)
                sftp.chmod(temporary, _MODE)
                self._compare(sftp, temporary, name, data)
                sftp.posix_rename(temporary, final)
        except (PublicationError, NoSpaceError):
            with suppress(FileNotFoundError), self._session.asked(f"removing {temporary}") as sftp:
                sftp.unlink(temporary)
            raise

    def _compare(self, sftp: Any, temporary: str, name: str, data: bytes) -> None:
        with sftp.open(temporary, "rb") as stream:
            stream.prefetch(len(data), _PIPELINED_READS)
            found = stream.read(len(data) + 1)
        if found != data:
            raise PublicationError(f"{self._label} holds other bytes of {name} than it was given")

    def delete(self, kind: Kind, name: str) -> None:
        """Delete a file."""
        with suppress(FileNotFoundError), self._session.asked(f"removing {name}") as sftp:
            sftp.unlink(self._at(kind, name))

    def sweep(self, *, older_than_seconds: float) -> None:
        """Delete temporary files that were last written to so long ago."""
        now = time.time()
        for kind in Kind:
            for name, modified in self._members(kind).items():
                if is_partial(name) and now - modified >= older_than_seconds:
                    with suppress(FileNotFoundError), self._session.asked(f"removing {name}") as sftp:
                        sftp.unlink(f"{self._folder(kind)}/{name}")

    def close(self) -> None:
        """End the connection."""
        self._session.close()

    def _folder(self, kind: Kind) -> str:
        return f"{self._path}{_FOLDERS[kind]}"

    def _at(self, kind: Kind, name: str) -> str:
        return f"{self._path}/{file_path(kind, name)}"

    @staticmethod
    def _beside(path: str, name: str) -> str:
        return f"{path.rpartition('/')[0]}/{name}"

    def _members(self, kind: Kind) -> dict[str, float]:
        with suppress(FileNotFoundError), self._session.asked(f"listing {self._folder(kind)}") as sftp:
            found = sftp.listdir_attr(self._folder(kind))
            return {each.filename: float(each.st_mtime or 0) for each in found if not _is_directory(each.st_mode)}
        return {}

    def _make_folder(self, kind: Kind) -> None:
        if kind in self._made:
            return
        for folder in dict.fromkeys((self._path, self._folder(kind))):
            try:
                with self._session.asked(f"looking at {folder}") as sftp:
                    sftp.stat(folder)
            except FileNotFoundError:
                self._make(folder)
        self._made.add(kind)

    def _make(self, folder: str) -> None:
        try:
            with self._session.asked(f"making {folder}") as sftp:
                sftp.mkdir(folder)
        except FileNotFoundError as problem:
            raise PublicationError(
                f"{self._label}: the parent of {folder} is missing", resolution="Make it at the server."
            ) from problem
        except PublicationError:
            # Another run may have made it meanwhile: then it is there.
            with self._session.asked(f"looking at {folder}") as sftp:
                sftp.stat(folder)

    def _taken_over(self, name: str, facts: Facts) -> tuple[str, int]:
        """Return a temporary name of this run's own, and how much of the file is under it already.

        Only what a run on this machine left that has ended is taken over, by renaming it: two runs never finish the
        same one, and if they did write to it both, it would be the same bytes to the same places.
        """
        content = facts.sha512[:16]
        own = self._beside(self._at(Kind.IMAGE, name), partial_name(name, f"{content}-{owner()}"))
        start = f"{atomic.PARTIAL_PREFIX}{name}-{content}-"
        for found in sorted(self._members(Kind.IMAGE)):
            token = found.removeprefix(start).removesuffix(atomic.PARTIAL_SUFFIX)
            if found.startswith(start) and is_abandoned(token):
                with suppress(FileNotFoundError), self._session.asked(f"going on with {name}") as sftp:
                    sftp.posix_rename(self._beside(own, found), own)
                    return own, min(int(sftp.stat(own).st_size), facts.size_bytes)
        return own, 0

    def _send(self, source: Path, temporary: str, offset: int, facts: Facts, task: Task) -> None:
        try:
            with (
                self._session.asked(f"writing {temporary}") as sftp,
                sftp.open(temporary, "r+b" if offset else "wb") as writer,
            ):
                writer.set_pipelined(True)
                writer.seek(offset)
                task.reach(offset, facts.size_bytes)
                for chunk in _chunks(source, offset):
                    writer.write(chunk)
                    task.advance(len(chunk))
                writer.truncate(facts.size_bytes)
                writer.chmod(_MODE)
        except FileNotFoundError as problem:
            raise self._lost(temporary) from problem

    def _is_there(self, temporary: str, facts: Facts, offset: int) -> bool:
        try:
            if self._reads_back or offset:
                return self._facts(temporary) == facts
            with self._session.asked(f"looking at {temporary}") as sftp:
                return int(sftp.stat(temporary).st_size) == facts.size_bytes
        except FileNotFoundError as problem:
            raise self._lost(temporary) from problem

    def _facts(self, path: str) -> Facts:
        digest, size = hashlib.sha512(), 0
        with self._session.asked(f"reading {path}") as sftp, sftp.open(path, "rb") as stream:
            stream.prefetch(int(stream.stat().st_size), _PIPELINED_READS)
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        return Facts(size_bytes=size, sha512=digest.hexdigest())

    def _show(self, temporary: str, name: str, facts: Facts) -> None:
        final = self._at(Kind.IMAGE, name)
        try:
            with self._session.asked(f"renaming {name}") as sftp:
                sftp.rename(temporary, final)
        except FileNotFoundError as problem:
            raise self._lost(temporary) from problem
        except PublicationError:
            # SFTP's rename refuses a name that exists: another run may have put the same file.
            with suppress(FileNotFoundError):
                if self._facts(final) == facts:
                    with self._session.asked(f"removing {temporary}") as sftp:
                        sftp.unlink(temporary)
                    return
            raise

    def _lost(self, temporary: str) -> PublicationError:
        return PublicationError(
            f"the upload {temporary} at {self._label} was taken over by another run",
            resolution="Publish again when that has ended.",
        )


def open_sftp(options: Options) -> SftpPlace:
    """Return the place that the options describe.

    Raises:
        SettingsError: One is missing, unknown or of the wrong type.
    """
    place = SftpPlace(
        login_of(options),
        options.text("path"),
        options.text("url"),
        reads_back=options.choice("verify", ("full", "size")) == "full",
    )
    options.finish()
    return place


def _chunks(source: Path, offset: int) -> Iterator[bytes]:
    with atomic.storage_errors("reading", source), source.open("rb") as reader:
        reader.seek(offset)
        while chunk := reader.read(_CHUNK_BYTES):
            yield chunk


def _is_directory(mode: int | None) -> bool:
    return mode is not None and stat.S_ISDIR(mode)
