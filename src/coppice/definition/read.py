# SPDX-License-Identifier: Apache-2.0
"""Read definitions: a folder with an ``appliance.toml`` in, a `Definition` out, or all of its problems at once."""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from coppice.definition.model import Definition
from coppice.definition.schema import MIB, SECTIONS, DefinitionFile
from coppice.errors import DefinitionError, NotFoundError, UnreadableFileError
from coppice.model.identifiers import is_name
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

FILE_NAME = "appliance.toml"
MAX_FILE_BYTES = 1024 * 1024


def read_definition(folder: Path) -> Definition:
    """Return the definition in ``folder``; the folder's name is the definition's.

    Raises:
        NotFoundError: There is no ``appliance.toml`` in it.
        UnreadableFileError: There is one, and it cannot be read.
        DefinitionError: Its content is wrong; ``details`` has every problem, one a line.
    """
    folder = folder.absolute()
    path = folder / FILE_NAME
    content = _read(path)
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:
        what = "is nested too deeply" if isinstance(problem, RecursionError) else f"is not TOML: {problem}"
        raise DefinitionError(f"{path} {what}", context={"path": str(path)}) from problem
    problems = [] if is_name(folder.name) else [_NAME_PROBLEM.format(name=folder.name[:80])]
    try:
        parsed = DefinitionFile.model_validate(document)
    except ValidationError as problem:
        problems += [_describe(error) for error in problem.errors(include_url=False)]
        raise _refusal(path, problems) from problem
    if problems:
        raise _refusal(path, problems)
    return _definition(path, parsed)


def find_definitions(root: Path) -> tuple[Definition, ...]:
    """Return all definitions in the folders directly under ``root``, by name.

    Raises:
        NotFoundError: ``root`` is not a directory.
        UnreadableFileError: ``root`` or one of the files cannot be read.
        DefinitionError: One or more of them are wrong; ``details`` has the problems of all.
    """
    found: list[Definition] = []
    wrong: list[DefinitionError] = []
    for folder in _folders(root):
        try:
            found.append(read_definition(folder))
        except DefinitionError as problem:
            wrong.append(problem)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise DefinitionError(
            f"{len(wrong)} definitions in {root} are wrong",
            details="\n".join(f"{problem.message}\n{problem.details or ''}".rstrip() for problem in wrong),
            resolution="Correct them, then run again.",
            context={"paths": [problem.context.get("path") for problem in wrong]},
        )
    return tuple(found)


def find_definition(root: Path, name: str) -> Definition:
    """Return the definition ``name`` under ``root``; other definitions there are not read.

    Raises:
        NotFoundError: There is none of that name; the resolution names the nearest.
        UnreadableFileError: It cannot be read.
        DefinitionError: Its content is wrong.
    """
    names = [folder.name for folder in _folders(root)]
    if name in names:
        return read_definition(root / name)
    near = difflib.get_close_matches(name, names, n=1)
    raise NotFoundError(
        f"no definition named {name[:80]!r} in {root}",
        resolution=(
            f"Did you mean {near[0]!r}?"
            if near
            else f"Known definitions: {', '.join(names)}."
            if names
            else f"Make a folder with an {FILE_NAME} there."
        ),
        context={"root": str(root), "name": name[:80], "known": names},
    )


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and (path / FILE_NAME).exists())
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise NotFoundError(f"no folder of definitions at {root}", context={"root": str(root)}) from problem
    except OSError as problem:
        raise UnreadableFileError(f"cannot read {root}: {problem.strerror}", context={"path": str(root)}) from problem


def _read(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise UnreadableFileError(f"{path} is not a file", context={"path": str(path)})
            content = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as problem:
        raise NotFoundError(f"there is no definition at {path}", context={"path": str(path)}) from problem
    except OSError as problem:
        raise UnreadableFileError(f"cannot read {path}: {problem.strerror}", context={"path": str(path)}) from problem
    if len(content) > MAX_FILE_BYTES:
        raise DefinitionError(f"{path} is larger than {MAX_FILE_BYTES} bytes", context={"path": str(path)})
    return content


_NAME_PROBLEM = (
    "the folder's name {name!r} cannot name a definition: 1 to 64 characters out of a-z 0-9 . _ -, "
    "with a letter or digit at both ends"
)


def _refusal(path: Path, problems: Sequence[str]) -> DefinitionError:
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    return DefinitionError(
        f"{path} has {count}: {problems[0]}" if len(problems) == 1 else f"{path} has {count}",
        details="\n".join(problems),
        resolution="Correct the file, then run again.",
        context={"path": str(path), "problems": list(problems)},
    )


def _describe(error: ErrorDetails) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location) or "the file"
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_suggestion(location)}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}"


def _suggestion(location: Sequence[str]) -> str:
    section = SECTIONS.get(".".join(location[:-1]))
    if section is None:
        return ""
    known = [str(field.alias) for field in section.model_fields.values()]
    near = difflib.get_close_matches(location[-1].replace("_", "-").lower(), known, n=1, cutoff=0.6)
    if near:
        prefix = "".join(f"{part}." for part in location[:-1])
        return f"; did you mean {prefix + near[0]!r}?"
    elsewhere = [name for name, other in SECTIONS.items() if name and location[-1] in _aliases(other)]
    if elsewhere:
        return f"; it belongs into [{elsewhere[0]}]"
    return f"; known here: {', '.join(known)}"


def _aliases(section: type) -> set[str]:
    return {str(field.alias) for field in section.model_fields.values()}  # type: ignore[attr-defined]


def _definition(path: Path, parsed: DefinitionFile) -> Definition:
    system, build, needs = parsed.operating_system, parsed.build, parsed.requirements
    return Definition(
        name=path.parent.name,
        path=path,
        title=parsed.appliance.title,
        description=parsed.appliance.description,
        groups=tuple(dict.fromkeys(parsed.appliance.groups)),
        operating_system=OperatingSystem(
            kind=system.kind,
            distribution=system.distribution,
            version=system.version,
            architecture=system.architecture.value,
        ),
        suite=system.suite,
        builder=build.builder,
        packages=tuple(sorted(set(build.packages))),
        disk_size_bytes=build.disk_size,
        firmware=tuple(dict.fromkeys(build.firmware)),
        formats=tuple(dict.fromkeys(build.formats)),
        user=build.user,
        requirements=Requirements(
            minimum_cores=needs.minimum_cores,
            minimum_ram_mib=None if needs.minimum_ram is None else needs.minimum_ram // MIB,
            minimum_disk_bytes=build.disk_size if needs.minimum_disk is None else needs.minimum_disk,
            recommended_cores=needs.recommended_cores,
            recommended_ram_mib=None if needs.recommended_ram is None else needs.recommended_ram // MIB,
        ),
    )
