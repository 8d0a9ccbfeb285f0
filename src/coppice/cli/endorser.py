# SPDX-License-Identifier: Apache-2.0
"""``coppice endorser``: who can sign image lists here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.endorser_edit import described, edit, keep, try_out
from coppice.cli.envelope import Result
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output

command = noun("endorser", "Who can sign image lists here.")
command.add_command(edit)
_FILE = click.Path(path_type=Path)


@command.command(
    "add",
    epilog=examples(
        "coppice endorser add jane --certificate jane.pem --key jane.key --email jane@example.org",
        "coppice endorser add jane --pkcs12 jane.p12 --passphrase-file /etc/coppice/jane.phrase",
        "coppice endorser add jane --ask-passphrase --certificate jane.pem \\",
        "      --key 'pkcs11:token=jane;object=signing?module-path=/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so'",
        exits="0 added, 3 certificate, key or passphrase cannot be used, 4 the token cannot be used, "
        "5 nothing may be signed with this certificate",
    ),
)
@click.argument("name")
@click.option("--certificate", type=_FILE, help="PEM file of the endorser's certificate, its chain after it.")
@click.option(
    "--key",
    metavar="FILE|URI",
    help="PEM file of the private key, or the pkcs11: URI of a key on a token; it stays where it is.",
)
@click.option("--pkcs12", type=_FILE, help="PKCS#12 file (.p12, .pfx) with certificate and key, instead of the two.")
@click.option("--passphrase-file", type=_FILE, help="File whose first line is the key's passphrase or the token's PIN.")
@click.option("--passphrase-variable", metavar="NAME", help="Environment variable that holds it.")
@click.option("--ask-passphrase", is_flag=True, help="Ask for it on the terminal, each time that something is signed.")
@click.option(
    "--digest",
    type=click.Choice(["sha256", "sha384", "sha512"]),
    default="sha256",
    show_default=True,
    help="What is signed with.",
)
@click.option("--creator", help="The endorser's name in the list (default: the certificate's common name).")
@click.option("--email", help="The endorser's address in the list (default: the certificate's).")
@pass_context
def add(
    context: Context,
    *,
    name: str,
    certificate: Path | None,
    key: str | None,
    pkcs12: Path | None,
    passphrase_file: Path | None,
    passphrase_variable: str | None,
    ask_passphrase: bool,
    digest: str,
    creator: str | None,
    email: str | None,
) -> Result:
    """Make the endorser NAME known, by certificate and key; both are tried before anything is kept.

    Nothing is kept but where they lie. The same NAME again replaces that.
    """
    from coppice.catalogue.model import EndorserIdentity
    from coppice.cli.endorser_edit import place_of_key

    if sum((passphrase_file is not None, passphrase_variable is not None, ask_passphrase)) > 1:
        raise click.UsageError("--passphrase-file, --passphrase-variable and --ask-passphrase exclude each other.")
    if (key is None) == (pkcs12 is None):
        raise click.UsageError("Name the key: either --key or --pkcs12 is needed.")
    kind, place = place_of_key(key if key is not None else str(pkcs12), is_pkcs12=pkcs12 is not None)
    identity = EndorserIdentity(
        name=name,
        kind=kind,
        certificate=certificate.resolve() if certificate else None,
        key=place,
        passphrase_file=passphrase_file.resolve() if passphrase_file else None,
        passphrase_variable=passphrase_variable,
        ask_passphrase=ask_passphrase,
        digest=digest,
        creator=creator or "",
        email=email or "",
    )
    return keep(context, identity, "endorser add")


@command.command("list", epilog=examples("coppice endorser list"))
@pass_context
def list_endorsers(context: Context) -> Result:
    """List the endorsers."""
    from coppice.catalogue.endorsers import Endorsers

    database = context.existing_database()
    known = Endorsers(database).all() if database is not None else ()

    def render(output: Output) -> None:
        rows = [[each.name, each.creator, each.email, each.subject, str(each.kind), each.digest] for each in known]
        output.table(["name", "creator", "email", "subject", "key", "digest"], rows)

    return Result(
        command="endorser list",
        data=[described(each) for each in known],
        messages=() if known else ("no endorsers yet: `coppice endorser add` makes one known",),
        show=render,
    )


@command.command(
    "show",
    epilog=examples(
        "coppice endorser show jane",
        "coppice endorser show jane --check",
        exits="0 shown, 3, 4 or 5 with --check: nothing can be signed, 12 there is no such endorser",
    ),
)
@click.argument("name")
@click.option("--check", is_flag=True, help="Load certificate and key, and try them.")
@pass_context
def show(context: Context, *, name: str, check: bool) -> Result:
    """Show the endorser NAME, where certificate and key lie, and the lists that it vouches for."""
    from coppice.catalogue.endorsers import Endorsers
    from coppice.cli.endorser_edit import render_identity

    endorsers = Endorsers(context.database)
    identity = endorsers.get(name)
    lists = endorsers.lists_of(name)
    data = {**described(identity), "lists": list(lists)}
    warnings: tuple[str, ...] = ()
    if check:
        loaded = try_out(context, identity)
        warnings = loaded.warnings
        data["certificate_expires"] = loaded.certificate.not_valid_after_utc
    return Result(
        command="endorser show",
        data=data,
        messages=warnings,
        show=lambda output: render_identity(output, identity, data),
    )


@command.command("remove", epilog=examples("coppice endorser remove jane", exits="0 removed, 12 a list still needs it"))
@click.argument("name")
@pass_context
def remove(context: Context, name: str) -> Result:
    """Forget the endorser NAME; the files stay."""
    from coppice.catalogue.endorsers import Endorsers

    Endorsers(context.database).forget(name)
    return Result(command="endorser remove", data={"removed": name}, messages=(f"{name} is forgotten here",))
