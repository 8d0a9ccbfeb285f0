# SPDX-License-Identifier: Apache-2.0
"""Lists whose signature is missing, malformed, weak, or over something else."""

from __future__ import annotations

import json

from world import Made, World, refused

from coppice.testing import forgery
from coppice.testing.authority import Identity, KeyType
from coppice.testing.forgery import as_multipart, as_opaque, as_pem, craft, tlv

ONE_SIGNER = "OpenSSL accepts any number of signers, and names several"
ATTRIBUTES = "OpenSSL does without signed attributes, and then the signature can be moved to other content"
READINGS = "OpenSSL takes one of two readings; Coppice takes a message that has one only"
ALGORITHMS = "OpenSSL has no floor for digests and keys of a signature at its default security level"


def crlf(payload: bytes) -> bytes:
    return payload.replace(b"\n", b"\r\n")


def detached(world: World, signer: Identity | None = None, **crafting: object) -> bytes:
    """Return a multipart whose signature is crafted."""
    signer = signer or world.jane
    body = crlf(world.payload(signer))
    return as_multipart(body, craft(body, signer, detached=True, **crafting))


def opaque(world: World, signer: Identity | None = None, **crafting: object) -> bytes:
    """Return a message with the content inside the signature, which is crafted."""
    signer = signer or world.jane
    return as_opaque(craft(world.payload(signer), signer, **crafting))


# No signature.


@refused("list-unsigned", "T6")
def raw_json(world: World) -> Made:
    return Made(message=world.payload())


@refused("list-unsigned", "T6")
def json_array(world: World) -> Made:
    return Made(message=json.dumps([json.loads(world.payload())]).encode())


@refused("list-unsigned", "T6")
def json_after_blank_line(world: World) -> Made:
    return Made(message=b"\n" + world.payload())


@refused("list-unsigned", "T6")
def html_page(world: World) -> Made:
    return Made(message=b"<!DOCTYPE html><html><body>It works!</body></html>\n")


@refused("list-unsigned", "T6")
def empty(world: World) -> Made:
    return Made(message=b"")


@refused("list-unsigned", "T6")
def white_space(world: World) -> Made:
    return Made(message=b" \r\n\t\r\n")


@refused("list-unsigned", "T6")
def mime_json(world: World) -> Made:
    return Made(message=b"MIME-Version: 1.0\nContent-Type: application/json\n\n" + world.payload())


@refused("list-unsigned", "T6")
def multipart_mixed(world: World) -> Made:
    return Made(message=detached(world).replace(b"multipart/signed", b"multipart/mixed", 1))


