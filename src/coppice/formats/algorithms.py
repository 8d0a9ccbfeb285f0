# SPDX-License-Identifier: Apache-2.0
"""Which algorithms a signature may use, and the check of one signature value.

Floor: sha256, and RSA 2048 bits or ECDSA on P-256. SHA-1 is accepted only where a subscription allows it by name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
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
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha1": hashes.SHA1(),  # noqa: S303 - only where a subscription allows it by name
}
_STRONG = ("sha256", "sha384", "sha512")
_DIGESTS = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
    "1.2.840.113549.2.2": "md2",
    "1.2.840.113549.2.4": "md4",
    "1.2.840.113549.2.5": "md5",
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
}
_RSA_PSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"
_SIGNATURES: dict[str, tuple[str, str | None]] = {
    "1.2.840.113549.1.1.1": ("RSA", None),
    _RSA_PSS: ("RSA", None),
    "1.2.840.113549.1.1.2": ("RSA", "md2"),
    "1.2.840.113549.1.1.4": ("RSA", "md5"),
    "1.2.840.113549.1.1.5": ("RSA", "sha1"),
    "1.2.840.113549.1.1.14": ("RSA", "sha224"),
    "1.2.840.113549.1.1.11": ("RSA", "sha256"),
    "1.2.840.113549.1.1.12": ("RSA", "sha384"),
    "1.2.840.113549.1.1.13": ("RSA", "sha512"),
    "1.2.840.10045.4.1": ("ECDSA", "sha1"),
    "1.2.840.10045.4.3.1": ("ECDSA", "sha224"),
    "1.2.840.10045.4.3.2": ("ECDSA", "sha256"),
    "1.2.840.10045.4.3.3": ("ECDSA", "sha384"),
    "1.2.840.10045.4.3.4": ("ECDSA", "sha512"),
}
"""By OID: the kind of key, and the digest where the algorithm fixes it."""
_USAGES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a message was signed: everything that fits together, whether strong enough or not.

    Attributes:
        digest: Name of the digest, over the content and over the signed attributes.
        key: The signer's public key.
        salt_length: In bytes, where the padding is RSA-PSS; None: it is PKCS#1 v1.5, or the key is no RSA key.
    """

    digest: str
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    salt_length: int | None = None

    def require_strong(self, *, allow_sha1: bool) -> None:
        """Check that digest and key are not below the floor.

        Raises:
            WeakSignatureError: One is.
        """
        if self.digest not in _STRONG and not (allow_sha1 and self.digest == "sha1"):
            raise _weak(f"the signature's digest is {self.digest}")
        _require_long(self.key)

    def check(self, signature: bytes, signed: bytes) -> None:
        """Check that ``signature`` over ``signed`` was made with the key.

        Raises:
            TamperedListError: It was not.
        """
        hashing = _HASHES[self.digest]
        try:
            if isinstance(self.key, ec.EllipticCurvePublicKey):
                self.key.verify(signature, signed, ec.ECDSA(hashing))
            elif self.salt_length is None:
                self.key.verify(signature, signed, padding.PKCS1v15(), hashing)
            else:
                chosen = padding.PSS(mgf=padding.MGF1(hashing), salt_length=self.salt_length)
                self.key.verify(signature, signed, chosen, hashing)
        except InvalidSignature:
            raise TamperedListError(
                "the signature does not belong to this list",
                details="The signature value was not made with the signer's key over the signed attributes.",
                resolution="Fetch the list again; if it stays so, tell its publisher.",
            ) from None


def read_scheme(digest_oid: str, algorithm: cms.SignedDigestAlgorithm, certificate: x509.Certificate) -> Scheme:
    """Return how a message was signed.

    Args:
        digest_oid: Of the signer's digest algorithm.
        algorithm: Of the signature.
        certificate: The signer's.

    Raises:
        SignatureFormError: One of the three is not known, or they do not fit together.
    """
    digest = _DIGESTS.get(digest_oid)
    if digest is None:
        raise SignatureFormError(f"the signature's digest algorithm {digest_oid} is not accepted")
    oid = algorithm["algorithm"].dotted
    kind, fixed = _SIGNATURES.get(oid, ("", None))
    key = _accepted_key(certificate)
    if kind != ("RSA" if isinstance(key, rsa.RSAPublicKey) else "ECDSA") or fixed not in {None, digest}:
        raise SignatureFormError(f"the signature algorithm {oid} does not fit the signer's key and digest")
    salt_length = None
    if oid == _RSA_PSS:
        salt_length = _salt_length(algorithm["parameters"], digest, key.key_size)
    return Scheme(digest=digest, key=key, salt_length=salt_length)


def digest_of(name: str, data: bytes | memoryview) -> bytes:
    """Return the digest ``name`` of ``data``."""
    return hashlib.new(name, data, usedforsecurity=name != "sha1").digest()


def digest_by_name(name: str) -> hashes.HashAlgorithm:
    """Return the algorithm ``name``.

    Raises:
        WeakSignatureError: It is none of sha256, sha384, sha512.
    """
    if name not in _STRONG:
        raise _weak(f"the digest {name!r} is none of sha256, sha384, sha512")
    return _HASHES[name]


def require_strong_key(certificate: x509.Certificate) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """Return the public key of ``certificate``.

    Raises:
        WeakSignatureError: It is an RSA key below 2048 bits.
        SignatureFormError: It is of a kind that is not accepted.
    """
    key = _accepted_key(certificate)
    _require_long(key)
    return key


def _accepted_key(certificate: x509.Certificate) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size <= _MAXIMUM_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise SignatureFormError(
        "the signer's key is of a kind that is not accepted (RSA, or ECDSA on P-256, P-384 or P-521)"
    )


def _require_long(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> None:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MINIMUM_RSA_BITS:
        raise _weak(f"the signer's RSA key has {key.key_size} bits; {MINIMUM_RSA_BITS} are the least")


def _salt_length(parameters: cms.RSASSAPSSParams, digest: str, key_bits: int) -> int:
    """Return the length of the salt; RFC 8017, 9.1.1 says how long it can be."""
    masking = parameters["mask_gen_algorithm"]
    named = (parameters["hash_algorithm"]["algorithm"].dotted, masking["parameters"]["algorithm"].dotted)
    if masking["algorithm"].dotted != _MGF1 or any(_DIGESTS.get(one) != digest for one in named):
        raise SignatureFormError("the parameters of the RSA-PSS signature do not name one accepted digest throughout")
    if parameters["trailer_field"].native not in {1, "trailer_field_bc"}:
        raise SignatureFormError("the parameters of the RSA-PSS signature name an unknown trailer")
    salt_length = int(parameters["salt_length"].native)
    if digest in _HASHES and not 0 <= salt_length <= (key_bits + 6) // 8 - _HASHES[digest].digest_size - 2:
        raise SignatureFormError(f"the salt of the RSA-PSS signature cannot have {salt_length} bytes")
    return salt_length


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


def _weak(message: str) -> WeakSignatureError:
    return WeakSignatureError(
        message, resolution="The list must be signed anew with sha256 or better, and a key of RSA 2048 bits or P-256."
    )
