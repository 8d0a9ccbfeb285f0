# SPDX-License-Identifier: Apache-2.0
"""Open a signed message: everything that the signature itself can tell (CMS signed data, RFC 5652).

`open_message` says that the payload is what the holder of the signer's key signed. Whether that signer is trusted is
judged elsewhere. The structure is cut into its pieces within bounds (`coppice.formats.ber`), asn1crypto parses the
small ones; all cryptography is done by ``cryptography``.

Stricter than RFC 5652 and than most readers, since a list has one honest writer and many possible forgers: exactly one
signer; signed attributes, each once, with one value each, in DER, so that no two readers can take them differently;
one content, beside the signature or inside it; the signer's certificate along with it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asn1crypto import cms
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from coppice.errors import SignatureFormError, SignerCountError, TamperedListError
from coppice.formats import ber
from coppice.formats.algorithms import digest_of, read_scheme
from coppice.formats.certificates import load_certificate, serial_number
from coppice.formats.limits import DEFAULT_LIMITS, ListLimits
from coppice.formats.smime import MAX_SIGNATURE_BYTES, unwrap, without_inner_headers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coppice.formats.algorithms import Scheme

MAX_CERTIFICATES = 16
_MAX_DIGEST_ALGORITHMS = 16
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_DATA = bytes.fromhex("06092a864886f70d010701")
_RESOLUTION = "Fetch the list again; if it stays so, its publisher must sign it in one of the accepted forms."
# What the parsers raise on malformed input; a warning becomes an error where Python is told so.
_PARSE_PROBLEMS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
    Warning,
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
        digest: ``sha256``, ``sha384``, ``sha512``; ``sha1`` only where that was allowed.
        signing_time: As the signer claims it; None where it is not said.
    """

    payload: bytes
    signer_certificate: x509.Certificate
    other_certificates: tuple[x509.Certificate, ...]
    digest: str
    signing_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pieces:
    """Signed data, cut into its pieces; nothing of it is believed.

    Attributes:
        digests: ``digestAlgorithms``, as bytes.
        content: Inside the structure; None: there is none.
        certificates: Each as bytes.
        signers: ``SignerInfo``, each as bytes.
    """

    digests: bytes
    content: bytes | None
    certificates: tuple[bytes, ...]
    signers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signer:
    """The one signer, read.

    Attributes:
        certificate: Of the signer.
        others: The other certificates.
        scheme: How it was signed.
        signature: The value.
        signed: The bytes that it was made over: the signed attributes.
        digest: Of the content, as the signed attributes say.
        signing_time: As the signed attributes say.
    """

    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...]
    scheme: Scheme
    signature: bytes
    signed: bytes
    digest: bytes
    signing_time: datetime | None


def open_message(message: bytes, *, limits: ListLimits = DEFAULT_LIMITS, allow_sha1: bool = False) -> SignedMessage:
    """Return what ``message`` says, after every check that needs no trust anchor.

    Args:
        message: S/MIME (detached or opaque), PEM or DER.
        limits: How much a list may be.
        allow_sha1: Whether SHA-1 is accepted as well.

    Raises:
        UnsignedListError: It is not signed.
        SignatureFormError: The signature has not the accepted form, or is too long.
        SignerCountError: It has not exactly one signer.
        WeakSignatureError: Digest, key or algorithm is below the floor.
        TamperedListError: The content is not what was signed.
    """
    try:
        signer, content = _open(message, limits, allow_sha1=allow_sha1)
        payload = without_inner_headers(content)
    except _PARSE_PROBLEMS as problem:
        raise SignatureFormError(
            "the signature is not a well-formed CMS structure",
            details=f"{type(problem).__name__}: {str(problem)[:300]}",
            resolution=_RESOLUTION,
        ) from problem
    except SignatureFormError as problem:
        problem.resolution = problem.resolution or _RESOLUTION
        raise
    return SignedMessage(
        payload=payload,
        signer_certificate=signer.certificate,
        other_certificates=signer.others,
        digest=signer.scheme.digest,
        signing_time=signer.signing_time,
    )


