# SPDX-License-Identifier: Apache-2.0
"""``coppice image``: the images that subscribed lists name, and what image files are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import format_size
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output

command = noun("image", "The images that subscribed lists name, and what image files are.")


@command.command("list", epilog=examples("coppice image list", "coppice image list --json"))
@pass_context
def list_images(context: Context) -> Result:
    """List what the lists that were verified last name; nothing is fetched."""
    from coppice.subscription.store import SubscriptionStore
    from coppice.workflows.listed import listed_images

    database = context.existing_database()
    known, unknown = (
        listed_images(SubscriptionStore(database), context.clock, context.settings.lists)
        if database is not None
        else ((), ())
    )

    def render(output: Output) -> None:
        rows = [[name, each.title, each.version, format_size(each.size_bytes), each.identifier] for name, each in known]
        output.table(["subscription", "title", "version", "size", "identifier"], rows)

    errors = tuple(problem for _, problem in unknown)
    return Result(
        command="image list",
        data={"images": [{"subscription": name, "image": image} for name, image in known]},
        status=Status.SUCCESS if not errors else Status.PARTIAL if known else Status.ERROR,
        errors=errors,
        messages=() if known else ("No images are listed.",),
        show=render,
    )


@command.command(
    "inspect",
    epilog=examples(
        "coppice image inspect disk.qcow2",
        "coppice image inspect appliance.ova --no-guest",
        "coppice image inspect debian.raw.xz --json",
        exits="0 it may be used, 7 it is refused",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--guest/--no-guest",
    "with_guest",
    default=True,
    show_default=True,
    help="Look into the disk as well: partitions, file systems, how it starts, kernel, operating system.",
)
@pass_context
def inspect_file(context: Context, file: Path, with_guest: bool) -> Result:
    """Say what FILE is by its content, or why it is refused.

    What is packed is unpacked for it. No tool opens a file that is refused; a disk is looked into by programs that are
    shut in, and is neither mounted nor started.
    """
    from coppice.cli.image_report import show_report
    from coppice.workflows.image_file import report_on

    report = report_on(file, context.settings, context.monitor, with_guest=with_guest)
    problem = report.problem
    return Result(
        command="image inspect",
        data={
            "path": file,
            "usable_as_it_is": report.inspection.is_usable_as_it_is,
            "inspection": report.inspection,
            "has_manifest": report.has_manifest,
            "signer": report.signer,
            "guest": report.guest,
        },
        status=Status.SUCCESS if problem is None else Status.PARTIAL,
        errors=() if problem is None else (problem,),
        show=lambda output: show_report(report, output),
    )
