# SPDX-License-Identifier: Apache-2.0
"""The tree of an image's ext4 root, read without mounting it: its listing, and a layer that others can be laid over."""

from __future__ import annotations

import hashlib
import re
import stat
import tarfile
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, cast

import zstandard

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.bootstrap.listing import Kind, Listing
from coppice.factory.bootstrap.listing import Node as Listed
from coppice.factory.caged import run_caged
from coppice.factory.evidence.dpkg_record import dpkg_record
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.image_start.root import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from coppice.factory.evidence.tree import GuestTree, Node
    from coppice.factory.partition_table import Root

_CHECK_SECONDS = 600.0
_OWNERS = re.compile(r"^User:\s+(\d+)\s+Group:\s+(\d+)\s", re.MULTILINE)
_MODE = re.compile(r"\sMode:\s+0?([0-7]{3,4})\s")
_MTIME = re.compile(r"^ mtime: 0x([0-9a-f]{8})", re.MULTILINE)
_CAPABILITY = re.compile(r"^  security\.capability \(\d+\) = ((?:[0-9a-f]{2} )+)", re.MULTILINE)
_ROOT = "/"
_HEAD_AT, _HEAD_BYTES = 1024, 1024
_INCOMPATIBLE_AT, _BLOCK_SIZE_AT = 0x60, 0x18
_NEEDS_RECOVERY = 0x4
_SMALLEST_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContent:
    """What the root of an image holds.

    Attributes:
        tree: To be asked for what is in a file.
        listing: Files, directories and links; nothing else is touched.
        layer: The same as a compressed tar file.
        epoch: Seconds since 1970 of the youngest of them.
    """

    tree: GuestTree
    listing: Listing
    layer: Path
    epoch: int

    @property
    def status(self) -> bytes:
        """What dpkg's record says; empty: there is none."""
        return dpkg_record(self.tree)


class _StartDisk(Ext4Disk):
    """An ext4 file system of which more is asked than the audit needs."""

    def pieces(self, node: Node) -> Iterator[bytes]:
        """Give the content of a file, piece by piece."""
        with storage_errors("reading", self._raw), self._raw.open("rb") as disk:
            yield from self._pieces(node, disk)

    def facts(self, nodes: Sequence[Node]) -> list[str]:
        """Return all that debugfs says of each inode; the root directory's first."""
        return self._ask(["stat <2>", *(f"stat <{node.inode}>" for node in nodes)])


