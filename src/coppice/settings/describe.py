# SPDX-License-Identifier: Apache-2.0
"""Every setting as data: what ``docs/reference/settings.md`` and ``coppice config show`` say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice.settings.driver_sections import CloudSection, PublisherSection
from coppice.settings.load import PREFIX, known_keys
from coppice.settings.quantities import format_duration, format_size
from coppice.settings.schema import HookSection, SettingsFile
from coppice.settings.values import Kind

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_SECONDS = {"duration": 1, "duration in days": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDescription:
    """One setting.

    Attributes:
        name: Dotted key; the name of a cloud or a publisher stands as ``NAME``.
        type: What is written for it.
        default: As a person would write it; empty: unset; ``required``: it must be given.
        meaning: One or two sentences.
        variable: The environment variable that sets it.
    """

    name: str
    type: str
    default: str
    meaning: str
    variable: str


def describe_settings() -> tuple[SettingDescription, ...]:
    """Return every setting that a person can write, in the order of the schema."""
    return tuple(_describe(path) for path in known_keys())


def written(kind: str, value: object) -> str:
    """Return ``value`` as a person would write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if kind == "size" and isinstance(value, int):
        return format_size(value)
    if kind in _SECONDS and isinstance(value, (int, float)):
        return format_duration(value * _SECONDS[kind])
    if isinstance(value, (list, tuple, dict)):
        return ", ".join(str(each) for each in value)
    return str(value)


def kinds() -> dict[str, str]:
    """Return what is written for each setting, by its dotted key."""
    return {description.name: description.type for description in describe_settings()}


def _describe(path: tuple[str, ...]) -> SettingDescription:
    field = _field(path)
    kind = next((each.name for each in field.metadata if isinstance(each, Kind)), "text")
    default = "required" if field.is_required() else written(kind, field.get_default(call_default_factory=True))
    return SettingDescription(
        name=".".join(path),
        type=kind,
        default=default,
        meaning=field.description or "",
        variable=PREFIX + "__".join(path).upper(),
    )


def _field(path: tuple[str, ...]) -> FieldInfo:
    section: type[BaseModel] = SettingsFile
    if len(path) > 1:
        named: dict[str, type[BaseModel]] = {
            "clouds": CloudSection,
            "hooks": HookSection,
            "publishers": PublisherSection,
        }
        annotation: Any = SettingsFile.model_fields[path[0]].annotation
        section = named.get(path[0], annotation)
    return section.model_fields[path[-1]]
