# SPDX-License-Identifier: Apache-2.0
"""Simplestreams: an index and the products of one of its streams, each clear-signed by a key of a pinned keyring.

The date at which the products were updated last is their list's version: it is signed, and never goes back. The index
says that date as well; products that are older than their index says belong to another index, and are refused. One
subscription follows one stream, so that no two dates are mixed in one list.

Servers of LXD and Incus sign nothing. They are believed where the subscription says ``trust`` = transport.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.errors import (
    DocumentError,
    HttpStatusError,
    InputError,
    MalformedListError,
    OlderListError,
    SignatureFormError,
    TransferError,
    UnreachableError,
)
from coppice.formats.cleartext import covered_lines, is_cleartext
from coppice.formats.simplestreams import IMAGES, StreamIndex, StreamProducts, read_streams
from coppice.http import Fetched, Validators
from coppice.imagelist.model import ImageList
from coppice.model.validity import Validity
from coppice.subscription.source.fetching import fetcher_of, is_missing
from coppice.subscription.source.gathered import (
    Document,
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
from coppice.subscription.source.simplestreams_images import ImageMaker
from coppice.subscription.source.simplestreams_options import DRIVER, StreamsAddress, read_address, read_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.formats.limits import ListLimits
    from coppice.formats.simplestreams import StreamContent
    from coppice.subscription.model import Subscription, TrustedBy, VerifiedImageList
    from coppice.subscription.openpgp import Keyring, OpenPgpSignature
    from coppice.subscription.source.fetching import DocumentFetcher
    from coppice.subscription.source.protocol import Circumstances, SourceSupplies
    from coppice.subscription.source.simplestreams_options import StreamsOptions

_INDEX, _PRODUCTS = "index", "products"
_SECOND = "%Y-%m-%d %H:%M:%S UTC"
_ETAG = re.compile(r'"ss-(?P<index>[0-9a-f]{40})-(?P<products>[0-9a-f]{40})-(?P<known>[A-Za-z0-9_-]{0,400})"')


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What a message says.

    Attributes:
        products: The stream.
        payload: What of it is vouched for.
        dates: That somebody signed; the products' own first.
        signature: Of the products; None: nobody signed.
    """

    products: StreamProducts
    payload: bytes
    dates: tuple[datetime, ...]
    signature: OpenPgpSignature | None


class SimplestreamsSource:
    """Simplestreams; see `coppice.subscription.source.protocol.Source`."""

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
                f"the source {DRIVER} needs the keys of whoever signs the streams",
                resolution="Name them: --option keyring=/path/to/keyring.gpg. Or, to believe whoever holds the "
                "server's name: --option trust=transport.",
            )

    def fetch(self, subscription: Subscription, validators: Validators | None) -> Fetched:
        """Return index and products, unless they are what they were."""
        options = read_options(subscription.source.options)
        options.trust.require(subscription.uri)
        address, fetcher = _address(subscription, options), fetcher_of(self._supplies, subscription)
        first = _first(fetcher, address, options, self._supplies.limits)
        documents = [Document(name=_PRODUCTS, uri=address.uri(address.path), data=first)]
        found = Validators()
        known = _ETAG.fullmatch((validators or Validators()).etag or "")
        streams = _read_unverified(first, options, self._supplies.limits)
        if isinstance(streams, StreamIndex):
            uri = address.uri(_products_path(streams, options))
            documents = [Document(name=_INDEX, uri=documents[0].uri, data=first)]
            is_same_index = known is not None and known["index"] == _digest(first)
            got = fetcher.get(
                uri, self._supplies.limits.size_bytes, _unpacked(known["known"]) if known and is_same_index else None
            )
            if got.body is None:
                return Fetched(body=None, validators=validators or Validators())
            found = got.validators
            documents.append(Document(name=_PRODUCTS, uri=uri, data=got.body))
        digests = [_digest(each.data) for each in documents]
        etag = f'"ss-{digests[0]}-{digests[-1]}-{_packed(found)}"'
        if known is not None and [known["index"], known["products"]] == [digests[0], digests[-1]]:
            return Fetched(body=None, validators=Validators(etag=etag))
        gathered = Gathered(driver=DRIVER, gathered_at=self._supplies.clock.now(), documents=tuple(documents))
        return Fetched(body=write_gathered(gathered, self._supplies.limits), validators=Validators(etag=etag))

    def verify(self, message: bytes, subscription: Subscription, circumstances: Circumstances) -> VerifiedImageList:
        """Judge index and products: their signatures, that they belong together, and their dates."""
        options = read_options(subscription.source.options)
        options.trust.require(subscription.uri)
        gathered = read_gathered(message, driver=DRIVER, limits=circumstances.limits)
        reading = _read(gathered, subscription, options, circumstances.limits, circumstances.first_verified_at)
        trusted_by: TrustedBy
        if reading.signature is None:
            trusted_by = options.trust.by_transport(_address(subscription, options).base)
            version = version_when_gathered(gathered.gathered_at, reading.payload, circumstances.last)
        else:
            trusted_by = reading.signature.trusted_by
            version = version_of_date(reading.dates[0])
        content = _content(reading, gathered, subscription, options, circumstances.limits, now=circumstances.now)
        return judge(
            replace(content, version=version),
            payload=reading.payload,
            trusted_by=trusted_by,
            subscription=subscription,
            circumstances=circumstances,
            warnings=warnings_of(reading.signature),
            trust_state=options.trust.state(),
        )

    def read(self, message: bytes, subscription: Subscription, limits: ListLimits) -> ImageList:
        """Return what a kept message says; its signatures are checked once more, dates are not."""
        options = read_options(subscription.source.options)
        options.trust.require(subscription.uri)
        gathered = read_gathered(message, driver=DRIVER, limits=limits)
        reading = _read(gathered, subscription, options, limits, gathered.gathered_at)
        return _content(reading, gathered, subscription, options, limits, now=gathered.gathered_at)

    def trust_state(self, subscription: Subscription) -> str:
        """Return what changes when a key of the keyring does."""
        return read_options(subscription.source.options).trust.state()


