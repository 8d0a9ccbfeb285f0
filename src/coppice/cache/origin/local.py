# SPDX-License-Identifier: Apache-2.0
"""``file``: only where whoever calls allows it, since lists come from elsewhere."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coppice.cache.origin.protocol import Origin
from coppice.errors import AddressRefusedError, UnreachableError
from coppice.http.location import show
from coppice.http.message import Validators
from coppice.http.ranges import Body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.http import Client
    from coppice.http.ranges import Part

_PIECE_BYTES = 1024 * 1024


class LocalOrigin(Origin):
    """A regular file of this machine.

    Args:
        uri: ``file:///path``.
        client: For attempts and time.
        is_allowed: Whether such addresses are read at all.

    Raises:
        AddressRefusedError: They are not, or it names another machine.
    """

    def __init__(self, uri: str, client: Client, *, is_allowed: bool) -> None:
        super().__init__(client, show(uri))
        parts = urlsplit(uri)
        if not is_allowed or parts.netloc not in {"", "localhost"}:
            raise AddressRefusedError(
                f"the image is listed at {self.shown}, and files of this machine are not read for it",
                resolution="Only lists that come from this machine may name its files.",
                context={"url": self.shown},
            )
        self._path = Path(unquote(parts.path))

    @contextmanager
    def open(self, part: Part, deadline: float) -> Iterator[Body]:
        """Read it."""
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (OSError, ValueError) as problem:
            raise self._unreadable(str(problem)) from problem
        try:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise self._unreadable("it is no regular file")
            end = state.st_size if part.end is None else min(part.end, state.st_size)
            tag = f'"{state.st_dev:x}-{state.st_ino:x}-{state.st_size:x}-{state.st_mtime_ns:x}-{state.st_ctime_ns:x}"'
            validators = Validators(etag=tag)
            is_known = part.known is None or not part.known.contradicts(validators)
            start = part.start if is_known and part.start < state.st_size else 0
            if start != part.start or part.size_bytes not in {None, state.st_size}:
                # All of it comes: what is said of another file shows that it is one.
                start, end = 0, state.st_size
            yield Body(
                status=200,
                start=start,
                end=end,
                validators=validators,
                takes_ranges=True,
                pieces=self._pieces(handle, start, end),
                shown=self.shown,
            )
        finally:
            os.close(handle)

    def _pieces(self, handle: int, position: int, end: int) -> Iterator[bytes]:
        while position < end:
            try:
                piece = os.pread(handle, min(_PIECE_BYTES, end - position), position)
            except OSError as problem:
                raise self._unreadable(str(problem)) from problem
            if not piece:
                return
            yield piece
            position += len(piece)

    def _unreadable(self, why: str) -> UnreachableError:
        return UnreachableError(
            f"the image file {self._path} cannot be read", details=why, context={"url": self.shown, "final": True}
        )
