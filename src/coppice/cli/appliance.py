# SPDX-License-Identifier: Apache-2.0
"""``coppice appliance``: the catalogue's appliances and their versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.appliance_edit import discontinue, edit, remove_appliance, resume, version_command
from coppice.cli.appliance_evidence import difference, packages, sbom, why
from coppice.cli.appliance_provenance import sign_provenance, verify_provenance
from coppice.cli.appliance_staleness import staleness
from coppice.cli.appliance_text import describe_appliance, describe_version, render_appliance, render_versions
from coppice.cli.dates import DateParameter
from coppice.cli.envelope import Result
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.cli.context import Context
    from coppice.cli.output import Output

command = noun("appliance", "The catalogue's appliances and their versions.")


@command.command(
    "add",
    epilog=examples(
        "coppice appliance add debian-12",
        "coppice appliance add debian-12 --version 12.9 --expires 2027-05-31",
        "coppice appliance add --descriptor ./foreign.json --name foreign",
        exits="0 added (or there already), 3 the version exists with other content, 11 its boot tests have not passed",
    ),
)
@click.argument("definition", required=False)
@click.option("--descriptor", type=click.Path(path_type=Path), help="Add what this file describes instead of a build.")
@click.option("--name", help="Name of the appliance (default: the definition's, or the descriptor's identifier).")
@click.option("--version", "version", help="Its version (default: the day's date).")
@click.option("--expires", type=DateParameter(), help="When this version's endorsement ends (default: with its list).")
@click.option("--untested", is_flag=True, help="Add a build although not every boot test has passed.")
@pass_context
def add(
    context: Context,
    *,
    definition: str | None,
    descriptor: Path | None,
    name: str | None,
    version: str | None,
    expires: datetime | None,
    untested: bool,
) -> Result:
    """Bring the build of DEFINITION, or what a descriptor describes, into the catalogue."""
    from coppice.workflows.add import add_build, add_descriptor

    if (definition is None) == (descriptor is None):
        message = "name a definition, or a --descriptor: one of them"
        raise click.UsageError(message)
    if descriptor is not None and (version is not None or untested):
        message = "--version and --untested are for builds; a descriptor says its own version"
        raise click.UsageError(message)
    if definition is not None:
        from coppice.cli.build import definition_finder
        from coppice.workflows.build import find_build

        find = definition_finder(context)
        result = find_build(find(definition), settings=context.settings, find=find)
        added = add_build(
            result,
            settings=context.settings,
            database=context.database,
            clock=context.clock,
            name=name,
            version=version,
            expires=expires,
            untested=untested,
        )
    else:
        assert descriptor is not None  # noqa: S101 - one of them is named, as checked above
        added = add_descriptor(
            descriptor, settings=context.settings, database=context.database, name=name, expires=expires
        )
    return Result(
        command="appliance add",
        data=describe_version(added),
        show=lambda output: render_versions(output, [added], context.clock.now()),
    )


@command.command("list", epilog=examples("coppice appliance list"))
@pass_context
def list_appliances(context: Context) -> Result:
    """List the appliances with their newest version."""
    from coppice.catalogue.catalogue import Catalogue

    database = context.existing_database()
    catalogue = Catalogue(database) if database is not None else None
    newest = [catalogue.versions(each.name)[-1] for each in catalogue.appliances()] if catalogue is not None else []
    return Result(
        command="appliance list",
        data=[describe_version(version) for version in newest],
        messages=() if newest else ("the catalogue is empty: `coppice appliance add` fills it",),
        show=lambda output: render_versions(output, newest, context.clock.now()),
    )


@command.command("show", epilog=examples("coppice appliance show debian-12", exits="0 shown, 12 no such appliance"))
@click.argument("name")
@pass_context
def show(context: Context, name: str) -> Result:
    """Show the appliance NAME, which lists carry it, and all its versions."""
    from coppice.catalogue.appliances import Appliances
    from coppice.catalogue.catalogue import Catalogue

    versions = list(Catalogue(context.database).versions(name))
    appliances = Appliances(context.database)
    appliance, lists = appliances.get(name), appliances.lists_of(name)

    def render(output: Output) -> None:
        render_appliance(output, appliance, lists, context.clock.now())
        render_versions(output, versions, context.clock.now())

    data = {**describe_appliance(appliance), "lists": lists, "versions": [describe_version(each) for each in versions]}
    return Result(command="appliance show", data=data, show=render)


for _verb in (staleness, edit, discontinue, resume, version_command, remove_appliance):
    command.add_command(_verb)
for _verb in (packages, difference, sbom, why, sign_provenance, verify_provenance):
    command.add_command(_verb)
