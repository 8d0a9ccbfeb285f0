# SPDX-License-Identifier: Apache-2.0
"""Each value of a definition, and where it comes from: a file and line, the site's settings, the schema's default."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.definition.layers import Origin, dotted, leaves, node_at
from coppice.definition.problems import is_list, sections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.definition.resolve import ResolvedDefinition

DEFAULT = "default"
"""Stands for the file, where nobody said a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldValue:
    """A value and its place.

    Attributes:
        key: As people write it: ``file[0].mode``.
        value: As it was written.
        origin: Where.
    """

    key: str
    value: str | bool | int | float
    origin: Origin


def told_values(resolved: ResolvedDefinition) -> tuple[ToldValue, ...]:
    """Return each value that a definition or one of its parents says, then those that nobody says."""
    said = tuple(
        ToldValue(key=dotted(path), value=_shown(leaf.value), origin=leaf.origin)
        for path, leaf in leaves(resolved.document)
    )
    return (*said, *_defaults(resolved))


def _defaults(resolved: ResolvedDefinition) -> Iterator[ToldValue]:
    for name, section in sections():
        if not name or is_list(name):
            continue
        for field in section.model_fields.values():
            key = str(field.alias)
            value = None if field.is_required() else field.get_default(call_default_factory=True)
            if value is not None and node_at(resolved.document, (name, key)) is None:
                yield ToldValue(key=f"{name}.{key}", value=_shown(value), origin=Origin(DEFAULT))


def _shown(value: object) -> str | bool | int | float:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return value if isinstance(value, str | bool | int | float) else str(value)
