# SPDX-License-Identifier: Apache-2.0
"""The transport ``webroot``: files under names that nobody can guess, in a directory that a web server serves."""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cloud.transports.content import opened
from coppice.cloud.transports.transport import Offered
from coppice.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor

_NAME = re.compile(r"coppice-[0-9a-f]{64}(\.partial)?")
_URL = re.compile(r"https?://[A-Za-z0-9._~/:\[\]-]+")
_OLD_SECONDS = 24 * 3600.0


class Webroot:
    """Puts images into a directory.

    Args:
        directory: What the web server serves.
        url: Under which address.
    """

    name = "webroot"

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self._url = url.rstrip("/")

    @contextmanager
    def offer(self, converted: ConvertedImage, monitor: Monitor) -> Iterator[Offered]:
        """Have the image in the directory as long as the context is open."""
        final = self.directory / f"coppice-{secrets.token_hex(32)}"
        partial = final.with_name(f"{final.name}.partial")
        try:
            # `opened` holds the file and follows no link; when the last piece is out, all of them have been compared.
            with opened(converted) as content, atomic.storage_errors("writing", partial):
                with partial.open("xb") as stream:
                    for piece in content.pieces(monitor, "copy"):
                        stream.write(piece)
                    os.fchmod(stream.fileno(), 0o644)
                partial.rename(final)
            yield Offered(
                path_or_url=f"{self._url}/{final.name}", checksums=content.checksums, size_bytes=content.size_bytes
            )
        finally:
            for path in (final, partial):
                path.unlink(missing_ok=True)

    def sweep(self) -> tuple[str, ...]:
        """Remove what is older than any offer."""
        removed: list[str] = []
        with atomic.storage_errors("reading", self.directory):
            found = sorted(path for path in self.directory.iterdir() if _NAME.fullmatch(path.name))
        for path in found:
            if path.is_file() and time.time() - path.lstat().st_mtime > _OLD_SECONDS:
                path.unlink(missing_ok=True)
                removed.append(str(path))
        return tuple(removed)


def open_webroot(options: Mapping[str, object]) -> Webroot:
    """Return the transport that the options describe; the entry point names this function.

    Raises:
        SettingsError: An option is missing, wrong, or not known.
    """
    unknown = sorted(set(options) - {"directory", "url"})
    if unknown:
        raise SettingsError(
            f"unknown option {unknown[0]!r}", resolution="The transport webroot takes directory and url."
        )
    directory, url = options.get("directory"), options.get("url")
    if not isinstance(directory, str) or not directory.startswith("/"):
        raise SettingsError("the option `directory` must be an absolute path")
    if not isinstance(url, str) or _URL.fullmatch(url) is None:
        raise SettingsError("the option `url` must be an address like http://www.example.org/images")
    return Webroot(Path(directory), url)
