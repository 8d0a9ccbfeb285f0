# SPDX-License-Identifier: Apache-2.0
"""Sign an image list with an endorser's certificate and key, and look at the result as a subscriber would."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from coppice.errors import (
    EndorserMismatchError,
    SignerExpiredError,
    SignerUsageError,
    TamperedListError,
    UnreadableFileError,
)
from coppice.formats.cms import open_message
from coppice.formats.cms_sign import sign
from coppice.formats.hepix import read_list, write_list
from coppice.formats.names import distinguished_name
from coppice.imagelist.model import SignedImageList
from coppice.model.checksum import Checksum
from coppice.model.endorser import Endorser

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.catalogue.model import EndorserIdentity
    from coppice.imagelist.model import ImageList


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningIdentity:
    """An endorser's certificate and key, loaded and fitting each other.

    Attributes:
        certificate: The endorser's.
        key: The private key; never shown.
        chain: Certificates that follow the endorser's in its file; sent along with the signature.
        endorser: As the list names it.
        warnings: What its owner should know (a key that others can read).
    """

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    endorser: Endorser
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return who it is, without the key."""
        return f"SigningIdentity({self.endorser.subject})"


def load_identity(identity: EndorserIdentity) -> SigningIdentity:
    """Load an endorser's certificate and key.

    Raises:
        UnreadableFileError: A file cannot be read, is not what it should be, needs another passphrase, or the key is
            not the certificate's.
    """
    certificate, *chain = _certificates(identity.certificate)
    key = _key(identity)
    if key.public_key() != certificate.public_key():
        raise UnreadableFileError(
            f"the key {identity.key} does not belong to the certificate {identity.certificate}",
            resolution="Name the key that the certificate was made for.",
            context={"key": str(identity.key), "certificate": str(identity.certificate)},
        )
    if certificate.version is not x509.Version.v3:
        raise UnreadableFileError(
            f"the certificate {identity.certificate} is not an X.509 v3 certificate; every subscriber would refuse it",
            resolution="Have the authority issue it with extensions: keyUsage digitalSignature, and key identifiers.",
            context={"certificate": str(identity.certificate)},
        )
    warnings = []
    mode = stat.S_IMODE(identity.key.stat().st_mode)
    if mode & 0o077:
        warnings.append(f"others can reach the key {identity.key} (mode {mode:04o}): chmod 600 it")
    endorser = Endorser(
        name=identity.creator,
        email=identity.email,
        subject=distinguished_name(certificate.subject),
        issuer=distinguished_name(certificate.issuer),
    )
    return SigningIdentity(
        certificate=certificate, key=key, chain=tuple(chain), endorser=endorser, warnings=tuple(warnings)
    )


def sign_list(content: ImageList, identity: SigningIdentity, now: datetime) -> SignedImageList:
    """Return ``content`` signed; what is returned was opened and read again.

    Raises:
        EndorserMismatchError: The list names another endorser, or one whose name does not survive being written.
        SignerExpiredError: The certificate is not valid at ``now``.
        SignerUsageError: The certificate is not for signing.
        DocumentError: The content cannot be written as an image list.
    """
    _check_signer(content, identity, now)
    payload = write_list(content)
    message = sign(payload, certificate=identity.certificate, key=identity.key, chain=identity.chain)
    opened = open_message(message)
    read = read_list(opened.payload)
    if not read.names_endorser(identity.endorser.subject, identity.endorser.issuer):
        raise EndorserMismatchError(
            f"the name {identity.endorser.subject} is ambiguous in an image list, and every subscriber would refuse it",
            resolution="Use a certificate whose name contains no '/…=' inside a value.",
        )
    if read != content:
        raise TamperedListError("the signed list does not read as what was to be signed")
    return SignedImageList(
        content=content,
        message=message,
        payload_checksum=Checksum.of(opened.payload),
        signer=identity.endorser.subject,
    )


def _check_signer(content: ImageList, identity: SigningIdentity, now: datetime) -> None:
    own = identity.endorser
    if not content.names_endorser(own.subject, own.issuer):
        named = ", ".join(str(each.subject) for each in content.endorsers) or "nobody"
        raise EndorserMismatchError(f"the list names as endorser {named}, the signer is {own.subject}")
    certificate = identity.certificate
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise SignerExpiredError(
            f"the certificate of {own.subject} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d} only",
            resolution="Have the certificate renewed, then `coppice endorser add` it under the same name.",
        )
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.KeyUsage) and not extension.value.digital_signature:
            raise SignerUsageError(f"the key usage of {own.subject}'s certificate lacks digitalSignature")
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise SignerUsageError(f"the certificate of {own.subject} is an authority's, not an endorser's")


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise UnreadableFileError(
            f"the {what} {path} cannot be read: {problem.strerror}",
            resolution="Check the path and this user's rights.",
            context={"path": str(path)},
        ) from problem


def _certificates(path: Path) -> list[x509.Certificate]:
    data = _read(path, "certificate")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as problem:
        raise UnreadableFileError(
            f"there is no PEM certificate in {path}", details=str(problem)[:300], context={"path": str(path)}
        ) from problem


def _key(identity: EndorserIdentity) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    data = _read(identity.key, "key")
    passphrase = None
    if identity.passphrase_file is not None:
        passphrase = (_read(identity.passphrase_file, "passphrase file").splitlines() or [b""])[0] or None
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        if b"ENCRYPTED" in data:
            raise UnreadableFileError(
                f"the key {identity.key} is encrypted, and "
                + ("its passphrase is another one" if passphrase else "no passphrase was given"),
                resolution="Name a file whose first line is the passphrase.",
                context={"path": str(identity.key)},
            ) from problem
        if passphrase is not None and isinstance(problem, TypeError):
            raise UnreadableFileError(
                f"the key {identity.key} is not encrypted, but a passphrase file is named",
                resolution="Leave the passphrase file out.",
                context={"path": str(identity.key)},
            ) from problem
        raise UnreadableFileError(
            f"there is no usable PEM private key in {identity.key}", context={"path": str(identity.key)}
        ) from problem
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise UnreadableFileError(
            f"the key {identity.key} is of a kind that subscribers do not accept",
            resolution="Use RSA of 2048 bits or more, or ECDSA on P-256 or P-384.",
            context={"path": str(identity.key)},
        )
    return key
