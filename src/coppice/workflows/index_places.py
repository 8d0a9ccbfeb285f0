# SPDX-License-Identifier: Apache-2.0
"""Where the indices of package repositories are, on the web or in a folder, and what is kept of them between runs."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coppice import atomic
from coppice.errors import (
    ChecksumMismatchError,
    DocumentError,
    HttpStatusError,
    StorageError,
    UnreadableFileError,
)
from coppice.http import Client, Validators
from coppice.model.checksum import Checksum
from coppice.workflows.packed_index import PACKED_LIMIT_BYTES

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.settings.model import Settings

FETCH_SECONDS = 600.0
INDEX_LIMIT_BYTES = 4 * 1024 * 1024
_LOCAL = re.compile(r"(?:file|copy):(?://(?=/))?(/.*)")
_NOT_THERE = (404, 410)


def client_of_mirrors(settings: Settings, clock: Clock) -> Client:
    """Return what asks mirrors of package repositories."""
    # Addresses come from the settings or the distribution, and from nobody else: they may be on a private network, as
    # they may be for the package manager of a build. Private or not, what comes from there has to be vouched for.
    bounds = replace(
        settings.transfer,
        total_timeout_seconds=min(FETCH_SECONDS, settings.transfer.total_timeout_seconds),
        allow_private_addresses=True,
    )
    return Client(bounds, clock=clock)


def shelf_name(address: str) -> str:
    """Return what a repository at ``address`` is called for good: its user information and last slashes may change."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return f"{address.rstrip('/')}/"
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2].lower()}{slash}{path}".rstrip("/") + "/"


class Place(Protocol):
    """Where the files of a repository are."""

    def index(self, shelf: Shelf) -> tuple[bytes, Validators]:
        """Return the index, not yet verified.

        Raises:
            TransferError: It could not be had.
            UnreadableFileError: Likewise.
        """
        ...

    def file(self, path: str, limit_bytes: int) -> bytes:
        """Return the file at ``path``, not yet verified.

        Raises:
            TransferError: It could not be had.
            UnreadableFileError: Likewise.
        """
        ...

    def optional_file(self, path: str, limit_bytes: int) -> bytes | None:
        """Return the file at ``path``, not yet verified; None: there is none.

        Raises:
            TransferError: Whether there is one could not be found out.
            UnreadableFileError: Likewise.
        """
        ...


def place_at(address: str, client: Client, *, index: str) -> Place:
    """Return where the files of the repository at ``address`` are; ``index`` is the path of its index there."""
    local = _LOCAL.fullmatch(address)
    base = address.rstrip("/")
    return _Web(client, base, index) if local is None else _Folder(Path(local[1]), index)


class _Web:
    def __init__(self, client: Client, base: str, index: str) -> None:
        self._client, self._base, self._index = client, base, index

    def index(self, shelf: Shelf) -> tuple[bytes, Validators]:
        kept = shelf.document()
        fetched = self._client.get_if_changed(
            f"{self._base}/{self._index}",
            limit_bytes=INDEX_LIMIT_BYTES,
            validators=shelf.validators() if kept is not None else None,
        )
        return (kept if fetched.body is None and kept is not None else fetched.body or b""), fetched.validators

    def file(self, path: str, limit_bytes: int) -> bytes:
        return self._client.get_bytes(f"{self._base}/{path}", limit_bytes=limit_bytes)

    def optional_file(self, path: str, limit_bytes: int) -> bytes | None:
        try:
            return self.file(path, limit_bytes)
        except HttpStatusError as problem:
            if problem.context.get("status") in _NOT_THERE:
                return None
            raise


class _Folder:
    def __init__(self, path: Path, index: str) -> None:
        self._path, self._index = path, index

    def index(self, shelf: Shelf) -> tuple[bytes, Validators]:
        del shelf
        return self.file(self._index, INDEX_LIMIT_BYTES), Validators()

    def file(self, path: str, limit_bytes: int) -> bytes:
        try:
            with (self._path / path).open("rb") as stream:
                return stream.read(limit_bytes + 1)
        except OSError as problem:
            raise UnreadableFileError(
                f"cannot read {self._path / path}: {problem.strerror}",
                resolution="Set `factory.mirror` to where the packages are.",
                context={"path": str(self._path / path)},
            ) from problem

    def optional_file(self, path: str, limit_bytes: int) -> bytes | None:
        try:
            return self.file(path, limit_bytes)
        except UnreadableFileError as problem:
            if isinstance(problem.__cause__, FileNotFoundError):
                return None
            raise


