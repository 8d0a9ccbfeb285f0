# SPDX-License-Identifier: Apache-2.0
"""What commands about events share: how kinds, times and hooks are named."""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coppice.clock import to_rfc3339
from coppice.errors import NotFoundError
from coppice.events.model import EventKind
from coppice.events.payload import LISTED
from coppice.settings.quantities import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.cli.context import Context
    from coppice.events.model import Event

_Decorated = TypeVar("_Decorated", bound="Callable[..., Any]")
_MAX_RANGE = 1_000_000


class KindParameter(click.ParamType[EventKind]):
    """A kind of event."""

    name = "kind"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> EventKind:
        """Read the kind, in any case; an unknown one is answered with the nearest."""
        known = {str(kind).lower(): kind for kind in EventKind}
        text = str(value).lower()
        if text in known:
            return known[text]
        near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
        hint = f"Did you mean {known[near[0]]}?" if near else f"There are: {', '.join(EventKind)}."
        return self.fail(f"there is no kind of event {value!r}. {hint}", param, ctx)


class SinceParameter(click.ParamType[datetime]):
    """An RFC 3339 instant, a day, of which the first second (UTC) is meant, or how long ago."""

    name = "since"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the instant."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            return _instant(text)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no date such as 2027-05-31, no instant and no time such as 2h or 7d", param, ctx)


class NumbersParameter(click.ParamType[range]):
    """The number of an event, or the first and the last of several: ``12-40``."""

    name = "numbers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> range:
        """Read the numbers."""
        if isinstance(value, range):
            return value
        first, dash, last = str(value).partition("-")
        if _is_number(first) and (_is_number(last) or not dash):
            numbers = range(int(first), int(last or first) + 1)
            if 0 < len(numbers) <= _MAX_RANGE:
                return numbers
        return self.fail(f"{value!r} is no number of an event, such as 12 or 12-40", param, ctx)


def filter_options(command: _Decorated) -> _Decorated:
    """Add the options that say which events are meant."""
    for option in reversed(
        (
            click.option(
                "--kind", "kinds", type=KindParameter(), multiple=True, help="Only of this kind (may repeat)."
            ),
            click.option("--subscription", metavar="NAME", help="Only of this subscription."),
            click.option("--list", "list_identifier", metavar="UUID", help="Only of this image list."),
            click.option("--image", "image_identifier", metavar="UUID", help="Only of this image."),
            click.option("--cloud", metavar="NAME", help="Only in this cloud."),
        )
    ):
        command = option(command)
    return command


def hook_option(command: _Decorated) -> _Decorated:
    """Add ``--hook``, which may be repeated."""
    return click.option("--hook", "hooks", multiple=True, metavar="NAME", help="Only this hook (may repeat).")(command)


def chosen_hooks(context: Context, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the hooks that are meant: those named, or all of the settings.

    Raises:
        NotFoundError: There is none of that name.
    """
    known = tuple(sorted(context.settings.hooks))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise NotFoundError(
                f"there is no hook {name[:80]!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                resolution="Hooks are tables [hooks.NAME] in the settings; `coppice event hooks` shows them.",
            )
    return tuple(dict.fromkeys(names)) or known


def summary(event: Event) -> str:
    """Return an event in one line for people."""
    facts = event.facts
    listed = facts.get(LISTED)
    title = listed.get("title") if isinstance(listed, dict) else None
    said = [str(each) for each in (title, facts.get("version"), facts.get("change"), facts.get("reason")) if each]
    error = facts.get("error")
    if isinstance(error, dict):
        said.append(str(error.get("code")))
    return f"{event.number}  {to_rfc3339(event.at)}  {event.kind}  {event.subject}" + (
        f"  ({', '.join(said)})" if said else ""
    )


def _instant(text: str) -> datetime:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        pass
    else:
        return datetime.combine(day, time(0), UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < len(text) < 16  # noqa: PLR2004 - what a database can count
