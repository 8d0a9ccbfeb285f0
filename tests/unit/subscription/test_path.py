# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from coppice.errors import (
    AuthorityRevokedError,
    RevocationUnknownError,
    SignerExpiredError,
    SignerUsageError,
    TrustError,
    UntrustedSignerError,
    WeakSignatureError,
)
from coppice.subscription.anchors import load_anchors
from coppice.subscription.model import RevocationPolicy
from coppice.testing.authority import Authority, Identity, KeyType, make_key, make_name
from coppice.testing.odd import Oddity, altered, make_proxy
from coppice.testing.paths import NOW, anchors_of, check

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.subscription.anchors import TrustAnchors

pytestmark = pytest.mark.unit
DAY = timedelta(days=1)


def sha1(authority: Authority, above: Authority | None = None) -> Authority:
    """Return the authority with its certificate signed with sha1."""
    own = authority.identity
    return replace(authority, identity=odd(own, above or authority, digest="sha1"))


def odd(identity: Identity, authority: Authority, oddity: Oddity | None = None, digest: str = "sha256") -> Identity:
    certificate = altered(identity.certificate, authority.identity.key, oddity or Oddity(), digest=digest)
    return replace(identity, certificate=certificate)


def refusal(signer: Identity, anchors: TrustAnchors, **policy: Any) -> TrustError:
    with pytest.raises(TrustError) as caught:
        check(signer, anchors, **policy)
    return caught.value


def test_a_path_leads_from_the_signer_to_the_root_and_names_the_anchor() -> None:
    root = Authority.create("Root CA")
    between = root.issue_authority("Sub CA")
    jane = between.issue("Jane Doe")
    soon = between.crl(next_update=NOW + 5 * DAY)
    found = check(jane, anchors_of(root, crls=[root.crl(), soon]))
    assert found.certificates == (jane.certificate, between.identity.certificate, root.identity.certificate)
    assert found.anchor == root.identity.certificate
    assert (found.warnings, found.pinned) == ((), False)
    assert found.crl_next_update == soon.next_update_utc
    lowest = check(jane, anchors_of(root, between))
    assert (lowest.anchor, lowest.certificates) == (between.identity.certificate, found.certificates)


def test_an_intermediate_may_come_from_the_message_or_from_the_anchors() -> None:
    root = Authority.create("Root CA")
    between = root.issue_authority("Sub CA")
    bare = replace(between.issue("Jane Doe"), chain=())
    assert check(bare, anchors_of(root, between)).certificates[-1] == root.identity.certificate
    with pytest.raises(UntrustedSignerError, match="no trust anchor"):
        check(bare, anchors_of(root, crls=[root.crl(), between.crl()]))


def test_what_came_with_the_message_has_no_say_above_an_anchor() -> None:
    root = Authority.create("Root CA")
    between = root.issue_authority("Sub CA")
    jane = between.issue("Jane Doe")
    # The root is in the message, is not trusted, and there is no CRL of it: nobody asks.
    with_root = replace(jane, chain=(*jane.chain, root.identity.certificate))
    found = check(with_root, anchors_of(between))
    assert found.certificates == (jane.certificate, between.identity.certificate)


@pytest.mark.threat("T20")
def test_the_root_above_an_anchor_has_its_say() -> None:
    root = Authority.create("Root CA")
    between = root.issue_authority("Sub CA")
    jane = between.issue("Jane Doe")
    root.revoke(between.identity.certificate)
    with pytest.raises(AuthorityRevokedError, match="Sub CA"):
        check(jane, anchors_of(between, root))
    with pytest.raises(RevocationUnknownError, match="Root CA"):
        check(jane, anchors_of(between, root, crls=[between.crl()]))


