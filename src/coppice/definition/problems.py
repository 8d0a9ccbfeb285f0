# SPDX-License-Identifier: Apache-2.0
"""What is wrong in a definition, in words: the file, the line, the key, and the nearest that exists."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from coppice.definition.layers import Origin, dotted, origin_near
from coppice.definition.schema import DefinitionFile
from coppice.definition.schema_items import Section
from coppice.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from coppice.definition.layers import Node
    from coppice.definition.lines import KeyPath


_WHOLE = "the file"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        text: What, with its key.
        origin: Where.
    """

    text: str
    origin: Origin

    def told(self, path: Path) -> str:
        """Return it as told of the file ``path``."""
        if self.origin.source != str(path):
            return f"{self.origin}: {self.text}"
        return self.text if self.origin.line is None else f"line {self.origin.line}: {self.text}"


def refusal(path: Path, problems: Sequence[Problem]) -> DefinitionError:
    """Return the error that tells all ``problems`` of the definition at ``path``."""
    unique = list(dict.fromkeys(problems))
    told = [problem.told(path) for problem in unique]
    return DefinitionError(
        f"{path} has one problem: {told[0]}" if len(told) == 1 else f"{path} has {len(told)} problems",
        details="\n".join(told),
        resolution="Correct the file, then run again.",
        context={
            "path": str(path),
            "problems": told,
            "places": [{"file": each.origin.source, "line": each.origin.line} for each in unique],
        },
    )


def schema_problem(error: ErrorDetails, document: Node) -> Problem:
    """Return what the schema found wrong in ``document``, with its place."""
    location = tuple(part for part in error["loc"] if part != "[key]")
    text = _describe(error, location)
    if not location:
        # What concerns several tables begins with the key that most likely has to change.
        text = text.removeprefix(f"{_WHOLE}: ")
        location = tuple(text.partition(" ")[0].rstrip(":").split("."))
    return Problem(text, origin_near(document, location))


def _describe(error: ErrorDetails, location: KeyPath) -> str:
    key = dotted(location) or _WHOLE
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_suggestion(location)}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    if error["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        return f"{key}: expected a table"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}"


def _suggestion(location: KeyPath) -> str:
    section = section_at(location[:-1])
    if section is None:
        return ""
    word, known = str(location[-1]), keys_of(section)
    near = difflib.get_close_matches(word.replace("_", "-").lower(), known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {dotted((*location[:-1], near[0]))!r}?"
    elsewhere = [name for name, other in sections() if name and word in keys_of(other)]
    if elsewhere:
        name = elsewhere[0]
        return f"; it belongs into {f'[[{name}]]' if is_list(name) else f'[{name}]'}"
    return f"; known here: {', '.join(known)}"


def sections() -> Iterator[tuple[str, type[Section]]]:
    """Yield each table that has keys of its own, by name, the whole file first (its name is empty)."""
    yield "", DefinitionFile
    for field in DefinitionFile.model_fields.values():
        section = _section_of(field.annotation)
        if section is not None:
            yield str(field.alias), section


def section_at(location: KeyPath) -> type[Section] | None:
    """Return the table that ``location`` leads to; None: it has no keys of its own."""
    section: type[Section] | None = DefinitionFile
    for part in location:
        if isinstance(part, int):
            continue
        fields = {str(field.alias): field for field in (section.model_fields.values() if section else ())}
        section = _section_of(fields[part].annotation) if part in fields else None
    return section


def keys_of(section: type[Section]) -> list[str]:
    """Return the keys that ``section`` has."""
    return [str(field.alias) for field in section.model_fields.values()]


def is_list(name: str) -> bool:
    """Tell whether there can be several of the table ``name``."""
    fields = {str(field.alias): field.annotation for field in DefinitionFile.model_fields.values()}
    return getattr(fields[name], "__origin__", None) is list


def _section_of(annotation: object) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for each in get_args(annotation) if (found := _section_of(each)) is not None), None)
