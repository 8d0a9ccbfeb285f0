# SPDX-License-Identifier: Apache-2.0
"""``coppice subscription``: the image lists that this site follows, and whom it trusts for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from coppice.cli.envelope import Result
from coppice.cli.source_options import apply_source, source_options, try_source
from coppice.cli.subscription_data import (
    change_messages,
    overview_as_dict,
    show_subscription,
    shown_state,
    subscription_as_dict,
    trusted_in_short,
    unsigned_messages,
)
from coppice.cli.subscription_endorser import command as endorser
from coppice.cli.subscription_import import import_vmcatcher
from coppice.cli.subscription_list import archive, diff, show
from coppice.cli.subscription_options import apply_options, canonical_identifiers, subscription_options
from coppice.cli.subscription_refresh import refresh, reset_version, roll_forward
from coppice.cli.words import examples, noun, pass_context
from coppice.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.subscription.model import Subscription

command = noun("subscription", "The image lists that this site follows.")


@command.command(
    "add",
    epilog=examples(
        "coppice subscription add egi https://lists.example.org/egi \\",
        "  --endorser-certificate jane.pem --anchors /etc/grid-security/certificates",
        "coppice subscription add lab file:///srv/lists/lab --anchors ca.pem \\",
        "  --endorser-dn '/DC=org/CN=Jane' --endorser-ca '/DC=org/CN=CA' --revocation if-present",
        "coppice subscription add vo https://lists.example.org/vo --endorser-certificate jane.pem \\",
        "  --anchors /etc/grid-security/certificates --token-file /etc/coppice/vo.token --where 'arch = x86_64'",
        "coppice subscription add debian https://cloud.example.org/images/ --source files \\",
        "  --keyring /etc/coppice/debian.gpg --option pattern='debian-12-generic-(?P<arch>amd64|arm64)\\.qcow2'",
        "coppice subscription add own catalogue:own --source catalogue --trust local",
        "coppice subscription add comfy file:///var/spool/comfy/appliances --source descriptors --trust local",
        exits="0 subscribed, 3 a value is wrong, 5 no usable trust anchor, 12 the name is taken",
    ),
)
@click.argument("name")
@click.argument("uri")
@subscription_options
@source_options
@pass_context
def add(context: Context, /, *, name: str, uri: str, **given: Any) -> Result:
    """Follow the image list at URI under NAME; nothing is fetched yet.

    By default that is a list that one of the named endorsers signed. With --source it is made of something else, which
    other keys sign (--keyring, --cosign-key), or nobody: then --trust says who is believed.
    """
    from coppice.subscription.anchor_report import report_anchors
    from coppice.subscription.anchors import load_anchors
    from coppice.subscription.model import Subscription, TrustPolicy
    from coppice.subscription.source.drivers import HEPIX
    from coppice.subscription.store import SubscriptionStore

    empty = Subscription(
        name=name,
        uri=uri,
        list_identifier=None,
        trust=TrustPolicy(endorsers=(), anchors=None),
        added_at=context.clock.now(),
    )
    subscription = apply_source(apply_options(empty, given), given)
    problems: tuple[str, ...] = ()
    if subscription.source.driver == HEPIX:
        _require_endorser(subscription)
        problems = report_anchors(load_anchors(subscription.trust.anchors), context.clock.now()).problems
    else:
        try_source(subscription, context.settings.lists, context.clock)
    SubscriptionStore(context.database).add(subscription)
    return Result(
        command="subscription add",
        data={"subscription": subscription_as_dict(subscription)},
        messages=(
            *(f"trust anchors: {each}" for each in problems),
            *(
                ()
                if subscription.trust.endorsers or subscription.source.driver != HEPIX
                else ("Whoever signed the first list that is fetched will be trusted, and nobody else after that.",)
            ),
            *unsigned_messages(subscription),
            f"Subscribed. `coppice subscription refresh {name}` fetches and verifies the list.",
        ),
        show=lambda output: show_subscription(output, subscription),
    )


@command.command(
    "edit",
    epilog=examples(
        "coppice subscription edit egi --set revocation=require",
        "coppice subscription edit egi --set 'where=os = Debian' --set images=",
        "coppice subscription edit egi --token-file /etc/coppice/egi.token",
        "coppice subscription edit debian --keyring /etc/coppice/debian-2027.gpg",
        exits="0 changed, or nothing to change, 3 a value is wrong, 12 no such subscription, or it is to another list",
    ),
)
@click.argument("name")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Set a value (may be repeated).")
@click.option("--no-credential", is_flag=True, help="Show no credential to the server any more.")
@subscription_options
@source_options
@pass_context
def edit(context: Context, /, *, name: str, assignments: tuple[str, ...], no_credential: bool, **given: Any) -> Result:
    """Change the subscription NAME; what is not named stays. Endorsers that are named take the place of all before.

    The list is fetched and verified anew by the next refresh.
    """
    from dataclasses import replace

    from coppice.cli.subscription_assign import assign

    def change(before: Subscription) -> Subscription:
        if given["driver"] not in {None, before.source.driver}:
            raise UsageError(
                f"the source of {name} is {before.source.driver}, and stays so",
                resolution="Subscribe to the other source under another name, and remove this subscription.",
            )
        after = apply_source(apply_options(before, given), given)
        for assignment in assignments:
            after = assign(after, assignment)
        if no_credential:
            after = replace(after, credential=None)
        if (after.trust.anchors, after.source) != (before.trust.anchors, before.source):
            try_source(after, context.settings.lists, context.clock)
        return after

    return edited(context, "subscription edit", name, change)


@command.command("pause", epilog=examples("coppice subscription pause egi"))
@click.argument("name")
@pass_context
def pause(context: Context, name: str) -> Result:
    """Do not ask the source of NAME any more; what was verified stays in force until its own dates end."""
    from dataclasses import replace

    now = context.clock.now()
    return edited(
        context, "subscription pause", name, lambda before: replace(before, paused_at=before.paused_at or now)
    )


@command.command("resume", epilog=examples("coppice subscription resume egi"))
@click.argument("name")
@pass_context
def resume(context: Context, name: str) -> Result:
    """Ask the source of NAME again."""
    from dataclasses import replace

    return edited(context, "subscription resume", name, lambda before: replace(before, paused_at=None))


@command.command("accept-image", epilog=examples("coppice subscription accept-image egi 8a1f2f60-…"))
@click.argument("name")
@click.argument("identifiers", nargs=-1, required=True, metavar="ID...")
@pass_context
def accept_image(context: Context, name: str, identifiers: tuple[str, ...]) -> Result:
    """Refuse these images of NAME no more; where only chosen images are wanted, choose them, too."""
    from dataclasses import replace

    from coppice.model.identifiers import ImageIdentifier

    accepted = tuple(ImageIdentifier(each) for each in canonical_identifiers(identifiers))

    def change(before: Subscription) -> Subscription:
        selection = before.selection
        chosen = tuple(dict.fromkeys((*selection.images, *accepted))) if selection.images else ()
        refused = tuple(each for each in selection.refused if each not in accepted)
        return replace(before, selection=replace(selection, images=chosen, refused=refused))

    return edited(context, "subscription accept-image", name, change)


@command.command("refuse-image", epilog=examples("coppice subscription refuse-image egi 8a1f2f60-…"))
@click.argument("name")
@click.argument("identifiers", nargs=-1, required=True, metavar="ID...")
@pass_context
def refuse_image(context: Context, name: str, identifiers: tuple[str, ...]) -> Result:
    """Never take these images of NAME, whatever else is said: the next sync withdraws them."""
    from dataclasses import replace

    from coppice.model.identifiers import ImageIdentifier

    new = tuple(ImageIdentifier(each) for each in canonical_identifiers(identifiers))

    def change(before: Subscription) -> Subscription:
        refused = tuple(dict.fromkeys((*before.selection.refused, *new)))
        return replace(before, selection=replace(before.selection, refused=refused))

    return edited(context, "subscription refuse-image", name, change)


@command.command("list", epilog=examples("coppice subscription list"))
@pass_context
def list_subscriptions(context: Context) -> Result:
    """List the subscriptions and how each stands."""
    from coppice.subscription.overview import overview
    from coppice.subscription.store import SubscriptionStore

    database = context.existing_database()
    found = SubscriptionStore(database).all() if database is not None else ()
    days = context.settings.subscriptions.warn_list_days
    stand = overview(database, context.clock.now(), warn_list_days=days) if database is not None else ()
    states = {each.name: each for each in stand}

    def render(output: Output) -> None:
        rows = [
            [
                each.name,
                shown_state(states[each.name]),
                each.source.driver,
                each.uri,
                trusted_in_short(each),
                len(each.selection.images) or "all",
                states[each.name].version,
                states[each.name].expires,
            ]
            for each in found
            if each.name in states
        ]
        output.table(["subscription", "state", "source", "uri", "trusted", "images", "version", "expires"], rows)

    data = [
        {**subscription_as_dict(each), "standing": overview_as_dict(states[each.name])}
        for each in found
        if each.name in states
    ]
    return Result(
        command="subscription list",
        data={"subscriptions": data},
        messages=() if found else ("No subscriptions yet.",),
        show=render,
    )


@command.command(
    "remove",
    epilog=examples("coppice subscription remove egi --dry-run", "coppice subscription remove egi"),
)
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@pass_context
def remove(context: Context, name: str, *, dry_run: bool) -> Result:
    """Follow the list of NAME no more: the next sync withdraws its images. What its version was stays known."""
    from coppice.subscription.archive import ListArchive
    from coppice.subscription.store import SubscriptionStore

    store = SubscriptionStore(context.database)
    subscription = store.get(name)
    archived = len(ListArchive(context.database).versions(name))
    others = [
        each.name
        for each in store.all()
        if each.name != name
        and subscription.list_identifier is not None
        and each.list_identifier == subscription.list_identifier
    ]
    if not dry_run:
        SubscriptionStore(context.database).remove(name, now=context.clock.now())
    then = (
        f"its images stay: {', '.join(others)} follows the same list"
        if others
        else "its images are withdrawn by the next sync; see `coppice plan`"
    )
    verb = "Would remove" if dry_run else "Removed"
    return Result(
        command="subscription remove",
        data={
            "name": name,
            "dry_run": dry_run,
            "list_identifier": subscription.list_identifier,
            "archived_lists": archived,
            "also_followed_by": others,
        },
        messages=(f"{verb} {name} and {archived} archived lists; {then}.",),
    )


def _require_endorser(subscription: Subscription) -> None:
    if subscription.trust.anchors is None:
        raise UsageError(
            "--anchors is missing",
            resolution="Name the trust anchors that the endorser's certificate must come from: a PEM file, or a "
            "directory such as /etc/grid-security/certificates. Where there is no signed image list, --source says "
            "what there is.",
        )
    if not subscription.trust.endorsers and not subscription.trust.trust_on_first_use:
        raise UsageError(
            "the endorser is missing",
            resolution="Give --endorser-certificate FILE, or both --endorser-dn and --endorser-ca; or, to trust "
            "whoever signed the first list, --trust-on-first-use. A list is trusted because of who signed it, so there "
            "is no default.",
        )


def edited(context: Context, words: str, name: str, change: Callable[[Subscription], Subscription]) -> Result:
    """Change a subscription for the command ``words``, and say what is another than before."""
    from coppice.subscription.store import SubscriptionStore

    subscription, changes = SubscriptionStore(context.database).edit(name, change, now=context.clock.now())
    return Result(
        command=words,
        data={"subscription": subscription_as_dict(subscription), "changes": changes},
        messages=change_messages(changes) if changes else ("Nothing was to be changed.",),
        show=lambda output: show_subscription(output, subscription),
    )


for _part in (endorser, show, archive, diff, refresh, roll_forward, reset_version, import_vmcatcher):
    command.add_command(_part)
