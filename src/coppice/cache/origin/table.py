# SPDX-License-Identifier: Apache-2.0
"""Which addresses can be fetched from: the table of schemes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice.cache.origin.bucket import BucketOrigin
from coppice.cache.origin.bundle import SCHEME as BUNDLE
from coppice.cache.origin.bundle import BundleOrigin
from coppice.cache.origin.local import LocalOrigin
from coppice.cache.origin.registry import RegistryOrigin
from coppice.cache.origin.ssh import SshOrigin
from coppice.cache.origin.web import WebOrigin
from coppice.errors import AddressRefusedError
from coppice.http.location import URL_LIMIT_CHARACTERS, show

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.cache.origin.protocol import Origin
    from coppice.http import Client
    from coppice.http.access import Access

SCHEMES: dict[str, Callable[[str, Client, Sequence[Access], bool], Origin]] = {
    "http": lambda uri, client, accesses, _: WebOrigin(uri, client, accesses),
    "https": lambda uri, client, accesses, _: WebOrigin(uri, client, accesses),
    "file": lambda uri, client, _, is_allowed: LocalOrigin(uri, client, is_allowed=is_allowed),
    "oci": lambda uri, client, accesses, _: RegistryOrigin(uri, client, accesses),
    "oci+http": lambda uri, client, accesses, _: RegistryOrigin(uri, client, accesses),
    BUNDLE: lambda uri, client, _, is_allowed: BundleOrigin(uri, client, is_allowed=is_allowed),
    "s3": lambda uri, client, accesses, _: BucketOrigin(uri, client, accesses),
    "sftp": lambda uri, client, accesses, _: SshOrigin(uri, client, accesses),
}
"""Scheme → what opens such an address: address, client, accesses, whether files of this machine may be read."""


def open_origin(uri: str, *, client: Client, accesses: Sequence[Access] = (), allow_file_uris: bool = False) -> Origin:
    """Return the file at ``uri``; nothing is asked for yet.

    Args:
        uri: Its address.
        client: For limits and connections.
        accesses: How servers are approached; a credential counts for its own server only.
        allow_file_uris: Whether ``file`` addresses are read.

    Raises:
        AddressRefusedError: It is an address that nothing is fetched from.
    """
    shown = show(uri)
    if len(uri) > URL_LIMIT_CHARACTERS or any(not character.isprintable() for character in uri):
        raise AddressRefusedError(
            f"the address {shown} is too long, or contains control characters", context={"url": shown}
        )
    try:
        scheme = urlsplit(uri).scheme.lower()
    except ValueError as problem:
        raise AddressRefusedError(
            f"the address {shown} cannot be read: {problem}",
            resolution="Tell whoever publishes the list.",
            context={"url": shown},
        ) from problem
    if scheme not in SCHEMES:
        raise AddressRefusedError(
            f"the address {shown} is of no kind that can be fetched from",
            resolution=f"It begins with one of: {', '.join(f'{each}:' for each in SCHEMES if each != BUNDLE)}.",
            context={"url": shown},
        )
    return SCHEMES[scheme](uri, client, accesses, allow_file_uris)
