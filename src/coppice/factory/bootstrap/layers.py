# SPDX-License-Identifier: Apache-2.0
"""A tree as it is kept: layers, the first with everything, each further one with what a build changed.

A layer is a tar file, compressed. What it takes away stands in it as a character device with the numbers 0 and 0, as
the kernel's overlay file system writes it. The layers of a parent are in the directory of its child as further names
of the same files, so that a child can be built upon whatever becomes of its parent's directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tarfile
from dataclasses import replace
from typing import IO, TYPE_CHECKING, cast

import zstandard

from coppice.atomic import storage_errors
from coppice.errors import BuildError
from coppice.factory.bootstrap.listing import Kind, Listing, Node, guest_path, node_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

LISTING = "listing.jsonl.zst"
DISK = "disk.jsonl.zst"
_LEVEL = 1
_OPAQUE = ("SCHILY.xattr.trusted.overlay.opaque", "SCHILY.xattr.user.overlay.opaque")
_COPY_BYTES = 1024 * 1024


def layer_paths(tree: Path) -> tuple[Path, ...]:
    """Return the layers in the directory ``tree``, the first first."""
    return tuple(sorted(tree.glob("[0-9][0-9][0-9].tar.zst")))


def layer_name(number: int) -> str:
    """Return the name of a layer's file."""
    return f"{number:03}.tar.zst"


def adopt_layers(parent: Path, tree: Path) -> None:
    """Make ``tree`` with the layers that ``parent`` has; or with ``parent`` alone, where it is a layer itself.

    Raises:
        BuildError: It has none.
        StorageError: They cannot be linked or copied.
    """
    layers = {layer.name: layer for layer in layer_paths(parent)}
    if parent.is_file():
        layers = {layer_name(0): parent}
    if not layers:
        raise BuildError(
            f"there is no tree to build upon at {parent}",
            resolution="Build the parent anew: coppice build PARENT --fresh.",
        )
    with storage_errors("taking over the layers of", parent):
        tree.mkdir(parents=True)
        for name, layer in layers.items():
            try:
                (tree / name).hardlink_to(layer)
            except OSError:
                shutil.copyfile(layer, tree / name)


def keep_layer(tar: Path, layer: Path) -> None:
    """Compress the tar file ``tar`` to ``layer``.

    Raises:
        StorageError: It could not be written.
    """
    with storage_errors("writing", layer), tar.open("rb") as source, layer.open("wb") as target:
        zstandard.ZstdCompressor(level=_LEVEL, threads=2).copy_stream(source, target)


class Stage:
    """A place where the contents of files wait to be written, each by its sha256.

    Attributes:
        directory: An existing, empty directory.
        skips: Tells of which paths the content will not be asked for.
        keeps: Paths whose content is remembered.
        kept: The newest content of these.
    """

    def __init__(self, directory: Path, skips: Callable[[str], bool], keeps: Collection[str] = ()) -> None:
        self.directory = directory
        self.kept: dict[str, bytes] = {}
        self.skips = skips
        self._keeps = frozenset(keeps)
        self._temporary = directory / "next"

    def take(self, path: str, content: IO[bytes]) -> str:
        """Take over a file's content; return its sha256."""
        first = content.read(_COPY_BYTES)
        digest = hashlib.sha256(first)
        if path in self._keeps:
            first += content.read()
            self.kept[path] = first
            return self.put(first)
        if len(first) < _COPY_BYTES:
            if not self.skips(path):
                self.put(first, digest.hexdigest())
            return digest.hexdigest()
        with self._temporary.open("wb") as stream:
            stream.write(first)
            while piece := content.read(_COPY_BYTES):
                digest.update(piece)
                stream.write(piece)
        self._temporary.rename(self.directory / digest.hexdigest())
        return digest.hexdigest()

    def put(self, content: bytes, digest: str | None = None) -> str:
        """Take over ``content``; return its sha256."""
        digest = digest or hashlib.sha256(content).hexdigest()
        path = self.directory / digest
        if not path.exists():
            path.write_bytes(content)
        return digest

    def put_as(self, name: str, content: bytes) -> Path:
        """Take over ``content`` under a name that is no sha256; return where it is."""
        path = self.directory / name
        path.write_bytes(content)
        return path

    def find(self, digest: str) -> Path | None:
        """Return where the content with that sha256 is; None: it was not taken over."""
        path = self.directory / digest
        return path if path.exists() else None


