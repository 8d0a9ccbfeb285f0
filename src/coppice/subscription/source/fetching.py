# SPDX-License-Identifier: Apache-2.0
"""Fetch documents of a source that has several, all from one server or folder, as the subscription says it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import HttpStatusError, StateError, TransferStalledError, UnreachableError
from coppice.http import resolve_credential
from coppice.http.location import show
from coppice.subscription.fetch import fetch_list

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.http import Client, Credential, Fetched, Validators
    from coppice.subscription.model import Subscription
    from coppice.subscription.source.protocol import SourceSupplies

_GONE = frozenset({404, 410})


class Allowance:
    """How long all of a source may take, of however many documents: as long as one transfer.

    Each request has a limit of its own, and a server that makes many of them necessary would hold up a run for ever.

    Args:
        client: Whose limit it is.
        what: Names the source in errors.
    """

    def __init__(self, client: Client, what: str) -> None:
        self._client = client
        self._what = what
        self._ends = client.deadline()

    def check(self) -> None:
        """Let the next request begin.

        Raises:
            TransferStalledError: The time is over.
        """
        if self._client.deadline(0) >= self._ends:
            raise TransferStalledError(
                f"what is at {self._what} took too long in all and was given up",
                resolution="Narrow what is taken of it, or raise transfer.total_timeout_seconds.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFetcher:
    """Fetches documents for one subscription.

    Attributes:
        client: Fetches.
        allowance: How long all of it may take.
        credential: Shown to the server; None: nothing is.
        server_anchors: Authorities that the server's certificate may come from, beside the machine's.
    """

    client: Client
    allowance: Allowance
    credential: Credential | None
    server_anchors: Path | None

    def get(self, uri: str, limit_bytes: int, validators: Validators | None = None) -> Fetched:
        """Return what lies there, unless it is what it was when ``validators`` were given.

        Raises:
            TransferError: It could not be had, whole.
            UnsignedListError: It is empty.
        """
        self.allowance.check()
        return fetch_list(
            uri,
            self.client,
            limit_bytes,
            validators=validators,
            credential=self.credential,
            server_anchors=self.server_anchors,
        )

    def get_if_there(self, uri: str, limit_bytes: int) -> bytes | None:
        """Return what lies there; None where the server, or the folder, says that nothing does.

        Raises:
            TransferError: It could not be had, whole, or whether it is there could not be found out.
            UnsignedListError: It is empty.
        """
        try:
            return self.get(uri, limit_bytes).body
        except (HttpStatusError, UnreachableError) as problem:
            if is_missing(problem):
                return None
            raise


def fetcher_of(supplies: SourceSupplies, subscription: Subscription) -> DocumentFetcher:
    """Return what fetches for a subscription.

    Raises:
        StateError: This run fetches nothing.
        CredentialError: The credential cannot be had.
    """
    if supplies.client is None:
        raise StateError("nothing can be fetched in this run")
    return DocumentFetcher(
        client=supplies.client,
        allowance=Allowance(supplies.client, show(subscription.uri)),
        credential=None if subscription.credential is None else resolve_credential(subscription.credential),
        server_anchors=subscription.server_anchors,
    )


def is_missing(problem: HttpStatusError | UnreachableError) -> bool:
    """Tell whether an error says that nothing is there, as against that it could not be found out."""
    if isinstance(problem, HttpStatusError):
        return problem.context.get("status") in _GONE
    return isinstance(problem.__cause__, FileNotFoundError)
