# SPDX-License-Identifier: Apache-2.0
"""Signed messages that no honest tool makes, piece by piece: the bad lists that a verifier must refuse.

::

    craft(payload, jane)                                  # honest, opaque, DER
    craft(payload, jane, digest="sha1")                   # a digest below the floor
    craft(payload, jane, more_signers=[mallory])          # two signers
    as_multipart(body, craft(payload, jane, detached=True))
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from asn1crypto import algos, cms
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.testing.authority import Identity

_HASHES: dict[str, Any] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


def craft(
    payload: bytes,
    signer: Identity,
    *,
    digest: str = "sha256",
    detached: bool = False,
    embedded: bytes | None = None,
    signed_attributes: bool = True,
    doubled_attribute: str | None = None,
    pss: bool = False,
    no_signer: bool = False,
    more_signers: Sequence[Identity] = (),
    certificates: Sequence[Identity] | None = None,
) -> bytes:
    """Return a CMS structure in DER.

    Args:
        payload: What the digest is made of.
        signer: Who signs.
        digest: Of content and signature.
        detached: Leave the content out.
        embedded: Put this content in, whatever was signed.
        signed_attributes: Sign attributes; the content itself otherwise.
        doubled_attribute: Repeat this attribute.
        pss: Use RSA-PSS.
        no_signer: Leave all signers out.
        more_signers: Let these sign as well.
        certificates: Whose certificates come along; the signers' when None.
    """
    signers = [] if no_signer else [signer, *more_signers]
    infos = [
        _signer_info(payload, one, digest, signed_attributes=signed_attributes, doubled=doubled_attribute, pss=pss)
        for one in signers
    ]
    content: dict[str, Any] = {"content_type": "data"}
    if not detached or embedded is not None:
        content["content"] = payload if embedded is None else embedded
    bag = [signer, *more_signers] if certificates is None else certificates
    signed_data = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [{"algorithm": digest}],
            "encap_content_info": content,
            "certificates": [asn1_x509.Certificate.load(_der(one)) for one in bag],
            "signer_infos": infos,
        }
    )
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": signed_data}).dump())


def as_multipart(body: bytes, der: bytes, *, kind: str = "application/x-pkcs7-signature") -> bytes:
    """Return body and signature as S/MIME, the body byte for byte."""
    return (
        f'MIME-Version: 1.0\nContent-Type: multipart/signed; protocol="{kind}"; micalg="sha-256"; boundary="----B"\n\n'
        "This is an S/MIME signed message\n\n------B\n"
    ).encode() + (
        body
        + b"\n------B\nContent-Type: "
        + kind.encode()
        + b'; name="smime.p7s"\nContent-Transfer-Encoding: base64\n\n'
        + base64.encodebytes(der)
        + b"\n------B--\n"
    )


def as_opaque(der: bytes, *, kind: str = "application/pkcs7-mime") -> bytes:
    """Return a structure with its content inside as S/MIME."""
    return (
        f"MIME-Version: 1.0\nContent-Type: {kind}; smime-type=signed-data; name=smime.p7m\n"
        "Content-Transfer-Encoding: base64\n\n"
    ).encode() + base64.encodebytes(der)


def as_pem(der: bytes, *, label: str = "PKCS7") -> bytes:
    """Return a structure as PEM."""
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


def _der(identity: Identity) -> bytes:
    return identity.certificate.public_bytes(serialization.Encoding.DER)


def _signer_info(
    payload: bytes, signer: Identity, digest: str, *, signed_attributes: bool, doubled: str | None, pss: bool
) -> dict[str, Any]:
    certificate = asn1_x509.Certificate.load(_der(signer))
    info: dict[str, Any] = {
        "version": "v1",
        "sid": cms.SignerIdentifier(
            "issuer_and_serial_number",
            {"issuer": certificate.issuer, "serial_number": certificate.serial_number},
        ),
        "digest_algorithm": {"algorithm": digest},
        "signature_algorithm": _algorithm(signer, digest, pss=pss),
    }
    signed = payload
    if signed_attributes:
        values = {
            "content_type": ["data"],
            "message_digest": [hashlib.new(digest, payload).digest()],
        }
        attributes = [{"type": kind, "values": value} for kind, value in values.items()]
        if doubled is not None:
            attributes.append({"type": doubled, "values": values[doubled]})
        info["signed_attrs"] = attributes
        signed = cms.CMSAttributes(attributes).dump()
    info["signature"] = _sign(signer, signed, _HASHES[digest](), pss=pss)
    return info


def _algorithm(signer: Identity, digest: str, *, pss: bool) -> dict[str, Any]:
    if isinstance(signer.key, ec.EllipticCurvePrivateKey):
        return {"algorithm": f"{digest}_ecdsa"}
    if not pss:
        return {"algorithm": "rsassa_pkcs1v15"}
    parameters = algos.RSASSAPSSParams(
        {
            "hash_algorithm": {"algorithm": digest},
            "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": digest}},
            "salt_length": _HASHES[digest]().digest_size,
        }
    )
    return {"algorithm": "rsassa_pss", "parameters": parameters}


def _sign(signer: Identity, data: bytes, hashing: hashes.HashAlgorithm, *, pss: bool) -> bytes:
    if isinstance(signer.key, ec.EllipticCurvePrivateKey):
        return signer.key.sign(data, ec.ECDSA(hashing))
    assert isinstance(signer.key, rsa.RSAPrivateKey)
    chosen: padding.AsymmetricPadding = padding.PKCS1v15()
    if pss:
        chosen = padding.PSS(mgf=padding.MGF1(hashing), salt_length=hashing.digest_size)
    return signer.key.sign(data, chosen, hashing)
