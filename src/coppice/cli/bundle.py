# SPDX-License-Identifier: Apache-2.0
"""``coppice bundle``: lists and images in one file, for sites without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.dates import DateParameter
from coppice.cli.envelope import Result, Status
from coppice.cli.files import require_directory
from coppice.cli.output import counted, format_size
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.errors import CoppiceError

command = noun("bundle", "Lists and images in one file, for sites without a network.")
# A stick that is not plugged in is no reason to fill the disk below its mount point.
_MOUNT = "Mount the medium, or make the directory, and run again."


@command.command(
    "export",
    epilog=examples(
        "coppice bundle export /media/stick/bundle.tar",
        "coppice bundle export bundle.tar --have inventory.json",
        "coppice bundle export bundle.tar --since 2026-11-01 debian",
        exits="0 written, 1 some lists or images are not in it, 12 no list is known",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("names", nargs=-1, metavar="[SUBSCRIPTION]...")
@click.option(
    "--have",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="INVENTORY",
    help="What the other site holds, as `coppice bundle inventory` wrote it there.",
)
@click.option("--since", type=DateParameter(), metavar="DATE", help="The other site has what lists named before.")
@pass_context
def export(
    context: Context, *, file: Path, names: tuple[str, ...], have: Path | None, since: datetime | None
) -> Result:
    """Write the lists in force, as they were signed, and the images that they name to FILE.

    What the other site has is left out; of what it has an earlier version of, the difference is written where that is
    smaller. What is not in this site's cache is fetched.
    """
    from coppice.workflows.bundle import read_inventory
    from coppice.workflows.export_bundle import export_bundle

    require_directory(file, resolution=_MOUNT)
    report = export_bundle(
        file,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        client=context.client(),
        names=names,
        there=None if have is None else read_inventory(have),
        since=since,
    )

    def render(output: Output) -> None:
        rows = [[each.title, each.version, each.form, format_size(each.size_bytes)] for each in report.images]
        output.table(["image", "version", "as", "size"], rows)

    return _result(
        "bundle export",
        {
            "path": report.path,
            "size_bytes": report.size_bytes,
            "lists": [{"subscription": name, "version": version} for name, version in report.lists],
            "images": [
                {
                    "title": each.title,
                    "version": each.version,
                    "form": each.form,
                    "size_bytes": each.size_bytes,
                    "error": None if each.error is None else each.error.as_dict(),
                }
                for each in report.images
            ],
        },
        report.errors,
        (f"{report.path} has {counted(len(report.lists), 'list')} and {format_size(report.size_bytes)}.",),
        render,
    )


@command.command("inventory", epilog=examples("coppice bundle inventory /media/stick/inventory.json"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@pass_context
def inventory(context: Context, *, file: Path) -> Result:
    """Write what this site's cache holds to FILE, for `coppice bundle export --have` at the other site."""
    from coppice.workflows.bundle import take_inventory, write_inventory

    require_directory(file, resolution=_MOUNT)
    taken = take_inventory(context.settings)
    write_inventory(file, taken, now=context.clock.now())
    return Result(
        command="bundle inventory",
        data={"path": file, "objects": len(taken.objects)},
        messages=(f"{file} names {counted(len(taken.objects), 'file')}.",),
    )


@command.command(
    "import",
    epilog=examples(
        "coppice bundle import --dry-run /media/stick/bundle.tar",
        "coppice bundle import /media/stick/bundle.tar",
        exits="0 done, 1 some lists or images failed, the failure's own code when one thing failed "
        "(5 the bundle, or a list, is refused), 75 another run is at work",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--dry-run", is_flag=True, help="Check the bundle and judge its lists; change nothing.")
@click.option("--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for another run.")
@pass_context
def import_(context: Context, *, file: Path, dry_run: bool, wait: float) -> Result:
    """Take the lists and images that FILE carries, verified as if they came from their source.

    A list counts only for a subscription of this site, by the endorsers that it trusts; an older one is refused. An
    image counts when such a list names it. `coppice sync` then registers it.
    """
    from coppice.workflows.import_bundle import import_bundle

    report = import_bundle(
        file,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        client=context.client(),
        dry_run=dry_run,
        wait_seconds=wait,
    )
    good = [each for each in report.outcomes if each.error is None]
    came = [each for each in report.images if each.error is None]

    def render(output: Output) -> None:
        for outcome in good:
            version = "" if outcome.verified is None else outcome.verified.content.version
            output.line(f"+ list of {outcome.subscription.name}, version {version}")
        for each in report.images:
            how = f" ({each.method})" if each.method else ""
            output.line(f"{'!' if each.error else '+'} {each.change} {each.title} {each.version}{how}")

    lists = [
        {
            "subscription": each.subscription.name,
            "version": None if each.verified is None else each.verified.content.version,
            "error": None if each.error is None else each.error.as_dict(),
        }
        for each in report.outcomes
    ]
    images = [
        {
            "title": each.title,
            "version": each.version,
            "change": each.change,
            "method": each.method,
            "error": None if each.error is None else each.error.as_dict(),
        }
        for each in report.images
    ]
    said = f"{counted(len(good), 'list')} {'to take' if dry_run else 'taken'}, {counted(len(came), 'image')} in order."
    return _result(
        "bundle import",
        {"dry_run": dry_run, "lists": lists, "images": images, "not_followed": report.not_followed},
        report.errors,
        (said, *(f"nobody here follows {uri}" for uri in report.not_followed)),
        render,
    )


def _result(
    name: str,
    data: dict[str, object],
    errors: tuple[CoppiceError, ...],
    messages: tuple[str, ...],
    show: Callable[[Output], None],
) -> Result:
    return Result(
        command=name,
        data=data,
        status=Status.PARTIAL if errors else Status.SUCCESS,
        errors=errors,
        messages=messages,
        show=show,
        exit_code=(errors[0].exit_code if len(errors) == 1 else 1) if errors else 0,
    )
