# SPDX-License-Identifier: Apache-2.0
"""``coppice-bundle-1``: signed lists and image files in one file, for sites without a network (docs/formats/bundle.md).

An uncompressed tar archive of regular files. The first is a manifest (JSON) that says what the others are, in their
order; the last has the manifest's checksum. Readers make each header anew from the manifest and compare: what is in the
archive is that, byte for byte, or it is refused. No name in it becomes a path.

The manifest vouches for nothing. Lists are judged by whom their subscriptions trust, files by the checksums that those
lists sign.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from coppice.clock import to_rfc3339
from coppice.errors import BundleError, DocumentError
from coppice.formats.fields import read_instant
from coppice.formats.strict_json import read_json
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Range = tuple[int, int]

BUNDLE_FORMAT = "coppice-bundle-1"
MANIFEST_NAME = "manifest.json"
END_NAME = "end"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_LISTS = 1000
MAX_FILES = 20_000
MAX_RANGES = 200_000
"""Of all files together."""
MAX_FILE_BYTES = 16 * 1024**4
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_PIECE_BYTES = 1024 * 1024
_TEXT_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledList:
    """A signed list in a bundle.

    Attributes:
        driver: Of the kind of source that it came from.
        uri: Address of that source.
        list_identifier: What the list calls itself; to find subscriptions by, not to believe.
        version: Its version, likewise.
        size_bytes: Of the message.
        content: Checksum of the message.
    """

    driver: str
    uri: str
    list_identifier: str
    version: str
    size_bytes: int
    content: Checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledFile:
    """A file, or parts of one.

    Attributes:
        checksums: Of the whole file, by one algorithm or several.
        whole_bytes: Length of the whole file.
        ranges: Which parts of it are carried, in order; None: all of it.
        size_bytes: Of what is carried.
        content: Checksum (sha512) of what is carried.
    """

    checksums: tuple[Checksum, ...]
    whole_bytes: int
    ranges: tuple[Range, ...] | None
    size_bytes: int
    content: Checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle carries.

    Attributes:
        created_at: When it was written; to the second.
        lists: Signed lists.
        files: Files.
    """

    created_at: datetime
    lists: tuple[BundledList, ...]
    files: tuple[BundledFile, ...]

    def members(self) -> tuple[tuple[str, int, Checksum], ...]:
        """Return name, length and checksum of each member after the manifest, in their order."""
        return (
            *((f"list-{number}", each.size_bytes, each.content) for number, each in enumerate(self.lists)),
            *((f"file-{number}", each.size_bytes, each.content) for number, each in enumerate(self.files)),
        )

    def to_json(self) -> bytes:
        """Return it as it is written."""
        content = {
            "format": BUNDLE_FORMAT,
            "created_at": to_rfc3339(self.created_at),
            "lists": [
                {
                    "driver": each.driver,
                    "uri": each.uri,
                    "list": each.list_identifier,
                    "version": each.version,
                    "size": each.size_bytes,
                    "content": str(each.content),
                }
                for each in self.lists
            ],
            "files": [
                {
                    "checksums": [str(one) for one in each.checksums],
                    "whole_size": each.whole_bytes,
                    "ranges": None if each.ranges is None else [list(one) for one in each.ranges],
                    "size": each.size_bytes,
                    "content": str(each.content),
                }
                for each in self.files
            ],
        }
        return json.dumps(content, indent=1).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleLayout:
    """Where what a bundle carries is.

    Attributes:
        manifest: What it carries.
        offsets: Where each member's bytes begin, in the order of `Manifest.members`.
    """

    manifest: Manifest
    offsets: tuple[int, ...]

    def list_at(self, number: int) -> int:
        """Return where the message of a list begins."""
        return self.offsets[number]

    def file_at(self, number: int) -> int:
        """Return where what is carried of a file begins."""
        return self.offsets[len(self.manifest.lists) + number]


