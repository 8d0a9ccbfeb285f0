# SPDX-License-Identifier: Apache-2.0
"""``coppice appliance``: the catalogue's appliances and their versions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.output import format_size, moment
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.catalogue.model import ApplianceVersion
    from coppice.cli.context import Context
    from coppice.cli.output import Output

command = noun("appliance", "The catalogue's appliances and their versions.")


class DateParameter(click.ParamType[datetime]):
    """An RFC 3339 instant, or a day (its end counts in UTC)."""

    name = "date"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the instant."""
        try:
            instant = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no date such as 2027-05-31 or 2027-05-31T12:00:00Z", param, ctx)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


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
        from coppice.definition.read import find_definition
        from coppice.workflows.build import find_build

        result = find_build(find_definition(context.definitions_directory(), definition), settings=context.settings)
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
    return Result(command="appliance add", data=_plain(added), show=lambda output: _render(output, [added], context))


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
        data=[_plain(version) for version in newest],
        messages=() if newest else ("the catalogue is empty: `coppice appliance add` fills it",),
        show=lambda output: _render(output, newest, context),
    )


@command.command("show", epilog=examples("coppice appliance show debian-12"))
@click.argument("name")
@pass_context
def show(context: Context, name: str) -> Result:
    """Show all versions of the appliance NAME."""
    from coppice.catalogue.catalogue import Catalogue

    versions = list(Catalogue(context.database).versions(name))
    return Result(
        command="appliance show",
        data=[_plain(version) for version in versions],
        show=lambda output: _render(output, versions, context),
    )


def _plain(version: ApplianceVersion) -> dict[str, object]:
    return {
        "name": version.appliance.name,
        "identifier": version.appliance.identifier,
        "title": version.appliance.title,
        "version": version.version,
        "path": version.path,
        "format": version.image.format,
        "size_bytes": version.image.size_bytes,
        "virtual_size_bytes": version.image.virtual_size_bytes,
        "checksum": str(version.image.checksum),
        "created": version.created,
        "expires": version.expires,
        "provenance": version.provenance,
    }


def _render(output: Output, versions: list[ApplianceVersion], context: Context) -> None:
    now = context.clock.now()
    output.table(
        ["appliance", "version", "format", "size", "created", "expires", "identifier"],
        [
            [
                version.appliance.name,
                version.version,
                version.image.format,
                format_size(version.image.size_bytes),
                moment(version.created, now),
                moment(version.expires, now) if version.expires else "with its list",
                version.appliance.identifier,
            ]
            for version in versions
        ],
    )
