# SPDX-License-Identifier: Apache-2.0
"""Lists that must be accepted: every honest form, and what is unusual but right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bad_certificates import igtf
from bad_signatures import crlf, detached, opaque
from cryptography.x509.oid import ExtendedKeyUsageOID
from world import DAY, Made, World, accepted

from coppice.testing.authority import KeyType
from coppice.testing.forgery import as_multipart, as_opaque, as_pem, craft

if TYPE_CHECKING:
    from coppice.testing.authority import Identity

BINARY = "OpenSSL verifies a detached body in its canonical form only, unless told `-binary`"
TAKEN = "Coppice takes it since the subscription says so"


def by(world: World, signer: Identity, **settings: Any) -> Made:
    return Made(message=world.signed(signer=signer), **settings)


@accepted("T1")
def detached_rsa_sha256(world: World) -> Made:
    return by(world, world.jane_rsa)


@accepted("T1")
def detached_ecdsa_sha256(world: World) -> Made:
    return by(world, world.jane)


@accepted("T2")
def both_names_of_the_protocol(world: World) -> Made:
    body = crlf(world.payload())
    return Made(message=as_multipart(body, craft(body, world.jane, detached=True), kind="application/pkcs7-signature"))


@accepted("T2")
def opaque_mime(world: World) -> Made:
    return Made(message=opaque(world))


@accepted("T2")
def opaque_mime_with_x(world: World) -> Made:
    return Made(message=as_opaque(craft(world.payload(), world.jane), kind="application/x-pkcs7-mime"))


@accepted("T2")
def opaque_in_chunks(world: World) -> Made:
    return Made(message=opaque(world, chunk_bytes=100))


@accepted("T2")
def pem_pkcs7(world: World) -> Made:
    return Made(message=as_pem(craft(world.payload(), world.jane)))


@accepted("T2")
def pem_cms(world: World) -> Made:
    return Made(message=as_pem(craft(world.payload(), world.jane), label="CMS"))


@accepted("T2")
def der(world: World) -> Made:
    return Made(message=craft(world.payload(), world.jane))


@accepted("T3")
def line_ends_lf(world: World) -> Made:
    return Made(message=world.signed().replace(b"\r\n", b"\n"))


@accepted("T3")
def line_ends_crlf(world: World) -> Made:
    return Made(message=crlf(world.signed().replace(b"\r\n", b"\n")))


@accepted("T3", openssl=False, why=BINARY)
def signed_as_binary(world: World) -> Made:
    body = world.payload()
    return Made(message=as_multipart(body, craft(body, world.jane, detached=True)))


@accepted("T3", openssl=False, why=BINARY)
def signed_as_binary_and_sent_with_crlf(world: World) -> Made:
    return Made(message=crlf(signed_as_binary(world).message))


@accepted("T3")
def signed_as_text(world: World) -> Made:
    body = b"Content-Type: text/plain\r\n\r\n" + crlf(world.payload())
    return Made(message=as_multipart(body, craft(body, world.jane, detached=True)))


@accepted("T4")
def p384_sha384(world: World) -> Made:
    signer = world.ca.issue("Jane Doe", key_type=KeyType.P384)
    return Made(message=detached(world, signer, digest="sha384"))


@accepted("T4")
def p521_sha512(world: World) -> Made:
    return Made(message=detached(world, world.ca.issue("Jane Doe", key=world.key_of("p521")), digest="sha512"))


@accepted("T4")
def rsa_sha512(world: World) -> Made:
    return Made(message=detached(world, world.jane_rsa, digest="sha512"))


@accepted("T4")
def rsa_pss(world: World) -> Made:
    return Made(message=detached(world, world.jane_rsa, pss=True))


@accepted("T4")
def rsa_pss_with_the_longest_salt(world: World) -> Made:
    return Made(message=detached(world, world.jane_rsa, pss=True, salt_length=222))


@accepted()
def text_before_and_behind_the_parts(world: World) -> Made:
    return Made(message=detached(world) + b"\nThis list was sent by a mailing list.\n")


@accepted()
def wrong_micalg(world: World) -> Made:
    body = crlf(world.payload())
    return Made(message=as_multipart(body, craft(body, world.jane, detached=True), micalg="md5"))


@accepted()
def signer_by_key_identifier(world: World) -> Made:
    return Made(message=opaque(world, key_identifier=True))


@accepted()
def certificate_twice(world: World) -> Made:
    return Made(message=opaque(world, certificates=[world.jane, world.jane]))


@accepted()
def below_an_intermediate(world: World) -> Made:
    signer = world.sub.issue("Jane Doe")
    return by(world, signer, trust=world.trust("with-sub", world.ca, world.sub), endorsers=(signer,))


@accepted()
def intermediate_sent_along(world: World) -> Made:
    signer = world.sub.issue("Jane Doe")
    trust = world.trust("with-sub-crl", world.ca, crls=(world.ca.crl(), world.sub.crl()))
    return by(world, signer, trust=trust, endorsers=(signer,))


@accepted("T22")
def robot(world: World) -> Made:
    return by(world, world.ca.issue("Jane Doe", extended_key_usage=[ExtendedKeyUsageOID.CLIENT_AUTH]))


@accepted("T22")
def certificate_for_mail(world: World) -> Made:
    return by(world, world.ca.issue("Jane Doe", extended_key_usage=[ExtendedKeyUsageOID.EMAIL_PROTECTION]))


@accepted("T22")
def certificate_without_usage(world: World) -> Made:
    return by(world, world.ca.issue("Jane Doe", key_usage=None))


@accepted("T22")
def host_where_hosts_are_accepted(world: World) -> Made:
    signer = world.ca.issue("Jane Doe", extended_key_usage=[ExtendedKeyUsageOID.SERVER_AUTH])
    return by(world, signer, options=("--accept-host-certificate",))


@accepted("T11")
def sha1_where_sha1_is_allowed(world: World) -> Made:
    return Made(message=opaque(world, world.jane_rsa, digest="sha1"), options=("--allow-sha1",))


@accepted("T15")
def within_the_namespace(world: World) -> Made:
    return by(world, world.jane, trust=igtf(world))


@accepted("T21", openssl=False, why=TAKEN)
def no_crl_where_crls_are_asked_if_present(world: World) -> Made:
    trust = world.trust("no-crl-at-all", world.ca, crls=())
    return by(world, world.jane, trust=trust, options=("--revocation", "if-present"))


@accepted("T13")
def one_of_several_endorsers(world: World) -> Made:
    return by(world, world.jane, endorsers=(world.mallory, world.jane))


@accepted()
def renewed_certificate(world: World) -> Made:
    return by(world, world.ca.issue("Jane Doe"), endorsers=(world.jane,))


@accepted("T23")
def folder_with_files_that_cannot_be_used(world: World) -> Made:
    files = {"broken.pem": b"no certificate\n", "empty.pem": b"", "README.pem": b"\x00\xff"}
    return by(world, world.jane, trust=world.trust("untidy", world.ca, files=files))


# What the list says.


@accepted()
def endorsers_as_an_array(world: World) -> Made:
    def edit(content: dict[str, Any]) -> None:
        one = content["hv:endorser"]
        other = json.loads(json.dumps(one))
        other["hv:x509"]["hv:dn"] = "/DC=org/DC=example/CN=John Doe"
        content["hv:endorser"] = [other, one]

    return Made(message=world.signed(world.payload(edit=edit)))


@accepted()
def without_outer_object(world: World) -> Made:
    return Made(message=world.signed(json.dumps(json.loads(world.payload())["hv:imagelist"]).encode()))


@accepted()
def no_endorser_in_the_lenient_profile(world: World) -> Made:
    return Made(message=world.edited(hv_endorser=None), options=("--profile", "lenient"))


@accepted()
def dates_with_fractions_and_offsets(world: World) -> Made:
    created = (world.now - DAY).strftime("%Y-%m-%dT%H:%M:%S.123456+00:00")
    return Made(message=world.edited(dc_date_created=created))


@accepted("T31")
def version_1_10_after_1_9(world: World) -> Made:
    return Made(message=world.edited(hv_version="1.10"), before=world.edited(hv_version="1.9"))


@accepted("T31")
def release_after_its_candidate(world: World) -> Made:
    return Made(message=world.edited(hv_version="2.0"), before=world.edited(hv_version="2.0-rc1"))


@accepted("T31")
def created_later_where_versions_cannot_be_compared(world: World) -> Made:
    now = world.edited(hv_version=None, dc_date_created=world.at(-DAY / 24))
    before = world.edited(hv_version=None, dc_date_created=world.at(-DAY))
    return Made(message=now, before=before, options=("--profile", "lenient"))


@accepted("T31")
def version_that_has_no_place_in_the_order(world: World) -> Made:
    now = world.edited(hv_version="---", dc_date_created=world.at(-DAY / 24))
    return Made(message=now, before=world.edited(hv_version="2", dc_date_created=world.at(-DAY)))


@accepted("T30")
def the_same_again(world: World) -> Made:
    message = world.signed()
    return Made(message=message, before=message)


@accepted("T33")
def version_of_19_digits(world: World) -> Made:
    return Made(message=world.edited(hv_version=str(10**18)), before=world.edited(hv_version="7"))


@accepted("T32")
def created_within_the_skew_of_clocks(world: World) -> Made:
    return Made(message=world.edited(dc_date_created=world.at(DAY / 1440)))


@accepted("T43")
def lives_elsewhere(world: World) -> Made:
    return Made(message=world.edited(hv_uri="https://elsewhere.example.org/demo.list"))


@accepted("T44")
def entry_that_cannot_be_read(world: World) -> Made:
    def edit(content: dict[str, Any]) -> None:
        content["hv:images"][0]["hv:image"]["hv:size"] = "abc"

    return Made(message=world.signed(world.payload(edit=edit)))
