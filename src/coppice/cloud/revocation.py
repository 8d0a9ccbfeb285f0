# SPDX-License-Identifier: Apache-2.0
"""What is revoked, by itself or by what it is built on. Pure.

What is revoked stays so until `coppice image unrevoke` says otherwise: the marker in the cloud says it as well, so that
a lost database brings nothing back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.model import ImageState
from coppice.cloud.properties import LINEAGE_DIGITS, lineage_of
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from coppice.cloud.model import Desired, DesiredImage, RegisteredImage, Revocation
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey, ListIdentifier


@dataclass(frozen=True, slots=True)
class _Known:
    """A version of an image, listed or registered, and what it is built on."""

    key: ImageKey
    version: str
    digest: Checksum
    built_on: tuple[str, ...]


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
        self._keys: dict[ImageKey, str] = {}
        self._versions: dict[ImageKey, list[tuple[Version, str]]] = {}
        self._lineage: dict[str, str] = {}
        self._lineage_of_list: dict[tuple[ListIdentifier, str], str] = {}
        self._said: dict[tuple[ImageKey, str], tuple[str, ...]] = {}
        self.is_any = bool(revocations)
        for each in sorted(revocations, key=lambda one: one.at):
            self._note(each)
        if revocations:
            listed = tuple(_listed(desired))
            self._said = {(each.key, each.digest.hexdigest): each.built_on for each in listed}
            self._cascade((*listed, *_registered(registered)))

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
        if direct is None:
            direct = self._keys.get(key)
        if direct is None and key in self._versions:
            order = Version(version)
            direct = next((reason for revoked, reason in self._versions[key] if revoked == order), None)
        return direct

    def _note(self, revocation: Revocation) -> None:
        base = revocation.digest or revocation.content
        if base is not None:
            self._lineage.setdefault(base.hexdigest[:LINEAGE_DIGITS], _through(revocation.reason))
        if revocation.digest is not None:
            self._digests.setdefault(revocation.digest.hexdigest, revocation.reason)
        elif revocation.key is not None and revocation.version is not None:
            entry = (Version(revocation.version), revocation.reason)
            self._versions.setdefault(revocation.key, []).append(entry)
        elif revocation.key is not None:
            self._keys.setdefault(revocation.key, revocation.reason)

    def _cascade(self, known: Sequence[_Known]) -> None:
        """Find what is built on what is revoked, over any number of steps; each image is looked at once a step.

        What an image is built on is the word of its list. Where several lists name one content, and do not agree on
        what it is built on, the word of each counts for its own images alone: no list can have what is built on the
        content of another revoked.
        """
        children: dict[str, list[_Known]] = {}
        lists: dict[str, set[ListIdentifier]] = {}
        words: dict[str, set[tuple[str, ...]]] = {}
        for each in known:
            prefix = each.digest.hexdigest[:LINEAGE_DIGITS]
            lists.setdefault(prefix, set()).add(each.key.list_identifier)
            words.setdefault(prefix, set()).add(each.built_on)
            for parent in each.built_on:
                children.setdefault(parent, []).append(each)
        pending = [each for each in known if self.why(each.key, each.version, each.digest, each.built_on) is not None]
        seen: set[tuple[ListIdentifier | None, str]] = set()
        while pending:
            each = pending.pop()
            prefix = each.digest.hexdigest[:LINEAGE_DIGITS]
            direct = self._directly(each.key, each.version, each.digest)
            is_agreed = len(lists[prefix]) == 1 or len(words[prefix]) == 1
            of_list = None if direct is not None or is_agreed else each.key.list_identifier
            if (of_list, prefix) in seen:
                continue
            seen.add((of_list, prefix))
            reason = _through(self.why(each.key, each.version, each.digest, each.built_on) or "")
            if of_list is None:
                self._lineage.setdefault(prefix, reason)
            else:
                self._lineage_of_list.setdefault((of_list, prefix), reason)
            pending.extend(
                child for child in children.get(prefix, ()) if of_list is None or child.key.list_identifier == of_list
            )


def _through(reason: str) -> str:
    start = "what it is built on is revoked: "
    return reason if reason.startswith(start) else f"{start}{reason}"


def _listed(desired: Desired) -> Iterator[_Known]:
    for each in desired.lists:
        for image in each.images:
            yield _Known(image.key, image.listed.version, image.listed.checksum, lineage_of(image.built_on))


def _registered(registered: Iterable[RegisteredImage]) -> Iterator[_Known]:
    for image in registered:
        marker = image.marker
        yield _Known(marker.key, marker.version, marker.digest, marker.built_on)