@refused("list-unsigned", "T6")
def certificate_alone(world: World) -> Made:
    return Made(message=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


# The wrapping.


@refused("list-signature-form", "T8", openssl=True, why=READINGS)
def another_content_inside(world: World) -> Made:
    return Made(message=detached(world, embedded=b'{"hv:imagelist": {}}'))


@refused("list-signature-form", "T8", openssl=True, why=READINGS)
def same_content_inside(world: World) -> Made:
    return Made(message=detached(world, embedded=crlf(world.payload())))


@refused("list-signature-form")
def no_content_at_all(world: World) -> Made:
    return Made(message=as_opaque(craft(world.payload(), world.jane, detached=True)))


@refused("list-signature-form")
def three_parts(world: World) -> Made:
    return Made(message=detached(world).replace(b"\n------B\n", b"\n------B\n\n{}\n------B\n", 1))


@refused("list-signature-form")
def no_boundary(world: World) -> Made:
    return Made(message=detached(world).replace(b'; boundary="----B"', b"", 1))


@refused("list-signature-form")
def two_boundaries(world: World) -> Made:
    return Made(message=detached(world).replace(b'boundary="----B"', b'boundary="----C"; boundary="----B"', 1))


@refused("list-signature-form")
def two_content_types(world: World) -> Made:
    return Made(message=b"Content-Type: text/plain\n" + detached(world))


@refused("list-signature-form")
def second_part_is_text(world: World) -> Made:
    kind = b"\nContent-Type: application/x-pkcs7-signature"
    return Made(message=detached(world).replace(kind, b"\nContent-Type: text/plain", 1))


@refused("list-signature-form", openssl=True, why="OpenSSL takes base64 whatever the part says that it is")
def quoted_printable(world: World) -> Made:
    return Made(message=detached(world).replace(b"Encoding: base64", b"Encoding: quoted-printable", 1))


@refused("list-signature-form")
def base64_with_a_foreign_sign(world: World) -> Made:
    return Made(message=detached(world).replace(b"base64\n\n", b"base64\n\n*", 1))


@refused("list-signature-form")
def damaged_pem(world: World) -> Made:
    return Made(message=as_pem(craft(world.payload(), world.jane)).replace(b"-----END", b"----END"))


@refused("list-unsigned")
def text_before_pem(world: World) -> Made:
    return Made(message=b"Here it is:\n" + as_pem(craft(world.payload(), world.jane)))


@refused("list-signature-form", "T28", openssl=True, why="OpenSSL has no limit for white space")
def base64_of_white_space(world: World) -> Made:
    padded = b" " * 10_000_000 + b"\n\n------B--"
    return Made(message=detached(world).replace(b"\n\n------B--", padded, 1))


@refused("list-unsigned", "T28", openssl=True, why="OpenSSL has no limit for headers")
def header_of_a_megabyte(world: World) -> Made:
    return Made(message=b"X-Padding: " + b"x" * 1_000_000 + b"\n" + detached(world))


@refused("list-signature-form", "T28", openssl=True, why="OpenSSL has no limit for the content")
def content_above_the_limit(world: World) -> Made:
    body = crlf(world.payload())[:-1] + b" " * (16 * 1024 * 1024) + b"}"
    return Made(message=as_multipart(body, craft(body, world.jane, detached=True)))


@refused("list-signature-form", "T28", openssl=True, why="OpenSSL has no limit for the content")
def opaque_content_above_the_limit(world: World) -> Made:
    return Made(message=craft(world.payload() + b" " * (16 * 1024 * 1024), world.jane))


@refused("list-signature-form", "T28", openssl=True, why="OpenSSL has no limit for certificates")
def a_thousand_certificates(world: World) -> Made:
    return Made(message=opaque(world, certificates=[world.jane] * 1000))


# The structure.


@refused("list-signature-form", "T12")
def truncated_der(world: World) -> Made:
    return Made(message=craft(world.payload(), world.jane)[:-10])


@refused("list-signature-form", "T12")
def truncated_multipart(world: World) -> Made:
    whole = detached(world)
    return Made(message=whole[: len(whole) * 3 // 4])


@refused("list-signature-form", openssl=True, why="OpenSSL reads to the end of the structure, and no further")
def something_behind_the_structure(world: World) -> Made:
    return Made(message=craft(world.payload(), world.jane) + b"\0\0\0")


@refused("list-signature-form")
def enveloped_data(world: World) -> Made:
    return Made(message=opaque(world, wrap="enveloped_data"))


@refused("list-signature-form", openssl=True, why="OpenSSL takes content of any type for what it is")
def content_is_no_data(world: World) -> Made:
    return Made(message=opaque(world, content_type="encrypted_data"))


@refused("list-signature-form", "T10", openssl=True, why=ATTRIBUTES)
def no_signed_attributes(world: World) -> Made:
    return Made(message=opaque(world, signed_attributes=False))


@refused("list-signature-form", "T10", openssl=True, why=ATTRIBUTES)
def signed_attributes_replayed_as_content(world: World) -> Made:
    """An honest signature is over the attributes; as a signature over them as content it would hold as well."""
    seen: list[bytes] = []

    def remember(attributes: list[bytes]) -> bytes:
        seen.append(forgery.encode_sorted(attributes))
        return seen[-1]

    forgery.signer_info(world.payload(), world.jane_rsa, encode=remember)
    content = bytes([forgery.SET]) + seen[0][1:]
    # RSA with PKCS#1 v1.5 has no chance in it: this is the very signature of the honest list.
    return Made(message=as_opaque(craft(content, world.jane_rsa, signed_attributes=False)))


@refused("list-signature-form", "T10")
def content_type_attribute_twice(world: World) -> Made:
    return Made(message=opaque(world, doubled_attribute="content_type"))


@refused("list-signature-form", "T10")
def message_digest_attribute_twice(world: World) -> Made:
    return Made(message=opaque(world, doubled_attribute="message_digest"))


@refused("list-signature-form", "T10")
def two_digests_in_one_attribute(world: World) -> Made:
    return Made(message=opaque(world, doubled_value="message_digest"))


@refused("list-signature-form", "T10")
def no_digest_attribute(world: World) -> Made:
    return Made(message=opaque(world, missing_attribute="message_digest"))


@refused("list-signature-form", "T10")
def no_content_type_attribute(world: World) -> Made:
    return Made(message=opaque(world, missing_attribute="content_type"))


@refused("list-signature-form", "T10", openssl=True, why="OpenSSL compares that attribute with nothing here")
def content_type_attribute_of_another_type(world: World) -> Made:
    return Made(message=opaque(world, attribute_type="signed_data"))


@refused("list-signature-form", "T10", openssl=True, why=READINGS)
def attributes_in_the_wrong_order(world: World) -> Made:
    return Made(message=opaque(world, encode=forgery.encode_unsorted))


@refused("list-signature-form", "T10")
def attributes_with_a_long_length(world: World) -> Made:
    return Made(message=opaque(world, encode=forgery.encode_long))


@refused("list-signature-form", "T10")
def attributes_of_indefinite_length(world: World) -> Made:
    return Made(message=opaque(world, encode=forgery.encode_indefinite))


@refused("list-signature-form")
def digest_not_announced(world: World) -> Made:
    return Made(message=opaque(world, announced=["sha512"]))


@refused("list-signature-form")
def no_certificate(world: World) -> Made:
    return Made(message=opaque(world, certificates=[]))


@refused("list-signature-form")
def certificate_of_another(world: World) -> Made:
    return Made(message=opaque(world, certificates=[world.mallory]))


@refused("list-signature-form", openssl=True, why=READINGS)
def two_certificates_with_the_signers_key_identifier(world: World) -> Made:
    twin = world.ca.issue("Mallory", key=world.jane.key)
    return Made(message=opaque(world, certificates=[world.jane, twin], key_identifier=True))


@refused("list-signature-form", openssl=True, why="OpenSSL skips certificates that it does not know")
def attribute_certificate_along(world: World) -> Made:
    return Made(message=opaque(world, more_certificates=[tlv(0xA2, tlv(0x02, b"\1"))]))


@refused("list-signature-form")
def signature_of_another_kind_of_key(world: World) -> Made:
    return Made(message=opaque(world, world.jane_rsa, algorithm="sha256_ecdsa"))


@refused("list-signature-form", openssl=True, why="OpenSSL takes the digest algorithm and lets the other name be")
def signature_with_another_digest(world: World) -> Made:
    return Made(message=opaque(world, world.jane_rsa, algorithm="sha512_rsa"))


@refused("list-signature-form")
def pss_with_a_mask_of_sha1(world: World) -> Made:
    return Made(message=opaque(world, world.jane_rsa, pss=True, mask_digest="sha1"))


@refused("list-signature-form", openssl=True, why=ALGORITHMS)
def key_on_an_unusual_curve(world: World) -> Made:
    signer = world.ca.issue("Jane Doe", key=world.key_of("secp256k1"))
    return Made(message=opaque(world, signer))


@refused("list-signature-form")
def ed25519_key(world: World) -> Made:
    key = world.key_of("ed25519")
    certificate = world.certify(world.ca, world.name("Jane Doe"), key)
    signer = Identity(certificate=certificate, key=key)
    return Made(message=opaque(world, signer, algorithm="ed25519", digest="sha512"))


# The number of signers.


@refused("list-signer-count", "T7")
def none(world: World) -> Made:
    return Made(message=opaque(world, no_signer=True))


@refused("list-signer-count", "T9", openssl=True, why=ONE_SIGNER)
def two_good(world: World) -> Made:
    return Made(message=opaque(world, more_signers=[world.mallory]))


@refused("list-signer-count", "T9", openssl=True, why=ONE_SIGNER)
def two_good_in_the_other_order(world: World) -> Made:
    return Made(message=as_opaque(craft(world.payload(), world.mallory, more_signers=[world.jane])))


@refused("list-signer-count", "T9")
def good_then_bad(world: World) -> Made:
    forger = Identity(certificate=world.mallory.certificate, key=world.jane.key)
    return Made(message=opaque(world, more_signers=[forger]))


@refused("list-signer-count", "T9")
def bad_then_good(world: World) -> Made:
    forger = Identity(certificate=world.mallory.certificate, key=world.jane.key)
    return Made(message=as_opaque(craft(world.payload(), forger, more_signers=[world.jane])))


@refused("list-signer-count", "T9", openssl=True, why=ONE_SIGNER)
def the_same_twice(world: World) -> Made:
    return Made(message=opaque(world, more_signers=[world.jane]))


# Strength.


@refused("list-signature-weak", "T11", openssl=True, why=ALGORITHMS)
def digest_md5(world: World) -> Made:
    return Made(message=opaque(world, world.jane_rsa, digest="md5"))


@refused("list-signature-weak", "T11", openssl=True, why=ALGORITHMS)
def digest_md5_even_where_sha1_is_allowed(world: World) -> Made:
    return Made(message=opaque(world, world.jane_rsa, digest="md5"), options=("--allow-sha1",))


@refused("list-signature-weak", "T11", openssl=True, why=ALGORITHMS)
def digest_sha1(world: World) -> Made:
    return Made(message=opaque(world, digest="sha1"))


@refused("list-signature-weak", "T11", openssl=True, why=ALGORITHMS)
def digest_sha1_with_rsa(world: World) -> Made:
    return Made(message=detached(world, world.jane_rsa, digest="sha1"))


@refused("list-signature-weak", "T11", openssl=True, why=ALGORITHMS)
def digest_sha224(world: World) -> Made:
    return Made(message=opaque(world, digest="sha224"))


@refused("list-signature-weak", "T11", openssl=True, why=ALGORITHMS)
def key_of_1024_bits(world: World) -> Made:
    signer = world.ca.issue("Jane Doe", key_type=KeyType.RSA_1024)
    return Made(message=opaque(world, signer))


@refused("list-signature-weak", "T11", openssl=True, why=ALGORITHMS)
def key_of_1536_bits(world: World) -> Made:
    signer = world.ca.issue("Jane Doe", key=world.key_of("1536"))
    return Made(message=opaque(world, signer))


# Integrity.


@refused("list-tampered", "T5")
def one_byte_of_the_body(world: World) -> Made:
    return Made(message=world.signed().replace(b"Example list", b"Exanple list", 1))


@refused("list-tampered", "T5")
def one_byte_of_the_embedded_content(world: World) -> Made:
    return Made(message=craft(world.payload(), world.jane).replace(b"Example list", b"Exanple list", 1))


@refused("list-tampered", "T5")
def another_body(world: World) -> Made:
    body = crlf(world.payload())
    return Made(message=as_multipart(body.replace(b"2.0", b"2.1") + b"\r\n", craft(body, world.jane, detached=True)))


@refused("list-tampered", "T5")
def signature_of_another_list(world: World) -> Made:
    other = craft(
        crlf(world.payload(edit=lambda content: content.update({"hv:version": "7"}))), world.jane, detached=True
    )
    return Made(message=as_multipart(crlf(world.payload()), other))


@refused("list-tampered")
def signature_by_another_key(world: World) -> Made:
    forger = Identity(certificate=world.jane.certificate, key=world.mallory.key)
    return Made(message=detached(world, forger))


@refused("list-tampered")
def signature_value_flipped(world: World) -> Made:
    der = craft(world.payload(), world.jane_rsa)
    return Made(message=der[:-1] + bytes([der[-1] ^ 1]))


@refused("list-tampered")
def pss_called_pkcs1(world: World) -> Made:
    return Made(message=opaque(world, world.jane_rsa, pss=True, algorithm="sha256_rsa"))
