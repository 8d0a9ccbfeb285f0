# SPDX-License-Identifier: Apache-2.0
"""A definition with all that it is built upon: the files of its parents, laid under its own."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from coppice.definition.assemble import Assembly
from coppice.definition.layers import (
    KEYED,
    MAX_NESTING,
    Elements,
    Leaf,
    Origin,
    Table,
    annotate,
    dotted,
    fill,
    known_by,
    lay,
    node_at,
    of_other_form,
    origin_near,
    plain,
)
from coppice.definition.lines import find_lines
from coppice.definition.places import FILE_NAME
from coppice.definition.problems import Problem, refusal, schema_problem
from coppice.definition.schema import DefinitionFile
from coppice.errors import DefinitionError, NotFoundError, UnreadableFileError
from coppice.model.identifiers import is_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.definition.layers import Node
    from coppice.definition.lines import KeyPath
    from coppice.definition.model import Definition

MAX_FILE_BYTES = 1024 * 1024
MAX_DEPTH = 16
SETTINGS = "settings"
"""Stands for the file, where a value is the site's default."""

_OWN_KEYS = ("from", "variants")
_NAME_PROBLEM = (
    "the folder's name {name!r} cannot name a definition: 1 to 64 characters out of a-z 0-9 . _ -, "
    "with a letter or digit at both ends"
)
# What is in a tree once; lists of plain values are known by those.
_KEPT: Mapping[KeyPath, str] = {
    ("build", "packages"): "",
    ("file",): KEYED["file"],
    ("user",): KEYED["user"],
    ("provisioner",): KEYED["provisioner"],
}
_DEEP_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{MAX_NESTING},}}+""")
_FORMS: Mapping[type, str] = {Table: "a table", Elements: "a list", Leaf: "a single value"}
# A child is built in its parent's tree: these cannot differ from it.
_FIXED: tuple[tuple[KeyPath, str | None], ...] = (
    (("operating-system", "kind"), "Linux"),
    (("operating-system", "distribution"), None),
    (("operating-system", "version"), None),
    (("operating-system", "suite"), None),
    (("operating-system", "architecture"), "x86_64"),
    (("build", "builder"), "bootstrap"),
)
# These build upon a parent's image, whoever built it; the others, upon the tree that they made themselves.
_UPON_IMAGES = frozenset({"packer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One definition of a chain.

    Attributes:
        folder: Where it is.
        variant: Which variant of it; empty: none.
        table: What it says, without its parents; its own variant is laid over it.
        said_from: Where it names its parent; None: it has none.
    """

    folder: Path
    variant: str
    table: Table
    said_from: Leaf | None

    @property
    def reference(self) -> str:
        """How it is called: ``web``, ``web@small``."""
        return f"{self.folder.name}@{self.variant}" if self.variant else self.folder.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDefinition:
    """A definition, and where each of its values comes from.

    Attributes:
        definition: What it is.
        document: What it and its parents say, with places.
        chain: Itself first, then its parent, then the parent's parent.
    """

    definition: Definition
    document: Table
    chain: tuple[Step, ...]


