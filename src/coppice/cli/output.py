# SPDX-License-Identifier: Apache-2.0
"""Printing for people: tables, pairs, errors and notes. Data goes to standard output, all else to standard error.

Colour never carries meaning. On a terminal tables are drawn by rich; in a pipe they are plain columns.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from coppice.clock import to_rfc3339
from coppice.log import escape, redact
from coppice.settings.quantities import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coppice.errors import CoppiceError

__all__ = ["Output", "format_duration", "format_size"]
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_BETWEEN = 2
_WHOLE_WORDS = (36, 20)
"""How long words may be that are not broken: an identifier, or, where there is no room for it, an instant."""
_PIECE = 8


class Output:
    """Where a command's answer goes.

    Args:
        stdout: For data.
        stderr: For all else.
        quiet: Whether notes are left out; errors never are.
        color: Whether colour is wanted where the stream is a terminal.
    """

    def __init__(
        self,
        *,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        quiet: bool = False,
        color: bool = True,
    ) -> None:
        self.stdout = stdout if stdout is not None else sys.stdout
        self.stderr = stderr if stderr is not None else sys.stderr
        self.quiet = quiet
        self.color = color

    @property
    def is_terminal(self) -> bool:
        """Tell whether a person sees standard output as it comes."""
        return self.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def line(self, text: str = "", *, style: str = "") -> None:
        """Print one line; control characters in it are escaped."""
        self._print(escape(text), style=style)

    def heading(self, text: str) -> None:
        """Print a heading."""
        self.line(text, style="bold")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
        """Print rows under headings; None is shown as ``-``, an instant as RFC 3339 in UTC."""
        cells = [[_cell(value) for value in row] for row in rows]
        if title:
            self.heading(title)
        if self.is_terminal:
            self._draw(columns, cells)
            return
        widths = [max(len(column), *(len(row[i]) for row in cells), 0) for i, column in enumerate(columns)]
        for row in ([column.upper() for column in columns], *cells):
            self.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def pairs(self, pairs: Mapping[str, object], *, title: str | None = None) -> None:
        """Print names and values, one a line."""
        if title:
            self.heading(title)
        width = max((len(name) for name in pairs), default=0)
        for name, value in pairs.items():
            self.line(f"{name.ljust(width)}  {_cell(value)}")

    def note(self, text: str) -> None:
        """Tell the reader something that is no data."""
        if not self.quiet:
            self._say(text)

    def error(self, error: CoppiceError) -> None:
        """Print an error: what, the facts, what to do."""
        self._say(f"error[{error.code}]: {error.message}", lead_style="bold red")
        for line in (error.details or "").splitlines():
            self._say(f"  {line}")
        if error.resolution:
            self._say(f"hint: {error.resolution}", lead_style="cyan")

    def _say(self, text: str, *, lead_style: str = "") -> None:
        text = escape(redact(text))
        if lead_style and self.color and self.stderr.isatty():
            lead, colon, rest = text.partition(":")
            codes = {"bold red": "1;31", "cyan": "36"}[lead_style]
            text = f"\x1b[{codes}m{lead}{colon}\x1b[0m{rest}"
        self.stderr.write(f"{_encodable(text, self.stderr)}\n")
        self.stderr.flush()

    def _print(self, text: str, *, style: str = "") -> None:
        if style == "bold" and self.is_terminal and self.color:
            text = f"\x1b[1m{text}\x1b[0m"
        self.stdout.write(f"{_encodable(text, self.stdout)}\n")

    def _draw(self, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        options: dict[str, Any] = {} if self.color else {"no_color": True}
        console = Console(file=self.stdout, highlight=False, **options)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        widths = _widths(columns, cells, console.width)
        for column, width in zip(columns, widths, strict=True):
            table.add_column(Text(column), overflow="fold", width=width)
        for row in cells:
            # `Text`, not markup: a title in an image list must not style our screen.
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)


def _widths(columns: Sequence[str], cells: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """Return how wide columns are: what has blanks is broken there, before an identifier or an instant is broken.

    Where there is no room even for these, rich breaks what it must: None for each.
    """
    from rich.cells import cell_len

    texts = [[column, *(row[i] for row in cells)] for i, column in enumerate(columns)]
    wanted = [max(map(cell_len, each)) for each in texts]
    excess = sum(wanted) + _BETWEEN * (len(columns) - 1) - room
    for longest in _WHOLE_WORDS:
        words = [[cell_len(word) for text in each for word in text.split()] for each in texts]
        least = [max((word if word <= longest else _PIECE for word in each), default=0) for each in words]
        if 0 < excess <= sum(wanted) - sum(least):
            return _narrowed(wanted, least, excess)
    return [None] * len(columns)


def _narrowed(wanted: Sequence[int], least: Sequence[int], excess: int) -> list[int | None]:
    widths = list(wanted)
    for _ in range(excess):
        # The widest gives way first, until it is as wide as another that can.
        widest = max(range(len(widths)), key=lambda i: widths[i] if widths[i] > least[i] else -1)
        widths[widest] -= 1
    return list(widths)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return how many there are of something: ``1 file``, ``3 files``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def age(instant: datetime, now: datetime) -> str:
    """Return how long ago, or in how long, ``instant`` is, as roughly as people say it."""
    seconds = (now - instant).total_seconds()
    # What happened while the answer was put together is not in the future.
    seconds = max(seconds, 0) if seconds > -1 else seconds
    far = abs(seconds)
    unit = next((length for length in (_DAY, _HOUR, _MINUTE) if far >= 2 * length), 1)
    said = format_duration(far // unit * unit)
    return f"{said} ago" if seconds >= 0 else f"in {said}"


def moment(instant: datetime | None, now: datetime) -> str:
    """Return an instant for people, with how far away it is."""
    return "never" if instant is None else f"{to_rfc3339(instant)} ({age(instant, now)})"


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return to_rfc3339(value)
    return escape(redact(str(value)))


def _encodable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)
