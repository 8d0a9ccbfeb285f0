# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist publish`` and ``history``: what goes out, and what went out."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.imagelist_validate import describe_content
from coppice.cli.output import format_size, moment
from coppice.cli.selection import describe_entry, render_difference
from coppice.cli.words import Command, examples, pass_context
from coppice.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from coppice.catalogue.history import PublicationHistory
    from coppice.catalogue.model import RecordedPublication
    from coppice.cli.context import Context
    from coppice.cli.output import Output

_HELP = {"help_option_names": ["-h", "--help"]}


@click.command(
    "publish",
    cls=Command,
    context_settings=_HELP,
    epilog=examples(
        "coppice imagelist publish general --dry-run",
        "coppice imagelist publish general",
        "coppice imagelist publish general --as joe",
        "coppice imagelist publish general --deltas",
        exits="0 published, 3 something does not hold of the list, or certificate or key cannot be used, 4 the token "
        "cannot be used, 5 nothing may be signed with this certificate, 6, 10 or 13 the place cannot be reached or "
        "written, 12 no such list, or a newer one is published, 75 another run publishes it",
    ),
)
@click.argument("name")
@click.option("--as", "signer", metavar="ENDORSER", help="Who signs, of those bound to the list (default: its own).")
@click.option(
    "--deltas/--no-deltas",
    default=None,
    help="Publish index, packs and patches, from which sites fetch only what changed (default: publishing.deltas).",
)
@click.option("--dry-run", is_flag=True, help="Show what would change for subscribers; sign and write nothing.")
@pass_context
def publish(context: Context, name: str, signer: str | None, deltas: bool | None, dry_run: bool) -> Result:
    """Sign the image list NAME and publish it: images first, the list last."""
    if dry_run:
        return _preview(context, name, signer, deltas=deltas)
    from coppice.cli.passphrase import asker
    from coppice.workflows.publish import publish as publish_list

    report = publish_list(
        name,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        signer=signer,
        ask=asker(),
        deltas=deltas,
    )
    context.tell_hooks()
    content = report.signed.content
    data = {
        **describe_content(content),
        "payload": str(report.signed.payload_checksum),
        "signer": str(report.signed.signer),
        "uri": report.publication.list_uri,
        "images_written": report.publication.images_written,
        "bytes_written": report.publication.bytes_written,
        "images_retired": report.retired,
    }

    def render(output: Output) -> None:
        written, retired = report.publication.images_written, report.retired
        output.pairs(
            {
                "list": f"{name}, version {content.version}",
                "at": report.publication.list_uri,
                "signer": report.signed.signer,
                "expires": moment(content.validity.expires, context.clock.now()),
                "images": len(content.images),
                "files": f"{len(written)} newly written ({format_size(report.publication.bytes_written)}), "
                f"{len(retired)} old ones removed",
            }
        )

    return Result(command="imagelist publish", data=data, messages=report.warnings, show=render)


def _preview(context: Context, name: str, signer: str | None, *, deltas: bool | None) -> Result:
    from coppice.formats.list_difference import list_difference
    from coppice.workflows.publish import preview

    found = preview(
        name,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        signer=signer,
        deltas=deltas,
    )
    data = {
        "dry_run": True,
        **describe_content(found.content),
        "difference": found.difference,
        "is_renewal": found.difference.is_renewal if found.difference is not None else None,
    }

    def render(output: Output) -> None:
        # What is published cannot be read: all of the new list is new.
        render_difference(output, found.difference or list_difference(None, found.content))

    messages = (*found.warnings, "nothing was signed or published: --dry-run")
    return Result(command="imagelist publish", data=data, messages=messages, show=render)


@click.command(
    "history",
    cls=Command,
    context_settings=_HELP,
    epilog=examples(
        "coppice imagelist history general",
        "coppice imagelist history general --show 7",
        "coppice imagelist history general --raw 7 > general-7.list",
        exits="0 shown, 12 no such list or version",
    ),
)
@click.argument("name")
@click.option("--show", "shown", metavar="VERSION", help="Show what this version lists.")
@click.option("--raw", metavar="VERSION", help="Print this version as it was signed.")
@pass_context
def history(context: Context, name: str, shown: str | None, raw: str | None) -> Result:
    """Show every version of the image list NAME that was signed: when, by whom, and whether it went out."""
    from coppice.catalogue.history import PublicationHistory

    if shown is not None and raw is not None:
        raise UsageError("--show and --raw exclude each other")
    known = PublicationHistory(context.database)
    entries = known.entries(name)
    if shown is not None or raw is not None:
        wanted = shown if shown is not None else str(raw)
        entry = next((each for each in entries if each.version == wanted), None)
        if entry is None:
            raise NotFoundError(
                f"no version {wanted} of {name} was signed",
                details=f"there are: {', '.join(each.version for each in entries[:50]) or 'none'}",
            )
        return _entry(context, entry) if raw is None else _raw(known, entry)

    def render(output: Output) -> None:
        rows = [
            [each.version, each.state, _when(context, each), each.signer, len(each.images), str(each.payload)[:23]]
            for each in entries
        ]
        output.table(["version", "state", "when", "signer", "images", "payload"], rows)

    return Result(command="imagelist history", data=[describe_entry(each) for each in entries], show=render)


def _entry(context: Context, entry: RecordedPublication) -> Result:
    def render(output: Output) -> None:
        output.pairs(
            {
                "list": f"{entry.selection}, version {entry.version}",
                "state": entry.state,
                "when": _when(context, entry),
                "expires": moment(entry.expires, context.clock.now()),
                "signer": entry.signer,
                "at": entry.uri,
                "payload": entry.payload,
            }
        )
        rows = [[each.appliance, each.version, each.identifier, each.checksum[:16]] for each in entry.images]
        output.table(["appliance", "version", "image", "sha512"], rows)

    return Result(command="imagelist history", data=describe_entry(entry), show=render)


def _raw(known: PublicationHistory, entry: RecordedPublication) -> Result:
    message = known.message(entry.number)
    data = {**describe_entry(entry), "message": base64.b64encode(message).decode("ascii")}

    def render(output: Output) -> None:
        # The signature is over these very bytes: nothing of them is escaped, and no line end is made another one.
        output.stdout.flush()
        stream = getattr(output.stdout, "buffer", None)
        if stream is None:
            output.stdout.write(message.decode("utf-8", errors="surrogateescape"))
            return
        stream.write(message)
        stream.flush()

    return Result(command="imagelist history", data=data, show=render)


def _when(context: Context, entry: RecordedPublication) -> str:
    return moment(entry.published_at or entry.signed_at, context.clock.now())
