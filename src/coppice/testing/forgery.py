# SPDX-License-Identifier: Apache-2.0
"""Signed messages that no honest tool makes, piece by piece: the bad lists that a verifier must refuse.

::

    craft(payload, jane)                                  # honest, opaque, DER
    craft(payload, jane, digest="sha1")                   # a digest below the floor
    craft(payload, jane, more_signers=[mallory])          # two signers
    as_multipart(body, craft(payload, jane, detached=True))

Everything is put together from bytes, so that what no writer would write can be written.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.testing.authority import Identity

_HASHES: dict[str, Any] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
SEQUENCE, SET, OCTET_STRING, CHUNKED_OCTET_STRING, FIRST = 0x30, 0x31, 0x04, 0x24, 0xA0
_VERSION_1 = bytes.fromhex("020101")


def tlv(tag: int, *contents: bytes) -> bytes:
    """Return one element in DER: tag, length, contents."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:  # noqa: PLR2004 - the short form of a length
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def craft(
    payload: bytes,
    signer: Identity,
    *,
    digest: str = "sha256",
    detached: bool = False,
    embedded: bytes | None = None,
    no_signer: bool = False,
    more_signers: Sequence[Identity] = (),
    certificates: Sequence[Identity] | None = None,
    more_certificates: Sequence[bytes] = (),
    announced: Sequence[str] | None = None,
    content_type: str = "data",
    chunk_bytes: int | None = None,
    wrap: str = "signed_data",
    **signing: Any,
) -> bytes:
    """Return a CMS structure in DER.

    Args:
        payload: What the digest is made of.
        signer: Who signs.
        digest: Of content and signature.
        detached: Leave the content out.
        embedded: Put this content in, whatever was signed.
        no_signer: Leave all signers out.
        more_signers: Let these sign as well.
        certificates: Whose certificates come along; the signers' when None.
        more_certificates: More members of the bag, as bytes.
        announced: ``digestAlgorithms``; the digest alone when None.
        content_type: What the content says that it is.
        chunk_bytes: Write the content in BER, in chunks of so many bytes.
        wrap: What the structure says that it is.
        signing: Arguments of `signer_info`.
    """
    signers = [] if no_signer else [signer, *more_signers]
    infos = [signer_info(payload, one, digest=digest, **signing) for one in signers]
    content = (
        b"" if detached and embedded is None else _explicit(payload if embedded is None else embedded, chunk_bytes)
    )
    bag = [signer, *more_signers] if certificates is None else certificates
    bytes_of_bag = [*(_der(one) for one in bag), *more_certificates]
    signed_data = tlv(
        SEQUENCE,
        _VERSION_1,
        tlv(SET, *(algos.DigestAlgorithm({"algorithm": name}).dump() for name in announced or [digest])),
        tlv(SEQUENCE, cms.ContentType(content_type).dump(), content),
        tlv(FIRST, *bytes_of_bag) if bytes_of_bag else b"",
        tlv(SET, *infos),
    )
    return tlv(SEQUENCE, cms.ContentType(wrap).dump(), tlv(FIRST, signed_data))


def signer_info(
    payload: bytes,
    signer: Identity,
    *,
    digest: str = "sha256",
    signed_attributes: bool = True,
    doubled_attribute: str | None = None,
    missing_attribute: str | None = None,
    doubled_value: str | None = None,
    attribute_type: str = "data",
    encode: Callable[[list[bytes]], bytes] | None = None,
    key_identifier: bool = False,
    algorithm: str | None = None,
    pss: bool = False,
    salt_length: int | None = None,
    mask_digest: str | None = None,
) -> bytes:
    """Return one ``SignerInfo``.

    Args:
        payload: What the digest is made of.
        signer: Who signs.
        digest: Of content and signature.
        signed_attributes: Sign attributes; the content itself otherwise.
        doubled_attribute: Repeat this attribute.
        missing_attribute: Leave this attribute out.
        doubled_value: Give this attribute its value twice.
        attribute_type: What the signed attributes say that the content is.
        encode: Makes the bytes of the set (tag ``[0]``) of the attributes' encodings; sorted DER when None.
        key_identifier: Name the certificate by its key's identifier, not by issuer and serial number.
        algorithm: What the signature says by what it was made; the truth when None.
        pss: Use RSA-PSS.
        salt_length: Of RSA-PSS, in bytes; as long as the digest when None.
        mask_digest: What RSA-PSS says that its mask is made with; the digest when None.
    """
    signed, encoded = payload, b""
    if signed_attributes:
        values: dict[str, list[Any]] = {
            "content_type": [attribute_type],
            "message_digest": [hashlib.new(digest, payload).digest()],
        }
        if doubled_value:
            # Two values of different content: two readers could take one each.
            other = "signed_data" if doubled_value == "content_type" else b"\0" * 32
            values[doubled_value].append(other)
        kinds = [
            kind for kind in (*values, *([doubled_attribute] if doubled_attribute else [])) if kind != missing_attribute
        ]
        attributes = [cms.CMSAttribute({"type": kind, "values": values[kind]}).dump() for kind in kinds]
        encoded = (encode or encode_sorted)(attributes)
        signed = bytes([SET]) + encoded[1:]
    salt = _HASHES[digest]().digest_size if salt_length is None else salt_length
    named = algorithm or _true_algorithm(signer, digest, pss=pss)
    return tlv(
        SEQUENCE,
        _VERSION_1,
        _identifier(signer, key_identifier=key_identifier),
        algos.DigestAlgorithm({"algorithm": digest}).dump(),
        encoded,
        _algorithm(named, digest, salt, mask_digest or digest),
        tlv(OCTET_STRING, _sign(signer, signed, _HASHES[digest](), salt if pss else None)),
    )


