# SPDX-License-Identifier: Apache-2.0
"""Certificates and keys from files: PEM (plain or encrypted, PKCS#8 or traditional) and PKCS#12."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from coppice.errors import CredentialError, UnreadableFileError
from coppice.formats.cms_sign import SoftwareKey
from coppice.imagelist.material import KeyMaterial, read_bounded, warn_of_readers

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.formats.cms_sign import PrivateKey
    from coppice.imagelist.material import PassphraseSource

_PROBLEMS = (ValueError, TypeError, UnsupportedAlgorithm)
CERTIFICATE_PROBLEMS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate, or something in it, raises when it is not what it should be."""


def load_pem(certificate: Path, key: Path, passphrase: PassphraseSource) -> KeyMaterial:
    """Return the certificate and key of two PEM files, or of one that holds both.

    Raises:
        UnreadableFileError: A file cannot be read, is not what it should be, or the key is not the certificate's.
        CredentialError: The passphrase is missing, or another one.
    """
    own, *chain = read_certificates(certificate)
    private = _pem_key(key, passphrase)
    if not is_of(own, private.public_key()):
        raise UnreadableFileError(
            f"the key {key} does not belong to the certificate {certificate}",
            resolution="Name the key that the certificate was made for; the endorser's own certificate comes first in "
            "its file.",
            context={"key": str(key), "certificate": str(certificate)},
        )
    return KeyMaterial(
        certificate=own, chain=tuple(chain), signer=SoftwareKey(private), warnings=warn_of_readers(key, "key")
    )


def load_pkcs12(path: Path, passphrase: PassphraseSource) -> KeyMaterial:
    """Return the certificate and key of a PKCS#12 file (RFC 7292).

    Raises:
        UnreadableFileError: The file cannot be read, or does not hold one key with its certificate.
        CredentialError: The passphrase is missing, or another one.
    """
    data = read_bounded(path, "PKCS#12 file")
    secret = passphrase.fetch(f"the passphrase of {path}")
    key, certificate, others = _open_pkcs12(data, secret, path)
    if key is None:
        raise UnreadableFileError(
            f"there is no private key in {path}",
            resolution="Export certificate and key together.",
            context={"path": str(path)},
        )
    private = _accepted(key, path)
    certificates = [one for one in (certificate, *others) if one is not None]
    own = [one for one in certificates if is_of(one, private.public_key())]
    if not own:
        raise UnreadableFileError(
            f"no certificate in {path} belongs to the key in it",
            resolution="Export certificate and key together.",
            context={"path": str(path)},
        )
    # A file that was kept through a renewal holds both certificates of the same key.
    newest = max(own, key=lambda one: one.not_valid_after_utc)
    return KeyMaterial(
        certificate=newest,
        chain=tuple(one for one in certificates if one not in own),
        signer=SoftwareKey(private),
        warnings=warn_of_readers(path, "key"),
    )


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, in their order; at least one.

    Raises:
        UnreadableFileError: It cannot be read, or holds none.
    """
    data = read_bounded(path, "certificate")
    try:
        return x509.load_pem_x509_certificates(data)
    except CERTIFICATE_PROBLEMS as problem:
        raise UnreadableFileError(
            f"there is no PEM certificate in {path}",
            resolution="Name the file with the certificate; its first line is -----BEGIN CERTIFICATE-----.",
            context={"path": str(path)},
        ) from problem


def is_of(certificate: x509.Certificate, public: object) -> bool:
    """Tell whether a certificate is for the key ``public``; one for a key that nobody knows is for none."""
    try:
        return certificate.public_key() == public
    except CERTIFICATE_PROBLEMS:
        return False


def _pem_key(path: Path, passphrase: PassphraseSource) -> PrivateKey:
    data = read_bounded(path, "key")
    encrypted = b"ENCRYPTED" in data
    if not encrypted and passphrase.named:
        # Better told than ignored: its owner believes that the key is protected.
        raise UnreadableFileError(
            f"the key {path} is not encrypted, but a passphrase is named for it",
            resolution="Leave the passphrase out, or encrypt the key: openssl pkcs8 -topk8.",
            context={"path": str(path)},
        )
    secret = passphrase.fetch(f"the passphrase of {path}")
    if encrypted and secret is None:
        raise UnreadableFileError(
            f"the key {path} is encrypted, and no passphrase was given",
            resolution="Say where it is: --passphrase-file, --passphrase-variable or --ask-passphrase.",
            context={"path": str(path)},
        )
    try:
        key = serialization.load_pem_private_key(data, secret)
    except _PROBLEMS as problem:
        if encrypted and not isinstance(problem, UnsupportedAlgorithm):
            raise _wrong_passphrase(path) from problem
        raise UnreadableFileError(
            f"there is no usable PEM private key in {path}", details=str(problem)[:300], context={"path": str(path)}
        ) from problem
    return _accepted(key, path)


def _open_pkcs12(
    data: bytes, secret: bytes | None, path: Path
) -> tuple[object, x509.Certificate | None, list[x509.Certificate]]:
    # A file without passphrase is written in two ways: with none at all, or with the empty one.
    attempts = [secret] if secret is not None else [None, b""]
    for number, attempt in enumerate(attempts, start=1):
        try:
            return pkcs12.load_key_and_certificates(data, attempt)
        except CERTIFICATE_PROBLEMS as problem:
            if number < len(attempts):
                continue
            if data[:1] != b"\x30" or not isinstance(problem, ValueError | TypeError):
                raise UnreadableFileError(
                    f"{path} is no PKCS#12 file, or one of a kind that is not known",
                    details=str(problem)[:300],
                    resolution="Export certificate and key as PKCS#12 (.p12, .pfx).",
                    context={"path": str(path)},
                ) from problem
            if secret is not None:
                raise _wrong_passphrase(path) from problem
            raise UnreadableFileError(
                f"{path} is encrypted, and no passphrase was given",
                resolution="Say where it is: --passphrase-file, --passphrase-variable or --ask-passphrase.",
                context={"path": str(path)},
            ) from problem
    raise AssertionError(path)


def _wrong_passphrase(path: Path) -> CredentialError:
    return CredentialError(
        f"the key {path} cannot be opened: its passphrase is another one, or the file is damaged",
        resolution="Give the passphrase that the key was encrypted with.",
        context={"path": str(path)},
    )


def _accepted(key: object, path: Path) -> PrivateKey:
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise UnreadableFileError(
            f"the key {path} is of a kind that subscribers do not accept",
            resolution="Use RSA of 2048 bits or more, or ECDSA on P-256, P-384 or P-521.",
            context={"path": str(path)},
        )
    return key
