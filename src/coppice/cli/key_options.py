# SPDX-License-Identifier: Apache-2.0
"""``--set``, ``--set-json``, ``--set-file`` and ``--unset``: the options of every command that edits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from coppice.cli.files import unreadable
from coppice.errors import UnreadableFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.cli.output import Output

_MAX_FILE_BYTES = 64 * 1024


class Editable(Protocol):
    """What is edited: a draft of the catalogue."""

    def set(self, key: str, value: object) -> None:
        """Set a key."""
        ...

    def unset(self, key: str) -> None:
        """Take a key away."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanges:
    """What the options ask for.

    Attributes:
        values: By key.
        removed: Keys to take away.
    """

    values: dict[str, object]
    removed: tuple[str, ...]

    def apply(self, draft: Editable) -> None:
        """Do to ``draft`` what is asked for.

        Raises:
            InconsistentListError: A key or a value cannot be.
        """
        for key in self.removed:
            draft.unset(key)
        for key, value in self.values.items():
            draft.set(key, value)


def key_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the four options; it takes them as ``texts``, ``json_texts``, ``files`` and ``removed``."""
    for option in (
        click.option("--unset", "removed", metavar="KEY", multiple=True, help="Take this key away."),
        click.option(
            "--set-file", "files", metavar="KEY=FILE", multiple=True, help="Set this key to the text in FILE."
        ),
        click.option(
            "--set-json", "json_texts", metavar="KEY=JSON", multiple=True, help="Set a key of your own to a JSON value."
        ),
        click.option("--set", "texts", metavar="KEY=VALUE", multiple=True, help="Set this key."),
    ):
        command = option(command)
    return command


def read_changes(
    texts: tuple[str, ...], json_texts: tuple[str, ...], files: tuple[str, ...], removed: tuple[str, ...]
) -> KeyChanges:
    """Return what the options ask for.

    Raises:
        UsageError: One has not its form, or a key is named twice.
        UnreadableFileError: A file cannot be read.
        InconsistentListError: A text is no JSON.
    """
    from coppice.catalogue.keys import read_json_value

    values: dict[str, object] = {}
    seen = set(removed)
    for option, given, read in (
        ("--set", texts, str),
        ("--set-json", json_texts, read_json_value),
        ("--set-file", files, _read_file),
    ):
        for pair in given:
            key, separator, text = pair.partition("=")
            if not separator or not key:
                raise UsageError(f"{option} takes KEY=VALUE, not {pair[:80]!r}")
            if key in seen:
                raise UsageError(f"{key} is named twice")
            seen.add(key)
            values[key] = read(text)
    return KeyChanges(values=values, removed=removed)


def show_changes(output: Output, changes: dict[str, tuple[object, object]]) -> None:
    """Print what was, and what is now, by key."""
    rows = [[key, _shown(before), _shown(after)] for key, (before, after) in changes.items()]
    output.table(["key", "before", "now"], rows)


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in sorted(value.items()))
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple, set, frozenset)) else value


def _read_file(name: str) -> str:
    path = Path(name)
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, ValueError) as problem:
        raise unreadable(path, problem) from problem
    if len(data) > _MAX_FILE_BYTES:
        raise UnreadableFileError(f"{path} is longer than {_MAX_FILE_BYTES} bytes", context={"path": str(path)})
    return text.removesuffix("\n")
