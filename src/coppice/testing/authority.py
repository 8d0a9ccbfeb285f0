# SPDX-License-Identifier: Apache-2.0
"""A throw-away certificate authority, for tests and the demo. Its keys protect nothing.

::

    authority = Authority.create("Example CA")
    jane = authority.issue("Jane Doe")
    authority.revoke(jane.certificate)
    authority.write_to(directory)      # ca.pem and ca.crl.pem: what a subscription takes as trust anchors
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from coppice import atomic
from coppice.formats.names import distinguished_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coppice.model.endorser import DistinguishedName

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_YEAR = timedelta(days=365)
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


class KeyType(StrEnum):
    """Keys that can be made."""

    P256 = "p256"
    P384 = "p384"
    RSA_1024 = "rsa1024"
    RSA_2048 = "rsa2048"
    RSA_4096 = "rsa4096"


def make_key(kind: KeyType = KeyType.P256) -> PrivateKey:
    """Return a new private key."""
    if kind is KeyType.P256:
        return ec.generate_private_key(ec.SECP256R1())
    if kind is KeyType.P384:
        return ec.generate_private_key(ec.SECP384R1())
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate and its key.

    Attributes:
        certificate: What others see.
        key: What signs.
        chain: Certificates between this one and the root.
    """

    certificate: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def subject(self) -> DistinguishedName:
        """Return the name of its holder."""
        return distinguished_name(self.certificate.subject)

    @property
    def issuer(self) -> DistinguishedName:
        """Return the name of the authority above."""
        return distinguished_name(self.certificate.issuer)

    def write_to(self, directory: Path, name: str, *, passphrase: bytes | None = None) -> tuple[Path, Path]:
        """Write ``<name>.pem`` (with its chain) and ``<name>.key`` (mode 0600); return both paths."""
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        pem = serialization.Encoding.PEM
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        atomic.write_bytes(certificate, b"".join(one.public_bytes(pem) for one in (self.certificate, *self.chain)))
        atomic.write_bytes(key, self.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption), mode=0o600)
        return certificate, key


def make_name(common_name: str, *above: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    """Return a name below ``/DC=org/DC=example``."""
    pairs = [(NameOID.DOMAIN_COMPONENT, "org"), (NameOID.DOMAIN_COMPONENT, "example"), *above]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in (*pairs, (NameOID.COMMON_NAME, common_name))])


