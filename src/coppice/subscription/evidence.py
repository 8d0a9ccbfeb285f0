# SPDX-License-Identifier: Apache-2.0
"""What was found about a signature and its certificates, as lines of the table of rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm

from coppice.formats.algorithms import describe_key, describe_usage
from coppice.formats.names import distinguished_name
from coppice.subscription.judgement import Rule

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from coppice.formats.cms import SignedMessage
    from coppice.subscription.judgement import RuleTable
    from coppice.subscription.model import TrustPolicy
    from coppice.subscription.path import CheckedPath

_ASKED_OF_AUTHORITIES = (
    Rule.NAMESPACE_KNOWN,
    Rule.NAMESPACE,
    Rule.REVOCATION_KNOWN,
    Rule.REVOCATION_GENUINE,
    Rule.REVOCATION_CURRENT,
    Rule.AUTHORITY_NOT_REVOKED,
    Rule.SIGNER_NOT_REVOKED,
)
_SECOND = "%Y-%m-%d %H:%M:%S UTC"


def note_signature(message: bytes, opened: SignedMessage, table: RuleTable) -> None:
    """Note what was found about the signature."""
    table.passed(Rule.SIGNED, f"{len(message)} bytes, of which {len(opened.payload)} are the list")
    table.passed(Rule.SIGNATURE_FORM, f"CMS signed data, certificates: {1 + len(opened.other_certificates)}")
    table.passed(Rule.ONE_SIGNER, "1 signer")
    strength = table.warned if opened.digest == "sha1" else table.passed
    strength(Rule.SIGNATURE_STRONG, f"{opened.digest}, {describe_key(opened.signer_certificate)}")
    table.passed(Rule.INTACT, f"the {opened.digest} digest is the signed one, and the signature is by the signer's key")


def note_path(path: CheckedPath, trust: TrustPolicy, at: datetime, table: RuleTable) -> None:
    """Note what was found about the certificates, judged at ``at``."""
    links = path.certificates
    names = " < ".join(str(distinguished_name(link.subject)) for link in links)
    ending = min(link.not_valid_after_utc for link in links)
    digests = sorted({_digest(link) for link in links})
    due = f", due {path.crl_next_update:{_SECOND}}" if path.crl_next_update else ""
    table.passed(Rule.SIGNER_TRUSTED, f"{names}; trusted: {distinguished_name(path.anchor.subject)}")
    table.passed(Rule.SIGNER_VALID, f"the first of them expires {ending:{_SECOND}}; judged at {at:{_SECOND}}")
    table.passed(Rule.SIGNER_USAGE, describe_usage(links[0]))
    table.passed(Rule.PATH_STRONG, ", ".join(digests))
    for rule in (Rule.NAMESPACE_KNOWN, Rule.NAMESPACE):
        table.passed(rule, f"asked: {trust.namespaces}")
    for rule in (Rule.REVOCATION_KNOWN, Rule.REVOCATION_GENUINE, Rule.REVOCATION_CURRENT):
        table.passed(rule, f"asked: {trust.revocation}{due}")
    table.passed(Rule.AUTHORITY_NOT_REVOKED, f"authorities: {len(links) - 1}")
    table.passed(Rule.SIGNER_NOT_REVOKED, f"serial number {links[0].serial_number:x}")
    for text in path.warnings:
        table.warned(Rule.REVOCATION_KNOWN if "CRL" in text else Rule.NAMESPACE_KNOWN, text)
    if path.pinned:
        for rule in (*_ASKED_OF_AUTHORITIES, Rule.SIGNER_TRUSTED):
            table.passed(rule, "the signer's own certificate is trusted; no authority is asked")


def _digest(certificate: x509.Certificate) -> str:
    try:
        known = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        # An anchor is trusted by whatever it is signed.
        known = None
    return known.name if known else certificate.signature_algorithm_oid.dotted_string