def _address(subscription: Subscription, options: StreamsOptions) -> StreamsAddress:
    try:
        return read_address(subscription.uri, signed=options.trust.is_signed)
    except InputError as problem:
        raise TransferError(problem.message, resolution=problem.resolution) from problem


def _first(fetcher: DocumentFetcher, address: StreamsAddress, options: StreamsOptions, limits: ListLimits) -> bytes:
    uri = address.uri(address.path)
    try:
        return fetcher.get(uri, limits.size_bytes).body or b""
    except (HttpStatusError, UnreachableError) as problem:
        if not (options.trust.is_signed and is_missing(problem)):
            raise
        raise type(problem)(
            f"there is no signed index at {uri}",
            details=problem.message,
            resolution="Check the address. If this server signs nothing (as those of LXD and Incus do), it can only be "
            "believed by its name: --option trust=transport, and no keyring.",
            context=problem.context,
        ) from problem


def _read_unverified(data: bytes, options: StreamsOptions, limits: ListLimits) -> StreamIndex | StreamProducts:
    """Read a document before it is judged, to learn what else must be fetched; nothing else follows from it."""
    try:
        text = b"\n".join(covered_lines(data)) if options.trust.is_signed and is_cleartext(data) else data
    except DocumentError as problem:
        raise SignatureFormError(f"the index is signed in a form that is not accepted: {problem.message}") from problem
    return _streams(text, limits)


def _streams(text: bytes, limits: ListLimits) -> StreamIndex | StreamProducts:
    try:
        return read_streams(text, limits=limits)
    except DocumentError as problem:
        raise MalformedListError(
            problem.message,
            details=problem.details,
            resolution="Check that the address is that of a simplestreams mirror.",
            context=problem.context,
        ) from problem


def _chosen(index: StreamIndex, options: StreamsOptions) -> StreamContent:
    """Return the entry of the stream that is followed."""
    if options.content_id is not None:
        found = [each for each in index.contents if each.identifier == options.content_id]
    else:
        found = [each for each in index.contents if each.datatype == IMAGES]
    if len(found) == 1:
        return found[0]
    known = ", ".join(each.identifier for each in index.contents if each.datatype == IMAGES)[:2000]
    raise MalformedListError(
        f"the index has no stream {options.content_id!r}"
        if options.content_id is not None
        else f"the index has {len(found)} streams of images, and one subscription follows one",
        details=f"streams of images: {known or 'none'}",
        resolution="Name one with --option content_id=…",
    )


def _products_path(index: StreamIndex, options: StreamsOptions) -> str:
    path = _chosen(index, options).path
    # What is signed in itself lies beside what is not, under its own ending.
    return f"{path.removesuffix('.json')}.sjson" if options.trust.is_signed and path.endswith(".json") else path


