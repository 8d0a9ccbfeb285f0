# SPDX-License-Identifier: Apache-2.0
"""`Source`: the plug-in kind that lists come from, and what it judges by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.formats.limits import ListLimits
    from coppice.http import Fetched, Validators
    from coppice.settings.model import SubscriptionsSettings
    from coppice.subscription.model import Subscription, TrustedVersion, VerifiedImageList


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a source judges by, beside what it fetched and whom the subscription trusts.

    Attributes:
        last: What was verified last of this list: the floor against rollback; None: nothing yet.
        now: The date of the verdict; aware, UTC.
        limits: Bounds on lists.
        terms: Tolerances and terms of warning.
    """

    last: TrustedVersion | None
    now: datetime
    limits: ListLimits
    terms: SubscriptionsSettings


class Source(Protocol):
    """A plug-in that gets lists of one kind (group ``coppice.sources``).

    What is fetched is one message that holds all that the verdict needs. So it can be archived as it is, judged again
    at any later date without a network, and carried to a site that has none.
    """

    def fetch(self, subscription: Subscription, validators: Validators | None) -> Fetched:
        """Return the message, unless it says what it said when ``validators`` were given.

        Raises:
            TransferError: It could not be had, whole.
            CredentialError: The credential cannot be had, or cannot be used there.
            MalformedListError: What is there is nothing of this kind.
        """
        ...

    def verify(self, message: bytes, subscription: Subscription, circumstances: Circumstances) -> VerifiedImageList:
        """Judge a message; nothing is fetched.

        Raises:
            TrustError: A rule is broken; the class says which.
        """
        ...

    def trust_state(self, subscription: Subscription) -> str:
        """Return what changes when the trust anchors, keyrings or keys of a subscription change, or their contents.

        Raises:
            TrustAnchorError, KeyringError: They cannot be used.
        """
        ...
