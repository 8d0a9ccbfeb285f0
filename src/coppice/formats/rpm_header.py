# SPDX-License-Identifier: Apache-2.0
"""Headers of RPM packages as they stand in the record of installed packages. Pure, and for bytes of anybody.

A header is two numbers (how many entries, how many bytes of data), the entries of 16 bytes each (tag, type, offset,
count), and the data; all numbers have the most significant byte first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_ENTRIES = 65_536
MAX_BYTES = 256 * 1024 * 1024
MAX_FILES = 1_000_000
MAX_PATHS = 64 * 1024 * 1024
"""Of all the paths of a package together: one long folder can be that of each of its files."""
_ENTRY = struct.Struct(">IIII")
_HEAD = struct.Struct(">II")
_INT16, _INT32, _STRING, _BIN, _STRING_ARRAY, _I18N = 3, 4, 6, 7, 8, 9

_NAME, _VERSION, _RELEASE, _EPOCH = 1000, 1001, 1002, 1003
_LICENCE, _ARCHITECTURE, _SOURCE = 1014, 1022, 1044
_MODES, _DIGESTS, _LINKS, _FLAGS = 1030, 1035, 1036, 1037
_FOLDER_NUMBERS, _NAMES, _FOLDERS, _STATES, _DIGEST_KIND = 1116, 1117, 1118, 1029, 5011
_SIGNATURES = (267, 268, 278, 259, 262)
"""Of the header (DSA, RSA, any), and those of old of header and payload together."""
_MD5, _SHA256 = 1, 8
_CONFIGURATION, _GHOST, _MISSING_OK = 1, 64, 8
_NORMAL = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmFile:
    """A file of a package.

    Attributes:
        path: Where the package wants it.
        mode: Kind and permissions, as `os.stat` has them.
        digest: Of its content, in hexadecimal; empty: it has none.
        algorithm: ``md5`` or ``sha256``; empty: another.
        is_configuration: Whether it may be changed.
        is_vouched: Whether it must be there: it was installed, and is not one that comes and goes.
    """

    path: str
    mode: int
    digest: str
    algorithm: str
    is_configuration: bool
    is_vouched: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmHeader:
    """A package as it is recorded.

    Attributes:
        name: Its name.
        version: ``epoch:version-release``, without an epoch where it has none.
        architecture: Its architecture; ``(none)`` of a key.
        source: File name of the source package; empty: not known.
        licence: As it says.
        files: Its files.
        is_signed: Whether a signature is recorded with it.
    """

    name: str
    version: str
    architecture: str
    source: str
    licence: str
    files: tuple[RpmFile, ...]
    is_signed: bool


def read_rpm_header(data: bytes) -> RpmHeader:
    """Return what a recorded header says.

    Raises:
        DocumentError: It is none, or is damaged.
    """
    try:
        entries = _entries(data)
        name, version, release = (_text(entries, tag) for tag in (_NAME, _VERSION, _RELEASE))
        epoch = _numbers(entries, _EPOCH)
        return RpmHeader(
            name=name,
            version=f"{epoch[0]}:{version}-{release}" if epoch and epoch[0] else f"{version}-{release}",
            architecture=_text(entries, _ARCHITECTURE, "(none)"),
            source=_text(entries, _SOURCE, ""),
            licence=_text(entries, _LICENCE, ""),
            files=_files(entries),
            is_signed=any(tag in entries for tag in _SIGNATURES),
        )
    except (struct.error, IndexError, ValueError, KeyError) as problem:
        raise DocumentError(f"a header of an RPM package that cannot be read: {problem}") from problem


@dataclass(frozen=True, slots=True)
class _Value:
    kind: int
    count: int
    data: memoryview


def _entries(data: bytes) -> dict[int, _Value]:
    if len(data) > MAX_BYTES:
        raise DocumentError(f"a header of an RPM package of {len(data)} bytes")
    count, length = _HEAD.unpack_from(data, 0)
    start = _HEAD.size + count * _ENTRY.size
    if count > MAX_ENTRIES or start + length > len(data):
        raise DocumentError("a header of an RPM package is cut off")
    store = memoryview(data)[start : start + length]
    found: dict[int, _Value] = {}
    for number in range(count):
        tag, kind, offset, items = _ENTRY.unpack_from(data, _HEAD.size + number * _ENTRY.size)
        # The one that names the region of what was signed points backwards, and says nothing of the package.
        if offset <= length:
            found.setdefault(tag, _Value(kind, items, store[offset:]))
    return found


def _strings(entries: Mapping[int, _Value], tag: int) -> list[str]:
    value = entries.get(tag)
    if value is None:
        return []
    if value.kind not in {_STRING, _STRING_ARRAY, _I18N} or value.count > MAX_FILES:
        raise DocumentError(f"the tag {tag} of an RPM package is no text")
    pieces = bytes(value.data).split(b"\0", value.count)
    if len(pieces) <= value.count:
        raise DocumentError(f"the tag {tag} of an RPM package is cut off")
    return [piece.decode("utf-8", errors="surrogateescape") for piece in pieces[: value.count]]


def _text(entries: Mapping[int, _Value], tag: int, default: str | None = None) -> str:
    if tag not in entries and default is not None:
        return default
    found = _strings(entries, tag)
    if not found:
        raise DocumentError(f"an RPM package has no tag {tag}")
    return found[0]


def _numbers(entries: Mapping[int, _Value], tag: int) -> tuple[int, ...]:
    value = entries.get(tag)
    if value is None:
        return ()
    letter = {_INT16: "H", _INT32: "I", _BIN: "B", 1: "B", 2: "B"}.get(value.kind)
    if letter is None or value.count > MAX_FILES:
        raise DocumentError(f"the tag {tag} of an RPM package is no list of numbers")
    return struct.unpack_from(f">{value.count}{letter}", value.data)


def _files(entries: Mapping[int, _Value]) -> tuple[RpmFile, ...]:
    names, folders = _strings(entries, _NAMES), _strings(entries, _FOLDERS)
    numbers, modes = _numbers(entries, _FOLDER_NUMBERS), _numbers(entries, _MODES)
    digests, flags = _strings(entries, _DIGESTS), _numbers(entries, _FLAGS)
    states = _numbers(entries, _STATES)
    kind = (_numbers(entries, _DIGEST_KIND) or (_MD5,))[0]
    if not len(names) == len(numbers) == len(modes) == len(flags) == len(digests):
        raise DocumentError("an RPM package has lists of files of different lengths")
    if states and len(states) != len(names):
        raise DocumentError("an RPM package has lists of files of different lengths")
    algorithm = {_MD5: "md5", _SHA256: "sha256"}.get(kind, "")
    at: Callable[[int], str] = folders.__getitem__
    if sum(len(at(number)) for number in numbers) + sum(map(len, names)) > MAX_PATHS:
        raise DocumentError("an RPM package has paths that are too long")
    return tuple(
        RpmFile(
            path=f"{at(numbers[number])}{name}",
            mode=modes[number],
            digest=digests[number],
            algorithm=algorithm,
            is_configuration=bool(flags[number] & _CONFIGURATION),
            is_vouched=not flags[number] & (_GHOST | _MISSING_OK) and (not states or states[number] == _NORMAL),
        )
        for number, name in enumerate(names)
    )
