# SPDX-License-Identifier: Apache-2.0
"""`Inventory`: every file of a built image with its digest and its package; kept beside the image, one line a file."""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice.atomic import storage_errors
from coppice.errors import NotFoundError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from coppice.factory.evidence.contents import Digests
    from coppice.factory.evidence.ownership import Ownership
    from coppice.factory.evidence.tree import GuestTree

FILE_NAME = "files.jsonl.zst"
_LEVEL = 9
_MOST_BYTES = 1024 * 1024 * 1024
_MOST_LINKS = 40
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryFile:
    """A file of an image.

    Attributes:
        path: In the guest; links among its directories are followed.
        mode: Kind and permissions, as `os.stat` has them.
        owner: Number of the user.
        group: Number of the group.
        size_bytes: Length of its content.
        sha256: Of its content; empty for what has none.
        target: Of a symbolic link; empty otherwise.
        package: That it belongs to; empty: none says so.
        sha1: Of its content, where no package brought it: bills of materials have it.
    """

    path: str
    mode: int
    owner: int
    group: int
    size_bytes: int
    sha256: str = ""
    target: str = ""
    package: str = ""
    sha1: str = ""

    def is_same_as(self, other: InventoryFile) -> bool:
        """Tell whether both have the same content and permissions, whomever they belong to."""
        return (self.mode, self.owner, self.group, self.sha256, self.target) == (
            other.mode,
            other.owner,
            other.group,
            other.sha256,
            other.target,
        )


@dataclass(frozen=True, slots=True)
class Inventory:
    """The files of an image.

    Attributes:
        files: By path.
    """

    files: Mapping[str, InventoryFile]

    def find(self, path: str) -> InventoryFile | None:
        """Return the file at ``path``, whose directories may be links; None: there is none."""
        for _ in range(_MOST_LINKS):
            known = self.files.get(path)
            if known is not None:
                return known
            path, before = self._one_link_less(path), path
            if path == before:
                return None
        return None

    def _one_link_less(self, path: str) -> str:
        parts = path.strip("/").split("/")
        for number in range(1, len(parts)):
            head = self.files.get("/" + "/".join(parts[:number]))
            if head is not None and head.target:
                led = posixpath.join(posixpath.dirname(head.path), head.target, *parts[number:])
                return posixpath.normpath(led)
        return path


def take_inventory(tree: GuestTree, ownership: Ownership, digests: Mapping[str, Digests]) -> Inventory:
    """Return the inventory of what was read."""
    files: dict[str, InventoryFile] = {}
    for node in tree:
        known, package = digests.get(node.path), ownership.packages.get(node.path, "")
        files[node.path] = InventoryFile(
            path=node.path,
            mode=node.mode,
            owner=node.owner,
            group=node.group,
            size_bytes=node.size_bytes,
            sha256=known.sha256 if known is not None else "",
            target=node.target,
            package=package,
            sha1=known.sha1 if known is not None and not package else "",
        )
    return Inventory(files)


def write_inventory(path: Path, inventory: Inventory) -> None:
    """Write ``inventory`` to ``path``: the same inventory always makes the same bytes.

    Raises:
        StorageError: It cannot be written.
    """
    import zstandard

    lines = [json.dumps({"schema": _SCHEMA, "files": len(inventory.files)})]
    lines += [_line(inventory.files[name]) for name in sorted(inventory.files)]
    text = "\n".join(lines) + "\n"
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(text.encode("utf-8", errors="surrogateescape"))
    with storage_errors("writing", path):
        path.write_bytes(packed)


def read_inventory(directory: Path) -> Inventory:
    """Return the inventory that is kept in ``directory``.

    Raises:
        NotFoundError: There is none.
        StorageError: It cannot be read, or is none.
    """
    import zstandard

    path = directory / FILE_NAME
    try:
        with (
            storage_errors("reading", path),
            path.open("rb") as stream,
            zstandard.ZstdDecompressor().stream_reader(stream) as unpacked,
        ):
            text = unpacked.read(_MOST_BYTES + 1)
    except StorageError as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            raise NotFoundError(
                f"there is no list of files at {directory}",
                resolution="It was built before there were any: build it anew with --fresh, and add that.",
                context={"path": str(path)},
            ) from problem
        raise
    except zstandard.ZstdError as problem:
        raise _damaged(path, str(problem)) from problem
    if len(text) > _MOST_BYTES:
        raise _damaged(path, "it is too long")
    try:
        head, *lines = text.decode("utf-8", errors="surrogateescape").splitlines()
        said = json.loads(head)
        files = {file.path: file for file in _files(lines)}
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _damaged(path, str(problem)) from problem
    if said != {"schema": _SCHEMA, "files": len(files)}:
        raise _damaged(path, "it is of another form, or not whole")
    return Inventory(files)


def _line(file: InventoryFile) -> str:
    said: dict[str, object] = {"path": file.path, "mode": f"{file.mode:o}"}
    said |= {"owner": [file.owner, file.group]} if file.owner or file.group else {}
    said |= {"size": file.size_bytes} if file.size_bytes else {}
    said |= {key: text for key, text in _texts(file) if text}
    return json.dumps(said)


def _texts(file: InventoryFile) -> Iterator[tuple[str, str]]:
    yield "sha256", file.sha256
    yield "target", file.target
    yield "package", file.package
    yield "sha1", file.sha1


def _files(lines: list[str]) -> Iterator[InventoryFile]:
    for line in lines:
        said: dict[str, Any] = json.loads(line)
        owner, group = said.get("owner", (0, 0))
        yield InventoryFile(
            path=said["path"],
            mode=int(said["mode"], 8),
            owner=int(owner),
            group=int(group),
            size_bytes=int(said.get("size", 0)),
            sha256=said.get("sha256", ""),
            target=said.get("target", ""),
            package=said.get("package", ""),
            sha1=said.get("sha1", ""),
        )


def _damaged(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path} is not the list of an image's files",
        details=why,
        resolution="Build again with --fresh.",
        context={"path": str(path)},
    )
