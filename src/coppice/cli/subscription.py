# SPDX-License-Identifier: Apache-2.0
"""``coppice subscription``: the image lists that this site follows, and whom it trusts for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import moment
from coppice.cli.words import examples, noun, pass_context
from coppice.errors import InputError, UnreadableFileError, UsageError
from coppice.log import redact

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.model.endorser import DistinguishedName
    from coppice.subscription.model import Subscription

command = noun("subscription", "The image lists that this site follows.")
_FILE = click.Path(path_type=Path)
_MAX_CERTIFICATE_BYTES = 1024 * 1024


@command.command(
    "add",
    epilog=examples(
        "coppice subscription add egi https://lists.example.org/egi \\",
        "  --endorser-certificate jane.pem --anchors /etc/grid-security/certificates",
        "coppice subscription add lab file:///srv/lists/lab --anchors ca.pem \\",
        "  --endorser-dn '/DC=org/CN=Jane' --endorser-ca '/DC=org/CN=CA' --revocation if-present",
        exits="0 subscribed, 3 a value is wrong, 5 no usable trust anchor, 12 the name is taken",
    ),
)
@click.argument("name")
@click.argument("uri")
@click.option("--endorser-dn", metavar="DN", help="Subject of the endorser's certificate.")
@click.option("--endorser-ca", metavar="DN", help="Subject of the authority that issued it.")
@click.option("--endorser-certificate", type=_FILE, metavar="FILE", help="PEM file to take both names from.")
@click.option("--anchors", type=_FILE, required=True, metavar="PATH", help="Trust anchors: PEM file or directory.")
@click.option("--revocation", type=click.Choice(["require", "if-present"]), default="require", show_default=True)
@click.option("--image", "images", multiple=True, metavar="UUID", help="Only this image (may be repeated).")
@pass_context
def add(
    context: Context,
    *,
    name: str,
    uri: str,
    endorser_dn: str | None,
    endorser_ca: str | None,
    endorser_certificate: Path | None,
    anchors: Path,
    revocation: str,
    images: tuple[str, ...],
) -> Result:
    """Follow the image list at URI under NAME, if this endorser signed it; nothing is fetched yet."""
    from coppice.model.identifiers import ImageIdentifier
    from coppice.subscription.anchors import load_anchors
    from coppice.subscription.model import ImageSelection, PinnedEndorser, RevocationPolicy, Subscription, TrustPolicy
    from coppice.subscription.store import SubscriptionStore

    subject, issuer = _endorser(endorser_dn, endorser_ca, endorser_certificate)
    anchors = anchors.absolute()
    problems = load_anchors(anchors).problems
    subscription = Subscription(
        name=name,
        uri=uri,
        list_identifier=None,
        trust=TrustPolicy(
            endorsers=(PinnedEndorser(subject=subject, issuer=issuer),),
            anchors=anchors,
            revocation=RevocationPolicy(revocation),
        ),
        selection=ImageSelection(images=tuple(ImageIdentifier(each) for each in images)),
        added_at=context.clock.now(),
    )
    SubscriptionStore(context.database).add(subscription)
    return Result(
        command="subscription add",
        data={"subscription": _as_dict(subscription)},
        messages=(
            *(f"trust anchors: {each}" for each in problems),
            f"Subscribed. `coppice subscription refresh {name}` fetches and verifies the list.",
        ),
        show=lambda output: _show(output, subscription),
    )


@command.command("list", epilog=examples("coppice subscription list"))
@pass_context
def list_subscriptions(context: Context) -> Result:
    """List the subscriptions."""
    from coppice.subscription.store import SubscriptionStore

    database = context.existing_database()
    found = SubscriptionStore(database).all() if database is not None else ()

    def render(output: Output) -> None:
        rows = [
            [
                each.name,
                each.uri,
                ", ".join(str(one.subject) for one in each.trust.endorsers),
                len(each.selection.images) or "all",
            ]
            for each in found
        ]
        output.table(["subscription", "uri", "endorser", "images"], rows)

    return Result(
        command="subscription list",
        data={"subscriptions": [_as_dict(each) for each in found]},
        messages=() if found else ("No subscriptions yet.",),
        show=render,
    )


@command.command("show", epilog=examples("coppice subscription show egi"))
@click.argument("name")
@pass_context
def show(context: Context, name: str) -> Result:
    """Show the subscription NAME, and what became of its last refresh."""
    from coppice.subscription.store import SubscriptionStore

    store = SubscriptionStore(context.database)
    subscription, failure = store.get(name), store.last_failure(name)
    trusted = store.last_trusted(subscription.list_identifier) if subscription.list_identifier else None
    data = _as_dict(subscription)
    data["verified_version"] = trusted.version if trusted else None
    data["last_failure"] = {"code": failure[0], "message": failure[1], "at": failure[2]} if failure else None

    def render(output: Output) -> None:
        _show(output, subscription)
        last = f"[{failure[0]}] {failure[1]}, {moment(failure[2], context.clock.now())}" if failure else None
        output.pairs({"verified version": trusted.version if trusted else None, "last failure    ": last})

    return Result(command="subscription show", data={"subscription": data}, show=render)


@command.command("remove", epilog=examples("coppice subscription remove egi"))
@click.argument("name")
@pass_context
def remove(context: Context, name: str) -> Result:
    """Follow the list of NAME no more: the next sync withdraws its images."""
    from coppice.subscription.store import SubscriptionStore

    SubscriptionStore(context.database).remove(name, now=context.clock.now())
    return Result(
        command="subscription remove",
        data={"name": name},
        messages=(f"Removed {name}. Its images are withdrawn by the next sync; see `coppice plan`.",),
    )


@command.command(
    "refresh",
    epilog=examples(
        "coppice subscription refresh",
        "coppice subscription refresh egi --json",
        exits="0 all verified, 1 some were, otherwise the first failure's own (5 refused, 6 not to be had)",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@pass_context
def refresh(context: Context, names: tuple[str, ...]) -> Result:
    """Fetch and verify lists: those named, or all. No cloud is changed."""
    from coppice.subscription.store import SubscriptionStore
    from coppice.workflows.refresh import refresh as refresh_lists

    store = SubscriptionStore(context.database)
    chosen = tuple(store.get(name) for name in dict.fromkeys(names)) if names else store.all()
    report = refresh_lists(
        chosen,
        store=store,
        client=context.client(),
        clock=context.clock,
        settings=context.settings,
        monitor=context.monitor,
    )
    rows = [
        {
            "subscription": each.subscription.name,
            "fresh": each.fresh,
            "version": each.verified.content.version if each.verified else None,
            "images": len(each.verified.content.images) if each.verified else None,
            "expires": each.verified.content.validity.expires if each.verified else None,
            "error": each.error.code if each.error else None,
        }
        for each in report.outcomes
    ]
    fresh = any(each.fresh for each in report.outcomes)
    warnings = [f"{o.subscription.name}: {text}" for o in report.outcomes if o.verified for text in o.verified.warnings]

    def render(output: Output) -> None:
        output.table(["subscription", "fresh", "version", "images", "expires", "error"], [r.values() for r in rows])  # type: ignore[misc]

    return Result(
        command="subscription refresh",
        data={"lists": rows},
        status=Status.SUCCESS if not report.errors else Status.PARTIAL if fresh else Status.ERROR,
        messages=tuple(warnings) if rows else ("No subscriptions yet.",),
        errors=report.errors,
        show=render,
    )


def _endorser(
    subject: str | None, issuer: str | None, certificate: Path | None
) -> tuple[DistinguishedName, DistinguishedName]:
    from coppice.model.endorser import DistinguishedName

    if certificate is not None:
        if subject or issuer:
            raise UsageError(
                "--endorser-certificate says what --endorser-dn and --endorser-ca would: give one or the other"
            )
        return _from_certificate(certificate)
    if not subject or not issuer:
        raise UsageError(
            "the endorser is missing",
            resolution="Give --endorser-certificate FILE, or both --endorser-dn and --endorser-ca. "
            "A list is trusted because of who signed it, so there is no default.",
        )
    try:
        return DistinguishedName.parse(subject), DistinguishedName.parse(issuer)
    except ValueError as problem:
        raise InputError(str(problem), resolution="Write names as in /DC=org/DC=example/CN=Jane Doe.") from problem


def _from_certificate(path: Path) -> tuple[DistinguishedName, DistinguishedName]:
    from cryptography import x509

    from coppice.formats.names import distinguished_name

    try:
        with path.open("rb") as stream:
            certificate = x509.load_pem_x509_certificate(stream.read(_MAX_CERTIFICATE_BYTES))
        return distinguished_name(certificate.subject), distinguished_name(certificate.issuer)
    except (OSError, ValueError) as problem:
        raise UnreadableFileError(
            f"{path} is not a certificate that can be read: {problem}",
            resolution="Name a PEM file with the endorser's certificate.",
            context={"path": str(path)},
        ) from problem


def _as_dict(subscription: Subscription) -> dict[str, object]:
    trust = subscription.trust
    return {
        "name": subscription.name,
        "uri": redact(subscription.uri),
        "list_identifier": subscription.list_identifier,
        "endorser_dn": ", ".join(str(each.subject) for each in trust.endorsers),
        "endorser_ca": ", ".join(str(each.issuer) for each in trust.endorsers),
        "anchors": trust.anchors,
        "revocation": trust.revocation,
        "images": subscription.selection.images,
        "added_at": subscription.added_at,
    }


def _show(output: Output, subscription: Subscription) -> None:
    output.pairs({key.replace("_", " "): value for key, value in _shown(_as_dict(subscription)).items()})


def _shown(data: dict[str, object]) -> dict[str, object]:
    images = data["images"]
    return {**data, "images": ", ".join(images) if isinstance(images, tuple) and images else "all"}
