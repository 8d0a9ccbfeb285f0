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

command = noun("image", "The images that subscribed lists name.")


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
    "inspect", epilog=examples("coppice image inspect disk.qcow2", exits="0 it may be used, 7 it is refused")
)
@click.argument("file", type=click.Path(path_type=Path))
@pass_context
def inspect_file(context: Context, file: Path) -> Result:
    """Say what FILE is by its content, or why it is refused; no tool opens it."""
    from coppice.conversion.inspect import inspect
    from coppice.conversion.model import ConversionLimits
    from coppice.errors import UnreadableFileError

    if not file.exists():
        raise UnreadableFileError(f"there is no file {file}", context={"path": str(file)})

    bounds = context.settings.conversion
    limits = ConversionLimits(
        maximum_virtual_size_bytes=bounds.maximum_virtual_size_bytes,
        memory_bytes=bounds.memory_bytes,
        timeout_seconds=bounds.timeout_seconds,
    )
    found = inspect(file, limits)

    def render(output: Output) -> None:
        output.pairs(
            {
                "file": file,
                "format": found.format,
                "size": format_size(found.size_bytes),
                "virtual size": format_size(found.virtual_size_bytes),
            }
        )

    return Result(command="image inspect", data={"path": file, "inspection": found}, show=render)
