# SPDX-License-Identifier: Apache-2.0
"""``coppice definition add``, ``update``, ``remove`` and ``sources``: definitions from git."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.output import counted
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.definition.git_lock import PinnedSource
    from coppice.workflows.definitions import SourceUpdate


@click.command(
    "add",
    cls=Command,
    epilog=examples(
        "coppice definition add git+https://git.example.org/appliances.git#v1.4:definitions",
        "coppice definition add git+ssh://git@git.example.org/appliances.git#main --key maintainers.pub",
        "coppice definition add git+file:///srv/git/appliances#main:web --name web",
        exits="0 added, 3 it cannot be had, is not signed by the key or is wrong, 12 the name is taken",
    ),
)
@click.argument("address")
@click.option("--name", help="What commands call the source (default: its folder's name).")
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Accept only what is signed by this key: of OpenSSH (public key or allowed signers) or OpenPGP (in ASCII).",
)
@pass_context
def add(context: Context, *, address: str, name: str | None, key: Path | None) -> Result:
    """Follow definitions from git at ADDRESS, pinned to the commit that their ref is now.

    ADDRESS is git+https://HOST/REPOSITORY#REF:PATH (or git+ssh://, git+file:///). REF is a branch, a tag or a commit;
    PATH is the folder of a definition, or one whose folders are definitions.
    """
    from coppice.definition.git_address import GitAddress
    from coppice.workflows.definitions import add_source

    added = add_source(context.definition_sources(), GitAddress.parse(address), name=name, key_file=key)
    notes = () if added.key else ("no key is pinned: whoever can push there decides what the next update brings",)
    return Result(
        command="definition add",
        data=_source(added),
        messages=notes,
        show=lambda output: output.pairs(_pairs(added)),
    )


@click.command(
    "update",
    cls=Command,
    epilog=examples(
        "coppice definition update",
        "coppice definition update web --accept",
        exits="0 shown, or accepted; 3 it cannot be had, is not signed by the key or is wrong, 12 no such source",
    ),
)
@click.argument("names", nargs=-1, metavar="[SOURCE]...")
@click.option("--accept", is_flag=True, help="Pin the sources to what was found.")
@pass_context
def update(context: Context, *, names: tuple[str, ...], accept: bool) -> Result:
    """Show what the refs of sources are now, and what that would change: files, and values of definitions.

    Nothing is used of it until it is accepted.
    """
    from coppice.workflows.definitions import update_sources

    updates = update_sources(context.definition_sources(), names, accept=accept)
    waiting = [each for each in updates if each.found is not None and not each.is_accepted]
    hint = f"not accepted: coppice definition update {' '.join(each.source.name for each in waiting)} --accept"

    def render(output: Output) -> None:
        for each in updates:
            _show_update(output, each)

    return Result(
        command="definition update",
        data={"sources": [_update(each) for each in updates]},
        messages=(hint,) if waiting else () if updates else ("no definitions come from git",),
        show=render,
    )


@click.command("remove", cls=Command, epilog=examples("coppice definition remove web"))
@click.argument("name", metavar="SOURCE")
@pass_context
def remove(context: Context, name: str) -> Result:
    """Follow the source of definitions SOURCE no more; what was built from it stays."""
    from coppice.workflows.definitions import remove_source

    gone = remove_source(context.definition_sources(), name)
    return Result(
        command="definition remove",
        data=_source(gone),
        messages=(f"removed {gone.name}, with {counted(len(gone.definitions), 'definition')}",),
    )


@click.command(
    "sources", cls=Command, epilog=examples("coppice definition sources", "coppice --json definition sources")
)
@pass_context
def sources(context: Context) -> Result:
    """List the repositories that definitions come from, and the commits that they are pinned to."""
    from coppice.workflows.definitions import list_sources

    found = list_sources(context.definition_sources())

    def render(output: Output) -> None:
        rows = [
            [each.name, each.commit[:12], each.pinned_at, each.signed_by, ", ".join(each.definitions), each.address]
            for each in found
        ]
        output.table(["source", "commit", "pinned", "signed by", "definitions", "address"], rows)

    return Result(
        command="definition sources",
        data={"sources": [_source(each) for each in found]},
        messages=() if found else ("no definitions come from git",),
        show=render if found else None,
    )


def _show_update(output: Output, update: SourceUpdate) -> None:
    found = update.found
    if found is None:
        output.line(f"{update.source.name}: unchanged at {update.pinned[:12]}")
        for note in update.notes:
            output.line(f"  {note}")
        return
    output.heading(f"{update.source.name}: {update.pinned[:12]} -> {found.identifier[:12]}")
    output.pairs(
        {
            "  address": update.source.address,
            "  commit": found.identifier,
            "  made": found.at,
            "  says": found.subject,
            "  signed by": update.signed_by,
            "  pinned to it": update.is_accepted,
        }
    )
    for note in update.notes:
        output.line(f"  note: {note}")
    for file in update.files:
        output.line(f"{file.change} {file.path}")
        for line in file.lines:
            output.line(f"  {line}")
    if update.values:
        rows = [[each.definition, each.key, each.before, each.after] for each in update.values]
        output.table(["definition", "value", "before", "after"], rows)


def _pairs(source: PinnedSource) -> dict[str, object]:
    return {
        "source": source.name,
        "address": source.address,
        "commit": source.commit,
        "signed by": source.signed_by,
        "definitions": ", ".join(source.definitions),
    }


def _source(source: PinnedSource) -> dict[str, object]:
    return {
        "name": source.name,
        "address": str(source.address),
        "commit": source.commit,
        "committed_at": source.committed_at,
        "digest": source.digest,
        "definitions": source.definitions,
        "key": None if source.key is None else source.key.kind,
        "signed_by": source.signed_by or None,
        "pinned_at": source.pinned_at,
    }


def _update(update: SourceUpdate) -> dict[str, object]:
    return {
        "source": _source(update.source),
        "pinned": update.pinned,
        "found": update.found,
        "signed_by": update.signed_by or None,
        "files": update.files,
        "values": update.values,
        "notes": update.notes,
        "accepted": update.is_accepted,
    }
