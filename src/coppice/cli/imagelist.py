# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist``: the image lists that are published from here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.output import format_size, moment
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.catalogue.model import Selection
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.imagelist.model import ImageList

command = noun("imagelist", "The image lists that are published from here.")


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
        **_describe(content),
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


@command.command(
    "validate",
    epilog=examples(
        "coppice imagelist validate general.list",
        exits="0 it has the form of an image list, 3 it has not, 5 it is signed and the signature does not hold",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@pass_context
def validate(context: Context, file: Path) -> Result:
    """Validate that FILE has the form of an image list, signed or plain. Whom to believe is not asked here."""
    from coppice.errors import UnsignedListError
    from coppice.formats.cms import open_message
    from coppice.formats.hepix import read_list
    from coppice.formats.names import distinguished_name

    message = _read(file, context.settings.transfer.list_size_limit_bytes)
    signer = None
    try:
        opened = open_message(message)
    except UnsignedListError:
        content = read_list(message)
    else:
        content = read_list(opened.payload)
        signer = str(distinguished_name(opened.signer_certificate.subject))

    def render(output: Output) -> None:
        output.pairs(
            {
                "list": f"{content.title}, version {content.version}",
                "identifier": content.identifier,
                "signature": f"whole, by {signer}" if signer else "none",
                "expires": moment(content.validity.expires, context.clock.now()),
            }
        )
        rows = [[each.identifier, each.version, format_size(each.size_bytes), each.title] for each in content.images]
        output.table(["image", "version", "size", "title"], rows)

    return Result(command="imagelist validate", data={**_describe(content), "signer": signer}, show=render)


def _read(file: Path, limit_bytes: int) -> bytes:
    from coppice.errors import DocumentError, UnreadableFileError

    try:
        with file.open("rb") as stream:
            content = stream.read(limit_bytes + 1)
    except OSError as problem:
        raise UnreadableFileError(f"cannot read {file}: {problem.strerror}", context={"path": str(file)}) from problem
    if len(content) > limit_bytes:
        raise DocumentError(
            f"{file} is longer than {limit_bytes} bytes",
            resolution="`transfer.list_size_limit` in the settings sets the limit.",
        )
    return content


def _describe(content: ImageList) -> dict[str, object]:
    return {
        "identifier": content.identifier,
        "version": content.version,
        "title": content.title,
        "created": content.validity.created,
        "expires": content.validity.expires,
        "endorser": str(content.endorser.subject),
        "images": [
            {
                "identifier": each.identifier,
                "version": each.version,
                "title": each.title,
                "uri": each.uri,
                "size_bytes": each.size_bytes,
                "checksum": str(each.checksum),
            }
            for each in content.images
        ],
        "unreadable": content.unreadable,
    }


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
