# SPDX-License-Identifier: Apache-2.0
"""Kinds of values that people write into settings: each with its name for people, and what is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from coppice.model.image import DiskFormat
from coppice.settings.name_template import parse_template
from coppice.settings.quantities import parse_duration, parse_size, shown

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Kind:
    """What a person writes for a setting; for messages and the reference page."""

    name: str


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip() and not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value):
        return value
    raise ValueError(f"expected one line of text, found {shown(value)}")


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _template(value: object) -> str:
    text = _text(value)
    parse_template(text)
    return text


def _optional_template(value: object) -> str | None:
    return None if value is None else _template(value)


def _switch(value: object) -> bool:
    # Text comes from variables. Nothing but the two words counts: a misspelt "flase" must not pass for either.
    known = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in known:
        return known[value]
    raise ValueError(f"expected true or false, found {shown(value)}")


def _number(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError(f"expected a whole number above zero, found {shown(value)}")


def _share(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"\d(\.\d{1,9})?", value):
        value = float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"expected a number from 0 to 1, found {shown(value)}")


def _size(value: object) -> int:
    size = parse_size(value)
    if size < 1:
        raise ValueError("expected a size above zero, found 0")
    return size


def _optional_size(value: object) -> int | None:
    return None if value is None else _size(value)


def _count(value: object) -> int:
    if value in (0, "0") and not isinstance(value, bool):
        return 0
    try:
        return _number(value)
    except ValueError:
        raise ValueError(f"expected a whole number, 0 or more, found {shown(value)}") from None


def _names(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_words(value)))


def _words(value: object) -> tuple[str, ...]:
    # A variable holds one text: words apart by spaces.
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)):
        raise ValueError(f"expected a list of texts, found {shown(value)}")  # noqa: TRY004 - pydantic collects ValueError
    return tuple(_text(each) for each in words)


def _mirrors(value: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of addresses, found {shown(value)}")  # noqa: TRY004 - likewise
    return {_text(start): _names(others) for start, others in value.items()}


def _properties(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of texts, found {shown(value)}")  # noqa: TRY004 - pydantic collects ValueError
    for name, each in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_:.-]{0,199}", name):
            raise ValueError(f"{shown(name)} cannot be the name of a property")
        # The marker is Coppice's own.
        if name.lower().startswith("coppice_"):
            raise ValueError(f"{name} is written by Coppice alone")
        if isinstance(each, bool) or not isinstance(each, (str, int)):
            raise ValueError(f"{name}: expected a text, found {shown(each)}")  # noqa: TRY004 - likewise
    return {name: _text(str(each)) for name, each in value.items()}


def _optional_seconds(value: object) -> float | None:
    return None if value is None else _seconds(value)


def _optional_days(value: object) -> float | None:
    return None if value is None else _days(value)


def _optional_count(value: object) -> int | None:
    return None if value is None else _count(value)


def _one_of(*known: str | None) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        if value in known and (value is None or isinstance(value, str)):
            return value
        raise ValueError(f"expected {' or '.join(each for each in known if each)}, found {shown(value)}")

    return check


def _seconds(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("expected a duration above zero, found 0")
    return seconds


def _days(value: object) -> float:
    return parse_duration(value, bare_unit="d")


def _formats(value: object) -> tuple[str, ...]:
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    known = [str(each) for each in DiskFormat]
    if isinstance(names, list) and all(name in known for name in names):
        return tuple(dict.fromkeys(names))
    raise ValueError(
        f"expected a list out of {', '.join(known)}; found {names if isinstance(names, list) else shown(value)}"
    )


Text = Annotated[str, Kind("text"), BeforeValidator(_text)]
OptionalText = Annotated[str | None, Kind("text"), BeforeValidator(_optional_text)]
Template = Annotated[str, Kind("text"), BeforeValidator(_template)]
OptionalTemplate = Annotated[str | None, Kind("text"), BeforeValidator(_optional_template)]
PathText = Annotated[str | None, Kind("path"), BeforeValidator(_optional_text)]
Switch = Annotated[bool, Kind("true or false"), BeforeValidator(_switch)]
Number = Annotated[int, Kind("whole number"), BeforeValidator(_number)]
Share = Annotated[float, Kind("number from 0 to 1"), BeforeValidator(_share)]
Size = Annotated[int, Kind("size"), BeforeValidator(_size)]
OptionalSize = Annotated[int | None, Kind("size"), BeforeValidator(_optional_size)]
Count = Annotated[int, Kind("whole number"), BeforeValidator(_count)]
Names = Annotated[tuple[str, ...], Kind("list of texts"), BeforeValidator(_names)]
Words = Annotated[tuple[str, ...], Kind("list of texts"), BeforeValidator(_words)]
Mirrors = Annotated[dict[str, tuple[str, ...]], Kind("table: address = list of addresses"), BeforeValidator(_mirrors)]
BuildPlaceName = Annotated[str, Kind("here or cluster"), BeforeValidator(_one_of("here", "cluster"))]
BootLevelName = Annotated[str, Kind("standard or thorough"), BeforeValidator(_one_of("standard", "thorough"))]
CachePolicy = Annotated[str, Kind("planned or all"), BeforeValidator(_one_of("planned", "all"))]
DeclaredFormat = Annotated[str, Kind("report or require"), BeforeValidator(_one_of("report", "require"))]
Qcow2Compression = Annotated[str, Kind("zstd, zlib or none"), BeforeValidator(_one_of("zstd", "zlib", "none"))]
HookKind = Annotated[str, Kind("program, webhook or file"), BeforeValidator(_one_of("program", "webhook", "file"))]
HookCompatibility = Annotated[str | None, Kind("vmcatcher"), BeforeValidator(_one_of("vmcatcher", None))]
Visibility = Annotated[
    str | None,
    Kind("private, shared, community or public"),
    BeforeValidator(_one_of("private", "shared", "community", "public", None)),
]
Properties = Annotated[dict[str, str], Kind("table: property = text"), BeforeValidator(_properties)]
OptionalSeconds = Annotated[float | None, Kind("duration"), BeforeValidator(_optional_seconds)]
OptionalDays = Annotated[float | None, Kind("duration in days"), BeforeValidator(_optional_days)]
OptionalCount = Annotated[int | None, Kind("whole number"), BeforeValidator(_optional_count)]
Seconds = Annotated[float, Kind("duration"), BeforeValidator(_seconds)]
Days = Annotated[float, Kind("duration in days"), BeforeValidator(_days)]
Formats = Annotated[tuple[str, ...], Kind("list of disk formats"), BeforeValidator(_formats)]
