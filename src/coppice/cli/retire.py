# SPDX-License-Identifier: Apache-2.0
"""``coppice retire``: expire and remove what has had its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.envelope import Result


@verb(
    "retire",
    epilog=examples(
        "coppice retire --dry-run",
        "coppice retire --cloud main",
        exits="0 done, 1 some items failed, the failure's own code when nothing could be done for one reason, "
        "75 another run is at work",
    ),
)
@click.option("--dry-run", is_flag=True, help="Show the plan, change no cloud.")
@click.option("--cloud", "clouds", multiple=True, metavar="NAME", help="Only this cloud (may be repeated).")
@click.option(
    "--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for another run to end."
)
@pass_context
def command(context: Context, *, dry_run: bool, clouds: tuple[str, ...], wait: float) -> Result:
    """Expire what has ended and remove what is past its grace period; no list is fetched."""
    from coppice.cli.clouds import open_clouds
    from coppice.cli.run import run_result
    from coppice.workflows.retire import retire

    report = retire(
        settings=context.settings,
        clouds=open_clouds(context, clouds),
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        dry_run=dry_run,
        wait_seconds=wait,
    )
    if not dry_run:
        context.tell_hooks()
    return run_result("retire", report, dry_run=dry_run)
