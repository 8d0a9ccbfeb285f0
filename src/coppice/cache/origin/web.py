# SPDX-License-Identifier: Apache-2.0
"""``http`` and ``https``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cache.origin.protocol import Origin
from coppice.http.access import credential_for, server_anchors_for
from coppice.http.location import parse_location, show

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.http.ranges import Body, Part


class WebOrigin(Origin):
    """A file of a web server.

    Args:
        uri: Its URL.
        client: Asks.
        accesses: How servers are approached; a credential counts for its own server only.

    Raises:
        AddressRefusedError: The URL cannot be asked for.
    """

    many_at_once = True

    def __init__(self, uri: str, client: Client, accesses: Sequence[Access]) -> None:
        super().__init__(client, show(uri))
        self.host = parse_location(uri).authority
        self._uri = uri
        self._accesses = accesses

    def open(self, part: Part, deadline: float) -> AbstractContextManager[Body]:
        """Ask for it."""
        return self.client.opened(
            self._uri,
            part,
            deadline=deadline,
            credential=credential_for(self._uri, self._accesses),
            server_anchors=server_anchors_for(self._accesses),
        )
