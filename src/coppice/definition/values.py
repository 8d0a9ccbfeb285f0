# SPDX-License-Identifier: Apache-2.0
"""Kinds of values that people write into ``appliance.toml``: what each must look like, and how it is called."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictBool,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from coppice.definition.model import OpenPort
from coppice.settings.quantities import parse_duration

MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?) ?([KMGT]i?B|B)")
_UNITS = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": MIB,
    "GiB": GIB,
    "TiB": TIB,
}
_NAME = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_PAGE = re.compile(r"(?P<scheme>https?)://:(?P<port>[1-9][0-9]{0,4})(?P<path>/[!-~]{0,1000})")
_PORT = re.compile(r"(?:(?P<source>[0-9A-Fa-f:.]+/[0-9]{1,3}) +)?(?P<port>[0-9]{1,5})/(?P<protocol>tcp|udp)")
_NEEDLES = re.compile(r"\$(?![tvng$])")
_KERNEL_FOLDERS = ("/dev", "/proc", "/run", "/sys")
_FREE_DEPTH, _FREE_VALUES, _FREE_TEXT = 8, 1000, 8000


@dataclass(frozen=True, slots=True)
class Kind:
    """What a person writes for a value; for the reference page."""

    name: str


def parse_size(value: object) -> int:
    """Return the number of bytes in ``value``: a whole number of bytes, or text such as ``"8 GiB"``.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        message = f'not a size: {str(value)[:80]!r}; write bytes as a number, or text such as "8 GiB"'
        raise ValueError(message)
    size = float(match[1]) * _UNITS[match[2]] if "." in match[1] else int(match[1]) * _UNITS[match[2]]
    if size != int(size):
        message = f"not a whole number of bytes: {value!r}"
        raise ValueError(message)
    return int(size)


def parse_open_port(text: str) -> OpenPort:
    """Return the port in ``text``: ``80/tcp``, or ``10.0.0.0/8 5432/tcp`` for one network only.

    Raises:
        ValueError: It names none.
    """
    match = _PORT.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= 65535:  # noqa: PLR2004 - the last port
        message = f'not a port: {text[:80]!r}; write "80/tcp", or "10.0.0.0/8 5432/tcp" for one network only'
        raise ValueError(message)
    source = None if match["source"] is None else str(ipaddress.ip_network(match["source"]))
    return OpenPort(port=int(match["port"]), protocol=match["protocol"], source=source)


def parse_page(text: str) -> tuple[bool, int, str]:
    """Return whether a page is asked for by TLS, at which port, and its path.

    Raises:
        ValueError: It is no such address.
    """
    match = _PAGE.fullmatch(text)
    if match is None or int(match["port"]) > 65535:  # noqa: PLR2004 - the last port
        message = f"not the address of a page: {text[:80]!r}; write one without a host, such as http://:80/"
        raise ValueError(message)
    return match["scheme"] == "https", int(match["port"]), match["path"]


def _page_address(text: str) -> str:
    parse_page(text)
    return text


def _whole_mib(size_bytes: int) -> int:
    if size_bytes % MIB:
        message = f"not a whole number of MiB: {size_bytes} bytes"
        raise ValueError(message)
    return size_bytes


@dataclass(frozen=True, slots=True)
class Matched:
    """Texts that a pattern decides; the same pattern stands in the JSON Schema.

    Attributes:
        pattern: What the whole text must match.
        expected: What a text is not that does not match.
        hint: How it is written.
    """

    pattern: str
    expected: str
    hint: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "pattern": f"^(?:{self.pattern})$"}

    def check(self, text: str) -> str:
        """Return ``text``.

        Raises:
            ValueError: It does not match.
        """
        if not re.fullmatch(self.pattern, text):
            message = f"{self.expected}: {text[:140]!r} ({self.hint})"
            raise ValueError(message)
        return text


def _no_root(name: str) -> str:
    if name == "root":
        message = "not a login name: 'root' is there already"
        raise ValueError(message)
    return name


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        message = "has a line break or a control character"
        raise ValueError(message)
    return text


def _lines(text: str) -> str:
    if _CONTROL_BUT_LINES.search(text):
        message = "has a control character"
        raise ValueError(message)
    return text


