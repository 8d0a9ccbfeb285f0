# SPDX-License-Identifier: Apache-2.0
"""From the signer's certificate to a trust anchor: pure, no file and no network is looked at.

A path is first found by names and signatures, so that an error can say which certificate is wrong; the path as a whole
is then judged by ``cryptography``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

from coppice.errors import (
    SignerExpiredError,
    SignerUsageError,
    TrustError,
    UntrustedSignerError,
    WeakSignatureError,
)
from coppice.formats.names import distinguished_name
from coppice.subscription.revocation import check_revocation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from coppice.subscription.anchors import TrustAnchors
    from coppice.subscription.model import TrustPolicy

MAX_PATH_LENGTH = 6
_MAX_PATHS = 16
_MAX_STEPS = 200
"""Certificates that certify each other in circles make more paths than anyone could look at."""
_SIGNING_USAGES = {
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.EMAIL_PROTECTION,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}
_PARSE_PROBLEMS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


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
        UntrustedSignerError: No path leads to an anchor.
        SignerExpiredError: A certificate of the path is not valid at ``dates_at``.
        SignerUsageError: The signer's certificate is not for signing.
        SignerRevokedError: A certificate of the path is revoked.
        RevocationUnknownError: A CRL is missing, expired or not its authority's.
        WeakSignatureError: A certificate of the path is signed with sha1 or md5.
    """
    try:
        return _check(signer, others, anchors, trust=trust, dates_at=dates_at, now=now)
    except _PARSE_PROBLEMS as problem:
        raise UntrustedSignerError(
            "a certificate in the signer's path is malformed", details=f"{type(problem).__name__}: {str(problem)[:300]}"
        ) from problem


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
    for count, path in enumerate(_paths([signer], others, anchors)):
        if count >= _MAX_PATHS:
            break
        try:
            _check_names(path, anchors)
            _check_dates(path, dates_at)
            _check_usage(signer)
            _check_strength(path, anchors)
            _check_whole(path, anchors, dates_at)
            warnings = check_revocation(path, anchors, policy=trust.revocation, now=now)
            anchor = next(link for link in path[1:] if link in anchors.certificates)
            return CheckedPath(certificates=tuple(path), anchor=anchor, warnings=warnings)
        except TrustError as problem:
            first = first or problem
    if first is not None:
        raise first
    return _untrusted(signer, anchors)


def _untrusted(signer: x509.Certificate, anchors: TrustAnchors) -> NoReturn:
    raise UntrustedSignerError(
        f"no trust anchor stands above the signer {distinguished_name(signer.subject)}",
        details=f"Its certificate was issued by {distinguished_name(signer.issuer)}; looked for in {anchors.path}.",
        resolution="If this authority is to be trusted, add its certificate to the subscription's trust anchors.",
    )


def _paths(
    path: list[x509.Certificate],
    others: Sequence[x509.Certificate],
    anchors: TrustAnchors,
    looked_at: list[int] | None = None,
) -> Iterator[list[x509.Certificate]]:
    """Yield each path that leads as far up as is known and contains an anchor above the signer."""
    looked_at = looked_at if looked_at is not None else [0]
    looked_at[0] += 1
    if looked_at[0] > _MAX_STEPS:
        return
    top = path[-1]
    above = []
    if not _issued(top, top) and len(path) < MAX_PATH_LENGTH:
        above = [one for one in (*anchors.certificates, *others) if one not in path and _issued(one, top)]
    for issuer in above:
        yield from _paths([*path, issuer], others, anchors, looked_at)
    if not above and any(link in anchors.certificates for link in path[1:]):
        yield path


def _issued(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    if issuer.subject != subject.issuer:
        return False
    try:
        subject.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_PARSE_PROBLEMS):
        return False
    return True


def _check_names(path: list[x509.Certificate], anchors: TrustAnchors) -> None:
    # Any trusted authority could certify another one's name; who is pinned by that name would then be anybody.
    for link in path[1:]:
        if link not in anchors.certificates and any(link.subject == anchor.subject for anchor in anchors.certificates):
            raise UntrustedSignerError(
                f"a certificate that came with the list bears the name of the trust anchor "
                f"{distinguished_name(link.subject)}, and is not that anchor's",
                resolution="If that authority has a new certificate, add it to the subscription's trust anchors.",
            )


def _check_dates(path: list[x509.Certificate], at: datetime) -> None:
    for link in path:
        name = distinguished_name(link.subject)
        if at > link.not_valid_after_utc:
            raise SignerExpiredError(
                f"the certificate of {name} expired on {link.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC",
                resolution="The list must be signed anew with a valid certificate; ask its publisher.",
            )
        if at < link.not_valid_before_utc:
            raise SignerExpiredError(
                f"the certificate of {name} is not valid before {link.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC",
                resolution="Check this machine's clock.",
            )


def _check_usage(signer: x509.Certificate) -> None:
    def refuse(reason: str) -> NoReturn:
        raise SignerUsageError(
            f"the certificate of {distinguished_name(signer.subject)} may not sign an image list: {reason}",
            resolution="The endorser needs a certificate for signatures (keyUsage digitalSignature).",
        )

    for extension in signer.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            refuse("it is an authority's certificate")
        if isinstance(value, x509.KeyUsage) and not value.digital_signature:
            refuse("its key usage lacks digitalSignature")
        if isinstance(value, x509.ExtendedKeyUsage) and not _SIGNING_USAGES.intersection(value):
            refuse("its extended key usage has neither clientAuth nor emailProtection")
        if extension.critical and isinstance(value, x509.UnrecognizedExtension):
            refuse(f"it has the unknown critical extension {extension.oid.dotted_string}")


def _check_strength(path: list[x509.Certificate], anchors: TrustAnchors) -> None:
    # What signs an anchor does not matter: the anchor is trusted as it is.
    for link in path:
        if link not in anchors.certificates and isinstance(link.signature_hash_algorithm, hashes.MD5 | hashes.SHA1):
            raise WeakSignatureError(
                f"the certificate of {distinguished_name(link.subject)} is signed with "
                f"{link.signature_hash_algorithm.name}"
            )


def _check_whole(path: list[x509.Certificate], anchors: TrustAnchors, at: datetime) -> None:
    trusted = [link for link in path[1:] if link in anchors.certificates]
    verifier = (
        PolicyBuilder()
        .store(Store(trusted))
        .time(at.replace(tzinfo=None, microsecond=0))
        .max_chain_depth(MAX_PATH_LENGTH)
        .extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca(),
            # Endorsers' certificates name people, not hosts; their usage is checked here.
            ee_policy=ExtensionPolicy.permit_all(),
        )
        .build_client_verifier()
    )
    try:
        verifier.verify(path[0], [link for link in path[1:] if link not in trusted])
    except VerificationError as problem:
        raise UntrustedSignerError(
            f"the certificates above the signer {distinguished_name(path[0].subject)} are not acceptable",
            details=str(problem)[:500],
        ) from problem
