# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coppice.errors import (
    SignatureFormError,
    SignerCountError,
    TamperedListError,
    TrustError,
    UnsignedListError,
    WeakSignatureError,
)
from coppice.formats.cms import open_message
from coppice.formats.cms_sign import sign
from coppice.testing.authority import Identity, KeyType
from coppice.testing.forgery import as_multipart, as_opaque, as_pem, craft

if TYPE_CHECKING:
    from coppice.testing.authority import Authority

pytestmark = pytest.mark.unit
PAYLOAD = b'{"hv:imagelist": {\n  "dc:title": "Example"\n}}\n'
CANONICAL = PAYLOAD.replace(b"\n", b"\r\n")


@pytest.mark.threat("T1")
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_what_is_signed_opens_with_its_signer(jane_with_rsa: Identity, digest: str) -> None:
    message = sign(PAYLOAD, certificate=jane_with_rsa.certificate, key=jane_with_rsa.key, digest=digest)
    opened = open_message(message)
    assert opened.payload == CANONICAL
    assert opened.signer_certificate == jane_with_rsa.certificate
    assert opened.digest == digest
    assert opened.signing_time is not None


def test_the_chain_travels_with_the_signature(authority: Authority) -> None:
    identity = authority.issue_authority("Sub CA").issue("Jane Doe")
    message = sign(PAYLOAD, certificate=identity.certificate, key=identity.key, chain=identity.chain)
    assert open_message(message).other_certificates == identity.chain


@pytest.mark.threat("T2")
@pytest.mark.parametrize(
    "wrap",
    [
        bytes,
        as_opaque,
        lambda der: as_opaque(der, kind="application/x-pkcs7-mime"),
        as_pem,
        lambda der: as_pem(der, label="CMS"),
    ],
    ids=["der", "opaque", "x-opaque", "pkcs7", "cms"],
)
def test_opaque_pem_and_der_are_read(jane: Identity, wrap) -> None:
    assert open_message(wrap(craft(PAYLOAD, jane))).payload == PAYLOAD


@pytest.mark.threat("T3")
def test_line_ends_may_change_on_the_way(jane: Identity) -> None:
    message = sign(PAYLOAD, certificate=jane.certificate, key=jane.key)
    binary = as_multipart(PAYLOAD, craft(PAYLOAD, jane, detached=True))
    for known, payload in ((message, CANONICAL), (binary, PAYLOAD)):
        with_lf = known.replace(b"\r\n", b"\n")
        assert open_message(with_lf).payload == payload
        assert open_message(with_lf.replace(b"\n", b"\r\n")).payload == payload


@pytest.mark.threat("T3")
def test_a_text_header_inside_the_content_is_taken_off(jane: Identity) -> None:
    content = b"Content-Type: text/plain\r\n\r\n" + CANONICAL
    assert open_message(as_multipart(content, craft(content, jane, detached=True))).payload == CANONICAL


@pytest.mark.threat("T4")
def test_other_strong_algorithms_are_accepted(authority: Authority, jane_with_rsa: Identity) -> None:
    other = authority.issue("Jane Doe", key_type=KeyType.P384)
    assert open_message(craft(PAYLOAD, other, digest="sha384")).digest == "sha384"
    assert open_message(craft(PAYLOAD, jane_with_rsa, pss=True)).digest == "sha256"
    assert open_message(craft(PAYLOAD, jane_with_rsa, pss=True, digest="sha512")).digest == "sha512"


@pytest.mark.threat("T5")
def test_one_changed_byte_is_found(jane: Identity) -> None:
    message = sign(PAYLOAD, certificate=jane.certificate, key=jane.key)
    with pytest.raises(TamperedListError):
        open_message(message.replace(b"Example", b"Exanple"))


def test_a_signature_by_another_key_is_found(authority: Authority, jane: Identity) -> None:
    other = authority.issue("Mallory")
    forger = Identity(certificate=jane.certificate, key=other.key)
    with pytest.raises(TamperedListError, match="does not belong"):
        open_message(craft(PAYLOAD, forger))


@pytest.mark.threat("T6")
@pytest.mark.parametrize(
    "message",
    [
        PAYLOAD,
        b"[]",
        b"",
        b" \r\n ",
        b"\n" + PAYLOAD,
        b"Content-Type: application/json\n\n" + PAYLOAD,
        b"Content-Type: multipart/mixed; boundary=B\n\n--B\n\n{}\n--B--\n",
        b"<html></html>",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"0 images",
    ],
)
def test_what_is_not_signed_is_told_apart(message: bytes) -> None:
    with pytest.raises(UnsignedListError):
        open_message(message)


@pytest.mark.threat("T7")
def test_certificates_alone_are_no_signature(jane: Identity) -> None:
    with pytest.raises(SignerCountError, match="no signers"):
        open_message(craft(PAYLOAD, jane, no_signer=True))


@pytest.mark.threat("T8")
@pytest.mark.parametrize("inside", [PAYLOAD, b"{}"])
def test_content_beside_and_inside_is_refused(jane: Identity, inside: bytes) -> None:
    with pytest.raises(SignatureFormError, match="two contents"):
        open_message(as_multipart(PAYLOAD, craft(PAYLOAD, jane, embedded=inside)))


@pytest.mark.threat("T9")
def test_two_signers_are_refused_in_any_order(authority: Authority, jane: Identity) -> None:
    other = authority.issue("Mallory")
    for first, second in ((jane, other), (other, jane)):
        with pytest.raises(SignerCountError, match="2 signers"):
            open_message(craft(PAYLOAD, first, more_signers=[second]))


