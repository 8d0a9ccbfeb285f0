# SPDX-License-Identifier: Apache-2.0
"""Select: from what is known of the subscribed lists to what a site wants in its clouds. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.model import Desired, DesiredImage, DesiredList
from coppice.errors import DocumentError
from coppice.model.identifiers import ImageKey
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from coppice.errors import CoppiceError
    from coppice.imagelist.model import ImageList, ListedImage
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier
    from coppice.workflows.refresh import ListOutcome


def select(outcomes: Iterable[ListOutcome], unsubscribed: Collection[ListIdentifier]) -> Desired:
    """Return what is wanted.

    Two subscriptions to one list are one: its highest version counts, and what either wants is wanted. A list that is
    subscribed to again is not unsubscribed, whatever was said before. While it is not known which list a subscription
    is to, nothing counts as unsubscribed or as not selected.
    """
    outcomes = tuple(outcomes)
    contents: dict[ListIdentifier, ImageList] = {}
    wanted: dict[ListIdentifier, set[ImageIdentifier] | None] = {}
    in_doubt: dict[ListIdentifier, set[ImageIdentifier] | None] = {}
    for outcome in outcomes:
        identifier = outcome.subscription.list_identifier
        if outcome.verified is not None:
            content = outcome.verified.content
            known = contents.get(content.identifier)
            if known is None or Version(content.version) > Version(known.version):
                contents[content.identifier] = content
            _add(wanted, content.identifier, outcome.subscription.selection.images)
        elif identifier is not None:
            _add(in_doubt, identifier, outcome.subscription.selection.images)
    # A subscription whose first list was not verified yet may be to any list.
    nameless = any(each.verified is None and each.subscription.list_identifier is None for each in outcomes)
    lists = tuple(
        _desired_list(content, wanted[identifier], None if nameless else in_doubt.get(identifier, set()))
        for identifier, content in sorted(contents.items())
    )
    if nameless:
        return Desired(lists=lists)
    followed = {each.subscription.list_identifier for each in outcomes} | contents.keys()
    return Desired(lists=lists, unsubscribed=frozenset(each for each in unsubscribed if each not in followed))


def _add(
    choices: dict[ListIdentifier, set[ImageIdentifier] | None],
    identifier: ListIdentifier,
    images: tuple[ImageIdentifier, ...],
) -> None:
    # None stands for all images of a list.
    chosen = choices.setdefault(identifier, set())
    if not images:
        choices[identifier] = None
    elif chosen is not None:
        chosen.update(images)


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
    )


def _desired_list(
    content: ImageList, wanted: set[ImageIdentifier] | None, in_doubt: set[ImageIdentifier] | None
) -> DesiredList:
    unknown = {entry.identifier for entry in content.unreadable}
    images = []
    for listed in content.images:
        if wanted is not None and listed.identifier not in wanted:
            # Wanted by a subscription of which nothing is known today: it is not known to be unwanted.
            if in_doubt is None or listed.identifier in in_doubt:
                unknown.add(listed.identifier)
        elif _has_order(listed):
            images.append(_desired_image(content, listed))
        else:
            unknown.add(listed.identifier)
    return DesiredList(
        identifier=content.identifier,
        version=content.version,
        expires=content.validity.expires,
        images=tuple(images),
        unknown=frozenset(unknown),
    )


def _has_order(listed: ListedImage) -> bool:
    try:
        Version(listed.version)
    except ValueError:
        return False
    return True


def _desired_image(content: ImageList, listed: ListedImage) -> DesiredImage:
    ends = content.validity.expires
    return DesiredImage(
        key=ImageKey(content.identifier, listed.identifier),
        listed=listed,
        list_version=content.version,
        expires=ends if listed.expires is None else min(listed.expires, ends),
    )