class Shelf:
    """What is kept of a repository between runs: the index that was verified last, and what it vouches for.

    Args:
        state_directory: Of the site.
        name: Of the repository: no other has it.
        index: File name of its index.
    """

    def __init__(self, state_directory: Path, name: str, *, index: str) -> None:
        self._folder = state_directory / "factory" / "indices" / hashlib.sha256(name.encode()).hexdigest()[:32]
        self._index = index

    @property
    def facts_path(self) -> Path:
        """The file in which is noted what was seen of it."""
        return self._folder / "facts.json"

    def document(self) -> bytes | None:
        """Return the index that was verified last; None: there is none."""
        return self._bytes(self._index, INDEX_LIMIT_BYTES)

    def validators(self) -> Validators:
        """Return what tells whether it is still the same at its server."""
        return Validators(etag=self.fact("etag"), last_modified=self.fact("last_modified"))

    def fact(self, name: str) -> str | None:
        """Return what is noted of it; None: nothing is."""
        return self._facts().get(name)

    def packed(self, digest: str) -> bytes | None:
        """Return a file that it vouches for; None: it is not kept."""
        return self._bytes(digest, PACKED_LIMIT_BYTES)

    def put(self, digest: str, content: bytes) -> None:
        """Keep such a file."""
        atomic.write_bytes(self._folder / digest, content)

    def note(self, **facts: str) -> None:
        """Note what is verified of an index before all that it vouches for is read; the index itself is not kept."""
        noted = {**self._facts(), **facts}
        if noted != self._facts():
            atomic.write_text(self.facts_path, json.dumps(noted) + "\n")

    def keep(self, document: bytes, validators: Validators, digests: set[str], **facts: str) -> None:
        """Keep an index that was verified, and of the files those of these ``digests`` alone."""
        atomic.write_bytes(self._folder / self._index, document)
        noted = {**facts, "etag": validators.etag, "last_modified": validators.last_modified}
        atomic.write_text(self.facts_path, json.dumps(noted) + "\n")
        for path in self._folder.iterdir():
            if path.name not in {self._index, self.facts_path.name, *digests} and not path.name.startswith("."):
                with atomic.storage_errors("removing", path):
                    path.unlink(missing_ok=True)

    def _facts(self) -> dict[str, str]:
        content = self._bytes(self.facts_path.name, INDEX_LIMIT_BYTES)
        try:
            found = json.loads(content or b"{}")
        except ValueError:
            return {}
        return {key: each for key, each in found.items() if isinstance(each, str)} if isinstance(found, dict) else {}

    def _bytes(self, name: str, limit_bytes: int) -> bytes | None:
        path = self._folder / name
        try:
            with atomic.storage_errors("reading", path), path.open("rb") as stream:
                return stream.read(limit_bytes + 1)
        except StorageError as problem:
            if isinstance(problem.__cause__, FileNotFoundError):
                return None
            raise


def vouched_bytes(
    place: Place, shelf: Shelf, where: str, checksum: Checksum, size_bytes: int | None, *, what: str
) -> bytes:
    """Return a file for which an index vouches: the one that is kept, or the one that is there now.

    Args:
        place: Where the repository is.
        shelf: What is kept of it.
        where: Path of the file.
        checksum: Of its bytes.
        size_bytes: Its length; None: it is not said.
        what: Names the file in errors.

    Raises:
        DocumentError: It is longer than any is read.
        ChecksumMismatchError: What is there is another.
        TransferError: It could not be had.
        UnreadableFileError: Likewise.
    """

    def is_it(content: bytes) -> bool:
        return size_bytes in {None, len(content)} and checksum.matches(Checksum.of(content, checksum.algorithm))

    content = shelf.packed(checksum.hexdigest)
    if content is not None and is_it(content):
        return content
    limit = PACKED_LIMIT_BYTES if size_bytes is None else size_bytes
    if limit > PACKED_LIMIT_BYTES:
        raise DocumentError(f"{what} has {limit} bytes, and {PACKED_LIMIT_BYTES} are read at most")
    content = place.file(where, limit)
    if not is_it(content):
        raise ChecksumMismatchError(
            f"{what} is not what the index vouches for",
            details=f"vouched for: {'any number of' if size_bytes is None else size_bytes} bytes, {checksum}\n"
            f"found:       {len(content)} bytes, {Checksum.of(content, checksum.algorithm)}",
            resolution="The mirror is being written, or is damaged: try again later.",
        )
    shelf.put(checksum.hexdigest, content)
    return content
