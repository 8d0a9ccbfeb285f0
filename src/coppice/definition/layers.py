# SPDX-License-Identifier: Apache-2.0
"""What several files say, one laid over the other: tables by key, lists one after the other, each value with its place.

Laying is associative where each value has one form (`of_other_form` finds what has not): it does not matter whether
parents are joined first, or a child with its parent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.definition.lines import KeyPath

KEYED = {"file": "path", "user": "name", "provisioner": "name", "test": "name", "page": "name"}
"""Lists of tables of which each is known by one of its keys: a child's of the same key changes the parent's."""

CHOICES: Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    ("file", "*"): (("content", "source"),),
    ("test", "*"): (("script", "source"),),
    ("contextualisation",): (("user-data", "user-data-file"),),
    # Who starts elsewhere has it vouched for anew.
    ("start",): (("catalogue", "url", "checksum", "checksums", "signature", "key"),),
}
"""Keys of which one is said: a child that says one takes the parent's other away."""

REPLACE = "replace"
MAX_NESTING = 32


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Attributes:
        source: The file, or what stands for it (``settings``).
        line: In the file; None: it has none.
    """

    source: str
    line: int | None = None

    def __str__(self) -> str:
        """Return ``file:line``."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that is neither table nor list."""

    value: object
    origin: Origin


@dataclass(frozen=True, slots=True)
class Table:
    """A table, by key."""

    entries: Mapping[str, Node]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Elements:
    """A list.

    Attributes:
        items: In their order.
        origin: Where it was said last.
        replaces: Whether it takes the place of what lies under it, as ``{ replace = [...] }`` says.
    """

    items: tuple[Node, ...]
    origin: Origin
    replaces: bool = False


Node = Leaf | Table | Elements


def annotate(value: object, lines: Mapping[KeyPath, int], source: str, path: KeyPath = ()) -> Node:
    """Return ``value`` of a document with the place of each of its parts.

    Args:
        value: What `tomllib` gave.
        lines: What `coppice.definition.lines.find_lines` found.
        source: The file.
        path: Where in the document ``value`` is.

    Raises:
        RecursionError: It is nested more than `MAX_NESTING` deep.
    """
    if len(path) > MAX_NESTING:
        raise RecursionError
    origin = Origin(source, lines.get(path))
    if isinstance(value, dict):
        said = value.get(REPLACE)
        if len(value) == 1 and isinstance(said, list):
            items = annotate(said, lines, source, (*path, REPLACE))
            return Elements(items.items, origin, replaces=True) if isinstance(items, Elements) else items
        return Table({key: annotate(each, lines, source, (*path, key)) for key, each in value.items()}, origin)
    if isinstance(value, list):
        found = tuple(annotate(each, lines, source, (*path, number)) for number, each in enumerate(value))
        return Elements(found, origin)
    return Leaf(value, origin)


def lay(below: Node, above: Node, path: tuple[str, ...] = ()) -> Node:
    """Return ``above`` laid over ``below``.

    Tables are joined key by key. A list is put after the one below, or in its place when it says so; of the lists
    in `KEYED`, an element whose key is there below is laid over that one, where it stands. All else takes the place of
    what is below.
    """
    if isinstance(below, Table) and isinstance(above, Table):
        return _lay_tables(below, above, path)
    if isinstance(below, Elements) and isinstance(above, Elements) and not above.replaces:
        key = KEYED.get(path[0]) if len(path) == 1 else None
        if key is None:
            return replace(above, items=(*below.items, *above.items), replaces=below.replaces)
        return replace(above, items=_lay_keyed(below.items, above.items, key, path), replaces=below.replaces)
    return above


def _lay_tables(below: Table, above: Table, path: tuple[str, ...]) -> Table:
    hidden = {
        key
        for choice in CHOICES.get(path, ())
        if any(key in above.entries for key in choice)
        for key in choice
        if key not in above.entries
    }
    entries = {key: node for key, node in below.entries.items() if key not in hidden}
    for key, node in above.entries.items():
        entries[key] = lay(entries[key], node, (*path, key)) if key in entries else node
    return Table(entries, above.origin)


def _lay_keyed(below: tuple[Node, ...], above: tuple[Node, ...], key: str, path: tuple[str, ...]) -> tuple[Node, ...]:
    items = list(below)
    places = {known_by(item, key): place for place, item in enumerate(items) if known_by(item, key) is not None}
    for item in above:
        name = known_by(item, key)
        if name is not None and name in places:
            items[places[name]] = lay(items[places[name]], item, (*path, "*"))
        else:
            items.append(item)
            if name is not None:
                places[name] = len(items) - 1
    return tuple(items)


def fill(below: Table, above: Table) -> Table:
    """Return ``above`` with what only ``below`` says; unlike in `lay`, a list takes the place of the one below."""
    entries = dict(above.entries)
    for key, node in below.entries.items():
        own = entries.get(key)
        if own is None:
            entries[key] = node
        elif isinstance(own, Table) and isinstance(node, Table):
            entries[key] = fill(node, own)
    return Table(entries, above.origin)


def of_other_form(below: Node, above: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node, Node]]:
    """Yield what is a table, a list or neither in ``above``, and something else of these in ``below``.

    Yields:
        The keys that lead to it in ``above``, what ``below`` has, and what ``above`` has.
    """
    if type(below) is not type(above):
        yield path, below, above
    elif isinstance(below, Table) and isinstance(above, Table):
        for key, node in above.entries.items():
            if key in below.entries:
                yield from of_other_form(below.entries[key], node, (*path, key))
    elif isinstance(below, Elements) and isinstance(above, Elements) and len(path) == 1 and path[0] in KEYED:
        key = KEYED[str(path[0])]
        known = {known_by(item, key): item for item in below.items if known_by(item, key) is not None}
        for number, item in enumerate(() if above.replaces else above.items):
            name = known_by(item, key)
            if name in known:
                yield from of_other_form(known[name], item, (*path, number))


def known_by(item: Node, key: str) -> str | None:
    """Return the text of ``key`` in ``item``; None: it has none."""
    leaf = item.entries.get(key) if isinstance(item, Table) else None
    return leaf.value if isinstance(leaf, Leaf) and isinstance(leaf.value, str) else None


def plain(node: Node) -> Any:
    """Return what ``node`` says, without places."""
    if isinstance(node, Table):
        return {key: plain(each) for key, each in node.entries.items()}
    if isinstance(node, Elements):
        return [plain(each) for each in node.items]
    return node.value


def node_at(node: Node, path: KeyPath) -> Node | None:
    """Return what ``path`` leads to; None: there is nothing."""
    found: Node | None = node
    for part in path:
        if isinstance(found, Table) and isinstance(part, str):
            found = found.entries.get(part)
        elif isinstance(found, Elements) and isinstance(part, int) and part < len(found.items):
            found = found.items[part]
        else:
            return None
    return found


def origin_near(node: Node, path: KeyPath) -> Origin:
    """Return where the value at ``path`` was said, or, as there is none, the table or list that should have it."""
    for length in range(len(path), 0, -1):
        found = node_at(node, path[:length])
        if found is not None:
            return found.origin
    return node.origin


def leaves(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Leaf]]:
    """Yield each value with the keys that lead to it."""
    if isinstance(node, Leaf):
        yield path, node
    elif isinstance(node, Table):
        for key, each in node.entries.items():
            yield from leaves(each, (*path, key))
    else:
        for number, each in enumerate(node.items):
            yield from leaves(each, (*path, number))


def dotted(path: KeyPath) -> str:
    """Return ``path`` as people write it: ``file[0].mode``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
