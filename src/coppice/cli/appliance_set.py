# SPDX-License-Identifier: Apache-2.0
"""``coppice set``: complementary appliances that are published, replaced, taken back and expired together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.dates import DateParameter
from coppice.cli.envelope import Result
from coppice.cli.output import moment
from coppice.cli.words import examples, noun, pass_context
from coppice.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.catalogue.model import ApplianceSet, SetRelease
    from coppice.cli.context import Context
    from coppice.cli.output import Output

command = noun("set", "Appliances that are published and expired together.")


@command.command(
    "create",
    epilog=examples(
        "coppice set create portal --title 'Portal: database, broker, front end'",
        exits="0 created, 3 the name or title cannot be one, 12 it exists",
    ),
)
@click.argument("name")
@click.option("--title", required=True, help="For people, one line.")
@click.option("--description", default="", help="For people, a paragraph.")
@click.option("--identifier", metavar="UUID", help="Of a set that had its life elsewhere (default: a new one).")
@pass_context
def create(context: Context, *, name: str, title: str, description: str, identifier: str | None) -> Result:
    """Make the set NAME, which has no appliances yet."""
    from coppice.catalogue.sets import Sets

    made = Sets(context.database, context.clock).create(
        name, title=title, description=description, identifier=identifier
    )
    return _set(context, "set create", made, f"`coppice set add {name} APPLIANCE` adds an appliance")


@command.command("list", epilog=examples("coppice set list"))
@pass_context
def list_sets(context: Context) -> Result:
    """List the sets."""
    from coppice.catalogue.sets import Sets

    database = context.existing_database()
    known = Sets(database).all() if database is not None else ()

    def render(output: Output) -> None:
        rows = [
            [each.name, _newest(each), ", ".join(each.appliances), ", ".join(each.lists), each.title] for each in known
        ]
        output.table(["name", "release", "appliances", "carried by", "title"], rows)

    return Result(
        command="set list",
        data=[_plain(each) for each in known],
        messages=() if known else ("no sets yet: `coppice set create` makes one",),
        show=render,
    )


@command.command("show", epilog=examples("coppice set show portal", exits="0 shown, 12 no such set"))
@click.argument("name")
@pass_context
def show(context: Context, name: str) -> Result:
    """Show the set NAME and its releases."""
    from coppice.catalogue.sets import Sets

    return _set(context, "set show", Sets(context.database).get(name))


@command.command(
    "add",
    epilog=examples("coppice set add portal database broker", exits="0 added, 12 no such one, or discontinued"),
)
@click.argument("name")
@click.argument("appliances", metavar="APPLIANCE...", nargs=-1, required=True)
@pass_context
def add(context: Context, name: str, appliances: tuple[str, ...]) -> Result:
    """Have the next release of the set NAME take in APPLIANCE."""
    from coppice.catalogue.sets import Sets

    changed = Sets(context.database, context.clock).add(name, *appliances)
    return _set(context, "set add", changed, f"`coppice set release {name}` makes a release")


@command.command(
    "remove", epilog=examples("coppice set remove portal broker", exits="0 removed, 12 no such set, or not of it")
)
@click.argument("name")
@click.argument("appliances", metavar="APPLIANCE...", nargs=-1, required=True)
@pass_context
def remove(context: Context, name: str, appliances: tuple[str, ...]) -> Result:
    """Leave APPLIANCE out of the next release of the set NAME; releases that there are stay as they are."""
    from coppice.catalogue.sets import Sets

    changed = Sets(context.database, context.clock).leave_out(name, *appliances)
    return _set(context, "set remove", changed, f"`coppice set release {name}` makes a release")


@command.command(
    "release",
    epilog=examples(
        "coppice set release portal --dry-run",
        "coppice set release portal",
        "coppice set release portal --version 2.0 --member database=15.4",
        exits="0 released (or nothing is new), 3 it cannot be released, 12 no such set or version",
    ),
)
@click.argument("name")
@click.option("--version", "version", help="Of the release (default: the one that follows).")
@click.option(
    "--member", "members", metavar="APPLIANCE=VERSION", multiple=True, help="Take this version, not the newest."
)
@click.option("--dry-run", is_flag=True, help="Show what it would have, and make nothing.")
@pass_context
def release(context: Context, *, name: str, version: str | None, members: tuple[str, ...], dry_run: bool) -> Result:
    """Make a release of the set NAME: the newest version of each of its appliances. A release never changes.

    Lists that carry the set carry its newest release from their next publication on.
    """
    from coppice.catalogue.sets import Sets

    versions: dict[str, str] = {}
    for member in members:
        appliance, separator, wanted = member.partition("=")
        if not separator or not wanted or appliance in versions:
            raise UsageError(f"--member takes APPLIANCE=VERSION, once for each, not {member[:80]!r}")
        versions[appliance] = wanted
    sets = Sets(context.database, context.clock)
    made = sets.release(name, version=version, versions=versions, dry_run=dry_run)
    return _release(context, "set release", sets.get(name), made, dry_run=dry_run)


@command.command(
    "rollback",
    epilog=examples(
        "coppice set rollback portal --dry-run",
        "coppice set rollback portal --to 3",
        exits="0 taken back, 12 no such set or release, or nothing to go back to",
    ),
)
@click.argument("name")
@click.option("--to", metavar="VERSION", help="The release whose members are wanted (default: the one before).")
@click.option("--dry-run", is_flag=True, help="Show what it would have, and make nothing.")
@pass_context
def rollback(context: Context, *, name: str, to: str | None, dry_run: bool) -> Result:
    """Make a new release of the set NAME that has the members of an earlier one.

    With the next publication, sites make the earlier versions available again and withdraw the later ones, all
    together.
    """
    from coppice.catalogue.sets import Sets

    sets = Sets(context.database, context.clock)
    made = sets.roll_back(name, to=to, dry_run=dry_run)
    return _release(context, "set rollback", sets.get(name), made, dry_run=dry_run)


@command.command(
    "expire",
    epilog=examples(
        "coppice set expire portal --on 2027-06-30",
        "coppice set expire portal --never",
        exits="0 set, 3 the date is past, 12 no such set",
    ),
)
@click.argument("name")
@click.option("--on", type=DateParameter(), help="When every member ends at the latest: a day or an instant.")
@click.option("--never", is_flag=True, help="Take that back.")
@click.option("--dry-run", is_flag=True, help="Check, and change nothing.")
@pass_context
def expire(context: Context, *, name: str, on: datetime | None, never: bool, dry_run: bool) -> Result:
    """Have the endorsement of every member of the set NAME end on one date."""
    from coppice.catalogue.sets import Sets

    if (on is not None) == never:
        raise UsageError("give either --on or --never")
    changed = Sets(context.database, context.clock).expire(name, on, dry_run=dry_run)
    return _set(context, "set expire", changed, *_told(changed, dry_run=dry_run))


@command.command(
    "delete", epilog=examples("coppice set delete portal", exits="0 deleted, 12 no such set, or a list carries it")
)
@click.argument("name")
@pass_context
def delete(context: Context, name: str) -> Result:
    """Delete the set NAME and its releases; its appliances stay. One that a list carries is not deleted."""
    from coppice.catalogue.sets import Sets

    Sets(context.database, context.clock).delete(name)
    return Result(command="set delete", data={"deleted": name}, messages=(f"the set {name} is deleted",))


def _set(context: Context, command_name: str, found: ApplianceSet, *messages: str) -> Result:
    def render(output: Output) -> None:
        output.pairs(
            {
                "set": found.name,
                "identifier": found.identifier,
                "title": found.title,
                "description": found.description,
                "appliances": ", ".join(found.appliances),
                "expires": moment(found.expires, context.clock.now()),
                "carried by": ", ".join(found.lists),
            }
        )
        rows = [
            [each.version, moment(each.created, context.clock.now()), _members(each), each.members_of]
            for each in found.releases
        ]
        output.table(["release", "made", "members", "as in"], rows)

    return Result(command=command_name, data=_plain(found), messages=messages, show=render)


def _release(context: Context, command_name: str, found: ApplianceSet, made: SetRelease, *, dry_run: bool) -> Result:
    def render(output: Output) -> None:
        output.pairs(
            {
                "set": found.name,
                "release": made.version,
                "made": moment(made.created, context.clock.now()),
                "as in release": made.members_of,
            }
        )
        output.table(["appliance", "version"], [[each.appliance.name, each.version] for each in made.members])

    data = {"set": found.name, "identifier": found.identifier, "dry_run": dry_run, **_plain_release(made)}
    return Result(command=command_name, data=data, messages=_told(found, dry_run=dry_run), show=render)


def _told(found: ApplianceSet, *, dry_run: bool) -> tuple[str, ...]:
    if dry_run:
        return ("nothing was changed: --dry-run",)
    return tuple(f"`coppice imagelist publish {each}` tells subscribers" for each in found.lists)


def _plain(found: ApplianceSet) -> dict[str, object]:
    return {
        "name": found.name,
        "identifier": found.identifier,
        "title": found.title,
        "description": found.description,
        "appliances": found.appliances,
        "expires": found.expires,
        "lists": found.lists,
        "releases": [_plain_release(each) for each in found.releases],
    }


def _plain_release(made: SetRelease) -> dict[str, object]:
    return {
        "version": made.version,
        "created": made.created,
        "members": [{"name": each.appliance.name, "version": each.version} for each in made.members],
        "members_of": made.members_of,
    }


def _newest(found: ApplianceSet) -> str | None:
    return found.releases[-1].version if found.releases else None


def _members(made: SetRelease) -> str:
    return ", ".join(f"{each.appliance.name} {each.version}" for each in made.members)