def _open(message: bytes, limits: ListLimits, *, allow_sha1: bool) -> tuple[_Signer, bytes]:
    # First the whole form, then strength, then integrity: an error tells that what comes before it holds.
    envelope = unwrap(message, limits=limits)
    pieces = _cut(envelope.der)
    _check_contents(pieces, envelope.body, limits)
    signer = _read_signer(pieces)
    signer.scheme.require_strong(allow_sha1=allow_sha1)
    content = _matching(pieces.content, envelope.body, signer)
    signer.scheme.check(signer.signature, signer.signed)
    return signer, content


def _cut(der: bytes) -> _Pieces:
    structure = ber.Structure(der)
    kind, wrapped = _exactly(structure, structure.root(), 2)
    if structure.whole(kind) != _SIGNED_DATA:
        raise SignatureFormError("the message is CMS, but not signed data")
    (signed_data,) = _exactly(structure, _tagged(wrapped, ber.FIRST), 1)
    parts = list(structure.children(_tagged(signed_data, ber.SEQUENCE)))
    _version, digests, encapsulated, *sets, signers = parts
    # Certificates [0] and CRLs [1], each once at most; CRLs from elsewhere are not looked at.
    tags = [each.tag for each in sets]
    if tags not in ([], [ber.FIRST], [ber.FIRST + 1], [ber.FIRST, ber.FIRST + 1]):
        raise SignatureFormError("the message has parts that signed data has not")
    infos, count = _first(structure, _tagged(signers, ber.SET), 1)
    if count != 1:
        raise SignerCountError(
            f"the message has {count or 'no'} signers; exactly one is needed",
            resolution="The list must be signed by its endorser alone.",
        )
    bag, count = _first(structure, sets[0], MAX_CERTIFICATES) if sets and sets[0].tag == ber.FIRST else ([], 0)
    if not bag:
        raise SignatureFormError("the signer's certificate is not in the message")
    if count > MAX_CERTIFICATES:
        raise SignatureFormError(f"the message carries more than {MAX_CERTIFICATES} certificates")
    if len(der) - (encapsulated.after - encapsulated.start) > MAX_SIGNATURE_BYTES:
        raise SignatureFormError(f"the signature is longer than {MAX_SIGNATURE_BYTES} bytes")
    if any(each.tag != ber.SEQUENCE for each in bag):
        raise SignatureFormError("the message carries a certificate of an unknown kind")
    return _Pieces(
        digests=structure.whole(_tagged(digests, ber.SET)),
        content=_content(structure, encapsulated),
        # One that stands there twice is still one.
        certificates=tuple(dict.fromkeys(structure.whole(each) for each in bag)),
        signers=tuple(structure.whole(each) for each in infos),
    )


def _first(structure: ber.Structure, parent: ber.Element, most: int) -> tuple[list[ber.Element], int]:
    """Return the first elements and how many there are: a hostile message has millions, and none is kept in vain."""
    kept: list[ber.Element] = []
    count = 0
    for child in structure.children(parent):
        count += 1
        if count <= most:
            kept.append(child)
    return kept, count


def _exactly(structure: ber.Structure, parent: ber.Element, count: int) -> list[ber.Element]:
    children = list(structure.children(parent))
    if len(children) != count:
        raise ValueError(f"{len(children)} elements where {count} must be")
    return children


def _tagged(element: ber.Element, tag: int) -> ber.Element:
    if element.tag != tag:
        raise ValueError(f"the tag {element.tag:#x} where {tag:#x} must be")
    return element


def _content(structure: ber.Structure, encapsulated: ber.Element) -> bytes | None:
    kind, *wrapped = structure.children(_tagged(encapsulated, ber.SEQUENCE))
    if structure.whole(kind) != _DATA:
        raise SignatureFormError("the signed content is not plain data")
    if not wrapped:
        return None
    (explicit,) = wrapped
    (content,) = _exactly(structure, _tagged(explicit, ber.FIRST), 1)
    if content.tag == ber.OCTET_STRING:
        return structure.contents(content)
    # Writers that do not know the length beforehand write the content in chunks.
    chunks = structure.children(_tagged(content, ber.CHUNKED_OCTET_STRING))
    return b"".join([structure.contents(_tagged(chunk, ber.OCTET_STRING)) for chunk in chunks])