def encode_sorted(attributes: list[bytes]) -> bytes:
    """Return the attributes as a set in DER."""
    return tlv(FIRST, *sorted(attributes))


def encode_unsorted(attributes: list[bytes]) -> bytes:
    """Return the attributes as a set in an order that DER does not have."""
    return tlv(FIRST, *sorted(attributes, reverse=True))


def encode_long(attributes: list[bytes]) -> bytes:
    """Return the attributes as a set whose length is written longer than need be."""
    content = b"".join(sorted(attributes))
    return bytes([FIRST, 0x84]) + len(content).to_bytes(4, "big") + content


def encode_indefinite(attributes: list[bytes]) -> bytes:
    """Return the attributes as a set of indefinite length."""
    return bytes([FIRST, 0x80]) + b"".join(sorted(attributes)) + b"\0\0"


def as_multipart(
    body: bytes, der: bytes, *, kind: str = "application/x-pkcs7-signature", micalg: str = "sha-256"
) -> bytes:
    """Return body and signature as S/MIME, the body byte for byte."""
    return (
        f'MIME-Version: 1.0\nContent-Type: multipart/signed; protocol="{kind}"; micalg="{micalg}"; boundary="----B"\n\n'
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


def _explicit(content: bytes, chunk_bytes: int | None) -> bytes:
    if chunk_bytes is None:
        return tlv(FIRST, tlv(OCTET_STRING, content))
    chunks = [tlv(OCTET_STRING, content[place : place + chunk_bytes]) for place in range(0, len(content), chunk_bytes)]
    inner = bytes([CHUNKED_OCTET_STRING, 0x80]) + b"".join(chunks) + b"\0\0"
    return bytes([FIRST, 0x80]) + inner + b"\0\0"


def _identifier(signer: Identity, *, key_identifier: bool) -> bytes:
    if key_identifier:
        known = signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        return tlv(0x80, known)
    certificate = asn1_x509.Certificate.load(_der(signer))
    return tlv(SEQUENCE, certificate.issuer.dump(), core.Integer(certificate.serial_number).dump())


def _true_algorithm(signer: Identity, digest: str, *, pss: bool) -> str:
    if isinstance(signer.key, ec.EllipticCurvePrivateKey):
        return f"{digest}_ecdsa"
    return "rsassa_pss" if pss else "rsassa_pkcs1v15"


def _algorithm(name: str, digest: str, salt_length: int, mask_digest: str) -> bytes:
    if name != "rsassa_pss":
        return bytes(algos.SignedDigestAlgorithm({"algorithm": name}).dump())
    parameters = algos.RSASSAPSSParams(
        {
            "hash_algorithm": {"algorithm": digest},
            "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": mask_digest}},
            "salt_length": salt_length,
        }
    )
    return bytes(algos.SignedDigestAlgorithm({"algorithm": name, "parameters": parameters}).dump())


def _sign(signer: Identity, data: bytes, hashing: hashes.HashAlgorithm, salt_length: int | None) -> bytes:
    key: Any = signer.key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashing))
    if not isinstance(key, rsa.RSAPrivateKey):
        # Such as Ed25519, whose signatures have no choice of digest.
        return bytes(key.sign(data))
    chosen: padding.AsymmetricPadding = padding.PKCS1v15()
    if salt_length is not None:
        chosen = padding.PSS(mgf=padding.MGF1(hashing), salt_length=salt_length)
    return key.sign(data, chosen, hashing)
