# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coppice.errors import (
    AuthorityRevokedError,
    ChangedListError,
    EndorserMismatchError,
    ExpiredListError,
    FutureListError,
    ListIdentifierError,
    MalformedListError,
    OlderListError,
    RevocationExpiredError,
    RevocationForgedError,
    RevocationUnknownError,
    SignerExpiredError,
    SignerRevokedError,
    SignerUsageError,
    TamperedListError,
    UnsignedListError,
    UntrustedSignerError,
    WrongSignerError,
)
from coppice.model.endorser import DistinguishedName
from coppice.subscription.anchors import TrustAnchors
from coppice.subscription.model import RevocationPolicy, TrustedVersion
from coppice.subscription.rules import verify_list
from coppice.testing.authority import Authority, Identity, make_key, make_name
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from coppice.subscription.model import VerifiedImageList

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def anchors_of(*authorities: Authority, crls: Any = None) -> TrustAnchors:
    return TrustAnchors(
        certificates=tuple(each.identity.certificate for each in authorities),
        crls=tuple(each.crl() for each in authorities) if crls is None else tuple(crls),
        problems=(),
        path=Path("/anchors"),
    )


def verify(publisher: Simulator, message: bytes | None = None, **changes: Any) -> VerifiedImageList:
    revocation = changes.pop("revocation", RevocationPolicy.REQUIRE)
    subscription = publisher.subscription(Path("/anchors"), revocation=revocation)
    given: dict[str, Any] = {
        "subscription": subscription,
        "anchors": anchors_of(publisher.authority),
        "last": None,
        "now": NOW,
        **changes,
    }
    return verify_list(publisher.message() if message is None else message, **given)


def publisher_with(endorser: Identity, authority: Authority) -> Simulator:
    simulator = Simulator.create(authority, endorser=endorser)
    simulator.add_image()
    return simulator


@pytest.mark.threat("T1")
def test_an_honest_list_is_verified(publisher: Simulator) -> None:
    verified = verify(publisher)
    assert verified.content.identifier == publisher.identifier
    assert verified.signer == DistinguishedName.parse("/DC=org/DC=example/CN=Jane Doe")
    assert verified.signer_issuer == DistinguishedName.parse("/DC=org/DC=example/CN=Example CA")
    assert verified.verified_at == NOW
    assert verified.warnings == ()


@pytest.mark.threat("T5")
def test_a_tampered_list_is_refused(publisher: Simulator) -> None:
    with pytest.raises(TamperedListError):
        verify(publisher, publisher.tampered())


@pytest.mark.threat("T6")
def test_an_unsigned_list_is_refused(publisher: Simulator) -> None:
    with pytest.raises(UnsignedListError):
        verify(publisher, publisher.unsigned())


@pytest.mark.threat("T13")
def test_a_trusted_signer_who_is_not_pinned_is_refused(publisher: Simulator, authority: Authority) -> None:
    with pytest.raises(WrongSignerError, match="Mallory"):
        verify(publisher, publisher.message(signer=authority.issue("Mallory")))


@pytest.mark.threat("T14")
def test_a_list_that_names_another_endorser_is_refused(publisher: Simulator) -> None:
    document = publisher.document()
    document["hv:imagelist"]["hv:endorser"]["hv:x509"]["hv:dn"] = "/DC=org/DC=example/CN=John Doe"
    with pytest.raises(EndorserMismatchError, match="John Doe"):
        verify(publisher, publisher.message(payload=json.dumps(document).encode()))


@pytest.mark.threat("T15")
def test_the_same_name_below_another_trusted_authority_is_refused(publisher: Simulator) -> None:
    other = Authority.create("Other CA")
    with pytest.raises(WrongSignerError, match="Jane Doe"):
        verify(
            publisher,
            publisher.message(signer=other.issue("Jane Doe")),
            anchors=anchors_of(publisher.authority, other),
        )


@pytest.mark.threat("T15")
@pytest.mark.parametrize("revocation", RevocationPolicy)
def test_an_authority_that_another_one_certified_under_the_pinned_name_is_refused(
    publisher: Simulator, revocation: RevocationPolicy
) -> None:
    other = Authority.create("Other CA")
    imposter = other.issue_authority("Example CA")
    crls = [other.crl(), imposter.crl()] if revocation is RevocationPolicy.REQUIRE else []
    with pytest.raises(UntrustedSignerError, match="bears the name"):
        verify(
            publisher,
            publisher.message(signer=imposter.issue("Jane Doe")),
            anchors=anchors_of(publisher.authority, other, crls=crls),
            revocation=revocation,
        )


