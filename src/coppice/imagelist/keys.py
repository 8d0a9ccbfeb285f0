# SPDX-License-Identifier: Apache-2.0
"""An endorser's certificate and key, wherever they lie, ready to sign."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from coppice.catalogue.model import KeyKind
from coppice.errors import EndorserMismatchError, SignerExpiredError, SignerUsageError, UnreadableFileError
from coppice.formats.algorithms import digest_by_name, require_strong_key
from coppice.formats.names import distinguished_name
from coppice.imagelist.key_files import CERTIFICATE_PROBLEMS, load_pem, load_pkcs12
from coppice.imagelist.material import KeyMaterial, PassphraseSource, warn_of_readers
from coppice.model.endorser import Endorser

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.catalogue.model import EndorserIdentity
    from coppice.formats.cms_sign import Signer
    from coppice.imagelist.material import Ask
    from coppice.model.endorser import DistinguishedName


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningIdentity:
    """An endorser's certificate and key, loaded and fitting each other.

    Attributes:
        certificate: The endorser's.
        signer: Signs with the private key, which it never shows.
        chain: Certificates that follow the endorser's; sent along with the signature.
        endorser: As the list names it.
        digest: ``sha256``, ``sha384`` or ``sha512``: what is signed with.
        warnings: What its owner should know (a key that others can read).
    """

    certificate: x509.Certificate
    signer: Signer
    chain: tuple[x509.Certificate, ...]
    endorser: Endorser
    digest: str = "sha256"
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return who it is, without the key."""
        return f"SigningIdentity({self.endorser.subject})"


def load_identity(
    identity: EndorserIdentity, *, ask: Ask | None = None, environ: Mapping[str, str] | None = None
) -> SigningIdentity:
    """Load an endorser's certificate and key; that they fit each other is tried.

    Args:
        identity: Where they lie.
        ask: Asks a person for a passphrase; None: there is nobody at a terminal.
        environ: The environment; the process's when None.

    Raises:
        UnreadableFileError: A file cannot be read, is not what it should be, or the key is not the certificate's.
        CredentialError: A passphrase or PIN is missing, or another one.
        KeyTokenError: The token that keeps the key cannot be used.
        EndorserMismatchError: The certificate is somebody else's than when the endorser was added.
        WeakSignatureError: Key or digest is below the floor.
        SignatureFormError: The key is of a kind that subscribers do not accept.
    """
    source = PassphraseSource(identity, os.environ if environ is None else environ, ask)
    material = _material(identity, source)
    certificate = material.certificate
    subject, issuer = _names(certificate, identity)
    if certificate.version is not x509.Version.v3:
        raise UnreadableFileError(
            f"the certificate of {identity.name} is not an X.509 v3 certificate; every subscriber would refuse it",
            resolution="Have the authority issue it with extensions: keyUsage digitalSignature, and key identifiers.",
            context={"certificate": str(identity.certificate)},
        )
    digest_by_name(identity.digest)
    require_strong_key(certificate)
    endorser = Endorser(
        name=identity.creator,
        email=identity.email,
        subject=subject,
        issuer=issuer,
    )
    _require_same_person(identity, endorser)
    of_passphrase = warn_of_readers(identity.passphrase_file, "passphrase file") if identity.passphrase_file else ()
    return SigningIdentity(
        certificate=certificate,
        signer=material.signer,
        chain=material.chain,
        endorser=endorser,
        digest=identity.digest,
        warnings=(*material.warnings, *of_passphrase),
    )


def require_usable(identity: SigningIdentity, now: datetime) -> None:
    """Refuse a certificate with which nothing may be signed at ``now``.

    Raises:
        SignerExpiredError: It is not valid at ``now``.
        SignerUsageError: It is not for signing.
    """
    own, certificate = identity.endorser, identity.certificate
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise SignerExpiredError(
            f"the certificate of {own.subject} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d} only",
            resolution="Have the certificate renewed, then `coppice endorser add` it under the same name.",
        )
    for extension in _extensions(certificate):
        if isinstance(extension.value, x509.KeyUsage) and not extension.value.digital_signature:
            raise SignerUsageError(f"the key usage of {own.subject}'s certificate lacks digitalSignature")
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise SignerUsageError(f"the certificate of {own.subject} is an authority's, not an endorser's")


def email_of(certificate: x509.Certificate) -> str | None:
    """Return the e-mail address that a certificate names, in its alternative names or else in its subject."""
    for extension in _extensions(certificate):
        if isinstance(extension.value, x509.SubjectAlternativeName):
            for address in extension.value.get_values_for_type(x509.RFC822Name):
                return address
    subject = certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
    return str(subject[0].value) if subject else None


def _extensions(certificate: x509.Certificate) -> x509.Extensions:
    try:
        return certificate.extensions
    except CERTIFICATE_PROBLEMS as problem:
        raise SignerUsageError(
            "the extensions of the endorser's certificate cannot be read; every subscriber would refuse it",
            details=str(problem)[:300],
            resolution="Have the authority issue it again.",
        ) from problem


def _names(certificate: x509.Certificate, identity: EndorserIdentity) -> tuple[DistinguishedName, DistinguishedName]:
    try:
        return distinguished_name(certificate.subject), distinguished_name(certificate.issuer)
    except CERTIFICATE_PROBLEMS as problem:
        raise UnreadableFileError(
            f"the names in the certificate of {identity.name} cannot be read; every subscriber would refuse it",
            details=str(problem)[:300],
            resolution="Have the authority issue it again.",
            context={"certificate": str(identity.certificate)},
        ) from problem


def _material(identity: EndorserIdentity, source: PassphraseSource) -> KeyMaterial:
    if identity.kind is KeyKind.PKCS11:
        from coppice.imagelist.token import load_token
        from coppice.imagelist.token_uri import TokenUri

        return load_token(TokenUri.parse(str(identity.key)), identity.certificate, source)
    if identity.kind is KeyKind.PKCS12:
        return load_pkcs12(Path(identity.key), source)
    if identity.certificate is None:
        raise UnreadableFileError(
            f"no certificate is named for the endorser {identity.name}",
            resolution="Name its PEM file with --certificate, or a PKCS#12 file that holds key and certificate.",
        )
    return load_pem(identity.certificate, Path(identity.key), source)


def _require_same_person(identity: EndorserIdentity, found: Endorser) -> None:
    expected = (identity.subject or found.subject, identity.issuer or found.issuer)
    if (found.subject, found.issuer) != expected:
        raise EndorserMismatchError(
            f"the certificate of the endorser {identity.name} is now that of {found.subject}",
            details=f"It was added as {expected[0]}, certified by {expected[1]}; now {found.issuer} certifies it.",
            resolution="Put the right certificate back. If the endorser has a new name, tell the subscribers first and "
            "`coppice endorser add` it again.",
        )