@dataclass(slots=True)
class Resolver:
    """Reads definitions with their parents; each file once.

    Attributes:
        roots: Where parents are looked for that are not beside their child, in order.
        defaults: What counts where neither a definition nor its parents say anything, in the form of an
            ``appliance.toml``.
    """

    roots: tuple[Path, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict)
    _read: dict[Path, Table] = field(default_factory=dict)

    def resolve(self, folder: Path, variant: str = "") -> ResolvedDefinition:
        """Return the definition in ``folder``, or one of its variants.

        Raises:
            NotFoundError: There is no definition, or no such variant.
            UnreadableFileError: It cannot be read.
            DefinitionError: It is wrong, or one that it is built upon.
        """
        path = folder / FILE_NAME
        chain = self._chain(folder, variant)
        document, problems = self._document(chain)
        name = f"{folder.name}-{variant}" if variant else folder.name
        other = folder.parent / name
        if variant and (other / FILE_NAME).exists():
            text = f"variants.{variant}: this variant is called {name}, and there is a definition of that name: {other}"
            problems.append(Problem(text, origin_near(self.table(folder), ("variants", variant))))
        if not is_name(name):
            problems.insert(0, Problem(_NAME_PROBLEM.format(name=name[:80]), Origin(str(path))))
        own = self.table(folder)
        top = {key: own.entries[key] for key in _OWN_KEYS if key in own.entries}
        if chain[0].said_from is not None:
            top["from"] = chain[0].said_from
        whole = Table({**document.entries, **top}, document.origin)
        try:
            parsed = DefinitionFile.model_validate(plain(whole))
        except ValidationError as problem:
            problems += [schema_problem(each, whole) for each in problem.errors(include_url=False)]
            raise refusal(path, problems) from problem
        assembly = Assembly(document)
        definition = assembly.definition(parsed, name=name, path=path, variant=variant)
        problems += assembly.problems
        if problems:
            raise refusal(path, problems)
        return ResolvedDefinition(definition=definition, document=document, chain=chain)

    def variants(self, folder: Path) -> tuple[str, ...]:
        """Return the names of the variants of the definition in ``folder``, in its order.

        Raises:
            NotFoundError: There is no definition.
            UnreadableFileError: It cannot be read.
            DefinitionError: It is no TOML.
        """
        found = self.table(folder).entries.get("variants")
        return tuple(found.entries) if isinstance(found, Table) else ()

    def table(self, folder: Path) -> Table:
        """Return what the definition in ``folder`` itself says, with places.

        Raises:
            NotFoundError: There is no definition.
            UnreadableFileError: It cannot be read.
            DefinitionError: It is no TOML.
        """
        if folder not in self._read:
            self._read[folder] = _parse(folder / FILE_NAME)
        return self._read[folder]

    def _chain(self, folder: Path, variant: str) -> tuple[Step, ...]:
        steps = [self._step(folder, variant)]
        while (said := steps[-1].said_from) is not None:
            path = folder / FILE_NAME
            told = " → ".join(each.reference for each in steps)
            if len(steps) > MAX_DEPTH:
                text = f"from: more than {MAX_DEPTH} definitions lie one upon the other: {told}"
                raise refusal(path, [Problem(text, said.origin)])
            parent, parent_variant = self._find(str(said.value), said, steps)
            if any((each.folder, each.variant) == (parent, parent_variant) for each in steps):
                text = f"from: the definitions are built upon each other in a circle: {told} → {said.value}"
                raise refusal(path, [Problem(text, said.origin)])
            steps.append(self._step(parent, parent_variant))
        return tuple(steps)

    def _step(self, folder: Path, variant: str) -> Step:
        own = self.table(folder)
        table = _without(own, _OWN_KEYS)
        said = own.entries.get("from")
        if variant:
            over = node_at(own, ("variants", variant))
            if not isinstance(over, Table):
                known = ", ".join(self.variants(folder)) or "none"
                raise NotFoundError(
                    f"{folder.name} has no variant {variant[:80]!r}",
                    resolution=f"Variants that it has: {known}.",
                    context={"path": str(folder / FILE_NAME), "variant": variant[:80]},
                )
            if "variants" in over.entries:
                text = f"variants.{variant}: a variant has no variants of its own"
                raise refusal(folder / FILE_NAME, [Problem(text, over.entries["variants"].origin)])
            said = over.entries.get("from", said)
            wrong = _other_forms(table, over) + _twice(over)
            if wrong:
                raise refusal(folder / FILE_NAME, wrong)
            laid = lay(table, _without(over, ("from",)))
            table = laid if isinstance(laid, Table) else table
        # What is no text at all is told by the schema.
        leaf = said if isinstance(said, Leaf) and isinstance(said.value, str) else None
        return Step(folder=folder, variant=variant, table=table, said_from=leaf)

    def _find(self, reference: str, said: Leaf, steps: list[Step]) -> tuple[Path, str]:
        name, _, variant = reference.partition("@")
        child = steps[-1].folder
        places = dict.fromkeys((child.parent, *self.roots))
        for root in places:
            if is_name(name) and (root / name / FILE_NAME).exists():
                found = root / name
                if variant and variant not in self.variants(found):
                    known = ", ".join(self.variants(found)) or "none"
                    text = f"from: {name} has no variant {variant[:80]!r} (it has {known})"
                    raise refusal(steps[0].folder / FILE_NAME, [Problem(text, said.origin)])
                return found, variant
        names = sorted({name for root in places for name in _names(root)})
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names[:40])}" if names else ""
        chain = " → ".join([*(each.reference for each in steps), reference[:80]])
        text = f"from: there is no definition {name[:80]!r} ({chain}){meant}"
        raise refusal(steps[0].folder / FILE_NAME, [Problem(text, said.origin)])

    def _document(self, chain: tuple[Step, ...]) -> tuple[Table, list[Problem]]:
        document, problems = Table({}, chain[-1].table.origin), list[Problem]()
        for place, step in enumerate(reversed(chain)):
            problems += _twice(step.table)
            problems += _other_forms(document, step.table)
            laid = lay(document, step.table)
            assert isinstance(laid, Table)  # noqa: S101 - two tables give a table
            if place:
                problems += _conflicts(document, laid, chain)
                problems += _taken_away(document, laid)
            document = laid
        under = annotate(dict(self.defaults), {}, SETTINGS)
        return fill(under, document) if isinstance(under, Table) else document, problems


