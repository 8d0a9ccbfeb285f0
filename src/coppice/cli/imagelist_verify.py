# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist verify``: whether a file would be believed, rule by rule. Nothing is fetched, nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.imagelist_validate import describe_content
from coppice.cli.output import moment
from coppice.cli.words import Command, examples, pass_context
from coppice.errors import InputError, NotFoundError, UnreadableFileError, UsageError

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.subscription.judgement import Judgement
    from coppice.subscription.model import (
        PinnedEndorser,
        Subscription,
        TrustedVersion,
        TrustPolicy,
        VerifiedImageList,
    )

_FILE = click.Path(path_type=Path)
_MAX_CERTIFICATE_BYTES = 1024 * 1024


@click.command(
    "verify",
    cls=Command,
    epilog=examples(
        "coppice imagelist verify egi.list --subscription egi --explain",
        "coppice imagelist verify egi.list --anchors /etc/grid-security/certificates \\",
        "  --endorser-certificate jane.pem",
        "coppice imagelist verify lab.list --anchors ca.pem --revocation if-present \\",
        "  --endorser-dn '/DC=org/CN=Jane' --endorser-ca '/DC=org/CN=CA'",
        exits="0 every rule holds, 3 a file cannot be read, 5 a rule failed, 12 no such subscription",
    ),
)
@click.argument("file", type=_FILE)
@click.option("--subscription", metavar="NAME", help="Hold it against this subscription, and what was verified before.")
@click.option("--anchors", type=_FILE, metavar="PATH", help="Trust anchors, without a subscription.")
@click.option("--endorser-dn", metavar="DN", help="Subject of the endorser's certificate.")
@click.option("--endorser-ca", metavar="DN", help="Subject of the authority that issued it.")
@click.option("--endorser-certificate", type=_FILE, metavar="FILE", help="PEM file to take both names from.")
@click.option("--profile", type=click.Choice(["strict", "lenient"]), help="How much of the format it must keep to.")
@click.option("--revocation", type=click.Choice(["require", "if-present"]), help="What is asked of CRLs.")
@click.option(
    "--namespaces",
    type=click.Choice(["require", "if-present", "automatic"]),
    help="What is asked of authorities' namespaces.",
)
@click.option("--allow-sha1", is_flag=True, help="Accept SHA-1, for publishers of long ago.")
@click.option("--accept-host-certificate", is_flag=True, help="Accept a host's certificate as the signer's.")
@click.option("--explain", is_flag=True, help="Print every rule: passed or failed, with the values compared.")
@pass_context
def verify(
    context: Context,
    *,
    file: Path,
    subscription: str | None,
    anchors: Path | None,
    endorser_dn: str | None,
    endorser_ca: str | None,
    endorser_certificate: Path | None,
    profile: str | None,
    revocation: str | None,
    namespaces: str | None,
    allow_sha1: bool,
    accept_host_certificate: bool,
    explain: bool,
) -> Result:
    """Verify the signed image list in FILE by the rules by which a subscribed list is believed.

    Held against a subscription, or against trust anchors and an endorser that are named here; options beside a
    subscription replace what it says.
    """
    from coppice.subscription.anchors import load_anchors
    from coppice.subscription.rules import judge_list

    endorser = named_endorser(endorser_dn, endorser_ca, endorser_certificate)
    followed, last = _followed(context, subscription, anchors, endorser)
    trust = _changed(
        followed.trust,
        profile=profile,
        revocation=revocation,
        namespaces=namespaces,
        allow_sha1=allow_sha1,
        accept_host_certificate=accept_host_certificate,
    )
    limits = context.settings.lists
    loaded = load_anchors(trust.anchors)
    judgement = judge_list(
        read_signed(file, limits.message_bytes),
        subscription=_with_trust(followed, trust),
        anchors=loaded,
        last=last,
        now=context.clock.now(),
        limits=limits,
        terms=context.settings.subscriptions,
    )
    return _result(context, judgement, explain=explain, problems=loaded.problems)


def _result(context: Context, judgement: Judgement, *, explain: bool, problems: tuple[str, ...]) -> Result:
    verified = judgement.verified
    rows = [
        {
            "rule": each.rule,
            "title": each.title,
            "outcome": each.outcome,
            "code": each.rule.error.code,
            "compared": each.compared,
        }
        for each in judgement.rules
    ]
    data = {"rules": rows, "list": None if verified is None else _describe(verified)}

    def render(output: Output) -> None:
        if explain:
            output.table(
                ["outcome", "rule", "compared"],
                [[each.outcome, each.title, each.compared.replace("\n", "; ")] for each in judgement.rules],
            )
        if verified is not None:
            content = verified.content
            output.pairs(
                {
                    "list": f"{content.title}, version {content.version}",
                    "identifier": content.identifier,
                    "signer": verified.signer,
                    "authority": verified.signer_issuer,
                    "expires": moment(content.validity.expires, context.clock.now()),
                    "images": len(content.images),
                }
            )

    warnings = () if verified is None else tuple(f"[{each.kind}] {each}" for each in verified.warnings)
    errors = () if judgement.error is None else (judgement.error,)
    return Result(
        command="imagelist verify",
        data=data,
        status=Status.ERROR if errors else Status.SUCCESS,
        messages=(*(f"trust anchors: {each}" for each in problems), *warnings),
        errors=errors,
        show=render,
    )


