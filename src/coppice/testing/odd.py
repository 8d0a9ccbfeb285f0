# SPDX-License-Identifier: Apache-2.0
"""Certificates and CRLs that no builder makes: odd serial numbers, old versions, broken digests, proxies.

They are taken apart with asn1crypto, changed, and signed anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from asn1crypto import algos, core, crl, keys
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from coppice.formats.certificates import load_certificate, quiet
from coppice.testing.authority import Identity, make_key

if TYPE_CHECKING:
    from coppice.testing.authority import PrivateKey

_DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "md5": hashes.MD5(),  # noqa: S303 - to be refused
    "sha1": hashes.SHA1(),  # noqa: S303 - to be refused
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
PROXY_EXTENSION = "1.3.6.1.5.5.7.1.14"
"""RFC 3820, ProxyCertInfo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """What is changed of a certificate.

    Attributes:
        serial_number: Its new one, perhaps 0 or negative; None: as it was.
        version: ``v1`` drops all extensions; None: as it was.
        public_key: Whose certificate it becomes; None: as it was.
        not_before: From when on it is valid; None: as it was.
        not_after: Until when; None: as it was.
        without: Extensions that are dropped, by dotted OID.
    """

    serial_number: int | None = None
    version: str | None = None
    public_key: PrivateKey | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    without: tuple[str, ...] = ()


def altered(
    certificate: x509.Certificate, issuer_key: PrivateKey, oddity: Oddity, *, digest: str = "sha256"
) -> x509.Certificate:
    """Return ``certificate`` with something changed, signed anew with ``issuer_key``."""
    whole = asn1.Certificate.load(certificate.public_bytes(serialization.Encoding.DER))
    tbs = whole["tbs_certificate"]
    if oddity.serial_number is not None:
        tbs["serial_number"] = oddity.serial_number
    if oddity.public_key is not None:
        tbs["subject_public_key_info"] = keys.PublicKeyInfo.load(_spki(oddity.public_key))
    for field, date in (("not_before", oddity.not_before), ("not_after", oddity.not_after)):
        if date is not None:
            tbs["validity"][field] = asn1.Time(name="general_time", value=date.replace(microsecond=0))
    if oddity.without:
        extensions = [each for each in tbs["extensions"] if each["extn_id"].dotted not in oddity.without]
        tbs["extensions"] = asn1.Extensions(extensions)
    if oddity.version is not None:
        fields = {name: tbs[name] for name, *_type in asn1.TbsCertificate._fields if name != "extensions"}
        kept = {name: value for name, value in fields.items() if not isinstance(value, core.Void)}
        tbs = asn1.TbsCertificate({**kept, "version": oddity.version})
    return load_certificate(_signed(asn1.Certificate, tbs, issuer_key, digest))


def crl_without_date(authority: Identity) -> x509.CertificateRevocationList:
    """Return an empty CRL of ``authority`` that does not say when the next one is due."""
    subject = asn1.Name.load(authority.certificate.subject.public_bytes())
    tbs = crl.TbsCertList(
        {
            "version": "v2",
            "signature": {"algorithm": "sha256_ecdsa"},
            "issuer": subject,
            "this_update": asn1.Time(name="utc_time", value=datetime.now(UTC) - timedelta(days=1)),
        }
    )
    return x509.load_der_x509_crl(_signed(crl.CertificateList, tbs, authority.key, "sha256"))


def altered_crl(
    revocations: x509.CertificateRevocationList, issuer_key: PrivateKey, *, digest: str
) -> x509.CertificateRevocationList:
    """Return a CRL signed anew, with another digest."""
    whole = crl.CertificateList.load(revocations.public_bytes(serialization.Encoding.DER))
    return x509.load_der_x509_crl(_signed(crl.CertificateList, whole["tbs_cert_list"], issuer_key, digest))


def make_proxy(holder: Identity, *, critical: bool = True, marked: bool = True) -> Identity:
    """Return a proxy certificate (RFC 3820): signed with an end entity's key; ``marked`` as what it is, or not."""
    own, key, now = holder.certificate, make_key(), datetime.now(UTC)
    name = x509.Name([*own.subject, x509.NameAttribute(NameOID.COMMON_NAME, "1234567890")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(own.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=12))
    )
    if marked:
        # ProxyCertInfo with the policy language id-ppl-inheritAll.
        value = bytes.fromhex("300c300a06082b06010505071501")
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(PROXY_EXTENSION), value)
        builder = builder.add_extension(extension, critical)
    return Identity(certificate=builder.sign(holder.key, hashes.SHA256()), key=key, chain=(own, *holder.chain))


def _spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _signed(kind: type[core.Sequence], tbs: Any, key: PrivateKey, digest: str) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = algos.SignedDigestAlgorithm({"algorithm": f"{digest}_ecdsa"})
    else:
        algorithm = algos.SignedDigestAlgorithm({"algorithm": f"{digest}_rsa", "parameters": core.Null()})
    tbs["signature"] = algorithm
    content = tbs.dump()
    with quiet():
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(content, padding.PKCS1v15(), _DIGESTS[digest])
        else:
            signature = key.sign(content, ec.ECDSA(_DIGESTS[digest]))
    fields = [name for name, *_type in kind._fields]
    whole: bytes = kind(dict(zip(fields, (tbs, algorithm, signature), strict=True))).dump()
    return whole
