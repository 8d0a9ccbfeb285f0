# SPDX-License-Identifier: Apache-2.0
"""``coppice appliance staleness``: what has changed since each appliance was built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted
from coppice.cli.staleness_text import describe_appraisal, render_appraisals
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.workflows.staleness import Appraisal


@click.command(
    "staleness",
    cls=Command,
    epilog=examples(
        "coppice appliance staleness",
        "coppice --json appliance staleness debian-12",
        exits="0 everything could be found out, 1 not of all (`coppice rebuild --dry-run` says why), "
        "12 no such appliance",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@pass_context
def staleness(context: Context, names: tuple[str, ...]) -> Result:
    """Show how stale the appliances are, all or those that are named; nothing is built.

    Package repositories are asked by their indices. What could not be found out is shown as unknown.
    """
    from coppice.cli.build import definition_finder
    from coppice.workflows.staleness import Appraiser

    found: tuple[Appraisal, ...] = ()
    if names or context.existing_database() is not None:
        appraiser = Appraiser(
            settings=context.settings,
            database=context.database,
            clock=context.clock,
            monitor=context.monitor,
            find=definition_finder(context),
        )
        found = appraiser.appraise(names)
    errors = tuple({id(problem): problem for each in found for problem in each.errors}.values())
    return Result(
        command="appliance staleness",
        data=[describe_appraisal(each) for each in found],
        status=Status.PARTIAL if errors else Status.SUCCESS,
        errors=errors,
        messages=(f"{counted(len(found), 'appliance')} looked at",),
        show=lambda output: render_appraisals(output, found, context.clock.now()),
    )
