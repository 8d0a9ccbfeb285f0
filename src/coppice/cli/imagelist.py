# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist``: the image lists that are published from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.imagelist_create import create, template
from coppice.cli.imagelist_edit import bind_endorser, bind_set, delete, edit, unbind_endorser, unbind_set
from coppice.cli.imagelist_import import import_file
from coppice.cli.imagelist_import_vmcaster import import_vmcaster
from coppice.cli.imagelist_publish import history, publish
from coppice.cli.imagelist_validate import validate
from coppice.cli.imagelist_verify import verify
from coppice.cli.selection import describe_entry, describe_selection, render_selection
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output

command = noun("imagelist", "The image lists that are published from here.")
command.add_command(create)
command.add_command(template)


@command.command("list", epilog=examples("coppice imagelist list"))
@pass_context
def list_lists(context: Context) -> Result:
    """List the image lists."""
    from coppice.catalogue.selections import Selections

    database = context.existing_database()
    known = Selections(database).all() if database is not None else ()

    def render(output: Output) -> None:
        rows = [
            [each.name, each.last_version, len(each.listed_versions), each.endorser, each.publisher, each.title]
            for each in known
        ]
        output.table(["name", "published version", "appliances", "endorser", "publisher", "title"], rows)

    return Result(
        command="imagelist list",
        data=[describe_selection(each) for each in known],
        messages=() if known else ("no image lists yet: `coppice imagelist create` makes one",),
        show=render,
    )


@command.command(
    "show",
    epilog=examples(
        "coppice imagelist show general",
        "coppice imagelist publish general --dry-run   # what would change for subscribers",
        exits="0 shown, 12 no such list",
    ),
)
@click.argument("name")
@pass_context
def show(context: Context, name: str) -> Result:
    """Show the image list NAME, what is bound to it, and what it would carry if it were published now."""
    from coppice.catalogue.consistency import check_contents
    from coppice.catalogue.history import PublicationHistory
    from coppice.catalogue.selections import Selections
    from coppice.errors import InconsistentListError
    from coppice.model.version import next_version

    found = Selections(context.database).get(name)
    last = PublicationHistory(context.database).last_published(found.identifier)
    try:
        check_contents(found)
        problems: tuple[str, ...] = ()
    except InconsistentListError as problem:
        problems = (f"it cannot be published: {problem.message}",)
    data = {
        **describe_selection(found),
        "next_version": next_version(found.last_version),
        "published": describe_entry(last) if last is not None else None,
        "problems": problems,
    }

    def render(output: Output) -> None:
        render_selection(output, found, context.clock.now())

    return Result(command="imagelist show", data=data, messages=problems, show=render)


@command.command("add", epilog=examples("coppice imagelist add general debian-12"))
@click.argument("name")
@click.argument("appliance")
@pass_context
def add(context: Context, name: str, appliance: str) -> Result:
    """Have the image list NAME carry APPLIANCE, always in its newest version."""
    from coppice.catalogue.selections import Selections

    changed = Selections(context.database, context.clock).select(name, appliance)
    return Result(
        command="imagelist add",
        data=describe_selection(changed),
        messages=(f"`coppice imagelist publish {name}` tells subscribers",),
        show=lambda output: render_selection(output, changed, context.clock.now()),
    )


@command.command("remove", epilog=examples("coppice imagelist remove general debian-12"))
@click.argument("name")
@click.argument("appliance")
@pass_context
def remove(context: Context, name: str, appliance: str) -> Result:
    """Have the image list NAME carry APPLIANCE no more: from the next publication on, sites withdraw it."""
    from coppice.catalogue.selections import Selections

    changed = Selections(context.database, context.clock).deselect(name, appliance)
    return Result(
        command="imagelist remove",
        data=describe_selection(changed),
        messages=(f"`coppice imagelist publish {name}` tells subscribers",),
        show=lambda output: render_selection(output, changed, context.clock.now()),
    )


for _verb in (
    edit,
    bind_endorser,
    unbind_endorser,
    bind_set,
    unbind_set,
    publish,
    history,
    import_file,
    import_vmcaster,
    validate,
    verify,
    delete,
):
    command.add_command(_verb)
