# SPDX-License-Identifier: Apache-2.0
"""Staleness: what has changed since an appliance was built, and whether it is to be built anew. Pure: no I/O.

What could not be found out is never taken for unchanged.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.formats.deb_version import DebVersion
from coppice.formats.rpm_advisories import worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coppice.definition.model import RebuildPolicy
    from coppice.factory.model import Package

FIRST_RETRY_SECONDS = 3600.0
LAST_RETRY_SECONDS = 7 * 24 * 3600.0


class Trigger(StrEnum):
    """What asks for a new build."""

    SECURITY = "security-updates"
    UPDATES = "updates"
    DEFINITION = "definition"
    PARENT = "parent"
    EXPIRY = "expiry"


class Choice(StrEnum):
    """What is to be done."""

    REBUILD = "rebuild"
    LATER = "later"
    """Something changed, and its time has not come."""
    FRESH = "fresh"
    """Nothing has changed."""
    UNKNOWN = "unknown"
    """Whether something changed could not be found out."""
    NEVER = "never"
    """It is not built anew any more, or not by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A package repository whose index was verified.

    Attributes:
        name: For people: where it is, and its suite.
        is_security: Whether what it has are security updates.
        made_at: When its index was made.
        versions: The highest version that it has of each package, by name.
    """

    name: str
    is_security: bool
    made_at: datetime
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageUpdate:
    """An installed package of which a repository has a higher version.

    Attributes:
        name: Of the package.
        installed: The version in the image.
        available: The highest version that there is; with a name before it, that of the package that takes its place.
        is_security: Whether one of the higher versions is a security update; None: its repository does not say.
        severity: How grave, where that is said: ``low``, ``moderate``, ``important`` or ``critical``; else empty.
    """

    name: str
    installed: str
    available: str
    is_security: bool | None
    severity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTry:
    """Builds that failed since the last one that did not.

    Attributes:
        count: How many.
        at: When the last of them did.
        state: `Evidence.state` at that time: where it is another now, it may go well.
        code: Code of the error.
        message: The error.
    """

    count: int
    at: datetime
    state: str
    code: str
    message: str

    def next_at(self) -> datetime:
        """Return when it is tried again though nothing changed: later each time."""
        seconds = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(self.count - 1, 16))
        return self.at + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of an appliance's newest version, and of what it was built from.

    Attributes:
        built_at: When it was built.
        policy: When it is built anew.
        updates: Packages with higher versions; None: not known.
        unknown: What could not be found out, in sentences.
        changed_keys: What its definition says otherwise now.
        definition: Digest of its definition as it is now; empty: there is none.
        parent: In a sentence, how what it is built upon changed; empty: it did not.
        parent_digest: Of what it would be built upon now; empty: of nothing, or not known.
        expires: When its endorsement ends; None: with its list.
        validity_days: How long a new version would be endorsed; None: as its list.
        discontinued_on: When the appliance ends; None: it goes on.
        end_of_life: From this day on its operating system gets no updates; None: not known.
        failed: Builds that failed since; None: none did.
        tried_at: When it was last built anew, whatever came of it; None: never by itself.
        tried_state: `state` after that: as long as it is the same, another build would come out alike.
    """

    built_at: datetime
    policy: RebuildPolicy
    updates: tuple[PackageUpdate, ...] | None
    unknown: tuple[str, ...] = ()
    changed_keys: tuple[str, ...] = ()
    definition: str = ""
    parent: str = ""
    parent_digest: str = ""
    expires: datetime | None = None
    validity_days: int | None = None
    discontinued_on: datetime | None = None
    end_of_life: date | None = None
    failed: FailedTry | None = None
    tried_at: datetime | None = None
    tried_state: str = ""

    @property
    def security(self) -> int:
        """How many packages have a security update, as far as is known."""
        return sum(each.is_security is True for each in self.updates or ())

    @property
    def undeclared(self) -> int:
        """Of how many packages with updates it is not known whether these are security updates."""
        return sum(each.is_security is None for each in self.updates or ())

    @property
    def state(self) -> str:
        """What changes when a build may come out another way: a sha256."""
        said = [self.definition, self.parent_digest, sorted([each.name, each.available] for each in self.updates or ())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether an appliance is to be built anew, and why.

    Attributes:
        choice: What is to be done.
        triggers: What asks for a new build.
        reasons: Why, in sentences.
        due_at: When it is to be built, where that is later; None: now, or never.
    """

    choice: Choice
    triggers: tuple[Trigger, ...]
    reasons: tuple[str, ...]
    due_at: datetime | None = None


def find_updates(packages: Iterable[Package], repositories: Sequence[Repository]) -> tuple[PackageUpdate, ...]:
    """Return the packages of which ``repositories`` have higher versions, by name."""
    found: dict[str, PackageUpdate] = {}
    for package in packages:
        if package.manager != "deb":
            continue
        installed = DebVersion(package.version)
        offered = [(each, each.versions[package.name]) for each in repositories if package.name in each.versions]
        higher = [(each, version) for each, version in offered if DebVersion(version) > installed]
        if higher:
            # The same package of two architectures is one update.
            found[package.name] = PackageUpdate(
                name=package.name,
                installed=package.version,
                available=max((version for _, version in higher), key=DebVersion),
                is_security=any(each.is_security for each, _ in higher),
            )
    return tuple(found[name] for name in sorted(found))


def are_covered(packages: Iterable[Package], repositories: Sequence[Repository]) -> bool:
    """Tell whether ``repositories`` have most of the packages: those that do not say nothing of them."""
    known = [
        package.manager == "deb" and any(package.name in each.versions for each in repositories) for package in packages
    ]
    return sum(known) * 2 >= len(known)


def decide(evidence: Evidence, now: datetime, *, waits: bool = True) -> Decision:
    """Return what is to be done with an appliance.

    Args:
        evidence: What is known.
        now: This instant.
        waits: Whether intervals, failed tries and a policy that is switched off count.
    """
    ended = _ended(evidence, now)
    if ended is not None:
        return Decision(choice=Choice.NEVER, triggers=(), reasons=(ended,))
    said = _triggers(evidence, now)
    triggers = tuple(trigger for trigger, _ in said)
    reasons = (*(reason for _, reason in said), *evidence.unknown)
    if waits and not evidence.policy.enabled:
        why = "its definition says that it is not built anew by itself"
        return Decision(choice=Choice.NEVER, triggers=triggers, reasons=(*reasons, why))
    if not triggers:
        choice = Choice.UNKNOWN if evidence.unknown or evidence.updates is None else Choice.FRESH
        return Decision(choice=choice, triggers=(), reasons=reasons or ("nothing has changed since it was built",))
    due, why_later = _due(evidence, triggers)
    if waits and due > now:
        return Decision(choice=Choice.LATER, triggers=triggers, reasons=(*reasons, why_later), due_at=due)
    return Decision(choice=Choice.REBUILD, triggers=triggers, reasons=reasons)


def _ended(evidence: Evidence, now: datetime) -> str | None:
    if evidence.discontinued_on is not None:
        return f"it is discontinued on {evidence.discontinued_on:%Y-%m-%d}, and takes no new versions"
    if evidence.end_of_life is not None and evidence.end_of_life <= now.astimezone(UTC).date():
        return f"its operating system gets no updates since {evidence.end_of_life:%Y-%m-%d}"
    return None


def _triggers(evidence: Evidence, now: datetime) -> list[tuple[Trigger, str]]:
    found: list[tuple[Trigger, str]] = []
    security, others = evidence.security, len(evidence.updates or ()) - evidence.security
    if security:
        names = [each.name for each in evidence.updates or () if each.is_security]
        said = f"{_packages(security)} with security updates{_grave(evidence.updates)}: {_shown(names)}"
        found.append((Trigger.SECURITY, said))
    if others:
        names = [each.name for each in evidence.updates or () if not each.is_security]
        silent = evidence.undeclared
        hint = f"; of {silent} it is not said whether they are security updates" if silent else ""
        found.append((Trigger.UPDATES, f"{_packages(others)} with updates: {_shown(names)}{hint}"))
    if evidence.changed_keys:
        found.append((Trigger.DEFINITION, f"its definition changed: {_shown(evidence.changed_keys)}"))
    if evidence.parent:
        found.append((Trigger.PARENT, evidence.parent))
    if evidence.expires is not None and evidence.expires - now <= _before(evidence):
        word = "ended" if evidence.expires <= now else "ends"
        found.append((Trigger.EXPIRY, f"its endorsement {word} on {evidence.expires:%Y-%m-%d}"))
    return found


def _before(evidence: Evidence) -> timedelta:
    days = float(evidence.policy.before_expiry_days)
    if evidence.validity_days is not None:
        # A version that is endorsed for less than that would be due as soon as it is there.
        days = min(days, evidence.validity_days / 2)
    return timedelta(days=days)


def _due(evidence: Evidence, triggers: tuple[Trigger, ...]) -> tuple[datetime, str]:
    interval = timedelta(days=evidence.policy.interval_days)
    last = max(evidence.built_at, evidence.tried_at or evidence.built_at)
    due, why = last, ""
    if not {Trigger.SECURITY, Trigger.EXPIRY} & set(triggers):
        due = last + interval
        why = f"it is built anew {evidence.policy.interval_days} days after its last build, on {due:%Y-%m-%d}"
    if evidence.tried_at is not None and evidence.tried_state == evidence.state and Trigger.EXPIRY not in triggers:
        due = evidence.tried_at + interval
        why = f"a build of {evidence.tried_at:%Y-%m-%d} changed nothing of that; it is tried again on {due:%Y-%m-%d}"
    failed = evidence.failed
    if failed is not None and failed.state == evidence.state and failed.next_at() > due:
        due = failed.next_at()
        tries = "once" if failed.count == 1 else f"{failed.count} times"
        why = f"it failed {tries}, last with {failed.code}; it is tried again on {due:%Y-%m-%d %H:%M} UTC"
    return due, why


def _grave(updates: Iterable[PackageUpdate] | None) -> str:
    gravest = worst(each.severity for each in updates or ())
    return f", up to {gravest}" if gravest else ""


def _packages(count: int) -> str:
    return "1 package" if count == 1 else f"{count} packages"


def _shown(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
