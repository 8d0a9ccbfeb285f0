# SPDX-License-Identifier: Apache-2.0
"""Image files beside a checksum file that OpenPGP keys sign, as distributions publish their cloud images.

There is one checksum file a list, and the date of its signature is the list's version. So nobody can put files of two
dates together, nor go back to an older file, whatever the server says of its directories: that page is not signed, and
only tells where to look. A version that nobody signed is none: where the name of a file has none, the list's stands for
it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import DocumentError, InputError, MalformedListError, TransferError
from coppice.formats.checksum_file import read_checksum_file
from coppice.formats.cleartext import covered_lines, is_cleartext
from coppice.formats.fields import Fields
from coppice.formats.strict_json import read_json
from coppice.http import Fetched, Validators
from coppice.imagelist.model import ImageList
from coppice.model.validity import Validity
from coppice.subscription.source.fetching import fetcher_of
from coppice.subscription.source.files_gather import CHECKSUMS, SIGNATURE, SIZES, FilesGatherer
from coppice.subscription.source.files_images import choose, make_images
from coppice.subscription.source.files_options import DRIVER, place_of, read_address, read_options
from coppice.subscription.source.gathered import (
    Gathered,
    expires_after,
    judge,
    list_identifier_of,
    read_gathered,
    version_of_date,
    version_when_gathered,
    write_gathered,
)
from coppice.subscription.source.keyring_trust import warnings_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.formats.checksum_file import SummedFile
    from coppice.formats.limits import ListLimits
    from coppice.subscription.model import Subscription, VerifiedImageList
    from coppice.subscription.openpgp import OpenPgpSignature
    from coppice.subscription.source.files_options import FilesOptions, FilesPlace
    from coppice.subscription.source.protocol import Circumstances, SourceSupplies

_ETAG = re.compile(r'"files-([0-9a-f]{64})"')
_WHAT = "the checksum file"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What a message says.

    Attributes:
        files: That the checksum file tells of.
        place: Where they are.
        sizes: Of those whose size nobody signed.
        payload: What is vouched for.
        signature: None: nobody signed.
    """

    files: tuple[SummedFile, ...]
    place: FilesPlace
    sizes: Mapping[str, int]
    payload: bytes
    signature: OpenPgpSignature | None


class FilesSource:
    """Image files with a checksum file; see `coppice.subscription.source.protocol.Source`."""

    def __init__(self, supplies: SourceSupplies) -> None:
        """Use what is supplied."""
        self._supplies = supplies

    @staticmethod
    def check_options(options: Mapping[str, object]) -> None:
        """Check a subscription's options.

        Raises:
            InputError: One is unknown or wrong, or nobody is trusted.
        """
        trust = read_options(options).trust
        if not trust.is_signed and trust.basis is None:
            raise InputError(
                f"the source {DRIVER} needs the keys of whoever signs the checksum file",
                resolution="Name them: --option keyring=/path/to/keyring.gpg. Or, to believe whoever holds the "
                "server's name: --option trust=transport.",
            )

    def fetch(self, subscription: Subscription, validators: Validators | None) -> Fetched:
        """Return checksum file and signature of the newest directory, unless they are what they were."""
        options = read_options(subscription.source.options)
        options.trust.require(subscription.uri)
        gatherer = FilesGatherer(fetcher_of(self._supplies, subscription), _base(subscription), options)
        signed = gatherer.documents()
        # Sizes are asked for every time: a file that was missing, or being written, is whole one day.
        documents = (*signed, gatherer.sizes(signed))
        digest = hashlib.sha256()
        for each in documents:
            digest.update(hashlib.sha256(f"{each.name} {each.uri}".encode()).digest())
            digest.update(hashlib.sha256(each.data).digest())
        known = _ETAG.fullmatch((validators or Validators()).etag or "")
        found = Validators(etag=f'"files-{digest.hexdigest()}"')
        if known is not None and known[1] == digest.hexdigest():
            return Fetched(body=None, validators=found)
        gathered = Gathered(driver=DRIVER, gathered_at=self._supplies.clock.now(), documents=documents)
        return Fetched(body=write_gathered(gathered, self._supplies.limits), validators=found)

    def verify(self, message: bytes, subscription: Subscription, circumstances: Circumstances) -> VerifiedImageList:
        """Judge the checksum file's signature, what it says, and its date."""
        options = read_options(subscription.source.options)
        options.trust.require(subscription.uri)
        gathered = read_gathered(message, driver=DRIVER, limits=circumstances.limits)
        reading = _read(gathered, subscription, options, circumstances.first_verified_at)
        if reading.signature is None:
            trusted_by = options.trust.by_transport(_base(subscription).base)
            version = version_when_gathered(gathered.gathered_at, reading.payload, circumstances.last)
        else:
            trusted_by, version = reading.signature.trusted_by, version_of_date(reading.signature.signed_at)
        return judge(
            _content(reading, gathered, subscription, options, circumstances.limits, version=version),
            payload=reading.payload,
            trusted_by=trusted_by,
            subscription=subscription,
            circumstances=circumstances,
            warnings=warnings_of(reading.signature),
            trust_state=options.trust.state(),
        )

    def read(self, message: bytes, subscription: Subscription, limits: ListLimits) -> ImageList:
        """Return what a kept message says; its signature is checked once more, dates are not."""
        options = read_options(subscription.source.options)
        options.trust.require(subscription.uri)
        gathered = read_gathered(message, driver=DRIVER, limits=limits)
        reading = _read(gathered, subscription, options, gathered.gathered_at)
        version = (
            version_when_gathered(gathered.gathered_at, reading.payload, None)
            if reading.signature is None
            else version_of_date(reading.signature.signed_at)
        )
        return _content(reading, gathered, subscription, options, limits, version=version)

    def trust_state(self, subscription: Subscription) -> str:
        """Return what changes when a key of the keyring does."""
        return read_options(subscription.source.options).trust.state()


