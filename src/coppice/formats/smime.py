# SPDX-License-Identifier: Apache-2.0
"""The wrapping of a signature: S/MIME, PEM or DER in; the DER and the bytes that it may speak of out.

Nothing is trusted yet.

Read are ``multipart/signed``, ``application/pkcs7-mime`` (each with and without ``x-``), PEM and plain DER (RFC 8551,
RFC 7468, RFC 5652). The MIME reader is small on purpose: one reading of each message, or an error. What is outside of
the signature and cannot change what is signed is left alone: text before the first and behind the last boundary (RFC
2046, 5.1.1), ``protocol``, ``micalg`` and ``smime-type``, headers that are no ``Content-*``.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from coppice.errors import SignatureFormError, UnsignedListError
from coppice.formats.limits import DEFAULT_LIMITS, ListLimits

MAX_HEADER_BYTES = 64 * 1024
MAX_SIGNATURE_BYTES = 256 * 1024
"""Of a signature in DER with its certificates, without the content: some twenty times of what honest ones have."""
_MAX_BOUNDARY_LENGTH = 200
"""The standard has 70; some writers exceed it."""
_MAX_FALSE_BOUNDARIES = 1000
_PEM_START = 1024
_PEM = re.compile(
    rb"\s*-----BEGIN (PKCS7|CMS|PKCS #7 SIGNED DATA)-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*)-----END \1-----\s*"
)
_HEADER_LINE = re.compile(rb"([!-9;-~]+)[ \t]*:[ \t]*(.*)")
_PARAMETER = re.compile(r';\s*([!#$&+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"([^"\r\n]*)"|([^\s;"]+))')
_BLANK_LINE = re.compile(rb"\r?\n[ \t]*\r?\n")
_LINE_REST = re.compile(rb"(--)?[ \t]*(?:\r?\n|\Z)")
_OPAQUE = {"application/pkcs7-mime", "application/x-pkcs7-mime"}
_SIGNATURE = {"application/pkcs7-signature", "application/x-pkcs7-signature"}
_PLAIN_ENCODINGS = {"7bit", "8bit", "binary"}
_DER_SEQUENCE = 0x30
_LONG_LENGTH = 0x80


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message taken apart.

    Attributes:
        der: The CMS structure.
        body: The part beside it; None where the content is inside the structure.
    """

    der: bytes
    body: bytes | None


@dataclass(frozen=True, slots=True)
class _Boundary:
    """A line that separates parts.

    Attributes:
        before: Where what comes before it ends.
        after: Where what follows it begins.
        is_last: Whether it says that no part follows.
    """

    before: int
    after: int
    is_last: bool


def unwrap(message: bytes, *, limits: ListLimits = DEFAULT_LIMITS) -> Envelope:
    """Take ``message`` apart.

    Raises:
        UnsignedListError: Nothing in it claims to be a signature.
        SignatureFormError: It claims to be signed, and is not in one of the accepted forms, or is too long.
    """
    if len(message) > limits.message_bytes:
        raise SignatureFormError(f"the signed message is longer than {limits.message_bytes} bytes")
    if not message or message.isspace():
        raise UnsignedListError(
            "what was fetched is empty: no list, and no signature", resolution="Ask the publisher of the list."
        )
    if message[0] == _DER_SEQUENCE and len(message) > 1 and message[1] >= _LONG_LENGTH:
        return Envelope(message, None)
    if message[:_PEM_START].lstrip().startswith(b"-----BEGIN "):
        return Envelope(_from_pem(message), None)
    headers, start = _headers(message, 0)
    kind, parameters = _content_type(headers)
    if kind in _OPAQUE:
        return Envelope(_decode(message[start:], headers), None)
    if kind == "multipart/signed":
        return _from_multipart(message, start, parameters, limits)
    raise _unsigned()


def without_inner_headers(content: bytes) -> bytes:
    """Return signed content without the MIME header that ``openssl -text`` puts into it.

    Raises:
        SignatureFormError: That header says that the content is encoded.
    """
    if not content[:64].lower().startswith((b"content-", b"mime-version:")):
        return content
    try:
        headers, start = _headers(content, 0)
    except UnsignedListError:
        # It only begins like a header; what it is, its reader will say.
        return content
    encoding = headers.get("content-transfer-encoding", "7bit").lower()
    if encoding not in _PLAIN_ENCODINGS:
        raise SignatureFormError(f"the signed content is encoded as {encoding[:40]!r}, which no image list is")
    return content[start:]


def _unsigned() -> UnsignedListError:
    return UnsignedListError(
        "the list carries no signature",
        details="It is neither an S/MIME message nor a PEM or DER signature.",
        resolution="Fetch the signed form of the list; Coppice takes no unsigned lists.",
    )


def _from_pem(text: bytes) -> bytes:
    match = _PEM.fullmatch(text)
    if match is None:
        if text.lstrip().startswith((b"-----BEGIN PKCS7-", b"-----BEGIN CMS-", b"-----BEGIN PKCS #7 ")):
            raise SignatureFormError("the PEM block of the signature is damaged")
        raise _unsigned()
    return _base64(match.group(2))


