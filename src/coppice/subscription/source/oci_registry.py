# SPDX-License-Identifier: Apache-2.0
"""What a registry is asked: repositories, tags, manifests, small blobs, referrers. Each answer is bounded and verified.

Sources: OCI Distribution Specification 1.1; Harbor's API 2.0 (``GET /projects/{name}/repositories``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urljoin

from coppice.errors import (
    AddressRefusedError,
    DocumentError,
    HttpStatusError,
    MalformedListError,
    TransferError,
)
from coppice.formats.oci import (
    MANIFEST_LIMIT_BYTES,
    MANIFEST_MEDIA_TYPE,
    OciReference,
    is_digest,
    matches_digest,
)
from coppice.formats.oci_index import (
    INDEX_MEDIA_TYPE,
    IndexEntry,
    read_catalog,
    read_harbor_repositories,
    read_index,
    read_tags,
    referrers_tag,
)
from coppice.http import Registry, same_origin
from coppice.http.location import show
from coppice.subscription.source.fetching import Allowance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.formats.oci import OciDescriptor
    from coppice.http import Client, Credential, Reply
    from coppice.subscription.source.oci_options import OciAddress, OciOptions

_T = TypeVar("_T")

OK, NOT_FOUND = 200, 404
MOST_PAGES = 200
MOST_NAMES = 20_000
_PAGE = 100
_HEADER_LIMIT = 8192
_PAGE_LIMIT_BYTES = 2 * 1024 * 1024
_NO_REFERRERS = frozenset({400, 404, 405})
"""How registries say that they do not list referrers."""
_ACCEPT = f"{MANIFEST_MEDIA_TYPE}, {INDEX_MEDIA_TYPE}"
_NEXT = re.compile(r'<([^<>\s]{1,2048})>\s*;\s*rel="?next"?', re.IGNORECASE)


class RegistryReader:
    """Reads repositories of one registry; each is logged in to once.

    Args:
        client: For all requests.
        address: Where the repositories are.
        options: What is asked for.
        credential: Shown to the registry when it asks; None: nobody in particular.
        server_anchors: Authorities that the server's certificate may come from, beside the machine's.
    """

    def __init__(
        self,
        client: Client,
        address: OciAddress,
        options: OciOptions,
        *,
        credential: Credential | None = None,
        server_anchors: Path | None = None,
    ) -> None:
        self._client = client
        self._address = address
        self._options = options
        self._credential = credential
        self._server_anchors = server_anchors
        self._allowance = Allowance(client, address.uri(address.project))
        self._open: dict[str, Registry] = {}

    def repositories(self) -> tuple[str, ...]:
        """Return the repositories that are asked for, by their whole names.

        Raises:
            TransferError: They could not be listed.
            MalformedListError: The list is none.
        """
        project, options = self._address.project, self._options
        if options.repositories:
            prefix = f"{project}/" if project else ""
            return tuple(sorted(f"{prefix}{name}" for name in options.repositories))
        if not project and options.api != "catalog":
            raise TransferError(
                f"{self._address.root} names no project",
                resolution=f"Write oci://registry/project, which `api` = {options.api} needs.",
            )
        if options.api == "repository":
            return (project,)
        found = self._harbor(project) if options.api == "harbor" else self._catalog()
        below = tuple(sorted({name for name in found if not project or name.startswith(f"{project}/")}))
        if not below:
            raise TransferError(
                f"the registry lists no repository below {self._address.uri(project)}",
                resolution="Check the address; it may be one repository (`api` = repository), or need a credential.",
            )
        return below

    def tags(self, repository: str) -> tuple[str, ...]:
        """Return the tags of a repository.

        Raises:
            TransferError: They could not be listed; that there is no such repository is told likewise.
            MalformedListError: The list is none.
        """
        registry = self._registry(repository)

        def ask(url: str) -> Reply:
            return self._registry(repository).request("GET", url, expected={OK}, limit_bytes=_PAGE_LIMIT_BYTES)

        return tuple(sorted(set(_pages(f"{registry.url('tags/list')}?n={_PAGE}", ask, _read_tags))))

    def manifest(self, repository: str, name: str) -> bytes | None:
        """Return a manifest or an index by tag or digest; None: there is none.

        Raises:
            TransferTooLargeError: It is longer than manifests are.
            TransferError: It could not be had, or is not what its digest says.
        """
        registry = self._registry(repository)
        reply = registry.request(
            "GET",
            registry.url(f"manifests/{name}"),
            expected={OK, NOT_FOUND},
            limit_bytes=MANIFEST_LIMIT_BYTES,
            headers={"Accept": _ACCEPT},
        )
        if reply.status == NOT_FOUND:
            return None
        said = reply.header("Docker-Content-Digest")
        for digest in (name, said):
            if digest is not None and is_digest(digest) and not matches_digest(reply.body, digest):
                raise TransferError(
                    f"{show(reply.url)} is not the content with the digest {digest}",
                    resolution="Nothing of it is used. Ask whoever runs the registry.",
                    context={"url": show(reply.url), "digest": digest},
                )
        return reply.body

    def blob(self, repository: str, descriptor: OciDescriptor, limit_bytes: int) -> bytes | None:
        """Return a small blob, verified; None: there is none.

        Raises:
            TransferError: It could not be had, is too large, or is something else.
        """
        try:
            return self._registry(repository).blob(descriptor, limit_bytes=limit_bytes)
        except HttpStatusError as problem:
            if problem.context.get("status") == NOT_FOUND:
                return None
            raise

    def referrers(self, repository: str, digest: str) -> tuple[IndexEntry, ...]:
        """Return what refers to a manifest: by the registry's own list, or where it has none by the tag in its place.

        Raises:
            TransferError: It could not be had.
            MalformedListError: It is no such list.
        """
        registry = self._registry(repository)
        url = registry.url(f"referrers/{digest}")

        def ask(url: str) -> Reply:
            return self._registry(repository).request("GET", url, expected={OK}, limit_bytes=MANIFEST_LIMIT_BYTES)

        first = registry.request("GET", url, expected={OK, *_NO_REFERRERS}, limit_bytes=MANIFEST_LIMIT_BYTES)
        if first.status == OK:
            return tuple(_pages(url, ask, _read_entries, first=first))
        body = self.manifest(repository, referrers_tag(digest))
        return () if body is None else _told(url, body, _read_entries)

    def _registry(self, repository: str) -> Registry:
        self._allowance.check()
        found = self._open.get(repository)
        if found is None:
            reference = OciReference(
                scheme=self._address.scheme, registry=self._address.registry, repository=repository
            )
            found = self._open[repository] = Registry(
                self._client,
                reference,
                credential=self._credential,
                server_anchors=self._server_anchors,
            )
        return found

    def _catalog(self) -> list[str]:
        anyone = self._address.project or "any"
        url = f"{self._address.root}/v2/_catalog?n={_PAGE}"

        def ask(url: str) -> Reply:
            try:
                return self._registry(anyone).request("GET", url, expected={OK}, limit_bytes=_PAGE_LIMIT_BYTES)
            except HttpStatusError as problem:
                raise HttpStatusError(
                    f"the registry does not list its repositories: {problem.message}",
                    resolution="Name them with the option `repositories`, or use `api` = harbor where it is one.",
                    context=problem.context,
                ) from problem

        return _pages(url, ask, _read_catalog)

    def _harbor(self, project: str) -> list[str]:
        """Ask Harbor, which counts its pages and takes the credential as it is."""
        found: list[str] = []
        name = quote(project.partition("/")[0], safe="")
        base = f"{self._address.root}/api/v2.0/projects/{name}/repositories"
        for page in range(1, MOST_PAGES + 1):
            url = f"{base}?page_size={_PAGE}&page={page}"
            self._allowance.check()
            reply = self._client.request(
                "GET",
                url,
                expected={OK},
                limit_bytes=_PAGE_LIMIT_BYTES,
                credential=self._credential,
                server_anchors=self._server_anchors,
            )
            # A server may give shorter pages than were asked for: only an empty one is behind the last.
            names = _told(url, reply.body, _read_harbor)
            if not names:
                return found
            if set(names) <= set(found) or len(found) + len(names) > MOST_NAMES:
                break
            found += names
        raise _endless(base)


def _pages(
    url: str, ask: Callable[[str], Reply], read: Callable[[bytes], tuple[_T, ...]], first: Reply | None = None
) -> list[_T]:
    """Follow the pages of a list, on this server alone, each once."""
    found: list[_T] = []
    seen = {url}
    reply = ask(url) if first is None else first
    for _ in range(MOST_PAGES):
        found += _told(reply.url, reply.body, read)
        following = _NEXT.search((reply.header("Link") or "")[:_HEADER_LIMIT])
        if following is None:
            return found
        onward = urljoin(reply.url, following[1])
        if onward in seen or len(found) > MOST_NAMES:
            break
        if not same_origin(onward, url):
            raise AddressRefusedError(
                f"the registry goes on with {show(url)} at another server: {show(onward)}",
                resolution="Ask whoever runs the registry.",
                context={"url": show(url)},
            )
        seen.add(onward)
        reply = ask(onward)
    raise _endless(url)


def _told(url: str, body: bytes, read: Callable[[bytes], tuple[_T, ...]]) -> tuple[_T, ...]:
    try:
        return read(body)
    except DocumentError as problem:
        raise MalformedListError(f"{show(url)}: {problem.message}", context={"url": show(url)}) from problem


def _read_tags(body: bytes) -> tuple[str, ...]:
    return read_tags(body, max_bytes=_PAGE_LIMIT_BYTES)


def _read_catalog(body: bytes) -> tuple[str, ...]:
    return read_catalog(body, max_bytes=_PAGE_LIMIT_BYTES)


def _read_harbor(body: bytes) -> tuple[str, ...]:
    return read_harbor_repositories(body, max_bytes=_PAGE_LIMIT_BYTES)


def _read_entries(body: bytes) -> tuple[IndexEntry, ...]:
    return read_index(body).entries


def _endless(url: str) -> TransferError:
    return TransferError(
        f"the pages of {show(url)} never end, or are too many",
        details=f"up to {MOST_PAGES} pages with {MOST_NAMES} entries are read",
        resolution="Ask whoever runs the registry, or name the repositories that are wanted.",
        context={"url": show(url)},
    )
