# SPDX-License-Identifier: Apache-2.0
"""Where definitions are: folders of one directory or of several, of which no two have the same name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coppice.errors import DefinitionError, NotFoundError, UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Places = Path | Sequence[Path]

FILE_NAME = "appliance.toml"


def folders(places: Places) -> dict[str, Path]:
    """Return the folders with a definition in ``places``, by name.

    Args:
        places: A directory whose folders are definitions, or several of them.

    Raises:
        NotFoundError: One of them is no directory.
        UnreadableFileError: One of them cannot be read.
        DefinitionError: Two of them have a definition of the same name: it would be chance which one is built.
    """
    found: dict[str, Path] = {}
    for place in [places] if isinstance(places, Path) else places:
        for folder in _folders(place):
            known = found.setdefault(folder.name, folder)
            if known != folder:
                raise DefinitionError(
                    f"two definitions are named {folder.name!r}: {known} and {folder}",
                    resolution="Rename one of them; a definition from git leaves with `coppice definition remove`.",
                    context={"name": folder.name, "paths": [str(known), str(folder)]},
                )
    return dict(sorted(found.items()))


def shown(places: Places) -> str:
    """Return ``places`` for a message."""
    return str(places) if isinstance(places, Path) else ", ".join(str(place) for place in places)


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and (path / FILE_NAME).exists())
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise NotFoundError(f"no folder of definitions at {root}", context={"root": str(root)}) from problem
    except OSError as problem:
        raise UnreadableFileError(f"cannot read {root}: {problem.strerror}", context={"path": str(root)}) from problem
