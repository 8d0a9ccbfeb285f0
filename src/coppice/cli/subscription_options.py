# SPDX-License-Identifier: Apache-2.0
"""The options that say whom a subscription trusts, how its source is asked and what is wanted of its list."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coppice.errors import InputError, UnreadableFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.model.checksum import Checksum
    from coppice.model.credential import CredentialReference
    from coppice.model.endorser import DistinguishedName
    from coppice.subscription.model import ImageSelection, PinnedEndorser, Subscription, TrustPolicy

_Callback = TypeVar("_Callback", bound="Callable[..., Any]")

FILE = click.Path(path_type=Path)
_MAX_CERTIFICATE_BYTES = 1024 * 1024

_ENDORSERS = (
    click.option(
        "--endorser-certificate",
        "certificates",
        type=FILE,
        multiple=True,
        metavar="FILE",
        help="PEM file of an endorser's certificate, to take both names from (may be repeated).",
    ),
    click.option(
        "--endorser-dn",
        "subjects",
        multiple=True,
        metavar="DN",
        help="Subject of an endorser's certificate (may be repeated, each with its --endorser-ca).",
    ),
    click.option(
        "--endorser-ca", "issuers", multiple=True, metavar="DN", help="Subject of the authority that issued it."
    ),
    click.option(
        "--endorser-fingerprint",
        "fingerprints",
        multiple=True,
        metavar="SHA256",
        help="Trust only this one certificate of the endorser: one for each, certificates first.",
    ),
)
_TRUST = (
    click.option("--anchors", type=FILE, metavar="PATH", help="Trust anchors: PEM file or directory."),
    click.option(
        "--trust-on-first-use/--no-trust-on-first-use",
        "trust_on_first_use",
        default=None,
        help="Trust whoever signed the first list, if nobody is named; it is recorded.",
    ),
    click.option(
        "--revocation",
        type=click.Choice(["require", "if-present"]),
        help="What is asked of revocation lists.  [default: require]",
    ),
    click.option(
        "--namespaces",
        type=click.Choice(["require", "automatic", "if-present"]),
        help="What is asked of authorities' namespaces and signing policies.  [default: automatic]",
    ),
    click.option(
        "--profile",
        type=click.Choice(["strict", "lenient"]),
        help="How much of the format a list must keep to.  [default: strict]",
    ),
    click.option(
        "--allow-sha1/--no-allow-sha1",
        "allow_sha1",
        default=None,
        help="Accept signatures and certificates with SHA-1.",
    ),
    click.option(
        "--accept-host-certificate/--no-accept-host-certificate",
        "allow_host_certificate",
        default=None,
        help="Accept a signer whose certificate is a host's (serverAuth).",
    ),
)
_ACCESS = (
    click.option("--token-file", type=FILE, metavar="FILE", help="Access token for HTTP basic: first line of FILE."),
    click.option("--token-variable", metavar="NAME", help="Access token for HTTP basic: environment variable."),
    click.option("--bearer-file", type=FILE, metavar="FILE", help="Bearer token: first line of FILE."),
    click.option("--bearer-variable", metavar="NAME", help="Bearer token: environment variable."),
    click.option("--username", metavar="NAME", help="User name for HTTP basic, with a password."),
    click.option("--password-file", type=FILE, metavar="FILE", help="Its password: first line of FILE."),
    click.option("--password-variable", metavar="NAME", help="Its password: environment variable."),
    click.option("--client-certificate", type=FILE, metavar="FILE", help="TLS client certificate, PEM."),
    click.option("--client-key", type=FILE, metavar="FILE", help="Its key, when it is in another file."),
    click.option("--client-passphrase-file", type=FILE, metavar="FILE", help="The key's passphrase: first line."),
    click.option(
        "--server-anchors",
        type=FILE,
        metavar="PATH",
        help="Authorities that the server's certificate may come from, beside the machine's.",
    ),
)
_SELECTION = (
    click.option("--image", "images", multiple=True, metavar="ID", help="Only this image (may be repeated)."),
    click.option("--refuse-image", "refused", multiple=True, metavar="ID", help="Never this image (may be repeated)."),
    click.option("--vo", "vos", multiple=True, metavar="VO", help="Only images of lists of this VO (may be repeated)."),
    click.option(
        "--os", "operating_systems", multiple=True, metavar="NAME", help="Only this system (may be repeated)."
    ),
    click.option(
        "--arch", "architectures", multiple=True, metavar="ARCH", help="Only this architecture (may be repeated)."
    ),
    click.option("--where", metavar="EXPR", help="Only images of which EXPR is true: os = Debian and size < 4 GiB"),
)


def endorser_options(callback: _Callback) -> _Callback:
    """Add the options that name endorsers."""
    return _with(callback, _ENDORSERS)


def trust_options(callback: _Callback) -> _Callback:
    """Add the options that say whom to trust and what is asked of a signature."""
    return _with(callback, (*_ENDORSERS, *_TRUST))


def subscription_options(callback: _Callback) -> _Callback:
    """Add every option of a subscription but its name and address."""
    listed = click.option("--list", "list_identifier", metavar="ID", help="The list that it must be.")
    return _with(callback, (*_ENDORSERS, *_TRUST, *_ACCESS, *_SELECTION, listed))


def _with(callback: _Callback, options: tuple[Callable[[Any], Any], ...]) -> _Callback:
    for option in reversed(options):
        callback = option(callback)
    return callback


def apply_options(subscription: Subscription, given: Mapping[str, Any]) -> Subscription:
    """Return ``subscription`` with what the options ask for; what was not given stays.

    Raises:
        UsageError: Options contradict each other, or one lacks its companion.
        InputError: A value is none.
        UnreadableFileError: A certificate cannot be read.
    """
    from coppice.model.identifiers import ListIdentifier

    credential = credential_of(given)
    anchors = given["server_anchors"]
    identifier = given["list_identifier"]
    return replace(
        subscription,
        trust=apply_trust(subscription.trust, given),
        selection=_selection(subscription.selection, given),
        credential=subscription.credential if credential is None else credential,
        server_anchors=subscription.server_anchors if anchors is None else server_anchors_at(anchors),
        list_identifier=subscription.list_identifier if identifier is None else ListIdentifier(identifier),
    )


def server_anchors_at(path: Path) -> Path:
    """Return the absolute path of authorities for servers' certificates.

    Raises:
        UnreadableFileError: There is nothing.
    """
    if not path.exists():
        raise UnreadableFileError(
            f"there is no file or directory {path}",
            resolution="Name a PEM file or a directory of authorities that the server's certificate may come from.",
            context={"path": str(path)},
        )
    return path.absolute()


def endorsers_of(given: Mapping[str, Any]) -> tuple[PinnedEndorser, ...]:
    """Return the endorsers that the options name, certificates first.

    Raises:
        UsageError: A name lacks its authority, or fingerprints do not match endorsers.
        InputError: A name or fingerprint is none.
        UnreadableFileError: A certificate cannot be read.
    """
    from coppice.subscription.model import PinnedEndorser

    subjects, issuers = given["subjects"], given["issuers"]
    if len(subjects) != len(issuers):
        raise UsageError(
            "--endorser-dn and --endorser-ca come in pairs",
            resolution="A name counts only below its authority: give both, in the same order.",
        )
    names = [_from_certificate(path) for path in given["certificates"]]
    names += [(_name(subject), _name(issuer)) for subject, issuer in zip(subjects, issuers, strict=True)]
    fingerprints = [_fingerprint(text) for text in given["fingerprints"]]
    if fingerprints and len(fingerprints) != len(names):
        raise UsageError(
            f"{len(fingerprints)} fingerprints are given for {len(names)} endorsers",
            resolution="Give one for each endorser: certificates first, then names.",
        )
    only: list[Checksum | None] = [*fingerprints] or [None] * len(names)
    return tuple(
        PinnedEndorser(subject=subject, issuer=issuer, fingerprint=fingerprint)
        for (subject, issuer), fingerprint in zip(names, only, strict=True)
    )


def credential_of(given: Mapping[str, Any]) -> CredentialReference | None:
    """Return where the credential lies that the options name; None: they name none. A file is tried at once.

    Raises:
        UsageError: They name two, or a part of one.
        CredentialError: The file cannot be used.
    """
    from coppice.http.credential import resolve_credential
    from coppice.model.credential import CredentialKind, CredentialReference

    kinds = {
        "token": ("token_file", "token_variable"),
        "bearer": ("bearer_file", "bearer_variable"),
        "username": ("username", "password_file", "password_variable"),
        "client": ("client_certificate", "client_key", "client_passphrase_file"),
    }
    named = [kind for kind, options in kinds.items() if any(given[option] is not None for option in options)]
    if not named:
        return None
    if len(named) > 1:
        raise UsageError("two ways to show who asks are given: give one")
    if named == ["client"]:
        if given["client_certificate"] is None:
            raise UsageError("--client-key and --client-passphrase-file need --client-certificate")
        reference = CredentialReference(
            kind=CredentialKind.CLIENT_CERTIFICATE,
            certificate=given["client_certificate"].absolute(),
            key=_absolute(given["client_key"]),
            secret_file=_absolute(given["client_passphrase_file"]),
        )
    else:
        prefix = "password" if named == ["username"] else named[0]
        file, variable = given[f"{prefix}_file"], given[f"{prefix}_variable"]
        if (file is None) == (variable is None) or (named == ["username"] and given["username"] is None):
            raise UsageError(
                "a secret is in one file or in one variable, and a password belongs to a user name",
                resolution="Give --username with --password-file or --password-variable; "
                "or one of --token-file, --token-variable, --bearer-file, --bearer-variable.",
            )
        reference = CredentialReference(
            kind=CredentialKind.BEARER if named == ["bearer"] else CredentialKind.BASIC,
            username=given["username"],
            secret_file=_absolute(file),
            secret_variable=variable,
        )
    if reference.secret_variable is None:
        # Tried now, so that a missing file is not found out at night. A variable may be set for the service only.
        resolve_credential(reference)
    return reference


def apply_trust(trust: TrustPolicy, given: Mapping[str, Any]) -> TrustPolicy:
    """Return ``trust`` with what the options ask for; what was not given stays.

    Raises:
        UsageError: Options contradict each other, or one lacks its companion.
        InputError: A value is none.
        UnreadableFileError: A certificate cannot be read.
    """
    from coppice.imagelist.model import Profile
    from coppice.subscription.model import NamespacePolicy, RevocationPolicy

    kinds = {"revocation": RevocationPolicy, "namespaces": NamespacePolicy, "profile": Profile}
    changed: dict[str, Any] = {name: kind(given[name]) for name, kind in kinds.items() if given[name] is not None}
    for name in ("trust_on_first_use", "allow_sha1", "allow_host_certificate"):
        if given[name] is not None:
            changed[name] = given[name]
    if given["anchors"] is not None:
        changed["anchors"] = given["anchors"].absolute()
    named = endorsers_of(given)
    if named:
        changed["endorsers"] = named
    return replace(trust, **changed)


def _selection(selection: ImageSelection, given: Mapping[str, Any]) -> ImageSelection:
    names = ("images", "refused", "vos", "operating_systems", "architectures")
    changed: dict[str, Any] = {name: tuple(dict.fromkeys(given[name])) for name in names if given[name]}
    for name in ("images", "refused"):
        if name in changed:
            changed[name] = canonical_identifiers(changed[name])
    if given["where"] is not None:
        changed["expression"] = given["where"] or None
    return replace(selection, **changed)


def canonical_identifiers(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return image identifiers in their one spelling, each once."""
    from coppice.subscription.rows import canonical

    return tuple(dict.fromkeys(canonical(each) for each in given))


