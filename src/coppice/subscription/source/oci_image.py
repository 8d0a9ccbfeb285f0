# SPDX-License-Identifier: Apache-2.0
"""One manifest → `ListedImage`: the annotations in the words of the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import DocumentError
from coppice.formats.oci_image import (
    EGI,
    GLANCE,
    OCI,
    annotations_of,
    architecture_of,
    declared_format,
    is_staying_version,
)
from coppice.formats.strict_json import read_json, refuse
from coppice.imagelist.model import ListedImage
from coppice.model.checksum import Checksum
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.version import MAX_VERSION_LENGTH, Version
from coppice.subscription.source.gathered import image_identifier_of

if TYPE_CHECKING:
    from coppice.formats.limits import ListLimits
    from coppice.formats.oci import OciDescriptor, OciManifest
    from coppice.model.identifiers import ListIdentifier
    from coppice.subscription.source.oci_options import OciAddress
    from coppice.subscription.source.oci_table import TagRow

BUILT = "oci:built"
"""Key of `ListedImage.extra`: when it was built."""
_WHAT = "OCI manifest"
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_CREATED = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})")
_KINDS = {"linux": "Linux", "windows": "Windows", "freebsd": "FreeBSD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What an image is made of.

    Attributes:
        row: The tag that names it.
        manifest: Its manifest.
        layer: The disk.
        digest: Of its manifest.
        annotations: Of the index above it; the manifest's own count more.
        architecture: By the index above it, or its configuration; None: neither says.
    """

    row: TagRow
    manifest: OciManifest
    layer: OciDescriptor
    digest: str
    annotations: dict[str, str]
    architecture: str | None


def image_name(row: TagRow, architecture: str) -> str:
    """Return what names an image over all its versions: repository, series of tags, architecture."""
    return f"{row.repository}:{row.tag}/{architecture}"


def config_architecture(payload: bytes) -> str | None:
    """Return the architecture that a container's configuration names; None: it names none.

    Raises:
        DocumentError: It is no configuration.
    """
    said = read_json(payload, what="OCI configuration").get("architecture")
    return said if isinstance(said, str) and _WORD.fullmatch(said) else None


def listed_image(
    build: Build,
    address: OciAddress,
    list_identifier: ListIdentifier,
    limits: ListLimits,
    *,
    default_architecture: str | None,
) -> ListedImage:
    """Return the image.

    Raises:
        DocumentError: It does not say for which architecture it is, or says something that cannot be.
    """
    row, layer = build.row, build.layer
    said = {**build.annotations, **annotations_of(build.manifest, layer)}
    architecture = _architecture(build, said, default_architecture)
    kind = _short(said, f"{GLANCE}os_type", "Linux")
    if layer.size_bytes < 1:
        refuse("$.layers", "the disk is empty", what=_WHAT)
    shown = f"{row.repository}:{row.tag}"
    title = said.get(f"{EGI}image.title") or said.get(f"{EGI}image_ref") or shown
    algorithm, _, digits = layer.digest.partition(":")
    return ListedImage(
        identifier=image_identifier_of(list_identifier, image_name(row, architecture)),
        version=_version(build, said),
        title=_cut(title, limits.title_bytes),
        description=said.get(f"{EGI}description") or said.get(f"{OCI}description") or "",
        uri=f"{address.uri(row.repository)}@{layer.digest}",
        size_bytes=layer.size_bytes,
        checksum=Checksum(algorithm, digits),
        declared_format=_declared(layer, said),
        operating_system=OperatingSystem(
            kind=_KINDS.get(kind.lower(), kind),
            distribution=_short(said, f"{GLANCE}os_distro", kind),
            version=_short(said, f"{GLANCE}os_version", ""),
            architecture=architecture,
        ),
        hypervisor="",
        comments="",
        expires=None,
        requirements=Requirements(),
        groups=(),
        mpuri=said.get(f"{EGI}image_ref"),
        base_mpuri=None,
        extra=_extra(build, said),
    )


def _architecture(build: Build, said: dict[str, str], default: str | None) -> str:
    written = said.get(f"{GLANCE}architecture")
    by_index = None if build.architecture is None else architecture_of(build.architecture)
    found = (None if written is None else architecture_of(written)) or by_index or default
    if found is None:
        refuse(
            "$.annotations",
            f"it does not say for which architecture it is ({GLANCE}architecture); the option `architecture` says it "
            "for all that do not",
            what=_WHAT,
        )
    if not _WORD.fullmatch(found):
        refuse("$.annotations", f"{found[:60]!a} is no architecture", what=_WHAT)
    if written is not None and by_index is not None and by_index != found:
        refuse("$.annotations", f"it is for {found}, and its index says {by_index}", what=_WHAT)
    return found


def _version(build: Build, said: dict[str, str]) -> str:
    """Return the version: which build it is, or when it was made, or its digest. Other content, another version."""
    tag = said.get(f"{EGI}tag", "")
    if is_staying_version(tag):
        return tag
    if build.row.stays is not None:
        return build.row.stays
    digits = build.digest.partition(":")[2][:16]
    created = _CREATED.match(said.get(f"{OCI}created", ""))
    parts = ["".join(created.groups())] if created is not None else []
    word = said.get(f"{OCI}version", "")
    # A word for a version may be the same for every build; what differs comes last.
    if not parts and Version.is_version(word) and len(word) < MAX_VERSION_LENGTH - len(digits) - 1 and word.isascii():
        parts = ["".join(each if each.isalnum() or each in "._+~" else "." for each in word)]
    return "-".join([*parts, f"x{digits}"])


def built_on(said: dict[str, str]) -> str | None:
    """Return when an image was built, by what stands in its manifest: a date, or an instant that begins with one."""
    tag = said.get(f"{EGI}tag", "")
    if is_staying_version(tag):
        return tag[:10]
    created = _CREATED.match(said.get(f"{OCI}created", ""))
    return None if created is None else "{}-{}-{}T{}:{}:{}".format(*created.groups())


def _declared(layer: OciDescriptor, said: dict[str, str]) -> str | None:
    found = declared_format(layer, said)
    return found.lower() if found is not None and _WORD.fullmatch(found) else None


def _extra(build: Build, said: dict[str, str]) -> dict[str, object]:
    found: dict[str, object] = dict(sorted(said.items()))
    found["oci:repository"] = build.row.repository
    found["oci:tag"] = build.row.tag
    found["oci:manifest"] = build.digest
    built = built_on(said)
    if built is not None:
        found[BUILT] = built
    if build.row.attached:
        found["oci:attached"] = [
            {"artifact_type": each.artifact_type, "digest": each.digest} for each in build.row.attached
        ]
    return found


def _short(said: dict[str, str], key: str, default: str) -> str:
    text = said.get(key, "").strip()
    if not text:
        return default
    if len(text) > 255 or not text.isprintable():  # noqa: PLR2004 - as long as clouds' properties are
        raise DocumentError(f"the {_WHAT} is malformed at $.annotations.{key}: it is no short text")
    return text


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode("utf-8")[:limit_bytes].decode("utf-8", "ignore")
