# SPDX-License-Identifier: Apache-2.0
"""Image lists in the HEPiX form, signed by an endorser: the source that everything else is held against.

The message is the signed list as it was published. How it is judged: `coppice.subscription.rules`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import StateError
from coppice.formats.cms import open_message
from coppice.formats.hepix import read_list
from coppice.subscription.fetch import fetch_list
from coppice.subscription.rules import verify_list
from coppice.subscription.source.options import SourceOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.formats.limits import ListLimits
    from coppice.http import Fetched, Validators
    from coppice.imagelist.model import ImageList
    from coppice.subscription.model import Subscription, VerifiedImageList
    from coppice.subscription.source.protocol import Circumstances, SourceSupplies


class HepixSource:
    """Signed image lists; see `coppice.subscription.source.protocol.Source`."""

    def __init__(self, supplies: SourceSupplies) -> None:
        """Use what is supplied."""
        self._supplies = supplies

    @staticmethod
    def check_options(options: Mapping[str, object]) -> None:
        """Check that there are none: whom to trust stands in the subscription itself.

        Raises:
            InputError: There is one.
        """
        SourceOptions("hepix", options).finish()

    def fetch(self, subscription: Subscription, validators: Validators | None) -> Fetched:
        """Return the signed list, unless it is what it was."""
        if self._supplies.client is None:
            raise StateError("nothing can be fetched in this run")
        limit = self._supplies.limits.message_bytes
        return fetch_list(subscription, self._supplies.client, limit, validators=validators)

    def verify(self, message: bytes, subscription: Subscription, circumstances: Circumstances) -> VerifiedImageList:
        """Apply every rule of signed lists."""
        return verify_list(
            message,
            subscription=subscription,
            anchors=self._supplies.anchors.load(subscription.trust.anchors),
            last=circumstances.last,
            now=circumstances.now,
            limits=circumstances.limits,
            terms=circumstances.terms,
            first_verified_at=circumstances.first_verified_at,
        )

    def read(self, message: bytes, subscription: Subscription, limits: ListLimits) -> ImageList:
        """Return what a kept list says; its signature is checked, certificates and dates are not."""
        opened = open_message(message, limits=limits, allow_sha1=True)
        return read_list(opened.payload, profile=subscription.trust.profile, limits=limits)

    def trust_state(self, subscription: Subscription) -> str:
        """Return what changes when a file of the trust anchors does."""
        return self._supplies.anchors.load(subscription.trust.anchors).state
