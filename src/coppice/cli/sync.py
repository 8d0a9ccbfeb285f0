# SPDX-License-Identifier: Apache-2.0
"""``coppice sync``: fetch lists and bring every cloud up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.envelope import Result


@verb(
    "sync",
    epilog=examples(
        "coppice sync --dry-run",
        "coppice sync --cloud main",
        "coppice sync --subscription egi --allow-withdrawals",
        exits="0 done, 1 some items failed, the failure's own code when one thing failed, 75 another run is at work",
    ),
)
@click.option("--dry-run", is_flag=True, help="Fetch and verify lists, show the plan, change no cloud.")
@click.option("--allow-withdrawals", is_flag=True, help="Carry out withdrawals that the cap would hold.")
@click.option("--cloud", "clouds", multiple=True, metavar="NAME", help="Only this cloud (may be repeated).")
@click.option("--subscription", "only", multiple=True, metavar="NAME", help="Only this subscription (may be repeated).")
@click.option(
    "--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for another run to end."
)
@pass_context
def command(
    context: Context,
    *,
    dry_run: bool,
    allow_withdrawals: bool,
    clouds: tuple[str, ...],
    only: tuple[str, ...],
    wait: float,
) -> Result:
    """Fetch the subscribed lists, and register, supersede, expire and remove what they ask for."""
    return run_sync(
        context, "sync", dry_run=dry_run, allow_withdrawals=allow_withdrawals, clouds=clouds, only=only, wait=wait
    )


def run_sync(
    context: Context,
    words: str,
    *,
    dry_run: bool,
    allow_withdrawals: bool = False,
    clouds: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    wait: float = 0,
) -> Result:
    """Run the workflow for the command ``words``."""
    from coppice.cli.clouds import open_clouds

    opened = open_clouds(context, clouds)
    from coppice.cli.run import run_result
    from coppice.workflows.sync import sync

    report = sync(
        settings=context.settings,
        clouds=opened,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        client=context.client(),
        only=only or None,
        dry_run=dry_run,
        allow_withdrawals=allow_withdrawals,
        wait_seconds=wait,
    )
    return run_result(words, report, dry_run=dry_run)