def write_bundle(stream: BinaryIO, manifest: Manifest, contents: Iterable[Iterable[bytes]]) -> None:
    """Write a bundle; it is as long as the manifest says, or an error.

    Args:
        stream: Where; written from its beginning to its end.
        manifest: What follows.
        contents: The bytes of each member, in the order of `Manifest.members`.

    Raises:
        BundleError: A member is not what the manifest says; what was written is no bundle.
    """
    text = manifest.to_json()
    parse_manifest(text)
    stream.write(_header(MANIFEST_NAME, len(text), manifest))
    stream.write(text + _padding(len(text)))
    for (name, size, checksum), pieces in zip(manifest.members(), contents, strict=True):
        stream.write(_header(name, size, manifest))
        digest, written = hashlib.sha512(), 0
        for piece in pieces:
            digest.update(piece)
            written += len(piece)
            stream.write(piece)
        if written != size or digest.hexdigest() != checksum.hexdigest:
            _refuse(f"{name} changed while it was written")
        stream.write(_padding(size))
    stream.write(_end(text, manifest))


def read_layout(stream: BinaryIO) -> BundleLayout:
    """Return what a bundle carries and where; the members' bytes are not read.

    Args:
        stream: Sought; from its beginning to its end it is the bundle.

    Raises:
        BundleError: It is none, or is cut off, or anything follows it.
    """
    end = stream.seek(0, 2)
    stream.seek(0)
    first = stream.read(_BLOCK)
    try:
        size = tarfile.TarInfo.frombuf(first, "ascii", "strict").size
    except (tarfile.HeaderError, ValueError) as problem:
        raise BundleError("the file is no bundle: it does not begin as one", details=str(problem)) from problem
    if not 0 < size <= MAX_MANIFEST_BYTES:
        _refuse(f"its manifest has {size} bytes; up to {MAX_MANIFEST_BYTES} are read")
    text = stream.read(size)
    if len(text) != size:
        _refuse("it is cut off")
    manifest = parse_manifest(text)
    if first != _header(MANIFEST_NAME, size, manifest) or stream.read(-size % _BLOCK) != _padding(size):
        _refuse("its first header is not what its manifest says")
    position, offsets = _BLOCK + size + (-size % _BLOCK), []
    for name, length, _ in manifest.members():
        stream.seek(position)
        if stream.read(_BLOCK) != _header(name, length, manifest):
            _refuse(f"the header of {name} is not what its manifest says")
        offsets.append(position + _BLOCK)
        position += _BLOCK + length + (-length % _BLOCK)
        stream.seek(position - (-length % _BLOCK))
        if position > end or stream.read(-length % _BLOCK) != _padding(length):
            _refuse(f"it is cut off, or something follows {name}")
    stream.seek(position)
    last = _end(text, manifest)
    if stream.read(len(last) + 1) != last:
        _refuse("it does not end as its manifest says, or the manifest was altered")
    return BundleLayout(manifest=manifest, offsets=tuple(offsets))


def check_contents(stream: BinaryIO, layout: BundleLayout, on_piece: Callable[[int], object] = lambda _: None) -> None:
    """Read every member and hold it against the manifest.

    Raises:
        BundleError: One is another.
    """
    for (name, size, checksum), offset in zip(layout.manifest.members(), layout.offsets, strict=True):
        digest = hashlib.sha512()
        for piece in read_pieces(stream, offset, size):
            digest.update(piece)
            on_piece(len(piece))
        if digest.hexdigest() != checksum.hexdigest:
            _refuse(f"{name} is not what its manifest says: it was damaged, or altered")


