# SPDX-License-Identifier: Apache-2.0
"""What must hold of an image list, and of an end that is set, before anything of it is kept: all problems at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.catalogue import keys
from coppice.catalogue.drafts import APPLIANCE_KEYS, LIST_KEYS
from coppice.clock import to_rfc3339
from coppice.errors import InconsistentListError, InputError
from coppice.model.version import MAX_VERSION_LENGTH, Version, next_version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from coppice.catalogue.drafts import ApplianceDraft, SelectionDraft
    from coppice.catalogue.keys import Draft, Key
    from coppice.catalogue.model import Selection


def check_list(
    draft: SelectionDraft,
    *,
    endorsers: Collection[str],
    publishers: Collection[str] | None = None,
    last_version: str | None = None,
) -> None:
    """Check an image list as it would be kept.

    Args:
        draft: The list.
        endorsers: Names of those who can sign here.
        publishers: Names of the publishers of the settings; None: not known here, and not asked for.
        last_version: What counted as published until now.

    Raises:
        InconsistentListError: Something does not hold; the details name all of it.
    """
    problems = [*_values(draft, LIST_KEYS), *_extra(draft), *_versions(draft.last_version, last_version)]
    if draft.endorser not in endorsers:
        problems.append(f"endorser: nobody of the name {draft.endorser!r} can sign here ({_known(endorsers)})")
    if publishers is not None and draft.publisher not in publishers:
        problems.append(f"publisher: the settings name none {draft.publisher!r} ({_known(publishers)})")
    _refuse(problems, f"the image list {draft.name}")


def check_appliance(draft: ApplianceDraft) -> None:
    """Check an appliance as it would be kept.

    Raises:
        InconsistentListError: Something does not hold; the details name all of it.
    """
    problems = [*_values(draft, APPLIANCE_KEYS), *_extra(draft)]
    for least, better, what in (
        (draft.minimum_cores, draft.recommended_cores, "cores"),
        (draft.minimum_ram_mib, draft.recommended_ram_mib, "ram_mib"),
    ):
        if least is not None and better is not None and better < least:
            problems.append(f"recommended_{what}: {better} is less than minimum_{what}, {least}")
    _refuse(problems, f"the appliance {draft.name}")


def check_contents(selection: Selection, *, unreleased: bool = False) -> None:
    """Check that a list carries each appliance once, and every set whole.

    Args:
        selection: The list and what it carries.
        unreleased: Whether a set may have no release yet, as long as the list is not published.

    Raises:
        InconsistentListError: It does not; the details name all of it.
    """
    _refuse(list(_contents(selection, unreleased=unreleased)), f"the image list {selection.name}")


def require_to_come(instant: datetime, now: datetime, what: str) -> None:
    """Refuse an end that lies before today: it would withdraw what nobody was told of.

    Raises:
        InputError: It does.
    """
    if instant < now.replace(hour=0, minute=0, second=0, microsecond=0):
        raise InputError(
            f"{what} cannot end on {to_rfc3339(instant)}, which is past",
            resolution=f"Name {now:%Y-%m-%d} or a later day; today's date ends it today.",
        )


def _contents(selection: Selection, *, unreleased: bool) -> Iterator[str]:
    carried: dict[str, str] = {version.appliance.name: "by itself" for version in selection.versions}
    for each in selection.sets:
        if each.release is None:
            if not unreleased:
                yield f"the set {each.name} has no release yet: `coppice set release {each.name}` makes one"
            continue
        for member in each.release.members:
            name = member.appliance.name
            if name in carried:
                yield f"{name} is carried {carried[name]} and by the set {each.name}: a list names an appliance once"
            carried[name] = f"by the set {each.name}"


def _values(draft: Draft, known: Sequence[Key]) -> Iterator[str]:
    # A draft is set by key, which reads each value, or by attribute, which does not: both are held to the same rules.
    for key in known:
        value = getattr(draft, key.attribute) if key.attribute is not None else draft.keys.get(str(key.wire))
        if value is None or (value == key.empty and not key.required):
            if key.required and key.attribute != "last_version":
                yield f"{key.name}: it cannot be missing"
            continue
        try:
            key.read(value)
        except ValueError as problem:
            yield f"{key.name}: {problem}"


def _extra(draft: Draft) -> Iterator[str]:
    if len(draft.keys) > keys.MAX_OWN_KEYS:
        yield f"it has more than {keys.MAX_OWN_KEYS} keys"


def _versions(wanted: str | None, last: str | None) -> Iterator[str]:
    if last is not None and (wanted is None or Version(wanted) < Version(last)):
        yield f"version: {last} was published, and a list's version never goes down to {wanted}"
    elif wanted is not None and len(next_version(wanted)) > MAX_VERSION_LENGTH:
        yield f"version: none can come after {wanted[:60]}…"


def _known(names: Collection[str]) -> str:
    return f"there are: {', '.join(sorted(names)) or 'none'}"


def _refuse(problems: list[str], what: str) -> None:
    if problems:
        raise InconsistentListError(
            f"{what} would contradict itself: {problems[0]}",
            details="\n".join(problems) if len(problems) > 1 else None,
            resolution="Nothing was changed.",
            context={"problems": problems},
        )
