# SPDX-License-Identifier: Apache-2.0
"""`Registry`: requests to one repository of an OCI registry, with the login that registries ask for.

Sources: OCI Distribution Specification 1.1; "Token Authentication Specification" of the Distribution project. A
registry answers 401 and says where a token is to be had. The credential goes there only where that is the registry's
own server, or one that was named for it; a token from elsewhere is asked for without it.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urljoin, urlsplit

from coppice.errors import AddressRefusedError, CredentialError, DocumentError, HttpStatusError, TransferError
from coppice.formats.oci import MANIFEST_LIMIT_BYTES, MANIFEST_MEDIA_TYPE, OciDescriptor, is_digest, matches_digest
from coppice.formats.strict_json import read_json
from coppice.http import failures
from coppice.http.client import Client, same_origin
from coppice.http.credential import Credential
from coppice.http.location import parse_location, show
from coppice.model.credential import CredentialKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from coppice.formats.oci import OciReference
    from coppice.http.message import BodyFile, Reply
    from coppice.http.ranges import Body, Part
    from coppice.monitor import Task

_UNAUTHORIZED = 401
_TOKEN_LIMIT_BYTES = 64 * 1024
_REFUSAL_LIMIT_BYTES = 64 * 1024
"""How long the explanation of a refusal may be, where the answer itself must be shorter."""
_HEADER_LIMIT = 4096
_REALM = re.compile(r"https?://[^\s@?#]+")
_CHALLENGE = re.compile(r"(?:^|,)\s*(bearer|basic)(?:\s+|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'([A-Za-z_]{1,20})\s*=\s*"([^"\\]{0,2048})"')


class Registry:
    """Asks one repository; a login lasts as long as the object. Not for several threads.

    Args:
        client: For all requests.
        reference: Registry and repository; tag and digest do not count.
        credential: Shown to the registry when it asks; None: nobody in particular.
        server_anchors: Authorities that the server's certificate may come from, beside the machine's.
        token_server: URL of another server that the credential may be shown to, for a token; None: there is none.
        writes: Whether the repository is written to. Then the credential is shown from the first request on, since a
            registry may tell strangers that there is nothing; and a token is asked for with all scopes that the
            registry named, which knows what it wants for a deletion. Else with the right to pull alone.
    """

    def __init__(
        self,
        client: Client,
        reference: OciReference,
        *,
        credential: Credential | None = None,
        server_anchors: Path | None = None,
        token_server: str | None = None,
        writes: bool = False,
    ) -> None:
        self._client = client
        self._repository = reference.repository
        self._root = f"{reference.scheme}://{reference.registry}/v2/"
        self._credential = credential
        self._server_anchors = server_anchors
        self._trusted = (self._root,) if token_server is None else (self._root, token_server)
        self._writes = writes
        self._scopes: list[str] = []
        self._logging_in = threading.Lock()
        # A password waits until the registry says what it is for: with a token, it need not see every request.
        is_password = credential is not None and credential.kind is CredentialKind.BASIC
        self._shown = None if is_password and not writes else credential

    @property
    def shown(self) -> Credential | None:
        """How the registry is shown who asks, as far as it asked: the credential, or a token that was had for it."""
        return self._shown

    def url(self, path: str) -> str:
        """Return the URL of ``path`` below the repository (``manifests/latest``, ``blobs/uploads/``)."""
        return urljoin(self._root, f"{quote(self._repository, safe='/._-')}/{path}")

    def request(
        self,
        method: str,
        url: str,
        *,
        expected: Collection[int],
        limit_bytes: int,
        body: bytes | BodyFile | None = None,
        headers: Mapping[str, str] | None = None,
        retry: bool = False,
        monitor_task: Task | None = None,
    ) -> Reply:
        """Send one request, and log in if the registry asks; see `Client.request`.

        Args:
            method: See there.
            url: Of this registry, or one that it gave; another server's is asked without a login.
            expected: See there.
            limit_bytes: See there.
            body: See there.
            headers: See there.
            retry: See there.
            monitor_task: See there.

        Raises:
            HttpStatusError: Another status than expected.
            CredentialError: The registry wants the credential to be shown to another server.
            TransferError: There was no answer, or no token. Where the server that gives tokens is at fault, and was
                not asked or gave none, ``context["token_server"]`` has its URL; the same for `CredentialError`.
        """
        own = same_origin(url, self._root)
        for attempt in range(2):
            reply = self._client.request(
                method,
                url,
                expected={*expected, _UNAUTHORIZED},
                limit_bytes=max(limit_bytes, _REFUSAL_LIMIT_BYTES),
                body=body,
                headers=headers,
                credential=self._shown if own else None,
                server_anchors=self._server_anchors,
                retry=retry,
                monitor_task=monitor_task,
            )
            if reply.status != _UNAUTHORIZED or _UNAUTHORIZED in expected:
                if len(reply.body) > limit_bytes:
                    raise failures.too_large(parse_location(reply.url), limit_bytes)
                return reply
            if attempt or not own or not self._log_in(reply.header("WWW-Authenticate")):
                break
        raise self._not_allowed(method, url)

    @contextmanager
    def opened(self, url: str, part: Part, *, deadline: float) -> Iterator[Body]:
        """Ask once for a part of what is at ``url``, and log in if the registry asks; see `Client.opened`.

        Unlike all else here, it is for several threads.

        Args:
            url: Of this registry.
            part: See there.
            deadline: See there.

        Raises:
            CredentialError: The registry wants the credential to be shown to another server.
            TransferError: There was no answer, another part, or no token.
        """
        for attempt in range(2):
            shown = self._shown
            with self._client.opened(
                url,
                part,
                deadline=deadline,
                credential=shown,
                server_anchors=self._server_anchors,
                also={_UNAUTHORIZED},
            ) as body:
                if body.status != _UNAUTHORIZED:
                    yield body
                    return
                challenge = body.headers.get("www-authenticate")
            with self._logging_in:
                # Another thread may have logged in meanwhile.
                if attempt or (self._shown is shown and not self._log_in(challenge)):
                    break
        raise self._not_allowed("GET", url)

    def manifest(self, name: str, *, digest: str | None = None) -> Reply:
        """Return the manifest ``name`` (a tag or a digest), whose digest is verified if one is known.

        Raises:
            TransferError: It could not be had, or is not what ``digest`` says.
        """
        reply = self.request(
            "GET",
            self.url(f"manifests/{name}"),
            expected={200},
            limit_bytes=MANIFEST_LIMIT_BYTES,
            headers={"Accept": MANIFEST_MEDIA_TYPE},
        )
        if digest is not None and not matches_digest(reply.body, digest):
            raise _other_content(reply.url, digest)
        said = reply.header("Docker-Content-Digest")
        if said is not None and is_digest(said) and not matches_digest(reply.body, said):
            raise _other_content(reply.url, said)
        return reply

    def blob(self, descriptor: OciDescriptor, *, limit_bytes: int) -> bytes:
        """Return what ``descriptor`` points to, verified.

        Raises:
            TransferTooLargeError: It is longer than the limit, or than the descriptor says.
            TransferError: It could not be had, or is something else.
        """
        url = self.url(f"blobs/{descriptor.digest}")
        reply = self.request("GET", url, expected={200}, limit_bytes=min(limit_bytes, descriptor.size_bytes))
        if len(reply.body) != descriptor.size_bytes or not matches_digest(reply.body, descriptor.digest):
            raise _other_content(url, descriptor.digest)
        return reply.body

    def _not_allowed(self, method: str, url: str) -> HttpStatusError:
        return HttpStatusError(
            f"the registry answered 401 for {show(url)}: not allowed",
            resolution="Name a credential that the registry knows, and that may do this."
            if self._credential is None
            else "The credential is not the right one, or it may not do this.",
            context={"url": show(url), "method": method, "status": _UNAUTHORIZED},
        )

    def _log_in(self, challenge: str | None) -> bool:
        """Do what the registry asks for; False: there is nothing more to show."""
        schemes = _challenges(challenge or "")
        if "bearer" in schemes:
            self._shown = self._token(schemes["bearer"])
            return True
        is_password = self._credential is not None and self._credential.kind is CredentialKind.BASIC
        if "basic" not in schemes or not is_password or self._shown is self._credential:
            return False
        self._shown = self._credential
        return True

    def _token(self, parameters: Mapping[str, str]) -> Credential:
        realm = parameters.get("realm", "")
        self._check_realm(realm)
        credential = self._credential
        answer = self._client.request(
            "GET",
            f"{realm}?{urlencode(self._wanted(parameters))}",
            expected={200},
            limit_bytes=_TOKEN_LIMIT_BYTES,
            credential=credential,
            server_anchors=self._server_anchors,
        ).body
        try:
            said = read_json(answer, what="registry's token")
            token = said.get("token") or said.get("access_token")
            found = Credential.bearer(token if isinstance(token, str) else "")
        except (DocumentError, CredentialError):
            # Without what was said: it may be a token nevertheless.
            raise TransferError(
                f"what {show(realm)} gave is no token", context={"url": show(realm), "token_server": show(realm)}
            ) from None
        certificate = None if credential is None else credential.certificate
        return Credential(kind=CredentialKind.BEARER, authorization=found.authorization, certificate=certificate)

    def _check_realm(self, realm: str) -> None:
        """Refuse a server that only the registry names: it gets no credential, and nothing without TLS."""
        if not _REALM.fullmatch(realm):
            raise _bad_realm(realm, "is no plain http or https URL")
        if any(same_origin(realm, each) for each in self._trusted):
            return
        context = {"url": show(realm), "token_server": show(realm)}
        if urlsplit(realm).scheme != "https":
            raise _bad_realm(realm, "is another server, without https", context)
        if self._credential is not None:
            raise CredentialError(
                f"the registry {show(self._root)} wants the credential shown to another server: {show(realm)}",
                resolution="A credential is shown only to the server that it was named for. Use the registry "
                "without one, or one that gives tokens itself.",
                context=context,
            )

    def _wanted(self, parameters: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the query for a token."""
        scope = f"repository:{self._repository}:pull"
        if self._writes:
            scope = parameters.get("scope") or f"{scope},push"
        if scope not in self._scopes:
            self._scopes.append(scope)
        service = [("service", parameters["service"])] if "service" in parameters else []
        return service + [("scope", each) for each in self._scopes]


def _challenges(header: str) -> dict[str, dict[str, str]]:
    """Return the schemes that a WWW-Authenticate header names (RFC 9110, 11.6.1), with their quoted parameters."""
    found: dict[str, dict[str, str]] = {}
    text = header[:_HEADER_LIMIT]
    starts = list(_CHALLENGE.finditer(text))
    for position, start in enumerate(starts):
        end = starts[position + 1].start() if position + 1 < len(starts) else len(text)
        part = text[start.end() : end]
        parameters = {name.lower(): value for name, value in _PARAMETER.findall(part)}
        found.setdefault(start[1].lower(), parameters)
    return found


def _bad_realm(realm: str, reason: str, context: Mapping[str, str] | None = None) -> AddressRefusedError:
    return AddressRefusedError(
        f"the registry sends for a token to {show(realm)}, which {reason}",
        resolution="Ask whoever runs the registry.",
        context=context or {"url": show(realm)},
    )


def _other_content(url: str, digest: str) -> TransferError:
    return TransferError(
        f"{show(url)} is not the content with the digest {digest}",
        resolution="Nothing of it is used. Ask whoever runs the registry.",
        context={"url": show(url), "digest": digest},
    )
