# SPDX-License-Identifier: Apache-2.0
"""OpenPGP's envelopes and public keys, as far as one must look at them before and after ``gpgv`` judges (RFC 9580).

Nothing here verifies a signature. What is read: armour, the sequence of packets, and of public keys their fingerprint,
algorithm and size. What two readers could take differently is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import DocumentError
from coppice.formats.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURE_LIMIT_BYTES = MIB // 4
"""Of all signatures of a document; one takes a few hundred bytes."""
MAX_KEYS = 1000
"""Most keys, subkeys among them, of one keyring."""
_MAX_PACKETS = 50_000
_SIGNATURE, _SECRET_KEY, _PUBLIC_KEY, _SECRET_SUBKEY, _PUBLIC_SUBKEY = 2, 5, 6, 7, 14
_BESIDE_KEYS = frozenset({_SIGNATURE, 10, 12, 13, 17, 21, 60, 61, 62, 63})
"""Signature, marker, trust, user ID, user attribute, padding, private use: what stands between keys (RFC 9580, 5)."""
_PUBLISHED = frozenset({_SIGNATURE, 13, 17})
"""Of these, what is of use to others."""
_V3, _V4, _V5, _V6 = 3, 4, 5, 6
_RSA = frozenset({1, 2, 3})
_DSA, _ECDH, _ECDSA, _EDDSA = 17, 18, 19, 22
_BITS_BY_ALGORITHM = {25: 256, 26: 456, 27: 256, 28: 456}
"""X25519, X448, Ed25519, Ed448 (RFC 9580, 9.1): the size is in the name."""
_CURVES = {
    bytes.fromhex("2a8648ce3d030107"): ("P-256", 256),
    bytes.fromhex("2b81040022"): ("P-384", 384),
    bytes.fromhex("2b81040023"): ("P-521", 521),
    bytes.fromhex("2b2403030208010107"): ("brainpoolP256r1", 256),
    bytes.fromhex("2b240303020801010b"): ("brainpoolP384r1", 384),
    bytes.fromhex("2b240303020801010d"): ("brainpoolP512r1", 512),
    bytes.fromhex("2b06010401da470f01"): ("Ed25519", 256),
    bytes.fromhex("2b6571"): ("Ed448", 456),
    bytes.fromhex("2b060104019755010501"): ("Curve25519", 256),
}
_NAMES = {1: "RSA", 2: "RSA", 3: "RSA", 16: "Elgamal", 17: "DSA", 25: "X25519", 26: "X448", 27: "Ed25519", 28: "Ed448"}
_LEAST_RSA_BITS = 2048
_STRONG = frozenset(
    {"Ed25519", "Ed448", "P-256", "P-384", "P-521", "brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1"}
)
_ARMOUR_BEGIN = re.compile(rb"-----BEGIN PGP ([A-Z ]{1,40})-----")
_ARMOUR_HEADER = re.compile(rb"[A-Za-z]{1,40}: [\x20-\x7e]{0,500}")
_CRC_LINE = re.compile(rb"=[A-Za-z0-9+/]{4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key of a keyring.

    Attributes:
        fingerprint: In upper-case hexadecimal: 40 digits (version 4), or 64.
        primary: Fingerprint of the primary key that it belongs to; its own, where it is one.
        algorithm: ``RSA``, ``Ed25519``, ``P-256``, ``DSA`` …; ``unknown`` for others.
        bits: Its size; 0: not known.
        sha256: Of the content of its packet, in hexadecimal.
    """

    fingerprint: str
    primary: str
    algorithm: str
    bits: int
    sha256: str

    @property
    def is_strong(self) -> bool:
        """Whether a signature by it is worth anything today: RSA from 2048 bits, and the usual curves."""
        return self.algorithm in _STRONG or (self.algorithm == "RSA" and self.bits >= _LEAST_RSA_BITS)


