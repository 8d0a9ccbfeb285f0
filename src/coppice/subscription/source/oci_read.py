# SPDX-License-Identifier: Apache-2.0
"""What was gathered at a registry → `ImageList`, each image vouched for or not.

An image whose manifest could not be had, cannot be read, or that nobody signed where somebody must, is an unreadable
entry: it stays at the site as it is. One that is signed, and not by a pinned key, refuses the list. Where a signed
image list names what is trusted, what it does not name is not there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.errors import (
    DocumentError,
    MalformedListError,
    SignatureFormError,
    TamperedListError,
    UnsignedListError,
    UntrustedSignerError,
)
from coppice.formats.oci import MANIFEST_MEDIA_TYPE, matches_digest, read_manifest
from coppice.formats.oci_image import KEPT_PREFIXES, architecture_of, disk_layer
from coppice.formats.oci_index import is_index, read_index
from coppice.formats.strict_json import refuse
from coppice.imagelist.model import ImageList, ListedImage, UnreadableEntry
from coppice.model.operating_system import Architecture
from coppice.model.validity import Validity
from coppice.subscription.source.gathered import expires_after, image_identifier_of, list_identifier_of
from coppice.subscription.source.oci_gather import blob_name, manifest_name
from coppice.subscription.source.oci_image import Build, config_architecture, image_name, listed_image
from coppice.subscription.source.oci_options import DRIVER, OciAddress, OciOptions, read_address
from coppice.subscription.source.oci_table import NAME, TagRow, read_table
from coppice.subscription.source.oci_vouch import vouch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coppice.formats.cosign import PublicKey
    from coppice.formats.limits import ListLimits
    from coppice.formats.oci import OciManifest
    from coppice.subscription.model import Subscription
    from coppice.subscription.source.gathered import Gathered
    from coppice.subscription.source.oci_named import NamedDigests

_UNSIGNED = "nobody signed it, and the subscription names the keys that must"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a message says.

    Attributes:
        content: The list; its version is empty.
        payload: The bytes that stand for everything in it.
        keys: Those that vouch for its images, in the order in which they are pinned.
        named: Digests by which a signed list names its images; empty: none was asked.
    """

    content: ImageList
    payload: bytes
    keys: tuple[PublicKey, ...]
    named: frozenset[str] = frozenset()


def read_message(
    gathered: Gathered,
    subscription: Subscription,
    options: OciOptions,
    keys: Sequence[PublicKey],
    limits: ListLimits,
    *,
    named: NamedDigests | None = None,
) -> Reading:
    """Return what a message says.

    Args:
        gathered: The message.
        subscription: Whose.
        options: Its options.
        keys: One of them must have signed each image; empty: nobody needs to.
        limits: Bounds on the list.
        named: Names what is trusted; None: no list does.

    Raises:
        MalformedListError: The message is none, or lacks what it names.
        UntrustedSignerError, TamperedListError, SignatureFormError: A signature is not what it must be.
        UnsignedListError: Keys are pinned, and nothing at all is signed.
    """
    reader = _Reader(gathered, subscription, options, limits, named)
    table = gathered.document(NAME).data
    try:
        rows = read_table(table, limits)
    except DocumentError as problem:
        raise MalformedListError(problem.message, context=problem.context) from problem
    used: dict[str, PublicKey] = {}
    for row in rows:
        signer = None if not keys or row.digest is None else reader.vouched(row, keys)
        if keys and row.problem is None and signer is None:
            reader.note_unreadable(row, _UNSIGNED)
            continue
        if signer is not None:
            used[str(signer.fingerprint)] = signer
        reader.add(row)
    if keys and not used:
        raise UnsignedListError(
            f"nobody signed any of the {len(rows)} tags at {subscription.uri}",
            resolution="Have the publisher sign them with cosign. Where nobody signs, the option `trust` = transport "
            "instead of `cosign_key` believes whoever holds the registry's name.",
        )
    reader.note_unnamed()
    content = reader.content()
    if not content.images and (named is not None or not content.unreadable):
        # A project that lost everything, or a name that was mistyped, is no list of nothing.
        by_list = "" if named is None else f" that the list of {named.subscription!r} names"
        raise MalformedListError(
            f"nothing that is asked for at {subscription.uri} is a disk image{by_list}",
            details=f"tags: {len(rows)}",
            resolution="Check the address and the options `repositories` and `tags`.",
        )
    return Reading(
        content=content,
        payload=table if named is None else b"\n".join([table, *map(str.encode, sorted(reader.found))]),
        keys=tuple(each for each in keys if str(each.fingerprint) in used),
        named=frozenset(reader.found),
    )


def vouched_images(
    gathered: Gathered,
    subscription: Subscription,
    options: OciOptions,
    keys: Sequence[PublicKey],
    limits: ListLimits,
) -> tuple[ListedImage, ...]:
    """Return the images of a message that was judged before, as far as the keys of today vouch for them.

    Whatever else is in it, anybody may have put there.

    Raises:
        MalformedListError: The message is none, or lacks what it names.
    """
    reader = _Reader(gathered, subscription, options, limits, None)
    try:
        rows = read_table(gathered.document(NAME).data, limits)
    except DocumentError as problem:
        raise MalformedListError(problem.message, context=problem.context) from problem
    for row in rows:
        try:
            is_vouched = row.digest is not None and reader.vouched(row, keys) is not None
        except (SignatureFormError, TamperedListError, UntrustedSignerError):
            continue
        if is_vouched:
            reader.add(row)
    return reader.content().images


