# SPDX-License-Identifier: Apache-2.0
"""OCI image manifests and references, as far as artifacts need them.

Sources: OCI Image Format Specification 1.1 (``manifest.md``, ``descriptor.md``, ``annotations.md``); OCI Distribution
Specification 1.1 ("Pulling manifests", for names and tags). An image list is an artifact of one layer, the signed
message; its config is the empty object.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.errors import InputError
from coppice.formats.strict_json import read_json, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
EMPTY_MEDIA_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY_BYTES = b"{}"
IMAGE_LIST_ARTIFACT_TYPE = "application/vnd.coppice.imagelist.v1"
IMAGE_LIST_MEDIA_TYPE = "application/vnd.coppice.imagelist.v1+smime"
MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
"""What registries take, and the specification asks of them ("Pushing manifests")."""

MANIFEST_DEPTH = 8
_WHAT = "OCI manifest"
_LAYERS = 1000
_ANNOTATIONS = 1000
_LARGEST = 2**63 - 1
_URL_LIMIT = 2048
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*")
_REPOSITORY_LIMIT = 255
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_SCHEMES = {"oci": "https", "oci+http": "http"}


def digest_of(data: bytes) -> str:
    """Return the digest by which registries know ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OciDescriptor:
    """Points to content by what it is.

    Attributes:
        media_type: Of the content.
        digest: ``sha256:`` or ``sha512:`` and hexadecimal digits.
        size_bytes: Of the content.
        annotations: What else is said of it.
    """

    media_type: str
    digest: str
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: bytes, media_type: str, annotations: Mapping[str, str] | None = None) -> OciDescriptor:
        """Return what points to ``data``."""
        return cls(
            media_type=media_type, digest=digest_of(data), size_bytes=len(data), annotations=dict(annotations or {})
        )


