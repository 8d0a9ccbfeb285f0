# SPDX-License-Identifier: Apache-2.0
"""`Source`: the plug-in kind that lists come from, what it is made with, and what it judges by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.formats.limits import ListLimits
    from coppice.http import Client, Fetched, Validators
    from coppice.imagelist.model import ImageList
    from coppice.settings.model import SubscriptionsSettings
    from coppice.subscription.anchors import AnchorShelf
    from coppice.subscription.model import Subscription, TrustedVersion, VerifiedImageList


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSupplies:
    """What sources of one run are made with.

    Attributes:
        client: For what is fetched over HTTP; None: this run judges what is kept, and fetches nothing.
        clock: Tells the time.
        limits: Bounds on lists.
        anchors: Trust anchors, each path of which is read once in a run.
        catalogue: Returns one of the site's own image lists by name, its images at ``file://`` addresses, or raises
            `NotFoundError`; None: there is no catalogue at hand.
        recall: Returns the signed list in force of another subscription by name, judged today, for what is trusted by
            it, or raises why it is not known; None: no subscriptions are at hand.
        notes_directory: Where a source may keep what it found out at some expense; it can be lost. None: nowhere.
    """

    client: Client | None
    clock: Clock
    limits: ListLimits
    anchors: AnchorShelf
    catalogue: Callable[[str], ImageList] | None = None
    recall: Callable[[str], VerifiedImageList] | None = None
    notes_directory: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a source judges by, beside what it fetched and whom the subscription trusts.

    Attributes:
        last: What was verified last of this list: the floor against rollback; None: nothing yet.
        now: The date of the verdict; aware, UTC.
        limits: Bounds on lists.
        terms: Tolerances and terms of warning.
        first_verified_at: Only for a message that was verified before and is judged again: the dates of certificates
            and keys are judged then. Revocation, and the dates of the list itself, are judged now all the same.
        previous: Returns the message in force before this one, for sources whose lists have no signed date of their
            own: None when there is none. None: this one itself was in force.
        earlier: Returns the messages that were in force before that one, one by one, as far as they are archived; those
            that an administrator took back are not among them. None: they do not matter.
    """

    last: TrustedVersion | None
    now: datetime
    limits: ListLimits
    terms: SubscriptionsSettings
    first_verified_at: datetime | None = None
    previous: Callable[[], bytes | None] | None = None
    earlier: Callable[[], Iterable[bytes]] | None = None


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
            TrustError: A rule is broken; the class says which. `UntrustedSignerError`: whoever signed it is none of
                those who are trusted. `UnsignedListError`: nobody did, and somebody must. `TamperedListError`: it is
                not what was signed. `KeyringError`: what would tell who is trusted cannot be used.
        """
        ...

    def read(self, message: bytes, subscription: Subscription, limits: ListLimits) -> ImageList:
        """Return what a kept message says, to be shown and compared; nothing may be registered from it.

        Where that needs no more than the message, its signature is checked once more; its dates are not.

        Raises:
            TrustError, DocumentError: It cannot be read.
        """
        ...

    def trust_state(self, subscription: Subscription) -> str:
        """Return what changes when the trust anchors, keyrings or keys of a subscription change, or their contents.

        It has at most 64 characters (a digest in hex).

        Raises:
            TrustAnchorError, KeyringError: They cannot be used.
        """
        ...


class SourceDriver(Protocol):
    """What makes sources of one kind: usually their class."""

    def __call__(self, supplies: SourceSupplies, /) -> Source:
        """Return a source for one run."""
        ...

    def check_options(self, options: Mapping[str, object], /) -> None:
        """Check a subscription's options before it is kept; files that they name need not be there yet.

        Raises:
            InputError: An option is unknown, has a value that cannot be, or nobody would be trusted.
        """
        ...
