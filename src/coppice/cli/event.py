# SPDX-License-Identifier: Apache-2.0
"""``coppice event``: what happened, and who was told of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from coppice.cli.envelope import Result, plain
from coppice.cli.event_files import archive, import_directory
from coppice.cli.event_options import SinceParameter, filter_options, summary
from coppice.cli.event_tell import deliver, discard, follow, replay
from coppice.cli.output import counted, moment
from coppice.cli.words import examples, noun, pass_context
from coppice.errors import NotFoundError

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.events.model import Delivery

command = noun("event", "What happened, and who is told of it.")


@command.command(
    "list",
    epilog=examples(
        "coppice event list",
        "coppice event list --kind ImageCached --since 7d",
        "coppice event list --image 8a1f3c9e-0b52-4c58-9a53-0d7c1d1f6c11",
        "coppice event list --parked",
        "coppice event list --hook front-end --limit 10",
    ),
)
@filter_options
@click.option("--since", type=SinceParameter(), help="Only from then on: a date, an instant, or how long ago (2h, 7d).")
@click.option("--after", type=click.IntRange(min=0), metavar="NUMBER", help="The oldest ones after this event.")
@click.option("--hook", metavar="NAME", help="Only events that this hook was told of, or is to be told of.")
@click.option("--parked", is_flag=True, help="Only events that are parked: a hook did not take them.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="So many at most.")
@pass_context
def list_events(
    context: Context, /, *, after: int | None, hook: str | None, parked: bool, limit: int, **chosen: Any
) -> Result:
    """List events, the newest last."""
    from coppice.cli.event_options import chosen_hooks
    from coppice.events.deliveries import Deliveries
    from coppice.events.journal import EventFilter, Journal
    from coppice.events.message import event_document
    from coppice.events.model import DeliveryState

    if hook is not None:
        chosen_hooks(context, (hook,))
    matching = EventFilter(hook=hook, states=(DeliveryState.PARKED,) if parked else (), **chosen)
    journal = Journal(context.database)
    found = (
        journal.latest(limit, matching=matching)
        if after is None
        else journal.events(after=after, limit=limit, matching=matching)
    )
    told = Deliveries(context.database).states_of([event.number for event in found])
    data = [event_document(event) | {"deliveries": plain(told.get(event.number, {}))} for event in found]

    def render(output: Output) -> None:
        rows = [
            [
                event.number,
                event.at,
                event.kind,
                event.subject,
                ", ".join(f"{name} {state}" for name, state in told.get(event.number, {}).items()),
            ]
            for event in found
        ]
        output.table(["number", "at", "kind", "subject", "told"], rows)

    return Result(command="event list", data={"events": data}, messages=_counted(len(found), limit), show=render)


@command.command("show", epilog=examples("coppice event show 42", "coppice event show 42 --json"))
@click.argument("number", type=click.IntRange(min=1))
@pass_context
def show(context: Context, *, number: int) -> Result:
    """Show the event NUMBER in full, and what became of telling each hook of it."""
    from coppice.events.deliveries import Deliveries
    from coppice.events.journal import Journal
    from coppice.events.message import event_document

    event = Journal(context.database).event(number)
    if event is None:
        raise NotFoundError(
            f"there is no event {number}",
            resolution="`coppice event list` shows those that there are; old ones are removed after events.keep_days.",
        )
    deliveries = Deliveries(context.database).of_event(number)

    def render(output: Output) -> None:
        output.line(summary(event))
        for line in json.dumps(plain(dict(event.facts)), indent=2, ensure_ascii=True).splitlines():
            output.line(line)
        for each in deliveries:
            _show_delivery(output, each, context.clock.now())

    return Result(command="event show", data=event_document(event) | {"deliveries": plain(deliveries)}, show=render)


def _show_delivery(output: Output, delivery: Delivery, now: datetime) -> None:
    output.line()
    output.pairs(
        {
            "hook": delivery.hook,
            "state": delivery.state,
            "attempts": delivery.attempts,
            "replays": delivery.replays,
            "since": moment(delivery.changed_at, now),
            "due": None if delivery.due_at is None else moment(delivery.due_at, now),
            "error": delivery.error,
        }
    )
    for line in (delivery.output or "").splitlines():
        output.line(f"  | {line}")


@command.command("hooks", epilog=examples("coppice event hooks"))
@pass_context
def hooks(context: Context) -> Result:
    """List the hooks of the settings, how far each is, and what waits or is parked."""
    from coppice.events.deliveries import Deliveries

    settings = context.settings.hooks
    standings = Deliveries(context.database).standings(sorted(settings))
    data = [
        {
            "name": each.name,
            "kind": settings[each.name].kind,
            "compat": settings[each.name].compat,
            "events": settings[each.name].events,
            "subscriptions": settings[each.name].subscriptions,
            "told_since": each.met_at,
            "behind": each.behind,
            "waiting": each.waiting,
            "parked": each.parked,
        }
        for each in standings
    ]

    def render(output: Output) -> None:
        columns = ["name", "kind", "compat", "told_since", "behind", "waiting", "parked"]
        output.table([each.replace("_", " ") for each in columns], [[row[each] for each in columns] for row in data])

    parked = sum(each.parked for each in standings)
    messages = (
        [f"{counted(len(data), 'hook')}."] if data else ["No hooks: write a [hooks.NAME] table into the settings."]
    )
    if parked:
        messages.append(
            f"{parked} parked: `coppice event list --parked` shows them, `event replay --parked` tries again."
        )
    return Result(command="event hooks", data={"hooks": data}, messages=tuple(messages), show=render)


def _counted(found: int, limit: int) -> tuple[str, ...]:
    return (f"{counted(found, 'event')}{'; there may be more, see --limit' if found == limit else ''}.",)


for _part in (follow, deliver, replay, discard, archive, import_directory):
    command.add_command(_part)
