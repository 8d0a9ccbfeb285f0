# SPDX-License-Identifier: Apache-2.0
"""Open a signed message: everything that the signature itself can tell.

`open_message` says that the payload is what the holder of the signer's key signed. Whether that signer is trusted is
judged elsewhere. asn1crypto parses only; all cryptography is done by ``cryptography``.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asn1crypto import cms
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from coppice.errors import SignatureFormError, SignerCountError, TamperedListError
from coppice.formats.algorithms import check_signature, digest_by_oid, digest_of
from coppice.formats.limits import DEFAULT_LIMITS, ListLimits
from coppice.formats.smime import unwrap, without_inner_headers

MAX_CERTIFICATES = 16
_MAX_SIGNATURE_STRUCTURE_BYTES = 1024 * 1024
# What the two parsers raise on malformed input.
_PARSE_PROBLEMS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMessage:
    """A message whose signature holds.

    Attributes:
        payload: The bytes that were signed, without a MIME header inside them.
        signer_certificate: Of the one signer.
        other_certificates: That came along; not trusted.
        digest: ``sha256``, ``sha384`` or ``sha512``.
        signing_time: As the signer claims it; None where it is not said.
    """

    payload: bytes
    signer_certificate: x509.Certificate
    other_certificates: tuple[x509.Certificate, ...]
    digest: str
    signing_time: datetime | None


def open_message(message: bytes, *, limits: ListLimits = DEFAULT_LIMITS, allow_sha1: bool = False) -> SignedMessage:
    """Return what ``message`` says, after every check that needs no trust anchor.

    Args:
        message: S/MIME (detached or opaque), PEM or DER.
        limits: How much a list may be.
        allow_sha1: Whether SHA-1 is accepted as well.

    Raises:
        UnsignedListError: It is not signed.
        SignatureFormError: The signature has not the accepted form.
        SignerCountError: It has not exactly one signer.
        WeakSignatureError: Digest, key or algorithm is below the floor.
        TamperedListError: The content is not what was signed.
    """
    envelope = unwrap(message, limit_bytes=limits.message_bytes)
    try:
        return _open(envelope.der, envelope.body, allow_sha1=allow_sha1)
    except _PARSE_PROBLEMS as problem:
        raise SignatureFormError(
            "the signature is not a well-formed CMS structure",
            details=f"{type(problem).__name__}: {str(problem)[:300]}",
            resolution="Fetch the list again; if it stays so, tell its publisher.",
        ) from problem


def _open(der: bytes, body: bytes | None, *, allow_sha1: bool) -> SignedMessage:
    outer = cms.ContentInfo.load(der, strict=True)
    if outer["content_type"].native != "signed_data":
        raise SignatureFormError("the message is CMS, but not signed data")
    signed_data = outer["content"]
    signer = _only_signer(signed_data)
    candidates = _contents(signed_data, body, len(der))
    certificates = _certificates(signed_data)
    certificate = _signer_certificate(signer["sid"], certificates)
    digest = digest_by_oid(signer["digest_algorithm"]["algorithm"].dotted, allow_sha1=allow_sha1)
    attributes = _signed_attributes(signer)
    content = _matching(candidates, digest[0], bytes(_single(attributes, "message_digest").native))
    if _single(attributes, "content_type").native != "data":
        raise SignatureFormError("the signed attributes speak of another type of content")
    check_signature(
        certificate,
        signer["signature_algorithm"],
        digest,
        bytes(signer["signature"].native),
        signer["signed_attrs"].untag().dump(),
    )
    return SignedMessage(
        payload=without_inner_headers(content),
        signer_certificate=certificate,
        other_certificates=tuple(other for other in certificates if other is not certificate),
        digest=digest[0],
        signing_time=_signing_time(attributes),
    )


def _only_signer(signed_data: cms.SignedData) -> cms.SignerInfo:
    signers = signed_data["signer_infos"]
    if len(signers) != 1:
        raise SignerCountError(
            f"the message has {len(signers) or 'no'} signers; exactly one is needed",
            resolution="The list must be signed by its endorser alone.",
        )
    return signers[0]


def _contents(signed_data: cms.SignedData, body: bytes | None, der_bytes: int) -> list[bytes]:
    inner = signed_data["encap_content_info"]
    if inner["content_type"].native != "data":
        raise SignatureFormError("the signed content is not plain data")
    embedded = inner["content"].native
    if body is None:
        if embedded is None:
            raise SignatureFormError("the signature comes without the content that it signs")
        return [bytes(embedded)]
    if embedded is not None:
        raise SignatureFormError("the message carries two contents, one beside and one inside the signature")
    if der_bytes > _MAX_SIGNATURE_STRUCTURE_BYTES:
        raise SignatureFormError(f"the signature is longer than {_MAX_SIGNATURE_STRUCTURE_BYTES} bytes")
    # S/MIME signs the form with CRLF; "openssl -binary" signs the bytes, and a transport may have changed line ends.
    canonical = re.sub(rb"\r?\n", b"\r\n", body)
    return [canonical, body, canonical.replace(b"\r\n", b"\n")]


def _matching(candidates: list[bytes], digest: str, expected: bytes) -> bytes:
    for candidate in candidates:
        if hmac.compare_digest(digest_of(digest, candidate), expected):
            return candidate
    raise TamperedListError(
        "the list was changed after it was signed",
        details=f"Its {digest} digest is {digest_of(digest, candidates[0]).hex()}; signed was {expected[:64].hex()}.",
        resolution="Fetch the list again; if it stays so, tell its publisher.",
    )


def _certificates(signed_data: cms.SignedData) -> list[x509.Certificate]:
    bag = signed_data["certificates"]
    if not isinstance(bag, cms.CertificateSet) or len(bag) == 0:
        raise SignatureFormError("the signer's certificate is not in the message")
    if len(bag) > MAX_CERTIFICATES:
        raise SignatureFormError(f"the message carries more than {MAX_CERTIFICATES} certificates")
    if any(choice.name != "certificate" for choice in bag):
        raise SignatureFormError("the message carries a certificate of an unknown kind")
    return [x509.load_der_x509_certificate(choice.chosen.dump()) for choice in bag]


def _signer_certificate(sid: cms.SignerIdentifier, certificates: list[x509.Certificate]) -> x509.Certificate:
    if sid.name == "issuer_and_serial_number":
        issuer, serial = sid.chosen["issuer"].dump(), sid.chosen["serial_number"].native
        matching = [one for one in certificates if one.serial_number == serial and one.issuer.public_bytes() == issuer]
    else:
        matching = [one for one in certificates if _key_identifier(one) == bytes(sid.native)]
    if len(matching) != 1:
        raise SignatureFormError(f"the signer's certificate is in the message {len(matching)} times; once is needed")
    return matching[0]


def _key_identifier(certificate: x509.Certificate) -> bytes | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None


def _signed_attributes(signer: cms.SignerInfo) -> dict[str, Any]:
    attributes = signer["signed_attrs"]
    if not isinstance(attributes, cms.CMSAttributes) or len(attributes) == 0:
        raise SignatureFormError(
            "the signature has no signed attributes, without which it can be moved to other content"
        )
    found: dict[str, Any] = {}
    for attribute in attributes:
        kind = attribute["type"].native
        if kind in found:
            raise SignatureFormError(f"the signed attribute {kind} stands there twice")
        found[kind] = attribute["values"]
    return found


def _single(attributes: dict[str, Any], kind: str) -> Any:
    values = attributes.get(kind)
    if values is None or len(values) != 1:
        raise SignatureFormError(f"the signed attribute {kind} is not there exactly once")
    return values[0]


def _signing_time(attributes: dict[str, Any]) -> datetime | None:
    if "signing_time" not in attributes:
        return None
    claimed = _single(attributes, "signing_time").native
    return claimed.astimezone(UTC) if isinstance(claimed, datetime) else None
