# SPDX-License-Identifier: Apache-2.0
"""`Subscription` and `VerifiedImageList`: whom a site trusts for what, and a list that passed every rule.

A list that could not be fetched, or was refused, has no type that the cache or a cloud accepts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.imagelist.model import Profile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from coppice.imagelist.model import ImageList
    from coppice.model.checksum import Checksum
    from coppice.model.credential import CredentialReference
    from coppice.model.endorser import DistinguishedName
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier


class RevocationPolicy(StrEnum):
    """What is asked of certificate revocation lists (CRLs)."""

    REQUIRE = "require"
    """A valid CRL of every authority in the path must be there."""
    IF_PRESENT = "if-present"
    """A CRL that is there must be valid and is obeyed; a missing one is tolerated, and said."""


class NamespacePolicy(StrEnum):
    """What is asked of an authority's namespaces and signing policy: which names it may certify."""

    REQUIRE = "require"
    """Every authority in the path must have a policy that permits the name below it."""
    IF_PRESENT = "if-present"
    """A policy that is there is obeyed; an authority without one is tolerated, and said."""
    AUTOMATIC = "automatic"
    """`REQUIRE` where the anchors come from a directory that holds such policies (as the IGTF's does); where there are
    none at all, as with a PEM bundle, nothing is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedEndorser:
    """An endorser whom a subscription trusts.

    Attributes:
        subject: Of the endorser's certificate.
        issuer: Subject of the authority that issued it.
        fingerprint: SHA-256 of the certificate, when this one certificate alone is trusted; None: any certificate of
            that name below that authority.
        first_use: True when this endorser was trusted because it signed the first list, not because somebody named it.
    """

    subject: DistinguishedName
    issuer: DistinguishedName
    fingerprint: Checksum | None = None
    first_use: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Who must have signed, and what is asked of the signature and the certificates.

    Attributes:
        endorsers: Any one of them must have signed. Empty only as long as ``trust_on_first_use`` waits for a list.
        anchors: PEM bundle, single certificate or directory of trust anchors, CRLs included; None only where the source
            has lists that no certificate vouches for.
        revocation: What is asked of CRLs.
        namespaces: What is asked of namespaces and signing policies.
        trust_on_first_use: Whether the endorser of the first list is pinned, if nobody was named before.
        allow_sha1: Whether a signature or certificate with SHA-1 is accepted; for publishers of long ago only.
        allow_host_certificate: Whether a signer's certificate may be a host's (serverAuth without clientAuth).
        profile: How much of the format the list must keep to.
    """

    endorsers: tuple[PinnedEndorser, ...]
    anchors: Path | None
    revocation: RevocationPolicy = RevocationPolicy.REQUIRE
    namespaces: NamespacePolicy = NamespacePolicy.AUTOMATIC
    trust_on_first_use: bool = False
    allow_sha1: bool = False
    allow_host_certificate: bool = False
    profile: Profile = Profile.STRICT

    def pins(
        self, subject: DistinguishedName | None, issuer: DistinguishedName | None, fingerprint: Checksum | None
    ) -> bool:
        """Tell whether a certificate of this name, authority and SHA-256 fingerprint is one that is trusted.

        Where there is no certificate (None), nobody is pinned.
        """
        if subject is None or issuer is None or fingerprint is None:
            return False
        return any(
            (each.subject, each.issuer) == (subject, issuer)
            and (each.fingerprint is None or each.fingerprint.matches(fingerprint))
            for each in self.endorsers
        )


