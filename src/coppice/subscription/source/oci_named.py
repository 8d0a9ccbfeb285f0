# SPDX-License-Identifier: Apache-2.0
"""Which digests a signed image list names: what vouches for images in a registry whose manifests nobody signs.

A HEPiX list has the sha512 of files, a registry the sha256 of blobs; both meet in an entry's address, which is signed,
too: ``oci://registry/repository@sha256:…``, as Coppice's own publisher of registries writes it, for the disk or for the
manifest above it. Digest and size decide; where the list says that the registry is does not, so that a mirror serves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import (
    AuthorityRevokedError,
    CoppiceError,
    DatabaseError,
    DocumentError,
    ExpiredListError,
    InputError,
    MalformedListError,
    SignerRevokedError,
    StateError,
)
from coppice.formats.fields import Fields
from coppice.formats.oci import is_digest, parse_reference
from coppice.formats.strict_json import read_json
from coppice.model.checksum import Checksum
from coppice.subscription.model import TrustBasis, TrustedBy

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from coppice.formats.limits import ListLimits
    from coppice.subscription.model import VerifiedImageList
    from coppice.subscription.source.protocol import SourceSupplies

DOCUMENT = "list"
"""Name of the document that says by which list what was gathered is trusted."""
_WHAT = "note of a naming list"
_TOLD_AS_THEY_ARE = (AuthorityRevokedError, DatabaseError, ExpiredListError, SignerRevokedError)
"""What these say of the naming list holds for whatever it vouches for. All else that is wrong with it says that it is
not known what it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDigests:
    """The digests that a list names.

    Attributes:
        subscription: Whose list it is.
        ends: Digest → when the last entry that names it ends; None: with the list.
        sizes: Digest → sizes in bytes that entries say of it; None: they were compared before.
        repositories: Repository → digests that entries name in it.
        is_whole: Whether every entry of the list could be read.
        expires: When the list ends; None: its dates do not matter.
    """

    subscription: str
    ends: dict[str, datetime | None]
    sizes: dict[str, set[int]] | None
    repositories: dict[str, set[str]]
    is_whole: bool = True
    expires: datetime | None = None

    def find(self, manifests: Collection[str], disk: str, size_bytes: int) -> str | None:
        """Return the digest by which an image is named: of its disk, with that size, or of a manifest; None: by none.

        Args:
            manifests: Digests of the manifest and of the index above it.
            disk: Digest of the disk.
            size_bytes: Of the disk.
        """
        if disk in self.ends and (self.sizes is None or size_bytes in self.sizes[disk]):
            return disk
        return next((each for each in manifests if each in self.ends), None)

    def may_mean_more(self, repository: str, found: Collection[str]) -> bool:
        """Tell whether the list could mean what no digest of it names.

        So it is where an entry of it cannot be read; and where it names a digest in the repository that no tag has:
        the tag may have moved on before the list did, or the list before the tag.
        """
        return not self.is_whole or not self.repositories.get(repository, set()) <= set(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamingList:
    """A signed image list that vouches.

    Attributes:
        verified: The list, judged today.
        digests: That it names.
    """

    verified: VerifiedImageList
    digests: NamedDigests

    @property
    def trusted_by(self) -> TrustedBy:
        """Who signed the list."""
        by = self.verified.trusted_by
        return TrustedBy(basis=TrustBasis.LIST, signer=by.signer, issuer=by.issuer, fingerprint=by.fingerprint)

    @property
    def state(self) -> str:
        """What changes when the list, or what it was judged by, does."""
        said = f"{self.verified.payload_checksum}\n{self.verified.anchors_state}"
        return Checksum.of(said.encode("ascii"), "sha256").hexdigest


def recall_naming(supplies: SourceSupplies, name: str) -> NamingList:
    """Return the list in force of the subscription ``name``, judged today, as far as it names digests.

    Raises:
        SignerRevokedError, AuthorityRevokedError: It is trusted no more, and so is nothing that it vouched for.
        ExpiredListError: It is over.
        StateError: What it names is not known today, for whatever reason.
        DatabaseError: The database failed.
    """
    if supplies.recall is None:
        raise StateError(f"the list of the subscription {name!r}, which vouches, is not at hand in this run")
    try:
        verified = supplies.recall(name)
    except _TOLD_AS_THEY_ARE as problem:
        raise type(problem)(
            f"the list of the subscription {name!r}, which vouches: {problem.message}",
            details=problem.details,
            resolution=problem.resolution,
            context=problem.context,
        ) from problem
    except CoppiceError as problem:
        raise StateError(
            f"what the list of the subscription {name!r} names is not known today: {problem.message}",
            details=f"[{problem.code}]",
            resolution=problem.resolution or f"`coppice subscription refresh {name}` says more.",
            context={"list": name},
        ) from problem
    return _naming(verified)


def write_note(naming: NamingList, used: Collection[str]) -> bytes:
    """Return what is kept of the list beside what it vouches for: which one it was, and which digests it named."""
    verified = naming.verified
    said = {
        "subscription": verified.subscription,
        "identifier": verified.content.identifier,
        "version": verified.content.version,
        "payload": str(verified.payload_checksum),
        "named": sorted(used),
    }
    return json.dumps(said, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def read_note(data: bytes, limits: ListLimits) -> tuple[str, tuple[str, ...]]:
    """Return the identifier of the list that vouched, and the digests that it named.

    Raises:
        MalformedListError: It is no such note.
    """
    try:
        fields = Fields(read_json(data, what=_WHAT, max_bytes=limits.size_bytes, max_values=limits.values), "$", _WHAT)
        named = fields.array("named")
        if not named or not all(isinstance(each, str) and is_digest(each) for each in named):
            fields.refuse("named", "digests are needed")
        return fields.text("identifier"), tuple(str(each) for each in named)
    except DocumentError as problem:
        raise MalformedListError(problem.message, context=problem.context) from problem


def check_note(data: bytes, naming: NamingList, used: Collection[str], limits: ListLimits) -> None:
    """Check that a list vouches today for what it vouched for when a message was gathered, and for nothing else.

    Raises:
        MalformedListError: There is no note of it.
        StateError: It is another list, or names others of what was gathered.
    """
    identifier, named = read_note(data, limits)
    verified = naming.verified
    if identifier != verified.content.identifier:
        raise StateError(
            f"the subscription {verified.subscription!r} follows another list than the one that vouched",
            details=f"it is {verified.content.identifier}; it was {identifier}",
            resolution="A refresh gathers anew what this one vouches for.",
        )
    if set(named) != set(used):
        gone, new = len(set(named) - set(used)), len(set(used) - set(named))
        raise StateError(
            f"the list of the subscription {verified.subscription!r} names others of these images than when they were "
            "gathered",
            details=f"no more: {gone}; besides: {new}",
            resolution="A refresh gathers them anew.",
        )


def digests_of_note(data: bytes, subscription: str, limits: ListLimits) -> NamedDigests:
    """Return the digests that a list named when a message was gathered, to show what it said then.

    Raises:
        MalformedListError: There is no note of it.
    """
    _, named = read_note(data, limits)
    return NamedDigests(subscription=subscription, ends=dict.fromkeys(named), sizes=None, repositories={})


def _naming(verified: VerifiedImageList) -> NamingList:
    content = verified.content
    ends: dict[str, datetime | None] = {}
    sizes: dict[str, set[int]] = {}
    repositories: dict[str, set[str]] = {}
    for image in content.images:
        for uri in (image.uri, *image.mirrors):
            try:
                reference = parse_reference(uri)
            except InputError:
                continue
            if reference.digest is None:
                continue
            known = ends.get(reference.digest, image.expires)
            ends[reference.digest] = max(known, image.expires, key=lambda end: end or content.validity.expires)
            sizes.setdefault(reference.digest, set()).add(image.size_bytes)
            repositories.setdefault(reference.repository, set()).add(reference.digest)
    digests = NamedDigests(
        subscription=verified.subscription,
        ends=ends,
        sizes=sizes,
        repositories=repositories,
        is_whole=not content.unreadable,
        expires=content.validity.expires,
    )
    return NamingList(verified=verified, digests=digests)
