# SPDX-License-Identifier: Apache-2.0
"""Cosign signatures by a key: what was signed, and whether a pinned key signed it.

Sources: "Cosign Signature Specifications" (simple signing, ``SIGNATURE_SPEC.md``); "Cosign Bundle Specification" and
the Sigstore bundle 0.3; "DSSE protocol" 1.0 (pre-authentication encoding); in-toto Statement 1. Keys are pinned by the
site: no transparency log and no certificate adds to that, and none is asked.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import DocumentError, KeyringError
from coppice.formats.oci import is_digest
from coppice.formats.strict_json import read_json, refuse
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

SIMPLE_SIGNING_MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_MEDIA_TYPES = frozenset({BUNDLE_MEDIA_TYPE, "application/vnd.dev.sigstore.bundle+json;version=0.3"})
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
STATEMENT_MEDIA_TYPE = "application/vnd.in-toto+json"
PAYLOAD_LIMIT_BYTES = 64 * 1024
BUNDLE_LIMIT_BYTES = 512 * 1024
KEY_FILE_LIMIT_BYTES = 64 * 1024

_STATEMENTS = frozenset({"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"})
_CLAIM_TYPES = frozenset({"cosign container image signature", "atomic container signature", SIGN_PREDICATE})
_SIGNATURE_LIMIT = 4096
_KEYS = 64
_SUBJECTS = 64
_RSA_LEAST_BITS = 2048
_PEM = re.compile(
    rb"-----BEGIN (?:RSA )?PUBLIC KEY-----[A-Za-z0-9+/=\s]{1,20000}-----END (?:RSA )?PUBLIC KEY-----", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A pinned key.

    Attributes:
        key: As the cryptographic library has it.
        fingerprint: SHA-256 of its SubjectPublicKeyInfo.
    """

    key: PublicKeyTypes
    fingerprint: Checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedClaim:
    """Something that was signed.

    Attributes:
        message: The bytes that the signature is over.
        signature: The signature.
        document: What says which manifest is meant.
        is_statement: Whether that is an in-toto statement, not a simple-signing payload.
    """

    message: bytes
    signature: bytes
    document: bytes
    is_statement: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a signer says.

    Attributes:
        digests: Of the manifests that are meant.
        reference: As what they were signed: ``registry/repository``, perhaps with a tag; None: not said.
    """

    digests: tuple[str, ...]
    reference: str | None = None


def signature_tag(digest: str) -> str:
    """Return the tag of the manifest that holds the signatures of ``digest``."""
    return f"{digest.replace(':', '-', 1)}.sig"


def read_keys(data: bytes, name: str) -> tuple[PublicKey, ...]:
    """Return the public keys of a PEM file.

    Args:
        data: Its bytes.
        name: How errors call it.

    Raises:
        KeyringError: It has none, or one that is not used: of another kind, or too weak.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    if len(data) > KEY_FILE_LIMIT_BYTES:
        raise KeyringError(f"{name} is longer than {KEY_FILE_LIMIT_BYTES} bytes: no file of public keys")
    blocks = _PEM.findall(data)
    # What is not read must not look as if it had been: a block of another kind is an error.
    if not blocks or len(blocks) > _KEYS or data.count(b"-----BEGIN ") != len(blocks):
        raise KeyringError(
            f"{name} is no PEM file of public keys alone",
            resolution="Name the file that `cosign public-key` writes, or one or more such keys in one file.",
        )
    found: list[PublicKey] = []
    for block in blocks:
        try:
            key = load_pem_public_key(block)
            encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm) as problem:
            raise KeyringError(f"{name} has a public key that cannot be read: {problem}") from problem
        _check_kind(key, name)
        found.append(PublicKey(key=key, fingerprint=Checksum.of(encoded, "sha256")))
    return tuple(found)


