# SPDX-License-Identifier: Apache-2.0
"""``coppice subscription endorser``: whom a subscription trusts to sign its list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from coppice.cli.envelope import Result
from coppice.cli.subscription_data import change_messages, endorser_as_dict
from coppice.cli.subscription_options import endorser_options, endorsers_of
from coppice.cli.words import examples, noun, pass_context
from coppice.errors import NotFoundError, StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.subscription.model import PinnedEndorser, Subscription

command = noun("endorser", "Whom a subscription trusts to sign its list.")


@command.command(
    "add",
    epilog=examples(
        "coppice subscription endorser add egi --endorser-certificate john.pem",
        "coppice subscription endorser add egi --endorser-dn '/DC=org/CN=John' --endorser-ca '/DC=org/CN=CA'",
    ),
)
@click.argument("name")
@endorser_options
@pass_context
def add(context: Context, /, name: str, **given: Any) -> Result:
    """Trust another endorser for the list of NAME; any one of them may sign."""
    new = _named(given)

    def change(before: tuple[PinnedEndorser, ...]) -> tuple[PinnedEndorser, ...]:
        return tuple(dict.fromkeys((*before, *new)))

    return _changed(context, "subscription endorser add", name, change)


@command.command("list", epilog=examples("coppice subscription endorser list egi"))
@click.argument("name")
@pass_context
def list_endorsers(context: Context, name: str) -> Result:
    """List whom the subscription NAME trusts."""
    from coppice.subscription.store import SubscriptionStore

    subscription = SubscriptionStore(context.database).get(name)
    return Result(
        command="subscription endorser list",
        data=_data(subscription),
        messages=() if subscription.trust.endorsers else ("Nobody yet: whoever signs the first list will be trusted.",),
        show=lambda output: _render(output, subscription),
    )


@command.command(
    "remove",
    epilog=examples(
        "coppice subscription endorser remove egi --endorser-certificate jane.pem",
        exits="0 removed, 12 it is not trusted anyway, or it is the last one",
    ),
)
@click.argument("name")
@endorser_options
@pass_context
def remove(context: Context, /, name: str, **given: Any) -> Result:
    """Trust an endorser of NAME no more; without a fingerprint, whatever certificate of that name was trusted."""
    gone = _named(given)

    def matches(known: PinnedEndorser, named: PinnedEndorser) -> bool:
        same = (known.subject, known.issuer) == (named.subject, named.issuer)
        return same and (named.fingerprint is None or named.fingerprint == known.fingerprint)

    def change(before: tuple[PinnedEndorser, ...]) -> tuple[PinnedEndorser, ...]:
        for each in gone:
            if not any(matches(known, each) for known in before):
                raise NotFoundError(
                    f"the subscription {name!r} does not trust {each.subject} below {each.issuer}",
                    resolution=f"`coppice subscription endorser list {name}` shows whom it trusts.",
                )
        left = tuple(known for known in before if not any(matches(known, each) for each in gone))
        if not left:
            raise StateError(
                f"{name!r} would trust nobody any more",
                resolution="Add the new endorser first, then remove this one; or pause or remove the subscription.",
            )
        return left

    return _changed(context, "subscription endorser remove", name, change)


def _named(given: dict[str, Any]) -> tuple[PinnedEndorser, ...]:
    named = endorsers_of(given)
    if not named:
        raise UsageError(
            "the endorser is missing",
            resolution="Give --endorser-certificate FILE, or both --endorser-dn and --endorser-ca.",
        )
    return named


def _changed(
    context: Context,
    words: str,
    name: str,
    change: Callable[[tuple[PinnedEndorser, ...]], tuple[PinnedEndorser, ...]],
) -> Result:
    from dataclasses import replace

    from coppice.subscription.store import SubscriptionStore

    def edit(before: Subscription) -> Subscription:
        return replace(before, trust=replace(before.trust, endorsers=change(before.trust.endorsers)))

    subscription, changes = SubscriptionStore(context.database).edit(name, edit, now=context.clock.now())
    return Result(
        command=words,
        data={**_data(subscription), "changes": changes},
        messages=change_messages(changes) if changes else ("Nothing was to be changed.",),
        show=lambda output: _render(output, subscription),
    )


def _data(subscription: Subscription) -> dict[str, object]:
    return {
        "subscription": subscription.name,
        "endorsers": [endorser_as_dict(each) for each in subscription.trust.endorsers],
    }


def _render(output: Output, subscription: Subscription) -> None:
    rows = [
        [each.subject, each.issuer, each.fingerprint, "first use" if each.first_use else "named"]
        for each in subscription.trust.endorsers
    ]
    output.table(["endorser", "authority", "only certificate", "trusted by"], rows)
