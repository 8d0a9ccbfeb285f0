# SPDX-License-Identifier: Apache-2.0
"""From the signer's certificate to a trust anchor: no network is looked at, and no file but the anchors' own.

A path is first found by names and signatures, so that an error can say which certificate is wrong. Each certificate is
then judged by itself (`coppice.subscription.usage`), the path as a whole by ``cryptography``, and last by what its
authorities say: their namespaces and their CRLs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

from coppice.errors import AuthorityRevokedError, SignerRevokedError, TrustError, UntrustedSignerError
from coppice.formats.certificates import PARSE_PROBLEMS, is_signed_by, quiet
from coppice.formats.names import distinguished_name
from coppice.subscription.anchors import AnchorKind
from coppice.subscription.namespaces import check_namespaces
from coppice.subscription.revocation import check_revocation
from coppice.subscription.usage import check_authorities, check_dates, check_signer, check_strength, is_strong

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from cryptography import x509

    from coppice.subscription.anchors import TrustAnchors
    from coppice.subscription.model import TrustPolicy

MAX_PATH_LENGTH = 6
_MAX_PATHS = 16
_MAX_STEPS = 200
"""Certificates that certify each other in circles make more paths than anyone could look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPath:
    """A path whose every certificate was found good.

    Attributes:
        certificates: From the signer up to the root, or as far up as is known.
        anchor: The lowest of them that is trusted.
        warnings: What the site should know although the path is accepted.
        crl_next_update: When the first of the CRLs that were used is due; None: none was used.
        pinned: True when the signer's own certificate is the anchor, with no authority above it.
    """

    certificates: tuple[x509.Certificate, ...]
    anchor: x509.Certificate
    warnings: tuple[str, ...] = ()
    crl_next_update: datetime | None = None
    pinned: bool = False


def check_path(
    signer: x509.Certificate,
    others: Sequence[x509.Certificate],
    anchors: TrustAnchors,
    *,
    trust: TrustPolicy,
    dates_at: datetime,
    now: datetime,
) -> CheckedPath:
    """Check that ``signer`` may sign, and that a path of valid certificates leads from it to an anchor.

    Args:
        signer: The signer's certificate.
        others: Certificates that came with the message; not trusted.
        anchors: What is trusted, and the CRLs.
        trust: What is asked of CRLs, namespaces, digests and usage.
        dates_at: When the certificates must be valid.
        now: When revocation is judged.

    Raises:
        UntrustedSignerError: No path leads to an anchor, or what stands on it may not certify.
        SignerExpiredError: A certificate of the path is not valid at ``dates_at``.
        SignerUsageError: The signer's certificate is not for signing.
        WeakSignatureError: A key or digest of the path, or of a CRL, is below the floor.
        NamespaceError: An authority may not certify the name below it.
        NamespaceUnknownError: What names an authority may certify is needed, and not known.
        SignerRevokedError: The signer's certificate is revoked.
        AuthorityRevokedError: One above it is.
        RevocationUnknownError: A CRL is missing.
        RevocationExpiredError: A CRL is not current.
        RevocationForgedError: A CRL is not its authority's.
    """
    with quiet():
        # Parsing is lazy and warns on standard error; what is read once is kept.
        _preload((signer, *others))
    try:
        if anchors.kind is AnchorKind.PINNED:
            return _check_pinned(signer, anchors, trust, dates_at)
        return _check(signer, others, anchors, trust=trust, dates_at=dates_at, now=now)
    except PARSE_PROBLEMS as problem:
        raise UntrustedSignerError(
            "a certificate in the signer's path is malformed", details=f"{type(problem).__name__}: {str(problem)[:300]}"
        ) from problem


def _preload(certificates: Sequence[x509.Certificate]) -> None:
    for certificate in certificates:
        try:
            _ = certificate.subject, certificate.issuer, certificate.extensions
        except PARSE_PROBLEMS:
            # Whoever needs it says so.
            continue


def _check_pinned(
    signer: x509.Certificate, anchors: TrustAnchors, trust: TrustPolicy, dates_at: datetime
) -> CheckedPath:
    if not anchors.holds(signer):
        pinned = ", ".join(str(distinguished_name(each.subject)) for each in anchors.certificates)
        raise UntrustedSignerError(
            f"the signer's certificate is not the pinned one of {pinned}",
            details=f"signed by {distinguished_name(signer.subject)}, SHA-256 "
            f"{signer.fingerprint(hashes.SHA256()).hex()}; looked for in {anchors.path}",
            resolution="If the endorser has a new certificate, and the publisher confirms it, pin that one.",
        )
    check_dates((signer,), dates_at)
    check_signer(signer, trust)
    return CheckedPath(certificates=(signer,), anchor=signer, pinned=True)


