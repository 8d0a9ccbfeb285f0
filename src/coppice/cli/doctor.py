# SPDX-License-Identifier: Apache-2.0
"""``coppice doctor``: what this machine has, what it lacks, what each is needed for and how to get it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.words import examples, pass_context, verb
from coppice.errors import MachineError

if TYPE_CHECKING:
    from coppice.cli.checks import Check
    from coppice.cli.context import Context
    from coppice.cli.output import Output


@verb(
    "doctor",
    epilog=examples(
        "coppice doctor",
        "coppice doctor --role site",
        "coppice doctor --json",
        exits="0 usable, 4 something that is needed is missing",
    ),
)
@click.option(
    "--role",
    type=click.Choice(["all", "site"]),
    default="all",
    show_default=True,
    help="What this machine is for: a site builds nothing.",
)
@pass_context
def command(context: Context, role: str) -> Result:
    """Look at tools, rights, space, clock, database and clouds; change nothing."""
    from coppice.cli.checks import Role, Verdict, all_checks

    checks = all_checks(context, Role(role))
    missing = [check for check in checks if check.verdict is Verdict.MISSING]

    def render(output: Output) -> None:
        output.table(
            ["check", "", "verdict", "needed for", "found"],
            [[each.kind, each.name, each.verdict, each.needed_for, _found(each)] for each in checks],
        )

    return Result(
        command="doctor",
        data={"usable": not missing, "checks": [_as_dict(check) for check in checks]},
        status=Status.ERROR if missing else Status.SUCCESS,
        errors=tuple(each.error or _lacking(each) for each in missing),
        messages=() if missing else ("All that is needed is there.",),
        show=render,
        exit_code=MachineError.exit_code if missing else 0,
    )


def _found(check: Check) -> str | None:
    if check.found is None and check.remedy is not None:
        return f"not there; {check.remedy}"
    return check.found


def _as_dict(check: Check) -> dict[str, object]:
    return {field.name: getattr(check, field.name) for field in dataclasses.fields(check) if field.name != "error"}


def _lacking(check: Check) -> MachineError:
    return MachineError(
        f"{check.name}: not usable; it is needed for {check.needed_for}",
        resolution=check.remedy,
        context={"check": check.name},
    )
