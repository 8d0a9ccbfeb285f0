# SPDX-License-Identifier: Apache-2.0
"""Disk images in OCI registries, in the form in which EGI publishes them: annotations, tags and the layer that counts.

Sources: the annotations of EGI's image registry (``org.openstack.glance.*``, ``eu.egi.cloud.*``); OCI Image Format
Specification 1.1 (``annotations.md``). What pushes them writes the annotations to the manifest, the layer, or both;
the layer's are nearer to the disk and count more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coppice.formats.oci import EMPTY_MEDIA_TYPE
from coppice.formats.strict_json import refuse

if TYPE_CHECKING:
    from coppice.formats.oci import OciDescriptor, OciManifest

GLANCE = "org.openstack.glance."
EGI = "eu.egi.cloud."
OCI = "org.opencontainers.image."
KEPT_PREFIXES = (GLANCE, EGI, OCI)
"""Of the annotations that say something of an image."""

_FORMATS = {
    "application/x-qemu-disk": "qcow2",
    "application/vnd.coppice.image.v1.raw": "raw",
    "application/x-raw-disk-image": "raw",
    "application/x-vmdk": "vmdk",
    "application/x-virtualbox-vmdk": "vmdk",
    "application/x-virtualbox-vdi": "vdi",
    "application/x-virtualbox-vhd": "vhd",
    "application/x-vhd": "vhd",
    "application/x-iso9660-image": "iso",
}
_SUFFIXES = {
    "qcow2": "qcow2",
    "img": None,
    "raw": "raw",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vhd": "vhd",
    "vhdx": "vhdx",
    "iso": "iso",
}
_NO_MEDIA_TYPE = frozenset({"application/octet-stream", "application/vnd.oci.image.layer.v1.tar"})
"""What tools write when nobody said what a file is."""
_CONTAINER_CONFIGS = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
_STAYING_TAIL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{4,64}")
_STAYING = re.compile(rf"(?P<series>.+?)-(?P<tail>{_STAYING_TAIL.pattern})")
_REFERRERS = re.compile(r"sha(?:256|512)-[0-9a-f]{32,128}(?:\.[a-z]+)?")
_ARCHITECTURES = {"amd64": "x86_64", "x86-64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


def is_staying_version(text: str) -> bool:
    """Tell whether ``text`` is the part of a tag that says which build it names: ``YYYY-MM-DD-commit``."""
    return _STAYING_TAIL.fullmatch(text) is not None


def split_staying_tag(tag: str) -> tuple[str, str] | None:
    """Return the moving tag that a staying one belongs to, and which build it names; None: it does not stay."""
    match = _STAYING.fullmatch(tag)
    return None if match is None else (match["series"], match["tail"])


def is_attachment_tag(tag: str) -> bool:
    """Tell whether a tag names no image but what is attached to one: a signature, an attestation, a list of parts."""
    return _REFERRERS.fullmatch(tag) is not None


def architecture_of(word: str) -> str:
    """Return the kernel's name of an architecture that the Go language calls otherwise."""
    return _ARCHITECTURES.get(word.lower(), word)


def disk_layer(manifest: OciManifest) -> OciDescriptor | None:
    """Return the layer that is a disk; None: none is, and the manifest is of something else (a container, a chart).

    Raises:
        DocumentError: Several could be it.
    """
    if manifest.config.media_type in _CONTAINER_CONFIGS:
        named = [layer for layer in manifest.layers if layer.media_type in _FORMATS]
    else:
        named = [layer for layer in manifest.layers if layer.media_type in _FORMATS] or [
            layer for layer in manifest.layers if layer.media_type in _NO_MEDIA_TYPE and _suffix(layer) is not None
        ]
        if not named and manifest.annotations.get(f"{GLANCE}disk_format") and len(manifest.layers) == 1:
            named = list(manifest.layers)
    if len(named) > 1:
        refuse("$.layers", f"{len(named)} of {len(manifest.layers)} layers could be the disk", what="OCI manifest")
    return named[0] if named else None


def declared_format(layer: OciDescriptor, annotations: dict[str, str]) -> str | None:
    """Return the format that a disk is said to have: by its annotation, its media type or its file's name."""
    said = annotations.get(f"{GLANCE}disk_format")
    if said:
        return said
    suffix = _suffix(layer)
    return _FORMATS.get(layer.media_type) or (None if suffix is None else _SUFFIXES[suffix])


def annotations_of(manifest: OciManifest, layer: OciDescriptor) -> dict[str, str]:
    """Return what is said of an image: the layer's annotations before the manifest's."""
    return {
        key: text
        for key, text in {**manifest.annotations, **layer.annotations}.items()
        if key.startswith(KEPT_PREFIXES)
    }


def needs_config(manifest: OciManifest, layer: OciDescriptor) -> bool:
    """Tell whether only the configuration can say for which architecture an image is."""
    has_config = manifest.config.media_type in _CONTAINER_CONFIGS and manifest.config.media_type != EMPTY_MEDIA_TYPE
    return has_config and f"{GLANCE}architecture" not in annotations_of(manifest, layer)


def _suffix(layer: OciDescriptor) -> str | None:
    suffix = layer.annotations.get(f"{OCI}title", "").rpartition(".")[2].lower()
    return suffix if suffix in _SUFFIXES else None
