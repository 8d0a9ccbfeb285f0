# SPDX-License-Identifier: Apache-2.0
"""`CatalogueEntry` and `Selection`: what the catalogue knows, and what goes into a list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.model.appliance import Appliance
    from coppice.model.endorser import DistinguishedName
    from coppice.model.identifiers import ListIdentifier
    from coppice.model.image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplianceVersion:
    """An immutable version of an appliance.

    Attributes:
        appliance: Whose version.
        version: Its version string (ordered by `coppice.model.version.Version`).
        path: The image file at the publisher.
        image: Facts about it.
        created: When the image was made.
        expires: When its endorsement ends; None: with its list.
        provenance: Pointer to where the bytes come from.
    """

    appliance: Appliance
    version: str
    path: Path
    image: Image
    created: datetime
    expires: datetime | None
    provenance: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What goes into one image list: the newest version of each selected appliance.

    Attributes:
        name: The list's name at the publisher.
        identifier: Minted once for the list.
        title: For people, one line.
        description: For people, a paragraph.
        source: ``dc:source``: where the list comes from.
        vo: Virtual organisation, or None.
        endorser: Name of the endorser that vouches for it.
        publisher: Name of the publisher (settings) that it goes to.
        lifetime_days: From signing to expiry.
        last_version: Highest version that was published; None before the first.
        versions: The selected appliance versions, by appliance name.
    """

    name: str
    identifier: ListIdentifier
    title: str
    description: str
    source: str
    vo: str | None
    endorser: str
    publisher: str
    lifetime_days: int
    last_version: str | None
    versions: tuple[ApplianceVersion, ...]


class KeyKind(StrEnum):
    """Where a private key is kept."""

    PEM = "pem"
    """A PEM file, the certificate in another."""
    PKCS12 = "pkcs12"
    """A PKCS#12 file (``.p12``, ``.pfx``) with certificate and key."""
    PKCS11 = "pkcs11"
    """A token, reached by PKCS#11; the key never leaves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorserIdentity:
    """An endorser who can sign here: where certificate and key lie; secrets are never stored.

    Attributes:
        name: How commands call it.
        kind: Where the key is kept.
        certificate: PEM file; None: in the PKCS#12 file, or on the token.
        key: PEM or PKCS#12 file; for a token the ``pkcs11:`` URI (RFC 7512).
        passphrase_file: File whose first line is the key's passphrase or the token's PIN, or None.
        passphrase_variable: Environment variable that holds it instead, or None.
        ask_passphrase: Whether it is asked for on the terminal.
        digest: ``sha256``, ``sha384`` or ``sha512``: what is signed with.
        creator: ``dc:creator``.
        email: ``hv:email``.
        subject: Whose certificate it was when the endorser was added; None where an older database did not keep it.
        issuer: Subject of the authority above.
    """

    name: str
    certificate: Path | None
    key: Path | str
    creator: str
    email: str
    kind: KeyKind = KeyKind.PEM
    passphrase_file: Path | None = None
    passphrase_variable: str | None = None
    ask_passphrase: bool = False
    digest: str = "sha256"
    subject: DistinguishedName | None = None
    issuer: DistinguishedName | None = None
