# SPDX-License-Identifier: Apache-2.0
"""``coppice subscription import-vmcatcher``: take over the subscriptions of a vmcatcher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.migration import database_for, migration_result
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.envelope import Result

_PATH = click.Path(path_type=Path)
VMCATCHER_ANCHORS = Path("/etc/grid-security/certificates")


@click.command(
    "import-vmcatcher",
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "coppice subscription import-vmcatcher /var/lib/vmcatcher/vmcatcher.db --dry-run",
        "coppice subscription import-vmcatcher /var/lib/vmcatcher/vmcatcher.db \\",
        "  --anchors /etc/grid-security/certificates --secrets-directory /etc/coppice/secrets",
        exits="0 all are here, 1 some were skipped, 3 the database is not vmcatcher's, 5 no usable trust anchor",
    ),
)
@click.argument("database_file", metavar="DB", type=_PATH)
@click.option(
    "--anchors",
    type=_PATH,
    metavar="PATH",
    default=VMCATCHER_ANCHORS,
    show_default=True,
    help="Trust anchors with their CRLs: what vmcatcher's --cert-dir named.",
)
@click.option(
    "--secrets-directory",
    type=_PATH,
    metavar="DIR",
    help="Where passwords and tokens go, a file each that this user alone can read (default: they are not copied).",
)
@click.option("--dry-run", is_flag=True, help="Change nothing; only say what would be.")
@pass_context
def import_vmcatcher(
    context: Context, *, database_file: Path, anchors: Path, secrets_directory: Path | None, dry_run: bool
) -> Result:
    """Subscribe to every list that the vmcatcher database DB is subscribed to, with its endorsers and its choices.

    DB is only read. What is here already stays as it is: once more is fine.
    """
    from coppice.workflows.migrate_vmcatcher import import_vmcatcher as take_over

    found = take_over(
        database_file,
        anchors=anchors,
        settings=context.settings,
        database=database_for(context, dry_run=dry_run),
        clock=context.clock,
        secrets_directory=secrets_directory,
        dry_run=dry_run,
    )
    return migration_result(
        "subscription import-vmcatcher",
        found,
        dry_run=dry_run,
        afterwards="`coppice subscription refresh` fetches and verifies the lists; compare with vmcatcher before you "
        "switch it off",
    )
