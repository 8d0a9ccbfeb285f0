# SPDX-License-Identifier: Apache-2.0
"""What a web server shows of a directory (as nginx, Apache, lighttpd and Python do): the names in it, and nothing else.

There is no standard. A link counts when it is a single name below the page; all others are passed over: to the parent,
to another order of the same page, to another place.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from urllib.parse import unquote

from coppice.errors import DocumentError
from coppice.formats.limits import MIB

MAX_BYTES = 8 * MIB
MAX_NAMES = 20_000
_LINK = re.compile(
    r"""<a\b[^<>]{0,256}?\bhref\s{0,4}=\s{0,4}(?:"([^"<>]{1,1024})"|'([^'<>]{1,1024})')""", re.IGNORECASE
)
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\?#:%]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryListing:
    """The names in a directory.

    Attributes:
        directories: Without the slash at their end.
        files: All others.
    """

    directories: tuple[str, ...]
    files: tuple[str, ...]


def read_listing(page: bytes) -> DirectoryListing:
    """Return the names that a page shows.

    Raises:
        DocumentError: It is no page of links, or larger than any of use.
    """
    if len(page) > MAX_BYTES:
        raise DocumentError(f"the page of the directory is longer than {MAX_BYTES} bytes")
    directories: dict[str, None] = {}
    files: dict[str, None] = {}
    text = page.decode("utf-8", errors="replace")
    for link in _LINK.finditer(text):
        written = html.unescape(link[1] or link[2]).removeprefix("./")
        name = checked_name(unquote(written.removesuffix("/"), errors="replace"))
        if name is not None:
            (directories if written.endswith("/") else files)[name] = None
        if len(directories) + len(files) > MAX_NAMES:
            raise DocumentError(f"the page of the directory shows more than {MAX_NAMES} names")
    if not _LINK.search(text):
        raise DocumentError("what the server shows of the directory is no page with links")
    return DirectoryListing(directories=tuple(directories), files=tuple(files))


def checked_name(name: str) -> str | None:
    """Return a name that is one; None for what leads elsewhere, or could be taken for something else."""
    is_name = _NAME.fullmatch(name) is not None and name.isprintable() and name == name.strip()
    return name if is_name and name not in {".", ".."} else None
