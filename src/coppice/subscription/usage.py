# SPDX-License-Identifier: Apache-2.0
"""What each certificate of a path must be by itself: dates, keys and digests, and what it may be used for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from coppice.errors import SignerExpiredError, SignerUsageError, UntrustedSignerError, WeakSignatureError
from coppice.formats.algorithms import MINIMUM_RSA_BITS
from coppice.formats.certificates import serial_number
from coppice.formats.names import distinguished_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from coppice.subscription.model import TrustPolicy

_SIGNING_USAGES = {
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.EMAIL_PROTECTION,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}
_PROXY_EXTENSIONS = {
    # RFC 3820, ProxyCertInfo; and the one of the Globus Toolkit before it.
    "1.3.6.1.5.5.7.1.14",
    "1.3.6.1.4.1.3536.1.222",
}
_STRONG_DIGESTS = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_KNOWN_BESIDE = (
    x509.AuthorityKeyIdentifier,
    x509.CRLDistributionPoints,
    x509.CertificatePolicies,
    x509.IssuerAlternativeName,
    x509.SubjectAlternativeName,
    x509.SubjectKeyIdentifier,
)
"""May be critical in an endorser's certificate: they narrow nothing that matters for a signature."""
_AUTHORITY_USAGES = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_JUDGED_OF_AUTHORITIES = {
    *_KNOWN_BESIDE,
    x509.BasicConstraints,
    x509.ExtendedKeyUsage,
    x509.KeyUsage,
    x509.NameConstraints,
}
"""May be critical in an authority's certificate."""


def check_dates(path: Sequence[x509.Certificate], at: datetime) -> None:
    """Check that every certificate is valid at ``at``.

    Raises:
        SignerExpiredError: One is not.
    """
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


def check_signer(signer: x509.Certificate, trust: TrustPolicy) -> None:
    """Check that the signer's certificate is an end entity's and may be used for signatures.

    Extended key usage, where there is any, must be for clients or mail, as the certificates of people and robots are. A
    host's (serverAuth) is accepted only where the subscription says so.

    Raises:
        SignerUsageError: It may not.
    """
    if signer.version is not x509.Version.v3:
        _refuse(signer, f"it is of X.509 version {signer.version.name[1:]}, which says nothing about its use")
    if serial_number(signer) <= 0:
        _refuse(signer, f"its serial number is {serial_number(signer)}, by which nobody could revoke it")
    for extension in signer.extensions:
        value = extension.value
        if extension.oid.dotted_string in _PROXY_EXTENSIONS:
            _refuse(signer, "it is a proxy, made by its holder and by no authority")
        if isinstance(value, x509.BasicConstraints):
            if value.ca:
                _refuse(signer, "it is an authority's certificate")
        elif isinstance(value, x509.KeyUsage):
            if not value.digital_signature:
                _refuse(signer, "its key usage lacks digitalSignature")
        elif isinstance(value, x509.ExtendedKeyUsage):
            _check_extended(signer, value, trust)
        elif extension.critical and not isinstance(value, _KNOWN_BESIDE):
            _refuse(signer, f"it has the unknown critical extension {extension.oid.dotted_string}")


def _check_extended(signer: x509.Certificate, usages: x509.ExtendedKeyUsage, trust: TrustPolicy) -> None:
    if _SIGNING_USAGES.intersection(usages):
        return
    if ExtendedKeyUsageOID.SERVER_AUTH in usages:
        if trust.allow_host_certificate:
            return
        _refuse(
            signer,
            "its extended key usage is for hosts (serverAuth), and has neither clientAuth nor emailProtection",
            "The endorser needs a certificate of a person or robot; or subscribe with --accept-host-certificate.",
        )
    _refuse(signer, "its extended key usage has neither clientAuth nor emailProtection")


def _refuse(signer: x509.Certificate, reason: str, resolution: str | None = None) -> NoReturn:
    raise SignerUsageError(
        f"the certificate of {distinguished_name(signer.subject)} may not sign an image list: {reason}",
        resolution=resolution or "The endorser needs a certificate for signatures (keyUsage digitalSignature).",
    )


