# SPDX-License-Identifier: Apache-2.0
"""``coppice image``: the images that subscribed lists name, and what image files are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.image_revoke import (
    release_command,
    revoke_command,
    revoked_command,
    rollback_command,
    unrevoke_command,
)
from coppice.cli.output import format_size
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.workflows.image_comparison import Comparison, FollowedImage
    from coppice.workflows.image_file import FileReport

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
        "coppice image inspect debian.qcow2 --listed 8a1f2f60-…",
        exits="0 it may be used, 1 not looked into, 7 refused, 10 no room to unpack it, 12 no list names it",
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
@click.option(
    "--listed",
    metavar="IDENTIFIER",
    help="Compare it with what a list that is followed says of this image, as `coppice image list` names it; "
    "SUBSCRIPTION/IDENTIFIER or LIST/IDENTIFIER where several lists have it.",
)
@pass_context
def inspect_file(context: Context, *, file: Path, with_guest: bool, listed: str | None) -> Result:
    """Say what FILE is by its content, or why it is refused.

    What is packed is unpacked for it. No tool opens a file that is refused; a disk is looked into by programs that are
    shut in, and is neither mounted nor started.
    """
    from coppice.cli.image_comparison import comparison_messages, show_comparison
    from coppice.cli.image_report import show_report
    from coppice.workflows.image_file import report_on

    followed = None if listed is None else _followed(context, listed)
    report = report_on(file, context.settings, context.monitor, with_guest=with_guest)
    comparison = None if followed is None else _compared(context, report, followed)
    problem = report.problem

    def render(output: Output) -> None:
        show_report(report, output)
        if comparison is not None:
            show_comparison(comparison, output)

    return Result(
        command="image inspect",
        data={
            "path": file,
            "usable_as_it_is": report.inspection.is_usable_as_it_is,
            "inspection": report.inspection,
            "has_manifest": report.has_manifest,
            "signer": report.signer,
            "guest": report.guest,
            "comparison": comparison,
        },
        status=Status.SUCCESS if problem is None else Status.PARTIAL,
        errors=() if problem is None else (problem,),
        messages=comparison_messages(comparison),
        show=render,
    )


def _followed(context: Context, listed: str) -> FollowedImage:
    # Found before the file is read: that takes a while, and no list may have it.
    from coppice.workflows.image_comparison import followed_image

    return followed_image(context.existing_database(), context.clock, context.settings.lists, listed)


def _compared(context: Context, report: FileReport, followed: FollowedImage) -> Comparison:
    from coppice.workflows.image_comparison import compare

    return compare(report, followed, context.monitor)


for _part in (revoke_command, revoked_command, unrevoke_command, rollback_command, release_command):
    command.add_command(_part)
