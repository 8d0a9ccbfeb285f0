# SPDX-License-Identifier: Apache-2.0
"""``oci`` and ``oci+http``: a blob of an OCI registry, named by its digest (``oci://registry/repository@sha256:…``)."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.cache.origin.protocol import Origin
from coppice.errors import AddressRefusedError, InputError
from coppice.formats.oci import parse_reference
from coppice.http.access import credential_for, server_anchors_for
from coppice.http.location import parse_location, show
from coppice.http.message import Validators
from coppice.http.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.http.ranges import Body, Part


class RegistryOrigin(Origin):
    """A blob. What has its digest never changes, so that parts of it always fit.

    Args:
        uri: Registry, repository and digest of the blob.
        client: Asks.
        accesses: How servers are approached.

    Raises:
        AddressRefusedError: It is no such address.
    """

    many_at_once = True

    def __init__(self, uri: str, client: Client, accesses: Sequence[Access]) -> None:
        super().__init__(client, show(uri))
        try:
            self._reference = parse_reference(uri)
        except InputError as problem:
            raise AddressRefusedError(problem.message, context={"url": self.shown}) from problem
        if self._reference.digest is None:
            raise AddressRefusedError(
                f"{self.shown} names no digest, and a file is fetched by its digest only",
                resolution="Write oci://registry/repository@sha256:… with the digest of the blob.",
                context={"url": self.shown},
            )
        self._uri = uri
        self._accesses = accesses
        self._registry: Registry | None = None
        self.host = parse_location(f"{self._reference.scheme}://{self._reference.registry}/").authority

    @contextmanager
    def open(self, part: Part, deadline: float) -> Iterator[Body]:
        """Ask for it; log in when the registry wants that."""
        if self._registry is None:
            self._registry = Registry(
                self.client,
                self._reference,
                credential=credential_for(self._uri, self._accesses),
                server_anchors=server_anchors_for(self._accesses),
            )
        # Where the bytes lie may differ from one request to the next, and what is said there of their state with it.
        with self._registry.opened(
            self._registry.url(f"blobs/{self._reference.digest}"), replace(part, known=None), deadline=deadline
        ) as body:
            yield replace(body, validators=Validators(etag=f'"{self._reference.digest}"'))
