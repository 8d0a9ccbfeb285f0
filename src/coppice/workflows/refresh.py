# SPDX-License-Identifier: Apache-2.0
"""Refresh: fetch and verify each subscribed list; where that fails, go on with what was verified last.

A list that cannot be fetched or is refused changes nothing: the last verified one is recalled while its dates hold,
and otherwise the list is unknown. Both are told; neither ever becomes an empty list. A source that says that nothing
changed costs one request: its list is not read, unless the caller needs what it says, or the trust anchors or their
CRLs are others than those that it was judged by. A list that is revoked since it
was verified is not unknown but distrusted; so is one by a key that is taken out of the keyring since.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.errors import (
    AuthorityRevokedError,
    CoppiceError,
    DatabaseError,
    ExpiredListError,
    InterruptedRunError,
    NotFoundError,
    SignerRevokedError,
    TamperedListError,
    TrustError,
    UnsignedListError,
    UntrustedSignerError,
    UnverifiedSourceError,
    WrongSignerError,
)
from coppice.http import Fetched, Validators
from coppice.subscription.followers import check_follower, longer_followers
from coppice.subscription.known import KnownSubscription, ListInForce
from coppice.subscription.record import Judged
from coppice.subscription.source.drivers import HEPIX
from coppice.subscription.source.gathered import RENEWING, check_carried
from coppice.subscription.source.options import NAMING_LIST
from coppice.subscription.source.protocol import Circumstances
from coppice.workflows.parallel import in_parallel
from coppice.workflows.sources import open_sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from coppice.clock import Clock
    from coppice.http import Client
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.subscription.model import ListWarning, Subscription, VerifiedImageList
    from coppice.subscription.store import SubscriptionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOutcome:
    """What became of one subscription.

    Attributes:
        subscription: Which.
        verified: Its list, fresh or recalled; None: nothing that is known of it holds today, or nobody asked for it.
        fresh: True when its source was asked in this run, and what it has was verified, in this run or before.
        error: Why it is not fresh.
        unchanged: True when the source said that it has what was verified before.
        distrusted: True when what was verified before is known to be trusted no more: a certificate in its path was
            revoked since, or the key that signed it is none of those that are trusted now.
        in_force: The list that was verified last, in short; None: none was.
        warnings: What the site should know.
    """

    subscription: Subscription
    verified: VerifiedImageList | None
    fresh: bool
    error: CoppiceError | None = None
    unchanged: bool = False
    distrusted: bool = False
    in_force: ListInForce | None = None
    warnings: tuple[ListWarning, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReport:
    """What became of all of them, in their order."""

    outcomes: tuple[ListOutcome, ...]

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """Why lists are not fresh."""
        return tuple(outcome.error for outcome in self.outcomes if outcome.error is not None)


def refresh(
    subscriptions: Iterable[Subscription],
    *,
    store: SubscriptionStore,
    client: Client,
    clock: Clock,
    settings: Settings,
    monitor: Monitor,
    with_contents: bool = True,
    force: bool = False,
    messages: Mapping[str, bytes] | None = None,
) -> RefreshReport:
    """Fetch, verify and record the list of each subscription, several at a time; one that fails never stops the others.

    Args:
        subscriptions: Which; a paused one is not fetched.
        store: Where they are kept.
        client: Fetches.
        clock: Tells the time.
        settings: Limits, terms and how many are fetched at a time.
        monitor: Where progress is told.
        with_contents: Whether the caller needs what the lists say: unchanged ones are then recalled, which verifies
            them anew. Without, a source that has nothing new costs no reading, and no list stays in memory.
        force: Fetch and verify even what did not change.
        messages: Subscription → message that came another way (a bundle): judged as if its source had given it, and
            refused where nobody signed it.

    Raises:
        DatabaseError: What became of them cannot be recorded.
    """
    known = store.known()
    wanted = tuple(known.get(each.name) or KnownSubscription(subscription=each) for each in subscriptions)
    run = _Run(store, client, clock, settings, known=known, with_contents=with_contents, force=force, messages=messages)
    with monitor.task("image lists", total=len(wanted)) as task:

        def done(one: KnownSubscription) -> None:
            task.note(one.subscription.name)
            task.advance(1)

        try:
            found: dict[str, ListOutcome] = {}
            # What the list of another subscription vouches for comes after that.
            for is_later in (False, True):
                jobs = [one for one in wanted if (NAMING_LIST in one.subscription.source.options) is is_later]
                ended = in_parallel(jobs, run.refresh_one, threads=settings.subscriptions.parallel, on_done=done)
                found |= {one.subscription.name: outcome for one, outcome in zip(jobs, ended, strict=True)}
        finally:
            # Whoever is recording ends that first; who still waits for a server records nothing any more.
            run.stop()
    run.record_unchanged()
    return RefreshReport(outcomes=tuple(found[one.subscription.name] for one in wanted))


class _Run:
    """One refresh. Sources are asked at the same time; lists are verified and recorded one after the other.

    So no more messages are in memory than are fetched at a time, one list is read at a time, and one thread writes.
    """

    def __init__(
        self,
        store: SubscriptionStore,
        client: Client,
        clock: Clock,
        settings: Settings,
        *,
        known: Mapping[str, KnownSubscription],
        with_contents: bool,
        force: bool,
        messages: Mapping[str, bytes] | None = None,
    ) -> None:
        self._known = dict(known)
        self._store = store
        self._clock = clock
        self._settings = settings
        self._with_contents = with_contents
        self._force = force
        self._messages = messages or {}
        self._sources = open_sources(store.database, client, clock, settings)
        self._turn_lock = threading.Lock()
        self._is_stopped = False
        self._unchanged: dict[str, Judged | None] = {}
        self._validators: dict[str, tuple[str | None, Validators]] = {}
        self._paused: list[str] = []

    def stop(self) -> None:
        """Let nobody record anything from now on."""
        with self._turn_lock:
            self._is_stopped = True

    def record_unchanged(self) -> None:
        """Record in one transaction what did not change."""
        now, days = self._clock.now(), self._settings.subscriptions.warn_list_days
        judged = {name: said for name, said in self._unchanged.items() if said is not None}
        if self._unchanged:
            as_of = {name: self._known[name].subscription for name in self._unchanged if name in self._known}
            self._store.record_unchanged(
                sorted(self._unchanged),
                now,
                warn_list_days=days,
                judged=judged,
                as_of=as_of,
                validators=self._validators,
            )
        if self._paused:
            self._store.tell_dates(sorted(self._paused), now, warn_list_days=days)

    def refresh_one(self, before: KnownSubscription) -> ListOutcome:
        """Return what became of one subscription."""
        if before.subscription.paused_at is not None:
            with self._turn():
                return self._pause(before)
        try:
            fetched = self._fetch(before)
            with self._turn():
                if fetched.body is None and before.in_force is not None:
                    return self._keep(before, before.in_force, fetched.validators)
                return self._take(before, fetched)
        except (DatabaseError, InterruptedRunError):
            raise
        except CoppiceError as problem:
            with self._turn():
                return self._fail(before, problem)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._turn_lock:
            if self._is_stopped:
                raise InterruptedRunError("the run has ended")
            yield

    def _fetch(self, before: KnownSubscription) -> Fetched:
        carried = self._messages.get(before.subscription.name)
        if carried is not None:
            return Fetched(body=carried, validators=Validators())
        validators = Validators(etag=before.etag, last_modified=before.last_modified)
        needed = self._force or _is_half_over(before.in_force, self._clock.now())
        source = self._sources.open(before.subscription.source)
        return source.fetch(before.subscription, None if needed else validators or None)

    def _take(self, before: KnownSubscription, fetched: Fetched) -> ListOutcome:
        subscription = before.subscription
        identifier = subscription.list_identifier
        message = fetched.body or b""
        circumstances = Circumstances(
            last=None if identifier is None else self._store.last_trusted(identifier),
            now=self._clock.now(),
            limits=self._settings.lists,
            terms=self._settings.subscriptions,
            previous=lambda: self._store.last_message(subscription.name),
            earlier=lambda: self._store.earlier_messages(subscription.name),
        )
        verified = self._sources.open(subscription.source).verify(message, subscription, circumstances)
        if subscription.name in self._messages:
            check_carried(verified)
        self._check_followers(before, verified, message)
        shared = self._store.record(
            verified,
            message,
            as_of=subscription,
            etag=fetched.validators.etag,
            last_modified=fetched.validators.last_modified,
            terms=self._settings.subscriptions,
        )
        known = _in_force(verified, before.in_force)
        self._known[subscription.name] = replace(before, in_force=known)
        return ListOutcome(
            subscription=replace(subscription, list_identifier=verified.content.identifier),
            verified=verified if self._with_contents else None,
            fresh=True,
            in_force=known,
            warnings=(*verified.warnings, *shared),
        )

    def _check_followers(self, before: KnownSubscription, verified: VerifiedImageList, message: bytes) -> None:
        for other in longer_followers(before, self._known.values(), verified.content.identifier):
            now = self._clock.now()
            check_follower(verified, message, other, self._sources, now=now, settings=self._settings)

    def _keep(self, before: KnownSubscription, known: ListInForce, validators: Validators) -> ListOutcome:
        """Go on with the list in force, whose source has nothing newer."""
        now = self._clock.now()
        verified = None
        state = self._sources.open(before.subscription.source).trust_state(before.subscription)
        if self._with_contents or state != known.anchors_state:
            verified = self._recall(before.subscription)
        elif known.expires <= now:
            raise ExpiredListError(
                f"the list expired on {known.expires:%Y-%m-%d %H:%M:%S} UTC, and its source has no newer one",
                resolution="The publisher must publish a new version.",
            )
        if validators != Validators(etag=before.etag, last_modified=before.last_modified):
            self._validators[before.subscription.name] = (before.etag, validators)
        self._unchanged[before.subscription.name] = (
            None if verified is None else Judged(warnings=verified.warnings, anchors_state=verified.anchors_state)
        )
        said = known.warnings_at(now, self._settings.subscriptions.warn_list_days)
        return ListOutcome(
            subscription=before.subscription,
            verified=verified if self._with_contents else None,
            fresh=True,
            unchanged=True,
            in_force=known,
            warnings=said if verified is None else verified.warnings,
        )

    def _fail(self, before: KnownSubscription, problem: CoppiceError) -> ListOutcome:
        subscription, terms = before.subscription, self._settings.subscriptions
        verified, why_not = self._recalled(subscription)
        distrusted = is_distrusted(why_not, subscription)
        if why_not is not None and distrusted and not is_distrusted(problem, subscription):
            problem = _revoked_besides(why_not, problem)
        try:
            self._store.record_failure(
                subscription.name, problem, self._clock.now(), warn_list_days=terms.warn_list_days
            )
        except NotFoundError as gone:
            return ListOutcome(subscription=subscription, verified=None, fresh=False, error=gone)
        return ListOutcome(
            subscription=subscription,
            verified=verified,
            fresh=False,
            error=problem,
            distrusted=distrusted,
            in_force=before.in_force,
        )

    def _pause(self, before: KnownSubscription) -> ListOutcome:
        self._paused.append(before.subscription.name)
        verified, why_not = self._recalled(before.subscription)
        return ListOutcome(
            subscription=before.subscription,
            verified=verified,
            fresh=False,
            # That it expires meanwhile is what a pause brings with it, and is told by its state.
            error=why_not if isinstance(why_not, TrustError) and not isinstance(why_not, ExpiredListError) else None,
            distrusted=is_distrusted(why_not, before.subscription),
            in_force=before.in_force,
        )

    def _recalled(self, subscription: Subscription) -> tuple[VerifiedImageList | None, CoppiceError | None]:
        if not self._with_contents:
            return None, None
        try:
            return self._recall(subscription), None
        except CoppiceError as problem:
            # What was verified once is not trusted today (its date, a revocation, missing anchors), or is damaged.
            return None, problem

    def _recall(self, subscription: Subscription) -> VerifiedImageList:
        return self._store.recall(
            subscription.name,
            self._sources,
            self._clock.now(),
            limits=self._settings.lists,
            terms=self._settings.subscriptions,
            as_of=subscription,
        )


_REVOKED = (SignerRevokedError, AuthorityRevokedError)
_NO_MORE_TRUSTED = (
    *_REVOKED,
    TamperedListError,
    UnsignedListError,
    UntrustedSignerError,
    UnverifiedSourceError,
    WrongSignerError,
)
"""Of what was verified before, and is as it was: whoever vouched for it is not trusted any more. A key has nobody above
it who could revoke it: to take it out of the keyring is how it is revoked."""


def is_distrusted(problem: CoppiceError | None, subscription: Subscription) -> bool:
    """Tell whether a list that cannot be recalled for this reason is known to be trusted no more."""
    return isinstance(problem, _REVOKED if subscription.source.driver == HEPIX else _NO_MORE_TRUSTED)


def _is_half_over(known: ListInForce | None, now: datetime) -> bool:
    """Tell whether a list must be gathered anew although it did not change: nobody but the gathering dates it."""
    if known is None or known.created is None or known.basis not in RENEWING:
        return False
    return now >= known.created + (known.expires - known.created) / 2


def _revoked_besides(revoked: CoppiceError, problem: CoppiceError) -> CoppiceError:
    """Return the graver error: what is in force is revoked, and nothing newer could be had, for a reason of its own."""
    details = "\n".join(part for part in (revoked.details, f"[{problem.code}] {problem.message}") if part)
    return type(revoked)(
        revoked.message, details=details, resolution=revoked.resolution, context={**problem.context, **revoked.context}
    )


def _in_force(verified: VerifiedImageList, before: ListInForce | None) -> ListInForce:
    content = verified.content
    is_same = before is not None and before.identifier == content.identifier
    return ListInForce(
        identifier=content.identifier,
        version=content.version,
        created=content.validity.created,
        expires=content.validity.expires,
        images=len(content.images),
        verified_at=verified.verified_at,
        since=before.since if before is not None and is_same else verified.verified_at,
        warnings=verified.warnings,
        basis=verified.trusted_by.basis,
    )
