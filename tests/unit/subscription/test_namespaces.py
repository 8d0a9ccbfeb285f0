# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from coppice.errors import NamespaceError, NamespaceUnknownError, TrustError
from coppice.subscription.anchor_report import report_anchors
from coppice.subscription.anchors import AnchorKind, load_anchors
from coppice.subscription.model import NamespacePolicy
from coppice.testing.authority import Authority, Identity
from coppice.testing.igtf import write_authority
from coppice.testing.paths import anchors_of, check

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
CA = "/DC=org/DC=example/CN=Example CA"
PEOPLE = "/DC=org/DC=example/OU=People"


def person(authority: Authority, *, name: str = "Jane Doe", unit: str = "People") -> Identity:
    subject = [(NameOID.DOMAIN_COMPONENT, "org"), (NameOID.DOMAIN_COMPONENT, "example")]
    subject += [(NameOID.ORGANIZATIONAL_UNIT_NAME, unit), (NameOID.COMMON_NAME, name)]
    return authority.issue("", subject=x509.Name([x509.NameAttribute(*each) for each in subject]))


def refusal(signer: Identity, directory: Path, **policy: Any) -> TrustError:
    with pytest.raises(TrustError) as caught:
        check(signer, load_anchors(directory), **policy)
    return caught.value


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("ending", ["namespaces", "signing_policy"])
def test_a_name_that_the_policy_permits_is_accepted_and_no_other(
    authority: Authority, directory: Path, ending: str
) -> None:
    given: dict[str, Any] = {ending: [f"{PEOPLE}/*", "/DC=org/DC=example/CN=Exactly"]}
    write_authority(directory, authority, **given)
    anchors = load_anchors(directory)
    assert anchors.kind is AnchorKind.IGTF
    assert check(person(authority), anchors).warnings == ()
    assert check(authority.issue("Exactly"), anchors)
    for other in (person(authority, unit="Peoples"), authority.issue("Exactly so"), authority.issue("Jane Doe")):
        problem = refusal(other, directory)
        assert isinstance(problem, NamespaceError)
        assert problem.details is not None
        assert f"{PEOPLE}/*" in problem.details


@pytest.mark.threat("T15")
def test_the_same_name_below_another_authority_of_the_directory_is_refused(directory: Path) -> None:
    honest, other = Authority.create("Example CA"), Authority.create("Other CA")
    write_authority(directory, honest, namespaces=[f"{PEOPLE}/.*"])
    write_authority(directory, other, namespaces=["/DC=org/DC=other/.*"], signing_policy=[f"{PEOPLE}/*"])
    assert check(person(honest), load_anchors(directory))
    assert isinstance(refusal(person(other), directory), NamespaceError)


def test_every_authority_of_the_path_keeps_to_its_names(directory: Path) -> None:
    root = Authority.create("Root CA")
    good, stray = root.issue_authority("Good CA"), root.issue_authority("Stray CA")
    below = good.issue_authority("Below CA")
    write_authority(directory, root, namespaces=["/DC=org/DC=example/CN=Good CA"])
    for each in (good, stray, below):
        write_authority(directory, each, namespaces=[f"{PEOPLE}/.*"])
    anchors = load_anchors(directory)
    assert check(person(good), anchors)
    for each, said in ((stray, "Stray CA"), (below, "Below CA")):
        problem = refusal(person(each), directory)
        assert isinstance(problem, NamespaceError)
        assert f"may not certify the name /DC=org/DC=example/CN={said}" in str(problem)


def test_a_rule_may_stand_in_another_authoritys_file(directory: Path) -> None:
    root = Authority.create("Root CA")
    below = root.issue_authority("Sub CA")
    text = (
        'TO Issuer "/DC=org/DC=example/CN=Root CA" PERMIT Subject "/DC=org/DC=example/CN=Sub CA"\n'
        f'TO Issuer "/DC=org/DC=example/CN=Sub CA" \\\n PERMIT Subject "{PEOPLE}/.*"\n'
    )
    write_authority(directory, root, namespaces=text)
    write_authority(directory, below)
    assert check(person(below), load_anchors(directory))
    assert isinstance(refusal(below.issue("Jane"), directory), NamespaceError)


def test_namespaces_count_before_a_signing_policy(authority: Authority, directory: Path) -> None:
    write_authority(directory, authority, namespaces=["/DC=org/DC=example/CN=.*"], signing_policy=[f"{PEOPLE}/*"])
    assert isinstance(refusal(person(authority), directory), NamespaceError)


def test_a_denial_wins_wherever_it_stands(authority: Authority, directory: Path) -> None:
    deny = f'TO Issuer SELF DENY Subject "{PEOPLE}/CN=Mallory.*"\n'
    permit = f'TO Issuer "{CA}" PERMIT Subject "{PEOPLE}/.*"\n'
    for text in (deny + permit, permit + deny):
        write_authority(directory, authority, alias="ca", namespaces=text)
        assert check(person(authority), load_anchors(directory))
        problem = refusal(person(authority, name="Mallory 2"), directory)
        assert isinstance(problem, NamespaceError)
        assert "denies" in (problem.details or "")
    policy = (
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus '\"{PEOPLE}/*\"'\n"
        f"neg_rights globus CA:sign\ncond_subjects globus '\"{PEOPLE}/CN=Mallory*\"'\n"
    )
    for file in (*directory.glob("*.namespaces"), *directory.glob("*.r*")):
        file.unlink()
    write_authority(directory, authority, alias="ca", signing_policy=policy)
    assert check(person(authority), load_anchors(directory))
    assert isinstance(refusal(person(authority, name="Mallory"), directory), NamespaceError)


