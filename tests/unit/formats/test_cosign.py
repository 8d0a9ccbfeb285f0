# SPDX-License-Identifier: Apache-2.0
"""Signatures of cosign: which key made one, and what it was made for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import DocumentError, KeyringError
from coppice.formats.cosign import (
    SIGNATURE_ANNOTATION,
    is_signed_by,
    read_bundle,
    read_claim,
    read_keys,
    read_signature,
    signature_tag,
)
from coppice.testing.cosign import CosignSigner

pytestmark = pytest.mark.unit
DIGEST = f"sha256:{'ab' * 32}"
SIGNER = CosignSigner.new()


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa"])
def test_a_payload_and_a_bundle_of_each_kind_of_key_are_its_own_and_nobody_elses(kind):
    signer = CosignSigner.new(kind)
    (key,) = read_keys(signer.public_pem, "k")
    (other,) = read_keys(CosignSigner.new(kind).public_pem, "k")
    payload, layer = signer.layer(DIGEST)
    for signed in (read_signature(payload, layer.annotations), read_bundle(signer.bundle(DIGEST))):
        assert is_signed_by(signed, key)
        assert not is_signed_by(signed, other)
        assert not is_signed_by(replace(signed, message=signed.message + b" "), key)
        assert not is_signed_by(
            replace(signed, signature=signed.signature[:-1] + bytes([signed.signature[-1] ^ 1])), key
        )
        assert read_claim(signed).digests == (DIGEST,)
    assert read_claim(read_signature(payload, layer.annotations)).reference == "registry.example.org/vo/image"


def test_several_keys_in_one_file_are_read_in_their_order():
    others = [CosignSigner.new(), CosignSigner.new("ed25519")]
    found = read_keys(b"".join(each.public_pem for each in others), "k")
    assert [each.fingerprint for each in found] == [read_keys(each.public_pem, "k")[0].fingerprint for each in others]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505 - what must be refused
        pem(ec.generate_private_key(ec.SECP256K1())),
        pem(dsa.generate_private_key(2048)),
        SIGNER.public_pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        SIGNER.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        SIGNER.public_pem * 2 + b"x" * 70_000,
    ],
    ids=["empty", "text", "broken", "short-rsa", "other-curve", "dsa", "with-certificate", "private", "long"],
)
def test_a_file_that_is_not_of_usable_public_keys_alone_is_refused(data):
    with pytest.raises(KeyringError):
        read_keys(data, "k")


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[]",
        b"\xff",
        b'{"critical": {"type": "cosign container image signature"}}',
        b'{"critical": {"type": "something", "image": {"docker-manifest-digest": "sha256:' + b"ab" * 32 + b'"}}}',
        b'{"critical": {"type": "cosign container image signature", "image": {"docker-manifest-digest": "md5:00"}}}',
        b'{"critical": {"type": "cosign container image signature", "image": {"docker-manifest-digest": "sha256:'
        + b"ab" * 32
        + b'"}, "identity": {"docker-reference": 5}}}',
    ],
)
def test_a_payload_that_names_no_manifest_is_malformed(payload):
    with pytest.raises(DocumentError):
        read_claim(read_signature(payload, {SIGNATURE_ANNOTATION: "AAAA"}))


@pytest.mark.parametrize("signature", [None, "", "?", "AAA", "ä", "A" * 5000])
def test_a_layer_without_a_signature_is_none(signature):
    with pytest.raises(DocumentError):
        read_signature(b"{}", {} if signature is None else {SIGNATURE_ANNOTATION: signature})


def test_an_attestation_of_something_else_is_no_claim_that_the_image_is_the_publishers():
    assert read_claim(read_bundle(SIGNER.bundle(DIGEST, "https://slsa.dev/provenance/v1"))) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.pop("dsseEnvelope"),
        lambda said: said.update(mediaType="application/json"),
        lambda said: said["dsseEnvelope"].update(payloadType="text/plain"),
        lambda said: said["dsseEnvelope"].update(signatures=[]),
        lambda said: said["dsseEnvelope"].update(signatures=said["dsseEnvelope"]["signatures"] * 2),
        lambda said: said["dsseEnvelope"].update(payload="!"),
    ],
)
def test_a_bundle_of_another_form_is_malformed(change):
    said = json.loads(SIGNER.bundle(DIGEST))
    change(said)
    with pytest.raises(DocumentError):
        read_bundle(json.dumps(said).encode())


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_document_error(data):
    for read in (
        lambda: read_claim(read_bundle(data)),
        lambda: read_claim(read_signature(data, {SIGNATURE_ANNOTATION: "AAAA"})),
    ):
        with pytest.raises(DocumentError):
            read()


def test_the_tag_of_signatures_is_the_digest_with_a_dash():
    assert signature_tag(DIGEST) == f"sha256-{'ab' * 32}.sig"
