# SPDX-License-Identifier: Apache-2.0
"""Directories of trust anchors as the grid's authorities distribute them; and doubles of real ones.

::

    write_authority(directory, authority, namespaces=["/DC=org/DC=example/.*"])
    clones = clone_directory(Path("/etc/grid-security/certificates"), directory)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from coppice import atomic
from coppice.formats.names import distinguished_name, subject_hashes
from coppice.subscription.anchors import load_anchors
from coppice.testing.authority import Authority, Identity, KeyType, make_key
from coppice.testing.odd import Oddity, altered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    from coppice.model.endorser import DistinguishedName


def write_authority(
    directory: Path,
    authority: Authority,
    *,
    alias: str | None = None,
    namespaces: Sequence[str] | str | None = None,
    signing_policy: Sequence[str] | str | None = None,
    crl: x509.CertificateRevocationList | None = None,
    with_crl: bool = True,
    encoding: Encoding = Encoding.PEM,
) -> str:
    """Write an authority's files as the IGTF and fetch-crl do; return its alias.

    Args:
        directory: Where.
        authority: Whose.
        alias: Name of its files; None: its common name.
        namespaces: Patterns that it may certify, or the whole text of its ``.namespaces``; None: no such file.
        signing_policy: The same of its ``.signing_policy``.
        crl: None: its current one.
        with_crl: Whether there is a CRL at all.
        encoding: Of the CRL; fetch-crl leaves it as the authority gives it.
    """
    certificate, name = authority.identity.certificate, str(authority.identity.subject)
    alias = alias or re.sub(r"[^A-Za-z0-9]+", "-", name.rpartition("=")[2])
    atomic.write_bytes(directory / f"{alias}.pem", certificate.public_bytes(Encoding.PEM))
    hashes = subject_hashes(certificate.subject)
    for each in hashes:
        _link(directory, each, "", f"{alias}.pem")
    if namespaces is not None:
        _write_policy(directory, alias, hashes, "namespaces", _namespaces(name, namespaces))
    if signing_policy is not None:
        _write_policy(directory, alias, hashes, "signing_policy", _signing_policy(name, signing_policy))
    if with_crl:
        place = _free(directory, hashes[0], "r")
        atomic.write_bytes(place, (authority.crl() if crl is None else crl).public_bytes(encoding))
    return alias


def _free(directory: Path, stem: str, kind: str) -> Path:
    number = 0
    while (directory / f"{stem}.{kind}{number}").is_symlink() or (directory / f"{stem}.{kind}{number}").exists():
        number += 1
    return directory / f"{stem}.{kind}{number}"


def _link(directory: Path, stem: str, kind: str, target: str) -> None:
    _free(directory, stem, kind).symlink_to(target)


def _write_policy(directory: Path, alias: str, hashes: Sequence[str], ending: str, text: str) -> None:
    atomic.write_bytes(directory / f"{alias}.{ending}", text.encode())
    for each in hashes:
        place = directory / f"{each}.{ending}"
        place.unlink(missing_ok=True)
        place.symlink_to(f"{alias}.{ending}")


def _namespaces(name: str, patterns: Sequence[str] | str) -> str:
    if isinstance(patterns, str):
        return patterns
    rules = [f'TO Issuer "{name}" \\\n  PERMIT Subject "{pattern}"\n' for pattern in patterns]
    return "\n".join(["#NAMESPACES-VERSION: 1.0", f"#    subjectDN: {name}", *rules])


def _signing_policy(name: str, patterns: Sequence[str] | str) -> str:
    if isinstance(patterns, str):
        return patterns
    quoted = " ".join(f'"{pattern}"' for pattern in patterns)
    return f"access_id_CA  X509    '{name}'\npos_rights    globus  CA:sign\ncond_subjects globus  '{quoted}'\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone:
    """A real authority's double: the same certificate but for its key and signature.

    Attributes:
        original: The real certificate.
        authority: The double, with the doubles of all above it.
        above: Those above it, the nearest first.
    """

    original: x509.Certificate
    authority: Authority
    above: tuple[Authority, ...]

    @property
    def path(self) -> tuple[x509.Certificate, ...]:
        """Return its certificate and those above."""
        return tuple(each.identity.certificate for each in (self.authority, *self.above))

    def instant(self, now: datetime) -> datetime:
        """Return an instant at which the whole path is valid: now, or the day before its first expiry."""
        last = min(each.not_valid_after_utc for each in self.path)
        return now if now < last else last - timedelta(days=1)


def clone_directory(source: Path, target: Path) -> tuple[Clone, ...]:
    """Write a double of every authority in ``source`` into ``target``, under the same names, with the real policies.

    The doubles keep subject, issuer, serial number, dates and every extension. CRLs are for the caller to write.
    """
    anchors = load_anchors(source)
    made: dict[x509.Certificate, Clone] = {}
    for certificate in anchors.certificates:
        _clone(certificate, anchors.by_name, made)
    for file, held in anchors.held.items():
        content = b"".join(made[one].path[0].public_bytes(Encoding.PEM) for one in held.authorities)
        (target / file.names[-1]).write_bytes(content)
        for name in file.names[:-1]:
            (target / name).symlink_to(file.names[-1])
    for policy in anchors.contents.policies() if anchors.contents is not None else ():
        (target / policy.file.names[-1]).write_bytes(policy.file.path.read_bytes())
        for name in policy.file.names[:-1]:
            (target / name).symlink_to(policy.file.names[-1])
    return tuple(made[certificate] for certificate in anchors.certificates)


def _clone(
    certificate: x509.Certificate,
    by_name: Mapping[DistinguishedName, tuple[x509.Certificate, ...]],
    made: dict[x509.Certificate, Clone],
) -> Clone:
    if certificate in made:
        return made[certificate]
    parent = None
    for one in by_name.get(distinguished_name(certificate.issuer), ()):
        if one != certificate and certificate.subject != certificate.issuer and _issued(one, certificate):
            parent = _clone(one, by_name, made)
    is_curve = isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    key = make_key(KeyType.P256 if is_curve else KeyType.RSA_2048)
    digest = certificate.signature_hash_algorithm
    double = altered(
        certificate,
        parent.authority.identity.key if parent else key,
        Oddity(public_key=key),
        digest=digest.name if digest else "sha256",
    )
    chain = (*parent.path,) if parent else ()
    authority = Authority(identity=Identity(certificate=double, key=key, chain=chain))
    above = (parent.authority, *parent.above) if parent else ()
    made[certificate] = Clone(original=certificate, authority=authority, above=above)
    return made[certificate]


def _issued(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    try:
        subject.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