def _headers(message: bytes, start: int) -> tuple[dict[str, str], int]:
    """Return the MIME header that begins at ``start``, by lower-case names, and where the content begins."""
    if message.startswith((b"\n", b"\r\n", b"{", b"["), start):
        raise _unsigned()
    blank = _BLANK_LINE.search(message, start, start + MAX_HEADER_BYTES + 4)
    block = message[start : blank.start()] if blank else message[start : start + MAX_HEADER_BYTES]
    headers: dict[str, str] = {}
    for line in re.split(rb"\r?\n(?![ \t])", block):
        match = _HEADER_LINE.match(line)
        if match is None:
            raise _unsigned()
        name = match.group(1).decode("ascii").lower()
        if name.startswith("content-") and name in headers:
            raise SignatureFormError(f"the MIME header {name[:60]} stands there twice")
        unfolded = re.sub(rb"\r?\n[ \t]+", b" ", line[match.start(2) :])
        headers[name] = unfolded.decode("latin-1").strip()
    if blank is None:
        if "content-type" not in headers:
            raise _unsigned()
        raise SignatureFormError(f"the MIME header has no end within {MAX_HEADER_BYTES} bytes")
    return headers, blank.end()


def _content_type(headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    text = headers.get("content-type", "")
    kind, _, _ = text.partition(";")
    pairs = [(name.lower(), quoted or plain) for name, quoted, plain in _PARAMETER.findall(text)]
    if len(dict(pairs)) != len(pairs):
        raise SignatureFormError("a parameter of the MIME type stands there twice")
    return kind.strip().lower(), dict(pairs)


def _from_multipart(message: bytes, start: int, parameters: dict[str, str], limits: ListLimits) -> Envelope:
    boundary = parameters.get("boundary", "")
    if not 1 <= len(boundary) <= _MAX_BOUNDARY_LENGTH:
        raise SignatureFormError("the signed message names no boundary between content and signature")
    marks = _boundaries(message, start, boundary.encode("latin-1"))
    if [mark.is_last for mark in marks] != [False, False, True]:
        raise SignatureFormError("the signed message does not consist of one content and one signature")
    first, second, last = marks
    if second.before - first.after > limits.size_bytes:
        raise SignatureFormError(f"the signed content is longer than {limits.size_bytes} bytes")
    if last.before - second.after > 2 * MAX_SIGNATURE_BYTES + MAX_HEADER_BYTES:
        raise SignatureFormError(f"the signature is longer than {MAX_SIGNATURE_BYTES} bytes")
    headers, encoded = _signature_part(message[second.after : last.before])
    return Envelope(_decode(encoded, headers), message[first.after : max(first.after, second.before)])


def _boundaries(message: bytes, start: int, boundary: bytes) -> list[_Boundary]:
    """Return the lines that are boundaries; four are enough to know that there are too many.

    The line end before such a line belongs to it (RFC 2046, 5.1.1).
    """
    found: list[_Boundary] = []
    line = b"--" + boundary
    position, refused = start, 0
    at_start = message.startswith(line, start)
    while len(found) <= 3 and refused <= _MAX_FALSE_BOUNDARIES:  # noqa: PLR2004 - two parts have three
        if at_start:
            place, before, at_start = position, position, False
        else:
            # The line end is searched for from within what was read, so that two boundaries may share none.
            ended = message.find(b"\n" + line, position - 1 if position > start else position)
            if ended < 0:
                return found
            place, before = ended + 1, ended - 1 if message[ended - 1 : ended] == b"\r" else ended
        rest = _LINE_REST.match(message, place + len(line))
        if rest is None:
            refused += 1
            position = place + len(line)
            continue
        found.append(_Boundary(max(before, position), rest.end(), rest.group(1) is not None))
        position = rest.end()
    if refused > _MAX_FALSE_BOUNDARIES:
        raise SignatureFormError("the boundary of the signed message begins too many of its lines")
    return found


def _signature_part(part: bytes) -> tuple[dict[str, str], bytes]:
    try:
        headers, start = _headers(part, 0)
    except UnsignedListError:
        raise SignatureFormError("the second part of the signed message has no MIME header") from None
    kind, _ = _content_type(headers)
    if kind not in _SIGNATURE:
        raise SignatureFormError(f"the second part of the signed message is no signature but {kind[:60]!r}")
    return headers, part[start:]


def _decode(content: bytes, headers: dict[str, str]) -> bytes:
    encoding = headers.get("content-transfer-encoding", "7bit").lower()
    if encoding == "base64":
        return _base64(content)
    if encoding == "binary":
        return content
    raise SignatureFormError(f"the signature is encoded as {encoding[:40]!r}; base64 is needed")


def _base64(text: bytes) -> bytes:
    packed = text.translate(None, b" \t\r\n")
    if len(text) > 2 * len(packed) + 1024:
        raise SignatureFormError("the signature's base64 is mostly white space")
    try:
        return base64.b64decode(packed, validate=True)
    except binascii.Error as problem:
        raise SignatureFormError(f"the signature's base64 is damaged: {problem}") from problem
