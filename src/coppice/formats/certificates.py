# SPDX-License-Identifier: Apache-2.0
"""Certificates and revocation lists out of PEM and DER, without what ``cryptography`` says beside.

``cryptography`` warns, with text on standard error, about certificates that RFC 5280 does not allow. Nine accredited
grid authorities have the serial number 0, so they are loaded in silence; a name whose attributes are longer than X.520
permits is refused here, so that no later look at it warns again.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from asn1crypto import crl
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator

PARSE_PROBLEMS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What ``cryptography`` raises on malformed certificates, at loading or at a later look."""
_BEGINNING = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_CERTIFICATE_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE")
_CRL_LABEL = b"X509 CRL"
_CRL_BEGINNING = b"-----BEGIN X509 CRL-----"
DAMAGED_CRL = "a CRL is damaged"
"""How the text begins that stands for a CRL which cannot be read."""
_HEAD_BYTES = 64 * 1024
# X.520, upper bounds; those of which cryptography warns.
_LENGTHS = {NameOID.COUNTRY_NAME: (2, 2), NameOID.JURISDICTION_COUNTRY_NAME: (2, 2), NameOID.COMMON_NAME: (1, 64)}
_WEAK_DIGESTS = (hashes.MD5, hashes.SHA1, hashes.SHA224)


class _Quiet:
    """Ignores warnings inside; one thread at a time, since the filters are the whole process's."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._depth:
                # Setting the filters anew for each certificate of a directory would cost more than reading it.
                yield
                return
            self._depth += 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    yield
            finally:
                self._depth -= 1


quiet = _Quiet()
"""A context in which libraries' warnings are not heard; the same for all, since the filters are the process's."""


def load_certificate(der: bytes) -> x509.Certificate:
    """Return the certificate in ``der``, whose names can be looked at without a warning.

    Raises:
        ValueError: It is malformed; or another of `PARSE_PROBLEMS`.
    """
    with quiet():
        certificate = x509.load_der_x509_certificate(der)
        names = (certificate.subject, certificate.issuer)
        with suppress(*PARSE_PROBLEMS):
            # Whoever needs them is told what is wrong with them.
            _ = certificate.extensions
    for name in names:
        _require_bounds(name)
    return certificate


def serial_number(certificate: x509.Certificate) -> int:
    """Return the serial number, which ought to be positive, and is not where an authority took no care."""
    with quiet():
        return certificate.serial_number


def load_crl(der: bytes) -> x509.CertificateRevocationList:
    """Return the certificate revocation list in ``der``.

    Raises:
        ValueError: It is malformed; or another of `PARSE_PROBLEMS`.
    """
    with quiet():
        found = x509.load_der_x509_crl(der)
        name = found.issuer
        _ = found.extensions, found.last_update_utc, found.next_update_utc
    _require_bounds(name)
    return found


def require_readable(certificate: x509.Certificate) -> None:
    """Look at everything that is read lazily, so that what cannot be read is known now.

    Raises:
        ValueError: Something is malformed; or another of `PARSE_PROBLEMS`.
    """
    with quiet():
        certificate.public_key()
        _ = certificate.extensions, certificate.not_valid_before_utc, certificate.not_valid_after_utc
        _ = certificate.version, certificate.signature_algorithm_oid


def is_signed_by(signed: x509.Certificate | x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Tell whether ``signed`` bears a signature by the key of ``issuer``, be its digest as weak as it may.

    ``cryptography`` does not check signatures with sha1 and older digests here. They are checked all the same, so that
    who judges strength can say what it is. Names are not compared.
    """
    key = issuer.public_key()
    try:
        if isinstance(signed, x509.Certificate):
            signed.verify_directly_issued_by(issuer)
            return True
        if signed.is_signature_valid(key):  # type: ignore[arg-type]  # other keys: TypeError
            return True
    except InvalidSignature:
        return False
    except PARSE_PROBLEMS:
        pass
    return isinstance(signed.signature_hash_algorithm, _WEAK_DIGESTS) and _is_weakly_signed(signed, key)


