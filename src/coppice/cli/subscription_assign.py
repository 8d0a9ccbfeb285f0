# SPDX-License-Identifier: Apache-2.0
"""``--set key=value`` of a subscription: one value by its name; an empty value takes away what can be taken away."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.cli.subscription_options import canonical_identifiers, server_anchors_at
from coppice.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.subscription.model import Subscription

_TRUST = ("anchors", "revocation", "namespaces", "profile")
_SWITCHES = {
    "allow_sha1": "allow_sha1",
    "allow_host_certificate": "allow_host_certificate",
    "accept_host_certificate": "allow_host_certificate",
    "trust_on_first_use": "trust_on_first_use",
}
_LISTS = {
    "images": "images",
    "refused": "refused",
    "vos": "vos",
    "os": "operating_systems",
    "operating_systems": "operating_systems",
    "arch": "architectures",
    "architectures": "architectures",
}
KEYS = ("uri", "list", "where", "server_anchors", *_TRUST, *_SWITCHES, *_LISTS)
"""What can be set."""


def assign(subscription: Subscription, assignment: str) -> Subscription:
    """Return ``subscription`` with one value set, as ``key=value`` says.

    Raises:
        UsageError: There is no such key, or no ``=``.
        InputError: The value is none for that key.
    """
    written, sign, value = assignment.partition("=")
    key = written.strip().lower().replace("-", "_")
    if not sign or key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=1)
        raise UsageError(
            f"--set takes key=value, and there is no key {written[:40]!r}" if sign else "--set takes key=value",
            resolution=f"Did you mean {near[0]!r}?" if near else f"The keys are: {', '.join(KEYS)}.",
        )
    if key in _SWITCHES:
        return _with_trust(subscription, **{_SWITCHES[key]: _switch(key, value)})
    if key in _LISTS:
        return _with_list(subscription, _LISTS[key], value)
    return _ASSIGN[key](subscription, value.strip())


def _set_uri(subscription: Subscription, value: str) -> Subscription:
    return replace(subscription, uri=value)


def _set_list(subscription: Subscription, value: str) -> Subscription:
    from coppice.model.identifiers import ListIdentifier

    (identifier,) = canonical_identifiers((value,))
    return replace(subscription, list_identifier=ListIdentifier(identifier) if value else None)


def _set_where(subscription: Subscription, value: str) -> Subscription:
    return replace(subscription, selection=replace(subscription.selection, expression=value or None))


def _set_server_anchors(subscription: Subscription, value: str) -> Subscription:
    return replace(subscription, server_anchors=server_anchors_at(Path(value)) if value else None)


def _set_anchors(subscription: Subscription, value: str) -> Subscription:
    if not value:
        raise InputError("a subscription needs trust anchors")
    return _with_trust(subscription, anchors=Path(value).absolute())


def _set_policy(key: str) -> Callable[[Subscription, str], Subscription]:
    def act(subscription: Subscription, value: str) -> Subscription:
        from coppice.imagelist.model import Profile
        from coppice.subscription.model import NamespacePolicy, RevocationPolicy

        kind = {"revocation": RevocationPolicy, "namespaces": NamespacePolicy, "profile": Profile}[key]
        if value not in {str(each) for each in kind}:
            raise InputError(f"{key} is one of {', '.join(str(each) for each in kind)}, not {value[:40]!r}")
        return _with_trust(subscription, **{key: kind(value)})

    return act


_ASSIGN: dict[str, Callable[[Subscription, str], Subscription]] = {
    "uri": _set_uri,
    "list": _set_list,
    "where": _set_where,
    "server_anchors": _set_server_anchors,
    "anchors": _set_anchors,
    "revocation": _set_policy("revocation"),
    "namespaces": _set_policy("namespaces"),
    "profile": _set_policy("profile"),
}


def _with_list(subscription: Subscription, field: str, value: str) -> Subscription:
    values = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    if field in {"images", "refused"}:
        values = canonical_identifiers(values)
    changed: dict[str, Any] = {field: values}
    return replace(subscription, selection=replace(subscription.selection, **changed))


def _with_trust(subscription: Subscription, **changed: Any) -> Subscription:
    return replace(subscription, trust=replace(subscription.trust, **changed))


def _switch(key: str, value: str) -> bool:
    # Nothing but the two words counts: a misspelt "flase" must not pass for either.
    if value.strip() not in {"true", "false"}:
        raise InputError(f"{key} is true or false, not {value[:40]!r}")
    return value.strip() == "true"
