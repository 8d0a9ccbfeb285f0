# SPDX-License-Identifier: Apache-2.0
"""The rules by which a fetched list is believed. Pure: bytes in, `VerifiedImageList` or a named error out.

The first rule that fails ends it; nothing behind it is looked at. `coppice.subscription.judgement.Rule` names all of
them. They are judged in this order:

1. the signature (`coppice.formats.cms`): signed, in an accepted form, by exactly one signer, strong, intact;
2. the certificates (`coppice.subscription.path`): a path to a trust anchor, dates, usage, namespaces, revocation;
3. the signer is an endorser that the subscription names;
4. the content is a HEPiX image list, which names the signer as its endorser;
5. it is the list that was subscribed to, created in the past, not expired;
6. it does not go back behind what was verified before, nor change what has a version already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

from coppice.errors import (
    DocumentError,
    EndorserMismatchError,
    EndorserUnknownError,
    MalformedListError,
    TrustError,
    WrongSignerError,
)
from coppice.formats.cms import open_message
from coppice.formats.hepix import read_list
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.formats.names import distinguished_name
from coppice.model.checksum import Checksum
from coppice.subscription.evidence import note_path, note_signature
from coppice.subscription.judgement import Judgement, Rule, RuleTable
from coppice.subscription.list_rules import check_floor, check_identifier, check_validity
from coppice.subscription.list_warnings import DEFAULT_TERMS, warnings_of_content, warnings_of_path
from coppice.subscription.model import (
    ListWarning,
    PinnedEndorser,
    TrustBasis,
    TrustedBy,
    VerifiedImageList,
    WarningKind,
)
from coppice.subscription.path import check_path

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.formats.cms import SignedMessage
    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import ImageList
    from coppice.model.endorser import DistinguishedName
    from coppice.settings.model import SubscriptionsSettings
    from coppice.subscription.anchors import TrustAnchors
    from coppice.subscription.model import Subscription, TrustedVersion, TrustPolicy

_SHOWN_ENDORSERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What a list is held against."""

    subscription: Subscription
    anchors: TrustAnchors
    last: TrustedVersion | None
    now: datetime
    limits: ListLimits
    terms: SubscriptionsSettings
    first_verified_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signer:
    """Who signed."""

    subject: DistinguishedName
    issuer: DistinguishedName
    fingerprint: Checksum


def verify_list(
    message: bytes,
    *,
    subscription: Subscription,
    anchors: TrustAnchors,
    last: TrustedVersion | None,
    now: datetime,
    limits: ListLimits = DEFAULT_LIMITS,
    terms: SubscriptionsSettings | None = None,
    first_verified_at: datetime | None = None,
) -> VerifiedImageList:
    """Apply every rule to ``message``; the arguments are those of `judge_list`.

    Raises:
        TrustError: A rule failed; the class says which.
    """
    judgement = judge_list(
        message,
        subscription=subscription,
        anchors=anchors,
        last=last,
        now=now,
        limits=limits,
        terms=terms,
        first_verified_at=first_verified_at,
    )
    if judgement.verified is None:
        raise judgement.error or TrustError("the list was not verified")
    return judgement.verified


def judge_list(
    message: bytes,
    *,
    subscription: Subscription,
    anchors: TrustAnchors,
    last: TrustedVersion | None,
    now: datetime,
    limits: ListLimits = DEFAULT_LIMITS,
    terms: SubscriptionsSettings | None = None,
    first_verified_at: datetime | None = None,
) -> Judgement:
    """Apply every rule to ``message`` until one fails, and tell what became of each.

    Args:
        message: As it was fetched, or as it was kept.
        subscription: Whose list it should be.
        anchors: Trust anchors and CRLs.
        last: What was verified last of this list; None: nothing.
        now: This instant.
        limits: How much a list may be.
        terms: How far ahead to warn, and how much clock skew is granted; None: the defaults of the settings.
        first_verified_at: Only for a list that was verified before and is recalled: the dates of certificates are
            judged then. Revocation, and the dates of the list itself, are judged now all the same.
    """
    case = _Case(
        subscription=subscription,
        anchors=anchors,
        last=last,
        now=now,
        limits=limits,
        terms=terms or DEFAULT_TERMS,
        first_verified_at=first_verified_at,
    )
    table = RuleTable()
    try:
        verified = _apply(message, case, table)
    except TrustError as problem:
        table.failed(problem)
        return Judgement(rules=table.results(), error=problem)
    return Judgement(rules=table.results(), verified=verified)


