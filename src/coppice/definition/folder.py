# SPDX-License-Identifier: Apache-2.0
"""The files beside an ``appliance.toml``: read within bounds, and never through a link that leads elsewhere."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024**2
FILE_LIMIT_BYTES = 4 * MIB
SCRIPT_LIMIT_BYTES = 256 * 1024
TREE_LIMIT_BYTES = 32 * MIB
TREE_LIMIT_FILES = 2000
TREE_LIMIT_DEPTH = 16
TOTAL_LIMIT_BYTES = 64 * MIB
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(slots=True)
class Sources:
    """Reads what definitions name, and keeps count of it.

    Attributes:
        total_bytes: What was read for one definition so far.
    """

    total_bytes: int = 0
    _left: int = field(default=0, repr=False)

    def read_file(self, folder: Path, relative: str, limit_bytes: int) -> bytes:
        """Return the content of the file ``relative`` in ``folder``.

        Raises:
            ValueError: It is not there, is no file, is too large, cannot be read, or lies behind a link.
        """
        handle = _open(folder, relative)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            message = f"{relative!r} in {folder} is not a file"
            raise ValueError(message)
        return self._content(handle, relative, limit_bytes)

    def read_tree(self, folder: Path, relative: str) -> dict[str, bytes]:
        """Return the files in the folder ``relative`` of ``folder``, by their paths in it; of a file, it by its name.

        Raises:
            ValueError: It is not there, holds something else than files and folders, or is too large.
        """
        handle = _open(folder, relative)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return {relative.rpartition("/")[2]: self._content(handle, relative, FILE_LIMIT_BYTES)}
        found: dict[str, bytes] = {}
        try:
            self._left = TREE_LIMIT_BYTES
            self._walk(handle, relative, "", found)
        finally:
            os.close(handle)
        if not found:
            message = f"the folder {relative!r} in {folder} has no file"
            raise ValueError(message)
        return dict(sorted(found.items()))

    def _walk(self, handle: int, whole: str, prefix: str, found: dict[str, bytes]) -> None:
        if prefix.count("/") >= TREE_LIMIT_DEPTH:
            message = f"{whole!r} is nested more than {TREE_LIMIT_DEPTH} deep"
            raise ValueError(message)
        for name in sorted(os.listdir(handle)):
            shown = f"{whole}/{prefix}{name}"
            inner = _open_at(handle, name, shown)
            if stat.S_ISDIR(os.fstat(inner).st_mode):
                try:
                    self._walk(inner, whole, f"{prefix}{name}/", found)
                finally:
                    os.close(inner)
                continue
            content = self._content(inner, shown, min(FILE_LIMIT_BYTES, self._left))
            self._left -= len(content)
            found[prefix + name] = content
            if len(found) > TREE_LIMIT_FILES:
                message = f"{whole!r} has more than {TREE_LIMIT_FILES} files"
                raise ValueError(message)

    def _content(self, handle: int, shown: str, limit_bytes: int) -> bytes:
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                message = f"{shown!r} is neither a file nor a folder"
                raise ValueError(message)
            content = stream.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            message = f"{shown!r} is larger than {limit_bytes} bytes, which is the most here"
            raise ValueError(message)
        self.total_bytes += len(content)
        if self.total_bytes > TOTAL_LIMIT_BYTES:
            message = f"with {shown!r}, all files together are larger than {TOTAL_LIMIT_BYTES} bytes"
            raise ValueError(message)
        return content


def _open(folder: Path, relative: str) -> int:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as problem:
        message = f"cannot read {folder}: {problem.strerror}"
        raise ValueError(message) from problem
    # Name by name: opened at once, a link in the middle would be followed.
    for part in relative.split("/"):
        try:
            inner = _open_at(handle, part, relative)
        finally:
            os.close(handle)
        handle = inner
    return handle


def _open_at(handle: int, name: str, shown: str) -> int:
    if name in {"", ".", ".."} or "\0" in name or not name.isprintable():
        message = f"{shown!r} has a name that is not taken"
        raise ValueError(message)
    try:
        if stat.S_ISLNK(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
            message = f"{shown!r} is a link, or lies behind one; put the file itself there"
            raise ValueError(message)
        return os.open(name, _READ, dir_fd=handle)
    except OSError as problem:
        message = f"cannot read {shown!r} in the definition's folder: {problem.strerror}"
        raise ValueError(message) from problem