def _check_contents(pieces: _Pieces, body: bytes | None, limits: ListLimits) -> None:
    if body is None and pieces.content is None:
        raise SignatureFormError("the signature comes without the content that it signs")
    if body is not None and pieces.content is not None:
        raise SignatureFormError("the message carries two contents, one beside and one inside the signature")
    if pieces.content is not None and len(pieces.content) > limits.size_bytes:
        raise SignatureFormError(f"the signed content is longer than {limits.size_bytes} bytes")


def _read_signer(pieces: _Pieces) -> _Signer:
    (encoded,) = pieces.signers
    info = cms.SignerInfo.load(encoded, strict=True)
    certificates = [load_certificate(each) for each in pieces.certificates]
    certificate = _signer_certificate(info["sid"], certificates)
    signed = _signed_attributes(encoded)
    attributes = _by_kind(cms.CMSAttributes.load(signed, strict=True))
    if _single(attributes, "content_type").native != "data":
        raise SignatureFormError("the signed attributes speak of another type of content")
    digest = info["digest_algorithm"]["algorithm"].dotted
    _require_listed(digest, pieces.digests)
    return _Signer(
        certificate=certificate,
        others=tuple(other for other in certificates if other is not certificate),
        scheme=read_scheme(digest, info["signature_algorithm"], certificate),
        signature=bytes(info["signature"].native),
        signed=signed,
        digest=bytes(_single(attributes, "message_digest").native),
        signing_time=_signing_time(attributes),
    )


def _signer_certificate(sid: cms.SignerIdentifier, certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    if sid.name == "issuer_and_serial_number":
        issuer, serial = sid.chosen["issuer"].dump(), sid.chosen["serial_number"].native
        matching = [one for one in certificates if serial_number(one) == serial and one.issuer.public_bytes() == issuer]
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


def _signed_attributes(info: bytes) -> bytes:
    """Return the signed attributes as the bytes that are signed: with the tag of a set (RFC 5652, 5.4)."""
    structure = ber.Structure(info)
    _version, _signer, _digest, attributes, *_ = structure.children(structure.root())
    if attributes.tag != ber.FIRST:
        raise SignatureFormError(
            "the signature has no signed attributes, without which it can be moved to other content"
        )
    signed = bytes([ber.SET]) + structure.whole(attributes)[1:]
    if not ber.is_der_set(signed):
        raise SignatureFormError("the signed attributes are not in DER: another reader could take them differently")
    return signed


def _by_kind(attributes: cms.CMSAttributes) -> dict[str, Any]:
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


def _require_listed(digest: str, digests: bytes) -> None:
    structure = ber.Structure(digests, max_elements=_MAX_DIGEST_ALGORITHMS * 3)
    listed = [structure.whole(each) for each in structure.children(structure.root())]
    if digest not in {cms.DigestAlgorithm.load(each, strict=True)["algorithm"].dotted for each in listed}:
        raise SignatureFormError("the signer's digest algorithm is not among those that the message announces")


def _matching(embedded: bytes | None, body: bytes | None, signer: _Signer) -> bytes:
    candidates = iter([embedded]) if embedded is not None else _line_end_forms(body or b"")
    name, first = signer.scheme.digest, b""
    for candidate in candidates:
        computed = digest_of(name, candidate)
        if hmac.compare_digest(computed, signer.digest):
            return candidate
        first = first or computed
    raise TamperedListError(
        "the list was changed after it was signed",
        details=f"Its {name} digest is {first.hex()}; signed was {signer.digest[:64].hex()}.",
        resolution="Fetch the list again; if it stays so, tell its publisher.",
    )


def _line_end_forms(body: bytes) -> Iterator[bytes]:
    """Yield what may have been signed, each once.

    S/MIME signs the form with CRLF (RFC 8551, 3.1.1); ``openssl -binary`` signs the bytes as they are, and a transport
    may have changed their line ends since.
    """
    line_ends, with_return = body.count(b"\n"), body.count(b"\r\n")
    with_feed = body if with_return == 0 else body.replace(b"\r\n", b"\n")
    yield body if with_return == line_ends else with_feed.replace(b"\n", b"\r\n")
    if with_return != line_ends:
        yield body
    if with_return:
        yield with_feed
