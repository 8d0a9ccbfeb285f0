# SPDX-License-Identifier: Apache-2.0
"""Small listed, desired and converted images for tests of plans and clouds."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from coppice.atomic import write_bytes
from coppice.cloud.model import DesiredImage, DesiredList, ImageState, OwnershipMarker, RegisteredImage
from coppice.cloud.properties import presentation_digest, presentation_of
from coppice.conversion.model import ConvertedImage
from coppice.imagelist.model import ListedImage
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
SITE = "test-site"


def list_identifier(name: str) -> ListIdentifier:
    """Return the same identifier for the same name."""
    return ListIdentifier(str(uuid.uuid5(uuid.NAMESPACE_URL, f"list/{name}")))


def image_identifier(name: str) -> ImageIdentifier:
    """Return the same identifier for the same name."""
    return ImageIdentifier(str(uuid.uuid5(uuid.NAMESPACE_URL, f"image/{name}")))


def content_of(image: str, version: str) -> bytes:
    """Return the bytes that an image has in a version."""
    return f"disk of {image} {version}\n".encode() * 50


def desired_image(
    image: str = "debian",
    version: str = "1",
    *,
    of_list: str = "a",
    list_version: str = "1",
    title: str | None = None,
    expires: datetime = LATER,
    content: bytes | None = None,
) -> DesiredImage:
    """Return an image as it is wanted."""
    data = content if content is not None else content_of(image, version)
    listed = ListedImage(
        identifier=image_identifier(image),
        version=version,
        title=title if title is not None else f"{image} image",
        description="An image for tests",
        uri=f"https://example.org/{image}-{version}.qcow2",
        size_bytes=len(data),
        checksum=Checksum.of(data),
        declared_format="qcow2",
        operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        hypervisor="QEMU,KVM",
        comments="",
        expires=None,
        requirements=Requirements(minimum_cores=1, minimum_ram_mib=512),
        groups=("general",),
        mpuri=None,
        base_mpuri=None,
    )
    return DesiredImage(
        key=ImageKey(list_identifier(of_list), listed.identifier),
        listed=listed,
        list_version=list_version,
        expires=expires,
    )


def desired_list(
    *images: DesiredImage,
    name: str = "a",
    version: str = "1",
    expires: datetime = LATER,
    unknown: tuple[str, ...] = (),
) -> DesiredList:
    """Return a list that wants ``images``."""
    return DesiredList(
        identifier=list_identifier(name),
        version=version,
        expires=expires,
        images=images,
        unknown=frozenset(image_identifier(each) for each in unknown),
    )


def marker_of(
    desired: DesiredImage,
    *,
    site: str = SITE,
    state: ImageState = ImageState.AVAILABLE,
    since: datetime = NOW,
    pin: str | None = None,
) -> OwnershipMarker:
    """Return the marker that a registration of ``desired`` gives, in a state."""
    return OwnershipMarker(
        site=site,
        key=desired.key,
        version=desired.listed.version,
        list_version=desired.list_version,
        digest=desired.listed.checksum,
        state=state,
        state_since=since,
        expires=desired.expires,
        metadata_digest=presentation_digest(presentation_of(desired)),
        pin=pin,
    )


def registered_image(
    desired: DesiredImage,
    *,
    state: ImageState = ImageState.AVAILABLE,
    since: datetime = NOW,
    ready: bool = True,
    cloud_identifier: str | None = None,
    pin: str | None = None,
) -> RegisteredImage:
    """Return ``desired`` as a cloud would describe it."""
    identifier = cloud_identifier or f"{desired.key}:{desired.listed.version}"
    return RegisteredImage(
        cloud="test",
        cloud_identifier=identifier,
        name=identifier,
        marker=marker_of(desired, state=state, since=since, pin=pin),
        ready=ready,
    )


def converted_image(desired: DesiredImage, directory: Path, content: bytes | None = None) -> ConvertedImage:
    """Write the image's bytes into ``directory`` and return them as converted."""
    data = content if content is not None else content_of("debian", desired.listed.version)
    checksum = Checksum.of(data)
    path = directory / f"{checksum.hexdigest[:16]}.qcow2"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        # In one step: several clouds may ask for it at once.
        write_bytes(path, data)
    return ConvertedImage(
        key=desired.key,
        version=desired.listed.version,
        path=path,
        image=Image(format=DiskFormat.QCOW2, size_bytes=len(data), virtual_size_bytes=4096, checksum=checksum),
        source_checksum=desired.listed.checksum,
        converter="none",
        reused=False,
    )
