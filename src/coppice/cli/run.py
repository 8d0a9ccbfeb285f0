# SPDX-License-Identifier: Apache-2.0
"""How a run of sync, plan or retire is shown: plans like a diff, results action by action, as data and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cli.cache_run import cache_data, describe_outcome
from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted
from coppice.cli.subscription_data import errors_by_name
from coppice.cloud.model import ImageState
from coppice.cloud.plan_data import action_as_dict, name_of, plan_as_dict
from coppice.cloud.steps import ActionKind

if TYPE_CHECKING:
    from coppice.cli.output import Output
    from coppice.cloud.steps import Action, ActionResult, Plan
    from coppice.workflows.converge import CloudReport, SyncReport

_SIGNS = {
    ActionKind.REGISTER: "+",
    ActionKind.UPDATE_METADATA: "~",
    ActionKind.CHANGE_STATE: "~",
    ActionKind.REMOVE: "-",
}
_STATES = {
    ImageState.AVAILABLE: "make available",
    ImageState.SUPERSEDED: "supersede",
    ImageState.EXPIRED: "expire",
    ImageState.WITHDRAWN: "withdraw",
    ImageState.STAGED: "stage",
    ImageState.REVOKED: "revoke",
}


def run_result(command: str, report: SyncReport, *, dry_run: bool, **more: object) -> Result:
    """Return the result of a run: partial when some items failed, error when everything did.

    Args:
        command: Its words.
        report: What became of the run.
        dry_run: Whether nothing was to be changed.
        more: Further data of the command.
    """
    errors = report.errors
    done = sum(map(_done, report.clouds))
    fresh = sum(outcome.fresh for outcome in report.refreshed.outcomes) if report.refreshed else 0
    lost = bool(report.clouds) and all(each.error is not None for each in report.clouds)
    status = Status.SUCCESS if not errors else Status.PARTIAL if (done or fresh) and not lost else Status.ERROR

    def render(output: Output) -> None:
        for image in report.cache.images if report.cache else ():
            output.line(describe_outcome(image))
        for cloud in report.clouds:
            _show_cloud(output, cloud)

    return Result(
        command=command,
        data={**_as_data(report, dry_run=dry_run), **more},
        status=status,
        messages=_summary(report, done, dry_run=dry_run),
        errors=errors_by_name(errors, report.refreshed.outcomes) if report.refreshed else errors,
        show=render,
        # Where everything failed, and alike, the code says how.
        exit_code=None if len({each.exit_code for each in errors}) == 1 else 1 if errors else 0,
    )


def show_plan(output: Output, plan: Plan) -> None:
    """Print a plan like a diff."""
    output.heading(f"{plan.cloud}: {len(plan.actions)} to do, {len(plan.held)} held, {plan.unchanged} unchanged")
    for action in plan.actions:
        output.line(f"{_SIGNS[action.kind]} {describe_action(action)}")
    for held in plan.held:
        what = describe_action(held.action) if held.action is not None else f"list {held.list_identifier}"
        output.line(f"! held: {what}")
    for error in plan.refused:
        output.line(f"! refused: {error.message}")


def describe_action(action: Action) -> str:
    """Return one action in words."""
    is_stated = action.kind is ActionKind.CHANGE_STATE or action.state is ImageState.STAGED
    what = _STATES[action.state] if is_stated and action.state is not None else str(action.kind)
    name = name_of(action) or str(action.key)
    return f"{what.replace('-', ' ')} {name}, version {action.version} ({action.reason})"


def _show_cloud(output: Output, cloud: CloudReport) -> None:
    if cloud.plan is None:
        output.heading(f"{cloud.cloud}: {f'failed [{cloud.error.code}]' if cloud.error is not None else 'not known'}")
        return
    if cloud.applied is None:
        show_plan(output, cloud.plan)
        return
    done, results = _done(cloud), cloud.applied.results
    failed = f"{len(results) - done} failed or not tried, " if done < len(results) else ""
    kept = f"{len(cloud.plan.held)} held, {cloud.plan.unchanged} unchanged"
    output.heading(f"{cloud.cloud}: {done} done, {failed}{kept}")
    for result in cloud.applied.results:
        output.line(f"{_SIGNS[result.action.kind]} {describe_action(result.action)}: {_became(result)}")
    for held in cloud.plan.held:
        output.line(f"! held: {describe_action(held.action) if held.action else f'list {held.list_identifier}'}")
    for error in cloud.plan.refused:
        output.line(f"! refused: {error.message}")


def _became(result: ActionResult) -> str:
    if result.skipped:
        return f"not tried{f': {result.error.message}' if result.error else ''}"
    if result.taken_back:
        return "done and taken back: another image of its set failed"
    return f"failed [{result.error.code}]" if result.error is not None else f"done in {result.seconds:.1f} s"


def _done(cloud: CloudReport) -> int:
    results = cloud.applied.results if cloud.applied else ()
    return sum(result.error is None and not result.skipped and not result.taken_back for result in results)


def _summary(report: SyncReport, done: int, *, dry_run: bool) -> tuple[str, ...]:
    if dry_run:
        planned = sum(len(cloud.plan.actions) for cloud in report.clouds if cloud.plan)
        return (
            *_warnings(report),
            f"Dry run: {counted(planned, 'action')} planned, nothing changed.",
        )
    return (
        *_warnings(report),
        f"{counted(done, 'action')} done in {counted(sum(each.error is None for each in report.clouds), 'cloud')}.",
    )


def _warnings(report: SyncReport) -> tuple[str, ...]:
    outcomes = report.refreshed.outcomes if report.refreshed else ()
    return tuple(f"{each.subscription.name}: {said.text}" for each in outcomes for said in each.warnings)


def _as_data(report: SyncReport, *, dry_run: bool) -> dict[str, object]:
    lists = [
        {
            "subscription": outcome.subscription.name,
            "fresh": outcome.fresh,
            "list": outcome.verified.content.identifier if outcome.verified else None,
            "version": outcome.verified.content.version if outcome.verified else None,
            "error": outcome.error.as_dict() if outcome.error else None,
            "warnings": [{"kind": str(said.kind), "text": said.text} for said in outcome.warnings],
        }
        for outcome in (report.refreshed.outcomes if report.refreshed else ())
    ]
    cache = None if report.cache is None else cache_data(report.cache, dry_run=dry_run)
    clouds = [_cloud_data(cloud) for cloud in report.clouds]
    return {"dry_run": dry_run, "lists": lists, "clouds": clouds, "cache": cache}


def _cloud_data(cloud: CloudReport) -> dict[str, object]:
    return {
        "cloud": cloud.cloud,
        "plan": plan_as_dict(cloud.plan) if cloud.plan else None,
        "results": [
            {
                **action_as_dict(result.action),
                "done": result.error is None and not result.skipped and not result.taken_back,
                "skipped": result.skipped,
                "taken_back": result.taken_back,
                "error": result.error.as_dict() if result.error else None,
                "seconds": round(result.seconds, 3),
            }
            for result in (cloud.applied.results if cloud.applied else ())
        ],
        "error": cloud.error.as_dict() if cloud.error else None,
    }
