# SPDX-License-Identifier: Apache-2.0
"""Read another program's SQLite database: nothing is written to it, and nothing in it is believed.

What is read there is somebody else's: a damaged file, one of another program, or one whose tables are views that never
end, gives an error that says so.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from coppice.errors import UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_DATABASE_BYTES = 2 * 1024**3
MAX_VALUE_BYTES = 32 * 1024**2
"""Of one value: a signed list is the longest that there is."""
MAX_ROWS = 200_000
"""Of one table."""
MAX_SECONDS = 120
_SQLITE = b"SQLite format 3\x00"
_STEPS_BETWEEN_LOOKS = 100_000


class ForeignDatabase:
    """An open database of another program.

    Args:
        path: Its file.
        connection: To it, for reading only.
        what: The program's name, for people.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, what: str) -> None:
        self.path = path
        self._connection = connection
        self._what = what

    def require_tables(self, tables: Sequence[str]) -> None:
        """Refuse a database that lacks a table.

        Raises:
            UnreadableFileError: It does, or cannot be read.
        """
        names = {str(row["name"]).lower() for row in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        missing = [table for table in tables if table.lower() not in names]
        if missing:
            raise self.refused(f"it is not {self._what}'s: it has no table {missing[0]}")

    def rows(self, table: str, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, object]]:
        """Return every row of ``table``, in the order of its ``id``; an optional column that is not there is None.

        Raises:
            UnreadableFileError: A column is missing, there are too many rows, or the database cannot be read.
        """
        known = {str(row["name"]).lower() for row in self._rows(f"PRAGMA table_info({_quoted(table)})")}
        missing = [column for column in columns if column.lower() not in known]
        if missing:
            raise self.refused(f"it is not {self._what}'s: the table {table} has no column {missing[0]}")
        there = [*columns, *(column for column in optional if column.lower() in known)]
        wanted = ", ".join(map(_quoted, there))
        found = self._rows(f"SELECT {wanted} FROM {_quoted(table)} ORDER BY id LIMIT {MAX_ROWS + 1}")  # noqa: S608 - names out of this program
        if len(found) > MAX_ROWS:
            raise self.refused(f"the table {table} has more than {MAX_ROWS} rows")
        return [{column: row.get(column) for column in (*columns, *optional)} for row in found]

    def blob(self, table: str, column: str, number: int) -> bytes | None:
        """Return one long value of the row ``number``; None where there is no such row.

        Raises:
            UnreadableFileError: The database cannot be read.
        """
        statement = f"SELECT {_quoted(column)} AS found FROM {_quoted(table)} WHERE id = ?"  # noqa: S608 - likewise
        for row in self._rows(statement, (number,)):
            value = row["found"]
            return value.encode("utf-8") if isinstance(value, str) else value if isinstance(value, bytes) else None
        return None

    def refused(self, why: str) -> UnreadableFileError:
        """Return the error that says why this database cannot be used."""
        return _refused(self.path, self._what, why)

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[dict[str, object]]:
        try:
            cursor = self._connection.execute(statement, values)
            names = [each[0] for each in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        except (sqlite3.Error, UnicodeError, OverflowError) as problem:
            raise self.refused(str(problem)[:200] or type(problem).__name__) from problem


@contextmanager
def open_foreign(path: Path, what: str) -> Iterator[ForeignDatabase]:
    """Open the SQLite database of the program ``what`` for reading.

    Raises:
        UnreadableFileError: It cannot be read, is too large, or is no such database.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(len(_SQLITE))
    except OSError as problem:
        raise _refused(path, what, problem.strerror or str(problem)) from problem
    if begin != _SQLITE:
        raise _refused(path, what, "it is no SQLite database")
    if size > MAX_DATABASE_BYTES:
        raise _refused(path, what, f"it is longer than {MAX_DATABASE_BYTES} bytes")
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=10)
    except sqlite3.Error as problem:
        raise _refused(path, what, str(problem)) from problem
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        # A schema is a program as well: it may call what this connection knows, unless that is forbidden.
        for pragma in ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON"):
            connection.execute(f"PRAGMA {pragma}")
        end = time.monotonic() + MAX_SECONDS
        connection.set_progress_handler(lambda: int(time.monotonic() > end), _STEPS_BETWEEN_LOOKS)
        yield ForeignDatabase(path, connection, what)
    except sqlite3.Error as problem:
        raise _refused(path, what, str(problem)[:200]) from problem
    finally:
        connection.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _refused(path: Path, what: str, why: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path} cannot be read as {what}'s database: {why}",
        resolution=f"Name the SQLite file of {what}; copy it first if {what} is still at work on it.",
        context={"path": str(path)},
    )
