# SPDX-License-Identifier: Apache-2.0
"""Logging: one record a line, for people or as JSON, to standard error; secrets never get out.

Much of what is logged comes from strangers (titles in image lists, answers of servers, output of programs). Whatever
could end a line, move the cursor or turn the direction of writing is escaped, so that nobody writes records of his own.

Facts go into ``extra={"fields": {...}}``: they become ``name=value`` for people and members of ``fields`` in JSON.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO

from coppice.clock import to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = "coppice"
REDACTED = "[redacted]"
_SECRET_WORDS = (
    r"passwords?|passwd|passphrase|secrets?|tokens?|api[_-]?key|private[_-]?key|authorization|cookie|credentials?"  # noqa: S105 - the names of secrets, no secret
)
_SECRET_KEY = re.compile(rf"(?:^|[._-])(?:x-[a-z-]{{0,60}})?(?:{_SECRET_WORDS})$", re.IGNORECASE)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]{0,60}token)(\s*[:=]\s*)[^\r\n]+", re.IGNORECASE
)
_ASSIGNMENT = re.compile(
    # Only where a name begins: a search within each would take a long text's length squared.
    rf"""(?P<name>(?<![\w.-])[\w.-]*(?:{_SECRET_WORDS})["']?)(?P<sign>\s*[:=]\s*)(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;&"']+)""",
    re.IGNORECASE,
)
_HINT = re.compile(r"passw|passphrase|secret|token|api|private|authorization|cookie|credential", re.IGNORECASE)
"""Without one of these there is no secret to be told by the word before it; to look for them is quick."""
_USERINFO = re.compile(r"(?P<scheme>[a-z0-9+.-]{1,30}://)[^/\s@?#]*(?:@[^/\s@?#]*)*@", re.IGNORECASE)
# C0 and C1 controls, line and paragraph separators, direction marks and overrides, byte order mark, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class LogFormat(StrEnum):
    """How records are written."""

    HUMAN = "human"
    JSON = "json"


def escape(text: str) -> str:
    """Return ``text`` on one line, with nothing in it that a terminal or a log reader obeys."""
    return _UNSAFE.sub(lambda match: _NAMED.get(match[0]) or _code(match[0]), text)


def redact(text: str) -> str:
    """Return ``text`` without the secrets that can be told by the words before them, and without passwords in URLs."""
    if "://" in text:
        text = _USERINFO.sub(rf"\g<scheme>{REDACTED}@", text)
    if not _HINT.search(text):
        return text
    text = _HEADER.sub(rf"\1\2{REDACTED}", text)
    return _ASSIGNMENT.sub(rf"\g<name>\g<sign>{REDACTED}", text)


def redact_value(key: str, value: object) -> object:
    """Return ``value`` without secrets, given the key that it stands under; containers are looked into."""
    if _SECRET_KEY.search(key):
        return REDACTED
    if isinstance(value, dict):
        return {str(name): redact_value(str(name), each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact_value(key, each) for each in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return redact(str(value))


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module (``get_logger(__name__)``)."""
    return logging.getLogger(name if name == ROOT or name.startswith(f"{ROOT}.") else f"{ROOT}.{name}")


def configure(
    level: int | str = logging.WARNING, log_format: LogFormat | str = LogFormat.HUMAN, stream: TextIO | None = None
) -> None:
    """Send Coppice's records of ``level`` and above to ``stream`` (standard error); called again, it replaces.

    Libraries' warnings and errors go the same way, so that they cannot break the line rule either.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if LogFormat(log_format) is LogFormat.JSON else HumanFormatter())
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each.formatter, (JsonFormatter, HumanFormatter))]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level)


class HumanFormatter(logging.Formatter):
    """One line for people: when, how grave, who, what, facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        parts = [_when(record), record.levelname.lower(), f"{record.name}:", redact(record.getMessage())]
        parts += [f"{name}={redact_value(name, value)}" for name, value in _fields(record).items()]
        if record.exc_info:
            parts.append(f"| {redact(self.formatException(record.exc_info))}")
        return escape(" ".join(parts))


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        said: dict[str, object] = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": escape(redact(record.getMessage())),
        }
        fields = _fields(record)
        if fields:
            said["fields"] = {name: redact_value(name, value) for name, value in fields.items()}
        if record.exc_info:
            said["traceback"] = redact(self.formatException(record.exc_info))
        # ASCII only: every character that could end a line somewhere is written as an escape.
        return json.dumps(said, ensure_ascii=True, default=str)


def _when(record: logging.LogRecord) -> str:
    return to_rfc3339(datetime.fromtimestamp(record.created, UTC))


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _code(character: str) -> str:
    point = ord(character)
    return f"\\x{point:02x}" if point <= 0xFF else f"\\u{point:04x}"  # noqa: PLR2004 - the short form's last
