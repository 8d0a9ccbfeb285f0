# SPDX-License-Identifier: Apache-2.0
"""`Origin`: one file at an address, of which any part can be asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from coppice.http.ranges import read_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from coppice.http import Client
    from coppice.http.ranges import Body, Part
    from coppice.monitor import Task


class Origin(ABC):
    """A file somewhere; use it as a context, or close it.

    Args:
        client: For limits, attempts and, where it is HTTP, the connections.
        shown: The address without secrets, for messages.
    """

    many_at_once = False
    """Whether several parts may be asked for at the same time, by several threads."""
    host = ""
    """Of whom connections are counted; empty: of nobody."""

    def __init__(self, client: Client, shown: str) -> None:
        self.client = client
        self.shown = shown

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def open(self, part: Part, deadline: float) -> AbstractContextManager[Body]:
        """Ask once for a part; what comes may be the whole (`Body.start` says it).

        Raises:
            TransferError: It could not be had; ``context["restart"]`` is True where what is here already is not of the
                same file, or parts are not to be had.
            CredentialError: A credential cannot be used there.
            ToolMissingError: A package that this kind of address needs is not installed.
        """

    def read(self, start: int, length: int, *, size_bytes: int) -> bytes:
        """Return ``length`` bytes from ``start`` on, of a file of ``size_bytes``; tried again where that helps.

        Raises:
            TransferError: They could not be had.
        """
        found = bytearray()
        self.read_ranges([(start, length)], size_bytes=size_bytes, sink=lambda _, piece: found.extend(piece))
        return bytes(found)

    def read_ranges(
        self,
        ranges: Iterable[tuple[int, int]],
        *,
        size_bytes: int,
        sink: Callable[[int, bytes], object],
        task: Task | None = None,
    ) -> int:
        """Give parts of one state of the file to ``sink``; return how many bytes came. See `Client.read_ranges`.

        Raises:
            TransferError: They could not be had.
            ValueError: The ranges are not in order.
        """
        return read_parts(
            ranges,
            size_bytes=size_bytes,
            sink=sink,
            open_part=self.open,
            client=self.client,
            shown=self.shown,
            task=task,
        )

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """End what is open."""
