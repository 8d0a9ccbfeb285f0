# SPDX-License-Identifier: Apache-2.0
"""Copy a definition out, with all that it is built upon, so that it stands by itself and can be edited."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coppice.atomic import replacing_directory, storage_errors
from coppice.definition.folder import Sources
from coppice.definition.layers import Origin
from coppice.definition.places import FILE_NAME
from coppice.definition.problems import Problem, refusal
from coppice.errors import ExistsError

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.resolve import ResolvedDefinition


def export_definition(resolved: ResolvedDefinition, to: Path) -> tuple[Path, ...]:
    """Copy the folders of a definition and of its parents into the directory ``to``.

    A folder that is there with the same files stays as it is.

    Args:
        resolved: The definition.
        to: Where its folder comes to lie, beside those of its parents; made when it is missing.

    Returns:
        The folders, the definition's first.

    Raises:
        DefinitionError: One of the folders holds what cannot be copied: links, or too much.
        ExistsError: A folder of that name is there with other files; nothing was copied.
        StorageError: It cannot be written.
    """
    folders = list(dict.fromkeys(step.folder for step in resolved.chain))
    contents = {folder: _content(folder) for folder in folders}
    with storage_errors("writing", to):
        to.mkdir(parents=True, exist_ok=True)
        missing = [folder for folder in folders if not _is_there(to / folder.name, contents[folder])]
        for folder in missing:
            _write(to / folder.name, contents[folder])
    return tuple(to / folder.name for folder in folders)


def _content(folder: Path) -> dict[str, bytes]:
    try:
        return Sources().read_tree(folder.parent, folder.name)
    except ValueError as problem:
        path = folder / FILE_NAME
        raise refusal(path, [Problem(str(problem), Origin(str(path)))]) from problem


def _is_there(place: Path, content: dict[str, bytes]) -> bool:
    if not os.path.lexists(place):
        return False
    try:
        same = Sources().read_tree(place.parent, place.name) == content
    except ValueError:
        same = False
    if not same:
        raise ExistsError(
            f"{place} is there, and is not the same",
            resolution="Move it away, or export to another directory.",
            context={"path": str(place)},
        )
    return True


def _write(place: Path, content: dict[str, bytes]) -> None:
    with replacing_directory(place) as partial:
        for path, data in content.items():
            file = partial / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
