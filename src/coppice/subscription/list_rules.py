# SPDX-License-Identifier: Apache-2.0
"""The rules that every list keeps to, whatever its source and by whatever it is trusted. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.errors import ChangedListError, ExpiredListError, FutureListError, ListIdentifierError, OlderListError
from coppice.model.identifiers import is_uuid
from coppice.model.version import Version
from coppice.subscription.judgement import Rule

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.imagelist.model import ImageList
    from coppice.model.checksum import Checksum
    from coppice.settings.model import SubscriptionsSettings
    from coppice.subscription.judgement import RuleTable
    from coppice.subscription.model import Subscription, TrustedVersion

_SECOND = "%Y-%m-%d %H:%M:%S UTC"


def check_identifier(content: ImageList, subscription: Subscription, table: RuleTable) -> None:
    """Check that it is the list that was subscribed to.

    Raises:
        ListIdentifierError: It is another one.
    """
    expected = subscription.list_identifier
    if expected is not None and not _is_same(content.identifier, expected):
        raise ListIdentifierError(
            f"the list {content.identifier} is not the one subscribed to",
            details=f"expected {expected}; its title: {content.title[:200]!r}",
            resolution="If the publisher has begun a new list, subscribe to that one, and remove this subscription.",
        )
    table.passed(Rule.LIST_IDENTIFIER, content.identifier + ("" if expected else ", fixed by this first list"))


def _is_same(one: str, other: str) -> bool:
    """Tell whether two identifiers are one; only UUIDs have two spellings."""
    return one == other or (is_uuid(one) and one.lower() == other.lower())


def check_validity(content: ImageList, now: datetime, terms: SubscriptionsSettings, table: RuleTable) -> None:
    """Check that a list was created in the past, as far as clocks agree, and has not expired.

    Raises:
        FutureListError: It was created in the future.
        ExpiredListError: It has expired.
    """
    validity = content.validity
    skew = timedelta(seconds=terms.clock_skew_seconds)
    if validity.created > now + skew:
        raise FutureListError(
            f"the list says that it was created on {validity.created:{_SECOND}}, which is yet to come",
            details=f"now: {now:{_SECOND}}; granted: {skew.total_seconds():.0f} s",
            resolution="Check this machine's clock.",
        )
    table.passed(Rule.NOT_FROM_FUTURE, f"created {validity.created:{_SECOND}}, now {now:{_SECOND}}")
    if validity.is_expired(now):
        raise ExpiredListError(
            f"the list expired on {validity.expires:{_SECOND}}",
            details=f"now: {now:{_SECOND}}",
            resolution="The publisher must publish a new version.",
        )
    table.passed(Rule.NOT_EXPIRED, f"expires {validity.expires:{_SECOND}}, now {now:{_SECOND}}")


def check_floor(content: ImageList, payload: Checksum, last: TrustedVersion | None, table: RuleTable) -> None:
    """Check as `check_version` does, and note what was compared.

    Raises:
        OlderListError: Its version is lower.
        ChangedListError: Its version is the same, its content is not.
    """
    check_version(content, payload, last)
    if last is None:
        table.passed(Rule.NOT_OLDER, f"version {content.version}; none was verified before")
        table.passed(Rule.NOT_CHANGED, "none was verified before")
        return
    table.passed(Rule.NOT_OLDER, f"version {content.version}, before {last.version}")
    again = payload.matches(last.payload_checksum)
    table.passed(Rule.NOT_CHANGED, "the same list again" if again else "another version")


def check_version(content: ImageList, payload: Checksum, last: TrustedVersion | None) -> None:
    """Check that a list does not go back behind what was verified last of it.

    Versions have an order of their own (`coppice.model.version`). Where one of the two is no version, their dates of
    creation are compared.

    Args:
        content: The list.
        payload: The checksum of its signed bytes.
        last: What was verified last; None: nothing.

    Raises:
        OlderListError: Its version is lower.
        ChangedListError: Its version is the same, its content is not.
    """
    if last is None:
        return
    order, compared = _compare(content, last)
    same_content = payload.matches(last.payload_checksum)
    if order < 0 and not (same_content and content.version == last.version):
        raise OlderListError(
            f"the list has {compared[0]}; {compared[1]} was verified before",
            details=f"version {content.version or '(none)'}, created {content.validity.created:{_SECOND}}\n"
            f"before: version {last.version or '(none)'}"
            + (f", created {last.created:{_SECOND}}" if last.created else ""),
            resolution="Somebody may be replaying an old list. Ask the publisher.",
        )
    if order == 0 and not same_content:
        raise ChangedListError(
            f"the list has {compared[0]}, as one that was verified before, but other content",
            details=f"before: {last.payload_checksum}\nnow:    {payload}",
            resolution="The publisher must give each content a version of its own.",
        )


def _compare(content: ImageList, last: TrustedVersion) -> tuple[int, tuple[str, str]]:
    """Return -1, 0 or 1 as the list is older, as old or newer, and the values by which that was told."""
    try:
        new, old = Version(content.version), Version(last.version)
    except ValueError:
        created, before = content.validity.created, last.created
        if before is None:
            # It cannot be told: what was verified before is kept.
            return -1, (f"version {content.version!r}, which has no place in the order", f"version {last.version!r}")
        said = (f"no version that can be compared, and was created on {created:{_SECOND}}", f"{before:{_SECOND}}")
        return (created > before) - (created < before), said
    return (new > old) - (new < old), (f"version {content.version}", last.version)
