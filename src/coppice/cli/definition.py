# SPDX-License-Identifier: Apache-2.0
"""``coppice definition``: what appliances are built from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from coppice.cli.definition_check import export, lint, schema, validate
from coppice.cli.definition_git import add, remove, sources, update
from coppice.cli.envelope import Result
from coppice.cli.output import format_size
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.definition.model import Definition
    from coppice.definition.resolve import ResolvedDefinition
    from coppice.definition.told import ToldValue

_CONTENTS = frozenset({"files", "tests", "provisioners", "contextualisation"})
_SHOWN = 60
"""Characters of a value in a table; the whole of it is in the JSON."""

command = noun("definition", "What appliances are built from.")


@command.command("list", epilog=examples("coppice definition list", "coppice --json definition list"))
@pass_context
def list_definitions(context: Context) -> Result:
    """List the definitions, those of one distribution together."""
    from coppice.definition.read import find_definitions

    places = context.definition_places()
    found = find_definitions(places, defaults=context.definition_defaults())
    distributions = sorted({each.operating_system.distribution for each in found}, key=str.lower)

    def render(output: Output) -> None:
        for distribution in distributions:
            rows = [
                [
                    each.reference,
                    each.operating_system.version,
                    each.parent or "-",
                    each.builder,
                    format_size(each.disk_size_bytes),
                    each.title,
                ]
                for each in found
                if each.operating_system.distribution == distribution
            ]
            output.table(["name", "release", "from", "builder", "disk", "title"], rows, title=distribution)

    return Result(
        command="definition list",
        data={"directory": places[0], "places": list(places), "definitions": [_summary(each) for each in found]},
        messages=() if found else (f"no definitions in {', '.join(str(each) for each in places)}",),
        show=render,
    )


def _summary(definition: Definition) -> dict[str, object]:
    from coppice.formats.definition import definition_document

    document = definition_document(definition)
    # What files and scripts hold, `show` tells of one; of all together it is too much.
    said = {key: value for key, value in document.items() if key not in _CONTENTS}
    return {**said, "reference": definition.reference, "digest": definition.digest()}


@command.command(
    "versions",
    epilog=examples("coppice definition versions", "coppice definition versions Debian"),
)
@click.argument("distribution", required=False)
@pass_context
def versions(context: Context, distribution: str | None) -> Result:
    """List the releases that there are definitions of: of DISTRIBUTION, or of all."""
    from coppice.definition.read import find_definitions
    from coppice.errors import NotFoundError

    found = find_definitions(context.definition_places(), defaults=context.definition_defaults())
    known = sorted({each.operating_system.distribution for each in found}, key=str.lower)
    if distribution is not None and distribution.lower() not in {each.lower() for each in known}:
        raise NotFoundError(
            f"there is no definition of {distribution[:80]!r}",
            resolution=f"Distributions that there are: {', '.join(known)}." if known else None,
            context={"known": known},
        )
    releases = _releases(found, distribution)
    names = ("distribution", "version", "suite", "architecture", "definitions")
    return Result(
        command="definition versions",
        data={"releases": [dict(zip(names, each, strict=True)) for each in releases]},
        show=lambda output: output.table(
            ["distribution", "release", "suite", "architecture", "definitions"],
            [[*each[:-1], ", ".join(each[-1])] for each in releases],
        ),
    )


def _natural(text: str) -> list[tuple[bool, int, str]]:
    # 9 before 10, and 22.04 before 24.04.
    return [
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.findall(r"[0-9]+|[^0-9]+", text)
    ]


def _releases(found: tuple[Definition, ...], distribution: str | None) -> list[tuple[str, str, str, str, list[str]]]:
    grouped: dict[tuple[str, str, str, str], list[str]] = {}
    for each in found:
        system = each.operating_system
        if distribution is None or system.distribution.lower() == distribution.lower():
            key = (system.distribution, system.version, each.suite, system.architecture)
            grouped.setdefault(key, []).append(each.reference)
    order = sorted(grouped, key=lambda key: (key[0].lower(), _natural(key[1]), key[2:]))
    return [(*key, grouped[key]) for key in order]


@command.command(
    "show",
    epilog=examples(
        "coppice definition show debian-12",
        "coppice definition show web-server --resolved",
        "coppice definition show web-server@small --resolved --origin",
    ),
)
@click.argument("name")
@click.option(
    "--resolved",
    is_flag=True,
    help="Show each value by its key: what it says, what its parents say, and what nobody says.",
)
@click.option("--origin", is_flag=True, help="With --resolved: say for each value in which file and line it stands.")
@pass_context
def show(context: Context, *, name: str, resolved: bool, origin: bool) -> Result:
    """Show the definition NAME, or one of its variants as NAME@VARIANT."""
    from coppice.definition.read import resolve_definition
    from coppice.definition.told import told_values
    from coppice.errors import UsageError
    from coppice.formats.definition import definition_document

    if origin and not resolved:
        raise UsageError("--origin needs --resolved", resolution=f"coppice definition show {name} --resolved --origin")
    found = resolve_definition(context.definition_places(), name, defaults=context.definition_defaults())
    definition = found.definition
    data: dict[str, object] = {
        "definition": definition_document(definition),
        "digest": definition.digest(),
        "chain": [step.reference for step in found.chain],
    }
    if resolved:
        values = told_values(found)
        data["values"] = [
            {"key": each.key, "value": each.value, "file": each.origin.source, "line": each.origin.line}
            for each in values
        ]
        return Result(
            command="definition show", data=data, show=lambda output: _show_values(output, values, with_origin=origin)
        )
    return Result(command="definition show", data=data, show=lambda output: _show_short(output, found))


def _show_values(output: Output, values: tuple[ToldValue, ...], *, with_origin: bool) -> None:
    rows = []
    for each in values:
        text = str(each.value).lower() if isinstance(each.value, bool) else " ".join(str(each.value).split())
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        rows.append([each.key, shown, *([str(each.origin)] if with_origin else [])])
    output.table(["key", "value", *(["from"] if with_origin else [])], rows)


def _show_short(output: Output, found: ResolvedDefinition) -> None:
    definition = found.definition
    needs, system = definition.requirements, definition.operating_system
    output.pairs(
        {
            "name": definition.name,
            "file": definition.path,
            "built upon": " → ".join(step.reference for step in found.chain[1:]) or None,
            "title": definition.title,
            "description": definition.description,
            "groups": ", ".join(definition.groups),
            "system": f"{system.distribution} {system.version} ({definition.suite}, {system.architecture})",
            "builder": definition.builder,
            "packages": ", ".join(definition.packages),
            "disk": format_size(definition.disk_size_bytes),
            "firmware": ", ".join(str(each) for each in definition.firmware),
            "formats": ", ".join(str(each) for each in definition.formats),
            "user": definition.user,
            "minimum cores": needs.minimum_cores,
            "minimum memory": None if needs.minimum_ram_mib is None else f"{needs.minimum_ram_mib} MiB",
            "files": ", ".join(each.path for each in definition.files),
            "users": ", ".join(each.name for each in definition.users),
            "provisioners": ", ".join(each.name for each in definition.provisioners),
            "tests": ", ".join(each.name for each in definition.tests),
            "digest": definition.digest(),
        }
    )


for _verb in (validate, lint, export, schema, add, update, remove, sources):
    command.add_command(_verb)