def test_a_cross_certified_authority_is_found_by_either_way() -> None:
    first, second = Authority.create("First CA"), Authority.create("Second CA")
    between = first.issue_authority("Sub CA")
    crossed = second.issue_authority("Sub CA", key=between.identity.key)
    jane = replace(between.issue("Jane Doe"), chain=(between.identity.certificate, crossed.identity.certificate))
    for root in (first, second):
        assert check(jane, anchors_of(root, crls=[root.crl(), between.crl()])).anchor == root.identity.certificate
    # A way that fails does not hide one that holds.
    expired = first.issue_authority("Sub CA", key=between.identity.key, not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    mixed = replace(jane, chain=(expired.identity.certificate, crossed.identity.certificate))
    assert check(mixed, anchors_of(first, second, crls=[first.crl(), second.crl(), between.crl()]))


@pytest.mark.threat("T20")
def test_a_revoked_authority_is_not_evaded_by_another_way() -> None:
    first, second = Authority.create("First CA"), Authority.create("Second CA")
    between = first.issue_authority("Sub CA")
    crossed = second.issue_authority("Sub CA", key=between.identity.key)
    jane = replace(between.issue("Jane Doe"), chain=(between.identity.certificate, crossed.identity.certificate))
    first.revoke(between.identity.certificate)
    with pytest.raises(AuthorityRevokedError):
        check(jane, anchors_of(first, second, crls=[first.crl(), second.crl(), between.crl()]))


@pytest.mark.threat("T17")
def test_an_authority_of_the_same_name_and_another_key_is_not_taken_for_the_anchor() -> None:
    honest, attacker = Authority.create("Example CA"), Authority.create("Example CA")
    forged = attacker.issue("Jane Doe")
    for chain in ((), (attacker.identity.certificate,)):
        with pytest.raises(UntrustedSignerError):
            check(replace(forged, chain=chain), anchors_of(honest, crls=[honest.crl(), attacker.crl()]))
    # Two keys of one authority, both trusted, as in a change of keys: each signer finds the right one.
    both = anchors_of(honest, attacker)
    assert check(forged, both).anchor == attacker.identity.certificate
    assert check(honest.issue("Jane Doe"), both).anchor == honest.identity.certificate


@pytest.mark.threat("T28")
def test_authorities_that_certify_each_other_in_circles_end() -> None:
    key, names = make_key(), [make_name(str(number)) for number in range(4)]

    def certify(subject: x509.Name, issuer: x509.Name) -> x509.Certificate:
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), NOW, NOW)
        return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
            key, hashes.SHA256()
        )

    circle = tuple(certify(one, other) for one in names for other in names if one != other)
    signer = Identity(certificate=certify(make_name("Jane"), names[0]), key=key, chain=circle)
    started = time.process_time()
    with pytest.raises(TrustError):
        check(signer, anchors_of(Authority.create("CA")))
    with pytest.raises(TrustError):
        check(signer, anchors_of(Authority(identity=Identity(certificate=circle[-1], key=key))))
    assert time.process_time() - started < 1


@pytest.mark.threat("T18")
def test_the_dates_of_every_certificate_count() -> None:
    root = Authority.create("Root CA")
    old = root.issue_authority("Sub CA", not_before=NOW - 300 * DAY, not_after=NOW - DAY)
    for authority, signer in ((root, root.expired()), (root, root.not_yet_valid()), (old, old.issue("Jane Doe"))):
        with pytest.raises(SignerExpiredError, match=r"\d{4}-\d\d-\d\d"):
            check(signer, anchors_of(root, crls=[root.crl(), authority.crl()]))
    gone = Authority.create("Gone CA", not_before=NOW - 300 * DAY, not_after=NOW - DAY)
    with pytest.raises(SignerExpiredError, match="Gone CA"):
        check(gone.issue("Jane Doe"), anchors_of(gone))


