# SPDX-License-Identifier: Apache-2.0
"""``coppice event follow``, ``deliver``, ``replay`` and ``discard``: events on their way to those who are told."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.event_options import NumbersParameter, chosen_hooks, filter_options, hook_option, summary
from coppice.cli.output import counted
from coppice.cli.words import examples, pass_context, verb
from coppice.errors import NotFoundError, StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.events.model import Event
    from coppice.workflows.tell import TellReport

POLL_SECONDS = 1.0
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """An event, and a hook that is to be told of it again, or never."""

    event: int
    hook: str


@verb(
    "follow",
    epilog=examples(
        "coppice event follow",
        "coppice event follow --kind ImageCached --json",
        "coppice event follow --after 0 --count 10",
        exits="0 after Ctrl-C or --count events",
    ),
)
@filter_options
@click.option(
    "--after", type=click.IntRange(min=0), metavar="NUMBER", help="Begin after this event, not with new ones."
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many.")
@pass_context
def follow(context: Context, /, *, after: int | None, count: int | None, **chosen: Any) -> Result:
    """Print events as they come, until Ctrl-C; with --json one object a line."""
    from coppice.events.journal import EventFilter, Journal
    from coppice.events.message import event_document

    journal, matching = Journal(context.database), EventFilter(**chosen)
    number = journal.newest_number() if after is None else after
    printed = 0
    try:
        while True:
            # Whatever is written while this looks is newer than what it looks at, and is found the next time.
            newest = journal.newest_number()
            found = journal.events(after=number, limit=_PAGE, matching=matching)
            for event in found:
                text = json.dumps(event_document(event), ensure_ascii=True) if context.json else summary(event)
                context.output.line(text)
                number, printed = event.number, printed + 1
                if printed == count:
                    sys.stdout.flush()
                    raise click.exceptions.Exit(0)
            sys.stdout.flush()
            if len(found) < _PAGE:
                number = max(number, newest)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt as problem:
        if type(problem) is not KeyboardInterrupt:
            raise
        raise click.exceptions.Exit(0) from None


@verb(
    "deliver",
    epilog=examples(
        "coppice event deliver",
        "coppice event deliver --hook front-end",
        "coppice event deliver --dry-run",
        exits="0 all that was due is delivered, 1 some was not",
    ),
)
@hook_option
@click.option("--dry-run", is_flag=True, help="Show what waits; tell nobody.")
@pass_context
def deliver(context: Context, *, hooks: tuple[str, ...], dry_run: bool) -> Result:
    """Tell the hooks what is due: new events, and those that failed long enough ago."""
    from coppice.events.deliveries import Deliveries

    names = chosen_hooks(context, hooks)
    if dry_run:
        standings = Deliveries(context.database).standings(names)
        waiting = sum(each.waiting + each.behind for each in standings)
        return Result(
            command="event deliver",
            data={"dry_run": True, "hooks": standings},
            messages=(f"Up to {counted(waiting, 'delivery', 'deliveries')} to make.",),
            show=lambda output: output.table(
                ["hook", "new", "waiting", "parked"],
                [[each.name, each.behind, each.waiting, each.parked] for each in standings],
            ),
        )
    return _told(context, "event deliver", names, {"dry_run": False}, ())


@verb(
    "replay",
    epilog=examples(
        "coppice event replay --parked",
        "coppice event replay 42 --hook front-end",
        "coppice event replay 1-500 --hook new-one --dry-run",
        exits="0 delivered, 1 some were not, 12 there is no such event or hook",
    ),
)
@click.argument("numbers", nargs=-1, type=NumbersParameter())
@hook_option
@click.option("--parked", is_flag=True, help="Everything that is parked (of these numbers, where some are given).")
@click.option("--dry-run", is_flag=True, help="Show what would be told; tell nobody.")
@pass_context
def replay(
    context: Context, *, numbers: tuple[range, ...], hooks: tuple[str, ...], parked: bool, dry_run: bool
) -> Result:
    """Tell hooks of events once more: those of NUMBERS (12, or 12-40), or what is parked.

    Without --hook, each event is told to the hooks that were told of it before. With it, to those, even if they were
    not there yet when it happened.
    """
    from coppice.events.deliveries import Deliveries
    from coppice.events.journal import Journal

    names = chosen_hooks(context, hooks)
    targets = tuple(_parked(context, numbers, names) if parked else _named(context, numbers, hooks, names))
    data: dict[str, object] = {"dry_run": dry_run, "replayed": targets}
    message = f"{'Would try' if dry_run else 'Tried'} {counted(len(targets), 'delivery', 'deliveries')} again."
    if dry_run or not targets:
        return Result(
            command="event replay", data=data, messages=(message,), show=lambda output: _show_targets(output, targets)
        )
    deliveries, journal, now = Deliveries(context.database), Journal(context.database), context.clock.now()
    for target in targets:
        event = journal.event(target.event)
        if event is not None:
            deliveries.replay(target.hook, event, now)
    return _told(context, "event replay", tuple(sorted({each.hook for each in targets})), data, (message,))


@verb(
    "discard",
    epilog=examples(
        "coppice event discard 42 --hook front-end",
        "coppice event discard --parked --dry-run",
        exits="0 discarded, 12 there is no such event or hook, or it is not parked",
    ),
)
@click.argument("numbers", nargs=-1, type=NumbersParameter())
@hook_option
@click.option("--parked", is_flag=True, help="Everything that is parked.")
@click.option("--dry-run", is_flag=True, help="Show what would be given up.")
@pass_context
def discard(
    context: Context, *, numbers: tuple[range, ...], hooks: tuple[str, ...], parked: bool, dry_run: bool
) -> Result:
    """Give up parked events for good: those of NUMBERS, or all that are parked."""
    from coppice.events.deliveries import Deliveries

    _check_said(numbers, parked=parked)
    targets = tuple(_parked(context, numbers, chosen_hooks(context, hooks)))
    if numbers and not targets:
        raise StateError("nothing of that is parked", resolution="`coppice event list --parked` shows what is.")
    if not dry_run:
        deliveries = Deliveries(context.database)
        for target in targets:
            deliveries.discard(target.hook, target.event, context.clock.now())
    verb_word = "Would give up" if dry_run else "Gave up"
    return Result(
        command="event discard",
        data={"dry_run": dry_run, "discarded": targets},
        messages=(f"{verb_word} {counted(len(targets), 'delivery', 'deliveries')}.",),
        show=lambda output: _show_targets(output, targets),
    )


def _check_said(numbers: tuple[range, ...], *, parked: bool) -> None:
    if not numbers and not parked:
        raise UsageError("which events?", resolution="Give their numbers, or --parked.")


def _parked(context: Context, numbers: tuple[range, ...], names: tuple[str, ...]) -> Iterator[_Target]:
    from coppice.events.deliveries import Deliveries

    for each in Deliveries(context.database).parked():
        if each.hook in names and (not numbers or any(each.event in some for some in numbers)):
            yield _Target(event=each.event, hook=each.hook)


def _named(
    context: Context, numbers: tuple[range, ...], hooks: tuple[str, ...], names: tuple[str, ...]
) -> Iterator[_Target]:
    from coppice.events.deliveries import Deliveries

    _check_said(numbers, parked=False)
    events = [event for some in numbers for event in _events(context, some)]
    if not events:
        raise NotFoundError("there is no such event", resolution="`coppice event list` shows those that there are.")
    told = Deliveries(context.database).states_of([event.number for event in events])
    wanted = _wanted(context)
    targets = [
        _Target(event=event.number, hook=name)
        for event in events
        for name in names
        if (name in told.get(event.number, {}) or hooks) and wanted(name, event)
    ]
    if not targets:
        raise StateError(
            "no hook was told of it, or wants to be" if not hooks else "the hook is not told of events of that kind",
            resolution="Name a hook with --hook; `coppice event hooks` shows which events each is told of.",
        )
    yield from targets


def _events(context: Context, numbers: range) -> Iterator[Event]:
    from coppice.events.journal import Journal

    journal, after = Journal(context.database), numbers.start - 1
    while page := [each for each in journal.events(after=after, limit=_PAGE) if each.number in numbers]:
        yield from page
        after = page[-1].number


def _wanted(context: Context) -> Any:
    from coppice.events.hooks import wants
    from coppice.workflows.tell import followers

    settings = context.settings
    follow_lists = followers(settings, context.database)
    return lambda name, event: wants(settings.hooks[name], event, follow_lists)


def _told(
    context: Context, words: str, names: tuple[str, ...], data: dict[str, object], messages: tuple[str, ...]
) -> Result:
    from coppice.workflows.tell import TellReport, tell

    report = (
        tell(context.settings, context.database, context.clock, context.monitor, only=names) if names else TellReport()
    )
    return Result(
        command=words,
        data=data | {"hooks": [_hook_data(each) for each in report.hooks]},
        status=Status.PARTIAL if report.errors else Status.SUCCESS,
        errors=report.errors,
        messages=(*messages, *_notes(report)),
        show=lambda output: output.table(
            ["hook", "delivered", "waiting", "parked"],
            [[each.hook, each.delivered, each.waiting, each.parked] for each in report.hooks],
        ),
    )


def _hook_data(report: Any) -> dict[str, object]:
    return {
        "hook": report.hook,
        "delivered": report.delivered,
        "waiting": report.waiting,
        "parked": report.parked,
        "given_up": report.given_up,
        "busy": report.busy,
    }


def _notes(report: TellReport) -> tuple[str, ...]:
    if not report.hooks:
        return ("No hooks: write a [hooks.NAME] table into the settings.",)
    notes = [f"{each.hook} is being told by another run." for each in report.hooks if each.busy]
    parked = sum(each.parked for each in report.hooks)
    if parked:
        notes.append(f"{parked} parked: `coppice event list --parked` shows them.")
    return tuple(notes)


def _show_targets(output: Output, targets: tuple[_Target, ...]) -> None:
    output.table(["event", "hook"], [[each.event, each.hook] for each in targets])
