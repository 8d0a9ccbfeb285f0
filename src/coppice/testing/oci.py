# SPDX-License-Identifier: Apache-2.0
"""Registries for tests: one in memory that is read without a network, and what pushes to a real one as EGI does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.formats.oci import (
    EMPTY_BYTES,
    MANIFEST_MEDIA_TYPE,
    OciDescriptor,
    OciManifest,
    OciReference,
    digest_of,
    write_manifest,
)
from coppice.formats.oci_image import EGI, GLANCE, OCI
from coppice.formats.oci_index import INDEX_MEDIA_TYPE, IndexEntry, OciIndex, referrers_tag, write_index
from coppice.http import Client, Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

DISK_MEDIA_TYPE = "application/x-qemu-disk"
SBOM_MEDIA_TYPE = "application/vnd.cyclonedx+json"


def egi_annotations(build: str | None = "2025-09-04-4d7122d6", **changed: str) -> dict[str, str]:
    """Return the annotations of an image as EGI writes them to the layer; ``changed`` by the last word of its key."""
    found = {
        f"{GLANCE}os_distro": "ubuntu",
        f"{GLANCE}os_version": "24.04",
        f"{GLANCE}os_type": "linux",
        f"{GLANCE}os_admin_user": "ubuntu",
        f"{GLANCE}architecture": "x86_64",
        f"{GLANCE}disk_format": "qcow2",
        f"{GLANCE}container_format": "bare",
        f"{EGI}description": "EGI Ubuntu 24.04 image",
        f"{EGI}image_ref": "vo/ubuntu:24.04",
        f"{OCI}title": "ubuntu.qcow2",
    }
    if build is not None:
        found[f"{EGI}tag"] = build
    for key in tuple(found):
        word = key.rpartition(".")[2]
        if word in changed:
            found[key] = changed[word]
    return {key: text for key, text in found.items() if text}


def disk_manifest(disk: bytes, annotations: Mapping[str, str] | None = None) -> OciManifest:
    """Return the manifest of an image whose layer carries the annotations."""
    said = egi_annotations() if annotations is None else annotations
    return OciManifest(
        layers=(OciDescriptor.of(disk, DISK_MEDIA_TYPE, said),),
        annotations={f"{OCI}revision": "4d7122d6", f"{OCI}source": "https://git.example.org/images"},
    )


class MemoryRegistry:
    """Repositories in memory, read as `coppice.subscription.source.oci_registry.RegistryReader` reads a real one."""

    def __init__(self) -> None:
        self.named: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.referring: dict[str, list[IndexEntry]] = {}

    def put(self, repository: str, manifest: OciManifest | OciIndex, *tags: str) -> str:
        """Put a manifest or index under tags; return its digest."""
        data = write_manifest(manifest) if isinstance(manifest, OciManifest) else write_index(manifest)
        digest = digest_of(data)
        for name in (digest, *tags):
            self.named.setdefault(repository, {})[name] = data
        return digest

    def put_blob(self, data: bytes) -> None:
        """Put a blob."""
        self.blobs[digest_of(data)] = data

    def repositories(self) -> tuple[str, ...]:
        """Return all repositories."""
        return tuple(sorted(self.named))

    def tags(self, repository: str) -> tuple[str, ...]:
        """Return the tags of one."""
        return tuple(sorted(name for name in self.named[repository] if ":" not in name))

    def manifest(self, repository: str, name: str) -> bytes | None:
        """Return a manifest by tag or digest."""
        return self.named[repository].get(name)

    def blob(self, repository: str, descriptor: OciDescriptor, limit_bytes: int) -> bytes | None:
        """Return a blob."""
        del repository, limit_bytes
        return self.blobs.get(descriptor.digest)

    def referrers(self, repository: str, digest: str) -> tuple[IndexEntry, ...]:
        """Return what refers to a manifest."""
        del repository
        return tuple(self.referring.get(digest, ()))


class RegistryPusher:
    """Writes to one repository of a real registry.

    Args:
        client: For all requests.
        reference: Registry and repository.
    """

    def __init__(self, client: Client, reference: OciReference) -> None:
        self._registry = Registry(client, reference, writes=True)

    def blob(self, data: bytes) -> str:
        """Put a blob; return its digest."""
        begun = self._registry.request(
            "POST", self._registry.url("blobs/uploads/"), expected={202}, limit_bytes=1000, body=b""
        )
        place = begun.header("location") or ""
        url = f"{place}{'&' if '?' in place else '?'}digest={digest_of(data)}"
        self._registry.request("PUT", url, expected={201}, limit_bytes=1000, body=data)
        return digest_of(data)

    def put(self, manifest: OciManifest | OciIndex, *tags: str) -> str:
        """Put a manifest or index under tags, or under its digest alone; return its digest."""
        is_manifest = isinstance(manifest, OciManifest)
        data = write_manifest(manifest) if isinstance(manifest, OciManifest) else write_index(manifest)
        if is_manifest:
            self.blob(EMPTY_BYTES)
        for name in tags or (digest_of(data),):
            self._registry.request(
                "PUT",
                self._registry.url(f"manifests/{name}"),
                expected={201},
                limit_bytes=10_000,
                body=data,
                headers={"Content-Type": MANIFEST_MEDIA_TYPE if is_manifest else INDEX_MEDIA_TYPE},
            )
        return digest_of(data)

    def refer(self, subject: str, *entries: IndexEntry) -> None:
        """List what refers to ``subject`` under the tag that stands in for a registry's own list."""
        self.put(OciIndex(entries=entries), referrers_tag(subject))

    def delete(self, digest: str) -> None:
        """Delete a manifest, and all tags that name it."""
        self._registry.request("DELETE", self._registry.url(f"manifests/{digest}"), expected={202}, limit_bytes=1000)
