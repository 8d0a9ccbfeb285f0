# SPDX-License-Identifier: Apache-2.0
"""Check the rules of ARCHITECTURE.md that a machine can check, by reading the source; nothing of it is imported.

Run it as ``python scripts/architecture_rules.py [source-root]``; a broken rule is one line with file and line number.
The tables at the top are the rules; the code below only applies them.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from architecture_source import PRODUCT, layer_of, read_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from architecture_source import Import, Module

STAGES = (
    "definition",
    "factory",
    "descriptor",
    "catalogue",
    "imagelist",
    "subscription",
    "cache",
    "conversion",
    "cloud",
)
"""In the order of the flow: a stage may read the hand-over types of those before it."""
FLOOR = frozenset(
    {
        "formats",
        "events",
        "database",
        "http",
        "process",
        "cage",
        "atomic",
        "monitor",
        "clock",
        "digests",
        "log",
        "errors",
        "settings",
        "ssh",
    }
)
FLOOR_LIKE = frozenset({"coppice.schedule.lock"})
LAYERS = frozenset(
    {"model", "workflows", "schedule", "execution", "web", "cli", "testing", "migrations", "__main__", *FLOOR, *STAGES}
)

ALLOWED: dict[str, tuple[frozenset[str], str]] = {
    "formats": (
        frozenset({"model", "errors", "clock", "stage-models"}),
        "formats/ reads model/, errors, clock and hand-over types",
    ),
    "floor": (frozenset({"model", "floor"}), "a shared module knows no stage and nothing above the stages"),
    "workflows": (frozenset({"model", "floor", "stages", "execution"}), "workflows/ joins stages, nothing above them"),
    "schedule": (frozenset({"model", "floor", "workflows"}), "schedule/ calls workflows/ only"),
    "web": (frozenset({"model", "floor", "workflows"}), "web/ calls workflows/ only"),
    "execution": (frozenset({"model", "floor"}), "execution/ runs what it is given"),
    "migrations": (frozenset({"database", "tables"}), "migrations/ knows the database and the tables only"),
    "cli": (
        frozenset({"model", "floor", "stages", "workflows", "schedule", "execution", "web", "testing"}),
        "cli/ calls workflows/, stages and shared modules",
    ),
}
"""What a layer may import beside itself, and the rule in words; stages have rules of their own below."""

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50
UNCOUNTED = ("coppice.migrations.", "coppice.errors")
"""Migrations only ever grow in number; the tree of errors is one table, and is read as one."""
FORBIDDEN_NAMES = frozenset({"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "base"})
FORBIDDEN_PREFIX = "base_"

CONSTRUCTORS: dict[str, frozenset[str]] = {
    "VerifiedImageList": frozenset({"coppice.subscription.rules", "coppice.subscription.source.gathered"}),
    "CachedImage": frozenset({"coppice.cache"}),
    "ConvertedImage": frozenset({"coppice.conversion"}),
}
"""Hand-over types that say "this was checked", and the only modules or packages of the product that may make one."""

CLOUD_CHANGES = frozenset({"register", "update_metadata", "change_state", "remove"})
CLOUD_CHANGER = "coppice.cloud.apply"
CLOUD_SUITES = "coppice.testing.contracts"
"""What holds clouds to their protocol calls all of it."""
HARMLESS_RECEIVERS = frozenset({"atexit", "os", "selector", "self", "shutil", "store", "weakref", "SubscriptionStore"})
"""Receivers whose ``register`` or ``remove`` is plainly no cloud's that was handed in; all else counts as a cloud."""

SUBPROCESS_MODULES = frozenset({"coppice.process", "coppice.process.child", "coppice.process.starting"})
BECOMES_PROGRAMS = frozenset({"coppice.process.own_users"})
"""Who may become another program."""
SUBPROCESS_PREFIXES = ("coppice.factory.boot", "coppice.factory.machine", "coppice.testing.")
"""Who may import `subprocess`: what runs programs and what starts them; what keeps a machine running for a boot test,
the test kit."""
SHELLS = frozenset({"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"})
BROAD_EXCEPT = frozenset({"coppice.cli.main"})
TESTING_USERS = ("coppice.testing", "coppice.workflows.demonstration", "coppice.workflows.scene", "coppice.cli.demo")
"""The demonstration makes throw-away authorities with the test kit; nothing else of the product touches it."""