@pytest.mark.threat("T28")
def test_certificates_that_certify_each_other_in_circles_are_refused_fast(publisher: Simulator) -> None:
    key, validity = make_key(), (NOW - DAY, NOW + DAY)
    names = [make_name("A"), make_name("B")]

    def certify(subject: x509.Name, issuer: x509.Name) -> x509.Certificate:
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), *validity)
        return builder.sign(key, hashes.SHA256())

    circle = tuple(certify(*pair) for _ in range(7) for pair in (names, names[::-1]))
    signer = Identity(certificate=certify(publisher.endorser.certificate.subject, names[0]), key=key, chain=circle)
    started = time.process_time()
    with pytest.raises(UntrustedSignerError):
        verify(publisher, publisher.message(signer=signer))
    assert time.process_time() - started < 1


@pytest.mark.threat("T16")
def test_a_slash_in_a_name_imitates_nobody(authority: Authority, jane: Identity) -> None:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "org"),
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example/CN=Jane Doe"),
        ]
    )
    spoofed = authority.issue("", subject=name)
    assert str(spoofed.subject).replace("\\", "") == str(jane.subject)
    with pytest.raises(WrongSignerError):
        verify(publisher_with(jane, authority), publisher_with(jane, authority).message(signer=spoofed))


@pytest.mark.threat("T16")
def test_a_relative_name_of_two_attributes_imitates_nobody(authority: Authority, jane: Identity) -> None:
    name = x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "org")]),
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
                    x509.NameAttribute(NameOID.COMMON_NAME, "Jane Doe"),
                ]
            ),
        ]
    )
    with pytest.raises(WrongSignerError):
        verify(
            publisher_with(jane, authority),
            publisher_with(jane, authority).message(signer=authority.issue("", subject=name)),
        )


@pytest.mark.threat("T17")
def test_an_authority_of_the_same_name_and_another_key_is_not_trusted(publisher: Simulator) -> None:
    attacker = Authority.create("Example CA")
    forged = publisher_with(attacker.issue("Jane Doe"), attacker)
    with pytest.raises(UntrustedSignerError):
        verify(publisher, forged.message())
    with_chain = replace(forged.endorser, chain=(attacker.identity.certificate,))
    with pytest.raises(UntrustedSignerError):
        verify(publisher, publisher.message(signer=with_chain))


def test_a_stranger_is_not_trusted(publisher: Simulator) -> None:
    with pytest.raises(UntrustedSignerError, match="no trust anchor"):
        verify(publisher, anchors=anchors_of(Authority.create("Other CA")))


@pytest.mark.threat("T18")
def test_the_dates_of_the_signer_count(authority: Authority) -> None:
    expired, early = authority.expired(), authority.not_yet_valid()
    with pytest.raises(SignerExpiredError, match=f"{expired.certificate.not_valid_after_utc:%Y-%m-%d}"):
        verify(publisher_with(expired, authority))
    with pytest.raises(SignerExpiredError, match="not valid before"):
        verify(publisher_with(early, authority))


@pytest.mark.threat("T18")
def test_the_dates_of_an_authority_between_count() -> None:
    root = Authority.create("Root CA")
    between = root.issue_authority("Sub CA", not_before=NOW - 300 * DAY, not_after=NOW - DAY)
    publisher = publisher_with(between.issue("Jane Doe"), between)
    with pytest.raises(SignerExpiredError, match="Sub CA"):
        verify(publisher, anchors=anchors_of(root, crls=[root.crl(), between.crl()]))


@pytest.mark.threat("T18")
def test_a_recalled_list_outlives_its_signers_certificate_but_not_itself(authority: Authority) -> None:
    short = authority.issue("Jane Doe", not_before=NOW - 10 * DAY, not_after=NOW + DAY)
    publisher = publisher_with(short, authority)
    message = publisher.message()
    assert any("signer's certificate expires" in str(each) for each in verify(publisher, message).warnings)
    with pytest.raises(SignerExpiredError):
        verify(publisher, message, now=NOW + 2 * DAY)
    assert verify(publisher, message, now=NOW + 2 * DAY, first_verified_at=NOW).content.version == "1"
    with pytest.raises(ExpiredListError):
        verify(publisher, message, now=NOW + 29 * DAY, first_verified_at=NOW)


