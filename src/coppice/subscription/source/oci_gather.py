# SPDX-License-Identifier: Apache-2.0
"""Gather what a registry has: the table of tags, and the manifests, signatures and configurations that it names.

Nothing is judged here. What is there and cannot be had, or cannot be read, is noted as such: it never becomes "there is
none". A server that fails ends the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import DocumentError, MalformedListError, TransferError, TransferTooLargeError
from coppice.formats.cosign import (
    BUNDLE_LIMIT_BYTES,
    BUNDLE_MEDIA_TYPES,
    PAYLOAD_LIMIT_BYTES,
    SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING_MEDIA_TYPE,
    signature_tag,
)
from coppice.formats.oci import MANIFEST_MEDIA_TYPE, OciManifest, digest_of, read_manifest
from coppice.formats.oci_image import (
    EGI,
    annotations_of,
    disk_layer,
    is_staying_version,
    needs_config,
    split_staying_tag,
)
from coppice.formats.oci_index import is_index, read_index
from coppice.subscription.source.gathered import Document
from coppice.subscription.source.oci_table import Attached, TagRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.formats.limits import ListLimits
    from coppice.formats.oci import OciDescriptor
    from coppice.formats.oci_index import IndexEntry
    from coppice.subscription.source.oci_options import OciAddress, OciOptions
    from coppice.subscription.source.oci_registry import RegistryReader

MOST_SIGNATURES = 32
MOST_ATTACHED = 64
MOST_BUILDS_TRIED = 12
"""Tags that stay, of one series, that are looked at to find the one that names what the moving one names."""
CONFIG_LIMIT_BYTES = 1024 * 1024
_SIGNATURE_LIMIT = 4096


def blob_name(digest: str) -> str:
    """Return what a small blob is called in the message."""
    return f"blob {digest}"


def manifest_name(digest: str) -> str:
    """Return what a manifest or index is called in the message."""
    return f"manifest {digest}"


class Gatherer:
    """Gathers for one subscription.

    Args:
        reader: Asks the registry.
        address: Where the repositories are.
        options: What is asked for.
        limits: How much it may be, all together.
    """

    def __init__(self, reader: RegistryReader, address: OciAddress, options: OciOptions, limits: ListLimits) -> None:
        self._reader = reader
        self._address = address
        self._options = options
        self._limits = limits
        self._documents: dict[str, Document] = {}
        self._left_bytes = limits.size_bytes

    @property
    def documents(self) -> tuple[Document, ...]:
        """What was gathered so far, by name."""
        return tuple(self._documents[name] for name in sorted(self._documents))

    def gather(self) -> tuple[TagRow, ...]:
        """Return the table of all tags that are asked for; `documents` has what it names.

        Raises:
            TransferError: The registry failed, or there is too much.
            MalformedListError: What it lists is no list.
        """
        rows: list[TagRow] = []
        for repository in self._reader.repositories():
            tags = self._reader.tags(repository)
            for tag in tags:
                if not self._options.takes(tag):
                    continue
                if len(rows) >= self._limits.images:
                    raise TransferError(
                        f"{self._address.uri(repository)}: more than {self._limits.images} tags are asked for",
                        resolution="Narrow them with the options `tags` and `repositories`.",
                    )
                rows.append(self._tag(repository, tag, tags))
        return tuple(rows)

    def _tag(self, repository: str, tag: str, tags: Sequence[str]) -> TagRow:
        try:
            payload = self._reader.manifest(repository, tag)
        except TransferTooLargeError as too_large:
            return TagRow(repository=repository, tag=tag, problem=too_large.message)
        if payload is None:
            return TagRow(repository=repository, tag=tag, problem="it was listed, and is not there any more")
        digest = digest_of(payload)
        self._keep(manifest_name(digest), self._address.uri(repository), payload)
        problem, knows_build = self._parts(repository, payload)
        signatures, bundles, attached = self._attachments(repository, digest)
        return TagRow(
            repository=repository,
            tag=tag,
            digest=digest,
            problem=problem,
            stays=None if knows_build else self._build(repository, tag, digest, tags),
            signatures=signatures,
            bundles=bundles,
            attached=attached,
        )

    def _parts(self, repository: str, payload: bytes) -> tuple[str | None, bool]:
        """Gather what belongs to a manifest or index; return what is missing, and whether it says which build it is."""
        knows_build = True
        try:
            if not is_index(payload):
                return self._manifest(repository, read_manifest(payload))
            for entry in read_index(payload).entries:
                if entry.descriptor.media_type != MANIFEST_MEDIA_TYPE:
                    continue
                part = self._reader.manifest(repository, entry.descriptor.digest)
                if part is None:
                    return f"the manifest {entry.descriptor.digest} that it names is not there", True
                self._keep(manifest_name(entry.descriptor.digest), self._address.uri(repository), part)
                missing, knows = self._manifest(repository, read_manifest(part))
                if missing is not None:
                    return missing, True
                knows_build = knows_build and knows
        except TransferTooLargeError as too_large:
            return too_large.message, True
        except DocumentError:
            # Whoever reads it will say why it cannot be read.
            return None, True
        return None, knows_build

    def _manifest(self, repository: str, manifest: OciManifest) -> tuple[str | None, bool]:
        layer = disk_layer(manifest)
        if layer is None:
            return None, True
        if needs_config(manifest, layer) and manifest.config.size_bytes <= CONFIG_LIMIT_BYTES:
            config = self._reader.blob(repository, manifest.config, CONFIG_LIMIT_BYTES)
            if config is None:
                return f"the configuration {manifest.config.digest} that it names is not there", True
            self._keep(blob_name(manifest.config.digest), self._address.uri(repository), config)
        return None, is_staying_version(annotations_of(manifest, layer).get(f"{EGI}tag", ""))

    def _build(self, repository: str, tag: str, digest: str, tags: Sequence[str]) -> str | None:
        """Return which build a moving tag names, by a tag that stays and names the same."""
        split = [found for each in tags if (found := split_staying_tag(each)) is not None]
        builds = sorted((build for series, build in split if series == tag), reverse=True)
        for build in builds[:MOST_BUILDS_TRIED]:
            payload = self._reader.manifest(repository, f"{tag}-{build}")
            if payload is not None and digest_of(payload) == digest:
                return build
        return None

    def _attachments(
        self, repository: str, digest: str
    ) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...], tuple[Attached, ...]]:
        try:
            entries = self._reader.referrers(repository, digest)
        except MalformedListError:
            # Where a signature is asked for and none is found, the image is unknown; the rest is only told.
            entries = ()
        attached = tuple(
            Attached(digest=entry.descriptor.digest, artifact_type=entry.artifact_type or "")
            for entry in entries
            if entry.artifact_type not in BUNDLE_MEDIA_TYPES
        )
        if not self._options.keys:
            return (), (), attached[:MOST_ATTACHED]
        bundles = [entry for entry in entries if entry.artifact_type in BUNDLE_MEDIA_TYPES]
        return (
            self._signatures(repository, digest),
            self._bundles(repository, bundles[:MOST_SIGNATURES]),
            attached[:MOST_ATTACHED],
        )

    def _signatures(self, repository: str, digest: str) -> tuple[tuple[str, str], ...]:
        payload = self._reader.manifest(repository, signature_tag(digest))
        if payload is None:
            return ()
        found: list[tuple[str, str]] = []
        try:
            layers = read_manifest(payload).layers
        except DocumentError:
            # Nobody's signature; that there is something all the same, the digest of it says.
            self._keep(blob_name(digest_of(payload)), self._address.uri(repository), payload)
            return ((digest_of(payload), "?"),)
        for layer in layers[:MOST_SIGNATURES]:
            signature = layer.annotations.get(SIGNATURE_ANNOTATION, "?")
            if layer.media_type == SIMPLE_SIGNING_MEDIA_TYPE and len(signature) <= _SIGNATURE_LIMIT:
                found += [(layer.digest, signature)] if self._small(repository, layer, PAYLOAD_LIMIT_BYTES) else []
        return tuple(found)

    def _bundles(self, repository: str, entries: Sequence[IndexEntry]) -> tuple[str, ...]:
        found: list[str] = []
        for entry in entries:
            payload = self._reader.manifest(repository, entry.descriptor.digest)
            if payload is None:
                continue
            try:
                layers = read_manifest(payload).layers
            except DocumentError:
                continue
            first = layers[0]
            if first.media_type in BUNDLE_MEDIA_TYPES and self._small(repository, first, BUNDLE_LIMIT_BYTES):
                found.append(first.digest)
        return tuple(dict.fromkeys(found))

    def _small(self, repository: str, layer: OciDescriptor, limit_bytes: int) -> bool:
        if layer.size_bytes > limit_bytes:
            return False
        data = self._reader.blob(repository, layer, limit_bytes)
        if data is None:
            return False
        self._keep(blob_name(layer.digest), self._address.uri(repository), data)
        return True

    def _keep(self, name: str, uri: str, data: bytes) -> None:
        if name in self._documents:
            return
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            # Of the registry as a whole, not of one of its manifests.
            raise TransferError(
                f"{self._address.root} has more than {self._limits.size_bytes} bytes of manifests and signatures",
                resolution="Narrow what is taken with `tags`, or raise transfer.list_size_limit_bytes.",
            )
        self._documents[name] = Document(name=name, uri=uri, data=data)
