# SPDX-License-Identifier: Apache-2.0
"""``coppice rebuild``: build anew what is stale, test it, publish it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted
from coppice.cli.staleness_text import describe_appraisal, render_appraisals, render_reasons
from coppice.cli.words import examples, pass_context, verb
from coppice.errors import UsageError

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.execution.model import Ended
    from coppice.workflows.rebuild import RebuildReport, Rebuilt
    from coppice.workflows.rebuild_publish import PublishedRebuilds


@verb(
    "rebuild",
    epilog=examples(
        "coppice rebuild --dry-run",
        "coppice rebuild",
        "coppice rebuild web-server --now",
        "coppice rebuild --no-publish",
        "coppice rebuild --on cluster",
        exits="0 all done, or nothing to do; 1 some of it failed, or could not be found out; "
        "4 the cluster is not there; 11 every build failed; 12 no such appliance; 75 another run rebuilds",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--dry-run", is_flag=True, help="Show what would be built anew, and why; build nothing.")
@click.option(
    "--now",
    "at_once_now",
    is_flag=True,
    help="Build the named appliances that are stale now: intervals, failed tries and a policy that is switched off do "
    "not count.",
)
@click.option("--publish/--no-publish", default=True, help="Publish the lists that carry what was built.")
@click.option(
    "--at-once",
    type=click.IntRange(min=1, max=64),
    metavar="N",
    help="Most builds at a time (default: `factory.builds_at_once`; on a cluster, as many as its workers declare).",
)
@click.option(
    "--on",
    type=click.Choice(["here", "cluster"]),
    help="Where: in this process, or on the workers of the Dask cluster of `[cluster]` (default: `factory.builds_on`).",
)
@pass_context
def command(
    context: Context,
    names: tuple[str, ...],
    *,
    dry_run: bool,
    at_once_now: bool,
    publish: bool,
    at_once: int | None,
    on: str | None,
) -> Result:
    """Build anew the appliances that are stale, all or those that are named, as their definitions say.

    Security updates do not wait; other changes do until the definition's interval is over. Parents are built before
    their children. What is built passes its gates before it comes into the catalogue, and the lists that carry it are
    published. What fails stays as it was, and is tried again later. With --on cluster, each is built and booted by a
    worker that declares what it needs; all else is done here.
    """
    from coppice.cli.board import shown_board
    from coppice.cli.build import definition_finder
    from coppice.cli.passphrase import asker
    from coppice.workflows.cluster_build import check_place, opened_place
    from coppice.workflows.rebuild import RebuildReport, rebuild

    if at_once_now and not names:
        raise UsageError(
            "--now is for appliances that are named", resolution="Name them: `coppice rebuild NAME --now`."
        )
    settings, place = context.settings, on or context.settings.factory.builds_on
    check_place(place, settings)
    if context.existing_database() is None and not names:
        return _result(context, RebuildReport(appraisals=()), dry_run=dry_run)
    report = rebuild(
        names,
        settings=settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        find=definition_finder(context),
        waits=not at_once_now,
        publish=publish,
        dry_run=dry_run,
        at_once=at_once,
        ask=asker(),
        place=opened_place(place, settings=settings, clock=context.clock),
        board=shown_board(sys.stderr, context.monitor, silent=context.json or context.quiet, color=context.color),
    )
    if not dry_run:
        context.tell_hooks()
    return _result(context, report, dry_run=dry_run)


def _result(context: Context, report: RebuildReport, *, dry_run: bool) -> Result:
    errors, done = report.errors, [each for each in report.ended if each.is_done]
    lost = not done and (bool(report.ended) or report.unreached is not None)
    data = {
        "dry_run": dry_run,
        "appliances": [describe_appraisal(each) for each in report.appraisals],
        "rebuilt": [_ended_data(each) for each in report.ended],
        "published": None if report.published is None else _published_data(report.published),
    }

    def render(output: Output) -> None:
        render_appraisals(output, report.appraisals, context.clock.now())
        if dry_run:
            render_reasons(output, report.appraisals)
        for each in report.ended:
            output.line(f"{each.name}: {_became(each)}")
        for published in report.published.lists if report.published is not None else ():
            output.line(f"published {published.selection.name}, version {published.signed.content.version}")

    return Result(
        command="rebuild",
        data=data,
        status=Status.SUCCESS if not errors else Status.ERROR if lost else Status.PARTIAL,
        errors=errors,
        messages=_messages(report, len(done), dry_run=dry_run),
        show=render,
    )


def _messages(report: RebuildReport, done: int, *, dry_run: bool) -> tuple[str, ...]:
    held = report.published.held if report.published is not None else ()
    if dry_run:
        wanted = sum(each.decision.choice == "rebuild" for each in report.appraisals)
        return (f"Dry run: {counted(wanted, 'appliance')} of {len(report.appraisals)} would be built anew.",)
    return (*held, f"{counted(done, 'appliance')} of {len(report.appraisals)} built anew")


def _became(ended: Ended[Rebuilt]) -> str:
    if ended.kept_by is not None:
        return f"not built, since {ended.kept_by} failed"
    if ended.result is None:
        return "failed; the version that is published stays"
    before, now = ended.result.before.version, ended.result.version.version
    return f"{before} → {now}" if ended.result.is_new else f"{now} came out as it was"


def _ended_data(ended: Ended[Rebuilt]) -> dict[str, object]:
    result = ended.result
    return {
        "appliance": ended.name,
        "done": ended.is_done,
        "before": None if result is None else result.before.version,
        "version": None if result is None else result.version.version,
        "is_new": None if result is None else result.is_new,
        "packages": None if result is None else result.packages,
        "error": None if ended.error is None else ended.error.as_dict(),
        "kept_by": ended.kept_by,
    }


def _published_data(published: PublishedRebuilds) -> dict[str, object]:
    return {
        "lists": [
            {
                "list": each.selection.name,
                "version": each.signed.content.version,
                "uri": each.publication.list_uri,
                "bytes_written": each.publication.bytes_written,
            }
            for each in published.lists
        ],
        "releases": published.releases,
        "held": published.held,
        "deleted": [f"{each.name} {each.version}" for each in published.deleted],
    }
