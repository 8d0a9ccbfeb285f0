# SPDX-License-Identifier: Apache-2.0
"""Each rule by itself: what breaks it, by which error, and what the table says of the others."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coppice.errors import DocumentError, TrustError
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ListIdentifier
from coppice.subscription.anchors import TrustAnchors
from coppice.subscription.judgement import Judgement, Outcome, Rule
from coppice.subscription.model import (
    NamespacePolicy,
    PinnedEndorser,
    RevocationPolicy,
    Subscription,
    TrustedVersion,
    TrustPolicy,
    WarningKind,
)
from coppice.subscription.rules import judge_list, verify_list
from coppice.testing.authority import Authority, Identity, KeyType, make_key
from coppice.testing.forgery import as_opaque, craft

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.testing.simulator import Simulator

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
ANCHORS = Path("/anchors")


@dataclass(slots=True, kw_only=True)
class Scene:
    """A list that passes every rule, until a test breaks one."""

    authority: Authority
    publisher: Simulator
    message: bytes
    authorities: tuple[Authority, ...] = ()
    crls: tuple[Any, ...] | None = None
    trust: dict[str, Any] = field(default_factory=dict)
    subscription: dict[str, Any] = field(default_factory=dict)
    last: TrustedVersion | None = None
    now: datetime = NOW

    def subscribed(self) -> Subscription:
        known = self.publisher.subscription(ANCHORS)
        return replace(known, trust=replace(known.trust, **self.trust), **self.subscription)

    def against(self) -> dict[str, Any]:
        authorities = self.authorities or (self.authority,)
        anchors = TrustAnchors(
            certificates=tuple(each.identity.certificate for each in authorities),
            crls=tuple(each.crl() for each in authorities) if self.crls is None else self.crls,
            problems=(),
            path=ANCHORS,
        )
        return {"subscription": self.subscribed(), "anchors": anchors, "last": self.last, "now": self.now}

    def judge(self) -> Judgement:
        return judge_list(self.message, **self.against())

    def sign_by(self, signer: Identity, *, pinned: bool = True) -> None:
        """Have the list name and be signed by ``signer``, whom the subscription pins unless told otherwise."""
        publisher = replace(self.publisher, endorser=signer) if pinned else self.publisher
        self.publisher = publisher
        self.message = publisher.message(signer=signer)

    def edit(self, change: Callable[[dict[str, Any]], Any]) -> None:
        document = self.publisher.document()
        change(document["hv:imagelist"])
        self.message = self.publisher.message(payload=json.dumps(document).encode())


@pytest.fixture
def scene(authority: Authority, publisher: Simulator) -> Scene:
    return Scene(authority=authority, publisher=publisher, message=publisher.message())


def unsigned(scene: Scene) -> None:
    scene.message = scene.publisher.unsigned()


def without_signed_attributes(scene: Scene) -> None:
    scene.message = craft(scene.publisher.payload(), scene.publisher.endorser, signed_attributes=False)


def two_signers(scene: Scene) -> None:
    endorser = scene.publisher.endorser
    scene.message = as_opaque(craft(scene.publisher.payload(), endorser, more_signers=[scene.authority.issue("John")]))


def with_sha1(scene: Scene) -> None:
    scene.message = craft(scene.publisher.payload(), scene.publisher.endorser, digest="sha1")


def tampered(scene: Scene) -> None:
    scene.message = scene.publisher.tampered()


def by_a_stranger(scene: Scene) -> None:
    scene.sign_by(Authority.create("Stranger CA").issue("Jane Doe"))


def by_an_expired_certificate(scene: Scene) -> None:
    scene.sign_by(scene.authority.expired())


def by_a_certificate_for_other_uses(scene: Scene) -> None:
    scene.sign_by(scene.authority.wrong_usage())


def below_a_weak_authority(scene: Scene) -> None:
    weak = scene.authority.issue_authority("Weak CA", key=make_key(KeyType.RSA_1024))
    scene.authorities, scene.crls = (scene.authority,), (scene.authority.crl(), weak.crl())
    scene.sign_by(weak.issue("Jane Doe"))


def without_known_namespaces(scene: Scene) -> None:
    scene.trust["namespaces"] = NamespacePolicy.REQUIRE


def without_crl(scene: Scene) -> None:
    scene.crls = ()


def with_a_forged_crl(scene: Scene) -> None:
    scene.crls = (scene.authority.crl(key=make_key()),)


def with_an_old_crl(scene: Scene) -> None:
    scene.crls = (scene.authority.crl(last_update=NOW - 10 * DAY, next_update=NOW - DAY),)


def below_a_revoked_authority(scene: Scene) -> None:
    root = Authority.create("Root CA")
    below = root.issue_authority("Sub CA")
    root.revoke(below.identity.certificate)
    scene.authorities, scene.crls = (root,), (root.crl(), below.crl())
    scene.sign_by(below.issue("Jane Doe"))


def by_a_revoked_certificate(scene: Scene) -> None:
    own = Authority(identity=scene.authority.identity)
    scene.sign_by(own.revoked_endorser())
    scene.crls = (own.crl(),)


def with_nobody_named(scene: Scene) -> None:
    scene.trust["endorsers"] = ()


def by_somebody_else(scene: Scene) -> None:
    scene.sign_by(scene.authority.issue("Mallory"), pinned=False)


def nonsense(scene: Scene) -> None:
    scene.message = scene.publisher.message(payload=b'{"hv:imagelist": 1}')


def naming_another_endorser(scene: Scene) -> None:
    scene.edit(lambda content: content["hv:endorser"]["hv:x509"].update({"hv:dn": "/DC=org/CN=John Doe"}))


def of_another_identifier(scene: Scene) -> None:
    scene.subscription["list_identifier"] = ListIdentifier("00000000-0000-4000-8000-000000000000")


def from_the_future(scene: Scene) -> None:
    scene.edit(lambda content: content.update({"dc:date:created": f"{NOW + DAY:%Y-%m-%dT%H:%M:%SZ}"}))


def expired(scene: Scene) -> None:
    scene.message = scene.publisher.expired(NOW)


def older_than_before(scene: Scene) -> None:
    scene.last = TrustedVersion(version="2", payload_checksum=Checksum.of(b"other"))


def changed_since(scene: Scene) -> None:
    scene.last = TrustedVersion(version="1", payload_checksum=Checksum.of(b"other"))


BREAKS: dict[Rule, Callable[[Scene], None]] = {
    Rule.SIGNED: unsigned,
    Rule.SIGNATURE_FORM: without_signed_attributes,
    Rule.ONE_SIGNER: two_signers,
    Rule.SIGNATURE_STRONG: with_sha1,
    Rule.INTACT: tampered,
    Rule.SIGNER_TRUSTED: by_a_stranger,
    Rule.SIGNER_VALID: by_an_expired_certificate,
    Rule.SIGNER_USAGE: by_a_certificate_for_other_uses,
    Rule.PATH_STRONG: below_a_weak_authority,
    Rule.NAMESPACE_KNOWN: without_known_namespaces,
    Rule.REVOCATION_KNOWN: without_crl,
    Rule.REVOCATION_GENUINE: with_a_forged_crl,
    Rule.REVOCATION_CURRENT: with_an_old_crl,
    Rule.AUTHORITY_NOT_REVOKED: below_a_revoked_authority,
    Rule.SIGNER_NOT_REVOKED: by_a_revoked_certificate,
    Rule.ENDORSER_KNOWN: with_nobody_named,
    Rule.SIGNER_PINNED: by_somebody_else,
    Rule.LIST_FORM: nonsense,
    Rule.LIST_ENDORSER: naming_another_endorser,
    Rule.LIST_IDENTIFIER: of_another_identifier,
    Rule.NOT_FROM_FUTURE: from_the_future,
    Rule.NOT_EXPIRED: expired,
    Rule.NOT_OLDER: older_than_before,
    Rule.NOT_CHANGED: changed_since,
}


def outcomes(judgement: Judgement) -> dict[Rule, Outcome]:
    return {each.rule: each.outcome for each in judgement.rules}


def test_a_good_list_passes_every_rule_and_every_line_says_what_was_compared(scene: Scene) -> None:
    judgement = scene.judge()
    assert judgement.error is None
    assert judgement.verified is not None
    assert [each.rule for each in judgement.rules] == list(Rule)
    assert set(outcomes(judgement).values()) == {Outcome.PASSED}
    assert all(each.compared and each.title == each.rule.demand for each in judgement.rules)


def test_every_rule_has_a_test_that_breaks_it() -> None:
    # The namespace rule needs policy files, and is broken in `tests/unit/subscription/test_namespaces.py`.
    assert set(BREAKS) == set(Rule) - {Rule.NAMESPACE}
    assert len({rule.error for rule in Rule} - {TrustError}) == len(Rule) - 1, "signature and path share one error"


@pytest.mark.parametrize("rule", BREAKS, ids=str)
def test_breaking_a_rule_fails_it_and_nothing_behind_it_is_reached(rule: Rule, scene: Scene) -> None:
    BREAKS[rule](scene)
    judgement = scene.judge()
    assert judgement.verified is None
    assert type(judgement.error) is rule.error, judgement.error
    found = outcomes(judgement)
    assert [each for each, outcome in found.items() if outcome is Outcome.FAILED] == [rule]
    order = list(Rule)
    behind = order[order.index(rule) + 1 :]
    # The path is judged as a whole: dates and usage are looked at before what leads to the anchor is.
    path = {Rule.SIGNER_VALID, Rule.SIGNER_USAGE, Rule.NAMESPACE_KNOWN, Rule.NAMESPACE}
    assert all(found[each] is Outcome.NOT_REACHED for each in behind if each not in path)
    failed = next(each for each in judgement.rules if each.rule is rule)
    assert judgement.error is not None
    assert failed.compared.startswith(judgement.error.message)
    with pytest.raises(rule.error):
        verify_list(scene.message, **scene.against())


@pytest.mark.parametrize("rule", BREAKS, ids=str)
def test_the_table_claims_nothing_that_another_broken_rule_would_belie(rule: Rule, scene: Scene) -> None:
    """A list that breaks two rules: that of the one that is not said to have failed is never said to be kept."""
    BREAKS[rule](scene)
    alone = scene.judge()
    if outcomes(alone)[Rule.SIGNED] is not Outcome.PASSED:
        return
    scene.now = NOW + 400 * DAY
    found = outcomes(scene.judge())
    assert found[Rule.NOT_EXPIRED] is not Outcome.PASSED
    assert found[Rule.SIGNER_VALID] is not Outcome.PASSED
    assert found[Rule.REVOCATION_CURRENT] is not Outcome.PASSED


def test_the_content_is_not_read_before_the_signer_is_the_pinned_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise DocumentError("it was read")

    monkeypatch.setattr("coppice.subscription.rules.read_list", read)
    assert "it was read" in str(scene.judge().error)
    by_somebody_else(scene)
    assert "it was read" not in str(scene.judge().error)


def test_a_refusal_has_the_values_that_were_compared(scene: Scene) -> None:
    by_somebody_else(scene)
    error = scene.judge().error
    assert error is not None
    assert "Mallory" in (error.details or "")
    assert "Jane Doe" in (error.details or "")
    older_than_before(scene)
    scene.message = scene.publisher.message()
    error = scene.judge().error
    assert error is not None
    assert "before: version 2" in (error.details or "")


@pytest.mark.threat("T14")
def test_of_many_endorsers_that_a_list_names_a_refusal_names_some(scene: Scene) -> None:
    def many(content: dict[str, Any]) -> None:
        one = content["hv:endorser"]["hv:x509"]
        content["hv:endorser"] = [{"hv:x509": {**one, "hv:dn": f"/DC=org/CN=John {number}"}} for number in range(30)]

    scene.edit(many)
    error = scene.judge().error
    assert error is not None
    assert error.code == "list-endorser-mismatch"
    assert "and 25 more" in error.message


# Whom to trust.


def test_the_first_signer_is_trusted_only_where_that_is_asked_and_nobody_is_named(scene: Scene) -> None:
    with_nobody_named(scene)
    scene.trust["trust_on_first_use"] = True
    judgement = scene.judge()
    verified = judgement.verified
    assert verified is not None
    endorser = scene.publisher.endorser
    assert verified.newly_pinned == PinnedEndorser(subject=endorser.subject, issuer=endorser.issuer, first_use=True)
    assert [str(each.kind) for each in verified.warnings] == ["first-use"]
    assert outcomes(judgement)[Rule.SIGNER_PINNED] is Outcome.WARNED
    scene.trust["endorsers"] = (verified.newly_pinned,)
    again = scene.judge().verified
    assert again is not None
    assert (again.newly_pinned, again.warnings) == (None, ())
    by_somebody_else(scene)
    assert scene.judge().error is not None, "who was trusted by first use is pinned; the next one is not"


@pytest.mark.threat("T13")
def test_any_of_several_endorsers_may_sign_and_a_fingerprint_allows_one_certificate_only(scene: Scene) -> None:
    endorser = scene.publisher.endorser
    jane = PinnedEndorser(subject=endorser.subject, issuer=endorser.issuer)
    john = replace(jane, subject=scene.authority.issue("John Doe").subject)
    scene.trust["endorsers"] = (john, jane)
    verified = scene.judge().verified
    assert verified is not None
    scene.trust["endorsers"] = (replace(jane, fingerprint=verified.signer_fingerprint),)
    assert scene.judge().error is None
    scene.message = scene.publisher.message(signer=scene.authority.issue("Jane Doe"))
    error = scene.judge().error
    assert error is not None
    assert error.code == "signer-not-pinned"
    assert str(verified.signer_fingerprint) in (error.details or "")


@pytest.mark.threat("T11")
def test_sha1_is_accepted_by_name_and_said(scene: Scene) -> None:
    with_sha1(scene)
    scene.trust["allow_sha1"] = True
    judgement = scene.judge()
    assert judgement.verified is not None
    assert outcomes(judgement)[Rule.SIGNATURE_STRONG] is Outcome.WARNED
    assert [str(each.kind) for each in judgement.verified.warnings] == ["weak-accepted"]


@pytest.mark.threat("T21")
def test_a_missing_crl_is_said_where_it_is_tolerated(scene: Scene) -> None:
    without_crl(scene)
    scene.trust["revocation"] = RevocationPolicy.IF_PRESENT
    judgement = scene.judge()
    assert judgement.verified is not None
    assert outcomes(judgement)[Rule.REVOCATION_KNOWN] is Outcome.WARNED
    assert [str(each.kind) for each in judgement.verified.warnings] == ["path"]


def test_a_policy_of_trust_has_only_safe_defaults() -> None:
    policy = TrustPolicy(endorsers=(), anchors=ANCHORS)
    assert policy.revocation is RevocationPolicy.REQUIRE
    assert policy.profile == "strict"
    assert (policy.allow_sha1, policy.allow_host_certificate, policy.trust_on_first_use) == (False, False, False)


def test_the_reference_has_every_rule_with_its_code_and_every_warning() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/list-rules.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in rows[: len(Rule)]] == [str(rule) for rule in Rule]
    for rule, line in zip(Rule, rows, strict=False):
        assert line.endswith(f"| `{rule.error.code}` |")
    assert {line.split("`")[1] for line in rows[len(Rule) :]} == {str(kind) for kind in WarningKind}
