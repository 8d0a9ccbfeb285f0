# SPDX-License-Identifier: Apache-2.0
"""``coppice sync``: fetch lists and bring every cloud up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.cli.context import Context
    from coppice.cli.envelope import Result
    from coppice.cloud.driver import Cloud
    from coppice.workflows.converge import SyncReport


@verb(
    "sync",
    epilog=examples(
        "coppice sync --dry-run",
        "coppice sync --cloud main",
        "coppice sync --subscription egi --allow-withdrawals",
        exits="0 done, 1 some items failed or are held, the failure's own code when nothing could be done for one "
        "reason, 75 another run is at work",
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
    from coppice.cli.clouds import open_clouds

    opened = open_clouds(context, clouds)
    from coppice.cli.run import run_result

    report = run_sync(context, opened, dry_run=dry_run, allow_withdrawals=allow_withdrawals, only=only, wait=wait)
    return run_result("sync", report, dry_run=dry_run)


def run_sync(
    context: Context,
    clouds: Mapping[str, Cloud],
    *,
    dry_run: bool,
    allow_withdrawals: bool = False,
    only: tuple[str, ...] = (),
    wait: float = 0,
) -> SyncReport:
    """Run the workflow, as the options of a command say."""
    from coppice.workflows.sync import sync

    return sync(
        settings=context.settings,
        clouds=clouds,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        client=context.client(),
        only=only or None,
        dry_run=dry_run,
        allow_withdrawals=allow_withdrawals,
        wait_seconds=wait,
    )
