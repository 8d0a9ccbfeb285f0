# SPDX-License-Identifier: Apache-2.0
"""``coppice endorser edit``, and what the commands on endorsers share: trying an identity, keeping and showing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.words import Command, examples, pass_context

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.catalogue.endorsers import Endorsers
    from coppice.catalogue.model import EndorserIdentity, KeyKind
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.imagelist.keys import SigningIdentity

_KEYS = (
    "certificate",
    "key",
    "pkcs12",
    "passphrase_file",
    "passphrase_variable",
    "ask_passphrase",
    "digest",
    "creator",
    "email",
)
_TRUTHS = {"yes": True, "true": True, "no": False, "false": False}


@click.command(
    "edit",
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "coppice endorser edit jane --set certificate=jane-2027.pem --set key=jane-2027.key",
        "coppice endorser edit jane --set passphrase_variable=JANE_PASSPHRASE --set digest=sha512",
        exits="0 changed, 3 certificate, key or passphrase cannot be used, 4 the token cannot be used, "
        "5 nothing may be signed with this certificate, 12 there is no such endorser",
    ),
)
@click.argument("name")
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    required=True,
    help=f"What to change; nothing after the '=' takes the value away. Keys: {', '.join(_KEYS)}.",
)
@pass_context
def edit(context: Context, *, name: str, assignments: tuple[str, ...]) -> Result:
    """Change what is known of the endorser NAME; certificate and key are tried before anything is kept."""
    from coppice.catalogue.endorsers import Endorsers

    changed = changed_by(Endorsers(context.database).get(name), assignments)
    return keep(context, changed, "endorser edit")


def changed_by(identity: EndorserIdentity, assignments: Iterable[str]) -> EndorserIdentity:
    """Return ``identity`` with ``KEY=VALUE`` set, in their order.

    Raises:
        InputError: A key is not known, or a value cannot be one.
    """
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or key.replace("-", "_") not in _KEYS:
            from coppice.errors import InputError

            raise InputError(
                f"an endorser has nothing to set by {assignment.partition('=')[0][:60]!r}",
                resolution=f"Write --set KEY=VALUE with a KEY out of: {', '.join(_KEYS)}.",
            )
        identity = _assign(identity, key.replace("-", "_"), value)
    return identity


def _assign(identity: EndorserIdentity, key: str, value: str) -> EndorserIdentity:
    from coppice.errors import InputError

    if key in {"key", "pkcs12"}:
        if not value:
            raise InputError(f"{key} cannot be taken away", resolution="Name another one, or remove the endorser.")
        kind, place = place_of_key(value, is_pkcs12=key == "pkcs12")
        certificate = None if key == "pkcs12" else identity.certificate
        return replace(identity, kind=kind, key=place, certificate=certificate, subject=None, issuer=None)
    if key == "certificate":
        path = Path(value).resolve() if value else None
        return replace(identity, certificate=path, subject=None, issuer=None)
    if "passphrase" in key:
        return _with_passphrase(identity, key, value)
    if key == "digest" and value not in {"sha256", "sha384", "sha512"}:
        raise InputError(f"{value[:40]!r} is no digest to sign with", resolution="Use sha256, sha384 or sha512.")
    if not value:
        raise InputError(f"{key} cannot be empty")
    if key == "digest":
        return replace(identity, digest=value)
    return replace(identity, creator=value) if key == "creator" else replace(identity, email=value)


def _with_passphrase(identity: EndorserIdentity, key: str, value: str) -> EndorserIdentity:
    from coppice.errors import InputError

    # There is one source of it, and a new one takes the place of the old one.
    cleared = replace(identity, passphrase_file=None, passphrase_variable=None, ask_passphrase=False)
    if key == "ask_passphrase":
        if value and value.lower() not in _TRUTHS:
            raise InputError(f"ask_passphrase is yes or no, not {value[:40]!r}")
        wanted = bool(value) and _TRUTHS[value.lower()]
        return replace(cleared, ask_passphrase=True) if wanted else replace(identity, ask_passphrase=False)
    if key == "passphrase_file":
        path = Path(value).resolve() if value else None
        return replace(cleared if value else identity, passphrase_file=path)
    return replace(cleared if value else identity, passphrase_variable=value or None)


def place_of_key(text: str, *, is_pkcs12: bool) -> tuple[KeyKind, Path | str]:
    """Return what kind of key ``text`` names, and where it is.

    Raises:
        InputError: It is a ``pkcs11:`` URI that names no key, or a PIN.
    """
    from coppice.catalogue.model import KeyKind
    from coppice.imagelist.token_uri import TokenUri, is_token_uri

    if is_pkcs12:
        return KeyKind.PKCS12, Path(text).resolve()
    if is_token_uri(text):
        TokenUri.parse(text)
        return KeyKind.PKCS11, text
    return KeyKind.PEM, Path(text).resolve()


def try_out(context: Context, identity: EndorserIdentity) -> SigningIdentity:
    """Return the identity loaded, after all that can be tried without a list.

    Raises:
        InputError: Certificate, key or passphrase cannot be used.
        KeyTokenError: The token cannot be used.
        TrustError: Nothing may be signed with this certificate.
    """
    from coppice.cli.passphrase import asker
    from coppice.imagelist.keys import load_identity, require_usable

    loaded = load_identity(identity, ask=asker(), environ=context.environ)
    require_usable(loaded, context.clock.now())
    return loaded


def keep(context: Context, identity: EndorserIdentity, command: str) -> Result:
    """Try an identity and remember it.

    Raises:
        InputError: Name, certificate, key or passphrase cannot be used.
        KeyTokenError: The token cannot be used.
        TrustError: Nothing may be signed with this certificate.
    """
    from coppice.catalogue.endorsers import Endorsers, require_name
    from coppice.errors import InputError
    from coppice.imagelist.keys import email_of

    require_name(identity.name, "an endorser")
    loaded = try_out(context, identity)
    common_names = [value for kind, value in loaded.endorser.subject.attributes if kind == "cn"]
    email = identity.email or email_of(loaded.certificate)
    if not email:
        raise InputError(
            "the certificate names no e-mail address", resolution="Give the endorser's with --email; lists need one."
        )
    kept = replace(
        identity,
        creator=identity.creator or (common_names[-1] if common_names else identity.name),
        email=email,
        subject=loaded.endorser.subject,
        issuer=loaded.endorser.issuer,
    )
    endorsers = Endorsers(context.database)
    warnings = (*loaded.warnings, *_renamed(endorsers, kept))
    endorsers.add(kept)
    data = described(kept)
    return Result(
        command=command, data=data, messages=warnings, show=lambda output: render_identity(output, kept, data)
    )


def _renamed(endorsers: Endorsers, kept: EndorserIdentity) -> tuple[str, ...]:
    before = next((each for each in endorsers.all() if each.name == kept.name), None)
    if before is None or before.subject is None or (before.subject, before.issuer) == (kept.subject, kept.issuer):
        return ()
    lists = endorsers.lists_of(kept.name)
    if not lists:
        return ()
    warning = (
        f"{', '.join(lists)} will be signed as {kept.subject}, certified by {kept.issuer}: subscribers who trust "
        f"{before.subject} refuse that until they add the new endorser"
    )
    return (warning,)


def described(identity: EndorserIdentity) -> dict[str, object]:
    """Return an endorser for machines; no secret is in it."""
    source = "file" if identity.passphrase_file else "variable" if identity.passphrase_variable else None
    return {
        "name": identity.name,
        "creator": identity.creator,
        "email": identity.email,
        "kind": str(identity.kind),
        "certificate": identity.certificate,
        "key": identity.key,
        "passphrase_source": "prompt" if identity.ask_passphrase else source,
        "passphrase_file": identity.passphrase_file,
        "passphrase_variable": identity.passphrase_variable,
        "digest": identity.digest,
        "subject": None if identity.subject is None else str(identity.subject),
        "issuer": None if identity.issuer is None else str(identity.issuer),
    }


def render_identity(output: Output, identity: EndorserIdentity, data: dict[str, object]) -> None:
    """Print an endorser for people."""
    from coppice.catalogue.model import KeyKind
    from coppice.imagelist.token_uri import TokenUri

    place: object = identity.key
    if identity.kind is KeyKind.PKCS11:
        uri = TokenUri.parse(str(identity.key))
        place = f"{uri}, by {uri.module}"
    with_key = {KeyKind.PKCS12: "in the same file", KeyKind.PKCS11: "on the token"}.get(identity.kind)
    passphrase = identity.passphrase_file or (
        f"in the environment variable {identity.passphrase_variable}"
        if identity.passphrase_variable
        else "asked for on the terminal"
        if identity.ask_passphrase
        else None
    )
    shown = {
        "endorser": identity.name,
        "creator": identity.creator,
        "email": identity.email,
        "subject": identity.subject,
        "issuer": identity.issuer,
        "certificate": identity.certificate or with_key,
        "key": place,
        "passphrase": passphrase,
        "digest": identity.digest,
    }
    if "certificate_expires" in data:
        shown["certificate expires"] = data["certificate_expires"]
    lists = data.get("lists")
    if isinstance(lists, list):
        shown["lists"] = ", ".join(lists)
    output.pairs(shown)
