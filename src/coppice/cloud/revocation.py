# SPDX-License-Identifier: Apache-2.0
"""What is revoked, by itself or by what it is built on. Pure.

What is revoked stays so until `coppice image unrevoke` says otherwise: the marker in the cloud says it as well, so that
a lost database brings nothing back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coppice.cloud.model import ImageState
from coppice.cloud.properties import LINEAGE_DIGITS, lineage_of
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from coppice.cloud.model import Desired, DesiredImage, RegisteredImage, Revocation
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey, ListIdentifier

_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Known:
    """A version of an image, listed or registered, and what it is built on.

    Attributes:
        key: Which image.
        version: Which version.
        digest: Of its published file.
        built_on: What it is built on, as `coppice.cloud.properties.lineage_of` gives it.
        since: Registered at this instant at the latest; None: it is listed.
    """

    key: ImageKey
    version: str
    digest: Checksum
    built_on: tuple[str, ...]
    since: datetime | None = None

    @property
    def prefix(self) -> str:
        """What markers say of its digest where something is built on it."""
        return prefix_of(self.digest)

    def was_there(self, at: datetime) -> bool:
        """Tell whether it was registered at that instant."""
        return self.since is not None and self.since <= at


@dataclass(frozen=True, slots=True)
class _Reach:
    """A content, and the images for which what is built on it is revoked.

    Attributes:
        prefix: Of its digest.
        of_list: Of this list; None: all.
        is_bound: Whatever is built on it is revoked in that list alone as well, over any number of steps.
        reason: Why, for people.
    """

    prefix: str
    of_list: ListIdentifier | None
    is_bound: bool
    reason: str


class Revoked:
    """Tells whether an image is revoked, and why.

    Args:
        revocations: What an administrator revoked.
        desired: What is listed: through its lineage, what is built on what is revoked is revoked too.
        registered: What is registered, for the same.

    Attributes:
        is_any: Whether an administrator revoked anything.
    """

    def __init__(
        self, revocations: Sequence[Revocation], desired: Desired, registered: Iterable[RegisteredImage]
    ) -> None:
        self._digests: dict[str, str] = {}
        self._names: dict[ImageKey, list[Revocation]] = {}
        self._roots: list[_Reach] = []
        self._lineage: dict[str, str] = {}
        self._lineage_of_list: dict[tuple[ListIdentifier, str], str] = {}
        self._said: dict[tuple[ImageKey, str], tuple[str, ...]] = {}
        self.is_any = bool(revocations)
        for each in sorted(revocations, key=lambda one: (one.version is not None, one.at)):
            self._note(each)
        if revocations:
            listed = tuple(listed_contents(desired))
            self._said = {(each.key, each.digest.hexdigest): each.built_on for each in listed}
            self._cascade((*listed, *registered_contents(registered)))

    def why(self, key: ImageKey, version: str, digest: Checksum, built_on: Iterable[str] = ()) -> str | None:
        """Return why a version of an image is revoked; None: it is not.

        Args:
            key: Which image.
            version: Which version.
            digest: Of its published file.
            built_on: What it is built on, as `coppice.cloud.properties.lineage_of` gives it.
        """
        direct = self._directly(key, version, digest)
        if direct is not None or not (self._lineage or self._lineage_of_list):
            return direct
        for each in built_on:
            why = self._lineage.get(each) or self._lineage_of_list.get((key.list_identifier, each))
            if why is not None:
                return why
        return None

    def why_registered(self, image: RegisteredImage) -> str | None:
        """Return why what is registered is revoked; None: it is not.

        What its list says of this content today counts beside its marker, which may be older.
        """
        marker = image.marker
        said = self._said.get((marker.key, marker.digest.hexdigest), ())
        return self.why(marker.key, marker.version, marker.digest, (*marker.built_on, *said))

    def why_listed(self, image: DesiredImage, group: Iterable[RegisteredImage]) -> str | None:
        """Return why what is listed is revoked; None: it is not.

        Args:
            image: What is listed.
            group: What is registered of it: a marker that says so counts as much as the database.
        """
        if image.revoked is not None:
            return image.revoked
        listed = image.listed
        if self.is_any:
            why = self.why(image.key, listed.version, listed.checksum, lineage_of(image.built_on))
            if why is not None:
                return why
        for each in group:
            if not each.marker.digest.matches(listed.checksum):
                continue
            if each.marker.state is ImageState.REVOKED:
                return each.marker.reason or "its marker in the cloud says that it was revoked"
            # A list that says no more what a content is built on does not change what it is built on.
            why = self.why_registered(each) if self.is_any else None
            if why is not None:
                return why
        return None

    def _directly(self, key: ImageKey, version: str, digest: Checksum) -> str | None:
        direct = self._digests.get(digest.hexdigest)
        if direct is not None:
            return direct
        return next((each.reason for each in self._by_name(key, version)), None)

    def _by_name(self, key: ImageKey, version: str) -> Iterator[Revocation]:
        for each in self._names.get(key, ()):
            if each.version is None or Version(each.version) == Version(version):
                yield each

    def _note(self, revocation: Revocation) -> None:
        reason, key = _through(revocation.reason), revocation.key
        if revocation.digest is not None:
            self._digests.setdefault(revocation.digest.hexdigest, revocation.reason)
            self._roots.append(_Reach(prefix_of(revocation.digest), None, is_bound=False, reason=reason))
        elif key is not None:
            self._names.setdefault(key, []).append(revocation)
            self._roots.extend(
                _rooted(key, prefix_of(each.digest), reason, everywhere=each.everywhere) for each in revocation.contents
            )

    def _cascade(self, known: Sequence[Known]) -> None:
        """Find what is built on what is revoked, over any number of steps; each content is looked at once a reach.

        What an image is built on is the word of its list. Where several lists name one content, and do not agree on
        what it is built on, the word of each counts for its own images alone: no list can have what is built on the
        content of another revoked. Nor can one whose image is revoked by its name, by what it calls so afterwards.
        """
        children: dict[str, list[Known]] = {}
        namers: dict[str, set[ListIdentifier]] = {}
        words: dict[str, set[tuple[str, ...]]] = {}
        pending = deque(self._roots)
        for each in known:
            namers.setdefault(each.prefix, set()).add(each.key.list_identifier)
            words.setdefault(each.prefix, set()).add(each.built_on)
            for parent in each.built_on:
                children.setdefault(parent, []).append(each)
            pending.extend(
                _rooted(each.key, each.prefix, _through(one.reason), everywhere=each.was_there(one.at))
                for one in (self._by_name(each.key, each.version) if each.key in self._names else ())
            )
        hit: dict[str, set[ListIdentifier]] = {}
        seen: set[tuple[str, ListIdentifier | None, bool]] = set()
        while pending:
            reach = pending.popleft()
            prefix, of_list = reach.prefix, reach.of_list
            if (prefix, of_list, reach.is_bound) in seen:
                continue
            seen.add((prefix, of_list, reach.is_bound))
            if of_list is None:
                self._lineage.setdefault(prefix, reach.reason)
            else:
                self._lineage_of_list.setdefault((of_list, prefix), reach.reason)
                if not reach.is_bound:
                    hit.setdefault(prefix, set()).add(of_list)
                    if hit[prefix] >= namers[prefix]:
                        # Each list that names it says so.
                        pending.append(_Reach(prefix, None, is_bound=False, reason=reach.reason))
            for child in children.get(prefix, ()):
                its = child.key.list_identifier
                if of_list is None:
                    is_agreed = len(namers[child.prefix]) == 1 or len(words[child.prefix]) == 1
                    pending.append(
                        _Reach(child.prefix, None if is_agreed else its, is_bound=False, reason=reach.reason)
                    )
                elif of_list == its:
                    pending.append(_Reach(child.prefix, its, is_bound=reach.is_bound, reason=reach.reason))


def prefix_of(digest: Checksum) -> str:
    """Return what markers say of a digest where something is built on it."""
    return digest.hexdigest[:LINEAGE_DIGITS]


def _rooted(key: ImageKey, prefix: str, reason: str, *, everywhere: bool) -> _Reach:
    return _Reach(prefix, None if everywhere else key.list_identifier, is_bound=not everywhere, reason=reason)


def _through(reason: str) -> str:
    start = "what it is built on is revoked: "
    return reason if reason.startswith(start) else f"{start}{reason}"


def listed_contents(desired: Desired) -> Iterator[Known]:
    """Return what lists name."""
    for each in desired.lists:
        for image in each.images:
            yield Known(image.key, image.listed.version, image.listed.checksum, lineage_of(image.built_on))


def registered_contents(registered: Iterable[RegisteredImage]) -> Iterator[Known]:
    """Return what is registered."""
    for image in registered:
        marker = image.marker
        # What bears a revocation was there before it: nothing that is revoked is registered.
        since = _EVER if marker.state is ImageState.REVOKED else marker.state_since
        yield Known(marker.key, marker.version, marker.digest, marker.built_on, since)
