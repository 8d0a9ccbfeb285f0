# SPDX-License-Identifier: Apache-2.0
"""Read definitions: a folder with an ``appliance.toml`` in, a `Definition` out, or all of its problems at once.

A definition is called by its folder's name, and one of its variants as ``NAME@VARIANT``. What it is built upon is
looked for beside it first, then in the other roots.
"""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.definition.places import FILE_NAME, folders, shown
from coppice.definition.resolve import MAX_FILE_BYTES, ResolvedDefinition, Resolver
from coppice.errors import DefinitionError, NotFoundError, UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coppice.definition.model import Definition
    from coppice.definition.places import Places

__all__ = [
    "FILE_NAME",
    "MAX_FILE_BYTES",
    "find_definition",
    "find_definitions",
    "find_lineage",
    "list_references",
    "read_definition",
    "resolve_definition",
    "resolve_folder",
]


def read_definition(
    folder: Path, *, roots: Sequence[Path] = (), defaults: Mapping[str, object] | None = None
) -> Definition:
    """Return the definition in ``folder``; the folder's name is the definition's.

    Args:
        folder: Where its ``appliance.toml`` is.
        roots: Where its parents are looked for that are not beside it.
        defaults: What lies under every definition.

    Raises:
        NotFoundError: There is no ``appliance.toml`` in it.
        UnreadableFileError: There is one, and it cannot be read.
        DefinitionError: Its content is wrong, or that of a variant or a parent; ``details`` has every problem.
    """
    return resolve_folder(folder, roots=roots, defaults=defaults).definition


def resolve_folder(
    folder: Path, *, roots: Sequence[Path] = (), defaults: Mapping[str, object] | None = None
) -> ResolvedDefinition:
    """Return the definition in ``folder``, and where each of its values comes from; as `read_definition`.

    Raises:
        NotFoundError: There is no ``appliance.toml`` in it.
        UnreadableFileError: There is one, and it cannot be read.
        DefinitionError: Its content is wrong, or that of a variant or a parent.
    """
    return _read_all(Resolver(tuple(roots), defaults or {}), folder.absolute())[0]


def list_references(root: Places) -> tuple[str, ...]:
    """Return how all definitions under ``root`` are called, and their variants; of one that is no TOML, its name only.

    Raises:
        NotFoundError: ``root`` is not a directory.
        UnreadableFileError: It cannot be read.
        DefinitionError: Two definitions have one name.
    """
    resolver, found = Resolver(), list[str]()
    for name, folder in folders(root).items():
        found.append(name)
        with contextlib.suppress(DefinitionError, UnreadableFileError):
            found += [f"{name}@{variant}" for variant in resolver.variants(folder)]
    return tuple(found)


def find_definitions(root: Places, *, defaults: Mapping[str, object] | None = None) -> tuple[Definition, ...]:
    """Return all definitions in the folders directly under ``root``, by name, each with its variants.

    Args:
        root: Where they are, or several such places.
        defaults: What lies under every definition.

    Raises:
        NotFoundError: ``root`` is not a directory.
        UnreadableFileError: ``root`` or one of the files cannot be read.
        DefinitionError: One or more of them are wrong (``details`` has the problems of all), or two have one name.
    """
    roots = _roots(root)
    resolver = Resolver(roots, defaults or {})
    found: list[Definition] = []
    wrong: list[DefinitionError] = []
    for folder in folders(roots).values():
        try:
            found += [each.definition for each in _read_all(resolver, folder)]
        except DefinitionError as problem:
            wrong.append(problem)
    wrong += _of_one_name(found)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise DefinitionError(
            f"{len(wrong)} definitions in {shown(root)} are wrong",
            details="\n".join(f"{problem.message}\n{problem.details or ''}".rstrip() for problem in wrong),
            resolution="Correct them, then run again.",
            context={"paths": [problem.context.get("path") for problem in wrong]},
        )
    return tuple(found)


def find_definition(root: Places, name: str, *, defaults: Mapping[str, object] | None = None) -> Definition:
    """Return the definition ``name`` (``NAME``, ``NAME@VARIANT`` or ``NAME-VARIANT``) under ``root``.

    Others there are read only where it is built upon them.

    Raises:
        NotFoundError: There is none of that name; the resolution names the nearest.
        UnreadableFileError: It cannot be read.
        DefinitionError: Its content is wrong.
    """
    return resolve_definition(root, name, defaults=defaults).definition


def find_lineage(root: Places, name: str, *, defaults: Mapping[str, object] | None = None) -> tuple[Definition, ...]:
    """Return the definition ``name`` and all that it is built upon, itself first.

    Raises:
        NotFoundError: There is none of that name.
        UnreadableFileError: One cannot be read.
        DefinitionError: The content of one is wrong.
    """
    roots = _roots(root)
    resolver = Resolver(roots, defaults or {})
    folder, variant = _locate(roots, name)
    chain = resolver.resolve(folder, variant).chain
    return tuple(resolver.resolve(step.folder, step.variant).definition for step in chain)


def resolve_definition(root: Places, name: str, *, defaults: Mapping[str, object] | None = None) -> ResolvedDefinition:
    """Return the definition ``name`` under ``root``, and where each of its values comes from.

    Raises:
        NotFoundError: There is none of that name; the resolution names the nearest.
        UnreadableFileError: It cannot be read.
        DefinitionError: Its content is wrong.
    """
    roots = _roots(root)
    folder, variant = _locate(roots, name)
    found = _read_all(Resolver(roots, defaults or {}), folder, variant)
    return next(each for each in found if each.definition.variant == variant)


def _read_all(resolver: Resolver, folder: Path, wanted: str = "") -> list[ResolvedDefinition]:
    # A file with a wrong variant is a wrong file, whichever of its builds is asked for: all are read.
    names = dict.fromkeys(("", *resolver.variants(folder)))
    if wanted not in names:
        resolver.resolve(folder, wanted)
    return [resolver.resolve(folder, variant) for variant in names]


def _of_one_name(found: list[Definition]) -> list[DefinitionError]:
    # x-a@b and x@a-b are both called x-a-b.
    first: dict[str, Definition] = {}
    twice = [(first.setdefault(each.name, each), each) for each in found]
    return [
        DefinitionError(
            f"{one.reference} and {other.reference} are both called {one.name}",
            resolution="Give one of the variants another name.",
            context={"path": str(other.path), "name": one.name},
        )
        for one, other in twice
        if one is not other
    ]


def _locate(roots: Places, reference: str) -> tuple[Path, str]:
    name, _, variant = reference.partition("@")
    known = folders(roots)
    if name in known:
        return known[name].absolute(), variant
    # What a variant is called where it is no definition any more: a build, an appliance.
    resolver = Resolver()
    for place, character in enumerate(reference):
        folder = known.get(reference[:place]) if character == "-" else None
        if folder is not None and reference[place + 1 :] in resolver.variants(folder):
            return folder.absolute(), reference[place + 1 :]
    near = difflib.get_close_matches(name, known, n=1)
    raise NotFoundError(
        f"no definition named {name[:80]!r} in {shown(roots)}",
        resolution=(
            f"Did you mean {near[0]!r}?"
            if near
            else f"Known definitions: {', '.join(known)}."
            if known
            else f"Make a folder with an {FILE_NAME} there."
        ),
        context={"root": shown(roots), "name": name[:80], "known": list(known)},
    )


def _roots(places: Places) -> tuple[Path, ...]:
    return tuple(each.absolute() for each in ((places,) if isinstance(places, Path) else places))
