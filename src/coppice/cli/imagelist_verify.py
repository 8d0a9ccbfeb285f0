# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist verify``: whether a file would be believed, rule by rule. Nothing is fetched, nothing changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.files import unreadable
from coppice.cli.imagelist_validate import describe_content
from coppice.cli.output import moment
from coppice.cli.subscription_options import FILE, apply_trust, endorsers_of, trust_options
from coppice.cli.words import Command, examples, pass_context
from coppice.errors import NotFoundError, UnreadableFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.subscription.judgement import Judgement
    from coppice.subscription.model import PinnedEndorser, Subscription, TrustedVersion, VerifiedImageList


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
@click.argument("file", type=FILE)
@click.option("--subscription", metavar="NAME", help="Hold it against this subscription, and what was verified before.")
@trust_options
@click.option("--explain", is_flag=True, help="Print every rule: passed or failed, with the values compared.")
@pass_context
def verify(context: Context, /, *, file: Path, subscription: str | None, explain: bool, **given: Any) -> Result:
    """Verify the signed image list in FILE by the rules by which a subscribed list is believed.

    Held against a subscription, or against trust anchors and an endorser that are named here; options beside a
    subscription replace what it says.
    """
    from coppice.subscription.anchors import load_anchors
    from coppice.subscription.rules import judge_list

    followed, last = _followed(context, subscription, given)
    trust = apply_trust(followed.trust, given)
    limits = context.settings.lists
    loaded = load_anchors(trust.anchors)
    judgement = judge_list(
        read_signed(file, limits.message_bytes),
        subscription=replace(followed, trust=trust),
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
                [[each.outcome, each.title, _one_line(each.compared)] for each in judgement.rules],
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


def _one_line(compared: str) -> str:
    return "; ".join(" ".join(line.split()) for line in compared.splitlines())


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
    context: Context, name: str | None, given: Mapping[str, Any]
) -> tuple[Subscription, TrustedVersion | None]:
    """Return what the list is held against: a subscription that is there, or one that is made for this alone."""
    from coppice.subscription.model import Subscription, TrustPolicy
    from coppice.subscription.store import SubscriptionStore

    if name is not None:
        database = context.existing_database()
        if database is None:
            raise NotFoundError(
                f"there is no subscription {name!r}", resolution="`coppice subscription add` makes one."
            )
        store = SubscriptionStore(database)
        followed = store.get(name)
        known = followed.list_identifier
        return followed, None if known is None else store.last_trusted(known)
    if given["anchors"] is None:
        raise UsageError(
            "whom to trust is missing",
            resolution="Give --subscription NAME, or --anchors PATH with --endorser-certificate FILE (or --endorser-dn "
            "and --endorser-ca).",
        )
    trust = TrustPolicy(endorsers=(), anchors=given["anchors"])
    made = Subscription(name="file", uri="", list_identifier=None, trust=trust, added_at=context.clock.now())
    return made, None


def named_endorser(subject: str | None, issuer: str | None, certificate: Path | None) -> PinnedEndorser | None:
    """Return the one endorser whom options name; None: they name nobody.

    Raises:
        UsageError: They name two, or a part of one.
        InputError: A name is none.
        UnreadableFileError: The certificate cannot be read.
    """
    found = endorsers_of(
        {
            "certificates": () if certificate is None else (certificate,),
            "subjects": () if subject is None else (subject,),
            "issuers": () if issuer is None else (issuer,),
            "fingerprints": (),
        }
    )
    if len(found) > 1:
        raise UsageError(
            "--endorser-certificate says what --endorser-dn and --endorser-ca would: give one or the other"
        )
    return found[0] if found else None


def read_signed(file: Path, limit_bytes: int) -> bytes:
    """Return what is in ``file``, and one byte more than the limit if there is more: the reader refuses that."""
    try:
        if file.exists() and not file.is_file():
            raise UnreadableFileError(f"{file} is no regular file", context={"path": str(file)})
        with file.open("rb") as stream:
            return stream.read(limit_bytes + 1)
    except (OSError, ValueError) as problem:
        raise unreadable(file, problem) from problem