def check_strength(below: Sequence[x509.Certificate], trust: TrustPolicy) -> None:
    """Check keys and digests of the certificates below the anchor.

    Raises:
        WeakSignatureError: A key is below RSA 2048 or P-256, or a digest below sha256. sha1 passes where the policy
            allows it; md5 never does.
    """
    for link in below:
        name, digest = distinguished_name(link.subject), link.signature_hash_algorithm
        if not is_strong(link) and not (trust.allow_sha1 and isinstance(digest, hashes.SHA1)):
            raise WeakSignatureError(
                f"the certificate of {name} is signed with {digest.name if digest else 'an unknown algorithm'}",
                resolution="It must be issued anew with sha256 or better.",
            )
        key = link.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            if key.key_size < MINIMUM_RSA_BITS:
                raise WeakSignatureError(
                    f"the RSA key of {name} has {key.key_size} bits; {MINIMUM_RSA_BITS} are the least"
                )
        elif not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)):
            raise WeakSignatureError(
                f"the key of {name} is of a kind that is not accepted (RSA, or ECDSA on P-256, P-384 or P-521)"
            )


def is_strong(certificate: x509.Certificate) -> bool:
    """Tell whether ``certificate`` is signed with sha256 or better."""
    return isinstance(certificate.signature_hash_algorithm, _STRONG_DIGESTS)


def check_authorities(path: Sequence[x509.Certificate], *, sha1: bool) -> None:
    """Check that everything above the signer is an authority that may certify what is below it.

    ``cryptography`` judges this too, and more. It is judged here as well so that the error can say which authority it
    is, and since it does not judge paths with sha1.

    Args:
        path: From the signer up.
        sha1: Whether a certificate below the anchor is signed with sha1.

    Raises:
        UntrustedSignerError: One may not.
    """
    for depth, authority in enumerate(path[1:]):
        # RFC 5280, 4.2.1.9: certificates between this one and the signer, those not counted that an authority issued
        # to itself.
        between = sum(1 for link in path[1 : depth + 1] if link.subject != link.issuer)
        _check_authority(authority, between, sha1=sha1)
        if sha1 and authority is not path[-1]:
            _check_beside_verifier(authority)


def _check_beside_verifier(authority: x509.Certificate) -> None:
    """Check of an authority below the root what else the verifier asks, which does not judge paths with sha1."""
    found = {type(extension.value): extension for extension in authority.extensions}
    usages = found.get(x509.ExtendedKeyUsage)
    reason = ""
    if x509.KeyUsage not in found:
        reason = "its certificate has no key usage"
    elif usages is not None and not _AUTHORITY_USAGES.intersection(usages.value):
        reason = "its extended key usage has neither clientAuth nor anyExtendedKeyUsage"
    else:
        unknown = [one for kind, one in found.items() if one.critical and kind not in _JUDGED_OF_AUTHORITIES]
        reason = f"it has the critical extension {unknown[0].oid.dotted_string}" if unknown else ""
    if reason:
        raise UntrustedSignerError(f"{distinguished_name(authority.subject)} certified what it may not: {reason}")


def _check_authority(authority: x509.Certificate, between: int, *, sha1: bool) -> None:
    name = distinguished_name(authority.subject)

    def refuse(reason: str) -> NoReturn:
        raise UntrustedSignerError(f"{name} certified what it may not: {reason}")

    if authority.version is not x509.Version.v3:
        refuse(f"its certificate is of X.509 version {authority.version.name[1:]}")
    found = {type(extension.value): extension.value for extension in authority.extensions}
    constraints, usage = found.get(x509.BasicConstraints), found.get(x509.KeyUsage)
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        refuse("its certificate is no authority's (basicConstraints)")
    if constraints.path_length is not None and between > constraints.path_length:
        refuse(f"its path length is {constraints.path_length}, and {between} authorities are between")
    if isinstance(usage, x509.KeyUsage) and not usage.key_cert_sign:
        refuse("its key usage lacks keyCertSign")
    limits = found.get(x509.NameConstraints)
    if isinstance(limits, x509.NameConstraints):
        names = (*(limits.permitted_subtrees or ()), *(limits.excluded_subtrees or ()))
        # The verifier passes these over where they are not critical.
        if sha1 or any(isinstance(each, x509.DirectoryName) for each in names):
            refuse("its name constraints cannot be judged: they are of distinguished names, or the path has sha1")
    for extension in authority.extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            refuse(f"it has the unknown critical extension {extension.oid.dotted_string}")
