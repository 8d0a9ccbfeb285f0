# SPDX-License-Identifier: Apache-2.0
"""What Packer says with ``-machine-readable``, line by line: when, about what, of which kind, and the data. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMA = "%!(PACKER_COMMA)"
_FIELDS = 3
_LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something that Packer said.

    Attributes:
        target: Of which builder; empty: of none.
        kind: ``ui``, ``artifact``, ``error`` …
        data: What of it.
    """

    target: str
    kind: str
    data: tuple[str, ...]

    @property
    def text(self) -> str:
        """What people are told; empty: nothing."""
        if self.kind == "ui" and len(self.data) > 1:
            return self.data[1]
        return self.data[0] if self.kind == "error" and self.data else ""

    @property
    def is_error(self) -> bool:
        """Whether it tells of something that went wrong."""
        return self.kind == "error" or (self.kind == "ui" and self.data[:1] == ("error",))


def read_message(line: str) -> Message | None:
    """Return what ``line`` says; None: Packer said it in another form."""
    time, *fields = line.split(",")
    if len(fields) < _FIELDS - 1 or not time.isdigit():
        return None
    target, kind, *data = (_plain(field) for field in fields)
    return Message(target=target, kind=kind, data=tuple(data))


def _plain(field: str) -> str:
    return field.replace(_COMMA, ",").replace("\\n", "\n").replace("\\r", "\r")


class MessageReader:
    """Puts pieces of output together to lines, and reads them."""

    def __init__(self) -> None:
        self._rest = ""

    def take(self, piece: str) -> Iterator[Message]:
        """Give the messages that ``piece`` completes."""
        *lines, rest = (self._rest + piece).split("\n")
        self._rest = rest[-_LONGEST:]
        for line in lines:
            stripped = line.rstrip("\r")
            message = read_message(stripped)
            if message is not None:
                yield message
            elif stripped.strip():
                yield Message(target="", kind="ui", data=("say", stripped))
