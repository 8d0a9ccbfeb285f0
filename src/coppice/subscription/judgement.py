# SPDX-License-Identifier: Apache-2.0
"""What became of each rule when a list was judged: the table that people read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.errors import (
    AuthorityRevokedError,
    ChangedListError,
    EndorserMismatchError,
    EndorserUnknownError,
    ExpiredListError,
    FutureListError,
    ListIdentifierError,
    MalformedListError,
    NamespaceError,
    NamespaceUnknownError,
    OlderListError,
    RevocationExpiredError,
    RevocationForgedError,
    RevocationUnknownError,
    SignatureFormError,
    SignerCountError,
    SignerExpiredError,
    SignerRevokedError,
    SignerUsageError,
    TamperedListError,
    TrustError,
    UnsignedListError,
    UntrustedSignerError,
    WeakSignatureError,
    WrongSignerError,
)

if TYPE_CHECKING:
    from coppice.subscription.model import VerifiedImageList


class Outcome(StrEnum):
    """What became of one rule."""

    PASSED = "passed"
    WARNED = "warned"
    """It is kept, and there is something that the site should know."""
    FAILED = "failed"
    NOT_REACHED = "not-reached"
    """Another rule failed before it could be judged."""


class Rule(StrEnum):
    """The rules of a valid list, in the order in which they are reported."""

    SIGNED = "signed"
    SIGNATURE_FORM = "signature-form"
    ONE_SIGNER = "one-signer"
    SIGNATURE_STRONG = "signature-strong"
    INTACT = "intact"
    SIGNER_TRUSTED = "signer-trusted"
    SIGNER_VALID = "signer-valid"
    SIGNER_USAGE = "signer-usage"
    PATH_STRONG = "path-strong"
    NAMESPACE_KNOWN = "namespace-known"
    NAMESPACE = "namespace"
    REVOCATION_KNOWN = "revocation-known"
    REVOCATION_GENUINE = "revocation-genuine"
    REVOCATION_CURRENT = "revocation-current"
    AUTHORITY_NOT_REVOKED = "authority-not-revoked"
    SIGNER_NOT_REVOKED = "signer-not-revoked"
    ENDORSER_KNOWN = "endorser-known"
    SIGNER_PINNED = "signer-pinned"
    LIST_FORM = "list-form"
    LIST_ENDORSER = "list-endorser"
    LIST_IDENTIFIER = "list-identifier"
    NOT_FROM_FUTURE = "not-from-future"
    NOT_EXPIRED = "not-expired"
    NOT_OLDER = "not-older"
    NOT_CHANGED = "not-changed"

    @property
    def demand(self) -> str:
        """What the rule demands, in a sentence."""
        return _RULES[self][0]

    @property
    def error(self) -> type[TrustError]:
        """What is raised when it fails."""
        return _RULES[self][1]


_RULES: dict[Rule, tuple[str, type[TrustError]]] = {
    Rule.SIGNED: ("the list carries a signature", UnsignedListError),
    Rule.SIGNATURE_FORM: ("the signature has one of the accepted forms, and one reading only", SignatureFormError),
    Rule.ONE_SIGNER: ("exactly one signer signed it", SignerCountError),
    Rule.SIGNATURE_STRONG: ("digest, key and algorithm of the signature are strong enough", WeakSignatureError),
    Rule.INTACT: ("the content is what the signer signed", TamperedListError),
    Rule.SIGNER_TRUSTED: ("a path leads from the signer to a trust anchor", UntrustedSignerError),
    Rule.SIGNER_VALID: ("every certificate of that path is within its dates", SignerExpiredError),
    Rule.SIGNER_USAGE: ("the signer's certificate is for signatures", SignerUsageError),
    Rule.PATH_STRONG: ("the certificates of that path, and their CRLs, are signed strongly enough", WeakSignatureError),
    Rule.NAMESPACE_KNOWN: ("it is known which names each authority may certify", NamespaceUnknownError),
    Rule.NAMESPACE: ("each authority may certify the name below it", NamespaceError),
    Rule.REVOCATION_KNOWN: ("each authority's revocation list is there", RevocationUnknownError),
    Rule.REVOCATION_GENUINE: ("each revocation list is signed by its authority", RevocationForgedError),
    Rule.REVOCATION_CURRENT: ("each revocation list is current", RevocationExpiredError),
    Rule.AUTHORITY_NOT_REVOKED: ("no authority of the path is revoked", AuthorityRevokedError),
    Rule.SIGNER_NOT_REVOKED: ("the signer is not revoked", SignerRevokedError),
    Rule.ENDORSER_KNOWN: ("the subscription says whom it trusts", EndorserUnknownError),
    Rule.SIGNER_PINNED: ("the signer is an endorser that the subscription names", WrongSignerError),
    Rule.LIST_FORM: ("what was signed is an image list", MalformedListError),
    Rule.LIST_ENDORSER: ("the list names the signer as its endorser", EndorserMismatchError),
    Rule.LIST_IDENTIFIER: ("it is the list that was subscribed to", ListIdentifierError),
    Rule.NOT_FROM_FUTURE: ("it was not created in the future", FutureListError),
    Rule.NOT_EXPIRED: ("it has not expired", ExpiredListError),
    Rule.NOT_OLDER: ("it is not older than what was verified before", OlderListError),
    Rule.NOT_CHANGED: ("the same version has the same content", ChangedListError),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """One line of the table.

    Attributes:
        rule: Which.
        title: What it demands.
        outcome: What became of it.
        compared: The values that were compared, for people; empty where none was reached.
    """

    rule: Rule
    title: str
    outcome: Outcome
    compared: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A list, judged by every rule.

    Attributes:
        rules: One line a rule, in their order.
        verified: The list; None: a rule failed.
        error: Of the rule that failed.
    """

    rules: tuple[RuleResult, ...]
    verified: VerifiedImageList | None = None
    error: TrustError | None = None


