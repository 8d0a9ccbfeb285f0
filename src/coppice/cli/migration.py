# SPDX-License-Identifier: Apache-2.0
"""What is told of a take-over from another program, thing by thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cli.envelope import Result, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.database import Database
    from coppice.errors import CoppiceError
    from coppice.workflows.migration import Migrated


def database_for(context: Context, *, dry_run: bool) -> Database:
    """Return the database; for a dry run where there is none yet, one that is gone afterwards.

    Raises:
        DatabaseError: It cannot be opened.
    """
    if not dry_run:
        return context.database
    from coppice.database import Database

    return context.existing_database() or Database("sqlite://")


def migration_result(command: str, found: Sequence[Migrated], *, dry_run: bool, afterwards: str) -> Result:
    """Return what a take-over did; what was skipped is an error of its own, and the exit code tells.

    Args:
        command: The command's words.
        found: What became of each thing.
        dry_run: Whether nothing was changed.
        afterwards: What comes next, when something is here now.
    """
    errors = tuple(_named(each.error, each) for each in found if each.error is not None)
    words = {"imported": "would be imported" if dry_run else "imported", "there": "there already"}

    def render(output: Output) -> None:
        rows = [
            [each.kind, each.name or "-", each.identifier, words.get(str(each.outcome), str(each.outcome))]
            for each in found
        ]
        output.table(["kind", "name", "identifier", "outcome"], rows)

    notes = [f"{each.name or each.identifier}: {note}" for each in found for note in each.notes]
    if not found:
        notes.append("there is nothing in it to take over")
    elif dry_run:
        notes.append("nothing was changed (--dry-run)")
    elif any(each.name is not None for each in found):
        notes.append(afterwards)
    return Result(
        command=command,
        data={"dry_run": dry_run, "items": [_plain(each) for each in found]},
        status=Status.PARTIAL if errors else Status.SUCCESS,
        messages=tuple(notes),
        errors=errors,
        show=render,
    )


def _named(error: CoppiceError, of: Migrated) -> CoppiceError:
    if of.identifier in error.message:
        return error
    return error.told_of(f"{of.kind} {of.name or of.identifier}", identifier=of.identifier)


def _plain(each: Migrated) -> dict[str, object]:
    error = each.error
    return {
        "kind": each.kind,
        "identifier": each.identifier,
        "name": each.name,
        "outcome": str(each.outcome),
        "reason": None if error is None else {"code": error.code, "message": error.message},
        "notes": list(each.notes),
    }