def _guest_path(text: str) -> str:
    parts = text.split("/")
    if len(text) > 1024 or parts[0] or len(parts) < 2 or any(each in {"", ".", ".."} for each in parts[1:]):  # noqa: PLR2004 - bounds of this line
        message = f'not a path in the appliance: {text[:140]!r} (from "/" on, without "..", "//" and a "/" at the end)'
        raise ValueError(message)
    if any(len(each.encode()) > 255 for each in parts):  # noqa: PLR2004 - of Linux
        message = f"a part of the path {text[:140]!r} is longer than 255 bytes"
        raise ValueError(message)
    if text.startswith(tuple(f"{folder}/" for folder in _KERNEL_FOLDERS)) or text in _KERNEL_FOLDERS:
        message = f"{text[:140]!r} is no place in an image: the kernel puts its own over {text.split('/')[1]!r} at boot"
        raise ValueError(message)
    return _one_line(text)


def _source(text: str) -> str:
    parts = text.split("/")
    if len(text) > 1024 or any(each in {"", ".", ".."} for each in parts):  # noqa: PLR2004 - a bound
        message = f'not a path in the folder of the definition: {text[:140]!r} (relative, without "." and "..")'
        raise ValueError(message)
    return _one_line(text)


def _template(text: str) -> str:
    found = _NEEDLES.search(text)
    if found is not None:
        message = f"unknown needle at character {found.start() + 1}; there are $t, $v, $n and $g, and $$ for $ itself"
        raise ValueError(message)
    return text


def _day(value: object) -> object:
    if isinstance(value, str):
        return date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    message = f"not a day: {str(value)[:80]!r} (such as 2028-06-30)"
    raise ValueError(message)


def _open_port(text: str) -> str:
    parse_open_port(text)
    return text


def _free(table: dict[str, Any]) -> dict[str, Any]:
    budget = [_FREE_VALUES]
    return {_free_key(key): _free_value(each, 1, budget) for key, each in table.items()}


