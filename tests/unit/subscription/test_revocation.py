# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from coppice.errors import (
    AuthorityRevokedError,
    RevocationExpiredError,
    RevocationForgedError,
    RevocationUnknownError,
    SignerRevokedError,
    TrustAnchorError,
    TrustError,
    WeakSignatureError,
)
from coppice.subscription.anchors import load_anchors
from coppice.subscription.model import RevocationPolicy
from coppice.testing.authority import Authority, make_key
from coppice.testing.igtf import write_authority
from coppice.testing.odd import altered_crl, crl_without_date
from coppice.testing.paths import NOW, anchors_of, check

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.testing.authority import Identity

pytestmark = pytest.mark.unit
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
POINT = "http://crl.example.org/ca.crl"


@pytest.fixture
def root() -> Authority:
    return Authority.create("Root CA")


@pytest.fixture
def between(root: Authority) -> Authority:
    return root.issue_authority("Sub CA")


@pytest.fixture
def signer(between: Authority) -> Identity:
    return between.issue("Jane Doe")


def refusal(signer: Identity, *authorities: Authority, crls: Any, **policy: Any) -> TrustError:
    with pytest.raises(TrustError) as caught:
        check(signer, anchors_of(*authorities, crls=crls), **policy)
    return caught.value


def point_of(**named: Any) -> x509.IssuingDistributionPoint:
    given: dict[str, Any] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
        **named,
    }
    return x509.IssuingDistributionPoint(**given)


@pytest.mark.threat("T19")
def test_a_revoked_signer_is_refused_by_its_own_code(root: Authority, between: Authority, signer: Identity) -> None:
    between.revoke(signer.certificate, at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=NOW.tzinfo))
    problem = refusal(signer, root, crls=[root.crl(), between.crl()])
    assert isinstance(problem, SignerRevokedError)
    assert "Jane Doe was revoked on 2026-01-02 03:04:05 UTC by /DC=org/DC=example/CN=Sub CA" in str(problem)


@pytest.mark.threat("T20")
def test_a_revoked_authority_is_refused_by_its_own_code(root: Authority, between: Authority, signer: Identity) -> None:
    root.revoke(between.identity.certificate)
    assert isinstance(refusal(signer, root, crls=[root.crl(), between.crl()]), AuthorityRevokedError)
    # It is worse news than that another CRL is missing, or that the signer is revoked as well.
    between.revoke(signer.certificate)
    for crls in ([root.crl()], [root.crl(), between.crl()]):
        assert isinstance(refusal(signer, root, crls=crls), AuthorityRevokedError)


FAULTS: dict[str, tuple[type[TrustError], str]] = {
    "missing": (RevocationUnknownError, "there is no CRL"),
    "expired": (RevocationExpiredError, "it expired on"),
    "early": (RevocationExpiredError, "it is not valid before"),
    "forged": (RevocationForgedError, "is not signed by it"),
}


@pytest.mark.threat("T21")
@pytest.mark.parametrize("which", ["root", "between"])
@pytest.mark.parametrize("change", FAULTS)
def test_each_crl_of_the_chain_must_be_there_current_and_genuine(
    root: Authority, between: Authority, signer: Identity, which: str, change: str
) -> None:
    error, said = FAULTS[change]
    authorities = {"root": root, "between": between}
    bad = {
        "missing": [],
        "expired": [authorities[which].crl(last_update=NOW - 9 * DAY, next_update=NOW - HOUR)],
        "early": [authorities[which].crl(last_update=NOW + HOUR, next_update=NOW + DAY)],
        "forged": [authorities[which].crl(key=make_key())],
    }[change]
    crls = [*bad, *(each.crl() for name, each in authorities.items() if name != which)]
    problem = refusal(signer, root, crls=crls)
    assert type(problem) is error
    assert said in str(problem)
    assert str(authorities[which].identity.subject) in str(problem)
    assert problem.resolution
    if change == "missing":
        found = check(signer, anchors_of(root, crls=crls), revocation=RevocationPolicy.IF_PRESENT)
        assert [said for said in found.warnings if "there is no CRL" in said] == list(found.warnings)
        assert len(found.warnings) == 1
    else:
        assert type(refusal(signer, root, crls=crls, revocation=RevocationPolicy.IF_PRESENT)) is error


