# SPDX-License-Identifier: Apache-2.0
"""``coppice subscription show | archive | diff``: what a subscription is, and the lists that were verified for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.files import require_directory
from coppice.cli.output import format_size, moment
from coppice.cli.subscription_data import archived_as_dict, overview_as_dict, show_subscription, subscription_as_dict
from coppice.cli.words import examples, pass_context, verb
from coppice.errors import NotFoundError, StateError, UsageError

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.imagelist.model import ImageList
    from coppice.subscription.archive import ArchivedList
    from coppice.subscription.model import Subscription
    from coppice.subscription.overview import SubscriptionOverview


@verb(
    "show",
    epilog=examples(
        "coppice subscription show egi",
        "coppice subscription show egi --version 2026.11.22",
        "coppice subscription show egi --raw --output egi.smime",
        exits="0 shown, 12 no such subscription or version",
    ),
)
@click.argument("name")
@click.option("--version", "version", metavar="VERSION", help="Show this verified list instead of the subscription.")
@click.option("--raw", is_flag=True, help="Give the list's bytes as they were signed; without --version the current.")
@click.option("--output", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write the bytes to FILE.")
@pass_context
def show(context: Context, name: str, *, version: str | None, raw: bool, target: Path | None) -> Result:
    """Show the subscription NAME, how it stands, and what became of its last refresh; or a list verified for it."""
    if raw or target is not None:
        return _raw(context, name, version, target)
    if version is not None:
        return _version(context, name, version)
    return _subscription(context, name)


@verb("archive", epilog=examples("coppice subscription archive egi", "coppice subscription archive egi --json"))
@click.argument("name")
@pass_context
def archive(context: Context, name: str) -> Result:
    """List the verified versions of the list of NAME that are kept, the newest first."""
    from coppice.subscription.archive import ListArchive

    found = ListArchive(context.database).versions(name)

    def render(output: Output) -> None:
        rows = [
            [
                each.version,
                "current" if each.is_current else None,
                each.verified_at,
                each.expires,
                each.basis,
                each.signer,
            ]
            for each in found
        ]
        output.table(["version", "in force", "verified", "expires", "trusted by", "signer"], rows)

    return Result(
        command="subscription archive",
        data={"subscription": name, "lists": [archived_as_dict(each) for each in found]},
        messages=() if found else ("No list was verified yet.",),
        show=render,
    )


@verb(
    "diff",
    epilog=examples(
        "coppice subscription diff egi",
        "coppice subscription diff egi 2026.11.22",
        "coppice subscription diff egi 2026.11.22 2026.12.01 --json",
        "coppice subscription diff egi --fetch",
        exits="0 shown, 5 what the source has is refused, 6 it cannot be had, 12 no such version",
    ),
)
@click.argument("name")
@click.argument("old", required=False)
@click.argument("new", required=False)
@click.option("--fetch", is_flag=True, help="Compare with what the source has now; it is verified, and not recorded.")
@pass_context
def diff(context: Context, name: str, *, old: str | None, new: str | None, fetch: bool) -> Result:
    """Show what differs between two verified versions of the list of NAME: by default the last two.

    With OLD alone, from that version to the one in force; with --fetch, to what the source has now.
    """
    from coppice.cli.list_changes import difference_as_dict, show_difference
    from coppice.formats.list_difference import list_difference
    from coppice.subscription.store import SubscriptionStore

    if fetch and new is not None:
        raise UsageError("--fetch says what NEW would: give one or the other")
    subscription = SubscriptionStore(context.database).get(name)
    after = _fetched(context, subscription) if fetch else _content(context, subscription, new)
    before = _content(context, subscription, old) if fetch or old is not None else _previous(context, subscription)
    found = list_difference(before, after)
    return Result(
        command="subscription diff",
        data={"subscription": name, "fetched": fetch, "difference": difference_as_dict(found)},
        messages=("Nothing differs.",) if found.is_empty else (),
        show=lambda output: show_difference(output, found),
    )


def _subscription(context: Context, name: str) -> Result:
    from coppice.subscription.archive import ListArchive
    from coppice.subscription.overview import overview
    from coppice.subscription.store import SubscriptionStore

    store = SubscriptionStore(context.database)
    subscription, failure = store.get(name), store.last_failure(name)
    trusted = store.last_trusted(subscription.list_identifier) if subscription.list_identifier else None
    days = context.settings.subscriptions.warn_list_days
    standing = next(
        each for each in overview(context.database, context.clock.now(), warn_list_days=days) if each.name == name
    )
    data = subscription_as_dict(subscription)
    data["verified_version"] = trusted.version if trusted else None
    data["last_failure"] = {"code": failure[0], "message": failure[1], "at": failure[2]} if failure else None
    data["standing"] = overview_as_dict(standing)
    current = next((each for each in ListArchive(context.database).versions(name) if each.is_current), None)
    data["vouched_for_by"] = None if current is None else {"basis": current.basis, "signer": current.signer}

    def render(output: Output) -> None:
        show_subscription(output, subscription)
        output.line()
        voucher = None if current is None else f"{current.signer or 'a certificate'} ({current.basis})"
        _show_standing(context, output, standing, trusted.version if trusted else None, voucher)

    return Result(
        command="subscription show",
        data={"subscription": data},
        messages=tuple(each.text for each in standing.warnings),
        show=render,
    )


def _show_standing(
    context: Context, output: Output, standing: SubscriptionOverview, floor: str | None, voucher: str | None
) -> None:
    now = context.clock.now()
    pairs: dict[str, object] = {
        "state": standing.state,
        "version in force": standing.version,
        "vouched for by": voucher,
        "images": standing.images,
        "highest version verified": floor,
        "verified": moment(standing.verified_at, now),
        "confirmed by the source": moment(standing.checked_at, now),
        "expires": moment(standing.expires, now) if standing.expires else None,
    }
    if standing.last_error_code is not None:
        when = moment(standing.last_attempt_at, now)
        pairs["last failure"] = f"[{standing.last_error_code}] {standing.last_error}, {when}"
    output.pairs(pairs)


def _version(context: Context, name: str, version: str) -> Result:
    from coppice.subscription.archive import ListArchive
    from coppice.subscription.contents import archived_content
    from coppice.subscription.source.drivers import judging_shelf
    from coppice.subscription.store import SubscriptionStore

    subscription = SubscriptionStore(context.database).get(name)
    found, message = ListArchive(context.database).message(name, version)
    limits = context.settings.lists
    content = archived_content(
        message, subscription, judging_shelf(context.clock, limits), limits, version=found.version
    )

    def render(output: Output) -> None:
        _show_list(output, found, content)

    images = [
        {"identifier": each.identifier, "title": each.title, "version": each.version, "size_bytes": each.size_bytes}
        for each in content.images
    ]
    data = {**archived_as_dict(found), "title": content.title, "vo": content.vo, "images": images}
    return Result(command="subscription show", data={"list": data}, show=render)


def _show_list(output: Output, found: ArchivedList, content: ImageList) -> None:
    output.pairs(
        {
            "list": found.list_identifier,
            "title": content.title,
            "version": found.version,
            "in force": found.is_current,
            "created": content.validity.created,
            "expires": content.validity.expires,
            "trusted by": found.basis,
            "signer": found.signer,
            "verified": found.verified_at,
        }
    )
    rows = [[each.title, each.version, format_size(each.size_bytes), each.identifier] for each in content.images]
    output.table(["title", "version", "size", "identifier"], rows)


def _raw(context: Context, name: str, version: str | None, target: Path | None) -> Result:
    from coppice import atomic
    from coppice.subscription.archive import ListArchive

    if target is None and context.json:
        raise UsageError("the bytes of a list are no JSON", resolution="Write them to a file with --output FILE.")
    if target is not None:
        require_directory(target)
    found, message = ListArchive(context.database).message(name, version)
    if target is not None:
        atomic.write_bytes(target, message)

    def render(output: Output) -> None:
        if target is None:
            output.stdout.flush()
            output.stdout.buffer.write(message)
            output.stdout.buffer.flush()

    data = {**archived_as_dict(found), "path": target, "size_bytes": len(message)}
    return Result(
        command="subscription show",
        data={"list": data},
        messages=() if target is None else (f"Wrote version {found.version} to {target}.",),
        show=render,
    )


def _content(context: Context, subscription: Subscription, version: str | None) -> ImageList:
    from coppice.subscription.archive import ListArchive
    from coppice.subscription.contents import archived_content
    from coppice.subscription.source.drivers import judging_shelf

    found, message = ListArchive(context.database).message(subscription.name, version)
    limits = context.settings.lists
    sources = judging_shelf(context.clock, limits)
    return archived_content(message, subscription, sources, limits, version=found.version)


def _previous(context: Context, subscription: Subscription) -> ImageList:
    from coppice.subscription.archive import ListArchive

    known = ListArchive(context.database).versions(subscription.name)
    current = next((place for place, each in enumerate(known) if each.is_current), None)
    if current is None:
        raise NotFoundError(
            f"the subscription {subscription.name!r} has no list in force",
            resolution=f"`coppice subscription refresh {subscription.name}` fetches and verifies it.",
        )
    older = [each for each in known[current + 1 :] if each.payload_checksum != known[current].payload_checksum]
    if not older:
        raise StateError(
            f"only one version of the list of {subscription.name!r} was verified so far",
            resolution="With --fetch it is compared with what the source has now.",
        )
    return _content(context, subscription, older[0].version)


def _fetched(context: Context, subscription: Subscription) -> ImageList:
    from coppice.subscription.contents import fetch_and_verify
    from coppice.subscription.store import SubscriptionStore
    from coppice.workflows.sources import open_sources

    store = SubscriptionStore(context.database)
    sources = open_sources(context.database, context.client(), context.clock, context.settings)
    return fetch_and_verify(subscription, store, sources, context.settings, context.clock.now()).content
