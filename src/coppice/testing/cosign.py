# SPDX-License-Identifier: Apache-2.0
"""Signs manifests as cosign does: simple-signing payloads and Sigstore bundles, with a key of one's own."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coppice.formats.cosign import (
    BUNDLE_MEDIA_TYPE,
    SIGN_PREDICATE,
    SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING_MEDIA_TYPE,
    STATEMENT_MEDIA_TYPE,
    authenticated,
)
from coppice.formats.oci import EMPTY_CONFIG, OciDescriptor, OciManifest

if TYPE_CHECKING:
    from typing import Self

    PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class CosignSigner:
    """A key that signs.

    Attributes:
        key: The private key.
    """

    key: PrivateKey

    @classmethod
    def new(cls, kind: str = "p256") -> Self:
        """Make a key: ``p256``, ``p384``, ``ed25519`` or ``rsa``."""
        if kind == "ed25519":
            return cls(ed25519.Ed25519PrivateKey.generate())
        if kind == "rsa":
            return cls(rsa.generate_private_key(public_exponent=65537, key_size=2048))
        return cls(ec.generate_private_key(ec.SECP384R1() if kind == "p384" else ec.SECP256R1()))

    @property
    def public_pem(self) -> bytes:
        """The public key, as ``cosign.pub`` has it."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of ``message``."""
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return self.key.sign(message)

    def layer(self, digest: str, reference: str = "registry.example.org/vo/image") -> tuple[bytes, OciDescriptor]:
        """Return a payload that means ``digest``, and the layer that carries it with its signature."""
        payload = simple_payload(digest, reference)
        signature = base64.b64encode(self.sign(payload)).decode("ascii")
        return payload, OciDescriptor.of(payload, SIMPLE_SIGNING_MEDIA_TYPE, {SIGNATURE_ANNOTATION: signature})

    def bundle(self, digest: str, predicate: str = SIGN_PREDICATE) -> bytes:
        """Return a Sigstore bundle with an in-toto statement that means ``digest``."""
        algorithm, _, digits = digest.partition(":")
        statement = json.dumps(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [{"digest": {algorithm: digits}}],
                "predicateType": predicate,
                "predicate": {},
            }
        ).encode("ascii")
        signature = self.sign(authenticated(STATEMENT_MEDIA_TYPE, statement))
        said = {
            "mediaType": BUNDLE_MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": "a key"}},
            "dsseEnvelope": {
                "payload": base64.b64encode(statement).decode("ascii"),
                "payloadType": STATEMENT_MEDIA_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode("ascii")}],
            },
        }
        return json.dumps(said).encode("ascii")


def simple_payload(digest: str, reference: str) -> bytes:
    """Return what cosign signs for ``digest``."""
    critical = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None}).encode("ascii")


def signatures_manifest(*layers: OciDescriptor) -> OciManifest:
    """Return the manifest that holds signatures, for the tag ``sha256-….sig``."""
    return OciManifest(layers=layers, config=EMPTY_CONFIG)


def bundle_manifest(bundle: bytes, subject: OciDescriptor) -> OciManifest:
    """Return the manifest that attaches a bundle to ``subject``."""
    return OciManifest(
        layers=(OciDescriptor.of(bundle, BUNDLE_MEDIA_TYPE),), artifact_type=BUNDLE_MEDIA_TYPE, subject=subject
    )