def is_signed_by(signed: SignedClaim, key: PublicKey) -> bool:
    """Tell whether ``key`` made the signature.

    What cosign makes: RSA is PKCS #1 1.5 with SHA-256, ECDSA with SHA-256 or the hash of the curve's size, Ed25519 over
    the message itself.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    found = key.key
    if isinstance(found, ec.EllipticCurvePublicKey):
        own: hashes.HashAlgorithm = {384: hashes.SHA384(), 521: hashes.SHA512()}.get(found.key_size, hashes.SHA256())
        for algorithm in (hashes.SHA256(), own):
            try:
                found.verify(signed.signature, signed.message, ec.ECDSA(algorithm))
            except InvalidSignature:
                continue
            return True
        return False
    try:
        if isinstance(found, rsa.RSAPublicKey):
            found.verify(signed.signature, signed.message, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(found, ed25519.Ed25519PublicKey):
            found.verify(signed.signature, signed.message)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def read_signature(payload: bytes, annotations: dict[str, str]) -> SignedClaim:
    """Return the signature that a layer of a signature manifest is.

    Args:
        payload: The layer's bytes: a simple-signing payload.
        annotations: Of the layer; one of them is the signature.

    Raises:
        DocumentError: There is no signature, or none of a sensible form.
    """
    signature = _base64(annotations.get(SIGNATURE_ANNOTATION), f"$.annotations.{SIGNATURE_ANNOTATION}")
    return SignedClaim(message=payload, signature=signature, document=payload)


def read_bundle(payload: bytes) -> SignedClaim:
    """Return the signature that a Sigstore bundle holds: a DSSE envelope with one signature.

    Raises:
        DocumentError: It is no such bundle.
    """
    what = "Sigstore bundle"
    said = read_json(payload, what=what, max_bytes=BUNDLE_LIMIT_BYTES, max_text_bytes=BUNDLE_LIMIT_BYTES)
    if said.get("mediaType") not in BUNDLE_MEDIA_TYPES:
        refuse("$.mediaType", f"it is not {BUNDLE_MEDIA_TYPE}", what=what)
    envelope = said.get("dsseEnvelope")
    if not isinstance(envelope, dict):
        refuse("$.dsseEnvelope", "it is no object", what=what)
    if envelope.get("payloadType") != STATEMENT_MEDIA_TYPE:
        refuse("$.dsseEnvelope.payloadType", f"it is not {STATEMENT_MEDIA_TYPE}", what=what)
    document = _base64(envelope.get("payload"), "$.dsseEnvelope.payload", limit=BUNDLE_LIMIT_BYTES)
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        refuse("$.dsseEnvelope.signatures", "it is no array of one signature", what=what)
    return SignedClaim(
        message=authenticated(STATEMENT_MEDIA_TYPE, document),
        signature=_base64(signatures[0].get("sig"), "$.dsseEnvelope.signatures[0].sig"),
        document=document,
        is_statement=True,
    )


def authenticated(payload_type: str, payload: bytes) -> bytes:
    """Return what a DSSE signature is over: the pre-authentication encoding of a payload and its type."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def read_claim(signed: SignedClaim) -> Claim | None:
    """Return what was signed; None: something else than "this manifest is mine" (an attestation of something).

    Raises:
        DocumentError: It is malformed.
    """
    return _statement(signed.document) if signed.is_statement else _simple(signed.document)


def _simple(payload: bytes) -> Claim:
    what = "cosign payload"
    critical = read_json(payload, what=what, max_bytes=PAYLOAD_LIMIT_BYTES).get("critical")
    if not isinstance(critical, dict) or critical.get("type") not in _CLAIM_TYPES:
        refuse("$.critical", "it is no signature of a container image", what=what)
    image, identity = critical.get("image"), critical.get("identity")
    digest = image.get("docker-manifest-digest") if isinstance(image, dict) else None
    if not isinstance(digest, str) or not is_digest(digest):
        refuse("$.critical.image.docker-manifest-digest", "it is no digest", what=what)
    reference = identity.get("docker-reference") if isinstance(identity, dict) else None
    if reference is not None and not isinstance(reference, str):
        refuse("$.critical.identity.docker-reference", "it is no text", what=what)
    return Claim(digests=(digest,), reference=reference or None)


def _statement(payload: bytes) -> Claim | None:
    what = "in-toto statement"
    said = read_json(payload, what=what, max_bytes=BUNDLE_LIMIT_BYTES)
    if said.get("_type") not in _STATEMENTS:
        refuse("$._type", "it is no in-toto statement", what=what)
    if said.get("predicateType") != SIGN_PREDICATE:
        return None
    subjects = said.get("subject")
    if not isinstance(subjects, list) or not 1 <= len(subjects) <= _SUBJECTS:
        refuse("$.subject", f"it is no array of 1 to {_SUBJECTS}", what=what)
    digests: list[str] = []
    for position, subject in enumerate(subjects):
        listed = subject.get("digest") if isinstance(subject, dict) else None
        if not isinstance(listed, dict):
            refuse(f"$.subject[{position}].digest", "it is no object", what=what)
        named = [f"{algorithm}:{text}" for algorithm, text in listed.items() if algorithm in {"sha256", "sha512"}]
        if not named or not all(is_digest(each) for each in named):
            refuse(f"$.subject[{position}].digest", "it has no sha256 or sha512 digest", what=what)
        digests += named
    return Claim(digests=tuple(digests))


def _base64(value: object, path: str, *, limit: int = _SIGNATURE_LIMIT) -> bytes:
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        refuse(path, "it is no text in base64", what="cosign signature")
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, ValueError, UnicodeEncodeError) as problem:
        raise DocumentError(
            f"the cosign signature is malformed at {path}: it is no base64", context={"path": path}
        ) from problem


def _check_kind(key: PublicKeyTypes, name: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_LEAST_BITS:
        return
    if isinstance(key, ed25519.Ed25519PublicKey):
        return
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
        return
    raise KeyringError(
        f"{name} has a key that is not used: {type(key).__name__.lstrip('_')}",
        resolution=f"Use ECDSA over P-256, P-384 or P-521, Ed25519, or RSA of at least {_RSA_LEAST_BITS} bits.",
    )
