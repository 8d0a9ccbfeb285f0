# SPDX-License-Identifier: Apache-2.0
"""``coppice cloud adopt | tidy``: take over what another program registered; clear what registrations left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted
from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.cloud.adoption_plan import Candidate
    from coppice.errors import CoppiceError
    from coppice.workflows.adopt import AdoptionReport
    from coppice.workflows.tidy import TidyReport

_WAIT = click.option(
    "--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for another run to end."
)


@verb(
    "adopt",
    epilog=examples(
        "coppice cloud adopt main --dry-run",
        "coppice cloud adopt main",
        "coppice cloud adopt one --trust-markers --dry-run",
        exits="0 done, 1 some could not be taken over, 8 the cloud cannot be asked, 75 another run is at work",
    ),
)
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only show what would be taken over.")
@click.option(
    "--trust-markers",
    is_flag=True,
    help="Also take what no checksum proves, on the word of the program that registered it.",
)
@_WAIT
@pass_context
def adopt(context: Context, name: str, *, dry_run: bool, trust_markers: bool, wait: float) -> Result:
    """Take over images that NIFTY, cloudkeeper, atrope or a handler of vmcatcher registered.

    An image is taken when the cloud's own checksum shows that it is what a subscribed list names. Nothing is uploaded.
    Lists are those that were verified last: refresh them first.
    """
    from coppice.cli.clouds import open_clouds
    from coppice.workflows.adopt import adopt as take_over

    cloud = open_clouds(context, (name,))[name]
    report = take_over(
        cloud,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        trust_markers=trust_markers,
        dry_run=dry_run,
        wait_seconds=wait,
    )
    if not dry_run:
        context.tell_hooks()
    rows = _adoption_rows(report)

    def render(output: Output) -> None:
        columns = ("identifier", "name", "program", "image", "version", "proof", "outcome", "reason")
        output.table(list(columns), [[row[column] for column in columns] for row in rows])

    errors: tuple[CoppiceError, ...] = (*report.errors, *report.unknown)
    return Result(
        command="cloud adopt",
        data={"cloud": name, "dry_run": dry_run, "trust_markers": trust_markers, "images": rows},
        status=_status(errors, done=len(rows) > 0 and len(report.errors) < max(1, len(report.results))),
        messages=_adoption_messages(report, dry_run=dry_run),
        errors=errors,
        show=render if rows else None,
    )


@verb(
    "tidy",
    epilog=examples(
        "coppice cloud tidy main --dry-run",
        "coppice cloud tidy main --json",
        exits="0 done, 1 some could not be cleared, 8 the cloud cannot be asked, 75 another run is at work",
    ),
)
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only show what is left behind.")
@_WAIT
@pass_context
def tidy(context: Context, name: str, *, dry_run: bool, wait: float) -> Result:
    """Clear what failed registrations left behind: files without an image, images that never became whole."""
    from coppice.cli.clouds import open_clouds
    from coppice.workflows.tidy import tidy as clear

    cloud = open_clouds(context, (name,))[name]
    report = clear(
        cloud,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        dry_run=dry_run,
        wait_seconds=wait,
    )
    if not dry_run:
        context.tell_hooks()
    rows = _tidy_rows(report)

    def render(output: Output) -> None:
        output.table(
            ["identifier", "what", "outcome"], [[row["identifier"], row["what"], row["outcome"]] for row in rows]
        )

    return Result(
        command="cloud tidy",
        data={"cloud": name, "dry_run": dry_run, "able": report.able, "leftovers": rows},
        status=_status(report.errors, done=len(report.errors) < len(report.results)),
        messages=_tidy_messages(report, dry_run=dry_run),
        errors=report.errors,
        show=render if rows else None,
    )


def _status(errors: tuple[CoppiceError, ...], *, done: bool) -> Status:
    return Status.SUCCESS if not errors else Status.PARTIAL if done else Status.ERROR


def _adoption_rows(report: AdoptionReport) -> list[dict[str, object]]:
    became = {each.candidate.foreign.cloud_identifier: each for each in report.results}
    rows: list[dict[str, object]] = []
    for each in report.candidates:
        result = became.get(each.foreign.cloud_identifier)
        rows.append(
            {
                "identifier": each.foreign.cloud_identifier,
                "name": each.foreign.name,
                "program": str(each.claim.program),
                "list": None if each.desired is None else each.desired.key.list_identifier,
                "image": None if each.desired is None else each.desired.key.image_identifier,
                "title": None if each.desired is None else each.desired.listed.title,
                "version": each.version,
                "digest": None if each.digest is None else str(each.digest),
                "proof": str(each.proof),
                "verdict": str(each.verdict),
                "outcome": _outcome(each, failed=result is not None and result.error is not None, tried=bool(result)),
                "reason": result.error.message if result is not None and result.error is not None else each.reason,
            }
        )
    return rows


def _outcome(candidate: Candidate, *, failed: bool, tried: bool) -> str:
    if tried:
        return "failed" if failed else "taken"
    return {"take": "would be taken", "unproven": "not proven", "leave": "left"}[str(candidate.verdict)]


def _adoption_messages(report: AdoptionReport, *, dry_run: bool) -> tuple[str, ...]:
    if not report.candidates:
        return (f"In cloud {report.cloud}, there are no images of programs that are known.",)
    taken = sum(1 for each in report.results if each.registered is not None)
    would = sum(1 for each in report.candidates if str(each.verdict) == "take")
    said = [
        f"Dry run: {counted(would, 'image')} would be taken over, nothing changed."
        if dry_run
        else f"{counted(taken, 'image')} taken over."
    ]
    if report.unproven:
        said.append(
            f"{counted(report.unproven, 'image')} not proven: with --trust-markers, what the other program wrote is "
            "believed."
        )
    return tuple(said)


def _tidy_rows(report: TidyReport) -> list[dict[str, object]]:
    became = {each.leftover.identifier: each for each in report.results}
    rows: list[dict[str, object]] = []
    for each in report.leftovers:
        result = became.get(each.identifier)
        outcome = "to be cleared by hand" if not each.can_be_cleared else "would be cleared"
        if result is not None:
            outcome = "cleared" if result.error is None else f"failed [{result.error.code}]"
        rows.append(
            {
                "identifier": each.identifier,
                "what": each.what,
                "can_be_cleared": each.can_be_cleared,
                "outcome": outcome,
            }
        )
    return rows


def _tidy_messages(report: TidyReport, *, dry_run: bool) -> tuple[str, ...]:
    if not report.able:
        return (f"The driver of cloud {report.cloud} finds nothing that registrations leave behind.",)
    if not report.leftovers:
        return (f"In cloud {report.cloud}, nothing is left behind.",)
    by_hand = len(report.by_hand)
    said = [] if not by_hand else [f"{counted(by_hand, 'thing')} must be cleared by hand; each says where it is."]
    if dry_run:
        said.append("Dry run: nothing changed.")
    return tuple(said)
