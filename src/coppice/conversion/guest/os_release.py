# SPDX-License-Identifier: Apache-2.0
"""Read ``os-release`` (os-release(5)) of a guest; nothing of it is run, and nothing of it is expanded."""

from __future__ import annotations

import re
import unicodedata

from coppice.conversion.guest.model import OsRelease

MOST_BYTES = 64 * 1024
MOST_VALUE_LETTERS = 256
_LINE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
_PLAIN = re.compile(r"[A-Za-z0-9._:/+~@%,=-]*")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\$`]|\\["\\$`])*)"')
_ESCAPED = re.compile(r'\\(["\\$`])')
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~ -]*")


def read_os_release(content: bytes) -> tuple[OsRelease, tuple[str, ...]]:
    """Return what it says, and what of it was not taken, as notes.

    A value is taken whole or not at all: one that breaks the rules of quoting, has letters that cannot be printed,
    or is too long is left out. The last of two lines of a name counts, as for a shell.

    Args:
        content: The file; of more than `MOST_BYTES`, the first.
    """
    values: dict[str, str] = {}
    notes = ["os-release is longer than it may be: only its beginning was read"] if len(content) > MOST_BYTES else []
    for line in content[:MOST_BYTES].decode("utf-8", errors="replace").split("\n"):
        found = _LINE.fullmatch(line.strip(" \t\r"))
        if found is None or found[1] not in {"ID", "VERSION_ID", "NAME", "PRETTY_NAME", "ID_LIKE"}:
            continue
        value = _value(found[2])
        if value is None or not _is_well_formed(found[1], value):
            values.pop(found[1], None)
            notes.append(f"{found[1]} of os-release is malformed")
        else:
            values[found[1]] = value
    release = OsRelease(
        identifier=values.get("ID", ""),
        version_id=values.get("VERSION_ID", ""),
        name=values.get("NAME", ""),
        pretty_name=values.get("PRETTY_NAME", ""),
        like=tuple(values.get("ID_LIKE", "").split()),
    )
    return release, tuple(dict.fromkeys(notes))


def _value(text: str) -> str | None:
    text = text.rstrip(" \t")
    if (single := _SINGLE.fullmatch(text)) is not None:
        return single[1]
    if (double := _DOUBLE.fullmatch(text)) is not None:
        return _ESCAPED.sub(r"\1", double[1])
    return text if _PLAIN.fullmatch(text) else None


def _is_well_formed(name: str, value: str) -> bool:
    if len(value) > MOST_VALUE_LETTERS:
        return False
    if name == "ID":
        return _WORD.fullmatch(value) is not None
    if name == "VERSION_ID":
        return value == "" or _VERSION.fullmatch(value) is not None
    if name == "ID_LIKE":
        return all(_WORD.fullmatch(word) for word in value.split())
    return (
        all(unicodedata.category(letter)[0] not in "CZ" or letter == " " for letter in value) and "\ufffd" not in value
    )
