# SPDX-License-Identifier: Apache-2.0
"""`WritableRepository`: a repository of an OCI registry as publishers write it (OCI Distribution Specification 1.1).

Blobs and manifests are known by their digest, which the registry verifies when they are put; a tag is a name that is
moved in one step. The login is that of `coppice.http.registry`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from coppice.errors import (
    AddressRefusedError,
    CredentialError,
    DocumentError,
    HttpStatusError,
    PublicationError,
    TransferError,
)
from coppice.formats.oci import (
    EMPTY_BYTES,
    MANIFEST_LIMIT_BYTES,
    MANIFEST_MEDIA_TYPE,
    OciManifest,
    digest_of,
    matches_digest,
    read_manifest,
    write_manifest,
)
from coppice.formats.strict_json import read_json
from coppice.http.client import same_origin
from coppice.http.message import BodyFile
from coppice.http.registry import Registry
from coppice.imagelist.place import SMALL_LIMIT_BYTES
from coppice.imagelist.web import ANSWER_LIMIT_BYTES, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from coppice.formats.oci import OciReference
    from coppice.http.credential import Credential
    from coppice.http.message import Reply
    from coppice.imagelist.web import Web
    from coppice.monitor import Task

OK, CREATED, ACCEPTED, NO_CONTENT = 200, 201, 202, 204
UNAUTHORIZED, NOT_FOUND = 401, 404
PAGE = 1000
MOST_PAGES = 1000
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_STALE_SESSION = frozenset({400, 404, 416})
"""What a registry says of an upload that it forgot, or that stands elsewhere than was thought."""


class WritableRepository:
    """A repository.

    Args:
        reference: Registry and repository; tag and digest do not count.
        web: Knows the client, and how the registry is shown who asks.
        chunk_bytes: How much of a blob goes in one request.
        token_server: URL of another server that the credential may be shown to, for a token; None: there is none.
    """

    def __init__(self, reference: OciReference, web: Web, *, chunk_bytes: int, token_server: str | None = None) -> None:
        self.url = f"{reference.scheme}://{reference.registry}/v2/{reference.repository}"
        self._reference = reference
        self._web = web
        self._chunk_bytes = chunk_bytes
        self._token_server = token_server
        # Made for the first request: only then is the secret read.
        self._registry: Registry | None = None

    def tags(self) -> tuple[str, ...]:
        """Return all tags.

        Raises:
            PublicationError: The registry refused, or what it says is no list of tags.
            TransferError: It cannot be reached.
        """
        found: list[str] = []
        url = f"{self.url}/tags/list?n={PAGE}"
        for _ in range(MOST_PAGES):
            reply = self._ask("GET", url, expected=(OK, NOT_FOUND), limit_bytes=SMALL_LIMIT_BYTES)
            if reply.status == NOT_FOUND:
                return ()
            found += _tags(reply.body, url)
            following = _NEXT.search(reply.header("link") or "")
            if following is None:
                return tuple(found)
            url = self._own(following[1], url)
        raise PublicationError(f"{self.url} has more than {MOST_PAGES} pages of tags")

    def manifest(self, tag: str) -> tuple[OciManifest, str] | None:
        """Return the manifest that a tag names, and its digest; None when there is none.

        Raises:
            PublicationError: The registry refused, or what it has is no such manifest.
            TransferError: It cannot be reached.
        """
        reply = self._ask(
            "GET",
            f"{self.url}/manifests/{tag}",
            expected=(OK, NOT_FOUND),
            limit_bytes=MANIFEST_LIMIT_BYTES,
            headers={"Accept": MANIFEST_MEDIA_TYPE},
        )
        if reply.status == NOT_FOUND:
            return None
        try:
            return read_manifest(reply.body), digest_of(reply.body)
        except DocumentError as problem:
            raise PublicationError(f"{self.url}:{tag}: {problem.message}", resolution=problem.resolution) from problem

    def put_manifest(self, tag: str, manifest: OciManifest) -> str:
        """Have a tag name a manifest, in one step; return its digest."""
        self.put_bytes(EMPTY_BYTES)
        body = write_manifest(manifest)
        headers = {"Content-Type": MANIFEST_MEDIA_TYPE}
        url = f"{self.url}/manifests/{tag}"
        self._ask("PUT", url, expected=(OK, CREATED), body=body, headers=headers, retry=True)
        return digest_of(body)

    def remove_manifest(self, digest: str) -> None:
        """Delete a manifest, and with it all tags that name it; one that is not there is fine."""
        self._ask("DELETE", f"{self.url}/manifests/{digest}", expected=(OK, ACCEPTED, NOT_FOUND))

    def blob_size(self, digest: str) -> int | None:
        """Return the size of a blob; None when it is not there.

        Raises:
            PublicationError: The registry does not say it.
        """
        reply = self._ask("HEAD", self.blob_url(digest), expected=(OK, NOT_FOUND))
        if reply.status == NOT_FOUND:
            return None
        length = reply.header("content-length") or ""
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise PublicationError(f"{self.url} does not say how long the blob {digest} is")
        return int(length)

    def blob_url(self, digest: str) -> str:
        """Return where a blob is fetched."""
        return f"{self.url}/blobs/{digest}"

    def blob(self, digest: str, size_bytes: int) -> bytes:
        """Return a small blob.

        Raises:
            PublicationError: It is not what its digest says.
        """
        limit = min(size_bytes, SMALL_LIMIT_BYTES)
        data = self._ask("GET", self.blob_url(digest), expected=(OK,), limit_bytes=limit).body
        if len(data) != size_bytes or not matches_digest(data, digest):
            raise PublicationError(f"{self.url} serves other bytes than the digest {digest} says")
        return data

    def credential(self) -> Credential | None:
        """Return how this registry is shown who asks, after it was asked something."""
        return self._web.credential() if self._registry is None else self._registry.shown

    def put_bytes(self, data: bytes) -> None:
        """Put a small blob, unless it is there."""
        digest = digest_of(data)
        if self.blob_size(digest) is None:
            location = self.begin()
            self._ask(
                "PUT", _with_digest(location, digest), expected=(CREATED,), body=data, headers=_OCTETS, retry=True
            )

    def begin(self) -> str:
        """Begin an upload and return where it goes on."""
        reply = self._ask("POST", f"{self.url}/blobs/uploads/", expected=(ACCEPTED,), body=b"")
        return self._location(reply)

    def progress(self, location: str) -> tuple[str, int] | None:
        """Return where an upload goes on and how many bytes of it are there; None when the registry forgot it."""
        try:
            reply = self._ask("GET", self._own(location, self.url), expected=(NO_CONTENT,))
        except PublicationError as problem:
            if problem.context.get("status") in _STALE_SESSION:
                return None
            raise
        match = _RANGE.fullmatch(reply.header("range") or "")
        # "0-0" is what registries say of one byte, and of none: no upload stops after one byte.
        there = int(match[1]) + 1 if match is not None and match[1] != "0" else 0
        return self._location(reply, location), there

    def cancel(self, location: str) -> None:
        """Give an upload up; one that the registry forgot is fine."""
        own = self._own(location, self.url)
        self._ask("DELETE", own, expected=(OK, ACCEPTED, NO_CONTENT, *_STALE_SESSION, 405))

    def put_file(
        self,
        source: Path,
        size_bytes: int,
        digest: str,
        *,
        go_on: tuple[str, int],
        moved: Callable[[str], object],
        task: Task,
    ) -> bool:
        """Put a file as a blob; False when the upload must be begun anew.

        Args:
            source: The file.
            size_bytes: Its size.
            digest: Its digest; the registry verifies it.
            go_on: Where the upload goes on, and how much of it is there.
            moved: Told where it goes on after each piece.
            task: Told how many bytes are there.

        Raises:
            PublicationError: The registry refused.
            TransferError: The connection failed.
        """
        location, offset = go_on
        resumed = offset > 0
        try:
            while offset < size_bytes:
                size = min(self._chunk_bytes, size_bytes - offset)
                reply = self._ask(
                    "PATCH",
                    location,
                    expected=(ACCEPTED,),
                    body=BodyFile(path=source, size_bytes=size, offset_bytes=offset),
                    headers={**_OCTETS, "Content-Range": f"{offset}-{offset + size - 1}"},
                )
                location, offset = self._location(reply, location), offset + size
                task.reach(offset, size_bytes)
                moved(location)
            self._ask("PUT", _with_digest(location, digest), expected=(CREATED,), body=b"")
        except PublicationError as problem:
            # An upload that was gone on with may not be what was thought; a new one is.
            if resumed and problem.context.get("status") in _STALE_SESSION:
                return False
            raise
        return True

    def _location(self, reply: Reply, base: str | None = None) -> str:
        header = reply.header("location")
        if header is None:
            raise PublicationError(f"{self.url} does not say where an upload goes on")
        return self._own(header, base or reply.url)

    def _own(self, location: str, base: str) -> str:
        """Refuse to go on at another server: credentials and content are for this one."""
        url = urljoin(base, location)
        if not same_origin(url, self.url):
            raise PublicationError(
                f"{self.url} wants to be written at {urlsplit(url).netloc}",
                resolution="Coppice writes only to the registry that the settings name.",
            )
        return url

    def _ask(
        self,
        method: str,
        url: str,
        *,
        expected: Collection[int],
        limit_bytes: int = ANSWER_LIMIT_BYTES,
        body: bytes | BodyFile | None = None,
        headers: Mapping[str, str] | None = None,
        retry: bool = False,
    ) -> Reply:
        """Send a request, in a publisher's words when it fails."""
        if self._registry is None:
            self._registry = Registry(
                self._web.client,
                self._reference,
                credential=self._web.credential(),
                server_anchors=self._web.server_anchors,
                token_server=self._token_server,
                writes=True,
            )
        try:
            return self._registry.request(
                method, url, expected=expected, limit_bytes=limit_bytes, body=body, headers=headers, retry=retry
            )
        except HttpStatusError as problem:
            if problem.context.get("status") != UNAUTHORIZED:
                raise refused(problem) from problem
            raise PublicationError(
                f"{self.url} does not let this user in: {method} gave {UNAUTHORIZED}",
                details=problem.message,
                resolution="Check the credential in the publisher's settings, and what its owner may do.",
                context=problem.context,
            ) from problem
        except (TransferError, CredentialError) as problem:
            if "token_server" not in problem.context:
                raise
            is_foreign = isinstance(problem, AddressRefusedError | CredentialError)
            raise PublicationError(
                f"{self.url} gives no access: {problem.message}",
                resolution=_NAME_IT if is_foreign else problem.resolution,
                context=problem.context,
            ) from problem


_OCTETS = {"Content-Type": "application/octet-stream"}
_NAME_IT = "If the credential is meant for that server too, name its URL as `token_server` in the publisher's settings."


def _tags(body: bytes, url: str) -> list[str]:
    try:
        tags = read_json(body, what="list of tags", max_bytes=SMALL_LIMIT_BYTES).get("tags")
    except DocumentError as problem:
        raise PublicationError(f"{url}: {problem.message}") from problem
    if tags is None:
        return []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise PublicationError(f"{url}: the registry's list of tags is none")
    return tags


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': digest})}"