@pytest.mark.threat("T19")
def test_a_revoked_signer_is_refused_even_when_recalled() -> None:
    authority = Authority.create("Example CA")
    publisher = publisher_with(authority.issue("Jane Doe"), authority)
    assert verify(publisher).content
    authority.revoke(publisher.endorser.certificate)
    for first_verified_at in (None, NOW - timedelta(hours=1)):
        with pytest.raises(SignerRevokedError, match="Jane Doe"):
            verify(publisher, first_verified_at=first_verified_at)
    with pytest.raises(SignerRevokedError):
        verify(publisher, revocation=RevocationPolicy.IF_PRESENT)


@pytest.mark.threat("T20")
def test_a_revoked_authority_between_is_found() -> None:
    root = Authority.create("Root CA")
    between = root.issue_authority("Sub CA")
    publisher = publisher_with(between.issue("Jane Doe"), between)
    good = anchors_of(root, crls=[root.crl(), between.crl()])
    assert verify(publisher, anchors=good).content.version == "1"
    root.revoke(between.identity.certificate)
    for crls in ([root.crl(), between.crl()], [root.crl()]):
        with pytest.raises(AuthorityRevokedError, match="Sub CA"):
            verify(publisher, anchors=anchors_of(root, crls=crls))
    # The authority between is an anchor of its own here: the one above it still has a say.
    with pytest.raises(AuthorityRevokedError, match="Sub CA"):
        verify(publisher, anchors=anchors_of(between, root))


@pytest.mark.threat("T21")
def test_a_crl_that_is_missing_expired_or_forged_leaves_revocation_unknown(publisher: Simulator) -> None:
    authority = publisher.authority
    other = Authority.create("Other CA")
    forged = authority.crl(key=make_key())
    old = authority.crl(last_update=NOW - 10 * DAY, next_update=NOW - DAY)
    future = authority.crl(last_update=NOW + DAY, next_update=NOW + 2 * DAY)
    refusals: list[tuple[list[Any], type[Exception], str]] = [
        ([], RevocationUnknownError, "no CRL"),
        ([other.crl()], RevocationUnknownError, "no CRL"),
        ([forged], RevocationForgedError, "not signed"),
        ([old], RevocationExpiredError, "not current: it expired"),
        ([future], RevocationExpiredError, "not current: it is not valid before"),
    ]
    for crls, error, said in refusals:
        with pytest.raises(error, match=said) as caught:
            verify(publisher, anchors=anchors_of(authority, crls=crls))
        assert getattr(caught.value, "resolution", None)
        if crls and crls[0].issuer == authority.identity.certificate.subject:
            with pytest.raises(error):
                verify(publisher, anchors=anchors_of(authority, crls=crls), revocation=RevocationPolicy.IF_PRESENT)
    verified = verify(publisher, anchors=anchors_of(authority, crls=[]), revocation=RevocationPolicy.IF_PRESENT)
    assert "no CRL" in str(verified.warnings[0])


@pytest.mark.threat("T22")
@pytest.mark.parametrize("usage", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING])
def test_certificates_for_other_uses_are_refused(authority: Authority, usage: x509.ObjectIdentifier) -> None:
    with pytest.raises(SignerUsageError, match="extended key usage"):
        verify(publisher_with(authority.issue("Host", extended_key_usage=[usage]), authority))


@pytest.mark.threat("T22")
def test_key_usage_without_signatures_and_authorities_as_signers_are_refused(authority: Authority) -> None:
    with pytest.raises(SignerUsageError, match="digitalSignature"):
        verify(publisher_with(authority.wrong_usage(), authority))
    with pytest.raises(SignerUsageError, match="authority's"):
        verify(publisher_with(authority.issue_authority("Sub CA").identity, authority))


@pytest.mark.threat("T22")
def test_an_end_entity_certifies_nobody(authority: Authority, jane: Identity) -> None:
    below = Authority(identity=replace(jane, chain=(jane.certificate,)))
    proxy = below.issue("proxy")
    publisher = publisher_with(replace(proxy, chain=(jane.certificate,)), authority)
    with pytest.raises(UntrustedSignerError):
        verify(publisher, anchors=anchors_of(authority, crls=[authority.crl(), below.crl()]))


