# SPDX-License-Identifier: Apache-2.0
"""What another commit would change: file by file, and value by value of the definitions as they are resolved."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from coppice.formats.definition import definition_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.definition.git_tree import TakenFile
    from coppice.definition.model import Definition

MAX_DIFF_LINES: Final = 200
"""Of one file that are shown."""
_MAX_COMPARED_BYTES = 128 * 1024
_MAX_SHOWN = 200
_KNOWN_BY = ("path", "name")
_NO_VALUES = frozenset({"path"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A file that another commit changes.

    Attributes:
        path: Of the file, with its definition's folder.
        change: ``added``, ``removed`` or ``changed``.
        lines: The difference, as people know it; of what is no text, or too long, one line that says so.
    """

    path: str
    change: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueChange:
    """A value of a definition that another commit changes.

    Attributes:
        definition: Whose.
        key: Which.
        before: As JSON; None: it was not there.
        after: Likewise.
    """

    definition: str
    key: str
    before: str | None
    after: str | None


def changed_files(before: Mapping[str, TakenFile], after: Mapping[str, TakenFile]) -> tuple[FileChange, ...]:
    """Return what files differ."""
    changes: list[FileChange] = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        change = "added" if old is None else "removed" if new is None else "changed"
        lines = _lines(path, b"" if old is None else old.content, b"" if new is None else new.content)
        if old is not None and new is not None and old.is_executable != new.is_executable:
            lines = (f"now {'' if new.is_executable else 'not '}executable", *lines)
        changes.append(FileChange(path=path, change=change, lines=lines))
    return tuple(changes)


def changed_values(before: Mapping[str, Definition], after: Mapping[str, Definition]) -> tuple[ValueChange, ...]:
    """Return what values differ, of definitions by name."""
    changes: list[ValueChange] = []
    for name in sorted({*before, *after}):
        old = _values(before[name]) if name in before else {}
        new = _values(after[name]) if name in after else {}
        changes += [
            ValueChange(definition=name, key=key, before=old.get(key), after=new.get(key))
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
    return tuple(changes)


def _lines(path: str, old: bytes, new: bytes) -> tuple[str, ...]:
    if old == new:
        return ()
    try:
        if max(len(old), len(new)) > _MAX_COMPARED_BYTES:
            return (f"{len(old)} bytes, now {len(new)} bytes: too long to show",)
        pair = old.decode("utf-8").splitlines(), new.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return (f"no text: {len(old)} bytes, now {len(new)} bytes",)
    found = list(difflib.unified_diff(*pair, f"before/{path}", f"after/{path}", lineterm=""))
    more = len(found) - MAX_DIFF_LINES
    return (*found[:MAX_DIFF_LINES], f"({more} lines more)") if more > 0 else tuple(found)


def _values(definition: Definition) -> dict[str, str]:
    document = definition_document(definition)
    return dict(_flat({key: value for key, value in document.items() if key not in _NO_VALUES}, ""))


def _flat(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _flat(each, f"{key}.{name}" if key else str(name))
        return
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        for number, each in enumerate(value):
            known = next((str(each[name]) for name in _KNOWN_BY if each.get(name)), str(number))
            yield from _flat(each, f"{key}[{known}]")
        return
    said = json.dumps(value, ensure_ascii=True)
    if len(said) > _MAX_SHOWN:
        said = f"{said[:_MAX_SHOWN]}… (sha256 {hashlib.sha256(said.encode()).hexdigest()[:16]})"
    yield key, said
