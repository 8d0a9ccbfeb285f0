# SPDX-License-Identifier: Apache-2.0
"""The datastore driver ``fs``: sizes told, files copied and URLs fetched as its scripts do it with ``curl``.

What was seen of a real one (OpenNebula 7.0.1) holds: a qcow2 image is known by its first bytes, and fetched four times
in all; anything else about eight times, most of them broken off, and its size is what a HEAD answers, whatever its
status; a download that breaks is asked for anew and *appended* to what came, so that only a checksum finds out.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from coppice.testing.opennebula.refusal import Code, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.testing.opennebula.faults import Copying
    from coppice.testing.opennebula.objects import Datastore

_MIB = 1024 * 1024
_PIECE_BYTES = 256 * 1024
_HEAD_BYTES = 1024
_QCOW2 = b"QFI\xfb"
_ATTEMPTS = 4
_PEEKS = 2
_RAW_PEEKS = 4
_TIMEOUT_SECONDS = 30.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class CopyFailed(Exception):  # noqa: N818 - what becomes of an image, and no error of the simulator
    """A copy ended badly; the text is what the image's ERROR says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file in a datastore: its path, and what it is."""

    path: Path
    format: str


def is_url(path: str) -> bool:
    """Tell whether the driver fetches it."""
    return path.startswith(("http://", "https://"))


def size_mib(path: str) -> int:
    """Return the size of a disk, as `one.image.allocate` finds it out before anything else is checked.

    Raises:
        Refusal: It cannot be found out.
    """
    if not path:
        raise _no_size("Wrong number or missing SIZE attribute.")
    size = _size_at_url(path) if is_url(path) else _size_of_file(path)
    return max(1, -(-size // _MIB))


def copy(path: str, datastore: Datastore, checksums: Mapping[str, str], copying: Copying) -> Iterator[Stored]:
    """Copy a file or URL into the datastore; yield it once when it began and once when it is done.

    Raises:
        CopyFailed: It ended badly; what was written stays.
    """
    if not is_url(path) and not is_allowed(path, datastore):
        raise CopyFailed(f"Not allowed to copy image from {path}, check RESTRICTED_DIRS in your datastore")
    datastore.folder.mkdir(parents=True, exist_ok=True)
    destination = datastore.folder / secrets.token_hex(16)
    yield Stored(path=destination, format="")
    problem = f"Error copying {path} to {destination}"
    if copying.error is not None:
        destination.write_bytes(b"begun")
        raise CopyFailed(f"{problem}: {copying.error}")
    # The script takes one hash; where both are given it is the later option, SHA1.
    algorithm = next((each for each in ("sha1", "md5") if checksums.get(each)), None)
    digest = hashlib.new(algorithm) if algorithm else None
    with destination.open("xb") as writer:
        for piece in _pieces(path, problem):
            writer.write(piece)
            if digest is not None:
                digest.update(piece)
    if digest is not None and algorithm is not None and digest.hexdigest() != checksums[algorithm]:
        raise CopyFailed(f"{problem}: Hash does not match")
    if copying.flipped:
        _flip(destination)
    yield Stored(path=destination, format="qcow2" if _begins_as_qcow2(destination) else "raw")


def is_allowed(path: str, datastore: Datastore) -> bool:
    """Tell whether the datastore's directories allow it: safe ones first, by their beginning, links followed."""
    real = os.path.realpath(path)
    if any(real.startswith(folder) for folder in datastore.folders("SAFE_DIRS")):
        return True
    return not any(real.startswith(folder) for folder in datastore.folders("RESTRICTED_DIRS"))


def _pieces(path: str, problem: str) -> Iterator[bytes]:
    if is_url(path):
        yield from _downloaded(path, problem)
        return
    try:
        with Path(path).open("rb") as reader:
            while piece := reader.read(_PIECE_BYTES):
                yield piece
    except OSError as error:
        raise CopyFailed(f"{problem}: Cannot read from {path}") from error


def _downloaded(url: str, problem: str) -> Iterator[bytes]:
    _peek(url, times=1)
    for attempt in range(_ATTEMPTS):
        came = 0
        try:
            with _asked(url, "GET") as answer:
                expected = answer.headers.get("Content-Length")
                while piece := answer.read(_PIECE_BYTES):
                    came += len(piece)
                    # What came of an attempt that breaks stays in the pipe: the next one is appended to it.
                    yield piece
            if expected is None or came == int(expected):
                return
            last = f"curl: (18) transfer closed with {int(expected) - came} bytes remaining to read"
        except urllib.error.HTTPError as error:
            last = f"curl: (22) The requested URL returned error: {error.code}"
        except OSError as error:
            last = f"curl: (56) {error}"
        if attempt + 1 < _ATTEMPTS:
            time.sleep(0.02)
    raise CopyFailed(f"{problem}: {last}")


def _size_of_file(path: str) -> int:
    try:
        with Path(path).open("rb") as reader:
            head = reader.read(_HEAD_BYTES)
            length = os.fstat(reader.fileno()).st_size
    except FileNotFoundError as problem:
        raise _no_size(f"cannot access '{path}' (No such file or directory)") from problem
    except OSError as problem:
        raise _no_size(f"cannot access '{path}' (Permission denied)") from problem
    if not head:
        raise _no_size("Runtime error during size estimation")
    return _qcow2_size(head) if head.startswith(_QCOW2) else length


def _size_at_url(url: str) -> int:
    try:
        head = _peek(url, times=_PEEKS)
    except OSError as problem:
        # 404, 500 and a refused connection alike: the script says that it may not.
        raise _no_size(f"cannot access '{url}' (Permission denied)") from problem
    if head.startswith(_QCOW2):
        return _qcow2_size(head)
    try:
        _peek(url, times=_RAW_PEEKS)
        with _asked(url, "HEAD") as answer:
            length = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as problem:
        length = problem.headers.get("Content-Length")
    except OSError as problem:
        raise _no_size(f"cannot access '{url}' (Permission denied)") from problem
    if length is None:
        raise _no_size("Unsupported remote image format")
    return int(length)


def _peek(url: str, *, times: int) -> bytes:
    """Begin to fetch, as `head -n 1024` does, and break off."""
    head = b""
    for _ in range(times):
        with _asked(url, "GET") as answer:
            head = answer.read(_HEAD_BYTES)
    return head


def _asked(url: str, method: str) -> Any:
    request = urllib.request.Request(url, method=method)  # noqa: S310 - `is_url` saw to it
    return _OPENER.open(request, timeout=_TIMEOUT_SECONDS)


def _qcow2_size(head: bytes) -> int:
    return int.from_bytes(head[24:32], "big")


def _begins_as_qcow2(path: Path) -> bool:
    with path.open("rb") as reader:
        return reader.read(4) == _QCOW2


def _flip(path: Path) -> None:
    stream: BinaryIO
    with path.open("r+b") as stream:
        byte = stream.read(1)
        stream.seek(0)
        stream.write(bytes([(byte or b"\0")[0] ^ 1]))


def _no_size(text: str) -> Refusal:
    return Refusal(Code.INTERNAL, f"Cannot parse image SIZE: {text}")
