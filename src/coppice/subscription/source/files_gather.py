# SPDX-License-Identifier: Apache-2.0
"""Look where the newest image files are, and fetch what vouches for them: checksum file, signature, sizes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coppice.errors import (
    DocumentError,
    HttpStatusError,
    MalformedListError,
    SignatureFormError,
    TransferError,
    UnreachableError,
    UnsignedListError,
)
from coppice.formats.checksum_file import MAX_BYTES, read_checksum_file
from coppice.formats.cleartext import covered_lines, is_cleartext
from coppice.formats.directory_listing import MAX_BYTES as PAGE_BYTES
from coppice.formats.directory_listing import MAX_NAMES, DirectoryListing, checked_name, read_listing
from coppice.formats.openpgp import SIGNATURE_LIMIT_BYTES
from coppice.model.version import Version
from coppice.subscription.source.fetching import is_missing
from coppice.subscription.source.files_images import VERSION, choose
from coppice.subscription.source.files_options import FilesPlace
from coppice.subscription.source.gathered import Document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.formats.checksum_file import SummedFile
    from coppice.subscription.source.fetching import DocumentFetcher
    from coppice.subscription.source.files_options import FilesOptions
    from coppice.subscription.source.pattern import Pattern

CHECKSUMS, SIGNATURE, SIZES = "checksums", "signature", "sizes"
MAX_SIZES = 500
"""Most files whose size is asked for, one by one."""
_LOOKS = 3
_ENDINGS = (".gpg", ".sign", ".asc", ".sig")


class FilesGatherer:
    """Gathers for one subscription.

    Args:
        fetcher: Fetches.
        base: The subscription's address.
        options: What is wanted.
    """

    def __init__(self, fetcher: DocumentFetcher, base: FilesPlace, options: FilesOptions) -> None:
        self._fetcher = fetcher
        self._options = options
        self._base = FilesPlace(base=base.base, below=options.below)

    def documents(self) -> tuple[Document, ...]:
        """Return the checksum file of the newest directory that has a file that is wanted, and its signature.

        Raises:
            TransferError: It could not be found out which that is, or it could not be had.
            UnsignedListError: There is no signature, and there must be one.
            MalformedListError: None of the newest directories has a checksum file with a file that is wanted.
        """
        looked: list[str] = []
        for place in self._places():
            name = self._checksums_name(place)
            data = None if name is None else self._checksums(place.uri(name))
            if name is not None and data is not None:
                choice = choose(self._files(data), self._options)
                if choice.wanted or choice.unclear:
                    return self._together(place, name, data)
            looked.append(place.root)
        raise MalformedListError(
            f"no checksum file with a file that fits the pattern is below {self._base.base}",
            details=f"looked in: {', '.join(looked) or 'no directory fits'}",
            resolution="Correct the options pattern, checksums and directory; or raise max_items.",
        )

    def _together(self, place: FilesPlace, name: str, data: bytes) -> tuple[Document, ...]:
        """Return a checksum file with the signature of the same moment: both may be replaced just now."""
        for _ in range(_LOOKS):
            signature = self._signature(place, name, data)
            if not signature:
                break
            again = self._fetcher.get(place.uri(name), MAX_BYTES).body or b""
            if again == data:
                break
            data = again
        return (Document(name=CHECKSUMS, uri=place.uri(name), data=data), *signature)

    def sizes(self, documents: Iterable[Document]) -> Document:
        """Return the sizes of the files that are wanted and whose size is not signed, as the server tells them.

        Raises:
            TransferError: They could not be found out.
        """
        sums = next(each for each in documents if each.name == CHECKSUMS)
        root = sums.uri.rpartition("/")[0] + "/"
        unknown = [each.file for each in choose(self._files(sums.data), self._options).wanted]
        unknown = [file for file in unknown if not file.size_bytes]
        if len(unknown) > MAX_SIZES:
            raise MalformedListError(
                f"the sizes of {len(unknown)} files would have to be asked for; {MAX_SIZES} are the most",
                resolution="Narrow the option pattern.",
            )
        place = FilesPlace(base=root)
        found = {file.name: self._size(place.uri(file.name)) for file in unknown}
        data = json.dumps({name: size for name, size in found.items() if size}, sort_keys=True).encode("ascii")
        return Document(name=SIZES, uri=root, data=data)

    def _places(self) -> list[FilesPlace]:
        """Return the directories that are looked at, the newest first."""
        pattern = self._options.directory
        if pattern is None:
            return [self._base]
        names = self._listing(FilesPlace(base=self._base.base)).directories
        newest = _newest_first(names, pattern)[: self._options.max_items]
        return [FilesPlace(base=self._base.base, directory=name, below=self._options.below) for name in newest]

    def _checksums_name(self, place: FilesPlace) -> str | None:
        """Return the name of the checksum file; None where there is none."""
        pattern = self._options.checksums_pattern
        if pattern is None:
            return self._options.checksums
        try:
            newest = _newest_first(self._listing(place).files, pattern)
        except (HttpStatusError, UnreachableError) as problem:
            if self._options.directory is not None and is_missing(problem):
                return None
            raise
        return newest[0] if newest else None

    def _checksums(self, uri: str) -> bytes | None:
        """Return a checksum file; None where a directory, of several, has none yet."""
        if self._options.directory is None:
            return self._fetcher.get(uri, MAX_BYTES).body
        return self._fetcher.get_if_there(uri, MAX_BYTES)

    def _files(self, data: bytes) -> tuple[SummedFile, ...]:
        """Read a checksum file before it is judged, to learn whether it is the one, and which sizes it lacks."""
        try:
            return read_checksum_file(b"\n".join(covered_lines(data)) if is_cleartext(data) else data)
        except DocumentError as problem:
            kind = SignatureFormError if is_cleartext(data) else MalformedListError
            raise kind(problem.message, context=problem.context) from problem

    def _signature(self, place: FilesPlace, name: str, data: bytes) -> tuple[Document, ...]:
        """Return the signature beside a checksum file; none where it is signed in itself, or nobody must have."""
        given = self._options.signature
        if not self._options.trust.is_signed or (given is None and is_cleartext(data)):
            return ()
        names = [f"{name}{ending}" for ending in _ENDINGS] if given is None else [given]
        for each in names:
            found = self._fetcher.get_if_there(place.uri(each), SIGNATURE_LIMIT_BYTES)
            if found is not None:
                return (Document(name=SIGNATURE, uri=place.uri(each), data=found),)
        raise UnsignedListError(
            f"there is no signature beside {place.uri(name)}",
            details=f"looked for: {', '.join(names)}",
            resolution="If the publisher signs, name the signature's file with the option signature. If it does not, "
            "it can only be believed by the server's name: --option trust=transport, and no keyring.",
        )

    def _listing(self, place: FilesPlace) -> DirectoryListing:
        if urlsplit(place.root).scheme == "file":
            return _list_folder(_local(place.root))
        try:
            return read_listing(self._fetcher.get(place.root, PAGE_BYTES).body or b"")
        except DocumentError as problem:
            raise MalformedListError(
                f"what is in {place.root} cannot be found out: {problem.message}",
                resolution="Name a directory with a fixed address, and the checksum file by its name.",
            ) from problem

    def _size(self, uri: str) -> int | None:
        """Return a file's size as the server tells it; None where it is not there, or that is not told."""
        if urlsplit(uri).scheme == "file":
            return _file_size(_local(uri))
        self._fetcher.allowance.check()
        try:
            reply = self._fetcher.client.request(
                "HEAD",
                uri,
                expected={200},
                limit_bytes=0,
                credential=self._fetcher.credential,
                server_anchors=self._fetcher.server_anchors,
            )
        except HttpStatusError as problem:
            if is_missing(problem):
                return None
            raise
        told = reply.header("content-length") or ""
        return int(told) if told.isascii() and told.isdecimal() and len(told) < 20 else None  # noqa: PLR2004 - 2⁶³


def _newest_first(names: Iterable[str], pattern: Pattern) -> list[str]:
    """Return the names that fit, the newest first: by the group ``version``, or by the whole name."""
    ranked = []
    for name in names:
        groups = pattern.match_whole(name)
        if groups is not None and Version.is_version(groups.get(VERSION) or name):
            # Of two with one place in the order, which is first must not hang on the page.
            ranked.append((Version(groups.get(VERSION) or name), name))
    return [name for _, name in sorted(ranked, reverse=True)]


def _local(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _list_folder(path: Path) -> DirectoryListing:
    directories: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if checked_name(entry.name) is not None:
                    (directories if entry.is_dir() else files).append(entry.name)
                if len(directories) + len(files) > MAX_NAMES:
                    raise TransferError(f"the folder {path} has more than {MAX_NAMES} names")
    except OSError as problem:
        raise UnreachableError(f"the folder {path} cannot be read: {problem.strerror}") from problem
    return DirectoryListing(directories=tuple(sorted(directories)), files=tuple(sorted(files)))


def _file_size(path: Path) -> int | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise UnreachableError(f"the file {path} cannot be looked at: {problem}") from problem
    return found.st_size if stat.S_ISREG(found.st_mode) else None