@pytest.mark.threat("T19")
@pytest.mark.parametrize("policy", RevocationPolicy)
def test_a_revocation_holds_whatever_else_is_wrong_with_its_crl(
    root: Authority, between: Authority, signer: Identity, policy: RevocationPolicy
) -> None:
    between.revoke(signer.certificate)
    delta = (x509.DeltaCRLIndicator(1), True)
    narrow = (point_of(only_contains_user_certs=True), True)
    for crl in (
        between.crl(last_update=NOW - 9 * DAY, next_update=NOW - DAY),
        between.crl(last_update=NOW + DAY, next_update=NOW + 2 * DAY),
        between.crl(extensions=[delta]),
        between.crl(extensions=[narrow]),
        altered_crl(between.crl(), between.identity.key, digest="sha1"),
    ):
        fresh = replace(between, revoked={}).crl()
        for crls in ([root.crl(), crl], [root.crl(), crl, fresh]):
            assert isinstance(refusal(signer, root, crls=crls, revocation=policy), SignerRevokedError)


HOLD, REMOVAL = x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl
STOLEN = x509.ReasonFlags.key_compromise


def saying(
    authority: Authority, reason: x509.ReasonFlags | None, days: float, *extensions: Any, due: datetime | None = None
) -> x509.CertificateRevocationList:
    """Return the authority's CRL of ``days`` ago, whose every entry has that reason; None: it has no entry."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.identity.certificate.subject)
        .last_update(NOW - days * DAY)
        .next_update(due or NOW + 30 * DAY)
    )
    for serial in authority.revoked if reason else ():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - 9 * DAY)
        builder = builder.add_revoked_certificate(entry.add_extension(x509.CRLReason(reason), critical=False).build())  # type: ignore[arg-type]
    for extension in extensions:
        builder = builder.add_extension(extension, isinstance(extension, x509.DeltaCRLIndicator))
    return builder.sign(authority.identity.key, hashes.SHA256())  # type: ignore[arg-type]


@pytest.mark.threat("T19")
def test_a_hold_counts_by_the_newest_crl_and_any_other_revocation_by_all(authority: Authority) -> None:
    authority = replace(authority, revoked={})
    jane = authority.revoked_endorser()
    number, delta = x509.CRLNumber, x509.DeltaCRLIndicator(1)
    fine: list[list[x509.CertificateRevocationList]] = [
        [saying(authority, HOLD, 3), saying(authority, None, 2)],
        [saying(authority, HOLD, 3), saying(authority, HOLD, 2.5), saying(authority, None, 2)],
        [saying(authority, HOLD, 3), saying(authority, REMOVAL, 2, delta)],
        [saying(authority, HOLD, 2, number(7)), saying(authority, None, 2, number(8))],
    ]
    revoked = [
        [saying(authority, HOLD, 2)],
        [saying(authority, None, 3), saying(authority, HOLD, 2)],
        [saying(authority, HOLD, 4), saying(authority, None, 3), saying(authority, HOLD, 2, due=NOW - DAY)],
        [saying(authority, REMOVAL, 3, delta), saying(authority, HOLD, 2)],
        # Which is the newer cannot be told.
        [saying(authority, HOLD, 2), saying(authority, None, 2)],
        [saying(authority, HOLD, 2, number(8)), saying(authority, None, 2, number(7))],
        [saying(authority, HOLD, 2, number(7)), saying(authority, None, 2)],
        # Stolen once, stolen for ever.
        [saying(authority, STOLEN, 3), saying(authority, None, 2)],
        [saying(authority, STOLEN, 3), saying(authority, HOLD, 2), saying(authority, REMOVAL, 1, delta)],
    ]
    for crls in fine:
        for order in (crls, crls[::-1]):
            assert check(jane, anchors_of(authority, crls=order)).warnings == ()
    for crls in revoked:
        for order in (crls, crls[::-1]):
            assert isinstance(refusal(jane, authority, crls=order), SignerRevokedError)


@pytest.mark.threat("T19")
def test_a_hold_is_not_taken_back_by_a_crl_whose_silence_says_nothing(authority: Authority) -> None:
    authority = replace(authority, revoked={})
    jane = authority.revoked_endorser()
    hold, silent = saying(authority, HOLD, 3), saying(authority, None, 2)
    for newer in (
        saying(authority, None, 2, x509.DeltaCRLIndicator(1)),
        saying(authority, None, 2, point_of(only_contains_ca_certs=True)),
        saying(authority, None, -1),
        altered_crl(silent, authority.identity.key, digest="sha1"),
        replace(authority, identity=replace(authority.identity, key=make_key())).crl(last_update=NOW - 2 * DAY),
    ):
        assert isinstance(refusal(jane, authority, crls=[hold, newer]), SignerRevokedError)


@pytest.mark.threat("T21")
def test_a_hold_that_an_expired_crl_took_back_is_no_revocation_and_no_good_word(authority: Authority) -> None:
    authority = replace(authority, revoked={})
    jane = authority.revoked_endorser()
    newer = saying(authority, None, 2, due=NOW - DAY)
    assert isinstance(refusal(jane, authority, crls=[saying(authority, HOLD, 3), newer]), RevocationExpiredError)


@pytest.mark.threat("T20")
def test_an_authority_may_be_on_hold_as_well(root: Authority, between: Authority, signer: Identity) -> None:
    root.revoke(between.identity.certificate)
    crls = [between.crl(), saying(root, HOLD, 3)]
    assert isinstance(refusal(signer, root, crls=crls), AuthorityRevokedError)
    assert check(signer, anchors_of(root, crls=[*crls, saying(root, None, 2)]))


def test_one_good_crl_is_enough(root: Authority, between: Authority, signer: Identity) -> None:
    old = between.crl(last_update=NOW - 9 * DAY, next_update=NOW - DAY)
    forged, good = between.crl(key=make_key()), between.crl(next_update=NOW + 7 * DAY)
    soon = between.crl(next_update=NOW + DAY)
    found = check(signer, anchors_of(root, crls=[root.crl(), old, forged, soon, good]))
    # The longest of several counts; of the path, the shortest.
    assert found.crl_next_update == good.next_update_utc


def test_a_crl_that_is_minutes_ahead_of_this_clock_is_current(authority: Authority) -> None:
    ahead = authority.crl(last_update=NOW + timedelta(minutes=4), next_update=NOW + DAY)
    assert check(authority.issue("Jane Doe"), anchors_of(authority, crls=[ahead]))


def test_a_crl_without_a_date_is_not_current(authority: Authority) -> None:
    problem = refusal(authority.issue("Jane Doe"), authority, crls=[crl_without_date(authority.identity)])
    assert isinstance(problem, RevocationExpiredError)
    assert "does not say when" in str(problem)


@pytest.mark.parametrize(
    "extensions",
    [
        [(x509.DeltaCRLIndicator(1), True)],
        [(point_of(only_contains_user_certs=True), True)],
        [(point_of(only_contains_ca_certs=True), True)],
        [(point_of(indirect_crl=True), True)],
        [(point_of(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise])), True)],
        [(point_of(full_name=[x509.UniformResourceIdentifier(POINT)]), True)],
        [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)],
    ],
)
def test_a_crl_that_speaks_of_some_certificates_only_says_nothing_by_silence(
    authority: Authority, jane: Identity, extensions: list[Any]
) -> None:
    partial = authority.crl(extensions=extensions)
    problem = refusal(jane, authority, crls=[partial])
    assert isinstance(problem, RevocationUnknownError)
    assert "that speaks of all its certificates" in str(problem)
    found = check(jane, anchors_of(authority, crls=[partial]), revocation=RevocationPolicy.IF_PRESENT)
    assert len(found.warnings) == 1
    assert check(jane, anchors_of(authority, crls=[partial, authority.crl()])).warnings == ()


def test_a_crl_of_the_distribution_point_that_the_certificate_names_speaks_of_it(authority: Authority) -> None:
    name = x509.UniformResourceIdentifier(POINT)
    points = x509.CRLDistributionPoints([x509.DistributionPoint([name], None, None, None)])
    crl = authority.crl(extensions=[(point_of(full_name=[name]), True), (x509.CRLNumber(7), False)])
    named = authority.issue("Jane Doe", extensions=[(points, False)])
    assert check(named, anchors_of(authority, crls=[crl])).crl_next_update == crl.next_update_utc


def test_an_indirect_crls_entries_may_be_anothers(authority: Authority, jane: Identity) -> None:
    revoked = replace(authority, revoked={jane.certificate.serial_number: NOW - DAY})
    indirect = revoked.crl(extensions=[(point_of(indirect_crl=True), True)])
    assert check(jane, anchors_of(authority, crls=[indirect, authority.crl()]))


@pytest.mark.threat("T11")
def test_a_crl_with_sha1_is_refused_but_for_the_named_option_and_md5_always(authority: Authority) -> None:
    jane = authority.issue("Jane Doe")
    weak = altered_crl(authority.crl(), authority.identity.key, digest="sha1")
    problem = refusal(jane, authority, crls=[weak])
    assert isinstance(problem, WeakSignatureError)
    assert "sha1" in str(problem)
    assert isinstance(refusal(jane, authority, crls=[weak], revocation=RevocationPolicy.IF_PRESENT), WeakSignatureError)
    assert check(jane, anchors_of(authority, crls=[weak]), allow_sha1=True)
    other = altered_crl(authority.crl(), make_key(), digest="sha1")
    assert isinstance(refusal(jane, authority, crls=[other], allow_sha1=True), RevocationForgedError)
    assert check(jane, anchors_of(authority, crls=[authority.crl(digest=hashes.SHA512())]))


def test_an_authority_that_may_not_sign_crls_signs_none() -> None:
    root = Authority.create("Root CA")
    mute = root.issue_authority("Mute CA", key_usage=("key_cert_sign",))
    problem = refusal(mute.issue("Jane Doe"), root, crls=[root.crl(), mute.crl()])
    assert isinstance(problem, RevocationForgedError)


def test_the_root_has_no_crl_over_itself(root: Authority) -> None:
    root.revoke(root.identity.certificate)
    assert check(root.issue("Jane Doe"), anchors_of(root))


def test_an_issuer_is_compared_as_a_structure(root: Authority) -> None:
    spoof = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.DOMAIN_COMPONENT, "org"),
            x509.NameAttribute(x509.NameOID.DOMAIN_COMPONENT, "example/CN=Root CA"),
        ]
    )
    other = Authority.create("", subject=spoof)
    assert str(other.identity.subject).replace("\\", "") == str(root.identity.subject)
    assert isinstance(refusal(root.issue("Jane Doe"), root, crls=[other.crl()]), RevocationUnknownError)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_crls_of_a_directory_are_found_whatever_their_number_and_form(
    authority: Authority, tmp_path: Path, encoding: Encoding
) -> None:
    jane = authority.issue("Jane Doe")
    old = authority.crl(last_update=NOW - 9 * DAY, next_update=NOW - DAY)
    write_authority(tmp_path, authority, crl=old, encoding=encoding)
    with pytest.raises(RevocationExpiredError):
        check(jane, load_anchors(tmp_path))
    stem = next(tmp_path.glob("*.r0")).name.removesuffix(".r0")
    (tmp_path / f"{stem}.r1").write_bytes(authority.crl().public_bytes(encoding))
    assert check(jane, load_anchors(tmp_path))
    (tmp_path / f"{stem}.r1").unlink()
    (tmp_path / "any-name.crl").write_bytes(b"words\n" + authority.crl().public_bytes(Encoding.PEM))
    assert check(jane, load_anchors(tmp_path))


def test_the_messages_have_no_line_breaks_from_outside(authority: Authority) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Jane\nERROR")])
    problem = refusal(authority.issue("", subject=name), authority, crls=[])
    assert not re.search(r"\n", str(problem).replace("Jane\nERROR", ""))


@pytest.mark.threat("T21")
@pytest.mark.parametrize(
    "damage", ["bits", "cut", "empty", "dangling", "directory", "in a bundle", "cut in a bundle", "misplaced"]
)
def test_a_crl_that_cannot_be_read_is_not_a_missing_one(tmp_path: Path, damage: str) -> None:
    authority = Authority.create("Example CA")
    jane = authority.revoked_endorser("Jane Doe")
    anchors = authority.write_to(tmp_path)
    certificate, crl = tmp_path / "ca.pem", tmp_path / "ca.crl.pem"
    whole = crl.read_bytes()
    bits = whole.replace(b"\nMI", b"\nMJ", 1)
    crl.unlink()
    match damage:
        case "bits" | "cut" | "empty":
            crl.write_bytes({"bits": bits, "cut": whole[: len(whole) // 2], "empty": b""}[damage])
        case "dangling":
            crl.symlink_to(tmp_path / "gone")
        case "directory":
            crl.mkdir()
        case "misplaced":
            certificate.write_bytes(certificate.read_bytes() + whole)
        case _:
            anchors = tmp_path / "bundle.pem"
            anchors.write_bytes(certificate.read_bytes() + (bits if damage == "in a bundle" else whole[:-20]))
    with pytest.raises(RevocationUnknownError, match="that can be read") as caught:
        check(jane, load_anchors(anchors), revocation=RevocationPolicy.IF_PRESENT)
    assert str(anchors if anchors.is_file() else certificate if damage == "misplaced" else crl) in str(
        caught.value.details
    )


def test_anothers_crl_that_cannot_be_read_says_nothing_about_this_authority(tmp_path: Path) -> None:
    authority, other = Authority.create("Example CA"), Authority.create("Other CA")
    authority.write_to(tmp_path)
    other.write_to(tmp_path, name="other")
    (tmp_path / "ca.crl.pem").unlink()
    (tmp_path / "other.crl.pem").write_bytes(b"")
    found = check(authority.issue("Jane Doe"), load_anchors(tmp_path), revocation=RevocationPolicy.IF_PRESENT)
    assert "there is no CRL of /DC=org/DC=example/CN=Example CA" in found.warnings[0]
    # Of a file that has no authority's name, nobody knows whose it is.
    (tmp_path / "crl.r0").write_bytes(b"")
    with pytest.raises(RevocationUnknownError, match="that can be read"):
        check(authority.issue("Jane Doe"), load_anchors(tmp_path), revocation=RevocationPolicy.IF_PRESENT)


def test_a_bundle_whose_authority_is_damaged_does_not_pin_an_endorser_whom_nobody_could_revoke(tmp_path: Path) -> None:
    authority = Authority.create("Example CA")
    jane = authority.revoked_endorser("Jane Doe").certificate.public_bytes(Encoding.PEM)
    whole = authority.identity.certificate.public_bytes(Encoding.PEM)
    crl = authority.crl().public_bytes(Encoding.PEM)
    for number, data in enumerate((whole.replace(b"\nMI", b"\nMJ", 1) + jane + crl, whole[:-20] + jane, jane + crl)):
        bundle = tmp_path / f"bundle{number}.pem"
        bundle.write_bytes(data)
        with pytest.raises(TrustAnchorError, match="no usable trust anchor"):
            load_anchors(bundle)
