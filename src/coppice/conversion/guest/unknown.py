# SPDX-License-Identifier: Apache-2.0
"""What keeps a fact from being found out; it becomes an `UnknownFact`, and never leaves `coppice.conversion.guest`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from coppice.errors import ConversionError, MachineError, NoSpaceError

if TYPE_CHECKING:
    from collections.abc import Iterator


class NotFoundOutError(Exception):
    """A fact cannot be found out; the text is a clause without a full stop that says why."""


@contextmanager
def told_as_unknown(doing: str) -> Iterator[None]:
    """Turn what a program or this machine fails with into a reason for not knowing.

    Args:
        doing: What is being done: ``reading the ext4 file system``.

    Raises:
        NotFoundOutError: In its place.
    """
    try:
        yield
    except (ConversionError, MachineError, NoSpaceError) as problem:
        said = last_line((problem.details or "").encode(errors="replace"))
        why = f" ({said})" if said and not said.startswith("$ ") else ""
        raise NotFoundOutError(f"{doing} failed: {problem.message}{why}") from problem


def last_line(said: bytes) -> str:
    """Return the last line of what a program said, fit to be shown."""
    lines = said.decode("utf-8", errors="replace").strip().split("\n")
    return "".join(letter if letter.isprintable() else "?" for letter in lines[-1][:200])
