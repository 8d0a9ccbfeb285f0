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
    from coppice.http.location import Location
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
    asked = _location(url)
    if asked is None or asked.authorization is not None:
        return None
    for access in accesses:
        known = _location(access.url)
        if access.credential is not None and known is not None and known.origin == asked.origin:
            return resolve_credential(access.credential)
    return None


def server_anchors_for(accesses: Iterable[Access]) -> Path | None:
    """Return the first server anchors that are named; what comes from there is held against its list's signature."""
    return next((access.server_anchors for access in accesses if access.server_anchors is not None), None)


def _location(url: str) -> Location | None:
    scheme, separator, rest = url.partition("://")
    try:
        return parse_location(f"{_ASKED_AS.get(scheme.lower(), scheme)}{separator}{rest}")
    except AddressRefusedError:
        return None
