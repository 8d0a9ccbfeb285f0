# SPDX-License-Identifier: Apache-2.0
"""``coppice definition validate``, ``lint``, ``export`` and ``schema``: what one does while one writes definitions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.definition.lint import Finding
    from coppice.definition.model import Definition
    from coppice.definition.resolve import ResolvedDefinition
    from coppice.errors import CoppiceError


@click.command(
    "validate",
    cls=Command,
    epilog=examples(
        "coppice definition validate debian-12",
        "coppice definition validate ./my-appliance",
        "coppice definition validate ./my-appliance --tools",
        exits="0 all are right, 3 one is wrong, 12 there is none",
    ),
)
@click.argument("what", nargs=-1, metavar="[NAME|FOLDER]...")
@click.option("--tools", is_flag=True, help="Have Packer, and validators that are installed, look at what it becomes.")
@pass_context
def validate(context: Context, *, what: tuple[str, ...], tools: bool) -> Result:
    """Validate definitions against the schema: those named, or all.

    With --tools, what the builder packer makes of them is written, too, and looked at by the programs that know it:
    Packer takes its template (for OpenStack, it logs in to the cloud), and the installer's validator its answers.
    """
    right: list[Definition] = []
    if not what:
        from coppice.definition.read import find_definitions

        right += find_definitions(context.definition_places(), defaults=context.definition_defaults())
    found, errors = _resolve(context, what)
    right += [each.definition for each in found]
    asked, wrong = _asked(right) if tools else ({}, [])
    right = [each for each in right if not tools or each.builder != "packer" or each.reference in asked]
    errors += wrong

    def render(output: Output) -> None:
        for each in right:
            by = f", says {' and '.join(asked[each.reference])}" if asked.get(each.reference) else ""
            output.line(f"{each.reference}: valid ({each.path}){by}")

    return Result(
        command="definition validate",
        data={"valid": [_valid(each, asked if tools else None) for each in right]},
        status=Status.ERROR if errors else Status.SUCCESS,
        errors=tuple(errors),
        show=render,
    )


@click.command(
    "lint",
    cls=Command,
    epilog=examples(
        "coppice definition lint",
        "coppice definition lint web-server ./my-appliance --strict",
        exits="0 nothing is found that counts, 3 something is, or a definition is wrong, 12 there is none",
    ),
)
@click.argument("what", nargs=-1, metavar="[NAME|FOLDER]...")
@click.option("--strict", is_flag=True, help="Let warnings count as errors do.")
@pass_context
def lint(context: Context, *, what: tuple[str, ...], strict: bool) -> Result:
    """Find what definitions had better not say: those named, or all.

    Secrets in images, sources that nobody vouches for, files that everybody may write, scripts that go on after a
    failure, systems without updates. Each finding has a code, its place and an advice.
    """
    from coppice.definition.lint import Severity
    from coppice.definition.lint import lint as find_faults
    from coppice.errors import DefinitionError

    resolved, errors = _resolve(context, what or _all_names(context))
    today = context.clock.now().date()
    by_name = {each.definition.reference: find_faults(each, today) for each in resolved}
    # What a parent says is found in each of its children; it is told once.
    found = list(dict.fromkeys(finding for findings in by_name.values() for finding in findings))
    bad = [each for each in found if strict or each.rule.severity is Severity.ERROR]
    if bad:
        where = sorted({each.origin.source for each in bad})
        errors.append(
            DefinitionError(
                f"{counted(len(bad), 'finding')} in {', '.join(where)}",
                resolution="Follow the advice of each finding, then run again.",
                context={"codes": sorted({each.rule.code for each in bad})},
            )
        )

    def render(output: Output) -> None:
        for each in found:
            output.line(f"{each.origin}: {each.rule.severity} {each.rule.code}: {each.message}")
            output.line(f"  {each.rule.advice}")

    return Result(
        command="definition lint",
        data={"findings": [_finding(each) for each in found], "definitions": list(by_name)},
        status=Status.ERROR if errors else Status.SUCCESS,
        errors=tuple(errors),
        messages=() if found or errors else (f"nothing found in {counted(len(by_name), 'definition')}",),
        show=render,
    )


@click.command(
    "export",
    cls=Command,
    epilog=examples(
        "coppice definition export debian-12 --to ./appliances",
        exits="0 copied, 3 the definition is wrong, 12 there is none, or a folder is there with other files",
    ),
)
@click.argument("name")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Where the folders come to lie; made when it is missing.",
)
@pass_context
def export(context: Context, *, name: str, to: Path) -> Result:
    """Copy the definition NAME and all that it is built upon, for editing.

    DIR then stands by itself: name it in the settings as `definitions_directory`.
    """
    from coppice.definition.export import export_definition

    (resolved,), errors = _resolve(context, (name,), fail=True)
    folders = export_definition(resolved, to.absolute())
    return Result(
        command="definition export",
        data={"name": resolved.definition.name, "folders": list(folders)},
        errors=tuple(errors),
        messages=(f"`coppice definition validate {folders[0]}` says whether what you write there is right",),
        show=lambda output: _show_lines(output, folders),
    )


@click.command("schema", cls=Command, epilog=examples("coppice definition schema > appliance.schema.json"))
@pass_context
def schema(_context: Context) -> Result:
    """Print the JSON Schema of appliance.toml, for editors that complete and check what one writes."""
    import json

    from coppice.definition.json_schema import SCHEMA_FILE

    text = SCHEMA_FILE.read_text(encoding="utf-8")
    return Result(
        command="definition schema",
        data=json.loads(text),
        show=lambda output: _show_lines(output, text.splitlines()),
    )


def _show_lines(output: Output, lines: Sequence[object]) -> None:
    for each in lines:
        output.line(str(each))


def _all_names(context: Context) -> tuple[str, ...]:
    from coppice.definition.read import list_references

    return list_references(context.definition_places())


def _resolve(
    context: Context, what: tuple[str, ...], *, fail: bool = False
) -> tuple[list[ResolvedDefinition], list[CoppiceError]]:
    from coppice.definition.read import resolve_definition, resolve_folder
    from coppice.errors import CoppiceError

    places, defaults = context.definition_places(), context.definition_defaults()
    found: list[ResolvedDefinition] = []
    errors: list[CoppiceError] = []
    for each in what:
        try:
            if "/" in each or Path(each).is_dir():
                found.append(resolve_folder(Path(each), roots=places, defaults=defaults))
            else:
                found.append(resolve_definition(places, each, defaults=defaults))
        except CoppiceError as problem:
            if fail:
                raise
            errors.append(problem)
    return found, errors


def _valid(definition: Definition, asked: Mapping[str, tuple[str, ...]] | None) -> dict[str, object]:
    told: dict[str, object] = {"name": definition.name, "path": definition.path, "digest": definition.digest()}
    return told if asked is None else {**told, "tools": list(asked.get(definition.reference, ()))}


def _asked(right: list[Definition]) -> tuple[dict[str, tuple[str, ...]], list[CoppiceError]]:
    """Have programs look at each; return what they said of those that they take, and what they refuse."""
    from coppice.errors import CoppiceError
    from coppice.factory.packer.look_over import look_over

    asked: dict[str, tuple[str, ...]] = {}
    errors: list[CoppiceError] = []
    for each in right:
        if each.builder != "packer":
            continue
        try:
            asked[each.reference] = look_over(each)
        except CoppiceError as problem:
            errors.append(problem)
    return asked, errors


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.rule.code,
        "severity": finding.rule.severity,
        "message": finding.message,
        "file": finding.origin.source,
        "line": finding.origin.line,
        "advice": finding.rule.advice,
    }