def _check(
    signer: x509.Certificate,
    others: Sequence[x509.Certificate],
    anchors: TrustAnchors,
    *,
    trust: TrustPolicy,
    dates_at: datetime,
    now: datetime,
) -> CheckedPath:
    first: TrustError | None = None
    for count, path in enumerate(_paths([signer], others, anchors, [0])):
        if count >= _MAX_PATHS:
            break
        try:
            return _judge(path, anchors, trust=trust, dates_at=dates_at, now=now)
        except (SignerRevokedError, AuthorityRevokedError):
            # Another path may lead around the authority that says so; what it says stands.
            raise
        except TrustError as problem:
            first = first or problem
    if first is not None:
        raise first
    return _untrusted(signer, anchors)


def _judge(
    path: list[x509.Certificate], anchors: TrustAnchors, *, trust: TrustPolicy, dates_at: datetime, now: datetime
) -> CheckedPath:
    below = path[: next(place for place, link in enumerate(path) if place and anchors.holds(link))]
    _check_names(below, anchors)
    check_dates(path, dates_at)
    check_signer(path[0], trust)
    # What signs an anchor does not matter: the anchor is trusted as it is.
    check_strength(below, trust)
    check_authorities(path, sha1=_has_sha1(below))
    _check_whole(path, below, anchors, dates_at)
    warnings = check_namespaces(path, anchors, policy=trust.namespaces)
    revocation = check_revocation(path, anchors, trust=trust, now=now)
    return CheckedPath(
        certificates=tuple(path),
        anchor=path[len(below)],
        warnings=(*warnings, *revocation.warnings),
        crl_next_update=revocation.next_update,
    )


def _untrusted(signer: x509.Certificate, anchors: TrustAnchors) -> NoReturn:
    raise UntrustedSignerError(
        f"no trust anchor stands above the signer {distinguished_name(signer.subject)}",
        details=f"Its certificate was issued by {distinguished_name(signer.issuer)}; looked for in {anchors.path}.",
        resolution="If this authority is to be trusted, add its certificate to the subscription's trust anchors.",
    )


def _paths(
    path: list[x509.Certificate], others: Sequence[x509.Certificate], anchors: TrustAnchors, looked_at: list[int]
) -> Iterator[list[x509.Certificate]]:
    """Yield each path that leads as far up as is known and contains an anchor above the signer.

    Above an anchor only anchors are looked at: what came with the message has no say about what is trusted.
    """
    looked_at[0] += 1
    if looked_at[0] > _MAX_STEPS:
        return
    top = path[-1]
    anchored = any(anchors.holds(link) for link in path[1:])
    above = []
    if not _issued(top, top) and len(path) < MAX_PATH_LENGTH:
        known = anchors.named(top.issuer)
        candidates = known if anchored else (*known, *(one for one in others if one not in known))
        above = [one for one in candidates if one not in path and _issued(one, top)]
    for issuer in above:
        yield from _paths([*path, issuer], others, anchors, looked_at)
    if not above and anchored:
        yield path


def _issued(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    return issuer.subject == subject.issuer and is_signed_by(subject, issuer)


def _has_sha1(below: Sequence[x509.Certificate]) -> bool:
    return any(isinstance(link.signature_hash_algorithm, hashes.SHA1) for link in below)


def _check_names(below: Sequence[x509.Certificate], anchors: TrustAnchors) -> None:
    # Any trusted authority could certify another one's name; who is pinned by that name would then be anybody.
    for link in below[1:]:
        if anchors.named(link.subject):
            raise UntrustedSignerError(
                f"a certificate that came with the list bears the name of the trust anchor "
                f"{distinguished_name(link.subject)}, and is not that anchor's",
                resolution="If that authority has a new certificate, add it to the subscription's trust anchors.",
            )


def _check_whole(
    path: list[x509.Certificate], below: Sequence[x509.Certificate], anchors: TrustAnchors, at: datetime
) -> None:
    if _has_sha1(below):
        # The verifier never accepts sha1. Where the policy does, `check_authorities` has judged what it would judge.
        return
    # Up to the root, so that constraints of every authority count; but what signs an anchor does not matter.
    trusted = [path[-1], *(link for link in path[1:-1] if anchors.holds(link) and not is_strong(link))]
    between = [link for link in path[1:] if link not in trusted]
    verifier = (
        PolicyBuilder()
        .store(Store(trusted))
        .time(at.replace(tzinfo=None, microsecond=0))
        .max_chain_depth(MAX_PATH_LENGTH)
        .extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca(),
            # Endorsers' certificates name people, not hosts; their usage is checked in `check_signer`.
            ee_policy=ExtensionPolicy.permit_all(),
        )
        .build_client_verifier()
    )
    try:
        verifier.verify(path[0], between)
    except VerificationError as problem:
        raise UntrustedSignerError(
            f"the certificates above the signer {distinguished_name(path[0].subject)} are not acceptable",
            details=str(problem)[:500],
        ) from problem