def find_content(tree: Path, digest: str, stage: Stage) -> Path:
    """Stage the content with that sha256 from whichever layer of ``tree`` has it; return where it is.

    Raises:
        BuildError: None has it.
    """
    # What is remembered of a path is what the last layer has there, and stays so.
    older = Stage(stage.directory, stage.skips)
    for layer in layer_paths(tree):
        for _ in _read(layer, epoch=0, number=0, stage=older):
            pass
        found = stage.find(digest)
        if found is not None:
            return found
    raise BuildError(f"no layer of {tree} has the content sha256:{digest}")


def apply_layer(before: Listing, layer: Path, *, epoch: int, number: int, stage: Stage) -> Listing:
    """Return what a tree with the listing ``before`` holds once ``layer`` is laid over it.

    What the layer puts there anew comes last, in its own order; what it has and does not change stays where it was.

    Raises:
        BuildError: The layer is damaged, or has an entry that no tree has.
        StorageError: It cannot be read, or the stage cannot be written.
    """
    after = dict(before)
    changed: set[str] = set()
    for path, node in _read(layer, epoch=epoch, number=number, stage=stage):
        old = after.get(path)
        if node is None or (old is not None and old.kind is Kind.DIRECTORY is not node.kind):
            _take_away(after, path, changed)
        if node is not None and (node.target in changed or not node.same(after.get(path))):
            after.pop(path, None)
            after[path] = node
            changed.add(path)
    _keep_names(before, after, changed)
    return after


def _take_away(listing: Listing, path: str, changed: set[str]) -> None:
    inside = f"{path}/"
    for each in [each for each in listing if each == path or each.startswith(inside)]:
        del listing[each]
        changed.add(each)


def _keep_names(before: Listing, after: Listing, changed: set[str]) -> None:
    # The file that further names pointed to is another one now, or gone: the first of them that is left has it.
    heirs: dict[str, str] = {}
    for path, node in before.items():
        if node.kind is not Kind.LINK or path in changed or node.target not in changed:
            continue
        heir = heirs.setdefault(node.target, path)
        after[path] = before[node.target] if heir == path else replace(node, target=heir)


def _read(path: Path, *, epoch: int, number: int, stage: Stage) -> Iterator[tuple[str, Node | None]]:
    with storage_errors("reading", path), contextlib.ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(path.open("rb"))
        if path.suffix == ".zst":
            raw = cast("IO[bytes]", stack.enter_context(zstandard.ZstdDecompressor().stream_reader(raw)))
        try:
            with tarfile.open(fileobj=raw, mode="r|", bufsize=_COPY_BYTES) as archive:
                for member in archive:
                    yield from _nodes(archive, member, epoch, number, stage)
        except (tarfile.TarError, zstandard.ZstdError) as problem:
            raise BuildError(f"{path} is damaged: {problem}") from problem


def _nodes(
    archive: tarfile.TarFile, member: tarfile.TarInfo, epoch: int, number: int, stage: Stage
) -> Iterator[tuple[str, Node | None]]:
    path = guest_path(member.name)
    if member.ischr() and (member.devmajor, member.devminor) == (0, 0):
        yield path, None
        return
    if member.isdir() and any(member.pax_headers.get(name) == "y" for name in _OPAQUE):
        # Removed and made anew: nothing of what was in it shows.
        yield path, None
    node = node_of(member, epoch=epoch, layer=number)
    if node.kind is Kind.FILE:
        content = archive.extractfile(member)
        assert content is not None  # noqa: S101 - a regular member always has content
        node = replace(node, digest=stage.take(path, content))
    yield path, node
