# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist edit``, ``bind-…``, ``unbind-…`` and ``delete``: what is changed on a list that there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.key_options import key_options, read_changes, show_changes
from coppice.cli.selection import describe_selection, render_selection
from coppice.cli.words import Command, examples, pass_context
from coppice.clock import to_rfc3339
from coppice.errors import UsageError

if TYPE_CHECKING:
    from coppice.catalogue.model import Selection
    from coppice.cli.context import Context

_HELP = {"help_option_names": ["-h", "--help"]}
_FIELDS = {
    **{each: each for each in ("title", "description", "source", "vo", "endorser", "publisher")},
    "lifetime": "lifetime_days",
    "version": "last_version",
}
"""Attributes by the keys that `--set` knows."""


@click.command(
    "edit",
    cls=Command,
    context_settings=_HELP,
    epilog=examples(
        "coppice imagelist edit general --set title='All images' --set lifetime=14",
        "coppice imagelist edit general --set ad:swid=1234 --unset vo",
        'coppice imagelist edit general --set-json \'example:tiers=["gold", "silver"]\'',
        exits="0 changed, 3 it would contradict itself: nothing is changed, 12 no such list",
    ),
)
@click.argument("name")
@key_options
@click.option("--dry-run", is_flag=True, help="Check, and change nothing.")
@pass_context
def edit(
    context: Context,
    *,
    name: str,
    texts: tuple[str, ...],
    json_texts: tuple[str, ...],
    files: tuple[str, ...],
    removed: tuple[str, ...],
    dry_run: bool,
) -> Result:
    """Change keys of the image list NAME; a list that would contradict itself stays as it is.

    Version and dates are given by each publication.
    """
    from coppice.catalogue.selections import Selections

    asked = read_changes(texts, json_texts, files, removed)
    if not asked.values and not asked.removed:
        raise UsageError(
            "nothing is asked for: give --set KEY=VALUE or --unset KEY",
            resolution="docs/reference/catalogue.md says which keys there are.",
        )
    selections = Selections(context.database, context.clock)
    before = selections.get(name)
    with selections.edit(name, publishers=set(context.settings.publishers), dry_run=dry_run) as draft:
        asked.apply(draft)
    changes: dict[str, tuple[object, object]] = {
        key: (getattr(before, field), getattr(draft, field))
        for key, field in _FIELDS.items()
        if getattr(before, field) != getattr(draft, field)
    }
    for key in sorted({*before.keys, *draft.keys}):
        if before.keys.get(key) != draft.keys.get(key):
            changes[key] = (before.keys.get(key), draft.keys.get(key))
    return Result(
        command="imagelist edit",
        data={
            "name": name,
            "dry_run": dry_run,
            "changes": [{"key": key, "before": old, "now": new} for key, (old, new) in changes.items()],
        },
        messages=_consequences(name, changes, before, dry_run=dry_run),
        show=lambda output: show_changes(output, changes),
    )


@click.command(
    "bind-endorser",
    cls=Command,
    context_settings=_HELP,
    epilog=examples("coppice imagelist bind-endorser general joe", exits="0 bound, 12 no such list or endorser"),
)
@click.argument("name")
@click.argument("endorser")
@pass_context
def bind_endorser(context: Context, name: str, endorser: str) -> Result:
    """Let ENDORSER sign the image list NAME when `publish --as ENDORSER` asks for it.

    A published list names only who signed it. Subscribers must name every endorser whom they believe.
    """
    from coppice.catalogue.selections import Selections

    changed = Selections(context.database, context.clock).bind_endorser(name, endorser)
    message = f"subscribers that do not name {endorser} refuse what {endorser} signs"
    return _changed(context, "imagelist bind-endorser", changed, message)


@click.command(
    "unbind-endorser",
    cls=Command,
    context_settings=_HELP,
    epilog=examples(
        "coppice imagelist unbind-endorser general joe",
        exits="0 unbound, 3 it is the one who signs as a rule, 12 no such list, or not bound",
    ),
)
@click.argument("name")
@click.argument("endorser")
@pass_context
def unbind_endorser(context: Context, name: str, endorser: str) -> Result:
    """Let ENDORSER sign the image list NAME no more."""
    from coppice.catalogue.selections import Selections

    changed = Selections(context.database, context.clock).unbind_endorser(name, endorser)
    return _changed(context, "imagelist unbind-endorser", changed)


