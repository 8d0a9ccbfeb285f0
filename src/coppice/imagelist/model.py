# SPDX-License-Identifier: Apache-2.0
"""`ImageList` and `SignedImageList`; and the `Publisher` plug-in kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from coppice.model.checksum import Checksum
    from coppice.model.endorser import DistinguishedName, Endorser
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier
    from coppice.model.operating_system import OperatingSystem
    from coppice.model.requirements import Requirements
    from coppice.model.validity import Validity
    from coppice.monitor import Monitor


class Profile(StrEnum):
    """How much of the HEPiX format a list must keep to."""

    STRICT = "strict"
    """Every required key is there, and identifiers are UUIDs."""
    LENIENT = "lenient"
    """As some publishers write: the endorser, the title, version and address of the list may be missing, and
    identifiers may be any text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketplaceUser:
    """Who brought an image into a marketplace: ``ad:user:fullname``, ``ad:user:guid``, ``ad:user:uri``."""

    full_name: str | None = None
    guid: str | None = None
    uri: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file beside an image, named and vouched for by the list.

    Attributes:
        uri: Where it is.
        size_bytes: Its length.
        checksum: Of its bytes.
    """

    uri: str
    size_bytes: int
    checksum: Checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaPatch:
    """What makes the guest's bytes of one version out of those of an earlier one.

    Attributes:
        origin: Of the guest's bytes that it starts from.
        file: The patch.
    """

    origin: Checksum
    file: RemoteFile


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDelta:
    """How an image can be had without its whole file: ``coppice:delta`` (docs/formats/delta.md).

    Attributes:
        guest_size_bytes: Length of the disk as the guest sees it.
        guest_checksum: Of those bytes: what is put together is held against it.
        index: Which blocks they are made of, and in which pack each is.
        packs: Files of compressed blocks, in the order in which the index counts them; several images share them.
        patches: From earlier versions.
    """

    guest_size_bytes: int
    guest_checksum: Checksum
    index: RemoteFile
    packs: tuple[RemoteFile, ...]
    patches: tuple[DeltaPatch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """One image of an image list.

    Attributes:
        identifier: The same over all versions; unique in its list.
        version: ``hv:version``.
        title: ``dc:title``.
        description: ``dc:description``.
        uri: ``hv:uri``: where the file is.
        size_bytes: ``hv:size``: of the file. Sources that sign no size have it from the server, as a bound only.
        checksum: Of the file: ``sl:checksum:sha512``; other sources may have another algorithm.
        declared_format: ``hv:format`` as written; None where the list does not say. Never trusted.
        operating_system: ``sl:os``, ``sl:osname``, ``sl:osversion``, ``sl:arch``.
        hypervisor: ``hv:hypervisor``.
        comments: ``sl:comments``.
        expires: ``dc:date:expires`` of the image; None: with the list.
        requirements: ``hv:ram_minimum`` …
        groups: ``ad:group``.
        mpuri: ``ad:mpuri``: marketplace URI of this version.
        base_mpuri: ``ad:base_mpuri``: of the appliance.
        appliance_id: ``ad:appid``: the appliance's number in the marketplace.
        user: ``ad:user:*``.
        traffic_in: ``ad:traffic_in`` as it was written.
        traffic_out: ``ad:traffic_out`` as it was written.
        mirrors: ``coppice:mirrors``: further places of the same file, in the publisher's order.
        delta: ``coppice:delta``: how it can be had without its whole file; None: only whole.
        extra: Keys that Coppice does not know, as they were written.
        wrapper_extra: Such keys beside ``hv:image``.
    """

    identifier: ImageIdentifier
    version: str
    title: str
    description: str
    uri: str
    size_bytes: int
    checksum: Checksum
    declared_format: str | None
    operating_system: OperatingSystem
    hypervisor: str
    comments: str
    expires: datetime | None
    requirements: Requirements
    groups: tuple[str, ...]
    mpuri: str | None
    base_mpuri: str | None
    appliance_id: str | None = None
    user: MarketplaceUser | None = None
    traffic_in: object | None = None
    traffic_out: object | None = None
    mirrors: tuple[str, ...] = ()
    delta: ImageDelta | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    wrapper_extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableEntry:
    """An entry that names its identifier and cannot be read otherwise: nothing is known of that image.

    Attributes:
        identifier: Its ``dc:identifier``.
        problem: What is wrong with it.
    """

    identifier: ImageIdentifier
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageList:
    """An image list: the content, whether signed or not.

    Attributes:
        identifier: ``dc:identifier``, the same over all versions.
        version: ``hv:version``; never decreases. Where the list has none with an order, its date of creation stands for
            it, as digits.
        title: ``dc:title``.
        description: ``dc:description``.
        source: ``dc:source``.
        uri: ``hv:uri``: where new versions are fetched.
        validity: ``dc:date:created`` and ``dc:date:expires``.
        endorsers: ``hv:endorser``: who vouch for it; one, in nearly every list. Empty only in the lenient profile.
        vo: ``ad:vo``.
        swid: ``ad:swid``.
        number_of_images: ``ad:num_of_images`` as it was written; never trusted.
        images: What is listed, in the list's order; identifiers are unique.
        unreadable: Entries of which nothing but the identifier is known.
        extra: Keys that Coppice does not know, as they were written.
        outer_extra: Such keys beside ``hv:imagelist``.
    """

    identifier: ListIdentifier
    version: str
    title: str
    description: str
    source: str
    uri: str
    validity: Validity
    endorsers: tuple[Endorser, ...]
    vo: str | None
    images: tuple[ListedImage, ...]
    swid: str | None = None
    number_of_images: int | None = None
    unreadable: tuple[UnreadableEntry, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)
    outer_extra: Mapping[str, object] = field(default_factory=dict)

    def names_endorser(self, subject: DistinguishedName, issuer: DistinguishedName) -> bool:
        """Tell whether one of the list's endorsers has this name, below that authority."""
        return any((each.subject, each.issuer) == (subject, issuer) for each in self.endorsers)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedImageList:
    """An image list with its signature: the bytes are what counts, and are never written anew.

    Attributes:
        content: What the bytes say.
        message: The S/MIME message, ready to be published.
        payload_checksum: Of the signed JSON bytes.
        signer: Subject of the signing certificate.
    """

    content: ImageList
    message: bytes
    payload_checksum: Checksum
    signer: DistinguishedName


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What publishing did.

    Attributes:
        list_uri: Where the list is now.
        images_written: Names of the image files that were copied; others were there already.
        bytes_written: How many bytes were copied.
        images_retired: Names of image files that were removed: no published list named them for long enough.
    """

    list_uri: str
    images_written: tuple[str, ...]
    bytes_written: int
    images_retired: tuple[str, ...] = ()


class Publisher(Protocol):
    """A plug-in that puts a list and its images where subscribers fetch them (group ``coppice.publishers``).

    Images come first, and are verified where they are; then the list is replaced in one step. A reader never sees a
    list whose images are not there, nor a moment without a list. What was cut off is taken up by the next call.
    """

    def prepare(self, files: Mapping[str, Path], monitor: Monitor) -> None:
        """Learn which files (name → local path) are to be published, before `image_uri` is asked for theirs.

        Where addresses are made of content, as in an OCI registry, the files are read here.

        Raises:
            StorageError: A file cannot be read.
        """
        ...

    def image_uri(self, file_name: str) -> str:
        """Return the URI under which an image file of that name will be fetched."""
        ...

    def list_uri(self, list_name: str) -> str:
        """Return the URI under which the list of that name will be fetched."""
        ...

    def published(self, list_name: str) -> bytes | None:
        """Return the list as readers get it now; None when there is none.

        Raises:
            StorageError: The place cannot be read.
            TransferError: The place cannot be reached.
            PublicationError: The place refused.
        """
        ...

    def publish(
        self, list_name: str, signed: SignedImageList, files: Mapping[str, Path], monitor: Monitor
    ) -> Publication:
        """Put ``files`` (name → local path) and then the list in place.

        Raises:
            InputError: A file is not the one that the list tells of.
            ExistsError: A file of that name is there with other content.
            StorageError: The place cannot be written.
            TransferError: The place cannot be reached.
            PublicationError: The place refused.
        """
        ...

    def retire(self, *, unnamed_since: datetime, monitor: Monitor) -> tuple[str, ...]:
        """Remove image files that no published list has named since ``unnamed_since``; return their names.

        While any published list cannot be read, nothing is removed.

        Raises:
            StorageError: The place cannot be written.
            TransferError: The place cannot be reached.
            PublicationError: The place refused.
        """
        ...
