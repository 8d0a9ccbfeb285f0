# SPDX-License-Identifier: Apache-2.0
"""``coppice apply``: carry out a plan that was written to a file, if it is still the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.files import unreadable
from coppice.cli.words import examples, pass_context, verb
from coppice.errors import StorageError

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.envelope import Result


@verb(
    "apply",
    epilog=examples(
        "coppice plan --out plan.json",
        "coppice apply --dry-run plan.json",
        "coppice apply plan.json",
        exits="0 done, 1 some items failed, 3 FILE cannot be read, 9 the plan is stale or no plan: nothing was "
        "changed, 75 another run is at work",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--dry-run", is_flag=True, help="Compare the plan with what would be planned now; change no cloud.")
@click.option("--allow-withdrawals", is_flag=True, help="Carry out withdrawals that the cap would hold.")
@click.option(
    "--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for another run to end."
)
@pass_context
def command(context: Context, *, file: Path, dry_run: bool, allow_withdrawals: bool, wait: float) -> Result:
    """Carry out the plan in FILE, if it is still what would be done.

    No list is fetched: the plan is made anew from the lists that were verified last and from what the clouds have.
    Where it is another, nothing is done, and the differences are said. What FILE says is compared, never obeyed.
    """
    from coppice.cli.clouds import open_clouds
    from coppice.cli.run import run_result
    from coppice.workflows.converge import Site
    from coppice.workflows.plan_file import apply_plan_file, read_plan_file

    try:
        agreed = read_plan_file(file)
    except StorageError as problem:
        why = problem.__cause__
        if isinstance(why, FileNotFoundError | NotADirectoryError | PermissionError):
            raise unreadable(file, why) from problem
        raise
    report = apply_plan_file(
        agreed,
        open_clouds(context, tuple(agreed.clouds)),
        Site(settings=context.settings, database=context.database, clock=context.clock, monitor=context.monitor),
        context.client(),
        allow_withdrawals=allow_withdrawals,
        dry_run=dry_run,
        wait_seconds=wait,
    )
    return run_result("apply", report, dry_run=dry_run)
