# SPDX-License-Identifier: Apache-2.0
"""Every key of ``appliance.toml`` as data: what ``docs/reference/definition.md`` says about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from coppice.definition.problems import is_list, sections
from coppice.definition.schema import DefinitionFile
from coppice.definition.values import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from coppice.definition.schema_items import Section

_ALONE = {
    "parent": "from",
    "variables": "variables",
    "platforms": "platform",
    "metadata": "metadata",
    "variants": "variants",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedKey:
    """One key.

    Attributes:
        name: As it is written.
        kind: What is written for it.
        default: As a person would write it; ``required``: it must be given.
        meaning: One or two sentences.
    """

    name: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedTable:
    """One table of the file.

    Attributes:
        heading: How it is written: ``[build]`` or ``[[file]]``.
        meaning: What it is for.
        keys: In the order of the schema.
    """

    heading: str
    meaning: str
    keys: tuple[DescribedKey, ...]


def describe_definition() -> tuple[DescribedTable, ...]:
    """Return every table and key that a person can write."""
    return tuple(_tables())


def _tables() -> Iterator[DescribedTable]:
    fields = DefinitionFile.model_fields
    alone = tuple(_key(_written(name), fields[name]) for name in _ALONE)
    yield DescribedTable(heading="At the top", meaning="Beside the tables below.", keys=alone)
    for name, section in sections():
        if name:
            heading = f"`[[{name}]]`" if is_list(name) else f"`[{name}]`"
            yield DescribedTable(heading=heading, meaning=_meaning(section), keys=tuple(_keys(section)))


def _written(name: str) -> str:
    return {"variables": "variables.NAME", "platforms": "platform.NAME", "variants": "variants.NAME"}.get(
        name, _ALONE[name]
    )


def _keys(section: type[Section]) -> Iterator[DescribedKey]:
    for field in section.model_fields.values():
        yield _key(str(field.alias), field)


def _key(name: str, field: FieldInfo) -> DescribedKey:
    found = [each.name for each in field.metadata if isinstance(each, Kind)]
    return DescribedKey(
        name=name,
        kind=found[-1] if found else _kind(field.annotation),
        default=_default(field),
        meaning=field.description or "",
    )


def _kind(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return _choice([each.value for each in annotation])
    if get_origin(annotation) is Literal:
        return _choice([str(each) for each in get_args(annotation)])
    named = [each.name for each in getattr(annotation, "__metadata__", ()) if isinstance(each, Kind)]
    if named:
        return named[-1]
    return next((kind for each in get_args(annotation) if (kind := _kind(each))), "")


def _choice(values: list[str]) -> str:
    return ", ".join(f'`"{each}"`' for each in values)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, list):
        return f"`[{', '.join(_quoted(each) for each in value)}]`"
    return f"`{_quoted(value)}`"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _meaning(section: type[Section]) -> str:
    return (section.__doc__ or "").strip()
