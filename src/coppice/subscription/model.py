# SPDX-License-Identifier: Apache-2.0
"""`Subscription` and `VerifiedImageList`: whom a site trusts for what, and a list that passed every rule.

A list that could not be fetched, or was refused, has no type that the cache or a cloud accepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.imagelist.model import ImageList
    from coppice.model.checksum import Checksum
    from coppice.model.endorser import DistinguishedName
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier


class RevocationPolicy(StrEnum):
    """What is asked of certificate revocation lists (CRLs)."""

    REQUIRE = "require"
    """A valid CRL of every authority in the path must be there."""
    IF_PRESENT = "if-present"
    """A CRL that is there must be valid and is obeyed; a missing one is tolerated, and said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Who must have signed.

    Attributes:
        endorser_subject: Subject of the pinned endorser's certificate.
        endorser_issuer: Subject of the authority that issued it.
        anchors: PEM bundle, single certificate or directory of trust anchors, CRLs included.
        revocation: What is asked of CRLs.
    """

    endorser_subject: DistinguishedName
    endorser_issuer: DistinguishedName
    anchors: Path
    revocation: RevocationPolicy = RevocationPolicy.REQUIRE


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A list that a site follows.

    Attributes:
        name: How commands call it.
        uri: Where the list is fetched (``https://``, ``http://`` or ``file://``).
        list_identifier: The list that this is; None until the first list was verified, which fixes it.
        trust: Who must have signed.
        images: Identifiers of the images wanted; empty: all.
        added_at: When the site subscribed.
    """

    name: str
    uri: str
    list_identifier: ListIdentifier | None
    trust: TrustPolicy
    images: tuple[ImageIdentifier, ...]
    added_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedVersion:
    """What was verified last of a list: the floor against rollback.

    Attributes:
        version: Its ``hv:version``.
        payload_checksum: Of its signed bytes.
    """

    version: str
    payload_checksum: Checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedImageList:
    """An image list that passed every rule. Only `coppice.subscription.rules` makes one.

    Attributes:
        subscription: Name of the subscription that it was verified for.
        content: What it says.
        payload_checksum: Of its signed bytes.
        signer: Subject of the certificate that signed it.
        signer_issuer: Subject of the authority above.
        verified_at: When the rules were applied.
        warnings: What the site should know although the list is accepted.
    """

    subscription: str
    content: ImageList
    payload_checksum: Checksum
    signer: DistinguishedName
    signer_issuer: DistinguishedName
    verified_at: datetime
    warnings: tuple[str, ...] = ()
