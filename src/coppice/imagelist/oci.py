# SPDX-License-Identifier: Apache-2.0
"""The publisher ``oci``: a repository of an OCI registry.

A list is an artifact under the tag ``list-NAME``; readers find it at ``oci://registry/repository:list-NAME``. An image
is an artifact of one layer under the tag ``image-FILE``, which stays, and under ``newest-IDENTIFIER``, which moves; its
address is that of its blob, made of the file's SHA-256, so the files are read before the list is composed. The
annotations are those by which marketplaces of research clouds tell what an image is.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.errors import DocumentError, InputError, PublicationError, SettingsError
from coppice.formats.oci import (
    OciDescriptor,
    OciManifest,
    OciReference,
    image_list_layer,
    image_list_manifest,
    parse_reference,
)
from coppice.formats.strict_json import read_json
from coppice.imagelist.place import Facts, Held, Kind, safe
from coppice.imagelist.registry import WritableRepository
from coppice.imagelist.upload import is_abandoned, owner
from coppice.imagelist.web import Web
from coppice.model.image import DiskFormat
from coppice.monitor import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.imagelist.model import ListedImage
    from coppice.monitor import Monitor, Task
    from coppice.settings.driver_options import Options

MIB = 1024 * 1024
IMAGE_ARTIFACT_TYPE = "application/vnd.coppice.image.v1"
NOTE_MEDIA_TYPE = "application/vnd.coppice.note.v1+json"
TAG_LIMIT = 128
_PREFIXES = {Kind.LIST: "list-", Kind.IMAGE: "image-", Kind.NOTE: "note-"}
_NEWEST = "newest-"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_BLOB = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK_BYTES = MIB
_MEDIA_TYPES = {
    DiskFormat.QCOW2: "application/x-qemu-disk",
    DiskFormat.VMDK: "application/x-vmdk",
    DiskFormat.VDI: "application/x-virtualbox-vdi",
    DiskFormat.VHD: "application/x-virtualbox-vhd",
    DiskFormat.ISO: "application/x-iso9660-image",
}
_UPLOAD = "upload-"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """What a local file is."""

    facts: Facts
    digest: str


class OciPlace:
    """A repository.

    Args:
        reference: Registry and repository.
        repository: Asks the server.
        web: Reads images back.
    """

    def __init__(self, reference: OciReference, repository: WritableRepository, web: Web) -> None:
        self._reference = reference
        self._repository = repository
        self._web = web
        self._prepared: dict[str, _Prepared] = {}
        self._layers: dict[str, OciDescriptor] = {}
        self._by_digest: dict[str, list[str]] | None = None

    @property
    def label(self) -> str:
        """Return registry and repository."""
        return f"oci://{self._reference.registry}/{self._reference.repository}"

    def prepare(self, files: Mapping[str, Path], monitor: Monitor) -> None:
        """Read the files: their digests are their addresses."""
        for name, path in files.items():
            with monitor.task(f"digest {name}", unit=Unit.BYTES) as task:
                self._prepared[name] = _read(path, task)

    def address(self, kind: Kind, name: str) -> str:
        """Return the reference of a list, or the URL of an image's blob.

        Raises:
            InputError: The image was not prepared, and is not at the registry.
        """
        if kind is Kind.LIST:
            reference = self._reference
            return str(
                OciReference(
                    scheme=reference.scheme,
                    registry=reference.registry,
                    repository=reference.repository,
                    tag=_tag(kind, name),
                )
            )
        _tag(kind, name)
        prepared = self._prepared.get(name)
        if prepared is not None:
            return self._repository.blob_url(prepared.digest)
        layer = self._layer(name)
        if layer is None:
            raise InputError(f"the address of {name} at {self.label} is made of its content, which is not known yet")
        return self._repository.blob_url(layer.digest)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the names among the tags."""
        prefix = _PREFIXES[kind]
        return tuple(sorted(tag.removeprefix(prefix) for tag in self._repository.tags() if tag.startswith(prefix)))

    def meant_by(self, uri: str) -> tuple[str, ...]:
        """Return the images that have the digest in ``uri``."""
        match = _BLOB.search(uri)
        if match is None:
            return ()
        if self._by_digest is None:
            found: dict[str, list[str]] = {}
            for name in self.names(Kind.IMAGE):
                layer = self._layer(name)
                if layer is not None:
                    found.setdefault(layer.digest, []).append(name)
            self._by_digest = found
        return tuple(self._by_digest.get(match[0], ()))

    def describe(self, name: str) -> Held | None:
        """Ask for manifest and blob; the stamp is the digest."""
        layer = self._layer(name)
        size = None if layer is None else self._repository.blob_size(layer.digest)
        return None if layer is None or size is None else Held(size_bytes=size, stamp=layer.digest)

    def put(self, name: str, source: Path, facts: Facts, image: ListedImage | None, task: Task) -> None:
        """Put a file as a blob, which the registry verifies, and then the artifact that names it.

        Raises:
            InputError: The source changed since it was prepared.
        """
        prepared = self._prepared.get(name) or _read(source, task)
        if prepared.facts != facts:
            raise InputError(f"the image {source} changed while it was published", resolution="Publish again.")
        if self._repository.blob_size(prepared.digest) is None:
            self._upload(source, prepared, task)
        manifest = _image_manifest(name, prepared, image)
        self._repository.put_manifest(_tag(Kind.IMAGE, name), manifest)
        self._layers[name] = manifest.layers[0]
        self._by_digest = None

    def holds(self, name: str, facts: Facts, task: Task) -> bool:
        """Compare digests; where the file's is not known, read the blob and compare."""
        layer, prepared = self._layer(name), self._prepared.get(name)
        if layer is None:
            return False
        if prepared is not None and prepared.facts == facts:
            return layer.digest == prepared.digest
        url = self._repository.blob_url(layer.digest)
        return self._web.facts(url, facts.size_bytes, task, self._repository.credential()) == facts

    def announce(self, images: Mapping[str, ListedImage]) -> None:
        """Move the tag of each image's identifier to the version that the list names."""
        for name, image in images.items():
            tag = f"{_NEWEST}{image.identifier}"
            found = self._repository.manifest(_tag(Kind.IMAGE, name))
            if found is None:
                raise PublicationError(f"{name} was at {self.label} a moment ago", resolution="Publish again.")
            # An identifier of a lenient list may be any text.
            if _TAG.fullmatch(tag) and self._repository.manifest(tag) != found:
                self._repository.put_manifest(tag, found[0])

    def read(self, kind: Kind, name: str) -> bytes | None:
        """Return what the tag names.

        Raises:
            PublicationError: It is no such artifact.
        """
        found = self._repository.manifest(_tag(kind, name))
        if found is None:
            return None
        try:
            layer = image_list_layer(found[0]) if kind is Kind.LIST else found[0].layers[0]
        except DocumentError as problem:
            raise PublicationError(f"{name} at {self.label}: {problem.message}") from problem
        return self._repository.blob(layer.digest, layer.size_bytes)

    def replace(self, kind: Kind, name: str, data: bytes) -> None:
        """Put a small artifact and move the tag to it."""
        tag = _tag(kind, name)
        self._repository.put_bytes(data)
        if kind is Kind.LIST:
            self._repository.put_manifest(tag, image_list_manifest(data, {"org.opencontainers.image.title": name}))
            return
        before = self._repository.manifest(tag)
        # The name in it keeps two notes of the same content apart: what is deleted below is this one alone.
        annotations = {"org.opencontainers.image.title": name}
        layer = OciDescriptor.of(data, NOTE_MEDIA_TYPE)
        now = self._repository.put_manifest(
            tag, OciManifest(layers=(layer,), artifact_type=NOTE_MEDIA_TYPE, annotations=annotations)
        )
        if before is not None and before[1] != now:
            with suppress(PublicationError):
                self._repository.remove_manifest(before[1])

    def delete(self, kind: Kind, name: str) -> None:
        """Delete the artifact; its blobs are the registry's to collect.

        Raises:
            PublicationError: The registry does not allow it.
        """
        found = self._repository.manifest(_tag(kind, name))
        if found is None:
            return
        try:
            self._repository.remove_manifest(found[1])
        except PublicationError as problem:
            raise PublicationError(
                f"{self.label} does not let {name} be removed",
                details=problem.message,
                resolution="Have whoever runs the registry allow deletion, or keep everything.",
                context=problem.context,
            ) from problem
        self._layers.pop(name, None)

    def sweep(self, *, older_than_seconds: float) -> None:
        """Cancel uploads that were begun so long ago."""
        now = datetime.now(UTC)
        for note in self.names(Kind.NOTE):
            session = self._session(note) if note.startswith(_UPLOAD) else None
            if session is not None and now - session.at >= timedelta(seconds=older_than_seconds):
                self._repository.cancel(session.location)
                self._end_session(note)

    def close(self) -> None:
        """Forget what was seen; each request has a connection of its own."""
        self._layers.clear()
        self._by_digest = None

    def _layer(self, name: str) -> OciDescriptor | None:
        if name not in self._layers:
            found = self._repository.manifest(_tag(Kind.IMAGE, name))
            if found is None:
                return None
            if len(found[0].layers) != 1:
                raise PublicationError(f"{name} at {self.label} has {len(found[0].layers)} layers: no image of Coppice")
            self._layers[name] = found[0].layers[0]
        return self._layers[name]

    def _upload(self, source: Path, prepared: _Prepared, task: Task) -> None:
        """Put a blob; where it goes on stands in a note of this run's own, so that the next run can go on."""
        prefix = f"{_UPLOAD}{prepared.digest.partition(':')[2][:32]}-"
        note = f"{prefix}{owner()}"
        size = prepared.facts.size_bytes

        def remember(location: str) -> None:
            said = {"at": datetime.now(UTC).isoformat(), "location": location}
            self.replace(Kind.NOTE, note, json.dumps(said).encode("utf-8"))

        for left in self.names(Kind.NOTE):
            session = self._session(left) if is_abandoned(left.removeprefix(prefix)) else None
            begun = None if session is None else self._repository.progress(session.location)
            if begun is not None and 0 < begun[1] <= size:
                remember(begun[0])
                self._end_session(left)
                task.reach(begun[1], size)
                if self._repository.put_file(source, size, prepared.digest, go_on=begun, moved=remember, task=task):
                    self._end_session(note)
                    return
            elif session is not None:
                self._end_session(left)
        location = self._repository.begin()
        remember(location)
        self._repository.put_file(source, size, prepared.digest, go_on=(location, 0), moved=remember, task=task)
        self._end_session(note)

    def _session(self, note: str) -> _Session | None:
        data = self.read(Kind.NOTE, note)
        if data is None:
            return None
        try:
            said = read_json(data, what=f"publisher's note {note}")
            return _Session(at=datetime.fromisoformat(str(said["at"])), location=str(said["location"]))
        except (DocumentError, KeyError, ValueError):
            # An emptied note, or nobody's: there is nothing to go on with.
            return None

    def _end_session(self, note: str) -> None:
        try:
            self.delete(Kind.NOTE, note)
        except PublicationError:
            self.replace(Kind.NOTE, note, b"{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """An upload that was begun."""

    at: datetime
    location: str


def open_oci(options: Options) -> OciPlace:
    """Return the place that the options describe.

    Raises:
        SettingsError: One is missing, unknown or of the wrong type.
    """
    scheme = "http" if options.switch("plain_http", default=False) else "https"
    host, repository = options.text("registry"), options.text("repository")
    if "/" in host:
        raise SettingsError("the option `registry` must be a host, with its port if it has one")
    try:
        found = parse_reference(f"{'oci' if scheme == 'https' else 'oci+http'}://{host}/{repository}:any")
    except InputError as problem:
        raise SettingsError("`registry` and `repository` do not name a repository of a registry") from problem
    web = Web.of(options)
    writable = WritableRepository(
        found,
        web,
        chunk_bytes=options.size("chunk_size", 64 * MIB, least=MIB, most=1024 * MIB),
        token_server=options.optional_text("token_server"),
    )
    options.finish()
    return OciPlace(found, writable, web)


def _tag(kind: Kind, name: str) -> str:
    tag = f"{_PREFIXES[kind]}{safe(name)}"
    if len(tag) > TAG_LIMIT:
        raise InputError(f"{name[:80]!r} is too long for a tag: {TAG_LIMIT - len(_PREFIXES[kind])} characters")
    return tag


def _read(path: Path, task: Task) -> _Prepared:
    sha512, sha256, size = hashlib.sha512(), hashlib.sha256(), 0
    with atomic.storage_errors("reading", path), path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha512.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
            task.advance(len(chunk))
    facts = Facts(size_bytes=size, sha512=sha512.hexdigest())
    return _Prepared(facts=facts, digest=f"sha256:{sha256.hexdigest()}")


def _image_manifest(name: str, prepared: _Prepared, image: ListedImage | None) -> OciManifest:
    disk_format = name.rpartition(".")[2]
    media_type = _MEDIA_TYPES.get(DiskFormat(disk_format)) if disk_format in list(DiskFormat) else None
    layer = OciDescriptor(
        media_type=media_type or "application/octet-stream",
        digest=prepared.digest,
        size_bytes=prepared.facts.size_bytes,
        annotations={"org.opencontainers.image.title": name},
    )
    annotations = {"org.opencontainers.image.title": name}
    if image is not None:
        system = image.operating_system
        annotations = {
            "org.openstack.glance.disk_format": disk_format,
            "org.openstack.glance.container_format": "bare",
            "org.openstack.glance.os_type": system.kind.lower(),
            "org.openstack.glance.os_distro": system.distribution.lower(),
            "org.openstack.glance.os_version": system.version,
            "org.openstack.glance.architecture": system.architecture,
            "eu.egi.cloud.description": image.description or image.title,
            "eu.egi.cloud.tag": image.version,
            "eu.egi.cloud.image_ref": image.mpuri or image.uri,
            "org.opencontainers.image.title": image.title,
            "org.opencontainers.image.version": image.version,
        }
    return OciManifest(layers=(layer,), artifact_type=IMAGE_ARTIFACT_TYPE, annotations=annotations)
