# SPDX-License-Identifier: Apache-2.0
"""`ApplianceVersion`, `ApplianceSet` and `Selection`: what the catalogue knows, and what goes into a list."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from coppice.model.appliance import Appliance
    from coppice.model.checksum import Checksum
    from coppice.model.endorser import DistinguishedName
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier
    from coppice.model.image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencedImage:
    """An image that somebody else holds: lists name it where it is, and nothing of it is held here.

    Attributes:
        uri: Where it is.
        format: What its list calls the format; None: nothing. Nobody looked into it here.
        size_bytes: Length of the file, as its list says.
        checksum: SHA-512 of the file, as its list says.
    """

    uri: str
    format: str | None
    size_bytes: int
    checksum: Checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplianceVersion:
    """A version of an appliance; it never changes, save for the end of its endorsement.

    Attributes:
        appliance: Whose version.
        version: Its version string (ordered by `coppice.model.version.Version`).
        path: The image file at the publisher; None: it is listed by reference.
        image: Facts about it.
        created: When the image was made, or came into the catalogue.
        expires: When its endorsement ends; None: with its list.
        provenance: Pointer to where the bytes come from.
        mpuri: ``ad:mpuri``, where the list that it was imported from gave one.
        built_on: Digests of the published files that it is built on, the nearest first.
        evidence: The directory that keeps its build's record, package lists and provenance; None: there is none.
    """

    appliance: Appliance
    version: str
    path: Path | None
    image: Image | ReferencedImage
    created: datetime
    expires: datetime | None
    provenance: str | None
    mpuri: str | None = None
    built_on: tuple[Checksum, ...] = ()
    evidence: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRelease:
    """Versions of the appliances of a set that belong together; it never changes.

    Attributes:
        version: Its version string; a later release has a higher one.
        created: When it was made.
        members: The appliance versions, by appliance name.
        members_of: Version of the earlier release whose members it has; None: it was made of newest versions.
    """

    version: str
    created: datetime
    members: tuple[ApplianceVersion, ...]
    members_of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplianceSet:
    """Complementary appliances whose versions are published, replaced, taken back and expired together.

    Attributes:
        name: How commands call it.
        identifier: Minted once (``coppice:set``).
        title: For people, one line.
        description: For people, a paragraph.
        appliances: Names of the appliances that the next release takes in, in their order.
        expires: When the endorsement of every member ends at the latest; None: nothing is said for the set.
        releases: All releases, oldest first.
        lists: Names of the image lists that carry it.
    """

    name: str
    identifier: str
    title: str
    description: str
    appliances: tuple[str, ...]
    expires: datetime | None
    releases: tuple[SetRelease, ...]
    lists: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedSet:
    """A set as a list carries it: its newest release, whole.

    Attributes:
        name: Of the set.
        identifier: Of the set.
        expires: When every member's endorsement ends at the latest; None: nothing is said for the set.
        release: The newest release; None: there is none yet, and the list cannot be published.
    """

    name: str
    identifier: str
    expires: datetime | None
    release: SetRelease | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What goes into one image list: the newest version of each selected appliance, the newest release of each set.

    Attributes:
        name: The list's name at the publisher.
        identifier: Minted once for the list.
        title: For people, one line.
        description: For people, a paragraph.
        source: ``dc:source``: where the list comes from.
        vo: Virtual organisation, or None.
        endorser: Name of the endorser that vouches for it, unless another one is asked for.
        publisher: Name of the publisher (settings) that it goes to.
        lifetime_days: From signing to expiry.
        last_version: Highest version that was signed or imported; None before the first.
        versions: The selected appliance versions, by appliance name.
        keys: What else the list says of itself, by the format's keys (``ad:swid`` …).
        endorsers: Names of all endorsers who may sign it, the one above first.
        sets: The selected sets, by name.
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
    keys: Mapping[str, object] = field(default_factory=dict)
    endorsers: tuple[str, ...] = ()
    sets: tuple[SelectedSet, ...] = ()

    @property
    def listed_versions(self) -> tuple[ApplianceVersion, ...]:
        """Return everything that the list carries, alone or in a set, by appliance name."""
        members = [member for each in self.sets if each.release is not None for member in each.release.members]
        return tuple(sorted([*self.versions, *members], key=lambda version: version.appliance.name))


class PublicationState(StrEnum):
    """How far a version of a list came."""

    SIGNED = "signed"
    """It was signed; whether it went out is not known, since the run ended before it could say so."""
    PUBLISHED = "published"
    """It is where subscribers fetch it, or was until a later one took its place."""
    IMPORTED = "imported"
    """It was published by somebody else, verified, and brought into this catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedImage:
    """An image of a version of a list.

    Attributes:
        identifier: Of the image.
        appliance: Name in the catalogue at that time.
        version: Its version.
        checksum: SHA-512 of its file.
        expires: The end of endorsement that the list told; None: none.
    """

    identifier: ImageIdentifier
    appliance: str
    version: str
    checksum: str
    expires: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPublication:
    """One entry of a list's publication history.

    Attributes:
        number: Rises with each.
        selection: Name of the list at that time.
        list_identifier: Of the list.
        version: Of the list.
        state: How far it came.
        payload: SHA-512 of the signed JSON bytes.
        signer: Subject of the certificate that signed.
        endorser: Name of the endorser here; None for an imported list.
        uri: Where subscribers find the list.
        images: What it lists.
        signed_at: When it was signed, or imported.
        expires: When it expires.
        published_at: When it was out; None: not known to be.
    """

    number: int
    selection: str
    list_identifier: ListIdentifier
    version: str
    state: PublicationState
    payload: Checksum
    signer: str
    endorser: str | None
    uri: str
    images: tuple[PublishedImage, ...]
    signed_at: datetime
    expires: datetime
    published_at: datetime | None


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