@pytest.mark.threat("T22")
@pytest.mark.parametrize(
    "usages",
    [
        [ExtendedKeyUsageOID.CLIENT_AUTH],
        [ExtendedKeyUsageOID.EMAIL_PROTECTION],
        [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    ],
)
def test_certificates_of_people_and_robots_are_accepted(authority: Authority, usages: list[Any]) -> None:
    assert verify(publisher_with(authority.issue("Robot", extended_key_usage=usages), authority)).content
    assert verify(publisher_with(authority.issue("Old", key_usage=None), authority)).content


def test_an_unknown_critical_extension_is_refused(authority: Authority) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    with pytest.raises(SignerUsageError, match="unknown critical"):
        verify(publisher_with(authority.issue("Odd", extensions=[(unknown, True)]), authority))


@pytest.mark.threat("T29")
def test_an_older_version_is_refused(publisher: Simulator) -> None:
    verified = verify(publisher, publisher.message(version="10"))
    last = TrustedVersion(version="10", payload_checksum=verified.payload_checksum)
    with pytest.raises(OlderListError, match="9"):
        verify(publisher, publisher.message(version="9"), last=last)
    assert verify(publisher, publisher.message(version="11"), last=last).content.version == "11"


@pytest.mark.threat("T30")
def test_the_same_version_with_other_content_is_refused(publisher: Simulator) -> None:
    first = verify(publisher)
    last = TrustedVersion(version="1", payload_checksum=first.payload_checksum)
    assert verify(publisher, last=last).content == first.content
    publisher.extra["xx:other"] = "content"
    with pytest.raises(ChangedListError):
        verify(publisher, last=last)


@pytest.mark.threat("T31")
@pytest.mark.parametrize(("lower", "higher"), [("1.9", "1.10"), ("20260101", "20260102"), ("2.0-rc1", "2.0")])
def test_versions_have_their_order(publisher: Simulator, lower: str, higher: str) -> None:
    last = TrustedVersion(version=lower, payload_checksum=verify(publisher).payload_checksum)
    assert verify(publisher, publisher.message(version=higher), last=last).content.version == higher
    with pytest.raises(OlderListError):
        verify(publisher, publisher.message(version=lower), last=replace(last, version=higher))


@pytest.mark.threat("T32")
def test_a_list_from_the_future_is_refused(publisher: Simulator) -> None:
    publisher.created = NOW + timedelta(minutes=4)
    assert verify(publisher).content
    publisher.created = NOW + timedelta(minutes=6)
    with pytest.raises(FutureListError):
        verify(publisher)


@pytest.mark.threat("T33")
def test_a_leap_of_the_version_is_accepted_and_said(publisher: Simulator) -> None:
    last = TrustedVersion(version="7", payload_checksum=verify(publisher).payload_checksum)
    verified = verify(publisher, publisher.message(version=str(10**18)), last=last)
    assert any("jumped" in str(warning) for warning in verified.warnings)


def test_an_expired_list_is_refused(publisher: Simulator) -> None:
    with pytest.raises(ExpiredListError):
        verify(publisher, publisher.expired(NOW))
    with pytest.raises(ExpiredListError):
        verify(publisher, now=publisher.expires)


def test_a_stale_list_is_accepted_and_said(publisher: Simulator) -> None:
    assert any("stale" in str(warning) for warning in verify(publisher, now=NOW + 25 * DAY).warnings)


@pytest.mark.threat("T39")
@pytest.mark.threat("T40")
def test_another_list_of_the_same_endorser_is_refused(
    publisher: Simulator, authority: Authority, jane: Identity
) -> None:
    other = publisher_with(jane, authority)
    with pytest.raises(ListIdentifierError, match=other.identifier):
        verify(publisher, other.message())


@pytest.mark.threat("T43")
def test_a_list_that_says_it_lives_elsewhere_is_accepted_and_said(publisher: Simulator) -> None:
    subscription = replace(publisher.subscription(Path("/anchors")), uri="https://mirror.example.org/demo.list")
    verified = verify(publisher, subscription=subscription)
    assert any("mirror.example.org" in str(warning) for warning in verified.warnings)


@pytest.mark.threat("T44")
def test_a_bad_entry_is_said(publisher: Simulator) -> None:
    publisher.add_image(hv_size="abc")
    verified = verify(publisher)
    assert len(verified.content.unreadable) == 1
    assert any("cannot be read" in str(warning) for warning in verified.warnings)


def test_signed_nonsense_is_no_list(publisher: Simulator) -> None:
    with pytest.raises(MalformedListError, match="no image list"):
        verify(publisher, publisher.message(payload=b'{"hv:imagelist": []}'))
