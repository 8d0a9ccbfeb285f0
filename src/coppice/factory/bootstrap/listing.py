# SPDX-License-Identifier: Apache-2.0
"""What a tree, or a finished disk, holds: one `Node` a path, in the order in which they were put there."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import zstandard

from coppice.atomic import storage_errors
from coppice.errors import BuildError, StorageError

if TYPE_CHECKING:
    import tarfile
    from pathlib import Path

_XATTR = "SCHILY.xattr."
_CAPABILITY = f"{_XATTR}security.capability"
_LIMIT_BYTES = 512 * 1024 * 1024


class Kind(StrEnum):
    """What is at a path."""

    DIRECTORY = "d"
    FILE = "f"
    SYMLINK = "l"
    LINK = "h"
    """A further name of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is at one path.

    Attributes:
        kind: What it is.
        mode: Permissions.
        uid: Owner's number.
        gid: Group's number.
        mtime: Seconds since 1970.
        size_bytes: Of a file.
        digest: sha256 of a file's content.
        target: Of a symbolic link, as it is written; of a further name, the path of the file.
        capability: Attribute of a program that may more than who runs it; hexadecimal.
        layer: Who put it there: 0 the base packages, then each ancestor's build, last this one's;
            `OVERLAY`: what is laid over the finished system.
    """

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size_bytes: int = 0
    digest: str = ""
    target: str = ""
    capability: str = ""
    layer: int = 0

    def same(self, other: Node | None) -> bool:
        """Tell whether a disk with the one looks like a disk with the other."""
        return other is not None and replace(self, layer=0) == replace(other, layer=0)


Listing = dict[str, Node]
OVERLAY = -1


def node_of(member: tarfile.TarInfo, *, epoch: int, layer: int, digest: str = "") -> Node:
    """Return the node that a member of a tar file makes.

    Raises:
        BuildError: It is something that no tree has.
    """
    path = guest_path(member.name)
    if member.isdir():
        kind, target = Kind.DIRECTORY, ""
    elif member.issym():
        kind, target = Kind.SYMLINK, member.linkname
    elif member.islnk():
        return Node(kind=Kind.LINK, mode=0, target=guest_path(member.linkname), layer=layer)
    elif member.isreg():
        kind, target = Kind.FILE, ""
    else:
        raise BuildError(f"{path} is neither a file, a directory nor a link")
    capability = member.pax_headers.get(_CAPABILITY, "").encode("utf-8", errors="surrogateescape")
    return Node(
        kind=kind,
        mode=0o777 if kind is Kind.SYMLINK else stat.S_IMODE(member.mode),
        uid=member.uid,
        gid=member.gid,
        # Nothing is younger than the release.
        mtime=min(int(member.mtime), epoch),
        size_bytes=member.size if kind is Kind.FILE else 0,
        digest=digest,
        target=target,
        capability=capability.hex(),
        layer=layer,
    )


def guest_path(name: str) -> str:
    """Return the absolute path in the guest of a tar member's name.

    Raises:
        BuildError: It leads out of the tree.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise BuildError(f"a path that leads out of the tree: {name[:200]!r}")
    return "/" + "/".join(parts)


def write_listing(path: Path, listing: Listing) -> None:
    """Write ``listing`` to ``path``: a line of JSON a path, compressed.

    Raises:
        StorageError: It could not be written.
    """
    encode = json.JSONEncoder(separators=(",", ":")).encode
    lines = (
        encode(
            [
                name,
                node.kind.value,
                node.mode,
                node.uid,
                node.gid,
                node.mtime,
                node.size_bytes,
                node.digest,
                node.target,
                node.capability,
                node.layer,
            ]
        )
        for name, node in listing.items()
    )
    with storage_errors("writing", path):
        path.write_bytes(zstandard.ZstdCompressor(level=3).compress("".join(f"{line}\n" for line in lines).encode()))


def read_listing(path: Path) -> Listing:
    """Return the listing at ``path``.

    Raises:
        StorageError: It cannot be read, or is none.
    """
    found: Listing = {}
    with storage_errors("reading", path):
        data = path.read_bytes()
    try:
        lines = zstandard.ZstdDecompressor().decompress(data, max_output_size=_LIMIT_BYTES).decode().splitlines()
        # All at once: a line at a time takes twice as long.
        rows = json.loads(f"[{','.join(lines)}]")
        for _, row in zip(lines, rows, strict=True):
            name, kind, mode, uid, gid, mtime, size_bytes, digest, target, capability, layer = row
            found[name] = Node(
                kind=Kind(kind),
                mode=mode,
                uid=uid,
                gid=gid,
                mtime=mtime,
                size_bytes=size_bytes,
                digest=digest,
                target=target,
                capability=capability,
                layer=layer,
            )
    except (zstandard.ZstdError, ValueError, TypeError, RecursionError) as problem:
        raise StorageError(
            f"{path} is not the listing of a tree",
            details=str(problem),
            resolution="Build it anew: coppice build NAME --fresh.",
        ) from problem
    return found
