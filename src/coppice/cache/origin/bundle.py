# SPDX-License-Identifier: Apache-2.0
"""``bundle``: a file that a bundle carries (docs/formats/bundle.md); only where whoever calls allows local files.

``bundle:///path?NUMBER`` is file NUMBER of the bundle at that path. Of some files only parts are carried.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from coppice.cache.origin.protocol import Origin
from coppice.errors import AddressRefusedError, BundleError, UnreachableError
from coppice.formats.bundle import read_layout, read_pieces
from coppice.http.location import show
from coppice.http.message import Validators
from coppice.http.ranges import Body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.formats.bundle import BundledFile, BundleLayout
    from coppice.http import Client
    from coppice.http.ranges import Part

SCHEME = "bundle"


def bundle_uri(path: Path, number: int) -> str:
    """Return the address of file ``number`` of a bundle."""
    return f"{SCHEME}://{quote(str(path.absolute()))}?{number}"


def open_bundle(path: Path) -> BinaryIO:
    """Return an open bundle.

    Raises:
        BundleError: It is no regular file, or cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as problem:
        raise BundleError(f"the bundle {path} cannot be read", details=str(problem)) from problem
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BundleError(f"the bundle {path} is no regular file")
    return os.fdopen(handle, "rb")


class BundleOrigin(Origin):
    """A file that a bundle carries, or parts of one.

    Args:
        uri: As `bundle_uri` makes it.
        client: For attempts and time.
        is_allowed: Whether local files are read at all.

    Raises:
        AddressRefusedError: They are not.
    """

    def __init__(self, uri: str, client: Client, *, is_allowed: bool) -> None:
        super().__init__(client, show(uri))
        parts = urlsplit(uri)
        if not is_allowed or parts.netloc or not parts.query.isdecimal() or len(parts.query) > 6:  # noqa: PLR2004 - digits of a number
            raise AddressRefusedError(
                f"the image is listed at {self.shown}, and bundles are not read for it", context={"url": self.shown}
            )
        self._path = Path(unquote(parts.path))
        self._number = int(parts.query)
        self._known: tuple[tuple[int, ...], BundleLayout] | None = None

    @contextmanager
    def open(self, part: Part, deadline: float) -> Iterator[Body]:
        """Read it."""
        try:
            with open_bundle(self._path) as stream:
                layout = self._layout(stream)
                if self._number >= len(layout.manifest.files):
                    raise self._missing("it carries no such file")
                file = layout.manifest.files[self._number]
                end = file.whole_bytes if part.end is None else min(part.end, file.whole_bytes)
                yield Body(
                    status=200,
                    start=part.start,
                    end=end,
                    validators=Validators(etag=f'"{file.content.hexdigest}"'),
                    takes_ranges=True,
                    pieces=self._pieces(stream, layout.file_at(self._number), file, part.start, end),
                    shown=self.shown,
                )
        except BundleError as problem:
            raise self._missing(problem.message) from problem

    def _layout(self, stream: BinaryIO) -> BundleLayout:
        state = os.fstat(stream.fileno())
        fingerprint = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if self._known is None or self._known[0] != fingerprint:
            self._known = (fingerprint, read_layout(stream))
        return self._known[1]

    def _pieces(self, stream: BinaryIO, offset: int, file: BundledFile, start: int, end: int) -> Iterator[bytes]:
        ranges = file.ranges if file.ranges is not None else ((0, file.whole_bytes),)
        starts = [first for first, _ in ranges]
        before = [0]
        for _, length in ranges:
            before.append(before[-1] + length)
        while start < end:
            place = bisect_right(starts, start) - 1
            if place < 0 or start >= sum(ranges[place]):
                raise self._missing(f"it does not carry the bytes from {start} on")
            first, length = ranges[place]
            taken = min(end, first + length) - start
            yield from read_pieces(stream, offset + before[place] + start - first, taken)
            start += taken

    def _missing(self, why: str) -> UnreachableError:
        return UnreachableError(f"{self.shown} cannot be read", details=why, context={"url": self.shown, "final": True})
