# SPDX-License-Identifier: Apache-2.0
"""`Access`: what a site shows to the server of a list, when that server has the list's images too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import AddressRefusedError
from coppice.http.credential import resolve_credential
from coppice.http.location import parse_location

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from coppice.http.credential import Credential
    from coppice.model.credential import CredentialReference

_ASKED_AS = {"oci": "https", "oci+http": "http"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a server is approached.

    Attributes:
        url: The list's address; its scheme, host and port are the only ones that the credential is for.
        credential: Where the credential lies; it is read when it is needed.
        server_anchors: Authorities that the certificates of this list's servers may come from, beside the machine's.
    """

    url: str
    credential: CredentialReference | None = None
    server_anchors: Path | None = None


def credential_for(url: str, accesses: Iterable[Access]) -> Credential | None:
    """Return what may be shown at ``url``: a credential that was named for that very server.

    Raises:
        CredentialError: There is one, and it cannot be read.
    """
    asked = _origin(url)
    if asked is None or parse_location(url).authorization is not None:
        return None
    for access in accesses:
        if access.credential is not None and _origin(access.url) == asked:
            return resolve_credential(access.credential)
    return None


def server_anchors_for(accesses: Iterable[Access]) -> Path | None:
    """Return the first server anchors that are named; what comes from there is held against its list's signature."""
    return next((access.server_anchors for access in accesses if access.server_anchors is not None), None)


def _origin(url: str) -> tuple[str, str, int] | None:
    scheme, separator, rest = url.partition("://")
    try:
        return parse_location(f"{_ASKED_AS.get(scheme.lower(), scheme)}{separator}{rest}").origin
    except AddressRefusedError:
        return None
