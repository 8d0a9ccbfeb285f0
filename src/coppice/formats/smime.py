# SPDX-License-Identifier: Apache-2.0
"""The wrapping of a signature: S/MIME, PEM or DER in; the DER and the bytes that it may speak of out.

Nothing is trusted yet.

Read are ``multipart/signed``, ``application/pkcs7-mime`` (each with and without ``x-``), PEM and plain DER. The MIME
reader is small on purpose: one reading of each message, or an error.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from coppice.errors import SignatureFormError, UnsignedListError

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""A list of 16 MiB, once more by half for base64."""
MAX_HEADER_BYTES = 64 * 1024
_MAX_DETACHED_SIGNATURE_BYTES = 1024 * 1024
_PEM = re.compile(rb"-----BEGIN (PKCS7|CMS|PKCS #7 SIGNED DATA)-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*)-----END \1-----\s*")
_HEADER_LINE = re.compile(rb"([!-9;-~]+)[ \t]*:[ \t]*(.*)")
_PARAMETER = re.compile(r';\s*([!#$&+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"([^"\r\n]*)"|([^\s;"]+))')
_BLANK_LINE = re.compile(rb"\r?\n[ \t]*\r?\n")
_OPAQUE = {"application/pkcs7-mime", "application/x-pkcs7-mime"}
_SIGNATURE = {"application/pkcs7-signature", "application/x-pkcs7-signature"}
_DER_SEQUENCE = 0x30


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message taken apart.

    Attributes:
        der: The CMS structure.
        body: The part beside it; None where the content is inside the structure.
    """

    der: bytes
    body: bytes | None


def unwrap(message: bytes, *, limit_bytes: int = MAX_MESSAGE_BYTES) -> Envelope:
    """Take ``message`` apart.

    Raises:
        UnsignedListError: Nothing in it claims to be a signature.
        SignatureFormError: It claims to be signed, and is not in one of the accepted forms.
    """
    if len(message) > limit_bytes:
        raise SignatureFormError(f"the signed message is longer than {limit_bytes} bytes")
    if not message.strip():
        raise UnsignedListError(
            "what was fetched is empty: no list, and no signature", resolution="Ask the publisher of the list."
        )
    if message[0] == _DER_SEQUENCE and len(message) > 1 and message[1] >= 0x80:  # noqa: PLR2004 - a long DER length
        return Envelope(message, None)
    start = message.lstrip()
    if start.startswith(b"-----BEGIN "):
        return Envelope(_from_pem(start), None)
    headers, content = _split_headers(message)
    kind, parameters = _content_type(headers)
    if kind in _OPAQUE:
        return Envelope(_decode(content, headers), None)
    if kind == "multipart/signed":
        return _from_multipart(content, parameters)
    raise _unsigned()


def without_inner_headers(content: bytes) -> bytes:
    """Return signed content without the MIME header that ``openssl -text`` puts into it.

    Raises:
        SignatureFormError: That header says that the content is encoded.
    """
    if not content[:64].lower().startswith((b"content-", b"mime-version:")):
        return content
    headers, rest = _split_headers(content)
    encoding = headers.get("content-transfer-encoding", "7bit").lower()
    if encoding not in {"7bit", "8bit", "binary"}:
        raise SignatureFormError(f"the signed content is encoded as {encoding[:40]!r}, which no image list is")
    return rest


def _unsigned() -> UnsignedListError:
    return UnsignedListError(
        "the list carries no signature",
        details="It is neither an S/MIME message nor a PEM or DER signature.",
        resolution="Fetch the signed form of the list; Coppice takes no unsigned lists.",
    )


def _from_pem(text: bytes) -> bytes:
    match = _PEM.fullmatch(text)
    if match is None:
        if text.startswith((b"-----BEGIN PKCS7-", b"-----BEGIN CMS-", b"-----BEGIN PKCS #7 ")):
            raise SignatureFormError("the PEM block of the signature is damaged")
        raise _unsigned()
    return _base64(match.group(2))


def _split_headers(message: bytes) -> tuple[dict[str, str], bytes]:
    if message.startswith((b"\n", b"\r\n", b"{", b"[")):
        raise _unsigned()
    blank = _BLANK_LINE.search(message, 0, MAX_HEADER_BYTES + 4)
    block = message[: blank.start()] if blank else message[:MAX_HEADER_BYTES]
    headers: dict[str, str] = {}
    for line in re.split(rb"\r?\n(?![ \t])", block):
        match = _HEADER_LINE.match(line)
        if match is None:
            raise _unsigned()
        name = match.group(1).decode("ascii").lower()
        if name.startswith("content-") and name in headers:
            raise SignatureFormError(f"the MIME header {name} stands there twice")
        unfolded = re.sub(rb"\r?\n[ \t]+", b" ", line[match.start(2) :])
        headers[name] = unfolded.decode("latin-1").strip()
    if blank is None:
        if "content-type" not in headers:
            raise _unsigned()
        raise SignatureFormError(f"the MIME header has no end within {MAX_HEADER_BYTES} bytes")
    return headers, message[blank.end() :]


def _content_type(headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    text = headers.get("content-type", "")
    kind, _, _ = text.partition(";")
    pairs = [(name.lower(), quoted or plain) for name, quoted, plain in _PARAMETER.findall(text)]
    if len(dict(pairs)) != len(pairs):
        raise SignatureFormError("a parameter of the MIME type stands there twice")
    return kind.strip().lower(), dict(pairs)


def _from_multipart(content: bytes, parameters: dict[str, str]) -> Envelope:
    boundary = parameters.get("boundary", "")
    if not 1 <= len(boundary) <= 200:  # noqa: PLR2004 - 70 is the standard's limit; some writers exceed it
        raise SignatureFormError("the signed message names no boundary between content and signature")
    # A delimiter is a whole line; the line end before it belongs to it.
    delimiter = re.compile(
        rb"(?:\A|(?<=\n)|\r?\n)--" + re.escape(boundary.encode("latin-1")) + rb"(--)?[ \t]*(?:\r?\n|\Z)"
    )
    marks = list(_delimiters(delimiter, content))
    if len(marks) != 3 or [bool(mark.group(1)) for mark in marks] != [False, False, True]:  # noqa: PLR2004 - two parts
        raise SignatureFormError("the signed message does not consist of one content and one signature")
    body = content[marks[0].end() : marks[1].start()]
    headers, encoded = _split_part(content[marks[1].end() : marks[2].start()])
    kind, _ = _content_type(headers)
    if kind not in _SIGNATURE:
        raise SignatureFormError(f"the second part of the signed message is no signature but {kind[:60]!r}")
    if len(encoded) > _MAX_DETACHED_SIGNATURE_BYTES:
        raise SignatureFormError(f"the signature is longer than {_MAX_DETACHED_SIGNATURE_BYTES} bytes")
    return Envelope(_decode(encoded, headers), body)


def _delimiters(delimiter: re.Pattern[bytes], content: bytes) -> list[re.Match[bytes]]:
    marks: list[re.Match[bytes]] = []
    position = 0
    while len(marks) <= 3 and (mark := delimiter.search(content, position)):  # noqa: PLR2004 - more than two parts
        marks.append(mark)
        position = mark.end()
    return marks


def _split_part(part: bytes) -> tuple[dict[str, str], bytes]:
    try:
        return _split_headers(part)
    except UnsignedListError:
        raise SignatureFormError("the second part of the signed message has no MIME header") from None


def _decode(content: bytes, headers: dict[str, str]) -> bytes:
    encoding = headers.get("content-transfer-encoding", "7bit").lower()
    if encoding == "base64":
        return _base64(content)
    if encoding == "binary":
        return content
    raise SignatureFormError(f"the signature is encoded as {encoding[:40]!r}; base64 is needed")


def _base64(text: bytes) -> bytes:
    packed = b"".join(text.split())
    if len(text) > 2 * len(packed) + 1024:
        raise SignatureFormError("the signature's base64 is mostly white space")
    try:
        return base64.b64decode(packed, validate=True)
    except binascii.Error as problem:
        raise SignatureFormError(f"the signature's base64 is damaged: {problem}") from problem
