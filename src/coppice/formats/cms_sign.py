# SPDX-License-Identifier: Apache-2.0
"""Sign a payload as S/MIME: CMS signed data (RFC 5652) beside the content that it speaks of (RFC 8551, 3.5.3).

The private key is a `Signer`: it may be here in memory or on a token that it never leaves. All that is handed to it are
the signed attributes.
"""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from coppice.errors import SignatureFormError
from coppice.formats.algorithms import digest_by_name, digest_of, require_strong_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_MICALG = {"sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}
_LINE_END = re.compile(rb"\r\n|\r|\n")


class Signer(Protocol):
    """Whatever can sign with a private key."""

    def sign(self, data: bytes, digest: str) -> bytes:
        """Return the signature over ``data``, whose digest is ``digest``.

        RSA: PKCS#1 v1.5. ECDSA: the DER of ``Ecdsa-Sig-Value`` (RFC 3279, 2.2.3).

        Raises:
            KeyTokenError: The token that keeps the key failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class SoftwareKey:
    """A private key in memory.

    Attributes:
        key: Never shown.
    """

    key: PrivateKey

    def sign(self, data: bytes, digest: str) -> bytes:
        """Return the signature over ``data``, whose digest is ``digest``."""
        hashing: Any = digest_by_name(digest)
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashing)
        return self.key.sign(data, ec.ECDSA(hashing))

    def __repr__(self) -> str:
        """Return what it is, without the key."""
        return "SoftwareKey()"


def sign(
    payload: bytes,
    *,
    certificate: x509.Certificate,
    key: Signer | PrivateKey,
    chain: Iterable[x509.Certificate] = (),
    digest: str = "sha256",
    signing_time: datetime | None = None,
) -> bytes:
    """Return ``payload`` as an S/MIME message with a detached signature.

    Args:
        payload: What is signed; its line ends become CRLF, as S/MIME demands.
        certificate: The signer's.
        key: The signer's.
        chain: Certificates between the signer's and the trust anchor, to be sent along.
        digest: ``sha256``, ``sha384`` or ``sha512``.
        signing_time: To be claimed; None: now.

    Raises:
        WeakSignatureError: Digest or key is below the floor.
        SignatureFormError: The key is of a kind that is not accepted.
        KeyTokenError: The token that keeps the key failed.
    """
    digest_by_name(digest)
    require_strong_key(certificate)
    signer = SoftwareKey(key) if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) else key
    canonical = _LINE_END.sub(b"\r\n", payload)
    structure = _signed_data(
        canonical,
        certificate=certificate,
        signer=signer,
        chain=chain,
        digest=digest,
        signing_time=signing_time or datetime.now(UTC),
    )
    return _multipart(canonical, structure, digest)


def _signed_data(
    content: bytes,
    *,
    certificate: x509.Certificate,
    signer: Signer,
    chain: Iterable[x509.Certificate],
    digest: str,
    signing_time: datetime,
) -> bytes:
    attributes = _attributes(content, digest, signing_time)
    own = asn1_x509.Certificate.load(certificate.public_bytes(serialization.Encoding.DER))
    others = [asn1_x509.Certificate.load(one.public_bytes(serialization.Encoding.DER)) for one in chain]
    digest_algorithm = algos.DigestAlgorithm({"algorithm": digest})
    signer_info = cms.SignerInfo(
        {
            "version": "v1",
            "sid": cms.SignerIdentifier(
                name="issuer_and_serial_number",
                value=cms.IssuerAndSerialNumber({"issuer": own.issuer, "serial_number": own.serial_number}),
            ),
            "digest_algorithm": digest_algorithm,
            "signed_attrs": attributes,
            "signature_algorithm": _signature_algorithm(certificate, digest),
            # The attributes are signed as the SET OF that they are, not under the tag that they bear in the structure
            # (RFC 5652, 5.4).
            "signature": signer.sign(attributes.dump(), digest),
        }
    )
    signed_data = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [digest_algorithm],
            "encap_content_info": {"content_type": "data"},
            "certificates": [cms.CertificateChoices(name="certificate", value=one) for one in (own, *others)],
            "signer_infos": [signer_info],
        }
    )
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": signed_data}).dump())


def _attributes(content: bytes, digest: str, signing_time: datetime) -> cms.CMSAttributes:
    moment = signing_time.astimezone(UTC).replace(microsecond=0)
    # RFC 5652, 11.3: dates to 2049 are UTCTime.
    time = ("utc_time", core.UTCTime) if moment.year < 2050 else ("generalized_time", core.GeneralizedTime)  # noqa: PLR2004
    attributes = [
        cms.CMSAttribute({"type": "content_type", "values": ["data"]}),
        cms.CMSAttribute({"type": "message_digest", "values": [digest_of(digest, content)]}),
        cms.CMSAttribute({"type": "signing_time", "values": [cms.Time(name=time[0], value=time[1](moment))]}),
    ]
    # asn1crypto writes a SET OF in the order that DER demands (X.690, 11.6); the signature is over that form.
    return cms.CMSAttributes(attributes)


def _signature_algorithm(certificate: x509.Certificate, digest: str) -> algos.SignedDigestAlgorithm:
    if isinstance(certificate.public_key(), rsa.RSAPublicKey):
        # As everybody names it, so that old readers follow; the digest stands beside it.
        return algos.SignedDigestAlgorithm({"algorithm": "rsassa_pkcs1v15", "parameters": core.Null()})
    return algos.SignedDigestAlgorithm({"algorithm": f"{digest}_ecdsa"})


def _multipart(content: bytes, structure: bytes, digest: str) -> bytes:
    boundary = _boundary(content)
    packed = base64.b64encode(structure)
    lines = [
        b"MIME-Version: 1.0",
        b"Content-Type: multipart/signed; "
        + b'protocol="application/x-pkcs7-signature"; micalg="%b"; boundary="%b"'
        % (_MICALG[digest].encode(), boundary),
        b"",
        b"This is an S/MIME signed message",
        b"",
        b"--" + boundary,
        content,
        b"--" + boundary,
        b'Content-Type: application/x-pkcs7-signature; name="smime.p7s"',
        b"Content-Transfer-Encoding: base64",
        b'Content-Disposition: attachment; filename="smime.p7s"',
        b"",
        *(packed[start : start + 64] for start in range(0, len(packed), 64)),
        b"",
        b"--" + boundary + b"--",
        b"",
    ]
    return b"\r\n".join(lines)


def _boundary(content: bytes) -> bytes:
    for _ in range(8):
        boundary = b"----" + secrets.token_hex(16).upper().encode()
        if boundary not in content:
            return boundary
    raise SignatureFormError("no boundary was found that the content does not contain")
