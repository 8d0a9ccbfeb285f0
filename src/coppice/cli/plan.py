# SPDX-License-Identifier: Apache-2.0
"""``coppice plan``: show what sync would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.envelope import Result


@verb("plan", epilog=examples("coppice plan", "coppice plan --cloud main --json"))
@click.option("--allow-withdrawals", is_flag=True, help="Plan withdrawals that the cap would hold.")
@click.option("--cloud", "clouds", multiple=True, metavar="NAME", help="Only this cloud (may be repeated).")
@click.option("--subscription", "only", multiple=True, metavar="NAME", help="Only this subscription (may be repeated).")
@pass_context
def command(context: Context, *, allow_withdrawals: bool, clouds: tuple[str, ...], only: tuple[str, ...]) -> Result:
    """Show what `coppice sync` would do: lists are fetched and verified, no cloud is changed."""
    from coppice.cli.sync import run_sync

    return run_sync(context, "plan", dry_run=True, allow_withdrawals=allow_withdrawals, clouds=clouds, only=only)
