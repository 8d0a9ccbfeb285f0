# SPDX-License-Identifier: Apache-2.0
"""What runs inside of namespaces of its own to fill a btrfs file system: nothing of it is seen outside, or outlives it.

`Btrfs` starts it as ``python -m coppice.factory.bootstrap.btrfs_inside`` with a `Filling` as JSON on standard input.
The tree stands in memory: there files are numbered in the order in which they are made, and btrfs takes their numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import CoppiceError
from coppice.factory.bootstrap.listing import Kind, read_listing
from coppice.process import run

if TYPE_CHECKING:
    from coppice.factory.bootstrap.listing import Listing, Node

_MOUNT_SECONDS = 60.0
_CAPABILITY = "security.capability"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """What a file system is filled with.

    Attributes:
        space: An existing, empty directory.
        memory_bytes: How much of the memory the tree may take.
        listing: File with the listing of all that is in it.
        contents: Directory with the contents, each by its sha256.
        command: What makes the file system; the tree's directory and the file that it is made in come last.
        image: That file; it is as long as the file system.
        seconds: For the command.
    """

    space: str
    memory_bytes: int
    listing: str
    contents: str
    command: tuple[str, ...]
    image: str
    seconds: float

    def document(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()


def main() -> int:
    """Do what standard input says; what the programs say goes to standard output as it comes."""
    values = json.loads(sys.stdin.buffer.read())
    values["command"] = tuple(values["command"])
    try:
        fill(Filling(**values))
    except CoppiceError as problem:
        print(f"E: {problem.message}\n{problem.details or ''}", flush=True)  # noqa: T201 - read by the caller
        return 1
    return 0


def fill(filling: Filling) -> None:
    """Lay the tree out, and make a file system of it.

    Raises:
        ToolFailedError: A program failed.
        ToolTimeoutError: It did not end in time.
        StorageError: The tree does not fit into the memory, or cannot be laid out.
    """
    space = Path(filling.space)
    options = f"size={filling.memory_bytes},nr_inodes=0,mode=0755"
    run(["mount", "--no-mtab", "-t", "tmpfs", "-o", options, "coppice", space], timeout_seconds=_MOUNT_SECONDS)
    root = space / "root"
    with storage_errors("laying out the tree in", space):
        lay_out(read_listing(Path(filling.listing)), root, Path(filling.contents))
    done = run([*filling.command, root, filling.image], timeout_seconds=filling.seconds)
    print(done.combined, flush=True)  # noqa: T201 - read by the caller


def lay_out(listing: Listing, root: Path, contents: Path) -> None:
    """Make the tree that ``listing`` says in the new directory ``root``, in its order."""
    os.umask(0)
    root.mkdir()
    folders: list[tuple[Path, Node]] = [(root, listing["/"])]
    for name, node in listing.items():
        path = root / name[1:]
        if node.kind is Kind.LINK:
            path.hardlink_to(root / node.target[1:])
        elif node.kind is Kind.SYMLINK:
            path.symlink_to(node.target)
            os.chown(path, node.uid, node.gid, follow_symlinks=False)
            _date(path, node)
        elif node.kind is Kind.FILE:
            shutil.copyfile(contents / node.digest, path)
            _tell(path, node)
        elif name != "/":
            path.mkdir()
            folders.append((path, node))
    # What is made in a directory changes its time.
    for path, node in folders:
        _tell(path, node)


def _tell(path: Path, node: Node) -> None:
    os.chown(path, node.uid, node.gid)
    # A new owner takes away what the mode lets a program be.
    path.chmod(node.mode)
    if node.capability:
        os.setxattr(path, _CAPABILITY, bytes.fromhex(node.capability))
    _date(path, node)


def _date(path: Path, node: Node) -> None:
    os.utime(path, (node.mtime, node.mtime), follow_symlinks=False)


if __name__ == "__main__":
    sys.exit(main())