def test_an_authority_without_a_policy_is_refused_where_others_have_one(directory: Path) -> None:
    honest, bare = Authority.create("Example CA"), Authority.create("Bare CA")
    write_authority(directory, honest, namespaces=[f"{PEOPLE}/.*"])
    write_authority(directory, bare)
    problem = refusal(person(bare), directory)
    assert isinstance(problem, NamespaceUnknownError)
    assert "--namespaces if-present" in (problem.resolution or "")
    found = check(person(bare), load_anchors(directory), namespaces=NamespacePolicy.IF_PRESENT)
    assert found.warnings == ("nothing says what names /DC=org/DC=example/CN=Bare CA may certify",)
    # What is there is obeyed all the same.
    problem = refusal(honest.issue("Jane Doe"), directory, namespaces=NamespacePolicy.IF_PRESENT)
    assert isinstance(problem, NamespaceError)


def test_a_bundle_is_asked_for_no_policy_unless_one_is_required(authority: Authority) -> None:
    jane = authority.issue("Jane Doe")
    for policy in (NamespacePolicy.AUTOMATIC, NamespacePolicy.IF_PRESENT):
        assert check(jane, anchors_of(authority), namespaces=policy)
    with pytest.raises(NamespaceUnknownError):
        check(jane, anchors_of(authority), namespaces=NamespacePolicy.REQUIRE)


@pytest.mark.parametrize("fault", ["malformed", "bytes", "dangling", "pipe", "huge", "self"])
@pytest.mark.parametrize("policy", NamespacePolicy)
def test_a_policy_that_cannot_be_understood_is_none_and_is_reported(
    directory: Path, fault: str, policy: NamespacePolicy
) -> None:
    authority, other = Authority.create("Example CA"), Authority.create("Other CA")
    write_authority(directory, authority, alias="ca", signing_policy=["/*"], namespaces=["/*"])
    write_authority(directory, other, alias="other", namespaces=["/*"])
    place = directory / "ca.namespaces"
    place.unlink()
    if fault == "pipe":
        os.mkfifo(place)
    elif fault == "self":
        for file in directory.glob("*.namespaces"):
            file.unlink()
        write = 'TO Issuer SELF PERMIT Subject "/*"\nTO Issuer "' + CA + '" PERMIT Subject "/*"\n'
        (directory / "nobodys.namespaces").write_text(write)
        (directory / "other.namespaces").write_text('TO Issuer SELF PERMIT Subject "/*"')
    elif fault != "dangling":
        texts = {"malformed": b"PERMIT all", "bytes": b"\xff\xfe", "huge": b"#" * (1 << 20) + b"#"}
        place.write_bytes(texts[fault])
    problem = refusal(person(authority), directory, namespaces=policy)
    assert isinstance(problem, NamespaceUnknownError)
    assert "namespaces" in (problem.details or "")
    assert check(person(other), load_anchors(directory), namespaces=policy)
    report = report_anchors(load_anchors(directory), datetime.now(UTC))
    assert [said for said in report.problems if "namespaces: " in said]


@pytest.mark.threat("T16")
def test_a_value_that_imitates_attributes_is_refused(authority: Authority, directory: Path) -> None:
    write_authority(directory, authority, namespaces=[f"{PEOPLE}/.*", "/DC=org/DC=example/CN=Jane Doe"])
    org, example = ((NameOID.DOMAIN_COMPONENT, value) for value in ("org", "example"))
    spoofs = [
        [org, (NameOID.DOMAIN_COMPONENT, "example/OU=People"), (NameOID.COMMON_NAME, "Jane")],
        [org, (NameOID.DOMAIN_COMPONENT, "example/OU=People/CN=Jane")],
        [org, example, (NameOID.ORGANIZATIONAL_UNIT_NAME, "People/CN=Jane")],
        [org, example, (NameOID.ORGANIZATIONAL_UNIT_NAME, "People"), (NameOID.COMMON_NAME, "Jane/CN=proxy")],
        [org, example, (NameOID.ORGANIZATIONAL_UNIT_NAME, "People"), (NameOID.COMMON_NAME, "Jane\nDoe")],
        [(NameOID.ORGANIZATION_NAME, "x/DC=org/DC=example/CN=Jane Doe")],
    ]
    for pairs in spoofs:
        name = x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])
        assert isinstance(refusal(authority.issue("", subject=name), directory), NamespaceError)
    several = x509.Name(
        [
            *(x509.RelativeDistinguishedName([x509.NameAttribute(*each)]) for each in spoofs[3][:1]),
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "People"),
                ]
            ),
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "Jane")]),
        ]
    )
    assert isinstance(refusal(authority.issue("", subject=several), directory), NamespaceError)


def test_a_service_name_with_a_slash_is_no_imitation(authority: Authority, directory: Path) -> None:
    write_authority(directory, authority, namespaces=[f"{PEOPLE}/.*"])
    assert check(person(authority, name="host/node.example.org"), load_anchors(directory))
