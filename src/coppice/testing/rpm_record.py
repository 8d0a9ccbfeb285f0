# SPDX-License-Identifier: Apache-2.0
"""RPM's record of installed packages, as a test wants it."""

from __future__ import annotations

import sqlite3
import struct

_TEXT = 6


def rpm_record(*names: str) -> bytes:
    """Return a record in SQLite with packages of these names, which have no files and bear no signature."""
    database = sqlite3.connect(":memory:")
    try:
        database.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(_header(name),) for name in names])
        database.commit()
        return database.serialize()
    finally:
        database.close()


def _header(name: str) -> bytes:
    entries, store = b"", b""
    for tag, text in ((1000, name), (1001, "1"), (1002, "1"), (1022, "noarch")):
        entries += struct.pack(">IIII", tag, _TEXT, len(store), 1)
        store += text.encode() + b"\0"
    return struct.pack(">II", len(entries) // 16, len(store)) + entries + store
