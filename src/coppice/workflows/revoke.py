# SPDX-License-Identifier: Apache-2.0
"""Revoke: nothing new starts from an image any more, in any cloud, at once; and taking that back.

The database comes first: what a cloud that fails today does not learn, the next run tells it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.model import Desired
from coppice.cloud.plan import plan
from coppice.cloud.revocation import Known
from coppice.cloud.revocations import KeptRevocation, Revocations, Target, plan_taking_back
from coppice.errors import InputError, NotFoundError, UsageError
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.model.version import Version
from coppice.subscription.rows import canonical
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.converge import Site, SyncReport, converge
from coppice.workflows.image_comparison import followed_image
from coppice.workflows.listed import recall_lists
from coppice.workflows.select import select

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import Policy, RegisteredImage
    from coppice.cloud.steps import Plan
    from coppice.workflows.refresh import ListOutcome

_DIGESTS = ("sha256:", "sha384:", "sha512:")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeReport:
    """What became of a revocation, or of its being taken back.

    Attributes:
        target: What it is of.
        revocations: The revocation; or those that were taken back.
        is_new: Whether anything was changed in the database.
        run: What became of the clouds.
    """

    target: Target
    revocations: tuple[KeptRevocation, ...]
    is_new: bool
    run: SyncReport


def key_of(text: str, site: Site) -> ImageKey:
    """Return the image that ``text`` means: LIST/IMAGE, or what a list that is followed names so.

    LIST is a list's identifier or the name of its subscription.

    Raises:
        NotFoundError: It is no LIST/IMAGE, and no list names it.
        StateError: Several lists do.
    """
    try:
        found = followed_image(site.database, site.clock, site.settings.lists, text)
    except NotFoundError:
        # What is registered may be of a list that nobody follows any more.
        of_list, slash, image = text.partition("/")
        if not (slash and of_list and image):
            raise
        return ImageKey(_list_of(of_list, site), ImageIdentifier(canonical(image)))
    return ImageKey(found.list_identifier, found.image.identifier)


def target_of(text: str, *, version: str | None, every_version: bool, site: Site) -> Target:
    """Return what ``text`` and the options mean.

    Raises:
        UsageError: They do not say one thing, or a digest is none.
        NotFoundError: No image is meant.
        StateError: Several are.
    """
    digest = _digest(text)
    if digest is not None:
        if version is not None or every_version:
            raise UsageError("a digest says which version is meant: neither --image-version nor --every-version")
        return Target(digest=digest)
    if (version is not None) is every_version:
        raise UsageError(
            "it must be said whether one version is meant, or every one",
            resolution="Add --image-version VERSION, or --every-version for those to come as well.",
        )
    if version is not None and not Version.is_version(version):
        raise UsageError(f"{version[:80]!r} is no version")
    return Target(key=key_of(text, site), version=version)


def revoke(
    target: Target,
    reason: str,
    clouds: Mapping[str, Cloud],
    site: Site,
    *,
    dry_run: bool = False,
    wait_seconds: float = 0,
) -> RevokeReport:
    """Revoke ``target``, and what is known to be built on it.

    What the dates demand is done as well, as by `coppice.workflows.retire`; no list is fetched.

    Raises:
        DatabaseError: The database failed; no cloud was touched.
    """
    revocations, now, outcomes = Revocations(site.database), site.clock.now(), _outcomes(site)
    in_force = revocations.in_force()
    if dry_run:
        made = target.revocation(reason, now, _named(outcomes))
        kept, is_new = KeptRevocation(number=0, revocation=made), True
        in_force = (*in_force, kept.revocation)
    else:
        kept, is_new = revocations.make(target, reason=reason, at=now, known=_named(outcomes))
        in_force = revocations.in_force()
    desired, listed = Desired(lists=(), revocations=in_force), _listed(site, outcomes)

    def planner(
        desired: Desired, registered: Sequence[RegisteredImage], policy: Policy, now: datetime, cloud: str
    ) -> Plan:
        return plan(desired, registered, policy, now, cloud, listed=listed)

    reports = converge(desired, clouds, site, dry_run=dry_run, wait_seconds=wait_seconds, planner=planner)
    run = SyncReport(refreshed=None, unreadable=(), clouds=reports)
    return RevokeReport(target=target, revocations=(kept,), is_new=is_new, run=run)


def take_back(
    target: Target, clouds: Mapping[str, Cloud], site: Site, *, dry_run: bool = False, wait_seconds: float = 0
) -> RevokeReport:
    """Take back every revocation of ``target``; what is listed becomes available with the next sync.

    It may be repeated: a cloud that failed lets go then.

    Raises:
        DatabaseError: The database failed; no cloud was touched.
    """
    revocations = Revocations(site.database)
    meant = tuple(each for each in revocations.all() if target.is_of(each.revocation))
    if not dry_run:
        meant = revocations.take_back(target, at=site.clock.now())
    numbers = {each.number for each in meant}
    remaining = [each.revocation for each in revocations.all() if each.number not in numbers]
    listed = _listed(site, _outcomes(site))

    def planner(
        _desired: Desired, registered: Sequence[RegisteredImage], _policy: Policy, now: datetime, cloud: str
    ) -> Plan:
        taken = [each.revocation for each in meant]
        return plan_taking_back(registered, target, remaining, now, cloud, listed=listed, taken=taken)

    nothing = Desired(lists=())
    reports = converge(nothing, clouds, site, dry_run=dry_run, wait_seconds=wait_seconds, planner=planner)
    run = SyncReport(refreshed=None, unreadable=(), clouds=reports)
    return RevokeReport(target=target, revocations=meant, is_new=bool(meant), run=run)


def _outcomes(site: Site) -> tuple[ListOutcome, ...]:
    return recall_lists(SubscriptionStore(site.database), site.clock, site.settings.lists)


def _named(outcomes: Iterable[ListOutcome]) -> Iterator[Known]:
    """Return all that the lists name that were verified last, be it selected or not."""
    for content in (outcome.verified.content for outcome in outcomes if outcome.verified is not None):
        for image in content.images:
            yield Known(ImageKey(content.identifier, image.identifier), image.version, image.checksum, ())


def _listed(site: Site, outcomes: Iterable[ListOutcome]) -> Desired:
    """Return what is wanted of the lists that were verified last: by it, what is built on what is revoked is known."""
    store = SubscriptionStore(site.database)
    try:
        return select(outcomes, store.unsubscribed(), store.taken_back())
    except InputError:
        # What is wrong with one selection must not keep an image from being revoked; each sync tells of it.
        return Desired(lists=())


def _list_of(text: str, site: Site) -> ListIdentifier:
    """Return the list that ``text`` means; a subscription's name is not taken for a list's identifier."""
    for subscription in SubscriptionStore(site.database).all():
        if subscription.name != text:
            continue
        if subscription.list_identifier is None:
            raise NotFoundError(
                f"which list the subscription {text!r} is to is not known yet",
                resolution=f"`coppice subscription refresh {text}` fetches it; or write the list's identifier.",
            )
        return subscription.list_identifier
    return ListIdentifier(canonical(text))


def _digest(text: str) -> Checksum | None:
    if not text.startswith(_DIGESTS):
        return None
    try:
        return Checksum.parse(text)
    except ValueError as problem:
        # Somebody meant a digest; as an image's name it would revoke nothing.
        raise UsageError(
            str(problem), resolution="`coppice cloud images --json` shows the whole digest of what is registered."
        ) from problem
