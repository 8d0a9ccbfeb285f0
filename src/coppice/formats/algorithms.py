# SPDX-License-Identifier: Apache-2.0
"""Which algorithms a signature may use, and the check of one signature value."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from coppice.errors import SignatureFormError, TamperedListError, WeakSignatureError

if TYPE_CHECKING:
    from asn1crypto import cms

MINIMUM_RSA_BITS = 2048
_MAXIMUM_RSA_BITS = 16384
_DIGESTS: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "2.16.840.1.101.3.4.2.1": ("sha256", hashes.SHA256()),
    "2.16.840.1.101.3.4.2.2": ("sha384", hashes.SHA384()),
    "2.16.840.1.101.3.4.2.3": ("sha512", hashes.SHA512()),
}
_SHA1 = ("sha1", hashes.SHA1())  # noqa: S303 - only where a subscription allows it by name
_SHA1_OID = "1.3.14.3.2.26"
_SHA1_SIGNATURES = {"1.2.840.113549.1.1.5": "rsa", "1.2.840.10045.4.1": "ecdsa"}
_WEAK_DIGESTS = {
    "1.2.840.113549.2.2": "md2",
    "1.2.840.113549.2.4": "md4",
    "1.2.840.113549.2.5": "md5",
    _SHA1_OID: "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
}
_RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
_RSA_PSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"
_RSA_WITH = {
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
_ECDSA_WITH = {
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
_WEAK_SIGNATURES = {
    "1.2.840.113549.1.1.2": "md2 with RSA",
    "1.2.840.113549.1.1.4": "md5 with RSA",
    "1.2.840.113549.1.1.5": "sha1 with RSA",
    "1.2.840.113549.1.1.14": "sha224 with RSA",
    "1.2.840.10045.4.1": "sha1 with ECDSA",
    "1.2.840.10045.4.3.1": "sha224 with ECDSA",
    "1.2.840.10040.4.3": "sha1 with DSA",
}
_USAGES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def digest_by_oid(oid: str, *, allow_sha1: bool = False) -> tuple[str, hashes.HashAlgorithm]:
    """Return name and algorithm of the digest ``oid``.

    Args:
        oid: Dotted.
        allow_sha1: Whether SHA-1 is accepted; never md5.

    Raises:
        WeakSignatureError: It is below the floor.
        SignatureFormError: It is not known.
    """
    if oid == _SHA1_OID and allow_sha1:
        return _SHA1
    if oid in _WEAK_DIGESTS:
        raise _weak(f"the signature's digest is {_WEAK_DIGESTS[oid]}")
    if oid not in _DIGESTS:
        raise SignatureFormError(f"the signature's digest algorithm {oid} is not accepted")
    return _DIGESTS[oid]


def digest_of(name: str, data: bytes) -> bytes:
    """Return the digest ``name`` of ``data``."""
    return hashlib.new(name, data, usedforsecurity=name != "sha1").digest()


def digest_by_name(name: str) -> hashes.HashAlgorithm:
    """Return the algorithm ``name``.

    Raises:
        WeakSignatureError: It is none of sha256, sha384, sha512.
    """
    for known, algorithm in _DIGESTS.values():
        if known == name:
            return algorithm
    raise _weak(f"the digest {name!r} is none of sha256, sha384, sha512")


def require_strong_key(certificate: x509.Certificate) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """Return the public key of ``certificate``.

    Raises:
        WeakSignatureError: It is an RSA key below 2048 bits.
        SignatureFormError: It is of a kind that is not accepted.
    """
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MINIMUM_RSA_BITS:
            raise _weak(f"the signer's RSA key has {key.key_size} bits; {MINIMUM_RSA_BITS} are the least")
        if key.key_size <= _MAXIMUM_RSA_BITS:
            return key
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise SignatureFormError("the signer's key is of a kind that is not accepted (RSA, or ECDSA on P-256 or P-384)")


def describe_key(certificate: x509.Certificate) -> str:
    """Return of what kind and size the key of ``certificate`` is, for people."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size} bits"
    return f"ECDSA {key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__


def describe_usage(certificate: x509.Certificate) -> str:
    """Return what ``certificate`` may be used for, for people."""
    said = []
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage):
            said.append("digitalSignature" if value.digital_signature else "no digitalSignature")
        if isinstance(value, x509.ExtendedKeyUsage):
            said.extend(_USAGES.get(usage, usage.dotted_string) for usage in value)
    return ", ".join(said) or "no usage is excluded"


def check_signature(
    certificate: x509.Certificate,
    algorithm: cms.SignedDigestAlgorithm,
    digest: tuple[str, hashes.HashAlgorithm],
    signature: bytes,
    signed: bytes,
) -> None:
    """Check that ``signature`` over ``signed`` was made with the key of ``certificate``.

    Raises:
        TamperedListError: It was not.
        WeakSignatureError: Key or algorithm is below the floor.
        SignatureFormError: The algorithm is not accepted, or does not fit key or digest.
    """
    oid = algorithm["algorithm"].dotted
    # The digest was judged before: where it is SHA-1, SHA-1 is allowed.
    with_sha1 = oid in _SHA1_SIGNATURES and digest[0] == "sha1"
    if oid in _WEAK_SIGNATURES and not with_sha1:
        raise _weak(f"the signature was made by {_WEAK_SIGNATURES[oid]}")
    key = require_strong_key(certificate)
    name, hashing = digest
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, _rsa_padding(oid, algorithm, name, hashing), hashing)
        elif _ECDSA_WITH.get(oid) == name or (with_sha1 and _SHA1_SIGNATURES[oid] == "ecdsa"):
            key.verify(signature, signed, ec.ECDSA(hashing))
        else:
            raise SignatureFormError(f"the signature algorithm {oid} does not fit the signer's key and digest")
    except InvalidSignature:
        raise TamperedListError(
            "the signature does not belong to this list",
            details="The signature value was not made with the signer's key over the signed attributes.",
            resolution="Fetch the list again; if it stays so, tell its publisher.",
        ) from None


def _rsa_padding(
    oid: str, algorithm: cms.SignedDigestAlgorithm, name: str, hashing: hashes.HashAlgorithm
) -> padding.AsymmetricPadding:
    if oid == _RSA_ENCRYPTION or _RSA_WITH.get(oid) == name or (name == "sha1" and _SHA1_SIGNATURES.get(oid) == "rsa"):
        return padding.PKCS1v15()
    if oid != _RSA_PSS:
        raise SignatureFormError(f"the signature algorithm {oid} does not fit the signer's key and digest")
    parameters = algorithm["parameters"]
    masking = parameters["mask_gen_algorithm"]
    named = (parameters["hash_algorithm"]["algorithm"].dotted, masking["parameters"]["algorithm"].dotted)
    if masking["algorithm"].dotted != _MGF1 or any(_DIGESTS.get(one, ("",))[0] != name for one in named):
        raise SignatureFormError("the parameters of the RSA-PSS signature do not name one accepted digest throughout")
    salt_length = int(parameters["salt_length"].native)
    if not 0 <= salt_length <= hashing.digest_size:
        raise SignatureFormError(f"the salt of the RSA-PSS signature cannot have {salt_length} bytes")
    return padding.PSS(mgf=padding.MGF1(hashing), salt_length=salt_length)


def _weak(message: str) -> WeakSignatureError:
    return WeakSignatureError(
        message, resolution="The list must be signed anew with sha256 or better, and a key of RSA 2048 bits or P-256."
    )