STARTS_QUICKLY = "coppice.cli.main"
HEAVY = frozenset({"sqlalchemy", "alembic", "rich", "cryptography", "asn1crypto", "pydantic", "oslo_utils", "urllib3"})


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A broken rule: where, and what is wrong."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        """Return ``path:line: message``."""
        return f"{self.path}:{self.line}: {self.message}"


def check(source_root: Path) -> list[Finding]:
    """Return every broken rule in the product below ``source_root`` (the directory that holds ``coppice/``)."""
    return findings_in(read_modules(source_root))


def findings_in(modules: dict[str, Module]) -> list[Finding]:
    """Return every broken rule in these modules, which are the whole product."""
    findings: list[Finding] = []
    for module in modules.values():
        for rule in RULES:
            findings.extend(rule(module))
    findings.extend(_cycles(modules))
    findings.extend(_heavy_start(modules))
    return sorted(set(findings))


# The import rule.


def import_rule(module: Module) -> Iterator[Finding]:
    """Every import of the product's own modules is one that the architecture allows."""
    if module.layer and module.layer not in LAYERS:
        yield Finding(module.path, 1, f"{module.name} belongs to no layer of the architecture")
        return
    for imported in module.imports:
        own = imported.name == PRODUCT or imported.name.startswith(f"{PRODUCT}.")
        if own:
            reason = _refusal(module, imported)
        else:
            foreign = imported.name.split(".")[0] not in sys.stdlib_module_names
            reason = "model/ uses the standard library only" if foreign and module.layer == "model" else None
        if reason:
            yield Finding(module.path, imported.line, f"{module.name} imports {imported.name}: {reason}")


def _refusal(module: Module, imported: Import) -> str | None:
    """Say why ``module`` must not import this, or None when it may."""
    name, layer = imported.name, layer_of(imported.name)
    if layer == "testing":
        may = module.name.startswith(TESTING_USERS)
        return None if may else "only the demonstration and the tests use the test kit"
    if module.layer in {"testing", "__main__"} or name == PRODUCT:
        return None
    if layer == module.layer and module.name not in FLOOR_LIKE:
        return None
    if module.layer in STAGES:
        return _stage_refusal(module, imported)
    if module.layer == "cli" and (name.endswith(".tables") or "._" in name):
        return "cli/ calls public functions of a stage, never its tables or private modules"
    place = "floor" if _is_floor(module.name) and module.layer != "formats" else module.layer
    allowed, rule = ALLOWED.get(place, (frozenset(), "it imports nothing of the product"))
    return None if _kinds(name) & allowed else rule


def _kinds(name: str) -> set[str]:
    """Return the words by which `ALLOWED` may name a module."""
    kinds = {layer_of(name)}
    if _is_floor(name):
        kinds.add("floor")
    if layer_of(name) in STAGES:
        kinds |= {"stages", *(["stage-models"] if _is_stage_model(name) else [])}
    if name.endswith(".tables"):
        kinds.add("tables")
    return kinds


def _is_floor(name: str) -> bool:
    return layer_of(name) in FLOOR or name in FLOOR_LIKE


def _is_stage_model(name: str) -> bool:
    return name in {f"{PRODUCT}.{stage}.model" for stage in STAGES}


def _stage_refusal(module: Module, imported: Import) -> str | None:
    layer = layer_of(imported.name)
    if _is_stage_model(imported.name):
        earlier = STAGES.index(layer) < STAGES.index(module.layer)
        return None if earlier else f"{layer} comes after {module.layer}: a stage reads earlier hand-over types only"
    if layer in STAGES:
        return "a stage reads earlier stages' model.py only; workflows/ joins stages"
    if _is_stage_model(module.name):
        light = layer in {"model", "monitor"} or (layer == "errors" and imported.for_types)
        return None if light else "a hand-over type knows model/, monitor and (for annotations) errors only"
    known = layer == "model" or _is_floor(imported.name)
    return None if known else "a stage imports model/, the shared modules and earlier stages' model.py"


# Rules about one module.


def size_rule(module: Module) -> Iterator[Finding]:
    """A module is one noun that fits a reader's head; a function fits one screen."""
    if module.name.startswith(UNCOUNTED):
        return
    lines = len(module.text.splitlines())
    if lines > MAX_MODULE_LINES:
        yield Finding(module.path, 1, f"{lines} lines; a module has at most {MAX_MODULE_LINES}")
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = _body_lines(node)
            if length > MAX_FUNCTION_LINES:
                message = f"{node.name} has a body of {length} lines; a function has at most {MAX_FUNCTION_LINES}"
                yield Finding(module.path, node.lineno, message)


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1 if body else 0


def name_rule(module: Module) -> Iterator[Finding]:
    """A module is named for the noun that it owns."""
    last = module.name.split(".")[-1].lstrip("_")
    if last in FORBIDDEN_NAMES or last.startswith(FORBIDDEN_PREFIX):
        yield Finding(module.path, 1, f"{last!r} names no noun: call the module after what it owns")


def licence_rule(module: Module) -> Iterator[Finding]:
    """Every file says its licence in its first line."""
    if not module.text.startswith("# SPDX-License-Identifier: Apache-2.0\n"):
        yield Finding(module.path, 1, "the first line is not '# SPDX-License-Identifier: Apache-2.0'")


