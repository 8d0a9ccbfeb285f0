# SPDX-License-Identifier: Apache-2.0
"""Select: from what is known of the subscribed lists to what a site wants in its clouds. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.cloud.model import Desired, DesiredImage, DesiredList
from coppice.cloud.properties import clean
from coppice.errors import DocumentError
from coppice.model.identifiers import ImageKey
from coppice.model.version import Version
from coppice.subscription.selection import Selector, Wish
from coppice.workflows.listed_sets import MAX_NAME_LENGTH, built_on, set_of, sets_of, with_sets_in_doubt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from coppice.cloud.model import Revocation
    from coppice.errors import CoppiceError
    from coppice.imagelist.model import ImageList, ListedImage
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier
    from coppice.workflows.listed_sets import ListedSet
    from coppice.workflows.refresh import ListOutcome


@dataclass(slots=True, kw_only=True)
class _Followed:
    """A list that is followed, by whatever number of subscriptions.

    Attributes:
        content: Its highest version that is known; None: nothing of it is.
        known: What those subscriptions choose whose list is known.
        in_doubt: What those choose of whose list nothing is known today.
        distrusted: Whether all that is known of it, from every subscription to it, is that it is trusted no more.
    """

    content: ImageList | None = None
    known: list[Selector] = field(default_factory=list)
    in_doubt: list[Selector] = field(default_factory=list)
    distrusted: bool = True


def select(
    outcomes: Iterable[ListOutcome],
    unsubscribed: Collection[ListIdentifier],
    taken_back: Mapping[ListIdentifier, str] | None = None,
    revocations: tuple[Revocation, ...] = (),
) -> Desired:
    """Return what is wanted.

    Two subscriptions to one list are one: its highest version counts, and what either wants is wanted. A list that is
    subscribed to again is not unsubscribed, whatever was said before. While it is not known which list a subscription
    is to, nothing counts as unsubscribed or as not selected. An image of which it cannot be told whether it is wanted
    stays as it is.

    Args:
        outcomes: What became of every subscription.
        unsubscribed: Lists that are not followed any more.
        taken_back: The version from which an administrator reset the floor of a list.
        revocations: What an administrator revoked.

    Raises:
        InputError: A selection's expression is none.
    """
    outcomes = tuple(outcomes)
    followed: dict[ListIdentifier, _Followed] = {}
    for outcome in outcomes:
        _note(followed, outcome)
    # A subscription whose first list was not verified yet may be to any list.
    nameless = any(each.verified is None and each.subscription.list_identifier is None for each in outcomes)
    back = taken_back or {}
    lists = tuple(
        _desired_list(each.content, each, back.get(identifier), nameless=nameless)
        for identifier, each in sorted(followed.items())
        if each.content is not None
    )
    distrusted = frozenset(
        identifier for identifier, each in followed.items() if each.content is None and each.distrusted
    )
    if nameless:
        return Desired(lists=lists, distrusted=distrusted, revocations=revocations)
    gone = frozenset(each for each in unsubscribed if each not in followed)
    return Desired(lists=lists, unsubscribed=gone, distrusted=distrusted, revocations=revocations)


def _note(followed: dict[ListIdentifier, _Followed], outcome: ListOutcome) -> None:
    chosen = Selector(outcome.subscription.selection)
    if outcome.verified is None:
        identifier = outcome.subscription.list_identifier
        if identifier is not None:
            about = followed.setdefault(identifier, _Followed())
            about.in_doubt.append(chosen)
            about.distrusted = about.distrusted and outcome.distrusted
        return
    content = outcome.verified.content
    about = followed.setdefault(content.identifier, _Followed())
    about.known.append(chosen)
    if about.content is None or Version(content.version) > Version(about.content.version):
        about.content = content


def unreadable_entries(outcomes: Iterable[ListOutcome]) -> tuple[CoppiceError, ...]:
    """Return an error for each entry of a fresh list of which nothing but the identifier is known."""
    return tuple(
        DocumentError(
            f"image {entry.identifier} of list {outcome.verified.content.identifier} cannot be read: {entry.problem}",
            resolution="What is registered of it stays as it is. Tell the list's publisher.",
            context={"list": outcome.verified.content.identifier, "image": entry.identifier},
        )
        for outcome in outcomes
        if outcome.verified is not None
        for entry in outcome.verified.content.unreadable
        if Selector(outcome.subscription.selection).wish_unreadable(entry.identifier) is not Wish.UNWANTED
    )


def _desired_list(content: ImageList, about: _Followed, taken_back: str | None, *, nameless: bool) -> DesiredList:
    unknown: set[ImageIdentifier] = set()
    images, in_doubt = [], set()
    sets = sets_of(content)
    for entry in content.unreadable:
        wishes = {each.wish_unreadable(entry.identifier) for each in (*about.known, *about.in_doubt)}
        if nameless or wishes != {Wish.UNWANTED}:
            unknown.add(entry.identifier)
    for listed in content.images:
        wish = _wish(listed, content.vo, about, nameless=nameless)
        if wish is Wish.UNKNOWN or (wish is Wish.WANTED and not _has_order(listed)):
            unknown.add(listed.identifier)
            in_doubt.add(set_of(listed)[0])
        elif wish is Wish.WANTED:
            images.append(_desired_image(content, listed, sets))
    return DesiredList(
        identifier=content.identifier,
        version=content.version,
        expires=content.validity.expires,
        images=tuple(with_sets_in_doubt(images, in_doubt)),
        unknown=frozenset(unknown),
        taken_back=taken_back,
    )


def _wish(listed: ListedImage, vo: str | None, about: _Followed, *, nameless: bool) -> Wish:
    known = {each.wish(listed, vo) for each in about.known}
    if Wish.WANTED in known:
        return Wish.WANTED
    # Wanted by a subscription of which nothing is known today: it is not known to be unwanted.
    doubted = any(each.wish(listed, vo) is not Wish.UNWANTED for each in about.in_doubt)
    return Wish.UNKNOWN if Wish.UNKNOWN in known or doubted or nameless else Wish.UNWANTED


def _has_order(listed: ListedImage) -> bool:
    try:
        Version(listed.version)
    except ValueError:
        return False
    return True


def _desired_image(content: ImageList, listed: ListedImage, sets: Mapping[str, ListedSet]) -> DesiredImage:
    ends = content.validity.expires
    identifier, version = set_of(listed)
    of_set = None if identifier is None else sets[identifier]
    if of_set is not None and of_set.expires is not None:
        # The parts of a set are of no use without each other: they end together, with the first that ends.
        ends = min(ends, of_set.expires)
    return DesiredImage(
        key=ImageKey(content.identifier, listed.identifier),
        listed=listed,
        list_version=content.version,
        expires=ends if listed.expires is None else min(listed.expires, ends),
        vo=None if content.vo is None else clean(content.vo, MAX_NAME_LENGTH) or None,
        set_identifier=identifier,
        set_version=version,
        set_problem=None if of_set is None else of_set.problem,
        built_on=built_on(listed),
    )