@pytest.mark.threat("T22")
@pytest.mark.parametrize(
    ("usages", "host", "accepted"),
    [
        ((), False, True),
        ((ExtendedKeyUsageOID.CLIENT_AUTH,), False, True),
        ((ExtendedKeyUsageOID.EMAIL_PROTECTION,), False, True),
        ((ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,), False, True),
        ((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH), False, True),
        ((ExtendedKeyUsageOID.SERVER_AUTH,), False, False),
        ((ExtendedKeyUsageOID.SERVER_AUTH,), True, True),
        ((ExtendedKeyUsageOID.CODE_SIGNING,), False, False),
        ((ExtendedKeyUsageOID.CODE_SIGNING,), True, False),
        ((ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.OCSP_SIGNING), True, False),
    ],
)
def test_extended_key_usage_decides(authority: Authority, usages: tuple[Any, ...], host: bool, accepted: bool) -> None:
    signer = authority.issue("Someone", extended_key_usage=usages)
    if accepted:
        assert check(signer, anchors_of(authority), allow_host_certificate=host)
    else:
        assert isinstance(refusal(signer, anchors_of(authority), allow_host_certificate=host), SignerUsageError)


@pytest.mark.threat("T22")
def test_key_usage_decides(authority: Authority) -> None:
    anchors = anchors_of(authority)
    for usage in (("key_encipherment",), ("content_commitment",), ("key_agreement", "data_encipherment")):
        assert "digitalSignature" in str(refusal(authority.issue("Someone", key_usage=usage), anchors))
    for good in (None, ("digital_signature",), ("digital_signature", "content_commitment")):
        assert check(authority.issue("Someone", key_usage=good), anchors)


@pytest.mark.threat("T22")
def test_an_authority_a_proxy_and_an_old_certificate_do_not_sign(authority: Authority, jane: Identity) -> None:
    anchors = anchors_of(authority)
    between = authority.issue_authority("Sub CA")
    cases = {
        "authority's": between.identity,
        "proxy": make_proxy(jane),
        "version 1": odd(jane, authority, Oddity(version="v1")),
        "serial number is 0": odd(jane, authority, Oddity(serial_number=0)),
        "serial number is -7": odd(jane, authority, Oddity(serial_number=-7)),
    }
    for said, signer in cases.items():
        problem = refusal(signer, anchors, revocation=RevocationPolicy.IF_PRESENT)
        assert isinstance(problem, SignerUsageError), said
        assert said in str(problem)
    assert isinstance(refusal(make_proxy(jane, critical=False), anchors), SignerUsageError)
    assert isinstance(refusal(make_proxy(jane, marked=False), anchors), UntrustedSignerError)


@pytest.mark.threat("T22")
def test_who_is_no_authority_certifies_nobody(authority: Authority, jane: Identity) -> None:
    below = Authority(identity=replace(jane, chain=(jane.certificate,)))
    signer = replace(below.issue("John Doe"), chain=(jane.certificate,))
    anchors = anchors_of(authority, crls=[authority.crl(), below.crl()])
    assert "basicConstraints" in str(refusal(signer, anchors))
    # Not even when somebody put it among the anchors.
    trusted = anchors_of(authority, Authority(identity=jane))
    assert isinstance(refusal(signer, trusted), UntrustedSignerError)


def test_path_length_and_key_usage_of_authorities_are_obeyed() -> None:
    root = Authority.create("Root CA")
    leafless = root.issue_authority("First CA", path_length=0)
    below = leafless.issue_authority("Second CA")
    unfit = root.issue_authority("Unfit CA", key_usage=("digital_signature", "crl_sign"))
    crls = [each.crl() for each in (root, leafless, below, unfit)]
    assert check(leafless.issue("Jane Doe"), anchors_of(root, crls=crls))
    assert "path length is 0" in str(refusal(below.issue("Jane Doe"), anchors_of(root, crls=crls)))
    assert "keyCertSign" in str(refusal(unfit.issue("Jane Doe"), anchors_of(root, crls=crls)))
    # The anchor above says so even where a lower one is trusted too.
    assert "path length" in str(refusal(below.issue("Jane Doe"), anchors_of(root, leafless, below)))


