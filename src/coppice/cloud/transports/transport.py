# SPDX-License-Identifier: Apache-2.0
"""The `Transport` plug-in kind: a converted image is put where a cloud's front-end can fetch it, for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor

ALGORITHMS = ("md5", "sha1")
"""What each offer has beside the image's own: what the datastores of OpenNebula can compare. Against accidents alone:
that the bytes are the listed ones is shown by the image's own checksum, before they are offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """An image where a front-end can fetch it.

    Attributes:
        path_or_url: Absolute path at the front-end, or http(s) URL, as the front-end is to be told. Of letters, digits
            and ``-._~/:[]`` alone: the front-end's drivers hand it to a shell.
        checksums: Of the offered bytes, lower-case hexadecimal, by algorithm: each of `ALGORITHMS` and the image's own.
            A URL must never be handed on without one: an interrupted download may be put together wrongly, and nobody
            else would notice.
        size_bytes: Of the offered bytes.
    """

    path_or_url: str
    checksums: Mapping[str, str]
    size_bytes: int


class Transport(Protocol):
    """A plug-in that brings images to a front-end (entry point group ``coppice.transports``).

    It may be used from several threads at once, for the same image too.
    """

    name: str

    def offer(self, converted: ConvertedImage, monitor: Monitor) -> AbstractContextManager[Offered]:
        """Have the image where the front-end finds it as long as the context is open, and nothing left afterwards.

        What is offered is compared with ``converted``'s own checksum before the context is entered. Whoever uses it
        keeps it open until the front-end has said that it has all bytes: it may fetch them several times, break off,
        and ask for the head alone.

        Raises:
            CloudError: The image cannot be brought there.
            ImageError: The file is not the one that was converted.
            StorageError: The disk failed.
        """
        ...

    def sweep(self) -> tuple[str, ...]:
        """Remove what killed runs left where images are brought; return what was removed, for people.

        Nothing that may still be offered by another process is touched. A transport does this by itself too, once a run
        and after an offer; a failure of that is nobody's.

        Raises:
            CloudError: The place could not be looked at.
            StorageError: The disk failed.
        """
        ...
