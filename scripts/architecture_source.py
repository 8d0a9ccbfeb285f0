# SPDX-License-Identifier: Apache-2.0
"""The product's source as `architecture_rules` looks at it: parsed, with what each module imports, and when."""

from __future__ import annotations

import ast
import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

PRODUCT = "coppice"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module.

    Attributes:
        name: Its full dotted name; a submodule's where a name imported from a package is one.
        line: Where.
        at_start: True when it runs as soon as the importing module is imported.
        for_types: True under ``if TYPE_CHECKING``.
    """

    name: str
    line: int
    at_start: bool
    for_types: bool


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed source file."""

    name: str
    path: str
    text: str
    tree: ast.Module
    is_package: bool
    nodes: tuple[ast.AST, ...]
    imports: list[Import] = field(default_factory=list)

    @property
    def layer(self) -> str:
        """The first part of its name below the product: ``cloud`` for ``coppice.cloud.plan``."""
        return layer_of(self.name)


def layer_of(name: str) -> str:
    """Return the part of a module's name that says which layer it belongs to; empty for the product itself."""
    return name.split(".")[1] if "." in name else ""


def read_modules(source_root: Path) -> dict[str, Module]:
    """Parse every Python file of the product."""
    known = {
        ".".join(path.relative_to(source_root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((source_root / PRODUCT).rglob("*.py"))
    }
    # Hundreds of thousands of nodes stay, and none of them is garbage: to look for it again and again takes seconds.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        return {name: read_module(name, path, path.read_text(encoding="utf-8"), known) for name, path in known.items()}
    finally:
        if was_collecting:
            gc.enable()


def read_module(name: str, path: Path, text: str, known: Collection[str]) -> Module:
    """Parse the text of one Python file; ``known`` are the names of all modules of the product."""
    tree = ast.parse(text, str(path))
    module = Module(name, str(path), text, tree, path.stem == "__init__", tuple(ast.walk(tree)))
    module.imports.extend(_imports(module, known))
    return module


def _imports(module: Module, known: Collection[str]) -> Iterator[Import]:
    def visit(node: ast.AST, *, at_start: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_start, for_types)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                yield Import(name if name in known else origin, node.lineno, at_start, for_types)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for statement in node.body:
                yield from visit(statement, at_start=False, for_types=True)
            for statement in node.orelse:
                yield from visit(statement, at_start=at_start, for_types=for_types)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_start=at_start and not inside, for_types=for_types)

    yield from visit(module.tree, at_start=True, for_types=False)


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = module.name.split(".")
    base = base[: len(base) - node.level + (1 if module.is_package else 0)]
    return ".".join([*base, *([node.module] if node.module else [])])
