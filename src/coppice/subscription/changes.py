# SPDX-License-Identifier: Apache-2.0
"""What a subscription may be, and what differs between two states of it; a change that asks for less is called so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice.clock import to_rfc3339
from coppice.errors import InputError
from coppice.formats.hepix import MAX_IDENTIFIER_BYTES
from coppice.imagelist.model import Profile
from coppice.log import redact
from coppice.model.identifiers import is_name, is_uuid
from coppice.subscription.expression import parse_expression
from coppice.subscription.model import NamespacePolicy, RevocationPolicy, TrustBasis
from coppice.subscription.source.drivers import HEPIX, load_driver, schemes_of, understands
from coppice.subscription.source.gathered import DEFAULT_VALID_DAYS
from coppice.subscription.source.options import COSIGN_KEY, KEYRING, TRUST, VALID_DAYS, is_plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.subscription.model import PinnedEndorser, Subscription

MAX_URI_LENGTH = 4096
MAX_SELECTED = 10_000
MAX_OPTIONS = 100
_YES = (True, "yes", "true")
_VOUCHING = frozenset({KEYRING, COSIGN_KEY, "signer", "list"})
"""Options that say who vouches: another key, or another list, may be anybody's; and without the one signer, any key of
the keyring will do."""
_UNSAFE = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029]")
_STRICTNESS: dict[str, list[object]] = {
    "revocation": [RevocationPolicy.REQUIRE, RevocationPolicy.IF_PRESENT],
    "namespaces": [NamespacePolicy.REQUIRE, NamespacePolicy.AUTOMATIC, NamespacePolicy.IF_PRESENT],
    "profile": [Profile.STRICT, Profile.LENIENT],
    "allow_sha1": [False, True],
    "allow_host_certificate": [False, True],
    "trust_on_first_use": [False, True],
}
"""What may be asked, the strictest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A value of a subscription that is another one than before.

    Attributes:
        field: Which, as `--set` names it.
        before: As people read it.
        after: As people read it.
        weakens: Whether less is asked of a list, or more people may sign one, than before.
    """

    field: str
    before: str
    after: str
    weakens: bool = False


def check_subscription(subscription: Subscription) -> None:
    """Check that a subscription can be one.

    Raises:
        InputError: Name, address, an identifier or the selection cannot be one; or a secret stands in the address.
    """
    if not is_name(subscription.name):
        raise InputError(
            f"{subscription.name[:80]!r} cannot name a subscription",
            resolution="Use 1 to 64 characters out of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends.",
        )
    _check_texts(subscription)
    _check_source(subscription)
    trust, selection = subscription.trust, subscription.selection
    listed = (*selection.images, *selection.refused)
    if len(listed) > MAX_SELECTED:
        raise InputError(f"a selection names at most {MAX_SELECTED} images; these are {len(listed)}")
    identifiers = (*listed, *([subscription.list_identifier] if subscription.list_identifier else []))
    for identifier in identifiers:
        if is_uuid(identifier):
            continue
        if trust.profile is not Profile.LENIENT or subscription.source.driver != HEPIX:
            raise InputError(
                f"not an identifier (a UUID): {identifier[:80]!r}",
                resolution="Lists with other identifiers are read under the lenient profile only.",
            )
        if not _is_lenient_identifier(identifier):
            raise InputError(
                f"not an identifier: {identifier[:80]!r}",
                resolution=f"It has 1 to {MAX_IDENTIFIER_BYTES} printable bytes, no slash, and no blanks around it.",
            )
    if selection.expression is not None:
        parse_expression(selection.expression)
    if subscription.source.driver == HEPIX and not trust.endorsers and not trust.trust_on_first_use:
        raise InputError(
            f"the subscription {subscription.name!r} would trust nobody",
            resolution="Name an endorser, or say that the first one is to be trusted.",
        )


def differences(before: Subscription, after: Subscription) -> tuple[Change, ...]:
    """Return every value that is another one, in the order in which a subscription is shown."""
    found = []
    old, new = _values(before), _values(after)
    for field, value in new.items():
        if old[field] != value:
            ranks = _STRICTNESS.get(field)
            weakens = ranks is not None and ranks.index(value) > ranks.index(old[field])
            found.append(Change(field=field, before=_text(old[field]), after=_text(value), weakens=weakens))
    found += _option_changes(before.source.options, after.source.options)
    found += _endorser_changes(before.trust.endorsers, after.trust.endorsers)
    return tuple(found)


def describe_endorser(endorser: PinnedEndorser) -> str:
    """Return an endorser on one line, for people."""
    only = f", only the certificate {endorser.fingerprint}" if endorser.fingerprint is not None else ""
    first = " (trusted on first use)" if endorser.first_use else ""
    return f"{endorser.subject} below {endorser.issuer}{only}{first}"


def _is_lenient_identifier(text: str) -> bool:
    # What the reader of lists takes under that profile.
    long = len(text.encode("utf-8", errors="replace")) > MAX_IDENTIFIER_BYTES
    return text.isprintable() and text == text.strip() and text != "" and "/" not in text and not long


def _check_texts(subscription: Subscription) -> None:
    # The bytes of an argument, or of a file's name, may be no text; what could not be shown again is not kept.
    names = [name for each in subscription.trust.endorsers for name in (each.subject, each.issuer)]
    values = {**_values(subscription), "endorser": tuple(pair for name in names for pair in name.attributes)}
    for field, value in values.items():
        text = "".join(map("".join, value)) if isinstance(value, tuple) else str(value)
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise InputError(f"the {field} of a subscription cannot be written in UTF-8") from problem


def _check_source(subscription: Subscription) -> None:
    source, trust = subscription.source, subscription.trust
    driver = load_driver(source.driver)
    _check_uri(subscription.uri, source.driver)
    if len(source.options) > MAX_OPTIONS:
        raise InputError(f"a source has at most {MAX_OPTIONS} options; these are {len(source.options)}")
    driver.check_options(source.options)
    if source.options.get(TRUST) == TrustBasis.TRANSPORT and is_plain(subscription.uri):
        raise InputError(
            f"{subscription.uri} is fetched without TLS: anybody on the way can answer in the stead of the server that "
            "is to be believed",
            resolution="Use https:// (oci:// for a registry), or name the keys of whoever signs.",
        )
    if source.driver == HEPIX:
        if trust.anchors is None:
            raise InputError(
                f"the subscription {subscription.name!r} names no trust anchors", resolution="Name them with --anchors."
            )
    elif trust.endorsers or trust.trust_on_first_use or trust.anchors is not None:
        raise InputError(
            f"no certificate vouches for what the source {source.driver} has: endorsers and trust anchors mean nothing "
            "there",
            resolution=f"Leave them out; see `coppice subscription add --help` for how the source {source.driver} is "
            "trusted.",
        )


def _check_uri(uri: str, driver: str) -> None:
    try:
        scheme = urlsplit(uri).scheme
    except ValueError:
        scheme = ""
    known = schemes_of(driver)
    if not scheme or not understands(driver, uri) or len(uri) > MAX_URI_LENGTH or _UNSAFE.search(uri):
        shown = ", ".join(sorted(_shown_scheme(each) for each in known or {"https"}))
        raise InputError(
            f"the source {driver} cannot be at {redact(uri[:200])!r}",
            resolution=f"Use an address with {shown}, without blanks.",
        )
    if redact(uri) != uri:
        raise InputError(
            f"a secret stands in the address {redact(uri[:200])!r}; addresses are kept and shown",
            resolution="Leave it out, and name the file or the variable that holds it: --token-file, --bearer-file, "
            "--username with --password-file.",
        )


def _shown_scheme(scheme: str) -> str:
    return {"file": "file:///", "catalogue": "catalogue:NAME"}.get(scheme, f"{scheme}://")


def _values(subscription: Subscription) -> dict[str, object]:
    trust, selection, credential = subscription.trust, subscription.selection, subscription.credential
    return {
        "uri": subscription.uri,
        "source": subscription.source.driver,
        "list": subscription.list_identifier,
        "anchors": None if trust.anchors is None else str(trust.anchors),
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
        "access": None if credential is None else credential.kind,
        "username": credential.username if credential else None,
        "secret_file": credential.secret_file if credential else None,
        "secret_variable": credential.secret_variable if credential else None,
        "certificate": credential.certificate if credential else None,
        "key": credential.key if credential else None,
        "server_anchors": subscription.server_anchors,
        "paused_at": subscription.paused_at,
    }


def _option_changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[Change]:
    return [
        Change(
            field=f"option {name}",
            before=_text(_as_value(before.get(name))),
            after=_text(_as_value(after.get(name))),
            # Whoever vouches now, it is more than nobody.
            weakens=_weakens(name, before.get(name), after.get(name)) and not (name in _VOUCHING and TRUST in before),
        )
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _weakens(name: str, before: object, after: object) -> bool:
    """Tell whether an option that is another one asks for less, or may do so."""
    if name == TRUST:
        # To be believed without a signature is less than any.
        return after in set(TrustBasis)
    if name == VALID_DAYS:
        # What is kept from a site for longer is old for longer.
        return _days(after) > _days(before)
    if name == "check_reference":
        return before in _YES and after not in _YES
    return name in _VOUCHING


def _days(value: object) -> float:
    try:
        return float(str(value)) if value is not None else DEFAULT_VALID_DAYS
    except ValueError:
        return DEFAULT_VALID_DAYS


def _as_value(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _endorser_changes(before: tuple[PinnedEndorser, ...], after: tuple[PinnedEndorser, ...]) -> list[Change]:
    gone = [each for each in before if each not in after]
    new = [each for each in after if each not in before]
    removed = [Change(field="endorser", before=describe_endorser(each), after="-") for each in gone]
    return removed + [Change(field="endorser", before="-", after=describe_endorser(each), weakens=True) for each in new]


def _text(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return to_rfc3339(value) if isinstance(value, datetime) else str(value)
