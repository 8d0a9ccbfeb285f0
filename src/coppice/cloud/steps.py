# SPDX-License-Identifier: Apache-2.0
"""`Plan` and its actions, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.cloud.model import DesiredImage, ImageState, RegisteredImage
    from coppice.errors import CoppiceError
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey, ListIdentifier


class ActionKind(StrEnum):
    """What can be done to a cloud."""

    REGISTER = "register"
    UPDATE_METADATA = "update-metadata"
    CHANGE_STATE = "change-state"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step of a plan.

    Attributes:
        kind: What to do.
        key: To which image of which list.
        version: Which version.
        digest: Which content.
        reason: Why, for people.
        desired: What to register or describe (REGISTER, UPDATE_METADATA, and CHANGE_STATE to available).
        registered: What is acted upon (all but REGISTER; there, the unfinished registration that is made anew). None
            for a CHANGE_STATE of what the plan itself registers: `after` names that action.
        state: The state to go to (CHANGE_STATE, REGISTER).
        after: Positions in the plan of the actions that must have succeeded before (make before break).
        together: The set whose flips succeed together or are taken back together: none is begun before all that any of
            them is `after` succeeded. None: it stands alone.
        pin: The version that is written as the image's pin (CHANGE_STATE); empty: the pin goes. None: it stays.
    """

    kind: ActionKind
    key: ImageKey
    version: str
    digest: Checksum
    reason: str
    desired: DesiredImage | None = None
    registered: RegisteredImage | None = None
    state: ImageState | None = None
    after: tuple[int, ...] = ()
    together: str | None = None
    pin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Something that the plan would do and does not.

    Attributes:
        list_identifier: Whose images it is about.
        action: What; None when the whole list is refused.
        error: Why not, and what releases it. Held withdrawals of one list share one error.
    """

    list_identifier: ListIdentifier
    action: Action | None
    error: CoppiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do to one cloud, in order.

    Attributes:
        cloud: Name of the target.
        made_at: When.
        actions: Steps, in an order in which they can be applied.
        held: Withdrawals over the cap and lists that are refused.
        unchanged: How many registered images stay as they are.
        fingerprint: sha256 of what was registered when the plan was made; a stale plan is refused by it.
        refused: Listed images that are not registered because they are revoked, and of which nothing is to be done.
    """

    cloud: str
    made_at: datetime
    actions: tuple[Action, ...]
    held: tuple[Held, ...]
    unchanged: int
    fingerprint: str
    refused: tuple[CoppiceError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """What became of one action.

    Exactly one of ``registered`` and ``error`` is set, neither for a removal that went well.

    Attributes:
        action: Which.
        registered: The image afterwards.
        error: Why it failed, or was not tried.
        skipped: True when it was not tried (what it depends on failed, or the image is in use).
        taken_back: True when it succeeded and was undone, for another of its set failed.
        seconds: How long it took.
    """

    action: Action
    registered: RegisteredImage | None = None
    error: CoppiceError | None = None
    skipped: bool = False
    taken_back: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """What became of a plan.

    Attributes:
        plan: Which.
        results: Of the actions that were carried out, in the order of the plan.
        awaited: Actions that were not begun, for what they need is not here yet, and those that depend on them.
    """

    plan: Plan
    results: tuple[ActionResult, ...] = field(default_factory=tuple)
    awaited: tuple[Action, ...] = ()
