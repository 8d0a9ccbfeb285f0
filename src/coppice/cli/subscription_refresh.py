# SPDX-License-Identifier: Apache-2.0
"""``coppice subscription refresh | roll-forward | reset-version``: what changes which list is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.subscription_data import errors_by_name, warnings_as_data
from coppice.cli.words import examples, pass_context, verb
from coppice.errors import InputError, UsageError

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.workflows.refresh import ListOutcome

_MAX_REASON_LENGTH = 1000


@verb(
    "refresh",
    epilog=examples(
        "coppice subscription refresh",
        "coppice subscription refresh egi --json",
        "coppice subscription refresh egi --force",
        exits="0 all verified, 1 some were, otherwise the first failure's own (5 refused, 6 not to be had)",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--force", is_flag=True, help="Fetch and verify what did not change, too.")
@pass_context
def refresh(context: Context, names: tuple[str, ...], *, force: bool) -> Result:
    """Fetch and verify lists: those named, or all. A list that did not change is not read. No cloud is changed."""
    from coppice.subscription.store import SubscriptionStore
    from coppice.workflows.refresh import refresh as refresh_lists

    store = SubscriptionStore(context.database)
    chosen = tuple(store.get(name) for name in dict.fromkeys(names)) if names else store.all()
    report = refresh_lists(
        chosen,
        store=store,
        client=context.client(),
        clock=context.clock,
        settings=context.settings,
        monitor=context.monitor,
        with_contents=False,
        force=force,
    )
    context.tell_hooks()
    rows = [_row(each) for each in report.outcomes]
    fresh = any(each.fresh for each in report.outcomes)
    warnings = [f"{each.subscription.name}: {said.text}" for each in report.outcomes for said in each.warnings]

    def render(output: Output) -> None:
        columns = ("subscription", "state", "version", "images", "expires", "error")
        output.table(columns, [[row[column] for column in columns] for row in rows])

    return Result(
        command="subscription refresh",
        data={"lists": rows},
        status=Status.SUCCESS if not report.errors else Status.PARTIAL if fresh else Status.ERROR,
        messages=tuple(warnings) if rows else ("No subscriptions yet: `coppice subscription add` makes one.",),
        errors=errors_by_name(report.errors, report.outcomes),
        show=render,
    )


def _row(outcome: ListOutcome) -> dict[str, object]:
    known = outcome.in_force
    return {
        "subscription": outcome.subscription.name,
        "state": _state(outcome),
        "fresh": outcome.fresh,
        "unchanged": outcome.unchanged,
        "list_identifier": outcome.subscription.list_identifier,
        "version": None if known is None else known.version,
        "images": None if known is None else known.images,
        "expires": None if known is None else known.expires,
        "error": outcome.error.code if outcome.error else None,
        "warnings": warnings_as_data(outcome.warnings),
    }


def _state(outcome: ListOutcome) -> str:
    from coppice.errors import TrustError

    if outcome.error is not None:
        return "refused" if isinstance(outcome.error, TrustError) else "failed"
    if outcome.subscription.paused_at is not None:
        return "paused"
    return "unchanged" if outcome.unchanged else "fresh"


@verb(
    "roll-forward",
    epilog=examples(
        "coppice subscription roll-forward egi",
        "coppice subscription roll-forward egi --version 2026.11.22",
        exits="0 in force, 5 a rule fails today, 12 nothing to go on from",
    ),
)
@click.argument("name")
@click.option("--version", "version", metavar="VERSION", help="This archived version (default: the newest).")
@pass_context
def roll_forward(context: Context, name: str, *, version: str | None) -> Result:
    """Verify an archived list of NAME by today's rules, and put it in force; never behind what was verified before.

    For when the list in force was lost or put aside, and the source cannot be reached.
    """
    from coppice.subscription.store import SubscriptionStore
    from coppice.workflows.sources import judging_sources

    store = SubscriptionStore(context.database)
    verified = store.roll_forward(
        name,
        judging_sources(context.database, context.clock, context.settings.lists),
        context.clock.now(),
        version=version,
        limits=context.settings.lists,
        terms=context.settings.subscriptions,
    )
    content = verified.content
    data = {
        "subscription": name,
        "list_identifier": content.identifier,
        "version": content.version,
        "expires": content.validity.expires,
        "warnings": warnings_as_data(verified.warnings),
    }
    return Result(
        command="subscription roll-forward",
        data=data,
        messages=(
            f"Version {content.version} of the list of {name} is in force.",
            *(each.text for each in verified.warnings),
        ),
    )


@verb(
    "reset-version",
    epilog=examples(
        "coppice subscription reset-version egi --reason 'the key was stolen; a new endorser signs' --yes",
        exits="0 taken back, 2 not confirmed, 12 nothing was verified yet",
    ),
)
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept in the journal.")
@click.option("--list", "list_identifier", metavar="ID", help="Which list, when the subscription does not know yet.")
@click.option("--yes", is_flag=True, help="Confirm it.")
@pass_context
def reset_version(context: Context, name: str, *, reason: str, list_identifier: str | None, yes: bool) -> Result:
    """Forget which version of the list of NAME was verified last, and who vouched for it before: any may be the next.

    For when a version was signed that none can follow. Whoever could sign it still can, until the endorser is replaced.
    """
    from coppice.model.identifiers import ListIdentifier
    from coppice.subscription.store import SubscriptionStore

    if not reason.strip() or len(reason) > _MAX_REASON_LENGTH:
        raise InputError(f"a reason has 1 to {_MAX_REASON_LENGTH} characters")
    store = SubscriptionStore(context.database)
    subscription = store.get(name)
    if not yes:
        raise UsageError(
            f"this gives up the protection against older versions of the list of {name!r}, and needs --yes",
            resolution="First make sure, over a way that you trust, which version is the newest and who signs.",
        )
    identifier, before = store.reset_version(
        name,
        reason=reason.strip(),
        now=context.clock.now(),
        list_identifier=None if list_identifier is None else ListIdentifier(list_identifier),
    )
    return Result(
        command="subscription reset-version",
        data={"subscription": subscription.name, "list_identifier": identifier, "taken_back": before},
        messages=(
            f"Version {before} of the list {identifier} was taken back.",
            f"`coppice subscription refresh {name}` fetches and verifies the next.",
            "Until then, what is registered of it stays as it is.",
        ),
    )
