# SPDX-License-Identifier: Apache-2.0
"""What of the images of other programs can be taken over: a pure function of claims, lists and checksums.

An image is taken when it is shown to be the one that a list names: the cloud's own checksum of its bytes is that of the
published file, or of what Coppice made of that file. What rests on the word of another program alone is taken only
where the administrator says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.cloud.adoption import recognise
from coppice.cloud.revocation import Revoked
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from coppice.cloud.adoption import Claim
    from coppice.cloud.driver import ForeignImage
    from coppice.cloud.model import Desired, DesiredImage, RegisteredImage
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey


DATASTORE = "DATASTORE"
"""Of a foreign image, where a cloud has several places: in which it lies."""


class Proof(StrEnum):
    """What shows that an image is the one that a list names."""

    PUBLISHED = "published"
    """The cloud's checksum is that of the published file."""
    CONVERTED = "converted"
    """The cloud's checksum is that of what Coppice made of the published file."""
    MARKER = "marker"
    """Another program says so, and nothing speaks against it."""
    NONE = "none"
    """Nothing."""


class Verdict(StrEnum):
    """What becomes of an image."""

    TAKE = "take"
    UNPROVEN = "unproven"
    """It is taken with `trust_markers` only."""
    LEAVE = "leave"
    """It is not taken in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image of another program, and what is to become of it.

    Attributes:
        foreign: The image.
        claim: What its program says of it.
        desired: What a list names, and it is; None: nothing that is known.
        version: Its version; None: not known.
        digest: Of the published file of that version; None: not known.
        proof: What shows it.
        verdict: What becomes of it.
        reason: Why, for people.
    """

    foreign: ForeignImage
    claim: Claim
    desired: DesiredImage | None
    version: str | None
    digest: Checksum | None
    proof: Proof
    verdict: Verdict
    reason: str


@dataclass(slots=True, kw_only=True)
class _Known:
    """What the lists name, ready to be looked up."""

    by_image: dict[str, list[DesiredImage]] = field(default_factory=dict)
    by_mpuri: dict[str, list[DesiredImage]] = field(default_factory=dict)
    by_title: dict[tuple[str, str], list[DesiredImage]] = field(default_factory=dict)


def plan_adoption(
    foreign: Sequence[ForeignImage],
    registered: Sequence[RegisteredImage],
    desired: Desired,
    converted: Mapping[Checksum, frozenset[Checksum]],
    now: datetime,
    *,
    trust_markers: bool = False,
) -> tuple[Candidate, ...]:
    """Return every image of a known program, in the order of the cloud's identifiers, with what becomes of it.

    Args:
        foreign: All images in the cloud without this site's marker.
        registered: All with it.
        desired: What the site wants in the cloud.
        converted: Published file → what Coppice made of it, by their checksums.
        now: This instant.
        trust_markers: The administrator takes the other programs at their word.
    """
    judge = _Judge(
        known=_known(desired),
        converted=converted,
        now=now,
        revoked=Revoked(desired.revocations, desired, registered),
        registered=_by_key(registered),
        trust_markers=trust_markers,
    )
    there = {
        (image.marker.key, Version(image.marker.version)): f"it is registered already, as {image.cloud_identifier}"
        for image in registered
        # A registration that did not end need not be done anew where another program has brought the bytes.
        if image.ready
    }
    found = [
        judge.judge(image, claim)
        for image in sorted(foreign, key=lambda each: each.cloud_identifier)
        if (claim := recognise(image)) is not None
    ]
    # What is proven goes first: of two with one version in one place, it is the one that is taken.
    order = sorted(range(len(found)), key=lambda place: (_RANK[found[place].proof], place))
    taken: dict[tuple[ImageKey, Version, str], str] = {}
    for place in order:
        each = found[place]
        if each.desired is None or each.version is None or each.verdict is Verdict.LEAVE:
            continue
        key, version = each.desired.key, Version(each.version)
        # A copy in each datastore is one image.
        where = each.foreign.properties.get(DATASTORE, "")
        other = there.get((key, version)) or taken.get((key, version, where))
        if other is not None:
            found[place] = _left(each, f"of version {each.version}, one is enough: {other}")
        elif each.verdict is Verdict.TAKE:
            taken[key, version, where] = f"{each.foreign.cloud_identifier} is taken"
    return tuple(found)


_RANK = {Proof.PUBLISHED: 0, Proof.CONVERTED: 1, Proof.MARKER: 2, Proof.NONE: 3}


def _known(desired: Desired) -> _Known:
    known = _Known()
    for wanted in desired.lists:
        for image in wanted.images:
            known.by_image.setdefault(image.key.image_identifier, []).append(image)
            known.by_title.setdefault((image.key.list_identifier, image.listed.title), []).append(image)
            if image.listed.mpuri:
                known.by_mpuri.setdefault(image.listed.mpuri, []).append(image)
    return known