class RuleTable:
    """Gathers what became of each rule while a list is judged."""

    def __init__(self) -> None:
        self._noted: dict[Rule, tuple[Outcome, str]] = {}

    def passed(self, rule: Rule, compared: str = "") -> None:
        """Note that ``rule`` is kept; a second note replaces the first."""
        self._noted[rule] = (Outcome.PASSED, compared)

    def warned(self, rule: Rule, compared: str) -> None:
        """Note that ``rule`` is kept, and that there is something to say."""
        self._noted[rule] = (Outcome.WARNED, compared)

    def failed(self, problem: TrustError) -> None:
        """Note that the first open rule whose error ``problem`` is failed, and that those proven before it are kept."""
        rule = next((each for each in Rule if each not in self._noted and each.error is type(problem)), None)
        if rule is None:
            return
        for proven in _PROVEN_BEFORE.get(rule, ()):
            self._noted.setdefault(proven, (Outcome.PASSED, ""))
        compared = problem.message if problem.details is None else f"{problem.message}\n{problem.details}"
        self._noted[rule] = (Outcome.FAILED, compared)

    def results(self) -> tuple[RuleResult, ...]:
        """Return one line a rule, in their order."""
        unknown = (Outcome.NOT_REACHED, "")
        return tuple(
            RuleResult(rule=rule, title=rule.demand, outcome=outcome, compared=compared)
            for rule in Rule
            for outcome, compared in (self._noted.get(rule, unknown),)
        )


# The signature and the path are judged by one function each. What is known to hold when they end with an error: no
# more than that, since a path has several certificates, and those above the one in question were not looked at yet.
_SIGNATURE_READ = (Rule.SIGNED, Rule.SIGNATURE_FORM, Rule.ONE_SIGNER)
_PATH_FOUND = (Rule.SIGNER_TRUSTED, Rule.SIGNER_VALID, Rule.SIGNER_USAGE)
_PATH_PERMITTED = (*_PATH_FOUND, Rule.NAMESPACE_KNOWN, Rule.NAMESPACE)
_PROVEN_BEFORE: dict[Rule, tuple[Rule, ...]] = {
    Rule.SIGNATURE_FORM: (Rule.SIGNED,),
    Rule.ONE_SIGNER: (Rule.SIGNED,),
    Rule.SIGNATURE_STRONG: _SIGNATURE_READ,
    Rule.INTACT: (*_SIGNATURE_READ, Rule.SIGNATURE_STRONG),
    Rule.SIGNER_USAGE: (Rule.SIGNER_VALID,),
    Rule.PATH_STRONG: (Rule.SIGNER_VALID, Rule.SIGNER_USAGE),
    Rule.NAMESPACE_KNOWN: _PATH_FOUND,
    Rule.NAMESPACE: _PATH_FOUND,
    Rule.REVOCATION_KNOWN: _PATH_PERMITTED,
    Rule.REVOCATION_GENUINE: _PATH_PERMITTED,
    Rule.REVOCATION_CURRENT: _PATH_PERMITTED,
    Rule.AUTHORITY_NOT_REVOKED: _PATH_PERMITTED,
    Rule.SIGNER_NOT_REVOKED: _PATH_PERMITTED,
    Rule.NOT_CHANGED: (Rule.NOT_OLDER,),
}
