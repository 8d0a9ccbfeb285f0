# SPDX-License-Identifier: Apache-2.0
"""The site's own catalogue: an image list of this database is followed as it is, without being published and signed.

The address is ``catalogue:NAME``. Whoever may write to the site's database is believed, so the subscription has to say
``trust = local``. The message holds the list in the HEPiX form; its images are files of this machine.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice.errors import DocumentError, InputError, MalformedListError, NotFoundError, StateError, UnreachableError
from coppice.formats.hepix import read_list, write_list
from coppice.http import Fetched, Validators
from coppice.imagelist.model import Profile
from coppice.model.validity import Validity
from coppice.subscription.model import TrustBasis, TrustedBy
from coppice.subscription.source.gathered import (
    DEFAULT_VALID_DAYS,
    Document,
    Gathered,
    expires_after,
    judge,
    list_identifier_of,
    read_gathered,
    version_when_gathered,
    write_gathered,
)
from coppice.subscription.source.options import SourceOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import ImageList
    from coppice.subscription.model import Subscription, TrustedVersion, VerifiedImageList
    from coppice.subscription.source.protocol import Circumstances, SourceSupplies

DRIVER = "catalogue"
_LIST = "list"


class CatalogueSource:
    """An image list of this site's database; see `coppice.subscription.source.protocol.Source`."""

    def __init__(self, supplies: SourceSupplies) -> None:
        """Use what is supplied."""
        self._supplies = supplies

    @staticmethod
    def check_options(options: Mapping[str, object]) -> None:
        """Check the options ``trust`` and ``valid_days``.

        Raises:
            InputError: They cannot be, there are others, or nobody would be trusted.
        """
        _valid_days(options)

    def fetch(self, subscription: Subscription, validators: Validators | None) -> Fetched:
        """Return the list as the catalogue has it now, unless it is what it was."""
        if self._supplies.catalogue is None:
            raise StateError("nothing can be fetched in this run")
        name = _name(subscription.uri)
        try:
            payload = write_list(self._supplies.catalogue(name))
        except (NotFoundError, InputError) as problem:
            # Not to be had today: what was verified before stays in force until its dates end.
            raise UnreachableError(
                f"the own image list {name!r} cannot be had: {problem.message}",
                details=problem.details,
                resolution=problem.resolution,
            ) from problem
        found = Validators(etag=f'"{hashlib.sha256(payload).hexdigest()}"')
        if validators is not None and validators.etag == found.etag:
            return Fetched(body=None, validators=found)
        gathered = Gathered(
            driver=DRIVER,
            gathered_at=self._supplies.clock.now(),
            documents=(Document(name=_LIST, uri=subscription.uri, data=payload),),
        )
        return Fetched(body=write_gathered(gathered, self._supplies.limits), validators=found)

    def verify(self, message: bytes, subscription: Subscription, circumstances: Circumstances) -> VerifiedImageList:
        """Judge a message by the rules of all lists."""
        content, payload = _content(message, subscription, circumstances.limits, circumstances.last)
        return judge(
            content,
            payload=payload,
            trusted_by=TrustedBy(basis=TrustBasis.LOCAL, signer=f"this site's image list {_name(subscription.uri)}"),
            subscription=subscription,
            circumstances=circumstances,
            trust_state=self.trust_state(subscription),
        )

    def read(self, message: bytes, subscription: Subscription, limits: ListLimits) -> ImageList:
        """Return what a kept message says."""
        return _content(message, subscription, limits, None)[0]

    def trust_state(self, subscription: Subscription) -> str:
        """Return a word that stays the same: there are no keys."""
        del subscription
        return str(TrustBasis.LOCAL)


def _content(
    message: bytes, subscription: Subscription, limits: ListLimits, last: TrustedVersion | None
) -> tuple[ImageList, bytes]:
    gathered = read_gathered(message, driver=DRIVER, limits=limits)
    payload = gathered.document(_LIST).data
    try:
        content = read_list(payload, profile=Profile.LENIENT, limits=limits)
    except DocumentError as problem:
        raise MalformedListError(problem.message, details=problem.details, context=problem.context) from problem
    ends = expires_after(gathered.gathered_at, _valid_days(subscription.source.options))
    return (
        replace(
            content,
            # Where the catalogue's list is published and followed, too, these are two lists.
            identifier=list_identifier_of(DRIVER, subscription.uri, content.identifier),
            version=version_when_gathered(gathered.gathered_at, payload, last),
            uri=subscription.uri,
            validity=Validity(created=gathered.gathered_at, expires=ends),
        ),
        payload,
    )


def _valid_days(options: Mapping[str, object]) -> float:
    given = SourceOptions(DRIVER, options)
    basis, days = given.unsigned_basis(TrustBasis.LOCAL), given.valid_days(DEFAULT_VALID_DAYS)
    given.finish()
    if basis is None:
        raise InputError(
            f"nobody signs what the source {DRIVER} has, and the subscription does not say whom it believes",
            resolution="--trust local says that whoever may write to this site's database is believed.",
        )
    return days


def _name(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme != DRIVER or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", parts.path) or parts.netloc or parts.query:
        raise InputError(f"{uri[:200]!r} names no image list of this site", resolution="Write it as catalogue:NAME.")
    return parts.path
