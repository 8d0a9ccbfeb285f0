# SPDX-License-Identifier: Apache-2.0
"""What a site should know about a list although it is accepted: what ends soon, and what is unusual. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.formats.names import distinguished_name
from coppice.settings.model import SubscriptionsSettings
from coppice.subscription.model import ListWarning, WarningKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cryptography import x509

    from coppice.imagelist.model import ImageList
    from coppice.subscription.model import Subscription, TrustedVersion
    from coppice.subscription.path import CheckedPath

DEFAULT_TERMS = SubscriptionsSettings(
    parallel=1,
    clock_skew_seconds=300,
    warn_list_days=7,
    warn_image_days=14,
    warn_certificate_days=14,
    warn_revocation_days=2,
    archive_keep=50,
)
"""As the settings have them where nothing else is said."""
_STALE_SHARE = 0.75
_JUMP_DIGITS = 15
_NAMED_IMAGES = 5
_DAY = "%Y-%m-%d"
_MINUTE = "%Y-%m-%d %H:%M UTC"
_MOMENT = timedelta(microseconds=1)


def warnings_of_path(
    path: CheckedPath, now: datetime, terms: SubscriptionsSettings, *, recalled: bool
) -> Iterator[ListWarning]:
    """Yield what is to be said about the certificates and their CRLs.

    Args:
        path: From the signer up.
        now: This instant.
        terms: How far ahead to warn.
        recalled: Whether the list was verified before: its certificates may have expired since.
    """
    for text in path.warnings:
        yield ListWarning(kind=WarningKind.PATH, text=text)
    near = now + timedelta(days=terms.warn_certificate_days)
    for position, link in enumerate(path.certificates):
        if link.not_valid_after_utc <= near:
            expired = recalled and link.not_valid_after_utc < now
            verb = "expired" if expired else "expires"
            after = ": the next list by it will be refused" if expired else ""
            whose = "the signer's certificate" if position == 0 else f"the certificate of {_name(link)}"
            yield ListWarning(
                kind=WarningKind.CERTIFICATE_EXPIRING,
                text=f"{whose} {verb} on {link.not_valid_after_utc:{_DAY}}{after}",
            )
    due = path.crl_next_update
    if due is not None and due <= now + timedelta(days=terms.warn_revocation_days):
        yield ListWarning(
            kind=WarningKind.REVOCATION_EXPIRING,
            text=f"a certificate revocation list is due on {due:{_MINUTE}}: fetch its next one before",
        )


def warnings_of_content(
    content: ImageList,
    subscription: Subscription,
    last: TrustedVersion | None,
    now: datetime,
    terms: SubscriptionsSettings,
) -> Iterator[ListWarning]:
    """Yield what is to be said about what the list says.

    Args:
        content: The list.
        subscription: Whose list it is.
        last: What was verified last of it.
        now: This instant.
        terms: How far ahead to warn.
    """
    if content.uri and subscription.uri and content.uri != subscription.uri:
        yield ListWarning(
            kind=WarningKind.URI_DIFFERS,
            text=f"the list says that it lives at {content.uri}; this site keeps to {subscription.uri}",
        )
    if not content.endorsers and subscription.source.driver == "hepix":
        # Only such lists name whoever endorses them.
        yield ListWarning(kind=WarningKind.NO_ENDORSER, text="the list names no endorser; only its signer is known")
    yield from _warnings_of_dates(content, now, terms)
    if content.unreadable:
        yield ListWarning(
            kind=WarningKind.UNREADABLE_ENTRIES,
            text=f"{len(content.unreadable)} of its images cannot be read and stay as they are",
        )
    if last is not None and _largest_run(content.version) >= _JUMP_DIGITS > _largest_run(last.version):
        yield ListWarning(
            kind=WarningKind.VERSION_JUMP,
            text=f"the version jumped from {last.version} to {content.version}: lower ones are refused now",
        )
    if last is not None and last.created is not None and content.validity.created < last.created:
        yield ListWarning(
            kind=WarningKind.CREATED_EARLIER,
            text=f"version {content.version} was created on {content.validity.created:{_MINUTE}}, before version "
            f"{last.version} ({last.created:{_MINUTE}})",
        )


def _warnings_of_dates(content: ImageList, now: datetime, terms: SubscriptionsSettings) -> Iterator[ListWarning]:
    validity = content.validity
    if now > validity.created + (validity.expires - validity.created) * _STALE_SHARE:
        yield ListWarning(
            kind=WarningKind.LIST_STALE,
            text=f"the list is stale: three quarters of its life are over, and no newer version has come "
            f"(created {validity.created:{_MINUTE}})",
        )
    if validity.expires <= now + timedelta(days=terms.warn_list_days):
        yield ListWarning(kind=WarningKind.LIST_EXPIRING, text=f"the list expires on {validity.expires:{_MINUTE}}")
    # What ends with the list, or later, is told with the list.
    near = min(now + timedelta(days=terms.warn_image_days), validity.expires - _MOMENT)
    ending = [(image.expires, image) for image in content.images if image.expires is not None and image.expires <= near]
    if ending:
        ending.sort(key=lambda pair: pair[0])
        named = ", ".join(f"{image.identifier} on {expires:{_DAY}}" for expires, image in ending[:_NAMED_IMAGES])
        more = f" and {len(ending) - _NAMED_IMAGES} more" if len(ending) > _NAMED_IMAGES else ""
        yield ListWarning(
            kind=WarningKind.IMAGE_EXPIRING,
            text=f"images expire soon, or have expired: {named}{more}",
        )


def _name(certificate: x509.Certificate) -> str:
    return str(distinguished_name(certificate.subject))


def _largest_run(version: str) -> int:
    return max((len(run) for run in re.findall(r"\d+", version)), default=0)
