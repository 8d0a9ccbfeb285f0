# SPDX-License-Identifier: Apache-2.0
"""Rollback: an earlier version that a cloud still has becomes the one to use again, and stays it; and release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.model import Desired
from coppice.cloud.pins import plan_release, plan_rollback
from coppice.cloud.revocations import Revocations
from coppice.errors import NotFoundError, UsageError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.model.version import Version
from coppice.workflows.converge import Site, SyncReport, converge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import Policy, RegisteredImage
    from coppice.cloud.steps import Plan
    from coppice.model.identifiers import ImageKey
    from coppice.workflows.converge import CloudReport


def rollback(
    key: ImageKey,
    version: str,
    clouds: Mapping[str, Cloud],
    site: Site,
    *,
    reason: str | None = None,
    alone: bool = False,
    dry_run: bool = False,
    wait_seconds: float = 0,
) -> SyncReport:
    """Go back to ``version`` of an image, and of all of its set, in ``clouds``; newer versions wait until `release`.

    A cloud that does not have the version fails, and stays as it is.

    Raises:
        UsageError: ``version`` is none.
        DatabaseError: The database failed.
    """
    if not Version.is_version(version):
        raise UsageError(f"{version[:80]!r} is no version")

    def planner(
        _desired: Desired, registered: Sequence[RegisteredImage], _policy: Policy, now: datetime, cloud: str
    ) -> Plan:
        revoked = Revocations(site.database).in_force()
        return plan_rollback(registered, key, version, now, cloud, alone=alone, revocations=revoked)

    reports = converge(Desired(lists=()), clouds, site, dry_run=dry_run, wait_seconds=wait_seconds, planner=planner)
    for report in reports:
        _tell(report, EventKind.IMAGE_PINNED, key, site, version=version, reason=reason)
    return SyncReport(refreshed=None, unreadable=(), clouds=reports)


def release(
    key: ImageKey, clouds: Mapping[str, Cloud], site: Site, *, dry_run: bool = False, wait_seconds: float = 0
) -> SyncReport:
    """Let an image, and all of its set, follow its list again; the next sync makes the newest version available.

    Raises:
        NotFoundError: It is fixed to no version in any cloud.
        DatabaseError: The database failed.
    """

    def planner(
        _desired: Desired, registered: Sequence[RegisteredImage], _policy: Policy, now: datetime, cloud: str
    ) -> Plan:
        return plan_release(registered, key, now, cloud)

    reports = converge(Desired(lists=()), clouds, site, dry_run=dry_run, wait_seconds=wait_seconds, planner=planner)
    asked = [report for report in reports if report.plan is not None]
    if asked and len(asked) == len(reports) and not any(report.plan and report.plan.actions for report in asked):
        raise NotFoundError(
            f"image {key} is fixed to no version",
            resolution="coppice image rollback fixes one; coppice cloud images shows what is registered.",
        )
    for report in reports:
        _tell(report, EventKind.IMAGE_UNPINNED, key, site)
    return SyncReport(refreshed=None, unreadable=(), clouds=reports)


def _tell(report: CloudReport, kind: EventKind, key: ImageKey, site: Site, **facts: object) -> None:
    results = report.applied.results if report.applied is not None else ()
    if not results or any(each.error is not None or each.taken_back for each in results):
        return
    about = {"cloud": report.cloud, "list": key.list_identifier, "image": key.image_identifier, **facts}
    said = {name: value for name, value in about.items() if value is not None}
    Journal(site.database).record(kind, subject=f"{report.cloud}:{key}", facts=said, at=site.clock.now())
