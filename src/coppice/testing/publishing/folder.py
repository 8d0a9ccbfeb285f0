# SPDX-License-Identifier: Apache-2.0
"""A folder: what the ``directory`` publisher writes to needs no server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from coppice.testing.publishing.server import PublishingServer, partial_files


class Folder(PublishingServer):
    """A folder, read by its ``file://`` addresses."""

    def start(self) -> None:
        """Do nothing."""

    def options(self, area: str) -> dict[str, object]:
        """Return the options of a publisher that writes to a sub-folder."""
        return {"path": str(self.directory / area)}

    def leftovers(self, area: str) -> list[str]:
        """Return temporary files."""
        return partial_files(self.directory / area)

    def fetch(self, uri: str) -> bytes | None:
        """Return the file's bytes."""
        try:
            return Path(unquote(urlsplit(uri).path)).read_bytes()
        except FileNotFoundError:
            return None

    def size(self, uri: str) -> int | None:
        """Return the file's size."""
        try:
            return Path(unquote(urlsplit(uri).path)).stat().st_size
        except FileNotFoundError:
            return None
