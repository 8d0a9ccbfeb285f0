# SPDX-License-Identifier: Apache-2.0
"""What ``coppice doctor`` looks at of subscriptions: their state, trust anchors and credentials; no server is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cli.checks import Check, Verdict
from coppice.cli.output import counted
from coppice.cli.subscription_data import trusted_in_short
from coppice.errors import CoppiceError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from coppice.cli.context import Context
    from coppice.subscription.model import Subscription
    from coppice.subscription.overview import SubscriptionOverview

_BAD = frozenset({"expired", "refused", "failed", "stale"})


def check_subscriptions(context: Context) -> tuple[Check, ...]:
    """Look at every subscription; what is wrong with one is no reason not to look at the others."""
    try:
        settings = context.settings
    except SettingsError:
        return ()  # told where the settings are looked at
    try:
        database = context.existing_database()
        if database is None:
            return ()
        from coppice.subscription.overview import overview
        from coppice.subscription.store import SubscriptionStore

        days = settings.subscriptions.warn_list_days
        followed = SubscriptionStore(database).all()
        stands = {each.name: each for each in overview(database, context.clock.now(), warn_list_days=days)}
    except CoppiceError as problem:
        return (_failed("subscriptions", "following image lists", problem),)
    checks = [*_check_anchors(followed, context.clock.now())]
    for each in followed:
        checks += _check_credential(each)
        checks += _check_keys(context, each)
        if each.name in stands:
            checks.append(_check_state(stands[each.name]))
    return tuple(checks)


def _check_state(stands: SubscriptionOverview) -> Check:
    bad = stands.state in _BAD
    said = [] if stands.last_error is None else [f"[{stands.last_error_code}] {stands.last_error}"]
    said += [each.text for each in stands.warnings]
    return Check(
        kind="subscription",
        name=stands.name,
        verdict=Verdict.NOTE if bad or stands.warnings else Verdict.OK,
        needed_for="fresh images",
        found=stands.state,
        remedy="; ".join(said) or (f"`coppice subscription refresh {stands.name}`" if bad else None),
    )


def _check_anchors(followed: tuple[Subscription, ...], now: datetime) -> Iterator[Check]:
    from coppice.subscription.anchor_files import FileKind
    from coppice.subscription.anchor_report import FileVerdict, report_anchors
    from coppice.subscription.anchors import load_anchors

    by_path: dict[Path, list[str]] = {}
    for each in followed:
        if each.trust.anchors is not None:
            by_path.setdefault(each.trust.anchors, []).append(each.name)
    for path, names in sorted(by_path.items()):
        purpose = f"verifying the list of {', '.join(names)}"
        try:
            found = load_anchors(path)
        except CoppiceError as problem:
            yield _failed(f"trust anchors {path}", purpose, problem)
            continue
        report = report_anchors(found, now)
        usable = report.count(FileKind.CRL, FileVerdict.USABLE)
        yield Check(
            kind="subscription",
            name=f"trust anchors {path}",
            verdict=Verdict.NOTE if report.problems else Verdict.OK,
            needed_for=purpose,
            found=f"{counted(len(found.certificates), 'certificate')}, "
            f"{counted(usable, 'file')} of current revocation lists",
            remedy=f"{counted(len(report.problems), 'file')} cannot be used: {report.problems[0]}"
            if report.problems
            else None,
        )


def _check_credential(subscription: Subscription) -> Iterator[Check]:
    from coppice.http.credential import resolve_credential

    if subscription.credential is None:
        return
    purpose = f"asking the source of {subscription.name}"
    name = f"credential of {subscription.name}"
    try:
        resolve_credential(subscription.credential)
    except CoppiceError as problem:
        yield _failed(name, purpose, problem)
        return
    yield Check(
        kind="subscription", name=name, verdict=Verdict.OK, needed_for=purpose, found=subscription.credential.kind
    )


def _check_keys(context: Context, subscription: Subscription) -> Iterator[Check]:
    from coppice.subscription.source.drivers import HEPIX, judging_shelf

    if subscription.source.driver == HEPIX:
        return  # its trust anchors are looked at for all lists together
    purpose = f"verifying the list of {subscription.name}"
    name = f"source of {subscription.name}"
    try:
        shelf = judging_shelf(context.clock, context.settings.lists)
        shelf.open(subscription.source).trust_state(subscription)
    except CoppiceError as problem:
        yield _failed(name, purpose, problem)
        return
    found = f"{subscription.source.driver}; trusted: {trusted_in_short(subscription)}"
    yield Check(kind="subscription", name=name, verdict=Verdict.OK, needed_for=purpose, found=found)


def _failed(name: str, needed_for: str, problem: CoppiceError) -> Check:
    return Check(
        kind="subscription",
        name=name,
        verdict=Verdict.MISSING,
        needed_for=needed_for,
        found=problem.message,
        remedy=problem.resolution,
        error=problem,
    )
