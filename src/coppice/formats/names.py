# SPDX-License-Identifier: Apache-2.0
"""The names in certificates, as `DistinguishedName`, and by the hashes under which directories keep them."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from asn1crypto import core
from asn1crypto import x509 as asn1

from coppice.model.endorser import DistinguishedName

if TYPE_CHECKING:
    from cryptography import x509

_STRINGS = (
    core.UTF8String,
    core.PrintableString,
    core.TeletexString,
    core.IA5String,
    core.UniversalString,
    core.BMPString,
    core.VisibleString,
)


def distinguished_name(name: x509.Name) -> DistinguishedName:
    """Return the structure of ``name``."""
    return DistinguishedName.of_relatives(
        [(attribute.oid.dotted_string, _text(attribute.value)) for attribute in relative] for relative in name.rdns
    )


def _text(value: str | bytes) -> str:
    # Only a bit string (x500UniqueIdentifier) comes as bytes.
    return value if isinstance(value, str) else value.hex()


def subject_hashes(name: x509.Name) -> tuple[str, str]:
    """Return the two hashes of a name by which OpenSSL finds files: of today, and of before version 1.0."""
    return _hashes(name.public_bytes())


@lru_cache(maxsize=256)
def _hashes(der: bytes) -> tuple[str, str]:
    canonical = b"".join(_canonical(relative) for relative in asn1.Name.load(der).chosen)
    # A hash of a name, by which a file is found; it protects nothing.
    old = hashlib.md5(der, usedforsecurity=False).digest()
    new = hashlib.sha1(canonical, usedforsecurity=False).digest()
    return f"{int.from_bytes(new[:4], 'little'):08x}", f"{int.from_bytes(old[:4], 'little'):08x}"


def _canonical(relative: asn1.RelativeDistinguishedName) -> bytes:
    pairs = []
    for each in relative:
        value = each["value"].chosen if isinstance(each["value"], core.Choice) else each["value"]
        encoded = value.dump()
        if isinstance(value, _STRINGS):
            text = re.sub(r"\s+", " ", value.native.strip())
            encoded = core.UTF8String("".join(sign.lower() if sign.isascii() else sign for sign in text)).dump()
        content = each["type"].dump() + encoded
        pairs.append(b"\x30" + _length(content) + content)
    joined = b"".join(sorted(pairs))
    return b"\x31" + _length(joined) + joined


def _length(content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:  # noqa: PLR2004 - DER's short form
        return bytes([size])
    encoded = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(encoded)]) + encoded
