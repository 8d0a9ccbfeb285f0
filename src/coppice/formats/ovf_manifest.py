# SPDX-License-Identifier: Apache-2.0
"""Manifests of OVF packages (``.mf``) and the signatures below them (``.cert``): DMTF DSP0243, "Package Integrity".

A manifest says the digest of each file. A signature says who wrote the manifest; that its certificate is trusted is
not asked here: an image is believed for the list that names it, never for what lies beside it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from coppice.errors import ManifestError
from coppice.formats.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.x509 import Certificate

MAX_MANIFEST_BYTES = 256 * 1024
_MAX_LINES = 1000
_LINE = re.compile(r"(SHA-?(?:1|256|384|512))[ \t]*\((.{1,255})\)[ \t]*=[ \t]*([0-9A-Fa-f]{16,16384})", re.IGNORECASE)
_WHY_ONE = "programs would hold the files against different digests"
_WHY_CERT = "the manifest is not what its signer signed, or nobody can tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """The digest of one file.

    Attributes:
        algorithm: As `hashlib` calls it.
        hexdigest: Lower-case hexadecimal.
    """

    algorithm: str
    hexdigest: str

    def fits(self, hexdigest: str) -> bool:
        """Tell whether another digest of the same algorithm is the same."""
        return hmac.compare_digest(self.hexdigest, hexdigest)


def read_manifest(content: bytes, *, name: str, offset: int = 0) -> Mapping[str, ManifestEntry]:
    """Return the digests that a manifest says, by the names of the files.

    Args:
        content: All of it.
        name: Of the file that it lies in, for messages.
        offset: Where it begins in that file.

    Raises:
        ManifestError: It is malformed, or names a file twice.
    """
    entries: dict[str, ManifestEntry] = {}
    for algorithm, file, hexdigest, place in _lines(content, name, offset):
        if len(hexdigest) != 2 * hashlib.new(algorithm).digest_size:
            _refuse(name, f"the manifest's digest of {file[:80]!r} has not the length of {algorithm}", place, _WHY_ONE)
        if file in entries:
            _refuse(name, f"the manifest names {file[:80]!r} twice", place, _WHY_ONE)
        entries[file] = ManifestEntry(algorithm=algorithm, hexdigest=hexdigest)
    if not entries:
        _refuse(name, "the manifest names no file", offset, "it vouches for nothing")
    return entries


def check_signature(certificate: bytes, manifest: bytes, manifest_name: str, *, name: str, offset: int = 0) -> str:
    """Check the signature of a manifest, and return whose it is.

    Args:
        certificate: The ``.cert``: one line with the signature in hexadecimal, then the signer's certificate in PEM.
        manifest: The ``.mf``, all of it.
        manifest_name: Its name, which the signature has to mean.
        name: Of the file that both lie in, for messages.
        offset: Where the ``.cert`` begins in that file.

    Raises:
        ManifestError: It is malformed, of an algorithm that is not known, or wrong.
    """
    from coppice.formats.certificates import PARSE_PROBLEMS, quiet, reason

    text, mark, _ = certificate.partition(b"-----BEGIN")
    lines = list(_lines(text, name, offset))
    if not mark or len(lines) != 1:
        _refuse(name, "the manifest's signature is not one line and a certificate", offset, _WHY_CERT)
    algorithm, file, signature, place = lines[0]
    if file != manifest_name:
        _refuse(name, f"the signature is about {file[:80]!r}, the manifest is {manifest_name!r}", place, _WHY_CERT)
    signer = _signer(certificate, name, offset)
    if len(signature) % 2:
        _refuse(name, "the signature's digits are not whole bytes", place, _WHY_CERT)
    try:
        with quiet():
            is_right = _verify(signer, bytes.fromhex(signature), manifest, algorithm)
            subject = signer.subject.rfc4514_string()
    except PARSE_PROBLEMS as problem:
        _refuse(name, f"the manifest's signature cannot be checked: {reason(problem)}", place, _WHY_CERT)
    if not is_right:
        _refuse(name, "the manifest's signature is wrong", place, _WHY_CERT)
    return "".join(letter if letter.isprintable() else "?" for letter in subject)[:255]


def manifest_text(digests: Mapping[str, str], algorithm: str = "SHA256") -> bytes:
    """Return a manifest.

    Args:
        digests: Hexadecimal digests by file, in the order in which they are written.
        algorithm: By which they were computed.
    """
    return "".join(f"{algorithm}({file})= {digest}\n" for file, digest in digests.items()).encode()


def _lines(content: bytes, name: str, offset: int) -> list[tuple[str, str, str, int]]:
    """Return algorithm, file and digits of each line, and where it stands."""
    if len(content) > MAX_MANIFEST_BYTES:
        _refuse(name, f"the manifest, or its signature, has {len(content)} bytes", offset, "it needs far less")
    found = []
    place = offset
    for number, line in enumerate(content.split(b"\n")):
        try:
            text = line.decode().strip(" \t\r").removeprefix("\ufeff")
        except UnicodeDecodeError:
            _refuse(name, "the manifest, or its signature, is no UTF-8", place, _WHY_ONE)
        match = _LINE.fullmatch(text)
        if match is not None:
            found.append((match[1].lower().replace("-", ""), match[2].strip(), match[3].lower(), place))
        elif text or number > _MAX_LINES:
            _refuse(name, f"a line of the manifest, or of its signature, is malformed: {text[:60]!r}", place, _WHY_ONE)
        place += len(line) + 1
    return found


def _signer(certificate: bytes, name: str, offset: int) -> Certificate:
    from cryptography.x509 import Certificate

    from coppice.formats.certificates import read_blocks

    first = next(iter(read_blocks(certificate)), "it has none")
    if not isinstance(first, Certificate):
        said = first if isinstance(first, str) else "it is a revocation list"
        _refuse(name, f"the signer's certificate cannot be read: {said}", offset, _WHY_CERT)
    return first


def _verify(signer: Certificate, signature: bytes, manifest: bytes, algorithm: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    digests: dict[str, hashes.HashAlgorithm] = {
        "sha1": hashes.SHA1(),  # noqa: S303 - of old packages; that it is one is told
        "sha256": hashes.SHA256(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }
    digest = digests[algorithm]
    key = signer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, manifest, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, manifest, ec.ECDSA(digest))
        else:
            message = "the signer's key is neither RSA nor of an elliptic curve"
            raise TypeError(message)
    except InvalidSignature:
        return False
    return True


def _refuse(name: str, found: str, offset: int, why: str) -> NoReturn:
    raise refusal(ManifestError, name, found, why=why, offset=offset)
