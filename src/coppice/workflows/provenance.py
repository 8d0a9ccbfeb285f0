# SPDX-License-Identifier: Apache-2.0
"""Where a version comes from: signed by an endorser, and verified by whoever got the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

from coppice.atomic import storage_errors, write_bytes
from coppice.catalogue.endorsers import Endorsers
from coppice.errors import (
    ChecksumMismatchError,
    EndorserUnknownError,
    NotFoundError,
    StorageError,
    UnreadableFileError,
    WrongSignerError,
)
from coppice.factory.evidence.keeping import PROVENANCE_NAME
from coppice.factory.files import sha512_of
from coppice.formats.dsse import MAX_ENVELOPE_BYTES, seal, unseal
from coppice.formats.intoto import MEDIA_TYPE, read_statement
from coppice.formats.names import distinguished_name
from coppice.imagelist.keys import load_identity, require_usable
from coppice.model.checksum import Checksum
from coppice.subscription.anchors import load_anchors
from coppice.subscription.path import check_path
from coppice.workflows.evidence import evidence_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from coppice.catalogue.model import ApplianceVersion
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.formats.dsse import Envelope
    from coppice.formats.intoto import Statement
    from coppice.model.endorser import DistinguishedName
    from coppice.subscription.model import TrustPolicy

SIGNED_NAME = "provenance.dsse.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedProvenance:
    """A statement whose signer is trusted.

    Attributes:
        statement: What it says.
        signer: Subject of the certificate that signed.
        authority: Subject of the authority above.
        image: Digest of the image that it was held against; None: of none.
    """

    statement: Statement
    signer: DistinguishedName
    authority: DistinguishedName
    image: Checksum | None


def sign_provenance(
    version: ApplianceVersion,
    endorser: str,
    *,
    database: Database,
    clock: Clock,
    ask: Callable[[str], str] | None = None,
) -> Path:
    """Sign where a version comes from; return the file, which is kept with the version.

    Raises:
        NotFoundError: Nothing is known of the version's build, or there is no such endorser.
        UnreadableFileError: Certificate or key cannot be read.
        CredentialError: A passphrase or PIN is missing, or another one.
        KeyTokenError: The token that keeps the key cannot be used.
        SignerExpiredError: The certificate is not valid today.
        SignerUsageError: The certificate is not for signing.
        ChecksumMismatchError: What is kept does not speak of the version's image.
        StorageError: The file cannot be written.
    """
    directory = evidence_of(version)
    path = directory / PROVENANCE_NAME
    try:
        with storage_errors("reading", path):
            payload = path.read_bytes()
    except StorageError as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            raise NotFoundError(
                f"it is not known where {version.appliance.name} {version.version} comes from",
                resolution="Build it anew with --fresh, and add that.",
            ) from problem
        raise
    _require_of(read_statement(payload), version.image.checksum)
    identity = load_identity(Endorsers(database).get(endorser), ask=ask)
    require_usable(identity, clock.now())
    sealed = seal(payload, MEDIA_TYPE, certificate=identity.certificate, chain=identity.chain, key=identity.signer)
    # What is handed out was opened as its reader will open it.
    if unseal(sealed, MEDIA_TYPE).payload != payload:
        raise ChecksumMismatchError("the signed provenance does not read as what was to be signed")
    write_bytes(directory / SIGNED_NAME, sealed)
    return directory / SIGNED_NAME


def verify_provenance(
    path: Path, trust: TrustPolicy, *, now: datetime, image: Path | None = None
) -> VerifiedProvenance:
    """Return what the signed provenance in ``path`` says, once its signer is found to be trusted.

    Args:
        path: The file.
        trust: Whom to trust, and what is asked of certificates.
        now: This instant.
        image: An image that it has to speak of; None: it is held against none.

    Raises:
        UnreadableFileError: A file cannot be read.
        DocumentError: It is no signed provenance.
        TrustError: Its signature does not hold, or its signer is not trusted.
        ChecksumMismatchError: It does not speak of ``image``.
    """
    envelope = unseal(_read(path), MEDIA_TYPE)
    signer, authority = _check_signer(envelope, trust, now)
    statement = read_statement(envelope.payload)
    found = None if image is None else _digest_of(image)
    if found is not None:
        _require_of(statement, found)
    return VerifiedProvenance(statement=statement, signer=signer, authority=authority, image=found)


def _check_signer(envelope: Envelope, trust: TrustPolicy, now: datetime) -> tuple[DistinguishedName, DistinguishedName]:
    certificate = envelope.certificate
    if trust.anchors is None or not trust.endorsers:
        raise EndorserUnknownError(
            "it is not said who may have signed the provenance",
            resolution="Name trust anchors, and the endorser's certificate or names.",
        )
    anchors = load_anchors(trust.anchors)
    check_path(certificate, envelope.others, anchors, trust=trust, dates_at=now, now=now)
    subject, issuer = distinguished_name(certificate.subject), distinguished_name(certificate.issuer)
    fingerprint = Checksum("sha256", certificate.fingerprint(hashes.SHA256()).hex())
    if not trust.pins(subject, issuer, fingerprint):
        raise WrongSignerError(
            f"the provenance is signed by {subject}, who is not among those that were named",
            details=f"signed by {subject}\nbelow     {issuer}\nexactly   {fingerprint}",
            resolution="If that endorser is the right one, name it.",
        )
    return subject, issuer


def _require_of(statement: Statement, checksum: Checksum) -> None:
    if not statement.speaks_of(checksum):
        told = "\n".join(f"{own} {name}" for name, own in statement.subjects)
        raise ChecksumMismatchError(
            "the provenance speaks of another image", details=f"of:\n{told}\nthe image has {checksum}"
        )


def _digest_of(image: Path) -> Checksum:
    try:
        return sha512_of(image)
    except StorageError as problem:
        raise UnreadableFileError(
            f"the image {image} cannot be read: {problem.message}", context={"path": str(image)}
        ) from problem


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as problem:
        raise UnreadableFileError(
            f"the provenance {path} cannot be read: {problem.strerror}", context={"path": str(path)}
        ) from problem
