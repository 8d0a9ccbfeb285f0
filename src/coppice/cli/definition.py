# SPDX-License-Identifier: Apache-2.0
"""``coppice definition``: what appliances are built from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.definition_git import add, remove, sources, update
from coppice.cli.envelope import Result, Status
from coppice.cli.output import format_size
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.definition.model import Definition

command = noun("definition", "What appliances are built from.")


@command.command("list", epilog=examples("coppice definition list"))
@pass_context
def list_definitions(context: Context) -> Result:
    """List the definitions that can be built."""
    from coppice.definition.read import find_definitions

    root = context.definitions_directory()
    found = find_definitions(root)

    def render(output: Output) -> None:
        rows = [
            [each.name, _system(each), each.builder, format_size(each.disk_size_bytes), each.title] for each in found
        ]
        output.table(["name", "system", "builder", "disk", "title"], rows)

    return Result(
        command="definition list",
        data={"directory": root, "definitions": found},
        messages=() if found else (f"no definitions in {root}",),
        show=render,
    )


@command.command("show", epilog=examples("coppice definition show debian-12"))
@click.argument("name")
@pass_context
def show(context: Context, name: str) -> Result:
    """Show the definition NAME in full."""
    from coppice.definition.read import find_definition

    found = find_definition(context.definitions_directory(), name)

    def render(output: Output) -> None:
        needs = found.requirements
        output.pairs(
            {
                "name": found.name,
                "file": found.path,
                "title": found.title,
                "description": found.description,
                "groups": ", ".join(found.groups),
                "system": f"{_system(found)} ({found.suite}, {found.operating_system.architecture})",
                "builder": found.builder,
                "packages": ", ".join(found.packages),
                "disk": format_size(found.disk_size_bytes),
                "firmware": ", ".join(str(each) for each in found.firmware),
                "formats": ", ".join(str(each) for each in found.formats),
                "user": found.user,
                "minimum cores": needs.minimum_cores,
                "minimum memory": None if needs.minimum_ram_mib is None else f"{needs.minimum_ram_mib} MiB",
                "digest": found.digest(),
            }
        )

    return Result(command="definition show", data={"definition": found, "digest": found.digest()}, show=render)


@command.command(
    "validate",
    epilog=examples(
        "coppice definition validate debian-12",
        "coppice definition validate ./my-appliance",
        exits="0 all are right, 3 one is wrong, 12 there is none",
    ),
)
@click.argument("what", nargs=-1, metavar="[NAME|FOLDER]...")
@pass_context
def validate(context: Context, what: tuple[str, ...]) -> Result:
    """Validate definitions against the schema: those named, or all."""
    from coppice.definition.read import find_definition, find_definitions, read_definition
    from coppice.errors import CoppiceError

    right: list[Definition] = []
    errors: list[CoppiceError] = []
    if not what:
        right += find_definitions(context.definitions_directory())
    for each in what:
        try:
            is_folder = "/" in each or Path(each).is_dir()
            right.append(
                read_definition(Path(each)) if is_folder else find_definition(context.definitions_directory(), each)
            )
        except CoppiceError as problem:
            errors.append(problem)

    def render(output: Output) -> None:
        for each in right:
            output.line(f"{each.name}: valid ({each.path})")

    return Result(
        command="definition validate",
        data={"valid": [{"name": each.name, "path": each.path, "digest": each.digest()} for each in right]},
        status=Status.ERROR if errors else Status.SUCCESS,
        errors=tuple(errors),
        show=render,
    )


def _system(definition: Definition) -> str:
    system = definition.operating_system
    return f"{system.distribution} {system.version}"


for _verb in (add, update, remove, sources):
    command.add_command(_verb)
