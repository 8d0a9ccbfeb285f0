# SPDX-License-Identifier: Apache-2.0
"""The rules by which a fetched list is believed. Pure: bytes in, `VerifiedImageList` or a named error out.

In their order; the first that fails ends it:

1. the message is signed, by exactly one signer, in an accepted form (`coppice.formats.cms`);
2. the signer's certificate leads to a trust anchor: dates, usage, revocation (`coppice.subscription.path`);
3. the signer, and the authority above it, are those that the subscription pins;
4. the content is a HEPiX image list;
5. its ``hv:endorser`` is the signer;
6. it is the list that was subscribed to, by its identifier;
7. it was not created in the future (five minutes of clock skew are granted);
8. it has not expired;
9. its version is not lower than the last that was verified;
10. the same version has the same content.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

from coppice.errors import (
    ChangedListError,
    DocumentError,
    EndorserMismatchError,
    ExpiredListError,
    FutureListError,
    ListIdentifierError,
    MalformedListError,
    OlderListError,
    WrongSignerError,
)
from coppice.formats.cms import open_message
from coppice.formats.hepix import read_list
from coppice.formats.names import distinguished_name
from coppice.model.checksum import Checksum
from coppice.model.version import Version
from coppice.subscription.model import VerifiedImageList
from coppice.subscription.path import check_path

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.imagelist.model import ImageList
    from coppice.model.endorser import DistinguishedName
    from coppice.subscription.anchors import TrustAnchors
    from coppice.subscription.model import Subscription, TrustedVersion, TrustPolicy

CLOCK_SKEW = timedelta(minutes=5)
_STALE_SHARE = 0.75
_EXPIRY_NEAR = timedelta(days=14)
_JUMP_DIGITS = 15


def verify_list(
    message: bytes,
    *,
    subscription: Subscription,
    anchors: TrustAnchors,
    last: TrustedVersion | None,
    now: datetime,
    first_verified_at: datetime | None = None,
) -> VerifiedImageList:
    """Apply every rule to ``message``.

    Args:
        message: As it was fetched, or as it was kept.
        subscription: Whose list it should be.
        anchors: Trust anchors and CRLs.
        last: What was verified last of this list; None: nothing.
        now: This instant.
        first_verified_at: Only for a list that was verified before and is recalled: the dates of certificates are
            judged then. Revocation, and the dates of the list itself, are judged now all the same.

    Raises:
        TrustError: A rule failed; the class says which.
    """
    opened = open_message(message)
    path = check_path(
        opened.signer_certificate,
        opened.other_certificates,
        anchors,
        trust=subscription.trust,
        dates_at=first_verified_at or now,
        now=now,
    )
    warnings = list(path.warnings)
    signer = distinguished_name(opened.signer_certificate.subject)
    issuer = distinguished_name(opened.signer_certificate.issuer)
    fingerprint = Checksum("sha256", opened.signer_certificate.fingerprint(hashes.SHA256()).hex())
    _check_pin(signer, issuer, fingerprint, subscription.trust)
    content = _read(opened.payload)
    _check_endorser(content, signer, issuer)
    _check_identifier(content, subscription)
    _check_validity(content, now)
    payload_checksum = Checksum.of(opened.payload)
    check_version(content, payload_checksum, last)
    if not first_verified_at and opened.signer_certificate.not_valid_after_utc - now < _EXPIRY_NEAR:
        warnings.append(f"the signer's certificate expires on {opened.signer_certificate.not_valid_after_utc:%Y-%m-%d}")
    return VerifiedImageList(
        subscription=subscription.name,
        content=content,
        payload_checksum=payload_checksum,
        signer=signer,
        signer_issuer=issuer,
        signer_fingerprint=fingerprint,
        verified_at=now,
        warnings=(*warnings, *_warnings(content, subscription, last, now)),
    )


def _read(payload: bytes) -> ImageList:
    try:
        return read_list(payload)
    except DocumentError as problem:
        raise MalformedListError(
            f"what was signed is no image list: {problem.message}",
            details=problem.details,
            resolution="The publisher must correct the list and sign it anew.",
            context=problem.context,
        ) from problem


def _check_pin(signer: DistinguishedName, issuer: DistinguishedName, fingerprint: Checksum, trust: TrustPolicy) -> None:
    if not trust.pins(signer, issuer, fingerprint):
        pinned = "\n".join(f"subscribed: {each.subject}\n  below     {each.issuer}" for each in trust.endorsers)
        raise WrongSignerError(
            f"the list is signed by {signer}, whom this subscription does not name",
            details=f"signed by:  {signer}\n  below     {issuer}\n{pinned}",
            resolution="If the endorser has changed, and the publisher confirms it, subscribe anew with that name.",
        )


def _check_endorser(content: ImageList, signer: DistinguishedName, issuer: DistinguishedName) -> None:
    if not content.names_endorser(signer, issuer):
        named = "\n".join(f"hv:dn {each.subject}\nhv:ca {each.issuer}" for each in content.endorsers)
        raise EndorserMismatchError(
            f"the list says that {', '.join(str(each.subject) for each in content.endorsers)} endorses it, but "
            f"{signer} signed it",
            details=f"{named}\nsigner {signer}\nbelow  {issuer}",
            resolution="The publisher must sign with the endorser's own certificate, or correct hv:endorser.",
        )


def _check_identifier(content: ImageList, subscription: Subscription) -> None:
    expected = subscription.list_identifier
    if expected is not None and content.identifier != expected.lower():
        raise ListIdentifierError(
            f"the list {content.identifier} is not the one subscribed to",
            details=f"expected {expected}; its title: {content.title[:200]!r}",
            resolution="If the publisher has begun a new list, subscribe to that one, and remove this subscription.",
        )


def _check_validity(content: ImageList, now: datetime) -> None:
    validity = content.validity
    if validity.created > now + CLOCK_SKEW:
        raise FutureListError(
            f"the list says that it was created on {validity.created:%Y-%m-%d %H:%M:%S} UTC, which is yet to come",
            details=f"now: {now:%Y-%m-%d %H:%M:%S} UTC",
            resolution="Check this machine's clock.",
        )
    if validity.is_expired(now):
        raise ExpiredListError(
            f"the list expired on {validity.expires:%Y-%m-%d %H:%M:%S} UTC",
            resolution="The publisher must publish a new version.",
        )


def check_version(content: ImageList, payload: Checksum, last: TrustedVersion | None) -> None:
    """Check that a list does not go back behind what was verified last of it.

    Raises:
        OlderListError: Its version is lower.
        ChangedListError: Its version is the same, its content is not.
    """
    if last is None:
        return
    if Version(content.version) < Version(last.version):
        raise OlderListError(
            f"the list has version {content.version}; {last.version} was verified before",
            resolution="Somebody may be replaying an old list. Ask the publisher.",
        )
    if Version(content.version) == Version(last.version) and not payload.matches(last.payload_checksum):
        raise ChangedListError(
            f"the list has version {content.version}, as one that was verified before, but other content",
            details=f"before: {last.payload_checksum}\nnow:    {payload}",
            resolution="The publisher must give each content a version of its own.",
        )


def _warnings(
    content: ImageList, subscription: Subscription, last: TrustedVersion | None, now: datetime
) -> tuple[str, ...]:
    said = []
    if content.uri != subscription.uri:
        said.append(f"the list says that it lives at {content.uri}; this site keeps to {subscription.uri}")
    lifetime = content.validity.expires - content.validity.created
    if now > content.validity.created + lifetime * _STALE_SHARE:
        said.append(f"the list is stale: it expires on {content.validity.expires:%Y-%m-%d %H:%M} UTC")
    if content.unreadable:
        said.append(f"{len(content.unreadable)} of its images cannot be read and stay as they are")
    if last is not None and _largest_run(content.version) >= _JUMP_DIGITS > _largest_run(last.version):
        said.append(f"the version jumped from {last.version} to {content.version}: lower ones are refused now")
    return tuple(said)


def _largest_run(version: str) -> int:
    return max(len(run) for run in "".join(sign if sign.isdigit() else " " for sign in version).split() or [""])
