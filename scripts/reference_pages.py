# SPDX-License-Identifier: Apache-2.0
"""Write the tables of ``docs/`` that the product itself knows best, between their markers; the prose stays as it is.

Run it as ``python scripts/reference_pages.py`` (or ``make docs``); with ``--check`` it only says which pages are stale.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.definition.describe import describe_definition
from coppice.definition.json_schema import SCHEMA_FILE, schema_text
from coppice.definition.lint import RULES
from coppice.errors import all_error_types
from coppice.factory.audit import CHECKS
from coppice.schedule.metrics import METRICS
from coppice.settings.describe import describe_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
_THREAT_ROW = re.compile(r"^\| (T\d+) \|(.*)\| [^|]* \|$", re.MULTILINE)
_THREAT_MARK = re.compile(r"\bthreat\(([^)]*)\)")


def settings_table() -> str:
    """Return every setting."""
    lines = ["| setting | written as | default | meaning |", "|---|---|---|---|"]
    for setting in describe_settings():
        default = f"`{setting.default}`" if setting.default not in {"", "required"} else setting.default or "unset"
        lines.append(f"| `{setting.name}` | {setting.type} | {default} | {_cell(setting.meaning)} |")
    return "\n".join(lines)


def errors_table() -> str:
    """Return every error code, by exit code."""
    lines = ["| code | exit | meaning |", "|---|---|---|"]
    for kind in sorted(all_error_types(), key=lambda each: each.exit_code):
        first = (kind.__doc__ or "").strip().splitlines()[0]
        meaning = "A defect of Coppice: please report it." if kind.code == "internal-error" else first
        lines.append(f"| `{kind.code}` | {kind.exit_code} | {_cell(meaning)} |")
    return "\n".join(lines)


def audit_table() -> str:
    """Return every check of the audit."""
    lines = ["| check | finds | why an image must not have it |", "|---|---|---|"]
    lines += [f"| `{check.name}` | {_cell(check.finds)} | {_cell(check.reason)} |" for check in CHECKS]
    return "\n".join(lines)


def metrics_table() -> str:
    """Return every metric of the service."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{name}` | {metric.kind} | {labels} | {_cell(metric.meaning)} |")
    return "\n".join(lines)


def definition_table() -> str:
    """Return every key of ``appliance.toml``, table by table, then the rules of ``coppice definition lint``."""
    blocks = []
    for table in describe_definition():
        lines = [
            f"## {table.heading}",
            "",
            table.meaning,
            "",
            "| key | value | default | meaning |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| `{key.name}` | {_cell(key.kind)} | {_cell(key.default)} | {_cell(key.meaning)} |" for key in table.keys
        ]
        blocks.append("\n".join(lines))
    rules = ["## Rules of `coppice definition lint`", "", "| code | severity | advice |", "|---|---|---|"]
    rules += [f"| `{rule.code}` | {rule.severity} | {_cell(rule.advice)} |" for rule in RULES.values()]
    return "\n\n".join([*blocks, "\n".join(rules)])


def commands_table() -> str | None:
    """Return every command with its help, or None where the command line is not there."""
    root = find_commands()
    if root is None:
        return None
    blocks = []
    for path, command in walk(root, ("coppice",)):
        context = click.Context(command, info_name=" ".join(path))
        usage = " ".join([*path, *command.collect_usage_pieces(context)])
        help_text = re.sub(r"[\b\f]", "", command.help or command.short_help or "").strip()
        block = [f"### `{' '.join(path)}`", "", *([help_text, ""] if help_text else []), f"    {usage}"]
        told = [
            item
            for item in command.params
            if isinstance(item, click.Option) and (item.name != "json" or len(path) == 1)
        ]
        records = filter(None, (item.get_help_record(context) for item in told))
        rows = [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in records]
        if rows:
            block += ["", "| option | meaning |", "|---|---|", *rows]
        blocks.append("\n".join(block))
    return "\n\n".join(blocks)


def find_commands() -> click.Command | None:
    """Return the root of the command line; None when there is none yet."""
    if importlib.util.find_spec("coppice.cli.main") is None:
        return None
    module = importlib.import_module("coppice.cli.main")
    found = [value for value in vars(module).values() if isinstance(value, click.Group)]
    return found[0] if found else None


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that is not hidden, with its words."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from walk(child, (*path, name))


def tested_threats() -> set[str]:
    """Return the numbers of the threats that some test is marked with."""
    marks = (_THREAT_MARK.findall(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("*.py"))
    return {number for found in marks for mark in found for number in re.findall(r"T\d+", mark)}


def threat_model(text: str) -> str:
    """Return the threat model with the state of each threat brought up to date."""
    tested = tested_threats()
    return _THREAT_ROW.sub(
        lambda row: f"| {row[1]} |{row[2]}| {'tested' if row[1] in tested else 'later'} |",
        text,
    )


def pages() -> dict[Path, str]:
    """Return what each generated page must be, by path."""
    reference = ROOT / "docs" / "reference"
    tables = {
        "settings": settings_table(),
        "errors": errors_table(),
        "metrics": metrics_table(),
        "commands": commands_table(),
        "definition": definition_table(),
        "audit": audit_table(),
    }
    found = {}
    for name, table in tables.items():
        if table is not None:
            path = reference / f"{name}.md"
            found[path] = _between_markers(path.read_text(encoding="utf-8"), table)
    path = ROOT / "docs" / "explanation" / "threat-model.md"
    found[path] = threat_model(path.read_text(encoding="utf-8"))
    found[SCHEMA_FILE] = schema_text()
    return found


def _between_markers(page: str, table: str) -> str:
    head, _, rest = page.partition("<!-- generated -->\n")
    _, _, tail = rest.partition("<!-- end -->")
    return f"{head}<!-- generated -->\n{table}\n<!-- end -->{tail}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` name those that are stale and return 1."""
    stale = [path for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    for path in stale:
        if "--check" not in arguments:
            path.write_text(pages()[path], encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'stale' if '--check' in arguments else 'written'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
