# SPDX-License-Identifier: Apache-2.0
"""``coppice event archive`` and ``import``: events as files, from a machine that still runs vmcatcher to this one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted
from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output


class ModeParameter(click.ParamType[int]):
    """The rights of a file, in octal: 0664."""

    name = "mode"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the rights; nobody but the owner and the group may be given the right to write."""
        if isinstance(value, int):
            return value
        text = str(value)
        if 3 <= len(text) <= 4 and all(digit in "01234567" for digit in text):  # noqa: PLR2004 - 664 or 0664
            mode = int(text, 8)
            if mode <= 0o777 and not mode & 0o002:  # noqa: PLR2004 - rights of owner, group and others; others write
                return mode
        return self.fail(f"{text!r} is no rights such as 0664 (others never write)", param, ctx)


@verb(
    "archive",
    epilog=examples(
        "coppice event archive --directory /var/spool/coppice/events",
        "vmcatcher_cache --execute 'coppice event archive -m /var/spool/coppice/events'",
        exits="0 written, 3 the environment tells of no event",
    ),
)
@click.option(
    "--directory",
    "--metadata-dir",
    "-m",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where archived events lie; it is made when it is missing.",
)
@click.option(
    "--file-permissions", "-p", "mode", type=ModeParameter(), default="0664", show_default=True, help="Of the file."
)
@click.option("--dry-run", is_flag=True, help="Say which file would be written; write nothing.")
@pass_context
def archive(context: Context, *, directory: Path, mode: int, dry_run: bool) -> Result:
    """Write the event that a handler of vmcatcher is called with into a file: this command is such a handler.

    The event is read from the variables VMCATCHER_EVENT_*. Neither settings nor the database are needed.
    """
    from coppice.events.archive import archive_event

    seconds = int(context.clock.now().timestamp())
    path = archive_event(directory, dict(os.environ), seconds=seconds, mode=mode, dry_run=dry_run)
    verb_word = "Would write" if dry_run else "Wrote"
    return Result(command="event archive", data={"dry_run": dry_run, "path": path}, messages=(f"{verb_word} {path}.",))


@verb(
    "import",
    epilog=examples(
        "coppice event import /var/spool/itchy/metadata --dry-run",
        "coppice event import /var/spool/coppice/events --keep",
        exits="0 all imported, 1 some could not be",
    ),
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--keep", is_flag=True, help="Move what was imported into the folder `imported`, instead of removing it.")
@click.option("--dry-run", is_flag=True, help="Show what would be imported, in which order; change nothing.")
@pass_context
def import_directory(context: Context, *, directory: Path, keep: bool, dry_run: bool) -> Result:
    """Take the archived events of DIRECTORY into the journal, in their true order, and tell the hooks of them.

    What is no event is moved into the folder `rejected`, and holds up nothing.
    """
    from coppice.workflows.import_events import import_events
    from coppice.workflows.tell import tell

    done = import_events(
        directory,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        keep=keep,
        dry_run=dry_run,
    )
    told = None if dry_run else tell(context.settings, context.database, context.clock, context.monitor)
    errors = (*(problem for _, problem in done.rejected), *done.unreadable)

    def render(output: Output) -> None:
        for name in done.imported:
            output.line(name)

    verb_word = "to import" if dry_run else "imported"
    messages = [f"{counted(len(done.imported), 'event')} {verb_word}, {len(done.rejected)} rejected."]
    if done.others:
        shown = ", ".join(done.others[:5]) + (" …" if len(done.others) > 5 else "")  # noqa: PLR2004 - enough to tell
        messages.append(f"No archived events, and left: {counted(len(done.others), 'file')}: {shown}")
    if told is not None and told.errors:
        messages.append(
            f"{counted(len(told.errors), 'delivery', 'deliveries')} failed; `coppice event hooks` shows what waits."
        )
    return Result(
        command="event import",
        data={
            "dry_run": dry_run,
            "imported": done.imported,
            "known": done.known,
            "rejected": [name for name, _ in done.rejected],
            "others": done.others,
        },
        status=Status.PARTIAL if errors else Status.SUCCESS,
        errors=errors,
        messages=tuple(messages),
        show=render,
    )