def _name(text: str) -> DistinguishedName:
    from coppice.model.endorser import DistinguishedName

    try:
        return DistinguishedName.parse(text)
    except ValueError as problem:
        raise InputError(str(problem), resolution="Write names as in /DC=org/DC=example/CN=Jane Doe.") from problem


def _fingerprint(text: str) -> Checksum:
    from coppice.model.checksum import Checksum

    try:
        return Checksum("sha256", text.lower().removeprefix("sha256:").replace(":", ""))
    except ValueError as problem:
        raise InputError(
            f"not a SHA-256 fingerprint: {text[:120]!r}",
            resolution="Write it as `openssl x509 -fingerprint -sha256` does.",
        ) from problem


def _from_certificate(path: Path) -> tuple[DistinguishedName, DistinguishedName]:
    from cryptography import x509

    from coppice.formats.certificates import PARSE_PROBLEMS, quiet
    from coppice.formats.names import distinguished_name

    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            data = stream.read(_MAX_CERTIFICATE_BYTES) or b""
        with quiet():
            certificate = x509.load_pem_x509_certificate(data)
            return distinguished_name(certificate.subject), distinguished_name(certificate.issuer)
    except (OSError, *PARSE_PROBLEMS) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "no certificate in PEM is in it"
        raise UnreadableFileError(
            f"{path} is not a certificate that can be read: {why}",
            resolution="Name a PEM file with the endorser's certificate.",
            context={"path": str(path)},
        ) from problem


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