@click.command(
    "bind-set",
    cls=Command,
    context_settings=_HELP,
    epilog=examples(
        "coppice imagelist bind-set general portal",
        exits="0 bound, 3 the list carries one of its appliances already, 12 no such list or set",
    ),
)
@click.argument("name")
@click.argument("set_name", metavar="SET")
@pass_context
def bind_set(context: Context, name: str, set_name: str) -> Result:
    """Have the image list NAME carry SET, whole, always in its newest release."""
    from coppice.catalogue.selections import Selections

    changed = Selections(context.database, context.clock).bind_set(name, set_name)
    return _changed(context, "imagelist bind-set", changed, f"`coppice imagelist publish {name}` tells subscribers")


@click.command(
    "unbind-set",
    cls=Command,
    context_settings=_HELP,
    epilog=examples("coppice imagelist unbind-set general portal", exits="0 unbound, 12 no such list, or not bound"),
)
@click.argument("name")
@click.argument("set_name", metavar="SET")
@pass_context
def unbind_set(context: Context, name: str, set_name: str) -> Result:
    """Have the image list NAME carry SET no more: from the next publication on, sites withdraw all of it."""
    from coppice.catalogue.selections import Selections

    changed = Selections(context.database, context.clock).unbind_set(name, set_name)
    return _changed(context, "imagelist unbind-set", changed, f"`coppice imagelist publish {name}` tells subscribers")


@click.command(
    "delete",
    cls=Command,
    context_settings=_HELP,
    epilog=examples(
        "coppice imagelist delete general --dry-run",
        "coppice imagelist delete general --force",
        exits="0 deleted, 12 no such list, or it is published",
    ),
)
@click.argument("name")
@click.option("--force", is_flag=True, help="Although it is published.")
@click.option("--dry-run", is_flag=True, help="Change nothing.")
@pass_context
def delete(context: Context, name: str, force: bool, dry_run: bool) -> Result:
    """Delete the image list NAME from the catalogue; its publication history and its appliances stay.

    What is published of it stays where it is, and expires there.
    """
    from coppice.catalogue.selections import Selections

    there = Selections(context.database, context.clock).delete(name, force=force, dry_run=dry_run)
    said = ["nothing was changed: --dry-run"] if dry_run else [f"the image list {name} is deleted here"]
    if there is None:
        said.append("subscribers find no version of it that has not expired")
    else:
        said.append(
            f"subscribers find version {there.version} at {there.uri} until {to_rfc3339(there.expires)}: they keep its "
            "images until then, and expire them after"
        )
    data = {
        "deleted": None if dry_run else name,
        "dry_run": dry_run,
        "published": None if there is None else {"version": there.version, "uri": there.uri, "expires": there.expires},
    }
    return Result(command="imagelist delete", data=data, messages=tuple(said))


def _consequences(
    name: str, changes: dict[str, tuple[object, object]], before: Selection, *, dry_run: bool
) -> tuple[str, ...]:
    if not changes:
        return ("nothing is different",)
    said = ["nothing was changed: --dry-run" if dry_run else f"`coppice imagelist publish {name}` tells subscribers"]
    if "publisher" in changes and before.last_version is not None:
        said.append(
            f"what is published at {before.publisher} stays there and expires; subscribers keep to its address until "
            "they are told another"
        )
    if "endorser" in changes and before.last_version is not None:
        said.append(f"subscribers that do not name {changes['endorser'][1]} refuse what {changes['endorser'][1]} signs")
    return tuple(said)


def _changed(context: Context, command: str, changed: Selection, *messages: str) -> Result:
    return Result(
        command=command,
        data=describe_selection(changed),
        messages=messages,
        show=lambda output: render_selection(output, changed, context.clock.now()),
    )
