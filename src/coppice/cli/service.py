# SPDX-License-Identifier: Apache-2.0
"""``coppice run``: the service that does everything by itself, or all of it once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted, moment
from coppice.cli.words import examples, pass_context, verb
from coppice.errors import JobFailedError, LockedError, UsageError

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.errors import CoppiceError
    from coppice.schedule.runs import Finished
    from coppice.schedule.work import Command
    from coppice.settings.model import Settings


@verb(
    "run",
    epilog=examples(
        "coppice --log-format json run",
        "coppice run --dry-run",
        "coppice run --once",
        "coppice run --once --job sync --job retire",
        exits="0 stopped when asked to, or all done; 1 some of it failed; 75 another service is at work",
    ),
)
@click.option("--once", is_flag=True, help="Run every job once, one after the other, and end.")
@click.option("--job", "only", multiple=True, metavar="NAME", help="With --once: only this job (may be repeated).")
@click.option("--dry-run", is_flag=True, help="Show which job would run when; run none.")
@pass_context
def command(context: Context, *, once: bool, only: tuple[str, ...], dry_run: bool) -> Result:
    """Refresh, sync, retire and prune, each at its interval, until told to stop.

    Each job is a process of its own, so that none of them takes the service along. SIGHUP reads the settings anew,
    SIGTERM and Ctrl-C stop it. Metrics and health are told at `service.listen`.
    """
    settings = context.settings
    _check(settings, only, once=once)
    if dry_run:
        return _plan(context, only)
    return _once(context, only) if once else _serve(context)


def _check(settings: Settings, only: tuple[str, ...], *, once: bool) -> None:
    from coppice.schedule.service import job_names

    if only and not once:
        raise UsageError("--job is for --once", resolution="The service runs every job; `service` sets how often.")
    unknown = sorted(set(only) - set(job_names(settings)))
    if unknown:
        raise UsageError(
            f"there is no job {', '.join(unknown)}", resolution=f"Jobs here: {', '.join(job_names(settings))}."
        )


def _plan(context: Context, only: tuple[str, ...]) -> Result:
    from coppice.schedule.service import next_runs

    now = context.clock.now()
    planned = next_runs(context.settings, context.existing_database(), context.clock)
    found = [each for each in planned if not only or each.job.name in only]
    at = {
        each.job.name: None if each.delay_seconds is None else now + timedelta(seconds=each.delay_seconds)
        for each in found
    }

    def render(output: Output) -> None:
        rows = [
            [
                each.job.name,
                " ".join(("coppice", *each.job.words)),
                "when a hook is due" if each.delay_seconds is None else moment(at[each.job.name], now),
                each.record.outcome if each.record else None,
            ]
            for each in found
        ]
        output.table(["job", "command", "next", "last"], rows)

    return Result(
        command="run",
        data={
            "dry_run": True,
            "jobs": [
                {
                    "job": each.job.name,
                    "command": ["coppice", *each.job.words],
                    "interval_seconds": each.job.interval_seconds,
                    "next_at": at[each.job.name],
                    "last": each.record,
                }
                for each in found
            ],
        },
        messages=(f"Dry run: {counted(len(found), 'job')}, none started.",),
        show=render,
    )


def _serve(context: Context) -> Result:
    from coppice.log import configure, get_logger
    from coppice.schedule.service import serve
    from coppice.settings.load import load_settings

    log_format = _log_format()
    if not (context.quiet or context.verbose):
        # Whoever runs a service wants to see what it does: its log is its only face.
        configure("INFO", log_format)
    log = get_logger("schedule")
    serve(
        settings=context.settings,
        read_settings=lambda: load_settings(config=context.config, environ=context.environ, options={}),
        database=context.database,
        clock=context.clock,
        command=_command(context, log_format),
        environ=context.environ,
        on_listen=lambda port: log.info("listening", extra={"fields": {"port": port}}),
    )
    return Result(command="run", data={"dry_run": False, "once": False})


def _once(context: Context, only: tuple[str, ...]) -> Result:
    from coppice.schedule.service import run_once

    done = run_once(
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        command=_command(context, _log_format()),
        environ=context.environ,
        only=only,
    )
    errors = tuple(_error(each) for each in done if _failed(each))
    partial = any(each.ended.outcome == "partial" for each in done)
    well = len(done) - len(errors)
    status = Status.SUCCESS if not errors and not partial else Status.PARTIAL if well else Status.ERROR
    rows = [
        {
            "job": each.job.name,
            "outcome": str(each.ended.outcome),
            "exit_code": each.ended.exit_code,
            "seconds": round(each.seconds, 3),
            "error": each.ended.error,
        }
        for each in done
    ]

    def render(output: Output) -> None:
        output.table(
            ["job", "outcome", "exit code", "seconds", "error"],
            [[each["job"], each["outcome"], each["exit_code"], each["seconds"], each["error"]] for each in rows],
        )

    return Result(
        command="run",
        data={"dry_run": False, "once": True, "jobs": rows},
        status=status,
        errors=errors,
        show=render,
        exit_code=errors[0].exit_code if len(errors) == 1 == len(done) else None if status is Status.SUCCESS else 1,
    )


def _failed(finished: Finished) -> bool:
    return finished.ended.outcome in {"failed", "busy"}


def _error(finished: Finished) -> CoppiceError:
    ended = finished.ended
    said = f"the job {finished.job.name} failed: {ended.error or f'it ended with status {ended.exit_code}'}"
    context = {"job": finished.job.name, "exit_code": ended.exit_code, "code": ended.error_code}
    if ended.outcome == "busy":
        return LockedError(said, resolution="Run again when the other run has ended.", context=context)
    words = " ".join(finished.job.words)
    return JobFailedError(said, resolution=f"`coppice {words}` shows all that it has to say.", context=context)


def _command(context: Context, log_format: str) -> Command:
    from coppice.schedule.work import Command

    return Command(config=context.config, log_format=log_format, verbose=context.verbose, quiet=context.quiet)


def _log_format() -> str:
    return str(click.get_current_context().find_root().params["log_format"])
