# SPDX-License-Identifier: Apache-2.0
"""Subscriptions as ``--json`` prints them and as people read them; no secret is in either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import DeletionCapError
from coppice.log import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coppice.cli.output import Output
    from coppice.errors import CoppiceError
    from coppice.subscription.archive import ArchivedList
    from coppice.subscription.changes import Change
    from coppice.subscription.model import ListWarning, PinnedEndorser, Subscription
    from coppice.subscription.overview import SubscriptionOverview
    from coppice.workflows.refresh import ListOutcome


def subscription_as_dict(subscription: Subscription) -> dict[str, object]:
    """Return a subscription as data."""
    trust, selection, credential = subscription.trust, subscription.selection, subscription.credential
    return {
        "name": subscription.name,
        "uri": redact(subscription.uri),
        "source": {"driver": subscription.source.driver, "options": dict(subscription.source.options)},
        "trusted_by": trusted_in_short(subscription),
        "list_identifier": subscription.list_identifier,
        "endorser_dn": ", ".join(str(each.subject) for each in trust.endorsers),
        "endorser_ca": ", ".join(str(each.issuer) for each in trust.endorsers),
        "endorsers": [endorser_as_dict(each) for each in trust.endorsers],
        "anchors": trust.anchors,
        "revocation": trust.revocation,
        "namespaces": trust.namespaces,
        "profile": trust.profile,
        "allow_sha1": trust.allow_sha1,
        "allow_host_certificate": trust.allow_host_certificate,
        "trust_on_first_use": trust.trust_on_first_use,
        "images": selection.images,
        "refused": selection.refused,
        "vos": selection.vos,
        "operating_systems": selection.operating_systems,
        "architectures": selection.architectures,
        "where": selection.expression,
        "access": None
        if credential is None
        else {
            "kind": credential.kind,
            "username": credential.username,
            "file": credential.secret_file,
            "variable": credential.secret_variable,
            "certificate": credential.certificate,
            "key": credential.key,
        },
        "server_anchors": subscription.server_anchors,
        "added_at": subscription.added_at,
        "paused_at": subscription.paused_at,
    }


def trusted_in_short(subscription: Subscription) -> str:
    """Return on one line who must vouch for a subscription's lists."""
    source = subscription.source
    for key, words in (("keyring", "keys in"), ("cosign_key", "the key"), ("list", "the list of")):
        if key in source.options:
            return f"{words} {_shown(key, source.options[key])}"
    believed = {"transport": "the server alone", "local": "whoever may write there"}
    if "trust" in source.options:
        return believed.get(str(source.options["trust"]), str(source.options["trust"]))
    if subscription.trust.endorsers:
        return ", ".join(str(each.subject) for each in subscription.trust.endorsers)
    return "whoever signs first" if subscription.trust.trust_on_first_use else "as the source says"


def unsigned_messages(subscription: Subscription) -> tuple[str, ...]:
    """Return what is to be said when nobody signs what a subscription believes."""
    said = {
        "transport": "Nobody signs what is there: whoever holds the server, or its name, decides what runs here.",
        "local": "Nobody signs what is there: whoever may write there decides what runs here.",
    }
    found = said.get(str(subscription.source.options.get("trust")))
    return () if found is None else (found,)


def endorser_as_dict(endorser: PinnedEndorser) -> dict[str, object]:
    """Return a trusted endorser as data."""
    return {
        "dn": str(endorser.subject),
        "ca": str(endorser.issuer),
        "fingerprint": None if endorser.fingerprint is None else str(endorser.fingerprint),
        "first_use": endorser.first_use,
    }


def show_subscription(output: Output, subscription: Subscription) -> None:
    """Print a subscription; what was left at nothing is left out, save what people must see."""
    from coppice.subscription.changes import describe_endorser
    from coppice.subscription.source.drivers import HEPIX

    data = subscription_as_dict(subscription)
    access, source = data.pop("access"), subscription.source
    pairs: dict[str, object] = {}
    for key, value in data.items():
        if key in {"endorser_dn", "endorser_ca", "endorsers"}:
            continue
        if source.driver != HEPIX and key in {"anchors", "revocation", "namespaces", "profile"}:
            continue
        if key == "source":
            pairs[key] = source.driver
            pairs.update({f"option {name}": _shown(name, kept) for name, kept in sorted(source.options.items())})
            continue
        if value not in (None, (), False) or key in {"list_identifier", "images"}:
            pairs[key.replace("_", " ")] = _shown(key, value)
    for number, each in enumerate(subscription.trust.endorsers, 1):
        pairs[f"endorser {number}"] = describe_endorser(each)
    if isinstance(access, dict):
        where = ", ".join(f"{key} {value}" for key, value in access.items() if value is not None and key != "kind")
        pairs["access"] = f"{access['kind']} ({where})"
    output.pairs(pairs)


def overview_as_dict(found: SubscriptionOverview) -> dict[str, object]:
    """Return how a subscription stands as data."""
    return {
        "name": found.name,
        "uri": redact(found.uri),
        "list_identifier": found.list_identifier,
        "state": found.state,
        "version": found.version,
        "images": found.images,
        "verified_at": found.verified_at,
        "expires": found.expires,
        "expired": found.state == "expired",
        "checked_at": found.checked_at,
        "paused_at": found.paused_at,
        "last_attempt_at": found.last_attempt_at,
        "last_error_code": found.last_error_code,
        "last_error": found.last_error,
        "warnings": warnings_as_data(found.warnings),
    }


def shown_state(found: SubscriptionOverview) -> str:
    """Return how a subscription stands for people, with the code of what went wrong last."""
    return f"{found.state}" if found.last_error_code is None else f"{found.state} [{found.last_error_code}]"


def warnings_as_data(warnings: Iterable[ListWarning]) -> list[dict[str, str]]:
    """Return warnings as data."""
    return [{"kind": str(each.kind), "text": each.text} for each in warnings]


def archived_as_dict(found: ArchivedList) -> dict[str, object]:
    """Return an archived list as data."""
    return {
        "number": found.number,
        "list_identifier": found.list_identifier,
        "version": found.version,
        "created": found.created,
        "expires": found.expires,
        "payload_checksum": str(found.payload_checksum),
        "message_checksum": str(found.message_checksum),
        "basis": found.basis,
        "signer": found.signer,
        "signer_fingerprint": None if found.signer_fingerprint is None else f"sha256:{found.signer_fingerprint}",
        "verified_at": found.verified_at,
        "is_current": found.is_current,
    }


def errors_by_name(errors: Iterable[CoppiceError], outcomes: Sequence[ListOutcome]) -> tuple[CoppiceError, ...]:
    """Return ``errors`` in their order; those of a subscription, and of its list's plan, say whose they are."""
    owners = {id(each.error): str(each.subscription.name) for each in outcomes if each.error is not None}
    lists = {
        str(each.verified.content.identifier): str(each.subscription.name)
        for each in outcomes
        if each.verified is not None
    }

    def owner(error: CoppiceError) -> str | None:
        of_list = error.context.get("list") if isinstance(error, DeletionCapError) else None
        return owners.get(id(error)) or lists.get(str(of_list))

    return tuple(each if (name := owner(each)) is None else each.told_of(name, subscription=name) for each in errors)


def change_messages(changes: Iterable[Change]) -> tuple[str, ...]:
    """Return a sentence for each change; one that asks for less says so."""
    return tuple(
        f"{each.field}: {each.before} -> {each.after}{' (less is asked than before)' if each.weakens else ''}"
        for each in changes
    )


def _shown(key: str, value: object) -> object:
    if key == "images" and not value:
        return "all"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else value
