# SPDX-License-Identifier: Apache-2.0
"""Certificate revocation lists: which certificates of a path are revoked, judged now (RFC 5280, 5 and 6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from coppice.errors import (
    AuthorityRevokedError,
    RevocationExpiredError,
    RevocationForgedError,
    RevocationUnknownError,
    SignerRevokedError,
    TrustError,
    WeakSignatureError,
)
from coppice.formats.certificates import PARSE_PROBLEMS, is_signed_by, serial_number
from coppice.formats.names import distinguished_name
from coppice.subscription.model import RevocationPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from coppice.model.endorser import DistinguishedName
    from coppice.subscription.anchors import TrustAnchors
    from coppice.subscription.model import TrustPolicy

_CLOCK_SKEW = timedelta(minutes=5)
_SHOWN = 20
_STRONG = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_SEVERITY: tuple[type[TrustError], ...] = (
    AuthorityRevokedError,
    SignerRevokedError,
    RevocationForgedError,
    WeakSignatureError,
    RevocationExpiredError,
    RevocationUnknownError,
)
"""The worst news first: that an authority is revoked says more than that another one's CRL is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What the CRLs of a path say: nothing of it is revoked.

    Attributes:
        next_update: When the first of the CRLs that were used is due; None: none was used.
        warnings: What could not be found out, where the policy lets that pass.
    """

    next_update: datetime | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """A certificate, the authority that issued it, and their names."""

    certificate: x509.Certificate
    above: x509.Certificate
    is_signer: bool

    @property
    def name(self) -> DistinguishedName:
        return distinguished_name(self.certificate.subject)

    @property
    def authority(self) -> DistinguishedName:
        return distinguished_name(self.above.subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """A genuine CRL, and its entry about a certificate; None: it has none."""

    crl: x509.CertificateRevocationList
    entry: x509.RevokedCertificate | None

    @property
    def is_hold(self) -> bool:
        return self.entry is not None and _reason(self.entry) is x509.ReasonFlags.certificate_hold

    @property
    def is_removal(self) -> bool:
        return self.entry is not None and _reason(self.entry) is x509.ReasonFlags.remove_from_crl


def check_revocation(
    path: Sequence[x509.Certificate], anchors: TrustAnchors, *, trust: TrustPolicy, now: datetime
) -> Revocation:
    """Check every certificate of ``path`` against the CRLs of the one above it.

    The last of the path is a root, or the highest that is trusted: nobody is asked about it.

    Raises:
        AuthorityRevokedError: An authority's certificate is revoked.
        SignerRevokedError: The signer's is.
        RevocationForgedError: The CRL that bears an authority's name is not signed by it.
        RevocationExpiredError: An authority's CRL is not current.
        RevocationUnknownError: An authority's CRL is missing, or speaks of some of its certificates only.
        WeakSignatureError: An authority's CRL is signed with sha1, and the policy does not allow that; or with md5.
    """
    verdicts = [
        _judge(_Link(certificate=link, above=above, is_signer=place == 0), anchors, trust, now)
        for place, (link, above) in enumerate(pairwise(path))
    ]
    problems = [verdict for verdict in verdicts if isinstance(verdict, TrustError)]
    if problems:
        raise min(problems, key=lambda problem: _SEVERITY.index(type(problem)))
    due = [verdict.next_update_utc for verdict in verdicts if isinstance(verdict, x509.CertificateRevocationList)]
    return Revocation(
        next_update=min((date for date in due if date is not None), default=None),
        warnings=tuple(verdict for verdict in verdicts if isinstance(verdict, str)),
    )


def _judge(
    link: _Link, anchors: TrustAnchors, trust: TrustPolicy, now: datetime
) -> x509.CertificateRevocationList | TrustError | str:
    """Return the CRL that says nothing against ``link``, or what is wrong, or a warning."""
    named = anchors.crls_of(link.authority)
    genuine = [crl for crl in named if _is_signed_by(crl, link.above)]
    said = [_Said(crl=crl, entry=_entry_of(crl, link.certificate)) for crl in genuine]
    lifting = [each.crl for each in said if _lifts(each, link.certificate, trust, now)]
    revoked = _revoking(said, lifting)
    if revoked is not None:
        return _revoked(link, revoked)
    # Who says "on hold" does not say that nothing is wrong, unless one that is current took that back.
    over = [] if any(_is_current(crl, now) for crl in lifting) else [each.crl for each in said if each.is_hold]
    complete = [crl for crl in genuine if _covers(crl, link.certificate) and crl not in over]
    if named and not genuine:
        return RevocationForgedError(
            f"the CRL of {link.authority} is not signed by it",
            details=f"Looked for in {anchors.path}; {len(named)} bear its name.",
            resolution="Fetch the CRL again from the authority; a forged one is worse than none.",
        )
    if not complete:
        return _missing(link, anchors, trust, partial=bool(genuine))
    strong = [crl for crl in complete if _is_strong(crl, trust)]
    if not strong:
        weak = complete[0].signature_hash_algorithm
        return WeakSignatureError(
            f"the CRL of {link.authority} is signed with {weak.name if weak else 'an algorithm without a digest'}",
            resolution="Ask the authority for a CRL with sha256 or better; until then, --allow-sha1 accepts sha1.",
        )
    current = [crl for crl in strong if _is_current(crl, now)]
    if not current:
        return _not_current(link, strong, now)
    return max(current, key=lambda crl: crl.next_update_utc or now)


def _revoking(
    said: Sequence[_Said], lifting: Sequence[x509.CertificateRevocationList]
) -> x509.RevokedCertificate | None:
    """Return the entry that revokes the certificate.

    It holds whether or not its CRL is current, strong or complete: time does not take a revocation back. Only a hold
    can be taken back (RFC 5280, 5.3.1): by the first CRL in ``lifting`` that is newer.
    """
    for each in said:
        if each.entry is None or each.is_removal:
            continue
        if not each.is_hold or not any(_is_newer(crl, each.crl) for crl in lifting):
            return each.entry
    return None


def _lifts(said: _Said, certificate: x509.Certificate, trust: TrustPolicy, now: datetime) -> bool:
    """Tell whether a CRL says that a certificate is not on hold: any more, by an entry, or at all, by its silence."""
    if not _is_strong(said.crl, trust) or said.crl.last_update_utc > now + _CLOCK_SKEW:
        return False
    return said.is_removal or (said.entry is None and _covers(said.crl, certificate))


def _is_newer(one: x509.CertificateRevocationList, other: x509.CertificateRevocationList) -> bool:
    if one.last_update_utc != other.last_update_utc:
        return one.last_update_utc > other.last_update_utc
    mine, theirs = _number(one), _number(other)
    return mine is not None and theirs is not None and mine > theirs


def _number(crl: x509.CertificateRevocationList) -> int | None:
    return next((each.value.crl_number for each in crl.extensions if isinstance(each.value, x509.CRLNumber)), None)


def _revoked(link: _Link, entry: x509.RevokedCertificate) -> TrustError:
    kind = SignerRevokedError if link.is_signer else AuthorityRevokedError
    return kind(
        f"the certificate of {link.name} was revoked on {entry.revocation_date_utc:%Y-%m-%d %H:%M:%S} UTC by "
        f"{link.authority}",
        details=f"serial number {serial_number(link.certificate):x}",
        resolution="Trust nothing that it signed; ask the publisher for a list by a new certificate.",
    )


def _missing(link: _Link, anchors: TrustAnchors, trust: TrustPolicy, *, partial: bool) -> TrustError | str:
    said = f"there is no CRL of {link.authority}"
    if partial:
        said += " that speaks of all its certificates"
    # A file that cannot be read is there: what it says is unknown, and may be that the certificate is revoked.
    unusable = anchors.unusable_crls_of(link.above.subject)
    if trust.revocation is RevocationPolicy.IF_PRESENT and not unusable:
        return f"{said}: whether {link.name} is revoked is unknown"
    if unusable:
        return RevocationUnknownError(
            f"{said} that can be read",
            details="\n".join(unusable[:_SHOWN]),
            resolution="Fetch its CRL anew (fetch-crl does it); a file that cannot be read is not the same as none.",
        )
    return RevocationUnknownError(
        said,
        resolution=f"Put its current CRL beside the trust anchors ({anchors.path}; fetch-crl does it), or subscribe "
        f"with --revocation {RevocationPolicy.IF_PRESENT} to go without.",
    )


def _not_current(link: _Link, crls: Sequence[x509.CertificateRevocationList], now: datetime) -> TrustError:
    newest = max(crls, key=lambda crl: crl.last_update_utc)
    issued, due = newest.last_update_utc, newest.next_update_utc
    if issued > now + _CLOCK_SKEW:
        said = f"is not valid before {issued:%Y-%m-%d %H:%M} UTC"
    elif due is None:
        said = "does not say when the next one is due"
    else:
        said = f"expired on {due:%Y-%m-%d %H:%M} UTC"
    return RevocationExpiredError(
        f"the CRL of {link.authority} is not current: it {said}",
        details=f"issued {issued:%Y-%m-%d %H:%M} UTC; now {now:%Y-%m-%d %H:%M} UTC",
        resolution="Fetch its current CRL (fetch-crl does it), and check this machine's clock.",
    )


def _is_signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        usage = [one.value for one in authority.extensions if isinstance(one.value, x509.KeyUsage)]
        if any(not each.crl_sign for each in usage):
            return False
        return is_signed_by(crl, authority)
    except PARSE_PROBLEMS:
        return False


def _is_strong(crl: x509.CertificateRevocationList, trust: TrustPolicy) -> bool:
    digest = crl.signature_hash_algorithm
    return isinstance(digest, _STRONG) or (trust.allow_sha1 and isinstance(digest, hashes.SHA1))


def _is_current(crl: x509.CertificateRevocationList, now: datetime) -> bool:
    return crl.next_update_utc is not None and crl.last_update_utc <= now + _CLOCK_SKEW and now < crl.next_update_utc


def _covers(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    """Tell whether the absence of ``certificate`` from ``crl`` says that it is not revoked."""
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            return False
        if isinstance(value, x509.IssuingDistributionPoint):
            if not _is_point_of(value, certificate):
                return False
        elif extension.critical and not isinstance(value, x509.CRLNumber | x509.AuthorityKeyIdentifier):
            # What is not understood could narrow what the CRL speaks of.
            return False
    return True


def _is_point_of(point: x509.IssuingDistributionPoint, certificate: x509.Certificate) -> bool:
    # RFC 5280, 6.3.3 (b) (2): a CRL of one distribution point speaks of the certificates that name the same point.
    narrowed = (
        point.only_contains_user_certs
        or point.only_contains_ca_certs
        or point.only_contains_attribute_certs
        or point.only_some_reasons
        or point.indirect_crl
        or point.relative_name
    )
    if narrowed:
        return False
    if point.full_name is None:
        return True
    named = [
        name
        for extension in certificate.extensions
        if isinstance(extension.value, x509.CRLDistributionPoints)
        for each in extension.value
        if each.crl_issuer is None and each.reasons is None
        for name in each.full_name or ()
    ]
    return any(name in named for name in point.full_name)


def _entry_of(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> x509.RevokedCertificate | None:
    """Return the entry about ``certificate``; in a CRL of several authorities, entries may be another's."""
    if any(isinstance(one.value, x509.IssuingDistributionPoint) and one.value.indirect_crl for one in crl.extensions):
        return None
    return crl.get_revoked_certificate_by_serial_number(serial_number(certificate))


def _reason(entry: x509.RevokedCertificate) -> x509.ReasonFlags | None:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except (x509.ExtensionNotFound, *PARSE_PROBLEMS):
        # What is not understood about an entry does not take it away.
        return None