def test_old_and_odd_authorities_are_refused(authority: Authority) -> None:
    between = authority.issue_authority("Sub CA")
    jane = between.issue("Jane Doe")
    crls = [authority.crl(), between.crl()]
    for oddity in (Oddity(version="v1"), Oddity(without=("2.5.29.19",))):
        old = altered(between.identity.certificate, authority.identity.key, oddity)
        problem = refusal(replace(jane, chain=(old,)), anchors_of(authority, crls=crls))
        assert isinstance(problem, UntrustedSignerError)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    strange = authority.issue_authority("Strange CA", extensions=[(unknown, True)])
    problem = refusal(strange.issue("Jane Doe"), anchors_of(authority, crls=[*crls, strange.crl()]))
    assert "unknown critical" in str(problem)
    signer = authority.issue("Odd", extensions=[(unknown, True)])
    assert "unknown critical" in str(refusal(signer, anchors_of(authority)))
    assert check(authority.issue("Odd", extensions=[(unknown, False)]), anchors_of(authority))


def test_name_constraints_are_obeyed_up_to_the_root() -> None:
    root = Authority.create("Root CA")
    mail = x509.NameConstraints(permitted_subtrees=[x509.RFC822Name("example.org")], excluded_subtrees=None)
    between = root.issue_authority("Sub CA", extensions=[(mail, True)])
    below = between.issue_authority("Third CA")
    for address, accepted in (("jane@example.org", True), ("jane@example.com", False)):
        alternative = x509.SubjectAlternativeName([x509.RFC822Name(address)])
        for authority in (between, below):
            jane = authority.issue("Jane Doe", extensions=[(alternative, False)])
            crls = [root.crl(), between.crl(), below.crl()]
            for anchors in (anchors_of(root, crls=crls), anchors_of(root, between, crls=crls)):
                assert isinstance(_try(jane, anchors), TrustError) is not accepted
    # All three are anchors: what the middle one is limited to holds all the same.
    trusted = anchors_of(root, between, below)
    assert not isinstance(_try(below.issue("Jane Doe"), trusted), TrustError)
    foreign = x509.SubjectAlternativeName([x509.RFC822Name("jane@example.com")])
    assert isinstance(_try(below.issue("Jane Doe", extensions=[(foreign, False)]), trusted), TrustError)


def test_name_constraints_that_cannot_be_judged_are_a_refusal() -> None:
    root = Authority.create("Root CA")
    limits = x509.NameConstraints(
        permitted_subtrees=[x509.DirectoryName(make_name("Jane Doe"))], excluded_subtrees=None
    )
    for critical in (False, True):
        between = root.issue_authority("Sub CA", extensions=[(limits, critical)])
        problem = refusal(between.issue("Jane Doe"), anchors_of(root, crls=[root.crl(), between.crl()]))
        assert "cannot be judged" in str(problem)


def _try(signer: Identity, anchors: TrustAnchors) -> object:
    try:
        return check(signer, anchors)
    except TrustError as problem:
        return problem


@pytest.mark.threat("T11")
def test_weak_digests_are_refused_below_the_anchor_and_sha1_only_by_the_named_option() -> None:
    # RSA: there is no ECDSA with md5.
    root = sha1(Authority.create("Root CA", key=make_key(KeyType.RSA_2048)))
    jane = root.issue("Jane Doe")
    assert check(jane, anchors_of(root))
    between = sha1(root.issue_authority("Sub CA"), root)
    crls = [root.crl(), between.crl()]
    for signer in (odd(jane, root, digest="sha1"), between.issue("Jane Doe")):
        assert isinstance(refusal(signer, anchors_of(root, crls=crls)), WeakSignatureError)
        assert check(signer, anchors_of(root, crls=crls), allow_sha1=True)
    # An authority that is itself an anchor is trusted as it is.
    assert check(between.issue("Jane Doe"), anchors_of(root, between))
    for digest in ("md5", "sha224"):
        weak = odd(jane, root, digest=digest)
        for allowed in (False, True):
            assert isinstance(refusal(weak, anchors_of(root), allow_sha1=allowed), WeakSignatureError)
    # A weak digest is no excuse for a wrong signature.
    forged = odd(jane, Authority.create("Root CA", key=make_key(KeyType.RSA_2048)), digest="sha1")
    assert isinstance(refusal(forged, anchors_of(root), allow_sha1=True), UntrustedSignerError)