def read_pieces(stream: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    """Yield bytes of a bundle.

    Raises:
        BundleError: It is cut off.
    """
    stream.seek(offset)
    while length:
        piece = stream.read(min(_PIECE_BYTES, length))
        if not piece:
            _refuse("it is cut off")
        length -= len(piece)
        yield piece


def parse_manifest(text: bytes) -> Manifest:
    """Return what a manifest says.

    Raises:
        BundleError: It is malformed, or beyond a limit.
    """
    try:
        document = read_json(text, what="manifest", max_bytes=MAX_MANIFEST_BYTES)
        if document.get("format") != BUNDLE_FORMAT:
            _refuse(f"its format is {str(document.get('format'))[:40]!r}; {BUNDLE_FORMAT} is read")
        created = read_instant(_text(document, "created_at"))
        if created is None or created.microsecond:
            _refuse("its manifest has no date")
        files = tuple(_file(each) for each in _objects(document, "files", MAX_FILES))
        if sum(len(each.ranges or ()) for each in files) > MAX_RANGES:
            _refuse("its manifest has too many ranges")
        lists = tuple(_list(each) for each in _objects(document, "lists", MAX_LISTS))
        manifest = Manifest(created_at=created.astimezone(UTC), lists=lists, files=files)
    except DocumentError as problem:
        raise BundleError(f"the bundle is malformed: {problem.message}", details=problem.details) from problem
    if manifest.to_json() != text:
        _refuse("its manifest is not written as one is")
    return manifest


def _list(item: dict[str, object]) -> BundledList:
    return BundledList(
        driver=_text(item, "driver"),
        uri=_text(item, "uri"),
        list_identifier=_text(item, "list"),
        version=_text(item, "version"),
        size_bytes=_number(item, "size", MAX_FILE_BYTES),
        content=_content(item),
    )


def _file(item: dict[str, object]) -> BundledFile:
    written = item.get("checksums")
    if not isinstance(written, list) or not 0 < len(written) <= 4:  # noqa: PLR2004 - more algorithms there are not
        _refuse("a file has no checksums")
    whole, size = _number(item, "whole_size", MAX_FILE_BYTES), _number(item, "size", MAX_FILE_BYTES)
    ranges = None if item.get("ranges") is None else _ranges(item["ranges"], whole)
    carried = whole if ranges is None else sum(length for _, length in ranges)
    if carried != size:
        _refuse(f"a file is said to have {size} bytes, and what is said to be carried of it {carried}")
    return BundledFile(
        checksums=tuple(_checksum(each) for each in written),
        whole_bytes=whole,
        ranges=ranges,
        size_bytes=size,
        content=_content(item),
    )


def _ranges(value: object, whole: int) -> tuple[Range, ...]:
    found: list[Range] = []
    end = 0
    for each in value if isinstance(value, list) else ():
        if not isinstance(each, list) or len(each) != 2 or not all(type(part) is int for part in each):  # noqa: PLR2004 - a pair
            _refuse("a range is no pair of numbers")
        start, length = each
        if start < end or length < 1 or start + length > whole:
            _refuse("ranges that are not in order, or not in the file")
        found.append((start, length))
        end = start + length
    if not found:
        _refuse("a file of which nothing is carried")
    return tuple(found)


def _objects(document: dict[str, object], key: str, most: int) -> Sequence[dict[str, object]]:
    value = document.get(key)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(each, dict) for each in value):
        _refuse(f"its manifest has no {key}, or more than {most}")
    return value


def _text(item: dict[str, object], key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or len(value) > _TEXT_BYTES:
        _refuse(f"its manifest lacks a text: {key}")
    return value


def _number(item: dict[str, object], key: str, most: int) -> int:
    value = item.get(key)
    if type(value) is not int or not 0 <= value <= most:
        _refuse(f"its manifest lacks a number up to {most}: {key}")
    return value


def _content(item: dict[str, object]) -> Checksum:
    found = _checksum(item.get("content"))
    if found.algorithm != "sha512":
        _refuse("a member is known by another checksum than sha512")
    return found


def _checksum(value: object) -> Checksum:
    try:
        return Checksum.parse(str(value))
    except ValueError as problem:
        raise BundleError("the bundle is malformed: a checksum is none", details=str(problem)) from problem


def _header(name: str, size: int, manifest: Manifest) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o444
    member.mtime = int(manifest.created_at.timestamp())
    return member.tobuf(tarfile.GNU_FORMAT)


def _end(text: bytes, manifest: Manifest) -> bytes:
    content = f"{hashlib.sha512(text).hexdigest()}\n".encode("ascii")
    return _header(END_NAME, len(content), manifest) + content + _padding(len(content)) + _END


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _refuse(said: str) -> NoReturn:
    raise BundleError(
        f"the bundle is malformed: {said}",
        resolution="Nothing of it was used. Have it copied, or exported, anew.",
    )
