# SPDX-License-Identifier: Apache-2.0
"""``coppice plan``: show what sync would do, and write it down for `coppice apply`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.files import require_directory
from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.envelope import Result


@verb(
    "plan",
    epilog=examples(
        "coppice plan",
        "coppice plan --cloud main --json",
        "coppice plan --out plan.json",
        exits="0 shown, 1 some lists or clouds failed, or something is held, "
        "the failure's own code when nothing could be done for one reason",
    ),
)
@click.option("--allow-withdrawals", is_flag=True, help="Plan withdrawals that the cap would hold.")
@click.option("--cloud", "clouds", multiple=True, metavar="NAME", help="Only this cloud (may be repeated).")
@click.option("--subscription", "only", multiple=True, metavar="NAME", help="Only this subscription (may be repeated).")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the plan to FILE, for coppice apply; a file that is there is replaced.",
)
@pass_context
def command(
    context: Context, *, allow_withdrawals: bool, clouds: tuple[str, ...], only: tuple[str, ...], out: Path | None
) -> Result:
    """Show what `coppice sync` would do: lists are fetched and verified, no cloud is changed."""
    from coppice.cli.clouds import open_clouds
    from coppice.cli.run import run_result
    from coppice.cli.sync import run_sync

    if out is not None:
        require_directory(out)
    opened = open_clouds(context, clouds)
    report = run_sync(context, opened, dry_run=True, allow_withdrawals=allow_withdrawals, only=only)
    if out is None:
        return run_result("plan", report, dry_run=True)
    from coppice.workflows.converge import Site
    from coppice.workflows.plan_file import write_plan_file

    site = Site(settings=context.settings, database=context.database, clock=context.clock, monitor=context.monitor)
    names = write_plan_file(out, report, opened, site, only=only or None, allow_withdrawals=allow_withdrawals)
    # A file cannot allow what is over the cap, so whoever applies it says so again.
    apply = f"coppice apply --allow-withdrawals {out}" if allow_withdrawals else f"coppice apply {out}"
    said = f"The plan of {', '.join(names)} is in {out}: `{apply}` carries it out, if it is the same then."
    result = run_result("plan", report, dry_run=True, out=out)
    return replace(result, messages=(*result.messages, said))
