# SPDX-License-Identifier: Apache-2.0
"""Extended headers of tar (IEEE Std 1003.1, "pax Extended Header"): records of a key and a value."""

from __future__ import annotations

import re

_MAX_RECORDS = 64
_LENGTH_DIGITS = 5
_UTF_8 = ("ISO-IR 10646 2000 UTF-8",)
GLOBAL_KEYS = frozenset({"comment", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname"})
"""What a header may say of all members: nothing of their names and lengths."""
_HARMLESS = GLOBAL_KEYS | {"path", "size"}
_INSTANT, _NUMBER = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{0,20})?"), re.compile(r"[0-9]{1,20}")
_FORMS = {"mtime": _INSTANT, "atime": _INSTANT, "ctime": _INSTANT, "uid": _NUMBER, "gid": _NUMBER}
_HARMLESS_BEGINNINGS = ("LIBARCHIVE.creationtime", "LIBARCHIVE.xattr.", "SCHILY.xattr.", "SCHILY.acl.", "RHT.security.")
_HARMLESS_SCHILY = frozenset({"SCHILY.dev", "SCHILY.ino", "SCHILY.nlink", "SCHILY.fflags"})


def read_records(content: bytes) -> dict[str, str]:
    """Return the records of an extended header.

    Values that are no UTF-8 are kept as far as they say nothing of the file (an attribute may be binary).

    Raises:
        ValueError: It is malformed, or says the same twice; the message says what.
    """
    found: dict[str, str] = {}
    rest = content.rstrip(b"\0") if content.endswith(b"\n\0") else content
    while rest:
        digits, space, _ = rest[: _LENGTH_DIGITS + 1].partition(b" ")
        if not space or not digits.isdigit() or digits.startswith(b"0"):
            message = "a record does not begin with its length"
            raise ValueError(message)
        length = int(digits)
        record = rest[len(digits) + 1 : length]
        if length > len(rest) or not record.endswith(b"\n"):
            message = "a record has not the length that it says"
            raise ValueError(message)
        key, equals, value = record[:-1].partition(b"=")
        try:
            name = key.decode()
            text = value.decode("utf-8", "strict" if name in _HARMLESS else "replace")
        except UnicodeDecodeError:
            message = "a record is no UTF-8"
            raise ValueError(message) from None
        if not equals or not key or name in found or len(found) >= _MAX_RECORDS:
            message = f"the record {name[:40]!r} is there twice, has no value, or is one too many"
            raise ValueError(message)
        found[name] = text
        rest = rest[length:]
    return found


def pax_problem(key: str, value: str) -> str | None:
    """Return why a record is not taken, in words; None: it is."""
    if key == "hdrcharset":
        return None if value in _UTF_8 else "puts names into another character set"
    if key.startswith("GNU.sparse.") or key in {"SCHILY.realsize", "SCHILY.filetype"}:
        return "makes the member a sparse file, whose content is not what stands there"
    form = _FORMS.get(key)
    if form is not None and not form.fullmatch(value):
        return "is no number"
    if key == "linkpath":
        return "makes the member a link"
    if key in _HARMLESS or key in _HARMLESS_SCHILY or key.startswith(_HARMLESS_BEGINNINGS):
        return None
    return "is not known"
