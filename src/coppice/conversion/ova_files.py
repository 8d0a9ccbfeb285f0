# SPDX-License-Identifier: Apache-2.0
"""`ArchiveFiles`: the files of an archive by their names, read within bounds."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, NoReturn

from coppice.conversion.refusal import refusal
from coppice.errors import ArchiveError

if TYPE_CHECKING:
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError
    from coppice.formats.tar import TarMember

MAX_COMPANION_BYTES = 64 * 1024
"""Longest text that may lie beside a disk without anybody naming it."""
_HEAD_BYTES = 512
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")


class ArchiveFiles:
    """The files of one archive.

    Args:
        window: The archive.
        members: All of them, in their order.
        name: Of the archive, for messages.
    """

    def __init__(self, window: Window, members: tuple[TarMember, ...], name: str) -> None:
        self._window, self.members, self.name = window, members, name
        self._named = {member.name: member for member in members}

    def named(self, name: str) -> TarMember | None:
        """Return the file of that name; None: there is none."""
        return self._named.get(name)

    def ending(self, suffix: str) -> list[TarMember]:
        """Return the files whose names end so, in whatever case."""
        return [member for member in self.members if member.name.lower().endswith(suffix)]

    def only(self, suffix: str) -> TarMember:
        """Return the one file whose name ends so.

        Raises:
            ArchiveError: There are several.
        """
        found = self.ending(suffix)
        if len(found) > 1:
            self.refuse(
                ArchiveError,
                f"the archive has several files {suffix}: {found[0].name[:60]!r}, {found[1].name[:60]!r}",
                why="each program would go by another one",
                offset=found[1].header_offset,
            )
        return found[0]

    def content(self, member: TarMember, most: int, kind: type[ImageRefusedError], what: str) -> bytes:
        """Return all bytes of a file that is short.

        Args:
            member: The file.
            most: Most bytes.
            kind: The error of a longer one.
            what: What it is, for messages.
        """
        if member.size_bytes > most:
            self.refuse(
                kind,
                f"the {what} {member.name[:80]!r} has {member.size_bytes} bytes; at most {most} are read",
                why=f"a {what} of one machine needs far less",
                offset=member.header_offset,
            )
        return self._window.read(member.offset, member.size_bytes)

    def head(self, member: TarMember) -> bytes:
        """Return how a file begins."""
        return self._window.read(member.offset, min(_HEAD_BYTES, member.size_bytes))

    def is_companion(self, member: TarMember) -> bool:
        """Tell whether a file is a short text, such as a licence, and no descriptor of a disk."""
        if member.size_bytes > MAX_COMPANION_BYTES:
            return False
        content = self._window.read(member.offset, member.size_bytes)
        try:
            codecs.decode(content, "utf-8")
        except UnicodeDecodeError:
            return False
        if any(byte < ord(" ") and byte not in _TEXT_CONTROLS for byte in content):
            return False
        return not content.lstrip().lower().startswith(b"# disk descriptorfile")

    def refuse(self, kind: type[ImageRefusedError], found: str, *, why: str, offset: int) -> NoReturn:
        """Raise the error of a refusal."""
        raise refusal(kind, self.name, found, why=why, offset=offset)
