# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist``: the image lists that are published from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.imagelist_validate import describe_content, validate
from coppice.cli.imagelist_verify import verify
from coppice.cli.output import format_size, moment
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.catalogue.model import Selection
    from coppice.cli.context import Context
    from coppice.cli.output import Output

command = noun("imagelist", "The image lists that are published from here.")
command.add_command(validate)
command.add_command(verify)


@command.command(
    "create",
    epilog=examples(
        "coppice imagelist create general --endorser jane --publisher web --title 'General images'",
        exits="0 created, 12 it exists, or there is no such endorser",
    ),
)
@click.argument("name")
@click.option("--endorser", required=True, help="Who vouches for it (`coppice endorser list`).")
@click.option("--publisher", required=True, help="Where it goes: a section [publishers.NAME] of the settings.")
@click.option("--title", required=True, help="For people, one line.")
@click.option("--description", default="", help="For people, a paragraph.")
@click.option("--source", default="", help="Where the list comes from, a URL (default: the publisher's).")
@click.option("--vo", help="Virtual organisation.")
@click.option(
    "--lifetime", "lifetime_days", type=int, default=28, show_default=True, help="Days from signing to expiry."
)
@pass_context
def create(
    context: Context,
    *,
    name: str,
    endorser: str,
    publisher: str,
    title: str,
    description: str,
    source: str,
    vo: str | None,
    lifetime_days: int,
) -> Result:
    """Make the image list NAME, which carries nothing yet."""
    from coppice.catalogue.selections import Selections
    from coppice.workflows.publish import open_publisher

    place = open_publisher(context.settings, publisher)
    created = Selections(context.database).create(
        name,
        title=title,
        description=description or title,
        source=source or place.list_uri(name),
        endorser=endorser,
        publisher=publisher,
        vo=vo,
        lifetime_days=lifetime_days,
    )
    return Result(
        command="imagelist create",
        data=_plain(created),
        messages=(f"`coppice imagelist add {name} APPLIANCE` has it carry an appliance",),
        show=lambda output: _render(output, created),
    )


@command.command("list", epilog=examples("coppice imagelist list"))
@pass_context
def list_lists(context: Context) -> Result:
    """List the image lists."""
    from coppice.catalogue.selections import Selections

    database = context.existing_database()
    known = Selections(database).all() if database is not None else ()

    def render(output: Output) -> None:
        rows = [
            [each.name, each.last_version, len(each.versions), each.endorser, each.publisher, each.title]
            for each in known
        ]
        output.table(["name", "published version", "appliances", "endorser", "publisher", "title"], rows)

    return Result(command="imagelist list", data=[_plain(each) for each in known], show=render)


@command.command("show", epilog=examples("coppice imagelist show general"))
@click.argument("name")
@pass_context
def show(context: Context, name: str) -> Result:
    """Show the image list NAME and what it would carry if it were published now."""
    from coppice.catalogue.selections import Selections

    found = Selections(context.database).get(name)
    return Result(command="imagelist show", data=_plain(found), show=lambda output: _render(output, found))


@command.command("add", epilog=examples("coppice imagelist add general debian-12"))
@click.argument("name")
@click.argument("appliance")
@pass_context
def add(context: Context, name: str, appliance: str) -> Result:
    """Have the image list NAME carry APPLIANCE, always in its newest version."""
    from coppice.catalogue.selections import Selections

    changed = Selections(context.database).select(name, appliance)
    return Result(
        command="imagelist add",
        data=_plain(changed),
        messages=(f"`coppice imagelist publish {name}` tells subscribers",),
        show=lambda output: _render(output, changed),
    )


@command.command("remove", epilog=examples("coppice imagelist remove general debian-12"))
@click.argument("name")
@click.argument("appliance")
@pass_context
def remove(context: Context, name: str, appliance: str) -> Result:
    """Have the image list NAME carry APPLIANCE no more: from the next publication on, sites withdraw it."""
    from coppice.catalogue.selections import Selections

    changed = Selections(context.database).deselect(name, appliance)
    return Result(
        command="imagelist remove",
        data=_plain(changed),
        messages=(f"`coppice imagelist publish {name}` tells subscribers",),
        show=lambda output: _render(output, changed),
    )


@command.command(
    "publish",
    epilog=examples(
        "coppice imagelist publish general",
        exits="0 published, 3 certificate or key cannot be used, 10 the place cannot be written, 12 no such list",
    ),
)
@click.argument("name")
@pass_context
def publish(context: Context, name: str) -> Result:
    """Sign the image list NAME and publish it: images first, the list last."""
    from coppice.workflows.publish import publish as publish_list

    report = publish_list(
        name,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
    )
    content = report.signed.content
    data = {
        **describe_content(content),
        "payload": str(report.signed.payload_checksum),
        "signer": str(report.signed.signer),
        "uri": report.publication.list_uri,
        "images_written": report.publication.images_written,
        "bytes_written": report.publication.bytes_written,
    }

    def render(output: Output) -> None:
        output.pairs(
            {
                "list": f"{name}, version {content.version}",
                "at": report.publication.list_uri,
                "signer": report.signed.signer,
                "expires": moment(content.validity.expires, context.clock.now()),
                "images": f"{len(content.images)} listed, {len(report.publication.images_written)} newly written "
                f"({format_size(report.publication.bytes_written)})",
            }
        )

    warnings = () if content.images else ("the list names no image: sites hold what it withdraws",)
    return Result(command="imagelist publish", data=data, messages=warnings, show=render)


def _plain(selection: Selection) -> dict[str, object]:
    return {
        "name": selection.name,
        "identifier": selection.identifier,
        "title": selection.title,
        "endorser": selection.endorser,
        "publisher": selection.publisher,
        "lifetime_days": selection.lifetime_days,
        "last_version": selection.last_version,
        "vo": selection.vo,
        "appliances": [{"name": each.appliance.name, "version": each.version} for each in selection.versions],
    }


def _render(output: Output, selection: Selection) -> None:
    output.pairs(
        {
            "list": selection.name,
            "identifier": selection.identifier,
            "title": selection.title,
            "endorser": selection.endorser,
            "publisher": selection.publisher,
            "published version": selection.last_version,
            "lifetime": f"{selection.lifetime_days} days",
        }
    )
    rows = [[each.appliance.name, each.version, format_size(each.image.size_bytes)] for each in selection.versions]
    output.table(["appliance", "version", "size"], rows)
