# SPDX-License-Identifier: Apache-2.0
"""Certificate revocation lists: which certificates of a path are revoked, judged now."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from coppice.errors import RevocationUnknownError, SignerRevokedError
from coppice.formats.names import distinguished_name
from coppice.subscription.model import RevocationPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from coppice.subscription.anchors import TrustAnchors


def check_revocation(
    path: Sequence[x509.Certificate], anchors: TrustAnchors, *, policy: RevocationPolicy, now: datetime
) -> tuple[str, ...]:
    """Check every certificate of ``path`` against the CRL of the one above it; return warnings.

    Raises:
        SignerRevokedError: One of them is revoked.
        RevocationUnknownError: A CRL is missing although the policy requires it, or is expired, or not signed by its
            authority.
    """
    warnings = []
    # The whole path first: a revoked authority is worse news than a missing CRL.
    verdicts = [_judge(link, above, anchors, policy, now) for link, above in pairwise(path)]
    for verdict in sorted(verdicts, key=lambda verdict: not isinstance(verdict, SignerRevokedError)):
        if isinstance(verdict, SignerRevokedError | RevocationUnknownError):
            raise verdict
        if verdict:
            warnings.append(verdict)
    return tuple(warnings)


def _judge(
    link: x509.Certificate,
    above: x509.Certificate,
    anchors: TrustAnchors,
    policy: RevocationPolicy,
    now: datetime,
) -> SignerRevokedError | RevocationUnknownError | str:
    authority = distinguished_name(above.subject)
    named = [crl for crl in anchors.crls if crl.issuer == above.subject]
    if not named:
        if policy is RevocationPolicy.IF_PRESENT:
            return f"there is no CRL of {authority}: whether {distinguished_name(link.subject)} is revoked is unknown"
        return _unknown(
            f"there is no CRL of {authority}",
            f"Put its current CRL beside the trust anchors ({anchors.path}; fetch-crl does it), or subscribe with "
            f"--revocation {RevocationPolicy.IF_PRESENT} to go without.",
        )
    genuine = [crl for crl in named if _is_signed_by(crl, above)]
    if not genuine:
        return _unknown(
            f"the CRL of {authority} is not signed by it",
            "Fetch the CRL again from the authority; a forged one is worse than none.",
        )
    # An entry holds whether or not its CRL is still current: a revocation is not taken back by time.
    for crl in genuine:
        revoked = crl.get_revoked_certificate_by_serial_number(link.serial_number)
        if revoked is not None and not _is_removal(revoked):
            return SignerRevokedError(
                f"the certificate of {distinguished_name(link.subject)} was revoked on "
                f"{revoked.revocation_date_utc:%Y-%m-%d %H:%M:%S} UTC by {authority}",
                resolution="Trust nothing that it signed; ask the publisher for a list by a new certificate.",
            )
    if not any(_is_current(crl, now) for crl in genuine):
        newest = max(genuine, key=lambda crl: crl.last_update_utc)
        return _unknown(
            f"the CRL of {authority} is not current: issued {newest.last_update_utc:%Y-%m-%d %H:%M} UTC, "
            f"next due {newest.next_update_utc or 'at no date'}",
            "Fetch its current CRL (fetch-crl does it), and check this machine's clock.",
        )
    return ""


def _unknown(message: str, resolution: str) -> RevocationUnknownError:
    return RevocationUnknownError(message, resolution=resolution)


def _is_signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        if isinstance(crl.signature_hash_algorithm, hashes.MD5 | hashes.SHA1):
            return False
        # A critical extension that is not understood could narrow what the CRL speaks of.
        if any(extension.critical for extension in crl.extensions):
            return False
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # other keys: TypeError
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _is_current(crl: x509.CertificateRevocationList, now: datetime) -> bool:
    return crl.next_update_utc is not None and crl.last_update_utc <= now < crl.next_update_utc


def _is_removal(revoked: x509.RevokedCertificate) -> bool:
    try:
        reason = revoked.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return False
    return reason is x509.ReasonFlags.remove_from_crl
