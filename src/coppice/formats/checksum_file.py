# SPDX-License-Identifier: Apache-2.0
"""Checksum files, as ``sha256sum`` and BSD's ``sha256`` write them, read strictly.

::

    d2a84f4b8b650937ec8f73cd8be2c74add5a911ba64df27458ed8229da804a26 *noble-server-cloudimg-amd64.img
    SHA256 (Cloud-Base-43-1.6.x86_64.qcow2) = d2a84f4b8b650937ec8f73cd8be2c74add5a911ba64df27458ed8229da804a26
    # Cloud-Base-43-1.6.x86_64.qcow2: 533463040 bytes

The last line is a comment that Fedora writes: it tells a size, and is signed with the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from coppice.errors import DocumentError
from coppice.formats.limits import MIB
from coppice.model.checksum import Checksum

MAX_BYTES = 4 * MIB
MAX_FILES = 20_000
_MAX_LINE = 2048
_MAX_NAME = 1024
_GNU = re.compile(r"([0-9A-Fa-f]{32,128}) [ *](\S.*)")
_BSD = re.compile(r"([A-Z0-9-]{3,12}) \((.+)\) = ([0-9A-Fa-f]{32,128})")
_SIZE = re.compile(r"# (\S.*): ([0-9]{1,18}) bytes")
_STRONG = {"SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}
_LENGTHS = {64: "sha256", 96: "sha384", 128: "sha512", 32: "md5", 40: "sha1", 56: "sha224"}
_RANKS = ("sha512", "sha384", "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class SummedFile:
    """A file that a checksum file tells of.

    Attributes:
        name: Its path from where the checksum file is.
        checksum: The strongest that is given; None: only such as are worth nothing (md5, sha1).
        size_bytes: Where a comment tells it.
    """

    name: str
    checksum: Checksum | None
    size_bytes: int | None


def read_checksum_file(data: bytes) -> tuple[SummedFile, ...]:
    """Return the files, in the order of their first lines.

    Raises:
        DocumentError: It is no checksum file; names a file twice, or one that is elsewhere; or has nothing stronger
            than sha1.
    """
    if len(data) > MAX_BYTES:
        raise DocumentError(f"the checksum file is longer than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DocumentError(f"the checksum file is not UTF-8 text (byte {problem.start})") from problem
    found: dict[str, dict[str, Checksum | None]] = {}
    sizes: dict[str, int] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r")
        if len(line) > _MAX_LINE or not line.replace("\t", " ").isprintable():
            _refuse(number, "it is too long, or has control characters")
        if line.startswith("#"):
            _take_size(sizes, line)
        elif line.strip():
            _take(found, number, line)
        if len(found) > MAX_FILES:
            _refuse(number, f"it is of more than {MAX_FILES} files")
    if found and not any(each for held in found.values() for each in held.values()):
        raise DocumentError(
            "the checksum file has nothing stronger than sha1, by which anybody could have made the files"
        )
    return tuple(
        SummedFile(name=name, checksum=_strongest(held), size_bytes=sizes.get(name)) for name, held in found.items()
    )


def _take(found: dict[str, dict[str, Checksum | None]], number: int, line: str) -> None:
    bsd, gnu = _BSD.fullmatch(line.rstrip()), _GNU.fullmatch(line)
    if bsd is not None:
        algorithm = _STRONG.get(bsd[1].replace("-", ""), bsd[1].lower())
        name, digits = bsd[2], bsd[3]
    elif gnu is not None:
        algorithm = _LENGTHS.get(len(gnu[1]), "")
        name, digits = gnu[2], gnu[1]
    else:
        _refuse(number, "it is no line of a checksum file")
    held = found.setdefault(_checked_name(name, number), {})
    if algorithm in held:
        _refuse(number, f"the {algorithm} of {name[:200]!a} is given twice")
    try:
        held[algorithm] = Checksum(algorithm, digits.lower()) if algorithm in _RANKS else None
    except ValueError as problem:
        _refuse(number, str(problem))
    if not algorithm:
        _refuse(number, f"a digest of {len(digits)} digits is of no known kind")


def _checked_name(name: str, number: int) -> str:
    """Return the path of a file that is where the checksum file is, or below."""
    name = name.removeprefix("./")
    parts = name.split("/")
    if (
        len(name) > _MAX_NAME
        or "\\" in name
        or "\t" in name
        or any(part in {"", ".", ".."} or part != part.strip() for part in parts)
    ):
        _refuse(number, f"{name[:200]!a} is no name of a file that is here")
    return name


def _take_size(sizes: dict[str, int], line: str) -> None:
    match = _SIZE.fullmatch(line.rstrip())
    if match is not None:
        name = match[1].removeprefix("./")
        # Two sizes are none.
        sizes[name] = 0 if name in sizes and sizes[name] != int(match[2]) else int(match[2])


def _strongest(held: dict[str, Checksum | None]) -> Checksum | None:
    return next((held[algorithm] for algorithm in _RANKS if held.get(algorithm) is not None), None)


def _refuse(number: int, reason: str) -> NoReturn:
    raise DocumentError(f"the checksum file is malformed in line {number}: {reason}", context={"line": number})
