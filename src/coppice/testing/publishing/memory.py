# SPDX-License-Identifier: Apache-2.0
"""A place in memory, and one that fails on demand: for tests of what all publishers share."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from coppice.imagelist.place import Facts, Held, Kind, file_path, last_component

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from coppice.imagelist.model import ListedImage
    from coppice.monitor import Monitor, Task


class MemoryPlace:
    """Holds everything in memory.

    Attributes:
        held: Kind and name → bytes.
        calls: What was done, in order: the method and the name.
        before: Called with the method and the name before each of them does anything; may raise.
    """

    label = "memory:"

    def __init__(self) -> None:
        self.held: dict[tuple[Kind, str], bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], object] = lambda _method, _name: None

    def prepare(self, files: Mapping[str, Path], monitor: Monitor) -> None:
        """Do nothing."""

    def address(self, kind: Kind, name: str) -> str:
        """Return an address that nobody can fetch."""
        return f"https://memory.example.org/{file_path(kind, name)}"

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the names that are held."""
        self._do("names", kind)
        return tuple(sorted(name for each, name in self.held if each is kind))

    def meant_by(self, uri: str) -> tuple[str, ...]:
        """Return the last component of ``uri``."""
        return last_component(uri)

    def describe(self, name: str) -> Held | None:
        """Return size and digest."""
        self._do("describe", name)
        data = self.held.get((Kind.IMAGE, name))
        return None if data is None else Held(size_bytes=len(data), stamp=hashlib.sha256(data).hexdigest())

    def put(self, name: str, source: Path, facts: Facts, image: ListedImage | None, task: Task) -> None:
        """Read the file."""
        self._do("put", name)
        self.held[Kind.IMAGE, name] = source.read_bytes()

    def holds(self, name: str, facts: Facts, task: Task) -> bool:
        """Compare the digest."""
        self._do("holds", name)
        data = self.held[Kind.IMAGE, name]
        return Facts(size_bytes=len(data), sha512=hashlib.sha512(data).hexdigest()) == facts

    def announce(self, images: Mapping[str, ListedImage]) -> None:
        """Remember the call."""
        self._do("announce", ",".join(sorted(images)))

    def read(self, kind: Kind, name: str) -> bytes | None:
        """Return the bytes."""
        self._do("read", name)
        return self.held.get((kind, name))

    def replace(self, kind: Kind, name: str, data: bytes) -> None:
        """Keep the bytes."""
        self._do("replace", name)
        self.held[kind, name] = data

    def delete(self, kind: Kind, name: str) -> None:
        """Forget the bytes."""
        self._do("delete", name)
        self.held.pop((kind, name), None)

    def sweep(self, *, older_than_seconds: float) -> None:
        """Remember the call."""
        self._do("sweep", "")

    def close(self) -> None:
        """Remember the call."""
        self._do("close", "")

    def _do(self, method: str, name: str) -> None:
        self.before(method, name)
        self.calls.append((method, str(name)))