def _read(
    gathered: Gathered,
    subscription: Subscription,
    options: StreamsOptions,
    limits: ListLimits,
    first_verified_at: datetime | None,
) -> _Reading:
    """Read what was gathered, its signatures judged first."""
    ring = options.trust.keyring() if options.trust.is_signed else None
    held = {each.name for each in gathered.documents}
    if held not in ({_PRODUCTS}, {_INDEX, _PRODUCTS}):
        raise MalformedListError("what was gathered is not an index and its products")
    text, signature = _opened(gathered.document(_PRODUCTS), ring, options, first_verified_at)
    products = _streams(text, limits)
    if not isinstance(products, StreamProducts):
        raise MalformedListError("where the products of the stream should be there is another index")
    if products.datatype not in {"", IMAGES}:
        raise MalformedListError(f"the stream is of {products.datatype[:80]!r}, and not of images")
    dates = [] if products.updated is None else [products.updated]
    if signature is not None and not dates:
        raise MalformedListError(
            "the products do not say when they were updated, so that older ones could not be told from newer ones"
        )
    if _INDEX in held:
        text_of_index, _ = _opened(gathered.document(_INDEX), ring, options, first_verified_at)
        index = _streams(text_of_index, limits)
        if not isinstance(index, StreamIndex):
            raise MalformedListError("where the index should be there are other products")
        dates += _of_one_date(index, products, options)
        address = _address(subscription, options)
        if gathered.document(_PRODUCTS).uri != address.uri(_products_path(index, options)):
            raise MalformedListError("the products do not come from where the index says that they are")
    elif options.content_id not in {None, products.identifier}:
        raise MalformedListError(f"the products are of the stream {products.identifier!r}, not {options.content_id!r}")
    return _Reading(products=products, payload=text, dates=tuple(dates), signature=signature)


def _of_one_date(index: StreamIndex, products: StreamProducts, options: StreamsOptions) -> list[datetime]:
    """Check that products belong to an index; return the dates that the index says."""
    entry = _chosen(index, options)
    if entry.identifier != products.identifier:
        raise MalformedListError(
            f"the index names the stream {entry.identifier!r}, and the products are of {products.identifier!r}"
        )
    if entry.updated is not None and products.updated is not None and products.updated < entry.updated:
        raise OlderListError(
            f"the products of {products.identifier} are older than their index says",
            details=f"products {products.updated:{_SECOND}}\nindex    {entry.updated:{_SECOND}}",
            resolution="Somebody may be replaying old products; or the mirror is being updated: then try again later.",
        )
    return [each for each in (entry.updated, index.updated) if each is not None]


def _opened(
    document: Document, ring: Keyring | None, options: StreamsOptions, first_verified_at: datetime | None
) -> tuple[bytes, OpenPgpSignature | None]:
    if ring is None:
        return document.data, None
    return ring.verify_cleartext(
        document.data,
        what=f"the {document.name} of the stream",
        signer=options.trust.signer,
        first_verified_at=first_verified_at,
    )


def _content(
    reading: _Reading,
    gathered: Gathered,
    subscription: Subscription,
    options: StreamsOptions,
    limits: ListLimits,
    *,
    now: datetime,
) -> ImageList:
    """Return what was read as a list; for what nobody signed, its version is that of what is seen first."""
    products, signature, address = reading.products, reading.signature, _address(subscription, options)
    # Two subscriptions that take other images of one stream are to two lists: neither lacks what the other has.
    identifier = list_identifier_of(DRIVER, address.base, products.identifier, *options.choice)
    try:
        images, unreadable = ImageMaker(products, options, address, identifier, limits).make()
    except DocumentError as problem:
        raise MalformedListError(problem.message, resolution=problem.resolution) from problem
    if signature is None:
        created = renewed = gathered.gathered_at
        version = version_when_gathered(created, reading.payload, None)
    else:
        created, version = reading.dates[0], version_of_date(reading.dates[0])
        # An index that was signed anew says that its products still hold; not for longer than from today.
        renewed = max(created, min(max(reading.dates), now))
    expires = expires_after(renewed, options.valid_days)
    if signature is not None and signature.expires is not None:
        expires = min(expires, signature.expires)
    return ImageList(
        identifier=identifier,
        version=version,
        title=products.identifier,
        description=f"simplestreams {products.identifier} of {address.base}",
        source=address.base,
        uri=subscription.uri,
        validity=Validity(created=created, expires=expires),
        endorsers=(),
        vo=None,
        images=images,
        unreadable=unreadable,
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:40]


def _packed(found: Validators) -> str:
    """Return validators of a document as part of a tag of our own; empty where they are none, or too long."""
    if not found:
        return ""
    packed = base64.urlsafe_b64encode(json.dumps([found.etag, found.last_modified]).encode()).decode().rstrip("=")
    return packed if len(packed) <= 400 else ""  # noqa: PLR2004 - a tag has at most 512 characters


def _unpacked(packed: str) -> Validators | None:
    try:
        etag, last_modified = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    except (binascii.Error, ValueError, TypeError):
        return None
    if not all(each is None or isinstance(each, str) for each in (etag, last_modified)):
        return None
    return Validators(etag=etag, last_modified=last_modified)
