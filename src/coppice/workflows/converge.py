# SPDX-License-Identifier: Apache-2.0
"""Converge: bring each cloud to what is desired, and tell what happened. Sync and retire share it.

A cloud that fails never stops the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.cloud.apply import apply
from coppice.cloud.model import Policy
from coppice.cloud.plan import plan
from coppice.errors import CoppiceError, PartialFailureError
from coppice.workflows.cloud_events import CloudEvents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.clock import Clock
    from coppice.cloud.apply import Obtain, Soonest
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import Desired
    from coppice.cloud.steps import ApplyResult, Plan
    from coppice.events.journal import Journal
    from coppice.monitor import Monitor
    from coppice.settings.model import PlanSettings
    from coppice.workflows.fetch import FetchReport
    from coppice.workflows.needed import Pruned
    from coppice.workflows.refresh import RefreshReport

LOCK_NAME = "run.lock"
"""Name of the lock file in the state directory: whatever changes a cloud holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudReport:
    """What became of one cloud.

    Attributes:
        cloud: Its name.
        plan: What was to be done; None when the cloud could not be described.
        applied: What was done; None after a dry run, or when nothing could be.
        error: Why the cloud as a whole failed.
    """

    cloud: str
    plan: Plan | None = None
    applied: ApplyResult | None = None
    error: CoppiceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What became of a run.

    Attributes:
        refreshed: What became of the lists; None when none was asked for.
        unreadable: One error an entry of a list that could not be read.
        clouds: What became of the clouds, in the order of their names.
        cache: What became of the cache run; None: the site fetches only what plans need.
        pruned: What was removed from the cache; None: nothing was looked for, or the cache run did it.
    """

    refreshed: RefreshReport | None
    unreadable: tuple[CoppiceError, ...]
    clouds: tuple[CloudReport, ...]
    cache: FetchReport | None = None
    pruned: Pruned | None = None

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """Everything that failed or is held, each error once; what was merely not tried is none."""
        found: list[CoppiceError] = [*(self.refreshed.errors if self.refreshed else ()), *self.unreadable]
        found.extend(self.cache.errors if self.cache else ())
        found.extend(self.pruned.errors if self.pruned else ())
        for cloud in self.clouds:
            found.extend(held.error for held in (cloud.plan.held if cloud.plan else ()))
            results = cloud.applied.results if cloud.applied else ()
            found.extend(result.error for result in results if result.error is not None and not result.skipped)
            if cloud.error is not None:
                found.append(cloud.error)
        return tuple({id(error): error for error in found}.values())

    def failure(self) -> PartialFailureError | None:
        """Return the error with which the command ends, or None when all went well."""
        errors = self.errors
        if not errors:
            return None
        return PartialFailureError(
            f"{len(errors)} {'item' if len(errors) == 1 else 'items'} failed; all else was done",
            details="\n".join(error.message for error in errors),
            resolution="Each error says what to do. Run again afterwards: what was done is not done twice.",
            context={"errors": [error.as_dict() for error in errors]},
        )


def policy_of(settings: PlanSettings, *, allow_withdrawals: bool = False) -> Policy:
    """Return the policy that the settings ask for."""
    return Policy(
        grace=timedelta(days=settings.grace_days),
        maximum_withdrawn_share=settings.maximum_withdrawn_share,
        allow_withdrawals=allow_withdrawals,
    )


def converge(
    desired: Desired,
    clouds: Mapping[str, Cloud],
    *,
    policy: Policy,
    obtain: Obtain,
    clock: Clock,
    monitor: Monitor,
    journal: Journal,
    dry_run: bool,
    soonest: Soonest | None = None,
) -> tuple[CloudReport, ...]:
    """Describe, plan and apply, one cloud after the other in the order of their names.

    ``soonest`` says which of several images is here first, and waits for it.
    """
    reports = []
    for name, cloud in sorted(clouds.items()):
        made: Plan | None = None
        try:
            registered = cloud.describe()
            made = plan(desired, registered, policy, clock.now(), name)
            applied = None
            if not dry_run:
                events = CloudEvents(journal.database, name, clock)
                events.catch_up(registered)
                events.begin(made)
                applied = apply(
                    made,
                    cloud,
                    obtain=obtain,
                    clock=clock,
                    policy=policy,
                    monitor=monitor,
                    on_result=events.record,
                    soonest=soonest,
                )
            reports.append(CloudReport(cloud=name, plan=made, applied=applied))
        except CoppiceError as problem:
            reports.append(CloudReport(cloud=name, plan=made, error=problem))
    return tuple(reports)
