# SPDX-License-Identifier: Apache-2.0
r"""The written forms of X.500 names: the slash form and the comma form, taken apart and escaped.

In the slash form (OpenSSL's "oneline"), a slash begins a relative name only where an attribute type and ``=`` follow:
``/CN=host/lists.example.org`` is one value. ``\/``, ``\+`` and ``\\`` stand for the character itself, ``\xHH`` for a
byte of UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Relative = Sequence[tuple[str, str]]
"""A relative name: (attribute type as it was written, value) for each of its attributes."""

_TYPE = r"(?:[A-Za-z][A-Za-z0-9.-]{0,63}|[0-9]{1,10}(?:\.[0-9]{1,39}){1,20})"
_SLASH_ATTRIBUTE = re.compile(
    rf"([/+])({_TYPE})=((?:[^\\/+]|\\.|\\\Z|[/+](?!{_TYPE}=))*)",
    re.DOTALL,
)
_SLASH_ESCAPE = re.compile(r"((?:\\x[0-9A-Fa-f]{2})+)|\\([/+\\])")
_AMBIGUOUS = re.compile(rf"\\|[/+](?={_TYPE}=)")
_COMMA_ATTRIBUTE = re.compile(rf"[ ]*({_TYPE})([ ]*=[ ]*)", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"[ ]*', re.DOTALL)
_HEXADECIMAL = re.compile(r"#((?:[0-9A-Fa-f]{2})+)[ ]*")
_PLAIN = re.compile(r'(?!#)(?:[^\\"+,;]|\\.)*', re.DOTALL)
_COMMA_ESCAPE = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)", re.DOTALL)
_STRING_TAGS = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x12: "ascii", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
"""UTF8String, PrintableString, IA5String, NumericString, BMPString, UniversalString (X.690, 8.23)."""
_LONG_LENGTH = 0x80


def read_slash_form(text: str) -> list[Relative]:
    """Return the relative names of ``text``, most general first; none when it has not this form.

    Raises:
        ValueError: An escaped byte is no UTF-8.
    """
    relatives: list[list[tuple[str, str]]] = []
    position = 0
    while position < len(text):
        match = _SLASH_ATTRIBUTE.match(text, position)
        if match is None or (match.group(1) == "+" and not relatives):
            return []
        attribute = (match.group(2), _SLASH_ESCAPE.sub(_unescaped, match.group(3)))
        if match.group(1) == "+":
            relatives[-1].append(attribute)
        else:
            relatives.append([attribute])
        position = match.end()
    return list(relatives)


def escape_value(value: str) -> str:
    """Return ``value`` as the slash form writes it: nothing in it reads as another attribute, all can be printed."""
    escaped = _AMBIGUOUS.sub(lambda match: "\\" + match.group(), value)
    kept = escaped.rstrip(" ")
    # A reader takes blanks at the end of a name away.
    escaped = kept + "\\x20" * (len(escaped) - len(kept))
    if escaped.isprintable():
        return escaped
    return "".join(sign if sign.isprintable() else _as_bytes(sign) for sign in escaped)


def _as_bytes(sign: str) -> str:
    return "".join(f"\\x{byte:02X}" for byte in sign.encode("utf-8", "surrogatepass"))


def _unescaped(match: re.Match[str]) -> str:
    if match.group(1):
        return _text(bytes.fromhex(match.group(1).replace("\\x", "")))
    return match.group(2)


def read_comma_form(text: str) -> list[Relative]:
    """Return the relative names of ``text``, most general first; none when it has not this form.

    RFC 4514, with what RFC 2253 (4) adds for older writers: values in quotes, ``;`` for ``,``, blanks around
    separators.

    Raises:
        ValueError: An escaped byte is no UTF-8, or a hexadecimal value is no text.
    """
    relatives: list[list[tuple[str, str]]] = []
    spaced: list[bool] = []
    position, separator = 0, ","
    while separator:
        start = _COMMA_ATTRIBUTE.match(text, position)
        read = _comma_value(text, start.end()) if start else None
        if start is None or read is None:
            return []
        value, position = read
        spaced.append(start.group(2).startswith(" ") and start.group(2).endswith(" "))
        attribute = (start.group(1), value)
        if separator == "+":
            relatives[-1].append(attribute)
        else:
            relatives.append([attribute])
        separator = text[position : position + 1]
        position += 1
    return list(relatives) if all(spaced) else list(reversed(relatives))


def _comma_value(text: str, position: int) -> tuple[str, int] | None:
    quoted = _QUOTED.match(text, position)
    if quoted:
        value, end = _COMMA_ESCAPE.sub(_unescaped_comma, quoted.group(1)), quoted.end()
    else:
        hexadecimal = _HEXADECIMAL.match(text, position)
        if hexadecimal:
            value, end = _decoded(bytes.fromhex(hexadecimal.group(1))), hexadecimal.end()
        else:
            plain = _PLAIN.match(text, position)
            if plain is None:
                return None
            trimmed = _without_trailing_blanks(plain.group())
            value, end = _COMMA_ESCAPE.sub(_unescaped_comma, trimmed), plain.end()
    return (value, end) if end == len(text) or text[end] in ",;+" else None


def _without_trailing_blanks(written: str) -> str:
    trimmed = written.rstrip(" ")
    # A blank after an odd number of backslashes is a part of the value.
    backslashes = len(trimmed) - len(trimmed.rstrip("\\"))
    return trimmed + " " if backslashes % 2 and trimmed != written else trimmed


def _unescaped_comma(match: re.Match[str]) -> str:
    if match.group(1):
        return _text(bytes.fromhex(match.group(1).replace("\\", "")))
    return match.group(2)


def _decoded(encoded: bytes) -> str:
    """Return the text that the DER of a value holds (RFC 4514, 2.4)."""
    encoding = _STRING_TAGS.get(encoded[0])
    if encoding is None or len(encoded) < 2 or encoded[1] >= _LONG_LENGTH or len(encoded) != encoded[1] + 2:  # noqa: PLR2004 - tag, length
        message = f"distinguished name with a value that is no text: #{encoded[:40].hex()}"
        raise ValueError(message)
    return _text(encoded[2:], encoding)


def _text(encoded: bytes, encoding: str = "utf-8") -> str:
    try:
        return encoded.decode(encoding)
    except UnicodeDecodeError:
        message = f"distinguished name with a value that is not {encoding.upper()}: {encoded[:40].hex()}"
        raise ValueError(message) from None