@pytest.mark.threat("T10")
def test_signed_attributes_are_demanded_once_each(jane: Identity) -> None:
    with pytest.raises(SignatureFormError, match="no signed attributes"):
        open_message(craft(PAYLOAD, jane, signed_attributes=False))
    for kind in ("content_type", "message_digest"):
        with pytest.raises(SignatureFormError, match="twice"):
            open_message(craft(PAYLOAD, jane, doubled_attribute=kind))


@pytest.mark.threat("T11")
@pytest.mark.parametrize("digest", ["md5", "sha1"])
def test_old_digests_are_refused(jane_with_rsa: Identity, digest: str) -> None:
    with pytest.raises(WeakSignatureError, match=digest):
        open_message(craft(PAYLOAD, jane_with_rsa, digest=digest))


@pytest.mark.threat("T11")
def test_short_keys_neither_verify_nor_sign(authority: Authority) -> None:
    short = authority.issue("Short", key_type=KeyType.RSA_1024)
    with pytest.raises(WeakSignatureError, match="1024"):
        open_message(craft(PAYLOAD, short))
    with pytest.raises(WeakSignatureError, match="1024"):
        sign(PAYLOAD, certificate=short.certificate, key=short.key)
    with pytest.raises(WeakSignatureError, match="sha1"):
        sign(PAYLOAD, certificate=short.certificate, key=short.key, digest="sha1")


def test_a_missing_certificate_is_said(authority: Authority, jane: Identity) -> None:
    with pytest.raises(SignatureFormError, match="0 times"):
        open_message(craft(PAYLOAD, jane, certificates=[authority.identity]))
    with pytest.raises(SignatureFormError, match="not in the message"):
        open_message(craft(PAYLOAD, jane, certificates=[]))


def test_a_certificate_that_comes_along_twice_is_one(jane: Identity) -> None:
    opened = open_message(craft(PAYLOAD, jane, certificates=[jane, jane]))
    assert (opened.signer_certificate, opened.other_certificates) == (jane.certificate, ())


@pytest.mark.threat("T12")
def test_a_truncated_message_is_refused_wherever_it_ends(jane: Identity) -> None:
    message = sign(PAYLOAD, certificate=jane.certificate, key=jane.key)
    der = craft(PAYLOAD, jane)
    chosen = random.Random(1)  # noqa: S311 - the same places each time
    for whole in (message.rstrip(b"\r\n-"), der[:-1]):
        for end in (*range(0, len(whole), 97), *chosen.sample(range(len(whole)), 50), len(whole)):
            with pytest.raises(TrustError):
                open_message(whole[:end])


@pytest.mark.threat("T12")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_is_accepted_with_other_content(jane: Identity, data: st.DataObject) -> None:
    originals = _ORIGINALS.setdefault(
        jane.certificate.serial_number,
        [
            sign(PAYLOAD, certificate=jane.certificate, key=jane.key),
            craft(PAYLOAD, jane),
            as_opaque(craft(PAYLOAD, jane)),
        ],
    )
    message = bytearray(data.draw(st.sampled_from(originals)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(message) - 1))
        kind = data.draw(st.integers(0, 2))
        if kind == 0:
            message[place] = data.draw(st.integers(0, 255))
        elif kind == 1:
            del message[place : place + data.draw(st.integers(1, 40))]
        else:
            message[place:place] = data.draw(st.binary(min_size=1, max_size=40))
    try:
        opened = open_message(bytes(message))
    except TrustError:
        return
    assert opened.payload in {PAYLOAD, CANONICAL}
    # Whether the certificate is whole is told by its authority's signature, not by the message's.
    assert opened.signer_certificate.public_key() == jane.certificate.public_key()


_ORIGINALS: dict[int, list[bytes]] = {}


@pytest.mark.threat("T28")
def test_oversized_messages_are_refused_at_once(jane: Identity) -> None:
    der = craft(PAYLOAD, jane, detached=True)
    spaced = as_multipart(PAYLOAD, der).replace(b"\n\n------B--", b" " * 10_000_000 + b"\n\n------B--")
    header = b"X-Padding: " + b"x" * 1_000_000 + b"\n" + as_multipart(PAYLOAD, der)
    opaque = as_opaque(craft(PAYLOAD, jane)) + b"\n" * 10_000_000
    started = time.perf_counter()
    for message in (spaced, header, opaque, b"x" * (25 * 1024 * 1024)):
        with pytest.raises(TrustError):
            open_message(message)
    with pytest.raises(SignatureFormError, match="more than 16"):
        open_message(craft(PAYLOAD, jane, certificates=[jane] * 1000))
    assert time.perf_counter() - started < 4


def test_a_second_boundary_or_content_type_is_refused(jane: Identity) -> None:
    good = as_multipart(PAYLOAD, craft(PAYLOAD, jane, detached=True))
    assert open_message(good).payload == PAYLOAD
    for bad in (
        good.replace(b"MIME-Version: 1.0\n", b"Content-Type: text/plain\n"),
        good.replace(b'boundary="----B"', b'boundary="----B"; boundary="----C"'),
        good.replace(b"\n------B\n", b"\n------B\n\nextra\n------B\n", 1),
        good.replace(b"Content-Type: application/x-pkcs7-signature", b"Content-Type: text/plain"),
        good.replace(b"Encoding: base64", b"Encoding: quoted-printable"),
    ):
        with pytest.raises(SignatureFormError):
            open_message(bad)
