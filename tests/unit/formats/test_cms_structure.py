# SPDX-License-Identifier: Apache-2.0
"""The shape of signatures: what may be BER, what must be DER, which algorithms fit, what S/MIME may look like."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import SignatureFormError, TamperedListError, TrustError, UnsignedListError, WeakSignatureError
from coppice.formats import ber
from coppice.formats.cms import open_message
from coppice.formats.limits import ListLimits
from coppice.formats.smime import unwrap
from coppice.testing import forgery
from coppice.testing.forgery import as_multipart, as_opaque, craft, tlv

if TYPE_CHECKING:
    from coppice.testing.authority import Authority, Identity

pytestmark = pytest.mark.unit
PAYLOAD = b'{"hv:imagelist": {\n  "dc:title": "Example"\n}}\n'


# BER.


def test_a_structure_is_taken_apart_into_its_elements() -> None:
    data = tlv(0x30, b"\x02\x01\x05", tlv(0x04, b"x" * 300))
    structure = ber.Structure(data)
    number, text = structure.children(structure.root())
    assert structure.whole(number) == b"\x02\x01\x05"
    assert structure.contents(text) == b"x" * 300


def test_indefinite_lengths_are_read_to_their_end() -> None:
    inner = b"\x24\x80\x04\x01a\x04\x01b\x00\x00"
    data = b"\x30\x80" + inner + b"\x02\x01\x01\x00\x00"
    structure = ber.Structure(data)
    chunks, number = structure.children(structure.root())
    assert structure.whole(chunks) == inner
    assert [structure.contents(each) for each in structure.children(chunks)] == [b"a", b"b"]
    assert structure.whole(number) == b"\x02\x01\x01"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x05\x00",
        b"\x30\x00\x00",
        b"\x30\x81",
        b"\x30\x85\x00\x00\x00\x00\x00",
        b"\x04\x80\x00\x00",
        b"\x1f\x81\x01\x00",
        b"\x30\x80\x02\x01\x01",
        b"\x30\x80" * 40 + b"\x00\x00" * 40,
        b"\x30\x80" + b"\x05\x00" * 20 + b"\x00\x00",
    ],
    ids=[
        "nothing",
        "half a header",
        "too short",
        "too long",
        "no length",
        "a length of five octets",
        "indefinite where none may be",
        "a long tag",
        "no end",
        "too deep",
        "too many",
    ],
)
def test_what_is_malformed_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        list(_walk(ber.Structure(data, max_elements=20)))


def _walk(structure: ber.Structure) -> list[ber.Element]:
    return list(structure.children(structure.root()))


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        elements = _walk(ber.Structure(data))
    except ValueError:
        return
    assert sum(each.after - each.start for each in elements) <= len(data)


def test_only_the_one_encoding_of_a_set_counts_as_der() -> None:
    a, b = tlv(0x30, b"\x02\x01\x01"), tlv(0x30, b"\x02\x01\x02")
    assert ber.is_der_set(tlv(0x31, a, b))
    assert ber.is_der_set(tlv(0x31))
    assert ber.is_der_set(tlv(0x31, tlv(0x30, b, a))), "the order of a sequence is its own"
    assert ber.is_der_set(tlv(0x31, tlv(0x04, b"x" * 200)))
    assert not ber.is_der_set(tlv(0x31, b, a))
    assert not ber.is_der_set(tlv(0x31, tlv(0x30, tlv(0x31, b, a)))), "a set within counts as well"
    assert not ber.is_der_set(b"\x31\x81\x05" + a)
    assert not ber.is_der_set(b"\x31\x82\x00\x05" + a)
    assert not ber.is_der_set(b"\x31\x80" + a + b"\x00\x00")
    assert not ber.is_der_set(tlv(0x31, b"\x30\x80\x02\x01\x01\x00\x00"))


# Signed attributes.


@pytest.mark.threat("T10")
@pytest.mark.parametrize("encode", [forgery.encode_unsorted, forgery.encode_long, forgery.encode_indefinite])
def test_signed_attributes_must_be_in_der(jane: Identity, encode) -> None:
    with pytest.raises(SignatureFormError, match="not in DER"):
        open_message(craft(PAYLOAD, jane, encode=encode))


@pytest.mark.threat("T10")
def test_each_needed_attribute_is_there_once_with_one_value(jane: Identity) -> None:
    for kind in ("content_type", "message_digest"):
        with pytest.raises(SignatureFormError, match="exactly once"):
            open_message(craft(PAYLOAD, jane, missing_attribute=kind))
        with pytest.raises(SignatureFormError, match="exactly once"):
            open_message(craft(PAYLOAD, jane, doubled_value=kind))
    with pytest.raises(SignatureFormError, match="another type"):
        open_message(craft(PAYLOAD, jane, attribute_type="signed_data"))


@pytest.mark.threat("T10")
def test_signed_attributes_do_not_count_as_content(jane_with_rsa: Identity) -> None:
    content = tlv(0x31, tlv(0x30, b"\x02\x01\x01"))
    with pytest.raises(SignatureFormError, match="no signed attributes"):
        open_message(craft(content, jane_with_rsa, signed_attributes=False))


# Algorithms.


@pytest.mark.threat("T11")
def test_sha1_is_accepted_only_by_name_and_md5_never(jane: Identity, jane_with_rsa: Identity) -> None:
    for signer in (jane, jane_with_rsa):
        with pytest.raises(WeakSignatureError, match="sha1"):
            open_message(craft(PAYLOAD, signer, digest="sha1"))
        assert open_message(craft(PAYLOAD, signer, digest="sha1"), allow_sha1=True).digest == "sha1"
    assert open_message(craft(PAYLOAD, jane_with_rsa, digest="sha1", algorithm="sha1_rsa"), allow_sha1=True)
    for digest in ("md5", "sha224"):
        with pytest.raises(WeakSignatureError, match=digest):
            open_message(craft(PAYLOAD, jane_with_rsa, digest=digest), allow_sha1=True)


@pytest.mark.threat("T4")
@pytest.mark.parametrize("salt_length", [0, 20, 32, 222])
def test_the_salt_of_pss_may_have_any_length_that_fits(jane_with_rsa: Identity, salt_length: int) -> None:
    assert open_message(craft(PAYLOAD, jane_with_rsa, pss=True, salt_length=salt_length)).digest == "sha256"


@pytest.mark.threat("T4")
def test_a_key_on_p521_is_accepted_and_one_on_another_curve_is_not(authority: Authority) -> None:
    good = authority.issue("Jane Doe", key=ec.generate_private_key(ec.SECP521R1()))
    assert open_message(craft(PAYLOAD, good, digest="sha512")).digest == "sha512"
    odd = authority.issue("Jane Doe", key=ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(SignatureFormError, match="kind that is not accepted"):
        open_message(craft(PAYLOAD, odd))


@pytest.mark.parametrize(
    "forging",
    [
        {"algorithm": "sha256_ecdsa"},
        {"algorithm": "sha512_rsa"},
        {"algorithm": "rsassa_pss", "mask_digest": "sha1"},
        {"announced": ["sha512"]},
        {"content_type": "signed_data"},
        {"wrap": "enveloped_data"},
    ],
    ids=lambda forging: "-".join(map(str, forging.values())),
)
def test_what_does_not_fit_together_is_refused(jane_with_rsa: Identity, forging) -> None:
    with pytest.raises(SignatureFormError) as caught:
        open_message(craft(PAYLOAD, jane_with_rsa, **forging))
    assert caught.value.resolution


def test_strength_is_judged_before_integrity_and_form_before_strength(jane: Identity, authority: Authority) -> None:
    forger = replace(jane, key=authority.issue("Mallory").key)
    with pytest.raises(WeakSignatureError):
        open_message(craft(PAYLOAD, forger, digest="sha1"))
    with pytest.raises(SignatureFormError):
        open_message(craft(PAYLOAD, forger, digest="sha1", missing_attribute="message_digest"))


# The signer's certificate.


def test_the_signer_may_be_named_by_the_identifier_of_the_key(jane: Identity, authority: Authority) -> None:
    assert open_message(craft(PAYLOAD, jane, key_identifier=True)).signer_certificate == jane.certificate
    twin = authority.issue("Mallory", key=jane.key)
    with pytest.raises(SignatureFormError, match="2 times"):
        open_message(craft(PAYLOAD, jane, key_identifier=True, certificates=[jane, twin]))


# The wrapping.


def test_content_in_chunks_is_put_together(jane: Identity) -> None:
    assert open_message(craft(PAYLOAD, jane, chunk_bytes=7)).payload == PAYLOAD


def test_text_outside_the_parts_and_names_that_are_not_signed_change_nothing(jane: Identity) -> None:
    der = craft(PAYLOAD, jane, detached=True)
    for message in (
        as_multipart(PAYLOAD, der) + b"\nSent by a mailing list.\n",
        b"Received: by mail\n\tand folded\n" + as_multipart(PAYLOAD, der),
        as_multipart(PAYLOAD, der, micalg="md5"),
        as_multipart(PAYLOAD, der, kind="application/pkcs7-signature"),
    ):
        assert open_message(message).payload == PAYLOAD


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"\n", b"\r\n", b"x\n", b"\n\n", b"--\n", b"----B\n", b"------Bx\n", b"x\r\ny\nz", b"\r\r\n\n"],
)
def test_the_body_is_what_stands_between_the_boundaries(jane: Identity, body: bytes) -> None:
    message = as_multipart(body, craft(body, jane, detached=True))
    assert unwrap(message).body == body
    assert open_message(message).payload == body


def test_the_body_may_have_been_signed_in_three_forms_and_no_other(jane: Identity) -> None:
    mixed = b"a\r\nb\nc\r\n"
    for signed in (b"a\r\nb\r\nc\r\n", mixed, b"a\nb\nc\n"):
        assert open_message(as_multipart(mixed, craft(signed, jane, detached=True))).payload == signed
    for other in (b"a\nb\r\nc\n", b"a\rb\rc\r", b"a\r\nb\r\nc", b"abc"):
        with pytest.raises(TamperedListError):
            open_message(as_multipart(mixed, craft(other, jane, detached=True)))


def test_content_that_only_begins_like_a_header_is_left_as_it_is(jane: Identity) -> None:
    for content in (b"content-", b"Content-Type of a list", b"MIME-Version: 1.0 and no more"):
        assert open_message(craft(content, jane)).payload == content
    with pytest.raises(SignatureFormError, match="encoded as 'base64'"):
        open_message(craft(b"Content-Transfer-Encoding: base64\n\ne30=", jane))


def test_white_space_and_breaks_in_base64_do_not_count_but_foreign_signs_do(jane: Identity) -> None:
    good = as_opaque(craft(PAYLOAD, jane))
    head, _, text = good.partition(b"\n\n")
    loose = head + b"\n\n" + b"\r\n \t".join(text.split())
    assert open_message(loose).payload == PAYLOAD
    for bad in (b"*", b"\x0b", b"\xa0", b"-", b"="):
        with pytest.raises(SignatureFormError, match="base64"):
            open_message(head + b"\n\n" + bad + text)


def test_limits_are_those_that_are_given(jane: Identity) -> None:
    small = ListLimits(size_bytes=len(PAYLOAD) + 10_000)
    for make in (
        lambda payload: craft(payload, jane),
        lambda payload: as_opaque(craft(payload, jane)),
        lambda payload: as_multipart(payload, craft(payload, jane, detached=True)),
    ):
        assert open_message(make(PAYLOAD), limits=small).payload == PAYLOAD
        with pytest.raises(SignatureFormError, match="longer than"):
            open_message(make(PAYLOAD + b" " * 10_001), limits=small)


@pytest.mark.threat("T12")
@given(message=st.binary(max_size=400))
def test_any_bytes_are_refused_by_a_typed_error(message: bytes) -> None:
    with pytest.raises(TrustError):
        open_message(message)


@pytest.mark.threat("T12")
def test_any_text_that_looks_like_mime_is_refused_by_a_typed_error() -> None:
    chosen = random.Random(7)  # noqa: S311 - the same each time
    words = [
        b"Content-Type: multipart/signed; boundary=B\n",
        b"Content-Type: application/pkcs7-mime\n",
        b"Content-Transfer-Encoding: base64\n",
        b"\n",
        b"--B\n",
        b"--B--\n",
        b"MIIB\n",
        b"-----BEGIN CMS-----\n",
        b"-----END CMS-----\n",
        b"\x30\x80\n",
        b"{}",
        b"\xff",
    ]
    for _ in range(2000):
        with pytest.raises((UnsignedListError, SignatureFormError)):
            open_message(b"".join(chosen.choices(words, k=chosen.randint(1, 12))))
