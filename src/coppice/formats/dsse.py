# SPDX-License-Identifier: Apache-2.0
"""A signed statement as a DSSE envelope (Dead Simple Signing Envelope 1.0), with the certificates of who signed it.

The signature is over the payload's bytes and their type, as they are: no reader has to write them anew, and tools that
know only the signer's public key can check it too. The certificates stand beside the signature, where DSSE lets
further fields stand; whether they are trusted is judged elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization

from coppice.errors import DocumentError, SignatureFormError, SignerCountError, TamperedListError
from coppice.formats.algorithms import Scheme, require_strong_key
from coppice.formats.certificates import PARSE_PROBLEMS, load_certificate
from coppice.formats.cosign import authenticated
from coppice.formats.fields import Fields
from coppice.formats.strict_json import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

    from coppice.formats.cms_sign import Signer

MAX_ENVELOPE_BYTES = 8 * 1024 * 1024
_DIGEST = "sha256"
_DIGESTS = ("sha256", "sha384", "sha512")
_MOST_CERTIFICATES = 16
_WHAT = "signed provenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """An envelope whose signature holds.

    Attributes:
        payload: What was signed.
        certificate: Of who signed it; not yet trusted.
        others: Certificates that came along; not trusted.
    """

    payload: bytes
    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...]


def seal(
    payload: bytes, payload_type: str, *, certificate: x509.Certificate, chain: Iterable[x509.Certificate], key: Signer
) -> bytes:
    """Return ``payload`` in an envelope that is signed with ``key``.

    Args:
        payload: What is signed.
        payload_type: Its media type.
        certificate: The signer's.
        chain: Certificates between the signer's and the trust anchor, to be sent along.
        key: The signer's.

    Raises:
        WeakSignatureError: The key is below the floor.
        SignatureFormError: The key is of a kind that is not accepted.
        KeyTokenError: The token that keeps the key failed.
    """
    require_strong_key(certificate)
    signature = key.sign(authenticated(payload_type, payload), _DIGEST)
    envelope = {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode("ascii"),
        "signatures": [
            {
                "keyid": certificate.fingerprint(hashes.SHA256()).hex(),
                "sig": base64.b64encode(signature).decode("ascii"),
                "certificate": _pem(certificate),
                "intermediates": [_pem(each) for each in chain],
            }
        ],
    }
    return (json.dumps(envelope, indent=1) + "\n").encode("ascii")


def unseal(data: bytes, payload_type: str) -> Envelope:
    """Return what an envelope holds, after every check that needs no trust anchor.

    Raises:
        DocumentError: It is no such envelope, or holds something else.
        SignerCountError: It has not exactly one signature.
        SignatureFormError: Its certificate cannot be read, or has a key of a kind that is not accepted.
        WeakSignatureError: The key is below the floor.
        TamperedListError: The payload is not what was signed.
    """
    document = read_json(data, what=_WHAT, max_bytes=MAX_ENVELOPE_BYTES, max_text_bytes=MAX_ENVELOPE_BYTES)
    fields = Fields(document, "$", _WHAT)
    if fields.word("payloadType") != payload_type:
        fields.refuse("payloadType", f"it is not {payload_type}")
    payload = _bytes(fields, "payload")
    signatures = fields.array("signatures")
    if len(signatures) != 1:
        raise SignerCountError(f"the {_WHAT} has {len(signatures)} signatures, not one")
    own = fields.element("signatures", 0, signatures[0])
    signature = _bytes(own, "sig")
    certificate = _certificate(own.text("certificate", limit_bytes=MAX_ENVELOPE_BYTES))
    listed = [] if own.lacks("intermediates") else own.array("intermediates")
    if len(listed) > _MOST_CERTIFICATES:
        own.refuse("intermediates", f"it has more than {_MOST_CERTIFICATES} certificates")
    others = tuple(_certificate(each if isinstance(each, str) else "") for each in listed)
    message, key = authenticated(payload_type, payload), require_strong_key(certificate)
    for digest in _DIGESTS:
        try:
            Scheme(digest=digest, key=key).check(signature, message)
        except TamperedListError:
            continue
        return Envelope(payload=payload, certificate=certificate, others=others)
    raise TamperedListError(
        f"the {_WHAT} is not what was signed",
        details="The signature was not made over this payload with the key of the certificate that stands beside it.",
        resolution="Fetch it again; if it stays so, tell its publisher.",
    )


def _bytes(fields: Fields, key: str) -> bytes:
    text = fields.text(key, limit_bytes=MAX_ENVELOPE_BYTES)
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as problem:
        raise DocumentError(f"the {_WHAT} is malformed at {fields.path}.{key}: it is no base64") from problem


def _certificate(text: str) -> x509.Certificate:
    try:
        return load_certificate(ssl.PEM_cert_to_DER_cert(text))
    except (*PARSE_PROBLEMS, ValueError) as problem:
        raise SignatureFormError(
            f"a certificate of the {_WHAT} cannot be read", details=f"{type(problem).__name__}: {str(problem)[:300]}"
        ) from problem


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