EMPTY_CONFIG = OciDescriptor.of(EMPTY_BYTES, EMPTY_MEDIA_TYPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class OciManifest:
    """An OCI image manifest.

    Attributes:
        layers: What it consists of; at least one.
        config: For artifacts, the empty object.
        artifact_type: What it is, if it is no container.
        annotations: What else is said of it.
        subject: The manifest that this one tells of; None: none.
    """

    layers: tuple[OciDescriptor, ...]
    config: OciDescriptor = EMPTY_CONFIG
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: OciDescriptor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OciReference:
    """Where an artifact lies: ``oci://registry/repository:tag`` or ``oci://registry/repository@digest``.

    Attributes:
        scheme: How the registry is asked: ``https``, or ``http`` where the reference begins with ``oci+http``.
        registry: Host and port.
        repository: Name below it.
        tag: Of the artifact; None when only the digest counts.
        digest: Of its manifest; where there is one, nothing else is taken.
    """

    scheme: str
    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        name = f"oci{'' if self.scheme == 'https' else '+http'}://{self.registry}/{self.repository}"
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def matches_digest(data: bytes, digest: str) -> bool:
    """Whether ``digest`` (one that was read) is that of ``data``."""
    algorithm, _, expected = digest.partition(":")
    return hashlib.new(algorithm, data).hexdigest() == expected


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest that can be verified."""
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether ``text`` can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Whether ``text`` can name a repository below a registry."""
    return len(text) <= _REPOSITORY_LIMIT and _REPOSITORY.fullmatch(text) is not None


def parse_reference(text: str) -> OciReference:
    """Take a reference apart.

    Raises:
        InputError: It is none, or names neither a tag nor a digest.
    """
    scheme, _, rest = text.partition("://")
    registry, _, name = rest.partition("/")
    if len(text) > _URL_LIMIT or scheme not in _SCHEMES or not _REGISTRY.fullmatch(registry):
        raise _no_reference(text)
    name, _, digest = name.partition("@")
    repository, _, tag = name.partition(":")
    if not is_repository(repository):
        raise _no_reference(text)
    if not (tag or digest) or (tag and not _TAG.fullmatch(tag)) or (digest and not is_digest(digest)):
        raise _no_reference(text)
    if text.endswith(("@", ":")) or ":@" in text:
        raise _no_reference(text)
    return OciReference(
        scheme=_SCHEMES[scheme],
        registry=registry.lower(),
        repository=repository,
        tag=tag or None,
        digest=digest or None,
    )


def image_list_manifest(message: bytes, annotations: Mapping[str, str] | None = None) -> OciManifest:
    """Return the manifest of an image list.

    Args:
        message: The signed message; the one layer.
        annotations: What else is said of it.
    """
    return OciManifest(
        layers=(OciDescriptor.of(message, IMAGE_LIST_MEDIA_TYPE),),
        artifact_type=IMAGE_LIST_ARTIFACT_TYPE,
        annotations=dict(annotations or {}),
    )


def image_list_layer(manifest: OciManifest) -> OciDescriptor:
    """Return the layer that is the signed image list: the one of its media type, or the only one.

    Raises:
        DocumentError: There is no such layer, or more than one.
    """
    typed = [layer for layer in manifest.layers if layer.media_type == IMAGE_LIST_MEDIA_TYPE]
    found = typed or list(manifest.layers)
    if len(found) != 1:
        refuse(
            "$.layers",
            f"of {len(manifest.layers)} layers, {len(typed)} are of the type {IMAGE_LIST_MEDIA_TYPE}; it must be one",
            what=_WHAT,
        )
    return found[0]


def write_manifest(manifest: OciManifest) -> bytes:
    """Return ``manifest`` as JSON; the same manifest gives the same bytes."""
    said: dict[str, object] = {"schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE}
    if manifest.artifact_type is not None:
        said["artifactType"] = manifest.artifact_type
    said["config"] = _said(manifest.config)
    said["layers"] = [_said(layer) for layer in manifest.layers]
    if manifest.subject is not None:
        said["subject"] = _said(manifest.subject)
    if manifest.annotations:
        said["annotations"] = dict(sorted(manifest.annotations.items()))
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def read_manifest(payload: bytes) -> OciManifest:
    """Return the manifest that ``payload`` is.

    Raises:
        DocumentError: It is none: not JSON, too large, an index, or it names what cannot be verified.
    """
    said = read_json(payload, what=_WHAT, max_bytes=MANIFEST_LIMIT_BYTES, max_depth=MANIFEST_DEPTH)
    version = said.get("schemaVersion")
    if version != 2 or isinstance(version, bool):  # noqa: PLR2004 - the only version of this format
        refuse("$.schemaVersion", "it is not 2", what=_WHAT)
    media_type = said.get("mediaType", MANIFEST_MEDIA_TYPE)
    if media_type != MANIFEST_MEDIA_TYPE:
        refuse("$.mediaType", f"{str(media_type)[:80]!a} is not {MANIFEST_MEDIA_TYPE}", what=_WHAT)
    layers = said.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= _LAYERS:
        refuse("$.layers", f"it is no array of 1 to {_LAYERS} layers", what=_WHAT)
    artifact_type = said.get("artifactType")
    return OciManifest(
        layers=tuple(read_descriptor(layer, f"$.layers[{position}]") for position, layer in enumerate(layers)),
        config=read_descriptor(said.get("config"), "$.config"),
        artifact_type=None if artifact_type is None else read_media_type(artifact_type, "$.artifactType"),
        annotations=read_annotations(said.get("annotations"), "$.annotations"),
        subject=None if said.get("subject") is None else read_descriptor(said["subject"], "$.subject"),
    )


def _said(descriptor: OciDescriptor) -> dict[str, object]:
    said: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size_bytes,
    }
    if descriptor.annotations:
        said["annotations"] = dict(sorted(descriptor.annotations.items()))
    return said


def read_descriptor(value: object, path: str) -> OciDescriptor:
    """Return the descriptor that stands at ``path`` of a parsed document.

    Raises:
        DocumentError: It is none.
    """
    if not isinstance(value, dict):
        refuse(path, "it is no object", what=_WHAT)
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        refuse(f"{path}.digest", "it is no sha256 or sha512 digest", what=_WHAT)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST:
        refuse(f"{path}.size", "it is no number of bytes", what=_WHAT)
    return OciDescriptor(
        media_type=read_media_type(value.get("mediaType"), f"{path}.mediaType"),
        digest=digest,
        size_bytes=size,
        annotations=read_annotations(value.get("annotations"), f"{path}.annotations"),
    )


def read_media_type(value: object, path: str) -> str:
    """Return the media type that stands at ``path`` of a parsed document.

    Raises:
        DocumentError: It is none.
    """
    if not isinstance(value, str) or not _MEDIA_TYPE.fullmatch(value):
        refuse(path, "it is no media type", what=_WHAT)
    return value


def read_annotations(value: object, path: str) -> dict[str, str]:
    """Return the annotations that stand at ``path`` of a parsed document; none there are none.

    Raises:
        DocumentError: They are no texts.
    """
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _ANNOTATIONS:
        refuse(path, f"it is no object of up to {_ANNOTATIONS} members", what=_WHAT)
    for key, text in value.items():
        if not isinstance(text, str):
            refuse(f"{path}.{key[:80]}", "it is no text", what=_WHAT)
    return dict(value)


def _no_reference(text: str) -> InputError:
    # Somebody may have written a password there, as in other addresses.
    shown = re.sub(r"//[^/]*@", "//…@", text[:_URL_LIMIT])[:200]
    return InputError(
        f"{shown!a} is no reference to an artifact in an OCI registry",
        resolution="Write oci://registry[:port]/repository:tag, or …/repository@sha256:… for exactly one content.",
    )