def _is_weakly_signed(signed: x509.Certificate | x509.CertificateRevocationList, key: object) -> bool:
    der = signed.public_bytes(serialization.Encoding.DER)
    outer = (asn1.Certificate if isinstance(signed, x509.Certificate) else crl.CertificateList).load(der, strict=True)
    inner, digest = outer[0]["signature"], signed.signature_hash_algorithm
    # RFC 5280, 4.1.1.2: the algorithm stands there twice, once signed.
    if digest is None or inner.dump() != outer[1].dump():
        return False
    content = signed.tbs_certificate_bytes if isinstance(signed, x509.Certificate) else signed.tbs_certlist_bytes
    try:
        if isinstance(key, rsa.RSAPublicKey) and inner["algorithm"].native.endswith("_rsa"):
            key.verify(signed.signature, content, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and inner["algorithm"].native.endswith("_ecdsa"):
            key.verify(signed.signature, content, ec.ECDSA(digest))
        else:
            return False
    except (InvalidSignature, *PARSE_PROBLEMS):
        return False
    return True


def read_blocks(data: bytes) -> Iterator[x509.Certificate | x509.CertificateRevocationList | str]:
    """Yield the certificates and CRLs in ``data``, PEM blocks or one DER object; a text for each that is neither."""
    blocks = list(_blocks(data))
    if not blocks:
        try:
            yield _from_der(data)
        except PARSE_PROBLEMS as problem:
            yield reason(problem) if data else "it is empty"
    for number, (label, content) in enumerate(blocks, 1):
        try:
            if label in _CERTIFICATE_LABELS:
                yield load_certificate(_decoded(content))
            elif label == _CRL_LABEL:
                yield load_crl(_decoded(content))
            else:
                yield f"block {number}: {label.decode()} is neither a certificate nor a CRL"
        except PARSE_PROBLEMS as problem:
            said = f"block {number}: {reason(problem)}"
            yield f"{DAMAGED_CRL}: {said}" if label == _CRL_LABEL else said
    if data.count(_CRL_BEGINNING) > sum(1 for label, _ in blocks if label == _CRL_LABEL):
        # Half a file is what an interrupted copy leaves.
        yield f"{DAMAGED_CRL}: it has no end"


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield label and content of each PEM block that ends; of labels that never end, none is looked for twice."""
    at, endless = 0, set[bytes]()
    while (found := _BEGINNING.search(data, at)) is not None:
        label, start = found[1], found.end()
        mark = b"-----END " + label + b"-----"
        end = -1 if label in endless else data.find(mark, start)
        if end < 0:
            endless.add(label)
            at = found.start() + 1
        else:
            yield label, data[start:end]
            at = end + len(mark)


def crl_issuer(data: bytes) -> bytes:
    """Return the name of who issued the one CRL in ``data``, in DER, without reading its entries.

    Args:
        data: The CRL, PEM or DER.

    Raises:
        ValueError: It is not to be told so; or another of `PARSE_PROBLEMS`.
    """
    if data[:1] == b"\x30":
        return _crl_issuer(data[:_HEAD_BYTES])
    start = data.find(_CRL_BEGINNING)
    if start < 0 or data.find(_CRL_BEGINNING, start + 1) >= 0:
        message = "not exactly one CRL"
        raise ValueError(message)
    text = re.sub(rb"\s+", b"", data[start + len(_CRL_BEGINNING) :][:_HEAD_BYTES].partition(b"-----END")[0])
    return _crl_issuer(base64.b64decode(text[: len(text) // 4 * 4], validate=True))


def reason(problem: BaseException) -> str:
    """Return one short line about ``problem``."""
    said = " ".join(str(problem).split())[:200]
    return said or type(problem).__name__


def _from_der(data: bytes) -> x509.Certificate | x509.CertificateRevocationList:
    try:
        return load_certificate(data)
    except PARSE_PROBLEMS as problem:
        try:
            return load_crl(data)
        except PARSE_PROBLEMS:
            raise problem from None


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(re.sub(rb"\s+", b"", text), validate=True)
    except binascii.Error as problem:
        message = f"not base64: {problem}"
        raise ValueError(message) from problem


def _require_bounds(name: x509.Name) -> None:
    for attribute in name:
        least, most = _LENGTHS.get(attribute.oid, (0, 1 << 16))
        value = attribute.value
        length = len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else len(value)
        if not least <= length <= most:
            message = f"the attribute {attribute.oid.dotted_string} of a name has {length} bytes"
            raise ValueError(message)


def _crl_issuer(der: bytes) -> bytes:
    # RFC 5280, 5.1: CertificateList, tbsCertList; in it an optional version, an algorithm, the issuer.
    place = _content(der, 0, 0x30)
    place = _content(der, place, 0x30)
    if der[place : place + 1] == b"\x02":
        place = _end(der, place)
    place = _end(der, place)
    return der[place : _end(der, place)]


def _content(der: bytes, place: int, tag: int) -> int:
    if der[place] != tag:
        message = "not a CRL"
        raise ValueError(message)
    return place + 2 + (der[place + 1] & 0x7F if der[place + 1] & 0x80 else 0)


def _end(der: bytes, place: int) -> int:
    content = _content(der, place, der[place])
    length = int.from_bytes(der[place + 2 : content], "big") if content > place + 2 else der[place + 1]
    if content + length > len(der):
        message = "cut off"
        raise ValueError(message)
    return content + length
