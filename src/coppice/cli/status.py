# SPDX-License-Identifier: Apache-2.0
"""``coppice status``: what is set up here, and how fresh it is. Unless it is told to, it asks no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted, moment
from coppice.cli.status_clouds import appliances_as_data, cloud_messages, clouds_as_data, show_clouds
from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.database import Database
    from coppice.workflows.site_outlook import SiteOutlook


@verb("status", epilog=examples("coppice status", "coppice status --ask", "coppice --json status"))
@click.option("--ask", is_flag=True, help="Ask every cloud now what it has; otherwise no server is asked anything.")
@pass_context
def command(context: Context, *, ask: bool) -> Result:
    """Show subscriptions and how fresh their lists are, and how each appliance stands in each cloud.

    Of the clouds, it is shown what they were seen to have by the last run.
    """
    settings = context.settings
    database = context.existing_database()
    now = context.clock.now()
    subscriptions = [] if database is None else _subscriptions(context, database)
    appliances, lists = (0, 0) if database is None else _catalogue(database)
    found = _outlook(context, database, ask=ask)
    data = {
        "state_directory": settings.state_directory,
        "set_up": database is not None,
        "subscriptions": subscriptions,
        "clouds": clouds_as_data(settings, found),
        "appliances": appliances_as_data(found, now),
        "catalogue": {"appliances": appliances, "image_lists": lists},
        "hooks": [] if database is None else _hooks(context, database),
    }

    def render(output: Output) -> None:
        output.pairs(
            {
                "state directory": settings.state_directory,
                "database": "opens" if database is not None else "none yet",
                "appliances": appliances,
                "image lists": lists,
            }
        )
        _show_subscriptions(output, subscriptions, now)
        show_clouds(output, settings, found, now)

    unanswered = () if found is None else found.unanswered
    return Result(
        command="status",
        data=data,
        status=Status.PARTIAL if unanswered else Status.SUCCESS,
        messages=(
            *_warnings(subscriptions),
            *cloud_messages(found),
            *_parked(data),
            *_next_steps(subscriptions, settings.clouds),
        ),
        errors=unanswered,
        show=render,
    )


def _show_subscriptions(output: Output, subscriptions: list[dict[str, object]], now: datetime) -> None:
    if not subscriptions:
        return
    output.line()
    rows = [
        [
            each["name"],
            each["state"],
            each["version"],
            moment(each["checked_at"], now),  # type: ignore[arg-type]
            moment(each["expires"], now),  # type: ignore[arg-type]
            each["last_error_code"],
        ]
        for each in subscriptions
    ]
    output.table(["subscription", "state", "version", "confirmed", "expires", "last error"], rows)


def _outlook(context: Context, database: Database | None, *, ask: bool) -> SiteOutlook | None:
    if not context.settings.clouds or (database is None and not ask):
        return None
    from coppice.workflows.site_outlook import site_outlook

    asked = None
    if ask:
        from coppice.cli.clouds import open_clouds

        asked = open_clouds(context)
    return site_outlook(
        settings=context.settings, database=database or context.database, clock=context.clock, ask=asked
    )


def _subscriptions(context: Context, database: Database) -> list[dict[str, object]]:
    from coppice.cli.subscription_data import overview_as_dict
    from coppice.subscription.overview import overview

    found = overview(database, context.clock.now(), warn_list_days=context.settings.subscriptions.warn_list_days)
    return [overview_as_dict(each) for each in found]


def _catalogue(database: Database) -> tuple[int, int]:
    from coppice.catalogue.catalogue import Catalogue
    from coppice.catalogue.selections import Selections

    return len(Catalogue(database).appliances()), len(Selections(database).all())


def _hooks(context: Context, database: Database) -> list[dict[str, object]]:
    if not context.settings.hooks:
        return []
    from coppice.events.deliveries import Deliveries

    standings = Deliveries(database).standings(sorted(context.settings.hooks))
    return [{"name": each.name, "waiting": each.waiting + each.behind, "parked": each.parked} for each in standings]


def _parked(data: dict[str, object]) -> tuple[str, ...]:
    hooks = data["hooks"]
    return tuple(
        f"{each['name']}: {counted(each['parked'], 'event')} parked; `coppice event list --parked` shows them."
        for each in (hooks if isinstance(hooks, list) else [])
        if each["parked"]
    )


def _warnings(subscriptions: list[dict[str, object]]) -> tuple[str, ...]:
    return tuple(f"{each['name']}: {said['text']}" for each in subscriptions for said in each["warnings"])  # type: ignore[attr-defined]


def _next_steps(subscriptions: list[dict[str, object]], clouds: Mapping[str, object]) -> tuple[str, ...]:
    steps = []
    if not subscriptions:
        steps.append("No subscriptions yet: `coppice subscription add --help` shows how to follow an image list.")
    if not clouds:
        steps.append("No clouds yet: write a [clouds.NAME] table into a file that `coppice config path` shows.")
    return tuple(steps)
