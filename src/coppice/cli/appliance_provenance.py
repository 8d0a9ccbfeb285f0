# SPDX-License-Identifier: Apache-2.0
"""``coppice appliance sign-provenance`` and ``verify-provenance``: where an image comes from, vouched for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coppice.cli.envelope import Result
from coppice.cli.subscription_options import apply_trust, trust_options
from coppice.cli.words import Command, examples, pass_context
from coppice.errors import UsageError

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output


@click.command(
    "sign-provenance",
    cls=Command,
    epilog=examples(
        "coppice appliance sign-provenance debian-12 --endorser jane",
        "coppice appliance sign-provenance debian-12 --endorser jane --to debian-12.dsse.json",
        exits="0 signed, 3 certificate or key cannot be used, 5 nothing may be signed with it, 12 no such "
        "version or endorser, or nothing is known of its build",
    ),
)
@click.argument("name")
@click.option("--endorser", required=True, metavar="NAME", help="Who vouches for it (`coppice endorser list`).")
@click.option("--version", "version", help="Which version (default: the newest).")
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="Write it here as well.")
@pass_context
def sign_provenance(context: Context, name: str, endorser: str, version: str | None, to: Path | None) -> Result:
    """Sign where the appliance NAME comes from: its definition, its inputs and ancestors, its builder."""
    from coppice.atomic import write_bytes
    from coppice.cli.passphrase import asker
    from coppice.workflows.evidence import find_version
    from coppice.workflows.provenance import sign_provenance as sign

    found = find_version(context.database, name, version)
    path = sign(found, endorser, database=context.database, clock=context.clock, ask=asker())
    if to is not None:
        write_bytes(to, path.read_bytes())
    return Result(
        command="appliance sign-provenance",
        data={"name": name, "version": found.version, "endorser": endorser, "file": to or path},
        show=lambda output: output.line(f"{to or path}: {name} {found.version}, signed by {endorser}"),
    )


@click.command(
    "verify-provenance",
    cls=Command,
    epilog=examples(
        "coppice appliance verify-provenance debian-12.dsse.json --anchors /etc/grid-security/certificates \\",
        "  --endorser-certificate jane.pem --file debian-12.qcow2",
        exits="0 it holds, 3 a file cannot be read, 5 it is not signed as it should be, 7 it is of another image",
    ),
)
@click.argument("provenance", type=click.Path(path_type=Path))
@click.option("--file", "image", type=click.Path(path_type=Path), help="The image that it has to speak of.")
@trust_options
@pass_context
def verify_provenance(context: Context, /, *, provenance: Path, image: Path | None, **given: Any) -> Result:
    """Verify the signed PROVENANCE of an image, and tell what it says."""
    from coppice.subscription.model import TrustPolicy
    from coppice.workflows.provenance import verify_provenance as verify

    if given["anchors"] is None:
        raise UsageError(
            "whom to trust is missing",
            resolution="Give --anchors PATH with --endorser-certificate FILE (or --endorser-dn and --endorser-ca).",
        )
    trust = apply_trust(TrustPolicy(endorsers=(), anchors=given["anchors"]), given)
    verified = verify(provenance, trust, now=context.clock.now(), image=image)
    said = verified.statement

    def render(output: Output) -> None:
        output.pairs(
            {
                "signer": verified.signer,
                "authority": verified.authority,
                "definition": said.definition,
                "its digest": f"sha256:{said.definition_digest}",
                "its source": said.definition_source or "a folder of the building machine",
                "build started": said.started,
                "inputs": len(said.inputs),
                "image": "held against none" if verified.image is None else str(verified.image),
            }
        )
        output.table(["image", "digest"], [[name, str(checksum)] for name, checksum in said.subjects])

    return Result(
        command="appliance verify-provenance",
        data={
            "signer": str(verified.signer),
            "authority": str(verified.authority),
            "definition": said.definition,
            "definition_digest": said.definition_digest,
            "definition_source": said.definition_source,
            "builder": said.builder,
            "started": said.started,
            "inputs": said.inputs,
            "subjects": [{"name": name, "digest": str(checksum)} for name, checksum in said.subjects],
            "image": None if verified.image is None else str(verified.image),
        },
        show=render,
    )
