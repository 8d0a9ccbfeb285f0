# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist import``: take over a list that was published before, after verifying it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.imagelist_verify import named_endorser, read_signed
from coppice.cli.selection import describe_selection, render_selection
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output

_FILE = click.Path(path_type=Path)


@click.command(
    "import",
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "coppice imagelist import old.list --name general --endorser jane --publisher web \\",
        "  --anchors /etc/grid-security/certificates",
        "coppice imagelist import old.list --name general --endorser jane --publisher web --anchors ca.pem \\",
        "  --endorser-certificate joe.pem --dry-run",
        exits="0 imported, 3 it cannot be taken over, 5 it is refused, 12 it contradicts what is here",
    ),
)
@click.argument("file", type=_FILE)
@click.option("--name", required=True, help="What the list is called here.")
@click.option("--endorser", required=True, help="Who signs its further versions (`coppice endorser list`).")
@click.option("--publisher", required=True, help="Where its further versions go: a section of the settings.")
@click.option("--anchors", type=_FILE, required=True, metavar="PATH", help="Trust anchors, CRLs included.")
@click.option("--endorser-dn", metavar="DN", help="Who signed it (default: the endorser above).")
@click.option("--endorser-ca", metavar="DN", help="Subject of the authority above who signed it.")
@click.option("--endorser-certificate", type=_FILE, metavar="FILE", help="PEM file to take both names from.")
@click.option(
    "--revocation",
    type=click.Choice(["require", "if-present"]),
    default="require",
    show_default=True,
    help="Whether each authority must have a revocation list.",
)
@click.option("--allow-sha1", is_flag=True, help="Accept SHA-1, for publishers of long ago.")
@click.option("--accept-host-certificate", is_flag=True, help="Accept a host's certificate as the signer's.")
@click.option("--dry-run", is_flag=True, help="Verify, say what would come in, and change nothing.")
@pass_context
def import_file(
    context: Context,
    *,
    file: Path,
    name: str,
    endorser: str,
    publisher: str,
    anchors: Path,
    endorser_dn: str | None,
    endorser_ca: str | None,
    endorser_certificate: Path | None,
    revocation: str,
    allow_sha1: bool,
    accept_host_certificate: bool,
    dry_run: bool,
) -> Result:
    """Take over the signed image list in FILE: verify it, and bring it and its images into the catalogue.

    Identifiers and versions are kept; images stay where they are, and are listed by reference. The same list again, in
    a later version, brings in what is new.
    """
    from coppice.subscription.model import RevocationPolicy, TrustPolicy
    from coppice.workflows.import_list import import_list

    signed_by = named_endorser(endorser_dn, endorser_ca, endorser_certificate)
    trust = TrustPolicy(
        endorsers=(signed_by,) if signed_by is not None else (),
        anchors=anchors.absolute(),
        revocation=RevocationPolicy(revocation),
        allow_sha1=allow_sha1,
        allow_host_certificate=accept_host_certificate,
    )
    report = import_list(
        read_signed(file, context.settings.lists.message_bytes),
        name=name,
        endorser=endorser,
        publisher=publisher,
        trust=trust,
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        dry_run=dry_run,
    )
    intake = report.intake
    data = {
        **describe_selection(intake.selection),
        "dry_run": dry_run,
        "created": intake.created,
        "added": intake.added,
        "signer": str(report.verified.signer),
    }
    messages = (*report.warnings, *(("nothing was changed: --dry-run",) if dry_run else ()))

    def render(output: Output) -> None:
        render_selection(output, intake.selection, context.clock.now())
        output.line(f"{len(intake.added)} versions are new here")

    return Result(command="imagelist import", data=data, messages=messages, show=render)