def _by_key(registered: Sequence[RegisteredImage]) -> dict[ImageKey, list[RegisteredImage]]:
    groups: dict[ImageKey, list[RegisteredImage]] = {}
    for image in registered:
        groups.setdefault(image.marker.key, []).append(image)
    return groups


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """Judges one image after the other, by what is known of all."""

    known: _Known
    converted: Mapping[Checksum, frozenset[Checksum]]
    now: datetime
    revoked: Revoked
    registered: Mapping[ImageKey, Sequence[RegisteredImage]]
    trust_markers: bool

    def judge(self, foreign: ForeignImage, claim: Claim) -> Candidate:
        bare = Candidate(
            foreign=foreign,
            claim=claim,
            desired=None,
            version=claim.version,
            digest=None,
            proof=Proof.NONE,
            verdict=Verdict.LEAVE,
            reason="",
        )
        matching = _matching(claim, self.known)
        if not matching:
            return _left(bare, "no list that is followed, and known, wants it here")
        shown = [(image, _proof(foreign, image, self.converted)) for image in matching]
        proven = [(image, proof) for image, proof in shown if proof is not Proof.NONE]
        if len(proven or matching) > 1:
            return _left(bare, "several images of the lists fit what is written on it")
        if not proven:
            return self._unproven(bare, matching[0])
        image, proof = proven[0]
        found = replace(bare, desired=image, version=image.listed.version, digest=image.listed.checksum, proof=proof)
        refusal = self._refusal(found, image)
        return _left(found, refusal) if refusal else replace(found, verdict=Verdict.TAKE, reason=_SHOWN[proof])

    def _unproven(self, bare: Candidate, image: DesiredImage) -> Candidate:
        claim = bare.claim
        version, digest = _claimed(claim, image)
        found = replace(bare, desired=image, version=version, digest=digest)
        refusal = _contradiction(claim, image) or self._refusal(found, image)
        if refusal is not None:
            return _left(found, refusal)
        if version is None:
            return _left(found, f"{claim.program} does not say which version it is")
        if digest is None:
            return _left(found, f"it is version {version}, of which no list that is known says the checksum")
        found = replace(found, proof=Proof.MARKER)
        if self.trust_markers:
            return replace(found, verdict=Verdict.TAKE, reason=_SHOWN[Proof.MARKER])
        told = "the cloud tells no checksum" if bare.foreign.checksum is None else "the cloud's checksum is another"
        return replace(found, verdict=Verdict.UNPROVEN, reason=f"{told}: only {claim.program} says what it is")

    def _refusal(self, found: Candidate, image: DesiredImage) -> str | None:
        """Say why an image is not taken, whatever is known of its bytes."""
        if not found.foreign.ready:
            return "it is not whole"
        if found.claim.retired:
            return f"{found.claim.program} has put it out of use"
        if image.expires <= self.now:
            return "its endorsement has ended"
        why = self._revoked(found, image)
        return None if why is None else f"it is revoked: {why}"

    def _revoked(self, found: Candidate, image: DesiredImage) -> str | None:
        if found.version is None or found.digest is None:
            return None
        if found.digest.matches(image.listed.checksum):
            return self.revoked.why_listed(image, self.registered.get(image.key, ()))
        return self.revoked.why(image.key, found.version, found.digest)


def _left(candidate: Candidate, reason: str) -> Candidate:
    return replace(candidate, verdict=Verdict.LEAVE, reason=reason)


_SHOWN = {
    Proof.PUBLISHED: "the cloud's checksum is the list's",
    Proof.CONVERTED: "the cloud's checksum is that of Coppice's own conversion",
    Proof.MARKER: "its program says so, and is taken at its word",
}


def _matching(claim: Claim, known: _Known) -> list[DesiredImage]:
    """Return what the lists name that a claim can mean."""
    if claim.image is not None:
        found = known.by_image.get(claim.image, [])
    elif claim.mpuri is not None:
        found = known.by_mpuri.get(claim.mpuri, [])
    else:
        found = known.by_title.get((claim.list or "", claim.title or ""), [])
    if claim.list is not None:
        found = [each for each in found if each.key.list_identifier == claim.list]
    if len(found) > 1 and claim.vo is not None:
        found = [each for each in found if (each.vo or "").casefold() == claim.vo.casefold()] or found
    return found


def _proof(foreign: ForeignImage, image: DesiredImage, converted: Mapping[Checksum, frozenset[Checksum]]) -> Proof:
    if foreign.checksum is None:
        return Proof.NONE
    if foreign.checksum.matches(image.listed.checksum):
        return Proof.PUBLISHED
    made = converted.get(image.listed.checksum, frozenset())
    return Proof.CONVERTED if any(foreign.checksum.matches(each) for each in made) else Proof.NONE


def _claimed(claim: Claim, image: DesiredImage) -> tuple[str | None, Checksum | None]:
    """Return which version an image is by its program's word, and that version's checksum."""
    if any(each is not None and each.matches(image.listed.checksum) for each in (claim.published, claim.uploaded)):
        return image.listed.version, image.listed.checksum
    if claim.version is None:
        # A marketplace's URI is that of one version.
        by_uri = claim.mpuri is not None and claim.mpuri == image.listed.mpuri and claim.published is None
        return (image.listed.version, image.listed.checksum) if by_uri else (None, None)
    return claim.version, image.listed.checksum if _same(claim.version, image.listed.version) else claim.published


def _contradiction(claim: Claim, image: DesiredImage) -> str | None:
    """Say what in a claim cannot be true beside the list."""
    if claim.version is None:
        return None
    try:
        newer = Version(claim.version) > Version(image.listed.version)
    except ValueError:
        return f"its version {claim.version[:80]!r} has no place in the order of versions"
    if newer:
        return f"it is version {claim.version}, and the list names {image.listed.version}"
    said = claim.published
    listed = image.listed.checksum
    if (
        _same(claim.version, image.listed.version)
        and said is not None
        and said.algorithm == listed.algorithm
        and not said.matches(listed)
    ):
        return f"{claim.program} says that version {claim.version} has another checksum than the list says"
    return None


def _same(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except ValueError:
        return False
