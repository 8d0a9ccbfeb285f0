# SPDX-License-Identifier: Apache-2.0
"""Write a tree into an ext4 file system inside a disk image, without mounting anything and without being root.

``debugfs`` does the writing: owners, modes, times and capabilities come from the tree's tar file, everything else is
fixed, so that the same tree makes the same bytes.
"""

from __future__ import annotations

import os
import stat
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.bootstrap.overlay import Symlink
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from uuid import UUID

    from coppice.factory.bootstrap.overlay import Overlay

BLOCK_BYTES = 4096
_TOOL_SECONDS = 600.0
_COPY_BYTES = 1024 * 1024
_MAX_LINE = 8000
_XATTR = "SCHILY.xattr."
# GRUB of Debian 12 reads neither of these two, which newer mke2fs switches on.
_FEATURES = "^metadata_csum_seed,^orphan_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ext4:
    """An ext4 file system in a disk image.

    Attributes:
        disk: The disk image.
        offset_bytes: Where it starts.
        size_bytes: How long it is.
        uuid: Its name; also the seed of its directory hashes.
        epoch: Seconds since 1970: no file is younger, and the file system is that old.
    """

    disk: Path
    offset_bytes: int
    size_bytes: int
    uuid: UUID
    epoch: int

    def make(self) -> None:
        """Make it, empty.

        Raises:
            BuildError: It could not be made.
        """
        options = f"offset={self.offset_bytes},hash_seed={self.uuid},root_owner=0:0,assume_storage_prezeroed=1"
        argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK_BYTES), "-m", "1", "-O", _FEATURES]
        argv += ["-U", str(self.uuid), "-L", "root", "-E", options, str(self.disk), str(self.size_bytes // BLOCK_BYTES)]
        _tool(argv, self._environment())

    def fill(self, script: Path) -> None:
        """Run a script of debugfs commands on it, then check it.

        Raises:
            BuildError: A command failed, or the file system is not clean afterwards.
        """
        place = f"{self.disk}?offset={self.offset_bytes}"
        said = _tool(["debugfs", "-w", "-f", str(script), place], self._environment())
        # debugfs always ends with 0; it complains on standard error, after one line with its version.
        complaints = [line for line in said.splitlines() if not line.startswith("debugfs ")]
        if complaints:
            raise BuildError("writing the root file system failed", details="\n".join(complaints[:20]))
        _tool(["e2fsck", "-f", "-n", place], self._environment())

    def _environment(self) -> dict[str, str]:
        return {"E2FSPROGS_FAKE_TIME": str(self.epoch), "SOURCE_DATE_EPOCH": str(self.epoch)}


@dataclass(slots=True, kw_only=True)
class Population:
    """A tree on its way into a file system: staged contents and the commands that write them.

    Attributes:
        staging: An empty directory for the contents.
        epoch: See `Ext4`.
        commands: For debugfs, in order.
        kept: Contents that were asked for, by path.
    """

    staging: Path
    epoch: int
    commands: list[str] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)
    _directories: set[str] = field(default_factory=lambda: {"/"})
    _links: dict[str, int] = field(default_factory=dict)
    _staged: int = 0

    def add_tree(self, tar: Path, overlay: Overlay, keep: Collection[str]) -> None:
        """Add the tree in ``tar`` under ``overlay``; remember the contents of the files named in ``keep``.

        Raises:
            BuildError: The tar file is damaged, or has an entry that no tree has.
            NoSpaceError: The disk is full.
        """
        with storage_errors("unpacking", tar):
            try:
                with tarfile.open(tar, "r:") as archive:
                    for member in archive:
                        self._add_member(archive, member, overlay, keep)
            except tarfile.TarError as problem:
                raise BuildError(f"{tar} is damaged: {problem}") from problem
            for path, entry in sorted(overlay.entries.items()):
                self._add_parents(path)
                if isinstance(entry, Symlink):
                    self._command("symlink", path, entry.target)
                else:
                    self._write(path, entry.content, mode=entry.mode)

    def write_script(self, script: Path) -> None:
        """Write the commands to ``script``."""
        with storage_errors("writing", script):
            script.write_text("\n".join(self.commands) + "\n", encoding="utf-8", errors="surrogateescape")

    def _add_member(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, overlay: Overlay, keep: Collection[str]
    ) -> None:
        path = guest_path(member.name)
        if overlay.leaves_out(path):
            return
        if member.isdir():
            if path != "/":
                self._command("mkdir", path)
                self._directories.add(path)
            self._set(path, "mode", f"0{stat.S_IFDIR | member.mode:o}")
        elif member.issym():
            self._command("symlink", path, member.linkname)
        elif member.islnk():
            self._add_hard_link(path, guest_path(member.linkname))
            return
        elif member.isreg():
            self._add_file(archive, member, path, kept=path in keep)
        else:
            raise BuildError(f"{path} is neither a file, a directory nor a link")
        self._set_ownership(path, member)

    def _add_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, *, kept: bool) -> None:
        source = archive.extractfile(member)
        assert source is not None  # noqa: S101 - a regular member always has content
        if kept:
            content = source.read()
            self.kept[path] = content
            self._write(path, content, mode=member.mode)
            return
        staged = self._next_staged()
        with staged.open("wb") as stream:
            while chunk := source.read(_COPY_BYTES):
                stream.write(chunk)
        self._write_staged(path, staged, member.mode)

    def _add_hard_link(self, path: str, target: str) -> None:
        # debugfs makes the directory entry and leaves counting to the caller.
        self._links[target] = self._links.get(target, 1) + 1
        self._command("ln", target, path)
        self._set(target, "links_count", str(self._links[target]))

    def _set_ownership(self, path: str, member: tarfile.TarInfo) -> None:
        if member.uid:
            self._set(path, "uid", str(member.uid))
        if member.gid:
            self._set(path, "gid", str(member.gid))
        if int(member.mtime) < self.epoch:
            self._set(path, "mtime", f"@{int(member.mtime)}")
        for key, value in sorted(member.pax_headers.items()):
            name = key.removeprefix(_XATTR)
            # Capabilities only: ACLs have another form on disk, and labels are the booted system's affair.
            if key.startswith(_XATTR) and name == "security.capability":
                staged = self._next_staged()
                staged.write_bytes(value.encode("utf-8", errors="surrogateescape"))
                self._command("ea_set", "-f", str(staged), path, name)

    def _add_parents(self, path: str) -> None:
        parent = os.path.dirname(path)  # noqa: PTH120 - a path of the guest
        if parent not in self._directories:
            self._add_parents(parent)
            self._command("mkdir", parent)
            self._set(parent, "mode", "040755")
            self._directories.add(parent)

    def _write(self, path: str, content: bytes, *, mode: int) -> None:
        staged = self._next_staged()
        staged.write_bytes(content)
        self._write_staged(path, staged, mode)

    def _write_staged(self, path: str, staged: Path, mode: int) -> None:
        self._command("write", str(staged), path)
        self._set(path, "mode", f"0{stat.S_IFREG | mode:o}")

    def _next_staged(self) -> Path:
        self._staged += 1
        return self.staging / str(self._staged)

    def _set(self, path: str, what: str, value: str) -> None:
        self._command("set_inode_field", path, what, value)

    def _command(self, verb: str, *words: str) -> None:
        line = " ".join((verb, *(f'"{word.replace(chr(34), chr(34) * 2)}"' for word in words)))
        if "\n" in line or len(line.encode("utf-8", errors="surrogateescape")) > _MAX_LINE:
            raise BuildError(f"a path that cannot be written into a file system: {line[:200]!r}")
        self.commands.append(line)


def guest_path(name: str) -> str:
    """Return the absolute path in the guest of a tar member's name.

    Raises:
        BuildError: It leads out of the tree.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise BuildError(f"a path that leads out of the tree: {name[:200]!r}")
    return "/" + "/".join(parts)


def _tool(argv: list[str], environment: dict[str, str]) -> str:
    try:
        completed = run(argv, timeout_seconds=_TOOL_SECONDS, env=environment)
    except ToolFailedError as problem:
        raise BuildError(f"making the root file system failed: {problem.message}", details=problem.details) from problem
    return completed.stderr.decode("utf-8", errors="replace")
