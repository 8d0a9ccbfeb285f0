# SPDX-License-Identifier: Apache-2.0
"""`Place`: the few things that a publisher's server must be able to do; `publication` makes all else of them.

A place holds three kinds of things, each under a plain name: lists and notes, which are small and are replaced in one
step, and images, which are large and never change under their name.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from coppice import atomic
from coppice.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from coppice.imagelist.model import ListedImage
    from coppice.monitor import Monitor, Task

SMALL_LIMIT_BYTES = 64 * 1024 * 1024
"""Longest list or note that is read from a place: what was published has the limits of whoever published it."""
PARTIAL_AGE_SECONDS = 24 * 3600.0
"""What an upload that was cut off left behind is removed when nothing was written to it for so long."""
LIST_SUFFIX = ".list"
IMAGES_FOLDER = "images"
NOTES_FOLDER = ".coppice"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_CHUNK_BYTES = 1024 * 1024


class Kind(StrEnum):
    """What is kept at a place."""

    LIST = "list"
    """A signed image list."""
    IMAGE = "image"
    """An image file."""
    NOTE = "note"
    """What publishers remember at the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a file's bytes are.

    Attributes:
        size_bytes: How many.
        sha512: Hexadecimal.
    """

    size_bytes: int
    sha512: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a place says of an image that it holds.

    Attributes:
        size_bytes: How many bytes.
        stamp: Changes when the bytes do (an entity tag, a digest); None where the place has none to be relied on.
    """

    size_bytes: int
    stamp: str | None


class Place(Protocol):
    """Where lists and images are published: the primitives that a server of some kind offers.

    Every method raises StorageError, TransferError or PublicationError when the place fails. "There is none" is said
    only where the place said so.
    """

    @property
    def label(self) -> str:
        """Say in messages what it is: an address without secrets."""
        ...

    def prepare(self, files: Mapping[str, Path], monitor: Monitor) -> None:
        """Learn what is to be published before `address` is asked."""
        ...

    def address(self, kind: Kind, name: str) -> str:
        """Return the URI under which readers find a list or an image."""
        ...

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of all that is there of this kind, unfinished uploads left out."""
        ...

    def meant_by(self, uri: str) -> tuple[str, ...]:
        """Return the names of the images that ``uri`` may mean, whatever host it gives; rather one too many."""
        ...

    def describe(self, name: str) -> Held | None:
        """Return what is known of an image; None when it is not there."""
        ...

    def put(self, name: str, source: Path, facts: Facts, image: ListedImage | None, task: Task) -> None:
        """Have an image appear under its name, whole and verified; nothing shows before that.

        ``facts`` are those of ``source``. An image that appeared meanwhile is left as it is. What an earlier call left
        half-done is gone on with or removed.
        """
        ...

    def holds(self, name: str, facts: Facts, task: Task) -> bool:
        """Read an image and tell whether it has these bytes."""
        ...

    def announce(self, images: Mapping[str, ListedImage]) -> None:
        """Say which images (name → what the list tells of it) the list that follows names; all of them are there."""
        ...

    def read(self, kind: Kind, name: str) -> bytes | None:
        """Return a list or a note; None when it is not there."""
        ...

    def replace(self, kind: Kind, name: str, data: bytes) -> None:
        """Write a list or a note in one step: a reader sees the old bytes or the new."""
        ...

    def delete(self, kind: Kind, name: str) -> None:
        """Remove an image or a note; one that is not there is fine."""
        ...

    def sweep(self, *, older_than_seconds: float) -> None:
        """Remove what uploads that were cut off left behind."""
        ...

    def close(self) -> None:
        """End connections; the next call makes new ones."""
        ...


def safe(name: str) -> str:
    """Return ``name`` when it is one plain component of a path.

    Raises:
        InputError: It is not.
    """
    if not _SAFE_NAME.fullmatch(name):
        raise InputError(f"{name[:80]!r} is not safe as a file name")
    return name


def partial_name(name: str, token: str) -> str:
    """Return the temporary name of an upload of ``name``, in the form that `coppice.atomic` sweeps."""
    return f"{atomic.PARTIAL_PREFIX}{name}-{token}{atomic.PARTIAL_SUFFIX}"


def is_partial(name: str) -> bool:
    """Tell whether a name is that of an upload that was cut off."""
    return name.startswith(atomic.PARTIAL_PREFIX) and name.endswith(atomic.PARTIAL_SUFFIX)


def file_path(kind: Kind, name: str) -> str:
    """Return where a file lies below a place that has folders."""
    folder = {Kind.LIST: "", Kind.IMAGE: f"{IMAGES_FOLDER}/", Kind.NOTE: f"{NOTES_FOLDER}/"}[kind]
    return f"{folder}{safe(name)}{LIST_SUFFIX if kind is Kind.LIST else ''}"


def shown_names(kind: Kind, found: Iterable[str]) -> tuple[str, ...]:
    """Return the names of this kind among the files of its folder: what is hidden or unfinished is none."""
    suffix = LIST_SUFFIX if kind is Kind.LIST else ""
    plain = (name.removesuffix(suffix) for name in found if name.endswith(suffix) and not name.startswith("."))
    return tuple(sorted(name for name in plain if _SAFE_NAME.fullmatch(name)))


def last_component(uri: str) -> tuple[str, ...]:
    """Return the file name at the end of ``uri``, as it stands there and decoded."""
    try:
        name = urlsplit(uri).path.rpartition("/")[2]
    except ValueError:
        return ()
    decoded = unquote(name).rpartition("/")[2]
    return tuple(dict.fromkeys(each for each in (name, decoded) if each))


def facts_of(path: Path, task: Task, check: Callable[[int], object] | None = None) -> Facts:
    """Read a local file and return what its bytes are; ``check`` is told the size of each piece.

    Raises:
        StorageError: It cannot be read.
    """
    digest, size = hashlib.sha512(), 0
    with atomic.storage_errors("reading", path), path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            task.advance(len(chunk))
            if check is not None:
                check(len(chunk))
    return Facts(size_bytes=size, sha512=digest.hexdigest())
