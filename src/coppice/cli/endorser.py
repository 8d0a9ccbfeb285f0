# SPDX-License-Identifier: Apache-2.0
"""``coppice endorser``: who can sign image lists here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.catalogue.model import EndorserIdentity
    from coppice.cli.context import Context
    from coppice.cli.output import Output

command = noun("endorser", "Who can sign image lists here.")
_FILE = click.Path(path_type=Path)


@command.command(
    "add",
    epilog=examples(
        "coppice endorser add jane --certificate jane.pem --key jane.key --email jane@example.org",
        exits="0 added, 3 certificate or key cannot be used",
    ),
)
@click.argument("name")
@click.option("--certificate", type=_FILE, required=True, help="PEM file of the endorser's certificate.")
@click.option("--key", type=_FILE, required=True, help="PEM file of the private key; it stays where it is.")
@click.option("--passphrase-file", type=_FILE, help="File whose first line is the key's passphrase.")
@click.option("--creator", help="The endorser's name in the list (default: the certificate's common name).")
@click.option("--email", required=True, help="The endorser's address in the list.")
@pass_context
def add(
    context: Context,
    *,
    name: str,
    certificate: Path,
    key: Path,
    passphrase_file: Path | None,
    creator: str | None,
    email: str,
) -> Result:
    """Make the endorser NAME known, by certificate and key; both are tried before anything is kept."""
    from coppice.catalogue.endorsers import Endorsers
    from coppice.catalogue.model import EndorserIdentity
    from coppice.imagelist.keys import load_identity

    identity = EndorserIdentity(
        name=name,
        certificate=certificate.resolve(),
        key=key.resolve(),
        passphrase_file=passphrase_file.resolve() if passphrase_file else None,
        creator=creator or "",
        email=email,
    )
    loaded = load_identity(identity)
    if creator is None:
        from dataclasses import replace

        common_names = [value for kind, value in loaded.endorser.subject.attributes if kind == "cn"]
        identity = replace(identity, creator=common_names[-1] if common_names else name)
    Endorsers(context.database).add(identity)

    def render(output: Output) -> None:
        output.pairs({"endorser": name, "subject": loaded.endorser.subject, "issuer": loaded.endorser.issuer})

    data = {**_plain(identity), "subject": str(loaded.endorser.subject), "issuer": str(loaded.endorser.issuer)}
    return Result(command="endorser add", data=data, show=render)


@command.command("list", epilog=examples("coppice endorser list"))
@pass_context
def list_endorsers(context: Context) -> Result:
    """List the endorsers."""
    from coppice.catalogue.endorsers import Endorsers

    database = context.existing_database()
    known = Endorsers(database).all() if database is not None else ()

    def render(output: Output) -> None:
        rows = [[each.name, each.creator, each.email, each.certificate, each.key] for each in known]
        output.table(["name", "creator", "email", "certificate", "key"], rows)

    return Result(command="endorser list", data=[_plain(each) for each in known], show=render)


@command.command("remove", epilog=examples("coppice endorser remove jane", exits="0 removed, 12 a list still needs it"))
@click.argument("name")
@pass_context
def remove(context: Context, name: str) -> Result:
    """Forget the endorser NAME; the files stay."""
    from coppice.catalogue.endorsers import Endorsers

    Endorsers(context.database).remove(name)
    return Result(command="endorser remove", data={"removed": name}, messages=(f"{name} is forgotten here",))


def _plain(identity: EndorserIdentity) -> dict[str, object]:
    return {
        "name": identity.name,
        "creator": identity.creator,
        "email": identity.email,
        "certificate": identity.certificate,
        "key": identity.key,
    }