def _base(subscription: Subscription) -> FilesPlace:
    try:
        return read_address(subscription.uri)
    except InputError as problem:
        raise TransferError(problem.message, resolution=problem.resolution) from problem


def _read(
    gathered: Gathered, subscription: Subscription, options: FilesOptions, first_verified_at: datetime | None
) -> _Reading:
    """Read what was gathered, its signature judged first."""
    sums, signed = gathered.document(CHECKSUMS), gathered.find(SIGNATURE)
    found = place_of(sums.uri, _base(subscription), options)
    if found is None:
        raise MalformedListError(f"{_WHAT} does not come from where the subscription says that it is")
    payload, signature = sums.data, None
    if options.trust.is_signed:
        ring, signer = options.trust.keyring(), options.trust.signer
        if signed is not None:
            signature = ring.verify_detached(
                payload, signed.data, what=_WHAT, signer=signer, first_verified_at=first_verified_at
            )
        else:
            payload, signature = ring.verify_cleartext(
                payload, what=_WHAT, signer=signer, first_verified_at=first_verified_at
            )
    try:
        # Where nobody must have signed, somebody may have, all the same.
        text = b"\n".join(covered_lines(payload)) if signature is None and is_cleartext(payload) else payload
        files = read_checksum_file(text)
        sizes = _sizes(gathered)
    except DocumentError as problem:
        raise MalformedListError(problem.message, context=problem.context) from problem
    return _Reading(files=files, place=found[0], sizes=sizes, payload=payload, signature=signature)


def _sizes(gathered: Gathered) -> dict[str, int]:
    fields = Fields(read_json(gathered.document(SIZES).data, what="table of sizes"), "$", "table of sizes")
    names = fields.rest()
    return {name: fields.integer(name, least=1) for name in names}


def _content(
    reading: _Reading,
    gathered: Gathered,
    subscription: Subscription,
    options: FilesOptions,
    limits: ListLimits,
    *,
    version: str,
) -> ImageList:
    signature, base = reading.signature, _base(subscription).base
    identifier = list_identifier_of(DRIVER, base, *options.choice)
    choice = choose(reading.files, options)
    if not (choice.wanted or choice.unclear):
        raise MalformedListError(
            f"no file that {_WHAT} names fits the pattern",
            details=f"pattern: {options.pattern.text}\nnames: "
            + ", ".join(each.name for each in reading.files[:20]).encode("unicode_escape").decode(),
            resolution="Correct the option pattern: it must fit whole names.",
        )
    # A directory's name is signed by nobody: it is a version only where nothing is signed.
    named = reading.place.directory if signature is None else ""
    try:
        images, unreadable = make_images(
            choice,
            options,
            reading.place,
            reading.sizes,
            list_identifier=identifier,
            list_version=named or version,
            limits=limits,
        )
    except DocumentError as problem:
        raise MalformedListError(problem.message, resolution=problem.resolution) from problem
    created = gathered.gathered_at if signature is None else signature.signed_at
    expires = expires_after(created, options.valid_days)
    if signature is not None and signature.expires is not None:
        expires = min(expires, signature.expires)
    return ImageList(
        identifier=identifier,
        version=version,
        title=options.title or base,
        description=f"files of {reading.place.root}",
        source=base,
        uri=subscription.uri,
        validity=Validity(created=created, expires=expires),
        endorsers=(),
        vo=None,
        images=images,
        unreadable=unreadable,
    )
