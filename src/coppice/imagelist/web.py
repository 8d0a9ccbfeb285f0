# SPDX-License-Identifier: Apache-2.0
"""`Web`: Coppice's HTTP client as publishers use it: with who asks, and errors that name the place."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.errors import HttpStatusError, PublicationError, TransferCutError, TransferTooLargeError
from coppice.http.client import Client
from coppice.http.credential import resolve_credential
from coppice.imagelist.place import Facts
from coppice.settings.model import TransferSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from coppice.http.credential import Credential
    from coppice.http.message import BodyFile, Reply
    from coppice.model.credential import CredentialReference
    from coppice.monitor import Task
    from coppice.settings.driver_options import Options

ANSWER_LIMIT_BYTES = 1024 * 1024
"""Longest answer to a request whose body nobody needs."""
_REASONS = {
    401: ("does not know who asks", "Check the credential in the publisher's settings."),
    403: ("does not allow it", "Check the credential, and what its owner may write at the server."),
    405: ("does not offer it", "Check that the URL leads to a server of this kind, with writing allowed."),
    409: ("says that the folder is missing", "Make the folder at the server, or correct the URL."),
    413: ("says that it is too large", "Ask whoever runs the server for its limit."),
    423: ("says that it is locked", "Wait until whoever holds the lock releases it."),
    429: ("asks for fewer requests", "Publish again later."),
    507: ("is full", "Free space there, or ask for a larger quota; then publish again."),
}
_DEFAULTS = TransferSettings(
    list_size_limit_bytes=16 * 1024 * 1024,
    image_size_limit_bytes=64 * 1024**3,
    connect_timeout_seconds=10.0,
    read_timeout_seconds=60.0,
    minimum_rate_bytes_per_second=1024,
    total_timeout_seconds=21600.0,
    attempts=3,
    allow_private_addresses=False,
)


class Web:
    """Asks a place's server.

    Args:
        client: Has the rules of this site.
        credential: How the server is shown who asks; read when the first request is made.
        server_anchors: Authorities that the server's certificate may come from, beside the machine's.
    """

    def __init__(self, client: Client, credential: CredentialReference | None, server_anchors: Path | None) -> None:
        self.client = client
        self._reference = credential
        self._credential: Credential | None = None
        self.server_anchors = server_anchors

    @classmethod
    def of(cls, options: Options) -> Web:
        """Return it as the options of a publisher say; the caller may go on asking for options."""
        transfer = options.transfer or _DEFAULTS
        if options.switch("allow_private_addresses", default=transfer.allow_private_addresses):
            transfer = replace(transfer, allow_private_addresses=True)
        return cls(Client(transfer), options.credential(), options.optional_path("server_anchors"))

    def credential(self) -> Credential | None:
        """Return how the server is shown who asks.

        Raises:
            CredentialError: The secret cannot be read.
        """
        if self._credential is None and self._reference is not None:
            self._credential = resolve_credential(self._reference)
        return self._credential

    def ask(
        self,
        method: str,
        url: str,
        *,
        expected: Collection[int],
        limit_bytes: int = ANSWER_LIMIT_BYTES,
        body: bytes | BodyFile | None = None,
        headers: Mapping[str, str] | None = None,
        credential: Credential | None = None,
        retry: bool = False,
        task: Task | None = None,
    ) -> Reply:
        """Send one request; ``credential`` takes the place of the place's own.

        Raises:
            PublicationError: The server answered otherwise than expected.
            TransferError: It did not answer.
        """
        try:
            return self.client.request(
                method,
                url,
                expected=expected,
                limit_bytes=limit_bytes,
                body=body,
                headers=headers,
                credential=credential or self.credential(),
                server_anchors=self.server_anchors,
                retry=retry,
                monitor_task=task,
            )
        except HttpStatusError as problem:
            raise refused(problem) from problem

    def facts(self, url: str, size_bytes: int, task: Task | None, credential: Credential | None = None) -> Facts | None:
        """Read what is at ``url`` and say what it is; None when it has not that size.

        Raises:
            PublicationError: The server refused.
            TransferError: It could not be read.
        """
        digest = hashlib.sha512()

        def restart() -> None:
            nonlocal digest
            digest = hashlib.sha512()

        try:
            self.client.download(
                url,
                expected_size_bytes=size_bytes,
                sink=lambda piece: digest.update(piece),  # noqa: PLW0108 - the digest is made anew by a restart
                monitor_task=task,
                restart=restart,
                credential=credential or self.credential(),
                server_anchors=self.server_anchors,
            )
        except TransferTooLargeError:
            return None
        except TransferCutError as problem:
            if problem.context.get("complete"):
                return None
            raise
        except HttpStatusError as problem:
            raise refused(problem) from problem
        return Facts(size_bytes=size_bytes, sha512=digest.hexdigest())


def refused(problem: HttpStatusError) -> PublicationError:
    """Return the error for an answer that was not expected; ``context["status"]`` is its status."""
    status, host = problem.context.get("status"), problem.context.get("host")
    reason, resolution = _REASONS.get(status if isinstance(status, int) else 0, ("answered otherwise", None))
    return PublicationError(
        f"{host} {reason}: {problem.context.get('method')} {problem.context.get('url')} gave {status}",
        details=problem.details,
        resolution=resolution or "What is published stays as it is. Ask whoever runs the server.",
        context=problem.context,
    )
