# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist import-vmcaster``: take over what a vmcaster publishes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.migration import database_for, migration_result
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.envelope import Result


@click.command(
    "import-vmcaster",
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "coppice imagelist import-vmcaster ~/vmcaster.db --publisher web --dry-run",
        "coppice imagelist import-vmcaster ~/vmcaster.db --publisher web --endorser jane",
        exits="0 all is here, 1 some was skipped, 3 the database is not vmcaster's, 12 there is no such endorser",
    ),
)
@click.argument("database_file", metavar="DB", type=click.Path(path_type=Path))
@click.option("--publisher", required=True, help="Where the lists go from now on: a section of the settings.")
@click.option("--endorser", help="Who signs them from now on (default: of those bound to each, one who can).")
@click.option("--dry-run", is_flag=True, help="Change nothing; only say what would be.")
@pass_context
def import_vmcaster(
    context: Context, *, database_file: Path, publisher: str, endorser: str | None, dry_run: bool
) -> Result:
    """Bring every image list of the vmcaster database DB into the catalogue, with its identifiers, images and keys.

    DB is only read. A list that is here already stays as it is: once more is fine. Images stay where they are, and are
    listed by reference.
    """
    from coppice.workflows.migrate_vmcaster import import_vmcaster as take_over

    found = take_over(
        database_file,
        publisher=publisher,
        settings=context.settings,
        database=database_for(context, dry_run=dry_run),
        clock=context.clock,
        endorser=endorser,
        dry_run=dry_run,
    )
    return migration_result(
        "imagelist import-vmcaster",
        found,
        dry_run=dry_run,
        afterwards="`coppice imagelist publish NAME --dry-run` shows what subscribers would get; stop vmcaster first",
    )