def constructor_rule(module: Module) -> Iterator[Finding]:
    """A type that says "this was checked" is made where it is checked; the test kit may imitate that."""
    aliases = {
        alias.asname or alias.name: alias.name
        for node in module.nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in module.nodes:
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).split(".")[-1]
        name = aliases.get(called, called)
        owners = CONSTRUCTORS.get(name)
        if owners is None or module.layer == "testing":
            continue
        if not any(module.name == owner or module.name.startswith(f"{owner}.") for owner in owners):
            yield Finding(module.path, node.lineno, f"{name} is made by {' and '.join(sorted(owners))} only")


def cloud_rule(module: Module) -> Iterator[Finding]:
    """Only `coppice.cloud.apply` touches the methods that change a cloud, be it to call them or to hand them on.

    Types are not known here, so every attribute of these names counts unless its receiver is plainly something else.
    """
    if module.name == CLOUD_CHANGER or module.name.startswith((f"{CLOUD_CHANGER}.", f"{CLOUD_SUITES}.")):
        return
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and node.attr in CLOUD_CHANGES and isinstance(node.ctx, ast.Load):
            made = node.value.func if isinstance(node.value, ast.Call) else node.value
            receiver = ast.unparse(made)
            if receiver.split(".")[-1] not in HARMLESS_RECEIVERS:
                message = f"{receiver}.{node.attr} may change a cloud: only {CLOUD_CHANGER} does that"
                yield Finding(module.path, node.lineno, message)


def subprocess_rule(module: Module) -> Iterator[Finding]:
    """Programs are run by `coppice.process`, never through a shell."""
    may = module.name in SUBPROCESS_MODULES or module.name.startswith(SUBPROCESS_PREFIXES)
    for imported in module.imports:
        if imported.name.split(".")[0] in {"subprocess", "pty"} and not imported.for_types and not may:
            yield Finding(module.path, imported.line, "programs are run by coppice.process")
    for node in module.nodes:
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        becomes = called.startswith("os.exec") and module.name in BECOMES_PROGRAMS
        if called in SHELLS or (called.startswith(("os.exec", "os.spawn", "os.posix_spawn")) and not becomes):
            yield Finding(module.path, node.lineno, f"{called}: programs are run by coppice.process")
        for keyword in node.keywords:
            if keyword.arg == "shell" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield Finding(module.path, node.lineno, "no program is run through a shell")


def exception_rule(module: Module) -> Iterator[Finding]:
    """Only the command line's top catches everything; clean-up that raises again is no catching."""
    if module.name in BROAD_EXCEPT:
        return
    for node in module.nodes:
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = {
            ast.unparse(kind) for kind in (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]) if kind
        }
        raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        if "Exception" in caught or (not raises_again and (node.type is None or "BaseException" in caught)):
            yield Finding(module.path, node.lineno, "catches every exception: name those that are expected")


RULES: tuple[Callable[[Module], Iterator[Finding]], ...] = (
    import_rule,
    size_rule,
    name_rule,
    licence_rule,
    constructor_rule,
    cloud_rule,
    subprocess_rule,
    exception_rule,
)


# Rules about all modules together.


def _start_graph(modules: dict[str, Module]) -> dict[str, dict[str, int]]:
    return {
        name: {item.name: item.line for item in reversed(module.imports) if item.at_start and item.name in modules}
        for name, module in modules.items()
    }


def _cycles(modules: dict[str, Module]) -> Iterator[Finding]:
    """No module needs, to be imported, a module that needs it to be imported."""
    graph = _start_graph(modules)
    reported: set[frozenset[str]] = set()
    for start in graph:
        path = _path_back(graph, start)
        if path and frozenset(path) not in reported:
            reported.add(frozenset(path))
            yield Finding(modules[start].path, graph[start][path[1]], f"import cycle: {' -> '.join(path)}")


def _path_back(graph: dict[str, dict[str, int]], start: str) -> list[str] | None:
    pending, seen = [[start]], {start}
    while pending:
        path = pending.pop(0)
        for following in graph[path[-1]]:
            if following == start:
                return [*path, start]
            if following not in seen:
                seen.add(following)
                pending.append([*path, following])
    return None


def _heavy_start(modules: dict[str, Module]) -> Iterator[Finding]:
    """What is imported before the command line knows its command stays light, so that it answers at once."""
    graph = _start_graph(modules)
    pending, seen = [STARTS_QUICKLY] if STARTS_QUICKLY in modules else [], set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        module = modules[name]
        for item in module.imports:
            if item.at_start and item.name.split(".")[0] in HEAVY:
                yield Finding(module.path, item.line, f"{item.name} is imported at the start of {STARTS_QUICKLY}")
        parents = [name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)]
        pending.extend([*graph[name], *(parent for parent in parents if parent in modules)])


def main(arguments: list[str]) -> int:
    """Print every broken rule; return 1 when there is one."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent / "src"
    findings = check(root)
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