def _names(root: Path) -> list[str]:
    try:
        return sorted(path.name for path in root.iterdir() if (path / FILE_NAME).exists())
    except OSError:
        return []


def _without(table: Table, keys: tuple[str, ...]) -> Table:
    return Table({key: each for key, each in table.entries.items() if key not in keys}, table.origin)


def _conflicts(before: Table, after: Table, chain: tuple[Step, ...]) -> list[Problem]:
    found = []
    told = " → ".join(step.reference for step in chain)
    for path, default in _FIXED:
        old, new = node_at(before, path), node_at(after, path)
        was = default if old is None else plain(old)
        takes_image = path == ("build", "builder") and new is not None and plain(new) in _UPON_IMAGES
        if new is not None and plain(new) != was and not takes_image:
            key = ".".join(str(part) for part in path)
            text = f"{key}: {plain(new)!r}, and {was!r} in what it is built upon ({told}); a child cannot differ there"
            found.append(Problem(text, new.origin))
    return found


def _taken_away(before: Table, after: Table) -> list[Problem]:
    found = []
    for path, key in _KEPT.items():
        had, has = (dict.fromkeys(_names_in(node_at(table, path), key)) for table in (before, after))
        gone = [name for name in had if name not in has]
        if gone:
            text = (
                f"{dotted(path)}: takes away what its parent's tree has: {', '.join(gone[:5])}; have both inherit from "
                "a smaller parent"
            )
            found.append(Problem(text, origin_near(after, path)))
    return found


def _names_in(node: Node | None, key: str) -> list[str]:
    items = node.items if isinstance(node, Elements) else ()
    if key:
        return [name for item in items if (name := known_by(item, key)) is not None]
    return [str(item.value) for item in items if isinstance(item, Leaf)]


def _other_forms(below: Table, above: Table) -> list[Problem]:
    return [
        Problem(f"{dotted(path)}: {_FORMS[type(new)]} here, and {_FORMS[type(old)]} at {old.origin}", new.origin)
        for path, old, new in of_other_form(below, above)
    ]


def _twice(table: Table) -> list[Problem]:
    found = []
    for name, key in KEYED.items():
        items = table.entries.get(name)
        seen: set[str] = set()
        for item in items.items if isinstance(items, Elements) else ():
            said = known_by(item, key)
            if said is not None and said in seen:
                found.append(Problem(f"{name}: there are two of {key} {said[:140]!r} in one file", item.origin))
            seen |= {said} if said is not None else set()
    return found


def _parse(path: Path) -> Table:
    content = _read(path)
    try:
        text = content.decode("utf-8")
        if _DEEP_KEY.search(text):
            raise RecursionError  # noqa: TRY301 - as the parser does, which takes the square of its length for such a key
        document = tomllib.loads(text)
        node: Node = annotate(document, find_lines(text), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:
        what = "is nested too deeply" if isinstance(problem, RecursionError) else f"is not TOML: {problem}"
        raise DefinitionError(f"{path} {what}", context={"path": str(path)}) from problem
    # A file that has nothing but replace = [...] at its top is a list by its form.
    return node if isinstance(node, Table) else Table({"replace": node}, Origin(str(path)))


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
