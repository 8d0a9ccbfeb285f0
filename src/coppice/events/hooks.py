# SPDX-License-Identifier: Apache-2.0
"""Hooks: who is told, of what, and by which means. `MEANS` is the whole table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coppice.events.line_file import LineFile
from coppice.events.model import RUN_KINDS
from coppice.events.program import ProgramHook, Surroundings
from coppice.events.vmcatcher import is_told
from coppice.events.webhook import WebHook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.clock import Clock
    from coppice.events.message import Telling
    from coppice.events.model import Event
    from coppice.http import Client
    from coppice.settings.model import HookSettings


class Hook(Protocol):
    """Tells somebody of events."""

    def prepare(self) -> None:
        """See to what is needed before the first event; without it no event is tried, and none is parked.

        Raises:
            HookError: It is not there.
        """
        ...

    def tell(self, telling: Telling) -> str:
        """Tell of one event; return what was answered.

        Raises:
            HookError: It was not taken; ``context["output"]`` is what was said instead.
            InterruptedRunError: The run is to end.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplies:
    """What hooks are made with.

    Attributes:
        around: What programs find around them.
        clock: Tells the time.
        client: Makes the client of webhooks.
    """

    around: Surroundings
    clock: Clock
    client: Callable[[], Client]


MEANS: dict[str, Callable[[HookSettings, Supplies], Hook]] = {
    "program": lambda hook, supplies: ProgramHook(hook, supplies.around),
    "webhook": lambda hook, supplies: WebHook(hook, supplies.client(), supplies.clock, supplies.around.environ),
    "file": lambda hook, _supplies: LineFile(hook),
}
"""Kind of hook → what makes it."""


def make_hook(hook: HookSettings, supplies: Supplies) -> Hook:
    """Return the hook that the settings describe."""
    return MEANS[hook.kind](hook, supplies)


def wants(hook: HookSettings, event: Event, followers: Mapping[str, frozenset[str]]) -> bool:
    """Tell whether a hook is told of an event.

    Args:
        hook: Its settings.
        event: What happened.
        followers: Identifier of a list → the subscriptions that follow it.
    """
    if hook.compat is not None and not is_told(event):
        return False
    if hook.events and str(event.kind) not in hook.events:
        return False
    # A run is no subscription's; who is told of what happened in it is told of its begin and its end.
    if not hook.subscriptions or event.kind in RUN_KINDS:
        return True
    if event.subscription is not None:
        return event.subscription in hook.subscriptions
    return not followers.get(event.list_identifier or "", frozenset()).isdisjoint(hook.subscriptions)