def read_keyring(data: bytes) -> tuple[bytes, tuple[PublicKey, ...]]:
    """Return the binary form of a keyring of public keys, and its keys.

    Args:
        data: ASCII armour (one block or several), or binary packets.

    Raises:
        DocumentError: It is neither, is damaged, holds a secret key or no key.
    """
    if data[8:12] == b"KBXf":
        raise DocumentError(
            "it is a keybox of GnuPG, not a keyring for exchange",
            resolution="Export the keys that count: gpg --export FINGERPRINT > keyring.gpg.",
        )
    binary = _without_armour(data, b"PUBLIC KEY BLOCK") if _is_armoured(data) else data
    keys: list[PublicKey] = []
    primary = ""
    for tag, body in packets(binary):
        if tag in {_SECRET_KEY, _SECRET_SUBKEY}:
            raise DocumentError(
                "it holds a secret key",
                resolution="Export public keys only (gpg --export), and keep the secret one elsewhere.",
            )
        if tag not in {_PUBLIC_KEY, _PUBLIC_SUBKEY, *_BESIDE_KEYS}:
            raise DocumentError(f"it holds a packet of kind {tag}, which has no place among public keys")
        if tag not in {_PUBLIC_KEY, _PUBLIC_SUBKEY}:
            continue
        if len(keys) == MAX_KEYS:
            raise DocumentError(f"it holds more than {MAX_KEYS} keys")
        fingerprint = _fingerprint(body)
        if tag == _PUBLIC_KEY:
            primary = fingerprint
        elif not primary:
            raise DocumentError("it begins with a subkey")
        if fingerprint:
            name, bits = _algorithm(body)
            digest = hashlib.sha256(body).hexdigest()
            keys.append(PublicKey(fingerprint=fingerprint, primary=primary, algorithm=name, bits=bits, sha256=digest))
    if not keys:
        raise DocumentError("it holds no public key")
    return binary, tuple(keys)


def split_keyring(binary: bytes) -> dict[str, bytes]:
    """Return each primary key of a binary keyring with all that belongs to it, by its fingerprint; trust left out.

    Raises:
        DocumentError: It is no sequence of packets.
    """
    found: dict[str, bytearray] = {}
    block = bytearray()
    for tag, body in packets(binary):
        if tag == _PUBLIC_KEY:
            block = found.setdefault(_fingerprint(body), bytearray())
        if tag in {_PUBLIC_KEY, _PUBLIC_SUBKEY, *_PUBLISHED}:
            block += bytes((0xC0 | tag, 0xFF)) + len(body).to_bytes(4, "big") + body
    return {fingerprint: bytes(block) for fingerprint, block in found.items() if fingerprint}


def armour(binary: bytes) -> str:
    """Return public keys in ASCII armour (RFC 9580, 6.2), one block."""
    text = base64.b64encode(binary).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    check = base64.b64encode(_crc24(binary).to_bytes(3, "big")).decode("ascii")
    kind = "PGP PUBLIC KEY BLOCK"
    return "\n".join((f"-----BEGIN {kind}-----", "", *lines, f"={check}", f"-----END {kind}-----", ""))


def read_detached_signature(data: bytes) -> bytes:
    """Return the binary form of a detached signature, which holds signatures and nothing else.

    Raises:
        DocumentError: It is no such thing. A document with a content of its own would let two readers verify one text
            and use another.
    """
    if len(data) > SIGNATURE_LIMIT_BYTES:
        raise DocumentError(f"its signatures are longer than {SIGNATURE_LIMIT_BYTES} bytes")
    binary = _without_armour(data, b"SIGNATURE") if _is_armoured(data) else data
    tags = [tag for tag, _ in packets(binary)]
    if not tags or set(tags) != {_SIGNATURE}:
        raise DocumentError("it is no detached signature: it holds something else than signatures, or nothing")
    return binary


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of each packet (RFC 9580, 4.2).

    Raises:
        DocumentError: They are malformed, cut off, or of unknown length.
    """
    position = 0
    for _ in range(_MAX_PACKETS):
        if position == len(data):
            return
        tag, start, length = _header(data, position)
        position = start + length
        if position > len(data):
            raise DocumentError("it is no sequence of OpenPGP packets, or is cut off")
        yield tag, data[start:position]
    raise DocumentError(f"it holds more than {_MAX_PACKETS} packets")


def _header(data: bytes, position: int) -> tuple[int, int, int]:
    """Return a packet's kind, where its content starts, and how long that is."""
    first = data[position]
    if not first & 0x80:
        raise DocumentError("it is no sequence of OpenPGP packets, nor ASCII armour")
    rest = data[position + 1 : position + 6]
    if first & 0x40:
        return first & 0x3F, *_new_length(rest, position + 1)
    octets = (1, 2, 4, 0)[first & 3]
    if octets == 0 or len(rest) < octets:
        raise DocumentError("it holds a packet of unknown length")
    return (first >> 2) & 0x0F, position + 1 + octets, int.from_bytes(rest[:octets], "big")


