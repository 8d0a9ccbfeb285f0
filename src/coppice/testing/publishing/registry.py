# SPDX-License-Identifier: Apache-2.0
"""Debian's ``docker-registry`` (distribution) on loopback."""

from __future__ import annotations

import json

from coppice.errors import TransferError
from coppice.factory.ports import free_port
from coppice.formats.oci import image_list_layer, parse_reference, read_manifest
from coppice.testing.publishing.server import PublishingServer, fetch_http, listens

REGISTRY = "/usr/bin/docker-registry"
_CONFIG = """\
version: 0.1
log:
  level: error
storage:
  filesystem:
    rootdirectory: {directory}/storage
  delete:
    enabled: {deletes}
http:
  addr: 127.0.0.1:{port}
{extra}
"""


class RegistryServer(PublishingServer):
    """A registry that lets everybody on this machine write and delete.

    ``extra`` is more of its configuration, and ``deletes`` whether it deletes; both are set before it is started.
    """

    extra = ""
    deletes = True

    def start(self) -> None:
        """Make the configuration, and start it."""
        self.port = free_port()
        config = self.directory / "registry.yml"
        config.write_text(
            _CONFIG.format(
                directory=self.directory, port=self.port, extra=self.extra, deletes=str(self.deletes).lower()
            ),
            encoding="utf-8",
        )
        log = self.directory / "registry.log"
        self.run([REGISTRY, "serve", str(config)], log=log, environment={"OTEL_TRACES_EXPORTER": "none"})
        self.wait_until(lambda: listens(self.port), log=log)

    def options(self, area: str) -> dict[str, object]:
        """Return the options of a publisher that writes to a repository."""
        return {
            "registry": f"127.0.0.1:{self.port}",
            "repository": f"images/{area}",
            "plain_http": True,
            "chunk_size": 1024 * 1024,
            "allow_private_addresses": True,
        }

    def fetch(self, uri: str) -> bytes | None:
        """Return a list by its reference, or a blob by its URL."""
        if not uri.startswith("oci"):
            return fetch_http(uri)
        reference = parse_reference(uri)
        base = f"{reference.scheme}://{reference.registry}/v2/{reference.repository}"
        manifest = fetch_http(f"{base}/manifests/{reference.tag}", accept="application/vnd.oci.image.manifest.v1+json")
        if manifest is None:
            return None
        data = fetch_http(f"{base}/blobs/{image_list_layer(read_manifest(manifest)).digest}")
        if data is None:
            raise TransferError(f"the manifest of {uri} is there, and its layer is not")
        return data

    def leftovers(self, area: str) -> list[str]:
        """Return the notes of uploads; what the registry itself keeps of them it purges by itself."""
        listed = fetch_http(f"http://127.0.0.1:{self.port}/v2/images/{area}/tags/list")
        tags = json.loads(listed or b"{}").get("tags") or []
        return sorted(tag for tag in tags if tag.startswith("note-upload-"))