def _apply(message: bytes, case: _Case, table: RuleTable) -> VerifiedImageList:
    trust = case.subscription.trust
    opened = open_message(message, limits=case.limits, allow_sha1=trust.allow_sha1)
    note_signature(message, opened, table)
    signer, said = _check_certificates(opened, case, table)
    newly_pinned = _check_pin(signer, trust, table)
    content = _read(opened.payload, case)
    table.passed(Rule.LIST_FORM, f"images: {len(content.images)}, entries not readable: {len(content.unreadable)}")
    _check_endorser(content, signer, table)
    check_identifier(content, case.subscription, table)
    check_validity(content, case.now, case.terms, table)
    payload_checksum = Checksum.of(opened.payload)
    check_floor(content, payload_checksum, case.last, table)
    if opened.digest == "sha1":
        said.append(ListWarning(kind=WarningKind.WEAK_ACCEPTED, text="the list is signed with SHA-1, as is allowed"))
    if newly_pinned is not None:
        said.append(
            ListWarning(
                kind=WarningKind.FIRST_USE,
                text=f"{signer.subject}, below {signer.issuer}, is trusted from now on: it signed the first list",
            )
        )
    said.extend(warnings_of_content(content, case.subscription, case.last, case.now, case.terms))
    return VerifiedImageList(
        subscription=case.subscription.name,
        content=content,
        payload_checksum=payload_checksum,
        trusted_by=TrustedBy(
            basis=TrustBasis.X509,
            signer=str(signer.subject),
            issuer=str(signer.issuer),
            fingerprint=signer.fingerprint,
        ),
        signer=signer.subject,
        signer_issuer=signer.issuer,
        signer_fingerprint=signer.fingerprint,
        verified_at=case.now,
        warnings=tuple(said),
        newly_pinned=newly_pinned,
        anchors_state=case.anchors.state,
    )


def _check_certificates(opened: SignedMessage, case: _Case, table: RuleTable) -> tuple[_Signer, list[ListWarning]]:
    certificate, trust = opened.signer_certificate, case.subscription.trust
    path = check_path(
        certificate,
        opened.other_certificates,
        case.anchors,
        trust=trust,
        dates_at=case.first_verified_at or case.now,
        now=case.now,
    )
    said = list(warnings_of_path(path, case.now, case.terms, recalled=case.first_verified_at is not None))
    note_path(path, trust, case.first_verified_at or case.now, table)
    signer = _Signer(
        subject=distinguished_name(certificate.subject),
        issuer=distinguished_name(certificate.issuer),
        fingerprint=Checksum("sha256", certificate.fingerprint(hashes.SHA256()).hex()),
    )
    return signer, said


def _check_pin(signer: _Signer, trust: TrustPolicy, table: RuleTable) -> PinnedEndorser | None:
    """Return whom a first use makes trusted; None where the subscription says whom it trusts."""
    if not trust.endorsers:
        if not trust.trust_on_first_use:
            raise EndorserUnknownError(
                f"the list is signed by {signer.subject}, and the subscription names no endorser yet",
                details=f"signed by:  {signer.subject}\n  below     {signer.issuer}",
                resolution="If the publisher confirms that name, `coppice subscription endorser add` names it; "
                "--trust-on-first-use would trust whoever comes first.",
            )
        table.warned(Rule.ENDORSER_KNOWN, "nobody was named: whoever signs the first list is trusted")
        table.warned(Rule.SIGNER_PINNED, f"{signer.subject} below {signer.issuer}, by first use")
        return PinnedEndorser(subject=signer.subject, issuer=signer.issuer, first_use=True)
    table.passed(Rule.ENDORSER_KNOWN, f"{len(trust.endorsers)} named")
    if not trust.pins(signer.subject, signer.issuer, signer.fingerprint):
        pinned = "\n".join(
            f"subscribed: {each.subject}\n  below     {each.issuer}"
            + (f"\n  exactly   {each.fingerprint}" if each.fingerprint else "")
            for each in trust.endorsers
        )
        raise WrongSignerError(
            f"the list is signed by {signer.subject}, whom this subscription does not name",
            details=f"signed by:  {signer.subject}\n  below     {signer.issuer}\n  exactly   {signer.fingerprint}"
            f"\n{pinned}",
            resolution="If the endorser has changed, and the publisher confirms it, subscribe anew with that name.",
        )
    table.passed(Rule.SIGNER_PINNED, f"{signer.subject} below {signer.issuer}")
    return None


def _read(payload: bytes, case: _Case) -> ImageList:
    try:
        return read_list(payload, profile=case.subscription.trust.profile, limits=case.limits)
    except DocumentError as problem:
        raise MalformedListError(
            f"what was signed is no image list: {problem.message}",
            details=problem.details,
            resolution="The publisher must correct the list and sign it anew.",
            context=problem.context,
        ) from problem


def _check_endorser(content: ImageList, signer: _Signer, table: RuleTable) -> None:
    if not content.endorsers:
        # Only the lenient profile reads such a list; the subscription pins its signer all the same.
        table.warned(Rule.LIST_ENDORSER, "the list names nobody")
        return
    if not content.names_endorser(signer.subject, signer.issuer):
        shown = content.endorsers[:_SHOWN_ENDORSERS]
        named = "\n".join(f"hv:dn {each.subject}\nhv:ca {each.issuer}" for each in shown)
        more = f" and {len(content.endorsers) - len(shown)} more" if len(content.endorsers) > len(shown) else ""
        raise EndorserMismatchError(
            f"the list says that {', '.join(str(each.subject) for each in shown)}{more} endorses it, but "
            f"{signer.subject} signed it",
            details=f"{named}\nsigner {signer.subject}\nbelow  {signer.issuer}",
            resolution="The publisher must sign with the endorser's own certificate, or correct hv:endorser.",
        )
    table.passed(Rule.LIST_ENDORSER, f"hv:dn {signer.subject}, hv:ca {signer.issuer}")