def _free_value(value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if depth > _FREE_DEPTH or budget[0] < 0:
        message = f"holds more than {_FREE_VALUES} values, or is nested more than {_FREE_DEPTH} deep"
        raise ValueError(message)
    if isinstance(value, dict):
        return {_free_key(key): _free_value(each, depth + 1, budget) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_free_value(each, depth + 1, budget) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        message = "a number that is not finite cannot stand in a descriptor"
        raise ValueError(message)
    if isinstance(value, str | bool | int | float):
        return _free_text(value) if isinstance(value, str) else value
    return value.isoformat()


def _free_key(key: str) -> str:
    return _one_line(_free_text(key))


def _free_text(text: str) -> str:
    if len(text) > _FREE_TEXT:
        message = f"a text of {len(text)} characters; {_FREE_TEXT} are the most"
        raise ValueError(message)
    return _lines(text)


_size_shape = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": f"^(?:{_SIZE.pattern})$"}]}
_time_shape = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}

Switch = Annotated[StrictBool, Kind("`true` or `false`")]
Line = Annotated[
    str,
    Kind("one line, up to 200 characters"),
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_one_line),
]
Paragraph = Annotated[
    str,
    Kind("a paragraph, up to 8000 characters"),
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=8000),
    AfterValidator(_lines),
]
Content = Annotated[str, Kind("text, up to 256 KiB"), StringConstraints(strict=True, max_length=256 * 1024)]
DiskBytes = Annotated[
    int,
    Kind("size, whole MiB"),
    BeforeValidator(parse_size),
    Field(ge=512 * MIB, le=64 * TIB),
    AfterValidator(_whole_mib),
    WithJsonSchema(_size_shape),
]
RamBytes = Annotated[
    int,
    Kind("size, whole MiB"),
    BeforeValidator(parse_size),
    Field(ge=64 * MIB, le=64 * TIB),
    AfterValidator(_whole_mib),
    WithJsonSchema(_size_shape),
]
Cores = Annotated[int, Kind("whole number"), Field(strict=True, ge=1, le=4096)]
Days = Annotated[int, Kind("whole number"), Field(strict=True, ge=1, le=3660)]
Seconds = Annotated[
    float,
    Kind('duration: `"10 min"`, or seconds'),
    BeforeValidator(parse_duration),
    Field(ge=1, le=86400),
    WithJsonSchema(_time_shape),
]
Day = Annotated[
    date, Kind("day: `2028-06-30`"), BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})
]
# What starts with a letter or digit can never be taken for an option. RPM's names have capitals and underscores, too.
Package = Annotated[
    str,
    Matched(
        r"[A-Za-z0-9][A-Za-z0-9_+.-]{1,127}",
        "not a package name",
        "letters, digits, + - . _ only, the first a letter or digit",
    ),
]
Login = Annotated[
    str,
    Matched(
        r"[a-z_][a-z0-9_-]{0,31}", "not a login name", "a lower-case letter, then letters, digits, - and _; not root"
    ),
    AfterValidator(_no_root),
]
Account = Annotated[
    str,
    Matched(
        r"[a-z_][a-z0-9_-]{0,31}",
        "not the name of a user or a group",
        "a lower-case letter, then letters, digits, - and _",
    ),
]
Suite = Annotated[str, Matched(r"[a-z][a-z0-9.-]{0,63}", "not the name of a release", "such as bookworm")]
Snapshot = Annotated[
    str, Matched(r"[0-9A-Za-z][0-9A-Za-z._:-]{0,63}", "not the name of a snapshot", "such as 20260401T000000Z")
]
Mode = Annotated[str, Matched(r"[0-7]{3,4}", "not permissions", 'three or four octal digits in quotes, such as "0644"')]
Unit = Annotated[
    str,
    Matched(
        r"[A-Za-z0-9][A-Za-z0-9:_.\\@-]{0,200}\.(?:service|socket|timer|path|mount|target)",
        "not a unit of systemd",
        "with its kind, such as nginx.service",
    ),
]
KernelOption = Annotated[
    str, Matched(r"[A-Za-z0-9_][A-Za-z0-9_.,:;=/@+-]{0,199}", "not a kernel option", "one word, without quotes")
]
Url = Annotated[
    str,
    Matched(
        r"(?:https?://[^\s/@]+|file://)/[^\s]{1,1000}",
        "not an address",
        "such as https://host/image.qcow2, without account",
    ),
    AfterValidator(_one_line),
]
CatalogueName = Annotated[
    str,
    Matched(
        rf"{_NAME}(?:@[0-9A-Za-z][0-9A-Za-z._:+~-]{{0,63}})?",
        "not an appliance of the catalogue",
        "NAME or NAME@VERSION",
    ),
]
ChecksumText = Annotated[
    str,
    Matched(
        r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}",
        "not a checksum",
        "sha256:, sha384: or sha512: and lower-case hexadecimal digits",
    ),
]
VariableName = Annotated[
    str, Matched(r"[A-Za-z_][A-Za-z0-9_]{0,63}", "not the name of a variable", "letters, digits and _")
]
Check = Annotated[str, Matched(r"[a-z0-9][a-z0-9-]{0,63}", "not the name of a check", "a-z, 0-9 and -")]
ItemName = Annotated[str, Matched(_NAME, "not a name", "1 to 64 characters out of a-z 0-9 . _ -")]
BuilderName = Annotated[str, Matched(_NAME, "not the name of a builder", "1 to 64 characters out of a-z 0-9 . _ -")]
VariantName = Annotated[str, Matched(_NAME, "not the name of a variant", "1 to 64 characters out of a-z 0-9 . _ -")]
PlatformName = Annotated[str, Matched(_NAME, "not the name of a platform", "1 to 64 characters out of a-z 0-9 . _ -")]
ParentName = Annotated[
    str,
    Matched(rf"{_NAME}(?:@{_NAME})?", "not the name of a definition", "such as debian-12, or web@small for a variant"),
]
GuestPath = Annotated[str, Kind("absolute path in the appliance"), AfterValidator(_guest_path)]
SourcePath = Annotated[str, Kind("path in the definition's folder"), AfterValidator(_source)]
PathPattern = Annotated[
    str,
    Kind("absolute path; `*` stands for anything"),
    StringConstraints(strict=True, min_length=1, max_length=1024, pattern=r"^[/*]"),
    AfterValidator(_one_line),
]
Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024), AfterValidator(_one_line)]
Template = Annotated[Line, Kind("one line with the needles `$t`, `$v`, `$n`, `$g`"), AfterValidator(_template)]
Port = Annotated[str, AfterValidator(_open_port)]
PageAddress = Annotated[str, AfterValidator(_page_address)]
VariableValue = Annotated[str, StringConstraints(strict=True, max_length=8000), AfterValidator(_lines)]
Free = Annotated[dict[str, Any], AfterValidator(_free)]
