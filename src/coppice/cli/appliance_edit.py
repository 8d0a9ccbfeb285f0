# SPDX-License-Identifier: Apache-2.0
"""``coppice appliance edit``, ``discontinue``, ``continue``, ``delete`` and ``version …``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.appliance_text import describe_appliance, describe_version, render_versions
from coppice.cli.dates import DateParameter
from coppice.cli.envelope import Result
from coppice.cli.key_options import key_options, read_changes, show_changes
from coppice.cli.output import moment
from coppice.cli.words import Command, examples, noun, pass_context
from coppice.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.catalogue.appliances import Ending
    from coppice.catalogue.drafts import ApplianceDraft
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.workflows.delete import Deleted

_HELP = {"help_option_names": ["-h", "--help"]}
version_command = noun("version", "The versions of an appliance; what is in one never changes.")


@click.command(
    "edit",
    cls=Command,
    context_settings=_HELP,
    epilog=examples(
        "coppice appliance edit debian-12 --set title='Debian 12' --set groups=general,test",
        "coppice appliance edit debian-12 --set minimum_ram_mib=1024 --set ad:appid=77",
        "coppice appliance edit debian-12 --unset title   # the next build says it again",
        exits="0 changed, 3 it would contradict itself: nothing is changed, 12 no such appliance",
    ),
)
@click.argument("name")
@key_options
@click.option("--dry-run", is_flag=True, help="Check, and change nothing.")
@pass_context
def edit(
    context: Context,
    *,
    name: str,
    texts: tuple[str, ...],
    json_texts: tuple[str, ...],
    files: tuple[str, ...],
    removed: tuple[str, ...],
    dry_run: bool,
) -> Result:
    """Describe the appliance NAME anew. What is set here, a later build does not write over."""
    from coppice.catalogue.appliances import Appliances

    asked = read_changes(texts, json_texts, files, removed)
    if not asked.values and not asked.removed:
        raise UsageError(
            "nothing is asked for: give --set KEY=VALUE or --unset KEY",
            resolution="docs/reference/catalogue.md says which keys there are.",
        )
    appliances = Appliances(context.database, context.clock)
    before: dict[str, object] = {}
    with appliances.edit(name, dry_run=dry_run) as draft:
        before = _values(draft)
        asked.apply(draft)
    after = _values(draft)
    changes = {
        key: (before.get(key), after.get(key)) for key in {**before, **after} if before.get(key) != after.get(key)
    }
    lists = appliances.lists_of(name)
    told = tuple(f"`coppice imagelist publish {each}` tells subscribers" for each in lists) if changes else ()
    return Result(
        command="appliance edit",
        data={
            "name": name,
            "dry_run": dry_run,
            "changes": [{"key": key, "before": old, "now": new} for key, (old, new) in changes.items()],
        },
        messages=("nothing was changed: --dry-run",) if dry_run else told,
        show=lambda output: show_changes(output, changes),
    )


@click.command(
    "discontinue",
    cls=Command,
    context_settings=_HELP,
    epilog=examples(
        "coppice appliance discontinue debian-12 --on 2027-06-30 --successor debian-13 --dry-run",
        "coppice appliance discontinue debian-12 --on 2027-06-30 --successor debian-13",
        exits="0 discontinued, 3 the date is past or the successor cannot be one, 12 no such appliance",
    ),
)
@click.argument("name")
@click.option("--on", type=DateParameter(), required=True, help="When it ends: a day (its end, UTC) or an instant.")
@click.option("--successor", metavar="APPLIANCE", help="What takes its place; lists tell sites.")
@click.option("--dry-run", is_flag=True, help="Show what would end, and change nothing.")
@pass_context
def discontinue(context: Context, *, name: str, on: datetime, successor: str | None, dry_run: bool) -> Result:
    """End the appliance NAME: it takes no new versions, and what is listed of it expires on that date.

    A version that was to expire earlier still does. After the date, it leaves the lists. The next publication of the
    lists tells subscribers.
    """
    from coppice.catalogue.appliances import Appliances

    ending = Appliances(context.database, context.clock).discontinue(name, on=on, successor=successor, dry_run=dry_run)
    return _ended(context, "appliance discontinue", ending, dry_run=dry_run)


@click.command(
    "continue",
    cls=Command,
    context_settings=_HELP,
    epilog=examples("coppice appliance continue debian-12", exits="0 continued, 12 no such one, or not discontinued"),
)
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Show what would be, and change nothing.")
@pass_context
def resume(context: Context, name: str, dry_run: bool) -> Result:
    """Take back that the appliance NAME was discontinued."""
    from coppice.catalogue.appliances import Appliances

    ending = Appliances(context.database, context.clock).resume(name, dry_run=dry_run)
    return _ended(context, "appliance continue", ending, dry_run=dry_run)


@click.command(
    "delete",
    cls=Command,
    context_settings=_HELP,
    epilog=examples("coppice appliance delete debian-11", exits="0 deleted, 12 no such appliance, or it is needed"),
)
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Show what would go, and change nothing.")
@pass_context
def remove_appliance(context: Context, name: str, dry_run: bool) -> Result:
    """Delete the appliance NAME and its image files; one that a list carries, or that is published, stays."""
    from coppice.workflows.delete import delete_appliance

    gone = delete_appliance(
        name, settings=context.settings, database=context.database, clock=context.clock, dry_run=dry_run
    )
    return _deleted("appliance delete", gone, dry_run=dry_run)


@version_command.command(
    "edit",
    epilog=examples(
        "coppice appliance version edit debian-12 12.9 --expires 2027-05-31",
        "coppice appliance version edit debian-12 12.9 --no-expiry",
        exits="0 changed, 12 no such appliance or version",
    ),
)
@click.argument("name")
@click.argument("version")
@click.option("--expires", type=DateParameter(), help="When its endorsement ends.")
@click.option("--no-expiry", is_flag=True, help="It ends with its list.")
@pass_context
def edit_version(context: Context, *, name: str, version: str, expires: datetime | None, no_expiry: bool) -> Result:
    """Set when the endorsement of VERSION of the appliance NAME ends: the one thing of it that can change."""
    from coppice.catalogue.appliances import Appliances

    if (expires is not None) == no_expiry:
        raise UsageError("give either --expires or --no-expiry")
    appliances = Appliances(context.database, context.clock)
    changed = appliances.set_expiry(name, version, expires)
    told = [f"`coppice imagelist publish {each}` tells subscribers" for each in appliances.lists_of(name)]
    if expires is not None and expires <= context.clock.now():
        told.append("that is past: sites expire it when they see the next publication")
    return Result(
        command="appliance version edit",
        data=describe_version(changed),
        messages=tuple(told),
        show=lambda output: render_versions(output, [changed], context.clock.now()),
    )


@version_command.command(
    "delete",
    epilog=examples(
        "coppice appliance version delete debian-12 12.8", exits="0 deleted, 12 no such version, or it is needed"
    ),
)
@click.argument("name")
@click.argument("version")
@click.option("--dry-run", is_flag=True, help="Show what would go, and change nothing.")
@pass_context
def delete_version(context: Context, name: str, version: str, dry_run: bool) -> Result:
    """Delete VERSION of the appliance NAME and its image file; one that is listed or published stays."""
    from coppice.workflows.delete import delete_appliance

    gone = delete_appliance(
        name,
        version=version,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        dry_run=dry_run,
    )
    return _deleted("appliance version delete", gone, dry_run=dry_run)


def _values(draft: ApplianceDraft) -> dict[str, object]:
    from dataclasses import asdict

    said = asdict(draft)
    keys = said.pop("keys")
    said.pop("edited")
    return {**said, **keys}


def _ended(context: Context, command: str, ending: Ending, *, dry_run: bool) -> Result:
    now = context.clock.now()

    def render(output: Output) -> None:
        ends = ending.appliance.discontinued_on
        output.pairs(
            {
                "appliance": ending.appliance.name,
                "discontinued": moment(ends, now) if ends is not None else "no",
                "successor": ending.appliance.successor,
                "carried by": ", ".join(ending.lists),
            }
        )
        rows = [[version, moment(end, now) if end else "with its list"] for version, end in ending.ends.items()]
        output.table(["version", "ends"], rows)

    told = tuple(f"`coppice imagelist publish {each}` tells subscribers" for each in ending.lists)
    data = {**describe_appliance(ending.appliance), "lists": ending.lists, "ends": ending.ends, "dry_run": dry_run}
    messages = ("nothing was changed: --dry-run",) if dry_run else told
    return Result(command=command, data=data, messages=messages, show=render)


def _deleted(command: str, gone: Deleted, *, dry_run: bool) -> Result:
    what = gone.name if gone.version is None else f"version {gone.version} of {gone.name}"
    message = f"{what} would be deleted: --dry-run" if dry_run else f"{what} is deleted"
    data = {"name": gone.name, "version": gone.version, "files": gone.files, "dry_run": dry_run}

    def render(output: Output) -> None:
        for path in gone.files:
            output.line(str(path))

    return Result(command=command, data=data, messages=(message,), show=render)
