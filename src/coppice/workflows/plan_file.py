# SPDX-License-Identifier: Apache-2.0
"""Plan files: a plan is written, looked at by people, and carried out later, if it is still the same.

What such a file says is never done because it says so. The plan is made anew, from the lists that were verified last
and from what the clouds have, and compared with the file: whoever writes a file of his own can at most have it refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice import __version__, atomic
from coppice.clock import to_rfc3339
from coppice.cloud.plan_data import plan_as_dict, plan_differences
from coppice.cloud.revocations import Revocations
from coppice.errors import DocumentError, PlanFileError, StalePlanError
from coppice.formats.strict_json import read_json
from coppice.schedule.lock import run_lock
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.converge import LOCK_NAME, SyncReport, converge
from coppice.workflows.listed import recall_lists
from coppice.workflows.obtain import Obtainer
from coppice.workflows.refresh import ListOutcome
from coppice.workflows.select import select
from coppice.workflows.tell import tell

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from coppice.cloud.driver import Cloud
    from coppice.cloud.steps import Plan
    from coppice.http import Client
    from coppice.workflows.converge import Site

FORMAT = "coppice-plan"
FORMAT_VERSION = 1
MAX_FILE_BYTES = 128 * 1024 * 1024
"""A plan of 10,000 actions takes some 8 MB."""
MAX_VALUES = 10_000_000
_MOST_DIFFERENCES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """What a plan file says.

    Attributes:
        made_at: When it was written, as it says.
        only: Names of the subscriptions that were followed; None: all.
        allow_withdrawals: Whether withdrawals over the cap are among what it plans.
        clouds: Cloud → its plan, as data.
        sites: Cloud → identifier of the site whose images are meant.
    """

    made_at: str
    only: tuple[str, ...] | None
    allow_withdrawals: bool
    clouds: Mapping[str, Mapping[str, object]]
    sites: Mapping[str, object]


def write_plan_file(
    path: Path,
    report: SyncReport,
    clouds: Mapping[str, Cloud],
    site: Site,
    *,
    only: Collection[str] | None,
    allow_withdrawals: bool,
) -> tuple[str, ...]:
    """Write the plans of a dry run to ``path``; return the names of the clouds that it is for.

    A cloud of which no plan could be made is not in it.

    Raises:
        PlanFileError: There is no plan at all.
        StorageError: It cannot be written.
    """
    plans = {each.cloud: plan_as_dict(each.plan) for each in report.clouds if each.plan is not None and not each.error}
    if not plans:
        raise PlanFileError(
            f"there is no plan that could be written to {path}",
            resolution="No cloud could be asked: the other errors say why.",
        )
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "coppice": __version__,
        "made_at": to_rfc3339(site.clock.now()),
        "subscriptions": None if only is None else sorted(set(only)),
        "allow_withdrawals": allow_withdrawals,
        "sites": {name: clouds[name].site for name in plans},
        "clouds": plans,
    }
    atomic.write_text(path, json.dumps(document, indent=1, ensure_ascii=True) + "\n")
    return tuple(plans)


def read_plan_file(path: Path) -> PlanFile:
    """Read a plan file; nothing of it is believed but that somebody wants this plan.

    Raises:
        PlanFileError: It is none, or one of another version.
        StorageError: It cannot be read.
    """
    with atomic.storage_errors("reading", path), path.open("rb") as stream:
        payload = stream.read(MAX_FILE_BYTES + 1)
    try:
        found = read_json(
            payload, what="file", max_bytes=MAX_FILE_BYTES, max_values=MAX_VALUES, max_text_bytes=1024 * 1024
        )
    except DocumentError as problem:
        raise _no_plan(path, problem.message) from problem
    if found.get("format") != FORMAT:
        raise _no_plan(path, "it does not say that it is one")
    if found.get("version") != FORMAT_VERSION:
        raise _no_plan(path, f"its version is {str(found.get('version'))[:20]!r}, and {FORMAT_VERSION} is known")
    only, clouds, withdrawals = found.get("subscriptions"), found.get("clouds"), found.get("allow_withdrawals")
    sites = found.get("sites")
    if not (only is None or (isinstance(only, list) and all(isinstance(each, str) for each in only))):
        raise _no_plan(path, "its subscriptions are no list of names")
    if not isinstance(withdrawals, bool):
        raise _no_plan(path, "it does not say whether withdrawals over the cap are allowed")
    if not isinstance(clouds, dict) or not clouds or not all(isinstance(each, dict) for each in clouds.values()):
        raise _no_plan(path, "it has no plan of a cloud")
    return PlanFile(
        made_at=str(found.get("made_at"))[:40],
        only=None if only is None else tuple(only),
        allow_withdrawals=withdrawals,
        clouds=clouds,
        sites=sites if isinstance(sites, dict) else {},
    )


def apply_plan_file(
    agreed: PlanFile,
    clouds: Mapping[str, Cloud],
    site: Site,
    client: Client,
    *,
    allow_withdrawals: bool = False,
    dry_run: bool = False,
    wait_seconds: float = 0,
) -> SyncReport:
    """Carry out the plan that was agreed to, if it is still what is to be done; else change nothing.

    Args:
        agreed: What was agreed to.
        clouds: Those that it is for, by name.
        site: What it is done with.
        client: Fetches the images.
        allow_withdrawals: The administrator confirms what the cap would hold; a file cannot.
        dry_run: Compare only.
        wait_seconds: How long to wait for another run to end.

    Raises:
        PlanFileError: It is of another site, or plans withdrawals over the cap, which are not allowed here.
        StalePlanError: Another plan would be made now, for one of the clouds at least.
        LockedError: Another run is at work.
        DatabaseError: The database failed.
    """
    if agreed.allow_withdrawals and not allow_withdrawals:
        raise PlanFileError(
            "the plan was made with --allow-withdrawals, and a file cannot allow that",
            resolution="See what it withdraws; if that is meant, add --allow-withdrawals here as well.",
        )
    for name, cloud in sorted(clouds.items()):
        if agreed.sites.get(name) != cloud.site:
            raise PlanFileError(
                f"the plan is not of site {cloud.site}, whose images cloud {name} has",
                details=f"it says {str(agreed.sites.get(name))[:80]!r}",
                resolution="`coppice plan --out FILE` writes one of this site.",
                context={"cloud": name},
            )
    options = {"allow_withdrawals": agreed.allow_withdrawals, "agreed": lambda made: _refuse_other(agreed, made)}
    settings, database = site.settings, site.database
    with run_lock(settings.state_directory / LOCK_NAME, wait_seconds):
        store = SubscriptionStore(database)
        outcomes = tuple(_followed(each, agreed.only) for each in recall_lists(store, site.clock, settings.lists))
        desired = select(outcomes, store.unsubscribed(), store.taken_back(), Revocations(database).in_force())
        reports = converge(desired, clouds, site, dry_run=True, **options)  # type: ignore[arg-type]
        for stale in (each.error for each in reports if isinstance(each.error, StalePlanError)):
            raise stale
        if not dry_run:
            with Obtainer(
                settings=settings,
                client=client,
                clock=site.clock,
                database=database,
                outcomes=outcomes,
                monitor=site.monitor,
            ) as obtainer:
                reports = converge(
                    desired,
                    clouds,
                    site,
                    supplies=obtainer.supply,
                    wait_seconds=wait_seconds,
                    **options,  # type: ignore[arg-type]
                )
    if not dry_run:
        tell(settings, database, site.clock, site.monitor)
    return SyncReport(refreshed=None, unreadable=(), clouds=reports)


def _followed(outcome: ListOutcome, only: tuple[str, ...] | None) -> ListOutcome:
    """Return what is known of a list in this run: nothing, where its subscription was not chosen."""
    if only is None or outcome.subscription.name in only:
        return outcome
    return ListOutcome(subscription=outcome.subscription, verified=None, fresh=False)


def _refuse_other(agreed: PlanFile, made: Plan) -> None:
    found = plan_differences(agreed.clouds.get(made.cloud, {}), made)
    if not found:
        return
    left = len(found) - _MOST_DIFFERENCES
    shown = (*found[:_MOST_DIFFERENCES], *((f"and {left} more",) if left > 0 else ()))
    raise StalePlanError(
        f"what would be done in cloud {made.cloud} now is not what was planned at {agreed.made_at}",
        details="\n".join(shown),
        resolution="Nothing was changed. `coppice plan --out` makes a new plan.",
        context={"cloud": made.cloud, "differences": list(shown)},
    )


def _no_plan(path: Path, why: str) -> PlanFileError:
    return PlanFileError(
        f"{path} is no plan that can be carried out: {why}",
        resolution="`coppice plan --out FILE` writes one.",
        context={"path": str(path)},
    )