class _Reader:
    """Reads the rows of one table."""

    def __init__(
        self,
        gathered: Gathered,
        subscription: Subscription,
        options: OciOptions,
        limits: ListLimits,
        named: NamedDigests | None,
    ) -> None:
        self._gathered = gathered
        self._subscription = subscription
        self._options = options
        self._limits = limits
        self._named = named
        self._unnamed: list[tuple[TagRow, ListedImage]] = []
        self.found: set[str] = set()
        self._address: OciAddress = read_address(subscription.uri)
        self._identifier = list_identifier_of(DRIVER, subscription.uri, *options.choice)
        self._documents = {each.name: each.data for each in gathered.documents}
        self._images: dict[str, ListedImage] = {}
        self._unreadable: dict[str, UnreadableEntry] = {}

    def vouched(self, row: TagRow, keys: Sequence[PublicKey]) -> PublicKey | None:
        """Return the key that vouches for a row; see `vouch`."""
        needed = f"{self._address.registry}/{row.repository}" if self._options.check_reference else None
        return vouch(row, keys, lambda digest: self._data(blob_name(digest), digest), repository=needed)

    def add(self, row: TagRow) -> None:
        """Add the images that a tag names, or note that nothing is known of them."""
        if row.digest is None or row.problem is not None:
            self.note_unreadable(row, row.problem or "it could not be had")
            return
        try:
            found = list(self._read(row, row.digest))
            _refuse_doubled(found)
        except DocumentError as problem:
            self.note_unreadable(row, problem.message)
            return
        for image in found:
            self._images[image.identifier] = image

    def note_unreadable(self, row: TagRow, problem: str) -> None:
        """Note that nothing is known of what a tag names, for whatever architecture it was."""
        words = {*map(str, Architecture), *self._options.architectures}
        if self._options.architecture is not None:
            words.add(self._options.architecture)
        for word in sorted(word for word in words if self._options.takes_architecture(word)):
            identifier = image_identifier_of(self._identifier, image_name(row, word))
            self._unreadable[identifier] = UnreadableEntry(
                identifier=identifier, problem=f"{row.repository}:{row.tag} for {word}: {problem}"[:1000]
            )

    def note_unnamed(self) -> None:
        """Note as unknown what the naming list could mean, although it does not name it; all else is not there."""
        if self._named is None:
            return
        for row, image in self._unnamed:
            if image.identifier not in self._images and self._named.may_mean_more(row.repository, self.found):
                problem = f"{row.repository}:{row.tag}: the list of {self._named.subscription!r} names others"
                self._unreadable[image.identifier] = UnreadableEntry(identifier=image.identifier, problem=problem)

    def content(self) -> ImageList:
        """Return the list that was read."""
        created = self._gathered.gathered_at
        expires = expires_after(created, self._options.valid_days)
        if self._named is not None and self._named.expires is not None:
            expires = min(expires, self._named.expires)
        return ImageList(
            identifier=self._identifier,
            version="",
            title=f"Images at {self._subscription.uri}",
            description="",
            source=self._subscription.uri,
            uri=self._subscription.uri,
            validity=Validity(created=created, expires=expires),
            endorsers=(),
            vo=None,
            images=tuple(self._images.values()),
            unreadable=tuple(self._unreadable.values()),
        )

    def _read(self, row: TagRow, digest: str) -> Iterator[ListedImage]:
        payload = self._data(manifest_name(digest), digest)
        if not is_index(payload):
            yield from self._image(row, digest, read_manifest(payload), {}, None)
            return
        index = read_index(payload)
        said = {key: text for key, text in index.annotations.items() if key.startswith(KEPT_PREFIXES)}
        for entry in index.entries:
            # What refers to nothing that runs (an attestation) is marked so by who builds containers.
            if entry.descriptor.media_type != MANIFEST_MEDIA_TYPE or entry.system == "unknown":
                continue
            own = {key: text for key, text in entry.descriptor.annotations.items() if key.startswith(KEPT_PREFIXES)}
            part = entry.descriptor.digest
            manifest = read_manifest(self._data(manifest_name(part), part))
            yield from self._image(row, part, manifest, {**said, **own}, entry.architecture)

    def _image(
        self, row: TagRow, digest: str, manifest: OciManifest, said: dict[str, str], architecture: str | None
    ) -> Iterator[ListedImage]:
        layer = disk_layer(manifest)
        if layer is None:
            # It was read, and is something else than a disk: a container, a chart. There is no image of that name.
            return
        if architecture is None and blob_name(manifest.config.digest) in self._documents:
            config = manifest.config.digest
            architecture = config_architecture(self._data(blob_name(config), config))
        build = Build(
            row=row, manifest=manifest, layer=layer, digest=digest, annotations=said, architecture=architecture
        )
        image = listed_image(
            build,
            self._address,
            self._identifier,
            self._limits,
            default_architecture=self._options.architecture,
        )
        if not self._options.takes_architecture(architecture_of(image.operating_system.architecture)):
            return
        if self._named is None:
            yield image
            return
        found = self._named.find((digest, row.digest or digest), layer.digest, layer.size_bytes)
        if found is None:
            self._unnamed.append((row, image))
            return
        self.found.add(found)
        yield replace(image, expires=self._named.ends[found])

    def _data(self, name: str, digest: str) -> bytes:
        data = self._documents.get(name)
        if data is None:
            raise MalformedListError(f"the message of {self._subscription.uri} lacks {name}")
        if not matches_digest(data, digest):
            raise MalformedListError(f"the message of {self._subscription.uri} has other bytes as {name}")
        return data


def _refuse_doubled(images: Sequence[ListedImage]) -> None:
    if len({image.identifier for image in images}) != len(images):
        refuse("$.manifests", "it has two images of one architecture", what="OCI index")