@dataclass(slots=True, kw_only=True)
class Authority:
    """A certificate authority that forgets nothing and guards nothing.

    Attributes:
        identity: Its own certificate and key.
        revoked: Serial number → when.
    """

    identity: Identity
    revoked: dict[int, datetime] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        name: str,
        *,
        key: PrivateKey | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        subject: x509.Name | None = None,
        digest: hashes.HashAlgorithm | None = None,
    ) -> Authority:
        """Return a new root authority, valid for ten years unless told otherwise."""
        key = key or make_key()
        subject = subject or make_name(name)
        start = not_before or datetime.now(UTC) - _YEAR
        certificate = _build(
            subject,
            subject,
            key,
            key,
            validity=(start, not_after or start + 10 * _YEAR),
            extensions=_authority_extensions(key, _key_identifier(key)),
            digest=digest,
        )
        return cls(identity=Identity(certificate=certificate, key=key))

    def issue(
        self,
        common_name: str,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key_usage: Sequence[str] | None = ("digital_signature",),
        extended_key_usage: Sequence[x509.ObjectIdentifier] = (),
        key_type: KeyType = KeyType.P256,
        key: PrivateKey | None = None,
        subject: x509.Name | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        digest: hashes.HashAlgorithm | None = None,
    ) -> Identity:
        """Return an end entity's certificate and key, valid for a year unless told otherwise."""
        own = self.identity
        key = key or make_key(key_type)
        start = not_before or datetime.now(UTC) - timedelta(days=1)
        added: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (self._key_identifier(), False),
            *extensions,
        ]
        if key_usage is not None:
            added.append((_key_usage(*key_usage), True))
        if extended_key_usage:
            added.append((x509.ExtendedKeyUsage(extended_key_usage), False))
        certificate = _build(
            subject or make_name(common_name),
            own.certificate.subject,
            key,
            own.key,
            validity=(start, not_after or start + _YEAR),
            extensions=added,
            digest=digest,
        )
        return Identity(certificate=certificate, key=key, chain=self._chain())

    def issue_authority(
        self,
        name: str,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key: PrivateKey | None = None,
        subject: x509.Name | None = None,
        path_length: int | None = None,
        key_usage: Sequence[str] = ("key_cert_sign", "crl_sign"),
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        digest: hashes.HashAlgorithm | None = None,
    ) -> Authority:
        """Return an authority below this one, valid for five years unless told otherwise."""
        key = key or make_key()
        start = not_before or datetime.now(UTC) - _YEAR
        own = _authority_extensions(key, self._key_identifier(), path_length=path_length, key_usage=key_usage)
        certificate = _build(
            subject or make_name(name),
            self.identity.certificate.subject,
            key,
            self.identity.key,
            validity=(start, not_after or start + 5 * _YEAR),
            extensions=[*own, *extensions],
            digest=digest,
        )
        return Authority(identity=Identity(certificate=certificate, key=key, chain=self._chain()))

    def expired(self, common_name: str = "Expired Endorser") -> Identity:
        """Return an endorser whose certificate expired yesterday."""
        now = datetime.now(UTC)
        return self.issue(common_name, not_before=now - _YEAR, not_after=now - timedelta(days=1))

    def not_yet_valid(self, common_name: str = "Early Endorser") -> Identity:
        """Return an endorser whose certificate is valid from tomorrow on."""
        return self.issue(common_name, not_before=datetime.now(UTC) + timedelta(days=1))

    def revoked_endorser(self, common_name: str = "Revoked Endorser") -> Identity:
        """Return an endorser whose certificate is revoked."""
        identity = self.issue(common_name)
        self.revoke(identity.certificate)
        return identity

    def wrong_usage(self, common_name: str = "Key Encipherer") -> Identity:
        """Return the holder of a certificate that is not for signatures."""
        return self.issue(common_name, key_usage=("key_encipherment",))

    def revoke(self, certificate: x509.Certificate, *, at: datetime | None = None) -> None:
        """Revoke ``certificate``; the next CRL says so."""
        self.revoked[certificate.serial_number] = at or datetime.now(UTC) - timedelta(hours=1)

    def crl(
        self,
        *,
        last_update: datetime | None = None,
        next_update: datetime | None = None,
        key: PrivateKey | None = None,
        digest: hashes.HashAlgorithm | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.CertificateRevocationList:
        """Return the CRL: valid for a year from yesterday on, signed with its own key, unless told otherwise."""
        start = last_update or datetime.now(UTC) - timedelta(days=1)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.identity.certificate.subject)
            .last_update(start)
            .next_update(next_update or start + _YEAR)
        )
        for serial_number, at in self.revoked.items():
            entry = x509.RevokedCertificateBuilder().serial_number(serial_number).revocation_date(at).build()
            builder = builder.add_revoked_certificate(entry)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(key or self.identity.key, digest or hashes.SHA256())  # type: ignore[arg-type]

    def write_to(self, directory: Path, *, name: str = "ca", crl: x509.CertificateRevocationList | None = None) -> Path:
        """Write ``<name>.pem`` and ``<name>.crl.pem`` into ``directory``; return it."""
        pem = serialization.Encoding.PEM
        atomic.write_bytes(directory / f"{name}.pem", self.identity.certificate.public_bytes(pem))
        # An empty CRL is false.
        written = self.crl() if crl is None else crl
        atomic.write_bytes(directory / f"{name}.crl.pem", written.public_bytes(pem))
        return directory

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        for extension in self.identity.certificate.extensions:
            if isinstance(extension.value, x509.SubjectKeyIdentifier):
                return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)
        return _key_identifier(self.identity.key)

    def _chain(self) -> tuple[x509.Certificate, ...]:
        own = self.identity
        is_root = own.certificate.issuer == own.certificate.subject
        return () if is_root else (own.certificate, *own.chain)


def _key_usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in names for usage in _USAGES}, encipher_only=False, decipher_only=False)


def _key_identifier(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _authority_extensions(
    key: PrivateKey,
    above: x509.AuthorityKeyIdentifier,
    *,
    path_length: int | None = None,
    key_usage: Sequence[str] = ("key_cert_sign", "crl_sign"),
) -> list[tuple[x509.ExtensionType, bool]]:
    return [
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (_key_usage(*key_usage), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (above, False),
    ]


def _build(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    issuer_key: PrivateKey,
    *,
    validity: tuple[datetime, datetime],
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    digest: hashes.HashAlgorithm | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, digest or hashes.SHA256())  # type: ignore[arg-type]
