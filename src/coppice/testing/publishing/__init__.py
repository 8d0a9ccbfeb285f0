# SPDX-License-Identifier: Apache-2.0
"""Real servers on loopback to publish to: each is started for a test, on free ports, in a directory of its own.

`open_server` starts one by the name of the publisher's driver; a `PublishingServer` tells the options with which the
publisher reaches it, and fetches what readers would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.testing.publishing.apache import WebDavServer
from coppice.testing.publishing.folder import Folder
from coppice.testing.publishing.openssh import SftpServer
from coppice.testing.publishing.registry import RegistryServer
from coppice.testing.publishing.swift import SwiftServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.testing.publishing.server import PublishingServer

SERVERS: Mapping[str, type[PublishingServer]] = {
    "directory": Folder,
    "sftp": SftpServer,
    "webdav": WebDavServer,
    "s3": SwiftServer,
    "oci": RegistryServer,
}
"""Driver → what runs for it."""


def open_server(driver: str, directory: Path) -> PublishingServer:
    """Return the server for a publisher of that kind, not started yet; use it as a context.

    Args:
        driver: One of `SERVERS`.
        directory: Where it keeps everything; made when missing.
    """
    return SERVERS[driver](directory)
