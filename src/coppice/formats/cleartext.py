# SPDX-License-Identifier: Apache-2.0
"""The form of a clear-signed document (RFC 9580, 7): judged before ``gpgv`` sees it, and held against what it gives.

A signature covers the text between two marks, and neither what stands around it nor the armour's headers. So a document
that has anything there is refused, as is whatever readers have taken differently: over-long lines, control characters,
lines that begin with a hyphen, headers that change the rules.
"""

from __future__ import annotations

import re

from coppice.errors import DocumentError

BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"
_HASH = re.compile(rb"Hash: [A-Za-z0-9-]{1,20}(?:, ?[A-Za-z0-9-]{1,20}){0,9}")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MAX_LINE_BYTES = 16 * 1024
"""GnuPG cuts lines at about 20,000 bytes."""


def is_cleartext(data: bytes) -> bool:
    """Tell whether ``data`` begins as a clear-signed document does."""
    return data.startswith(BEGIN)


def covered_lines(data: bytes) -> list[bytes]:
    """Return the lines that the signature of a clear-signed document covers, without white space at their ends.

    Raises:
        DocumentError: It is no such document, or one that could be read in more than one way.
    """
    return _parts(data)[0]


def signature_block(data: bytes) -> bytes:
    """Return the armour that holds the signatures of a clear-signed document.

    Raises:
        DocumentError: As `covered_lines`.
    """
    return _parts(data)[1]


def _parts(data: bytes) -> tuple[list[bytes], bytes]:
    if not is_cleartext(data):
        raise DocumentError("it is not clear-signed")
    if _CONTROL.search(data):
        raise DocumentError("it holds control characters")
    raw = data.split(b"\n")
    if max(map(len, raw)) > _MAX_LINE_BYTES:
        raise DocumentError(f"it holds a line longer than {_MAX_LINE_BYTES} bytes")
    lines = [line.rstrip(b" \t\r") for line in raw]
    if any(b"\r" in line for line in lines):
        raise DocumentError("it holds a carriage return within a line")
    # A mark is one by its beginning: what a reader that is less strict takes for it must not be something else here.
    marks = [number for number, line in enumerate(lines) if line.startswith(b"-----")]
    if [lines[number] for number in marks] != [BEGIN, _SIGNATURE, _END] or marks[0] != 0:
        raise DocumentError("it is not one text with one block of signatures")
    if any(lines[marks[2] + 1 :]):
        raise DocumentError("something stands behind the signature, which it does not cover")
    start = 1
    while _HASH.fullmatch(lines[start]):
        start += 1
    if lines[start]:
        raise DocumentError("its head holds something else than the names of digests")
    block = b"\n".join(lines[marks[1] : marks[2] + 1])
    return [_unescaped(line) for line in lines[start + 1 : marks[1]]], block


def is_same_text(covered: list[bytes], text: bytes) -> bool:
    """Tell whether ``text``, as ``gpgv`` gave it, has the lines that are covered."""
    found = [line.rstrip(b" \t\r") for line in text.split(b"\n")]
    while found and not found[-1]:
        found.pop()
    kept = list(covered)
    while kept and not kept[-1]:
        kept.pop()
    return found == kept


def _unescaped(line: bytes) -> bytes:
    if not line.startswith(b"-"):
        return line
    if line == b"-" or line.startswith(b"- "):
        return line[2:]
    raise DocumentError("it holds a line that begins with a hyphen and is not escaped")