def _new_length(rest: bytes, position: int) -> tuple[int, int]:
    first = rest[0] if rest else 224
    if first < 192:  # noqa: PLR2004 - RFC 9580, 4.2.1
        return position + 1, first
    if first < 224 and len(rest) > 1:  # noqa: PLR2004 - likewise
        return position + 2, ((first - 192) << 8) + rest[1] + 192
    if first == 255 and len(rest) == 5:  # noqa: PLR2004 - likewise
        return position + 5, int.from_bytes(rest[1:], "big")
    raise DocumentError("it holds a packet of unknown length")


def _fingerprint(body: bytes) -> str:
    """Return a key's fingerprint (RFC 9580, 5.5.4); empty for the kinds of long ago, which nothing here accepts."""
    version = body[0] if body else 0
    if version == _V4:
        material = b"\x99" + len(body).to_bytes(2, "big") if len(body) < 1 << 16 else b""
        if not material:
            raise DocumentError("it holds a key that is longer than keys are")
        return hashlib.sha1(material + body, usedforsecurity=False).hexdigest().upper()
    if version in {_V5, _V6}:
        mark = b"\x9a" if version == _V5 else b"\x9b"
        return hashlib.sha256(mark + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    if version in {2, _V3}:
        return ""
    raise DocumentError(f"it holds a key of the unknown version {version}")


def _algorithm(body: bytes) -> tuple[str, int]:
    """Return the name of a key's algorithm, or of its curve, and its size in bits; 0 where that is not known."""
    number = body[5] if len(body) > 5 else 0  # noqa: PLR2004 - version, four octets of date, algorithm
    start = 6 if body[0] == _V4 else 10
    material = body[start:]
    if number in _RSA or number == _DSA:
        return _NAMES[number], int.from_bytes(material[:2], "big")
    if number in {_ECDH, _ECDSA, _EDDSA}:
        length = material[0] if material else 0
        return _CURVES.get(material[1 : 1 + length], ("unknown", 0))
    return _NAMES.get(number, "unknown"), _BITS_BY_ALGORITHM.get(number, 0)


def _is_armoured(data: bytes) -> bool:
    return data.lstrip()[:10] == b"-----BEGIN"


def _without_armour(data: bytes, wanted: bytes) -> bytes:
    """Return what blocks of armour hold, one behind the other (RFC 9580, 6.2)."""
    found = bytearray()
    lines = [line.rstrip() for line in data.split(b"\n")]
    position = 0
    while position < len(lines):
        if not lines[position]:
            position += 1
            continue
        begin = _ARMOUR_BEGIN.fullmatch(lines[position])
        if begin is None or begin[1] != wanted:
            raise DocumentError(f"it holds something else than armour of a PGP {wanted.decode()}")
        end = b"-----END PGP " + wanted + b"-----"
        try:
            stop = lines.index(end, position)
        except ValueError:
            raise DocumentError("its armour is cut off") from None
        found += _decode(lines[position + 1 : stop])
        position = stop + 1
    return bytes(found)


def _decode(lines: list[bytes]) -> bytes:
    start = 0
    while start < len(lines) and _ARMOUR_HEADER.fullmatch(lines[start]):
        start += 1
    body = [line for line in lines[start:] if line]
    crc = body.pop() if body and _CRC_LINE.fullmatch(body[-1]) else None
    try:
        decoded = base64.b64decode(b"".join(body), validate=True)
        expected = None if crc is None else int.from_bytes(base64.b64decode(crc[1:], validate=True), "big")
    except (binascii.Error, ValueError) as problem:
        raise DocumentError("its armour is damaged: it is not base64") from problem
    if expected is not None and _crc24(decoded) != expected:
        raise DocumentError("its armour is damaged: its checksum is another one")
    return decoded


def _crc24(data: bytes) -> int:
    crc = 0xB704CE
    for octet in data:
        crc = ((crc << 8) & 0xFFFFFF) ^ _CRC24_TABLE[(crc >> 16) ^ octet]
    return crc


def _crc24_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        crc = octet << 16
        for _ in range(8):
            crc = (crc << 1) ^ (0x1864CFB if crc & 0x800000 else 0)
        table.append(crc & 0xFFFFFF)
    return tuple(table)


_CRC24_TABLE = _crc24_table()