@pytest.mark.threat("T11")
def test_with_sha1_everything_else_is_judged_all_the_same() -> None:
    root = Authority.create("Root CA")
    limits = x509.NameConstraints(permitted_subtrees=[x509.DirectoryName(make_name("Other"))], excluded_subtrees=None)
    cases = [
        root.issue_authority("No CA", key_usage=("crl_sign",)),
        root.issue_authority("A", path_length=0).issue_authority("B"),
        root.issue_authority("C", extensions=[(limits, True)]),
        root.issue_authority("D", extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)]),
        root.issue_authority("E", extensions=[(x509.InhibitAnyPolicy(0), True)]),
        replace(
            without := root.issue_authority("F"), identity=odd(without.identity, root, Oddity(without=("2.5.29.15",)))
        ),
    ]
    for authority in cases:
        signer = odd(authority.issue("Jane Doe"), authority, digest="sha1")
        problem = refusal(signer, anchors_of(root), allow_sha1=True, revocation=RevocationPolicy.IF_PRESENT)
        assert isinstance(problem, UntrustedSignerError)


@pytest.mark.threat("T11")
def test_weak_keys_are_refused_below_the_anchor() -> None:
    root = Authority.create("Root CA")
    weak = root.issue("Jane Doe", key_type=KeyType.RSA_1024)
    assert "1024 bits" in str(refusal(weak, anchors_of(root)))
    between = root.issue_authority("Sub CA", key=make_key(KeyType.RSA_1024))
    problem = refusal(between.issue("Jane Doe"), anchors_of(root, crls=[root.crl(), between.crl()]))
    assert isinstance(problem, WeakSignatureError)
    for kind in (KeyType.RSA_2048, KeyType.P384):
        assert check(root.issue("Jane Doe", key_type=kind), anchors_of(root))


def test_a_pinned_certificate_is_trusted_alone(authority: Authority, jane: Identity, tmp_path: Path) -> None:
    path = tmp_path / "jane.pem"
    path.write_bytes(jane.certificate.public_bytes(Encoding.PEM))
    pinned = load_anchors(path)
    found = check(jane, pinned)
    assert (found.certificates, found.anchor, found.pinned) == ((jane.certificate,), jane.certificate, True)
    assert found.crl_next_update is None
    for other in (authority.issue("Jane Doe"), authority.issue("John Doe"), make_proxy(jane)):
        assert isinstance(refusal(other, pinned), UntrustedSignerError)
    with pytest.raises(SignerExpiredError):
        check(jane, pinned, at=jane.certificate.not_valid_after_utc + DAY)
    path.write_bytes(authority.wrong_usage().certificate.public_bytes(Encoding.PEM))
    assert isinstance(refusal(jane, load_anchors(path)), UntrustedSignerError)


def test_a_pinned_certificate_must_be_for_signatures(authority: Authority, tmp_path: Path) -> None:
    wrong = authority.wrong_usage()
    path = tmp_path / "wrong.pem"
    path.write_bytes(wrong.certificate.public_bytes(Encoding.PEM))
    assert isinstance(refusal(wrong, load_anchors(path)), SignerUsageError)


def test_a_malformed_extension_is_a_refusal_and_nothing_is_warned(authority: Authority) -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x05\xa3\x03\x01\x01\xff")
    signer = authority.issue("Odd", extensions=[(broken, False)])
    assert isinstance(refusal(signer, anchors_of(authority)), UntrustedSignerError)