class _Content:
    """The content of a file, whose digest is made while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._piece, self._at = pieces, b"", 0
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def read(self, length: int) -> bytes:
        taken = []
        while length > 0:
            if self._at == len(self._piece):
                self._piece, self._at = next(self._pieces, b""), 0
                if not self._piece:
                    break
            part = self._piece[self._at : self._at + length]
            self._at, length = self._at + len(part), length - len(part)
            taken.append(part)
        found = b"".join(taken)
        self._digest.update(found)
        return found


def read_content(raw: Path, root: Root, work: Path) -> StartContent:
    """Read the root of the disk ``raw``.

    Args:
        raw: The disk.
        root: Where the root is.
        work: A directory to work in; the layer is made there.

    Raises:
        BuildError: It was not shut down cleanly, is damaged, or has what cannot be read.
        StorageError: The layer cannot be written.
    """
    check_clean(raw, root)
    disk = _StartDisk(raw, root.start_bytes, work)
    tree = disk.tree()
    nodes = [node for node in tree if node.is_file or node.is_folder or node.is_link]
    _check_sizes(nodes, root)
    top, *facts = disk.facts(nodes)
    path = work / "start.tar.zst"
    listing: Listing = {_ROOT: _listed(top, Kind.DIRECTORY, _mode(top))}
    first: dict[int, str] = {}
    compressor = zstandard.ZstdCompressor(level=1)
    with (
        storage_errors("writing", path),
        path.open("wb") as stream,
        compressor.stream_writer(stream) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        _add(archive, _ROOT, listing[_ROOT], _Content(iter(())))
        for node, said in zip(nodes, facts, strict=True):
            known = first.setdefault(node.inode, node.path) if node.is_file else node.path
            listed = _node(node, said) if known == node.path else Listed(kind=Kind.LINK, mode=0, target=known)
            # A file may be larger than the memory.
            content = _Content(disk.pieces(node) if listed.kind is Kind.FILE else iter(()))
            _add(archive, node.path, listed, content)
            listing[node.path] = replace(listed, digest=content.digest) if listed.kind is Kind.FILE else listed
    return StartContent(tree=tree, listing=listing, layer=path, epoch=max(node.mtime for node in listing.values()))


def check_clean(raw: Path, root: Root) -> None:
    """Refuse a file system that was not shut down cleanly, or is damaged.

    Raises:
        BuildError: It is one, or has blocks of another length than is usual for disks.
    """
    with storage_errors("reading", raw), raw.open("rb") as stream:
        stream.seek(root.start_bytes + _HEAD_AT)
        head = stream.read(_HEAD_BYTES)
    features = int.from_bytes(head[_INCOMPATIBLE_AT : _INCOMPATIBLE_AT + 4], "little")
    block = _SMALLEST_BLOCK << min(6, int.from_bytes(head[_BLOCK_SIZE_AT : _BLOCK_SIZE_AT + 4], "little"))
    if block != BLOCK_BYTES:
        raise BuildError(f"the image's root has blocks of {block} bytes; {BLOCK_BYTES} are wanted")
    advice = "Shut the machine down that the image was made of, and take it anew."
    if features & _NEEDS_RECOVERY:
        raise BuildError(
            "the image's root was in use when the image was made: its journal is not empty", resolution=advice
        )
    try:
        run_caged(
            lambda inside: ["e2fsck", "-f", "-n", f"{inside(raw)}?offset={root.start_bytes}"],
            reads=[raw],
            timeout_seconds=_CHECK_SECONDS,
        )
    except ToolFailedError as problem:
        raise BuildError("the image's root is damaged", details=problem.details, resolution=advice) from problem


def _check_sizes(nodes: Sequence[Node], root: Root) -> None:
    """Refuse files that say of themselves that they are longer than the whole file system: they are mostly holes."""
    for node in nodes:
        if node.is_file and node.size_bytes > root.size_bytes:
            raise BuildError(
                f"{node.path} in the image has {node.size_bytes} bytes, more than its file system",
                resolution="Start from an image without such a file; of /var/log/lastlog, an empty one does.",
            )


def _node(node: Node, said: str) -> Listed:
    if node.is_folder:
        return _listed(said, Kind.DIRECTORY, stat.S_IMODE(node.mode))
    if node.is_link:
        return _listed(said, Kind.SYMLINK, 0o777, target=node.target)
    return _listed(said, Kind.FILE, stat.S_IMODE(node.mode), size_bytes=node.size_bytes)


def _listed(said: str, kind: Kind, mode: int, *, size_bytes: int = 0, target: str = "") -> Listed:
    owners, mtime, capability = _OWNERS.search(said), _MTIME.search(said), _CAPABILITY.search(said)
    if owners is None or mtime is None:
        raise BuildError("looking into the image failed", details=f"its owner or date cannot be read:\n{said[:500]}")
    return Listed(
        kind=kind,
        mode=mode,
        uid=int(owners[1]),
        gid=int(owners[2]),
        mtime=int(mtime[1], 16),
        size_bytes=size_bytes,
        target=target,
        capability="" if capability is None or kind is not Kind.FILE else capability[1].replace(" ", ""),
    )


def _mode(said: str) -> int:
    found = _MODE.search(said)
    if found is None:
        raise BuildError("looking into the image failed", details=f"permissions cannot be read:\n{said[:500]}")
    return int(found[1], 8)


def _add(archive: tarfile.TarFile, path: str, node: Listed, content: _Content) -> None:
    member = tarfile.TarInfo(path.lstrip("/") or ".")
    member.mode, member.uid, member.gid, member.mtime = node.mode, node.uid, node.gid, node.mtime
    kinds = {Kind.DIRECTORY: tarfile.DIRTYPE, Kind.SYMLINK: tarfile.SYMTYPE, Kind.LINK: tarfile.LNKTYPE}
    member.type = kinds.get(node.kind, tarfile.REGTYPE)
    if node.kind is Kind.LINK:
        member.linkname = node.target.lstrip("/")
    elif node.kind is Kind.SYMLINK:
        member.linkname = node.target
    else:
        member.size = node.size_bytes
    if node.capability:
        text = bytes.fromhex(node.capability).decode("utf-8", errors="surrogateescape")
        member.pax_headers = {"SCHILY.xattr.security.capability": text}
    archive.addfile(member, cast("IO[bytes]", content))
