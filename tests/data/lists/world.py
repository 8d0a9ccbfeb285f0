# SPDX-License-Identifier: Apache-2.0
"""The authorities, endorsers and lists that the crafted lists are made of; every date is relative to ``now``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from coppice.testing.authority import Authority, Identity, KeyType, make_key, make_name
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

DAY = timedelta(days=1)
DATE = "%Y-%m-%dT%H:%M:%SZ"
URI = "https://lists.example.org/demo.list"
PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A crafted list and what it is to be held against.

    Attributes:
        message: The bytes.
        trust: Name of a folder of trust anchors.
        endorsers: Whom the subscription names; Jane when None.
        options: Of the command line.
        before: What the subscription verified before; None: nothing.
    """

    message: bytes
    trust: str = "plain"
    endorsers: tuple[Identity, ...] | None = None
    options: tuple[str, ...] = ()
    before: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the table.

    Attributes:
        name: The code of the refusal, and the defect; ``good`` and what is special about it.
        code: Of the refusal; None: it is accepted.
        make: Makes it.
        threats: Numbers of the threat model.
        openssl: Whether ``openssl cms -verify`` accepts it.
        why: Why the two differ, where they do.
    """

    name: str
    code: str | None
    make: Callable[[World], Made]
    threats: tuple[str, ...]
    openssl: bool
    why: str


CASES: list[Case] = []


def refused(code: str, *threats: str, openssl: bool = False, why: str = "") -> Callable[[Any], Any]:
    """Return the decorator of a function that makes a list which is refused with ``code``."""

    def register(make: Callable[[World], Made]) -> Callable[[World], Made]:
        name = f"{code}--{make.__name__.replace('_', '-')}"
        CASES.append(Case(name=name, code=code, make=make, threats=threats, openssl=openssl, why=why))
        return make

    return register


def accepted(*threats: str, openssl: bool = True, why: str = "") -> Callable[[Any], Any]:
    """Return the decorator of a function that makes a list which is accepted."""

    def register(make: Callable[[World], Made]) -> Callable[[World], Made]:
        name = f"good--{make.__name__.replace('_', '-')}"
        CASES.append(Case(name=name, code=None, make=make, threats=threats, openssl=openssl, why=why))
        return make

    return register


@dataclass(slots=True, kw_only=True)
class Trust:
    """A folder of trust anchors.

    Attributes:
        authorities: Whose certificates are in it.
        crls: The CRLs in it.
        files: Other files: name → content.
        others: More certificates.
    """

    authorities: tuple[Authority, ...]
    crls: tuple[x509.CertificateRevocationList, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    others: tuple[x509.Certificate, ...] = ()

    def write_to(self, directory: Path) -> None:
        """Write every certificate and CRL into a file of its own."""
        directory.mkdir(parents=True, exist_ok=True)
        certificates = [*(each.identity.certificate for each in self.authorities), *self.others]
        for number, certificate in enumerate(certificates):
            (directory / f"ca{number}.pem").write_bytes(certificate.public_bytes(PEM))
        for number, crl in enumerate(self.crls):
            (directory / f"ca{number}.crl.pem").write_bytes(crl.public_bytes(PEM))
        for name, content in self.files.items():
            (directory / name).write_bytes(content)


class World:
    """Everybody; each is made when first asked for, and then stays the same."""

    def __init__(self, now: datetime | None = None) -> None:
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)
        self.trusts: dict[str, Trust] = {"plain": self.trust_in(self.ca, self.other)}
        self.identifier = "5b8f0a2e-3d3e-4f3c-9a55-0d2c6c1b7d01"

    @staticmethod
    def trust_in(*authorities: Authority, **changes: Any) -> Trust:
        """Return a folder with the authorities and their CRLs."""
        changes.setdefault("crls", tuple(each.crl() for each in authorities))
        return Trust(authorities=authorities, **changes)

    def trust(self, name: str, *authorities: Authority, **changes: Any) -> str:
        """Have a folder of this name; return the name."""
        self.trusts[name] = self.trust_in(*authorities, **changes)
        return name

    @cached_property
    def ca(self) -> Authority:
        return Authority.create("Example CA")

    @cached_property
    def other(self) -> Authority:
        return Authority.create("Other CA")

    @cached_property
    def stranger(self) -> Authority:
        """Nobody trusts it."""
        return Authority.create("Stranger CA")

    @cached_property
    def jane(self) -> Identity:
        return self.ca.issue("Jane Doe")

    @cached_property
    def jane_rsa(self) -> Identity:
        return self.ca.issue("Jane Doe", key_type=KeyType.RSA_2048)

    @cached_property
    def mallory(self) -> Identity:
        return self.ca.issue("Mallory")

    @cached_property
    def sub(self) -> Authority:
        """Below `ca`, and good."""
        return self.ca.issue_authority("Sub CA")

    @cached_property
    def rsa_ca(self) -> Authority:
        return Authority.create("Old CA", key=make_key(KeyType.RSA_2048))

    def key_of(self, kind: str) -> Any:
        """Return a key of a kind that the test kit does not make."""
        curves = {"p521": ec.SECP521R1(), "secp256k1": ec.SECP256K1()}
        if kind in curves:
            return ec.generate_private_key(curves[kind])
        return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, int(kind))

    def publisher(self, endorser: Identity | None = None, **changes: Any) -> Simulator:
        """Return a publisher of the one list, with one image."""
        made = Simulator.create(self.ca, endorser=endorser or self.jane, uri=URI)
        made.identifier = self.identifier
        made.add_image()
        made.images[0]["dc:identifier"] = "0e6f9d4a-7c1b-4a53-8f5e-3a1b2c4d5e6f"
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    def payload(self, endorser: Identity | None = None, edit: Callable[[dict[str, Any]], None] | None = None) -> bytes:
        """Return the list's JSON, after ``edit`` changed the list's object."""
        document = self.publisher(endorser).document()
        if edit is not None:
            edit(document["hv:imagelist"])
        return json.dumps(document, indent=2).encode()

    def signed(self, payload: bytes | None = None, signer: Identity | None = None, **changes: Any) -> bytes:
        """Return the list as S/MIME with a detached signature, honestly made."""
        signer = signer or self.jane
        return self.publisher(signer).message(payload=self.payload(signer) if payload is None else payload, **changes)

    def edited(self, **fields: Any) -> bytes:
        """Return the list, honestly signed, with keys of the list replaced (``_`` for ``:``) or, by None, left out."""

        def edit(content: dict[str, Any]) -> None:
            for key, value in fields.items():
                name = key.replace("_", ":", 2) if key.startswith("dc_date") else key.replace("_", ":", 1)
                if value is None:
                    content.pop(name)
                else:
                    content[name] = value

        return self.signed(self.payload(edit=edit))

    def at(self, delta: timedelta) -> str:
        """Return an instant as lists write it."""
        return (self.now + delta).strftime(DATE)

    def certify(
        self,
        above: Authority,
        subject: x509.Name,
        key: Any,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        *,
        signing_key: Any = None,
        issuer: x509.Name | None = None,
    ) -> x509.Certificate:
        """Return a certificate with these extensions and no others."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or above.identity.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - DAY)
            .not_valid_after(self.now + 300 * DAY)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signing_key or above.identity.key, hashes.SHA256())

    def name(self, common_name: str) -> x509.Name:
        return make_name(common_name)
