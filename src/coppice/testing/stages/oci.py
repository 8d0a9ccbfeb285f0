# SPDX-License-Identifier: Apache-2.0
"""Disk images in Debian's docker-registry: written by ``oras`` as EGI does, and signed as cosign does."""

from __future__ import annotations

import importlib
import json
import shutil
from typing import TYPE_CHECKING, Any

from coppice.formats.cosign import signature_tag
from coppice.formats.oci import OciReference, digest_of
from coppice.formats.oci_image import OCI
from coppice.subscription.model import SourceReference, Subscription, TrustBasis
from coppice.testing.client import loopback_client
from coppice.testing.cosign import CosignSigner, signatures_manifest
from coppice.testing.oci import DISK_MEDIA_TYPE, RegistryPusher, disk_manifest, egi_annotations
from coppice.testing.publishing.registry import RegistryServer
from coppice.testing.publishing.server import fetch_http
from coppice.testing.server import LoopbackServer, status
from coppice.testing.stages.stage import NO_TRUST, NOW, SourceStage

if TYPE_CHECKING:
    from collections.abc import Mapping

ARCHITECTURES = ("x86_64", "aarch64")
_ACCEPT = "application/vnd.oci.image.manifest.v1+json"


class OciByTransport(SourceStage):
    """A project whose images ``oras`` pushed; nobody signs them."""

    driver = "oci"
    basis = TrustBasis.TRANSPORT
    is_signed = False
    options: Mapping[str, object] = {"trust": "transport"}

    def start(self) -> None:
        """Start the registry."""
        place = self.directory / "registry"
        place.mkdir()
        self.server = RegistryServer(place)
        self.server.start()
        self.down: LoopbackServer | None = None

    def stop(self) -> None:
        """End it."""
        if self.down is not None:
            self.down.stop()
            self.down = None
        self.server.stop()

    @property
    def host(self) -> str:
        """The registry."""
        return f"127.0.0.1:{self.server.port}"

    def pusher(self, repository: str) -> RegistryPusher:
        """Return what writes to a repository."""
        reference = OciReference(scheme="http", registry=self.host, repository=repository)
        return RegistryPusher(loopback_client(), reference)

    def subscription(self) -> Subscription:
        """Return a subscription to the project."""
        return Subscription(
            name="demo",
            uri=f"oci+http://{self.host}/vo",
            list_identifier=None,
            trust=NO_TRUST,
            added_at=NOW,
            source=SourceReference(driver="oci", options=self.options),
        )

    def publish(self, number: int) -> Mapping[str, bytes]:
        """Push both images, each under the tag that moves and one that stays."""
        found = {}
        for architecture in ARCHITECTURES:
            found[architecture] = f"{architecture} {number} ".encode() * 1000
            build = f"2025-09-{number:02}-4d7122d6"
            self.push(
                f"vo/debian-{architecture}", found[architecture], egi_annotations(build, architecture=architecture)
            )
        return found

    def push(self, repository: str, disk: bytes, annotations: Mapping[str, str]) -> str:
        """Push an image with ``oras``, as EGI's builds do; return its manifest's digest."""
        path = self.directory / "disk.qcow2"
        path.write_bytes(disk)
        notes = self.directory / "metadata.json"
        said = {str(path): dict(annotations), "$manifest": {f"{OCI}revision": "4d7122d6"}}
        notes.write_text(json.dumps(said), encoding="utf-8")
        # Not installed where Coppice is used: it is the peer that these tests are held against.
        provider: Any = importlib.import_module("oras.provider")
        oras = provider.Registry(hostname=self.host, insecure=True, tls_verify=False)
        for tag in ("12", f"12-{annotations['eu.egi.cloud.tag']}"):
            oras.push(
                f"{self.host}/{repository}:{tag}",
                files=[f"{path}:{DISK_MEDIA_TYPE}"],
                annotation_file=str(notes),
                disable_path_validation=True,
                quiet=True,
            )
        return self.digest(repository, "12")

    def digest(self, repository: str, name: str) -> str:
        """Return the digest of what a tag names."""
        return digest_of(fetch_http(f"http://{self.host}/v2/{repository}/manifests/{name}", accept=_ACCEPT) or b"")

    def fail(self, how: str) -> None:
        """Lose the storage, all tags, or the server."""
        storage = self.server.directory / "storage/docker/registry/v2/repositories/vo"
        if how == "gone":
            shutil.rmtree(storage)
        elif how == "empty":
            for tags in storage.glob("*/_manifests/tags/*"):
                shutil.rmtree(tags)
        else:
            self.server.stop()
            self.down = LoopbackServer(port=self.server.port).start()
            self.down.set("/v2/_catalog", status(503))


class OciByKey(OciByTransport):
    """The same, each manifest signed by a pinned key."""

    basis = TrustBasis.COSIGN
    is_signed = True
    tampered_codes = frozenset({"list-tampered"})

    def start(self) -> None:
        """Make a key, too."""
        super().start()
        self.signer = CosignSigner.new()
        self.key = self.directory / "cosign.pub"
        self.key.write_bytes(self.signer.public_pem)
        self.options = {"cosign_key": str(self.key)}

    def push(self, repository: str, disk: bytes, annotations: Mapping[str, str]) -> str:
        """Push an image and its signature."""
        digest = super().push(repository, disk, annotations)
        self.sign(repository, digest)
        return digest

    def sign(self, repository: str, digest: str, *, means: str | None = None) -> None:
        """Put a signature where that of ``digest`` belongs; ``means`` is what it is of."""
        pusher = self.pusher(repository)
        payload, layer = self.signer.layer(means or digest)
        pusher.blob(payload)
        pusher.put(signatures_manifest(layer), signature_tag(digest))

    def tamper(self) -> None:
        """Push another image, with the genuine signature of the one before."""
        repository = "vo/debian-x86_64"
        genuine = self.digest(repository, "12")
        pusher = self.pusher(repository)
        pusher.blob(b"another disk")
        forged = pusher.put(disk_manifest(b"another disk"), "12")
        self.sign(repository, forged, means=genuine)

    def distrust(self) -> None:
        """Pin another key."""
        self.key.write_bytes(CosignSigner.new().public_pem)