class TrustBasis(StrEnum):
    """By what a list came to be trusted."""

    X509 = "x509"
    """The signature of a pinned endorser, whose certificate has a path to a trust anchor."""
    OPENPGP = "openpgp"
    """The signature of a key in a pinned keyring."""
    COSIGN = "cosign"
    """The signature of a pinned key over each manifest."""
    LIST = "list"
    """The signed image list of another subscription, which names the digest of each image; whoever signed that."""
    LOCAL = "local"
    """It was made on this machine, or by whoever may write to a folder of it; the administrator said so."""
    TRANSPORT = "transport"
    """Nobody signed it: whoever holds the server's name is believed; the administrator said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedBy:
    """How a list came to be trusted.

    Attributes:
        basis: By what.
        signer: Who vouches, in words that stay the same from version to version: a name, a key's fingerprint, a folder,
            a server.
        issuer: Subject of the authority above; for certificates only.
        fingerprint: SHA-256 of the certificate or public key; None where there is neither.
    """

    basis: TrustBasis
    signer: str
    issuer: str | None = None
    fingerprint: Checksum | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReference:
    """Which source a list comes from.

    Attributes:
        driver: The plug-in: ``hepix``, ``oci``, ``simplestreams``, ``files``, ``catalogue``, ``descriptors``.
        options: The driver's own: texts, lists of texts, numbers, switches; never a secret.
    """

    driver: str = "hepix"
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSelection:
    """Which images of a list a site wants; every condition that is given must hold.

    Attributes:
        images: Identifiers; empty: any.
        refused: Identifiers that are never wanted.
        vos: Virtual organisations (``ad:vo`` of the list); empty: any.
        operating_systems: ``sl:osname`` or ``sl:os``, whatever the case; empty: any.
        architectures: ``sl:arch``; empty: any.
        expression: A condition over an image's fields; None: none.
    """

    images: tuple[ImageIdentifier, ...] = ()
    refused: tuple[ImageIdentifier, ...] = ()
    vos: tuple[str, ...] = ()
    operating_systems: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    expression: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A list that a site follows.

    Attributes:
        name: How commands call it.
        uri: Where the list comes from, in the words of its source (``https://``, ``file://``, ``oci://`` …).
        list_identifier: The list that this is; None until the first list was verified, which fixes it.
        trust: Who must have signed.
        selection: Which images are wanted.
        added_at: When the site subscribed.
        credential: How the site shows who it is; only where a secret lies, never the secret.
        server_anchors: Authorities that the server's certificate may come from, beside the machine's; None: none.
        paused_at: From when on the list is not fetched; None: it is.
        source: What kind of source that is.
    """

    name: str
    uri: str
    list_identifier: ListIdentifier | None
    trust: TrustPolicy
    added_at: datetime
    selection: ImageSelection = field(default_factory=ImageSelection)
    credential: CredentialReference | None = None
    server_anchors: Path | None = None
    paused_at: datetime | None = None
    source: SourceReference = field(default_factory=SourceReference)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedVersion:
    """What was verified last of a list: the floor against rollback.

    Attributes:
        version: Its ``hv:version``.
        payload_checksum: Of its signed bytes.
        created: Its ``dc:date:created``; None where an older database did not keep it.
    """

    version: str
    payload_checksum: Checksum
    created: datetime | None = None


class WarningKind(StrEnum):
    """What a site should know about a list although it is accepted."""

    LIST_EXPIRING = "list-expiring"
    """The list expires soon."""
    LIST_STALE = "list-stale"
    """Three quarters of the list's life are over."""
    IMAGE_EXPIRING = "image-expiring"
    """An image of the list expires soon, or has expired."""
    CERTIFICATE_EXPIRING = "certificate-expiring"
    """The endorser's certificate, or one above it, expires soon."""
    REVOCATION_EXPIRING = "revocation-expiring"
    """A CRL that was used is due soon."""
    PATH = "path"
    """Something about the certificates above the signer was tolerated."""
    URI_DIFFERS = "uri-differs"
    """The list says that it lives elsewhere; nothing follows it there."""
    VERSION_JUMP = "version-jump"
    """The version rose so far that hardly another one can come after it."""
    CREATED_EARLIER = "created-earlier"
    """The version is higher than the last one's, and the date of creation is earlier."""
    FIRST_USE = "first-use"
    """The endorser is trusted because it signed the first list."""
    NO_ENDORSER = "no-endorser"
    """The list names nobody as its endorser; the signer is pinned all the same."""
    UNREADABLE_ENTRIES = "unreadable-entries"
    """Some entries could not be read: their images stay as they are."""
    WEAK_ACCEPTED = "weak-accepted"
    """SHA-1 was accepted, as the subscription allows."""
    SHARED_IDENTIFIER = "shared-identifier"
    """Another list names an image by the same identifier: to this site they are two images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListWarning:
    """Something about an accepted list that the site should know.

    Attributes:
        kind: What sort of thing.
        text: For people: one clause, without a full stop.
    """

    kind: WarningKind
    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedImageList:
    """An image list that passed every rule.

    Only `coppice.subscription.rules` makes one, and `coppice.subscription.source.gathered` for sources whose lists no
    certificate vouches for.

    Attributes:
        subscription: Name of the subscription that it was verified for.
        content: What it says.
        payload_checksum: Of the bytes that are vouched for.
        trusted_by: How it came to be trusted.
        signer: Subject of the certificate that signed it; None where none did.
        signer_issuer: Subject of the authority above; likewise.
        signer_fingerprint: SHA-256 of that certificate; likewise.
        verified_at: When the rules were applied.
        warnings: What the site should know although the list is accepted.
        newly_pinned: The endorser whom this first list makes trusted (trust on first use); whoever records the list
            must record it as well. None: the subscription named its endorsers before.
        anchors_state: Of the trust anchors and CRLs, keyrings or keys that it was judged by.
    """

    subscription: str
    content: ImageList
    payload_checksum: Checksum
    trusted_by: TrustedBy
    verified_at: datetime
    signer: DistinguishedName | None = None
    signer_issuer: DistinguishedName | None = None
    signer_fingerprint: Checksum | None = None
    warnings: tuple[ListWarning, ...] = ()
    newly_pinned: PinnedEndorser | None = None
    anchors_state: str = ""