def _describe(verified: VerifiedImageList) -> dict[str, object]:
    return {
        **describe_content(verified.content),
        "payload": str(verified.payload_checksum),
        "signer": str(verified.signer),
        "authority": str(verified.signer_issuer),
        "signer_fingerprint": str(verified.signer_fingerprint),
        "warnings": [{"kind": each.kind, "text": each.text} for each in verified.warnings],
    }


def _followed(
    context: Context, name: str | None, anchors: Path | None, endorser: PinnedEndorser | None
) -> tuple[Subscription, TrustedVersion | None]:
    """Return what the list is held against: a subscription that is there, or one that is made for this alone."""
    from coppice.subscription.model import Subscription, TrustPolicy
    from coppice.subscription.store import SubscriptionStore

    if name is not None:
        if anchors is not None or endorser is not None:
            raise UsageError("--subscription says whom to trust: give it, or --anchors with an endorser")
        database = context.existing_database()
        if database is None:
            raise NotFoundError(
                f"there is no subscription {name!r}", resolution="`coppice subscription add` makes one."
            )
        store = SubscriptionStore(database)
        followed = store.get(name)
        known = followed.list_identifier
        return followed, None if known is None else store.last_trusted(known)
    if anchors is None:
        raise UsageError(
            "whom to trust is missing",
            resolution="Give --subscription NAME, or --anchors PATH with --endorser-certificate FILE (or --endorser-dn "
            "and --endorser-ca).",
        )
    trust = TrustPolicy(endorsers=() if endorser is None else (endorser,), anchors=anchors)
    made = Subscription(name="file", uri="", list_identifier=None, trust=trust, added_at=context.clock.now())
    return made, None


def _changed(
    trust: TrustPolicy,
    *,
    profile: str | None,
    revocation: str | None,
    namespaces: str | None,
    allow_sha1: bool,
    accept_host_certificate: bool,
) -> TrustPolicy:
    from dataclasses import replace

    from coppice.imagelist.model import Profile
    from coppice.subscription.model import NamespacePolicy, RevocationPolicy

    return replace(
        trust,
        profile=trust.profile if profile is None else Profile(profile),
        revocation=trust.revocation if revocation is None else RevocationPolicy(revocation),
        namespaces=trust.namespaces if namespaces is None else NamespacePolicy(namespaces),
        allow_sha1=trust.allow_sha1 or allow_sha1,
        allow_host_certificate=trust.allow_host_certificate or accept_host_certificate,
    )


def _with_trust(subscription: Subscription, trust: TrustPolicy) -> Subscription:
    from dataclasses import replace

    return replace(subscription, trust=trust)


def named_endorser(subject: str | None, issuer: str | None, certificate: Path | None) -> PinnedEndorser | None:
    """Return the endorser that options name; None when they name none.

    Raises:
        UsageError: They contradict each other.
        InputError: A name is none.
    """
    from coppice.model.endorser import DistinguishedName
    from coppice.subscription.model import PinnedEndorser

    if certificate is not None:
        if subject or issuer:
            raise UsageError(
                "--endorser-certificate says what --endorser-dn and --endorser-ca would: give one or the other"
            )
        return _from_certificate(certificate)
    if not subject and not issuer:
        return None
    if not subject or not issuer:
        raise UsageError("--endorser-dn and --endorser-ca belong together: give both")
    try:
        return PinnedEndorser(subject=DistinguishedName.parse(subject), issuer=DistinguishedName.parse(issuer))
    except ValueError as problem:
        raise InputError(str(problem), resolution="Write names as in /DC=org/DC=example/CN=Jane Doe.") from problem


def _from_certificate(path: Path) -> PinnedEndorser:
    from cryptography import x509

    from coppice.formats.names import distinguished_name
    from coppice.subscription.model import PinnedEndorser

    try:
        certificate = x509.load_pem_x509_certificate(read_signed(path, _MAX_CERTIFICATE_BYTES))
        return PinnedEndorser(
            subject=distinguished_name(certificate.subject), issuer=distinguished_name(certificate.issuer)
        )
    except ValueError as problem:
        raise UnreadableFileError(
            f"{path} is not a certificate that can be read: {problem}",
            resolution="Name a PEM file with the endorser's certificate.",
            context={"path": str(path)},
        ) from problem


def read_signed(file: Path, limit_bytes: int) -> bytes:
    """Return what is in ``file``, and one byte more than the limit if there is more: the reader refuses that."""
    try:
        if file.exists() and not file.is_file():
            raise UnreadableFileError(f"{file} is no regular file", context={"path": str(file)})
        with file.open("rb") as stream:
            return stream.read(limit_bytes + 1)
    except (OSError, ValueError) as problem:
        raise UnreadableFileError(f"cannot read {file}: {problem}", context={"path": str(file)}) from problem
