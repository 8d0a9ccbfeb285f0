# SPDX-License-Identifier: Apache-2.0
"""Disk images in an OCI registry, in the form in which EGI publishes them: a repository a system, tags that move.

There is no list to sign. What was gathered counts from when it was gathered, and is gathered anew before half of its
life is over. Who vouches: a pinned cosign key for each manifest; or a signed image list that another subscription
follows, which names the digests; or, where the subscription says ``trust`` = transport, whoever holds the registry's
name.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from coppice.errors import InputError, OlderListError, StateError, TransferError, UnverifiedSourceError
from coppice.formats.oci import digest_of
from coppice.http import Fetched, Validators, resolve_credential
from coppice.model.checksum import Checksum
from coppice.subscription.model import TrustBasis, TrustedBy
from coppice.subscription.source.gathered import (
    Document,
    Gathered,
    judge,
    read_gathered,
    version_when_gathered,
    write_gathered,
)
from coppice.subscription.source.oci_gather import Gatherer
from coppice.subscription.source.oci_image import BUILT
from coppice.subscription.source.oci_named import DOCUMENT, check_note, digests_of_note, recall_naming, write_note
from coppice.subscription.source.oci_options import DRIVER, OciOptions, load_keys, read_address, read_options
from coppice.subscription.source.oci_read import read_message, vouched_images
from coppice.subscription.source.oci_registry import RegistryReader
from coppice.subscription.source.oci_table import NAME, write_table
from coppice.subscription.source.options import is_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from coppice.formats.cosign import PublicKey
    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import ImageList
    from coppice.subscription.model import Subscription, VerifiedImageList
    from coppice.subscription.source.oci_named import NamingList
    from coppice.subscription.source.protocol import Circumstances, SourceSupplies

_ETAG = re.compile(r'"oci-([0-9a-f]{64})-([0-9]{1,12})"')


class OciSource:
    """Disk images in a registry; see `coppice.subscription.source.protocol.Source`."""

    def __init__(self, supplies: SourceSupplies) -> None:
        """Use what is supplied."""
        self._supplies = supplies

    @staticmethod
    def check_options(options: Mapping[str, object]) -> None:
        """Check a subscription's options.

        Raises:
            InputError: One is unknown or wrong, or nobody is trusted.
        """
        if read_options(options).basis is None:
            raise InputError(
                f"the source {DRIVER} has no list that somebody signed, and nobody is named who signs its images",
                resolution="Name the public key that signs them: --option cosign_key=/path/to/cosign.pub. Or the "
                "subscription whose signed list names their digests: --option list=NAME. Or, to "
                "believe whoever holds the registry's name: --option trust=transport.",
            )

    def fetch(self, subscription: Subscription, validators: Validators | None) -> Fetched:
        """Return what the registry has, unless it is what it was, and was gathered not too long ago."""
        if self._supplies.client is None:
            raise StateError("nothing can be fetched in this run")
        options = read_options(subscription.source.options)
        try:
            address = read_address(subscription.uri)
        except InputError as problem:
            raise TransferError(problem.message, resolution=problem.resolution) from problem
        reader = RegistryReader(
            self._supplies.client,
            address,
            options,
            credential=None if subscription.credential is None else resolve_credential(subscription.credential),
            server_anchors=subscription.server_anchors,
        )
        naming = self._naming(options)
        gatherer = Gatherer(reader, address, options, self._supplies.limits)
        table = write_table(gatherer.gather())
        now = self._supplies.clock.now()
        state = table if naming is None else table + naming.state.encode("ascii")
        if validators is not None and _is_known(validators, state, now, options.valid_days):
            return Fetched(body=None, validators=validators)
        listed = Document(name=NAME, uri=subscription.uri, data=table)
        gathered = Gathered(driver=DRIVER, gathered_at=now, documents=(listed, *gatherer.documents))
        if naming is not None:
            reading = read_message(gathered, subscription, options, (), self._supplies.limits, named=naming.digests)
            note = Document(name=DOCUMENT, uri=subscription.uri, data=write_note(naming, reading.named))
            gathered = replace(gathered, documents=(*gathered.documents, note))
        message = write_gathered(gathered, self._supplies.limits)
        digits = digest_of(state).partition(":")[2]
        return Fetched(body=message, validators=Validators(etag=f'"oci-{digits}-{int(now.timestamp())}"'))

    def verify(self, message: bytes, subscription: Subscription, circumstances: Circumstances) -> VerifiedImageList:
        """Judge what was gathered: every digest, every signature, and the dates."""
        options, keys = _trusting(subscription)
        gathered = read_gathered(message, driver=DRIVER, limits=circumstances.limits)
        naming = self._naming(options)
        named = None if naming is None else naming.digests
        reading = read_message(gathered, subscription, options, keys, circumstances.limits, named=named)
        if naming is not None:
            check_note(gathered.document(DOCUMENT).data, naming, reading.named, circumstances.limits)
        if keys:
            self._refuse_older(reading.content, subscription, options, keys, circumstances)
        version = version_when_gathered(gathered.gathered_at, reading.payload, circumstances.last)
        return judge(
            replace(reading.content, version=version),
            payload=reading.payload,
            trusted_by=_trusted_by(subscription, reading.keys) if naming is None else naming.trusted_by,
            subscription=subscription,
            circumstances=circumstances,
            trust_state=_state(keys) if naming is None else naming.state,
        )

    def read(self, message: bytes, subscription: Subscription, limits: ListLimits) -> ImageList:
        """Return what a kept message says; every digest and signature is checked once more, dates are not."""
        options, keys = _trusting(subscription)
        gathered = read_gathered(message, driver=DRIVER, limits=limits)
        named = None
        if options.naming_list is not None:
            named = digests_of_note(gathered.document(DOCUMENT).data, options.naming_list, limits)
        reading = read_message(gathered, subscription, options, keys, limits, named=named)
        return replace(reading.content, version=version_when_gathered(gathered.gathered_at, reading.payload, None))

    @staticmethod
    def _refuse_older(
        content: ImageList,
        subscription: Subscription,
        options: OciOptions,
        keys: Sequence[PublicKey],
        circumstances: Circumstances,
    ) -> None:
        """Refuse a tag that was moved back: to a manifest that was signed, and built before one that was known.

        A signature says who made an image, not that it is the newest; when it was built stands in what was signed. What
        was known before counts as well as what is in force: a registry may hide a tag first, and show it again then.
        """
        dates: dict[str, str] = {}
        for message in _known_messages(circumstances):
            gathered = read_gathered(message, driver=DRIVER, limits=circumstances.limits)
            for image in vouched_images(gathered, subscription, options, keys, circumstances.limits):
                built = str(image.extra.get(BUILT, ""))
                dates[image.identifier] = max(built, dates.get(image.identifier, ""))
        for image in content.images:
            built, last = str(image.extra.get(BUILT, "")), dates.get(image.identifier, "")
            common = min(len(built), len(last))
            if last and (not built or built[:common] < last[:common]):
                raise OlderListError(
                    f"the tag {image.extra['oci:repository']}:{image.extra['oci:tag']} was moved back",
                    details=f"it names an image that was built on {built or 'no day that it says'}; one of {last} was "
                    "verified before",
                    resolution="Somebody may be replaying an old image. If its publisher went back, have the image "
                    f"built anew, or take it with `coppice subscription reset-version {subscription.name}`.",
                )

    def trust_state(self, subscription: Subscription) -> str:
        """Return what changes when a pinned key, or the list that names what is trusted, does."""
        options = read_options(subscription.source.options)
        # Whether there is such a list is found out where subscriptions are at hand.
        naming = None if self._supplies.recall is None else self._naming(options)
        return _state(load_keys(options)) if naming is None else naming.state

    def _naming(self, options: OciOptions) -> NamingList | None:
        return None if options.naming_list is None else recall_naming(self._supplies, options.naming_list)


def _known_messages(circumstances: Circumstances) -> Iterator[bytes]:
    before = circumstances.previous() if circumstances.previous is not None else None
    if before is None:
        # None is in force: an administrator took back what was.
        return
    yield before
    if circumstances.earlier is not None:
        yield from circumstances.earlier()


def _trusting(subscription: Subscription) -> tuple[OciOptions, Sequence[PublicKey]]:
    options = read_options(subscription.source.options)
    if options.basis is None:
        raise UnverifiedSourceError(
            f"nobody vouches for the images at {subscription.uri}: the subscription names no key and no list, and does "
            "not say that the registry is believed",
            resolution="Name the public key with the option `cosign_key`, or a list with `list`; or say `trust` = "
            "transport.",
        )
    if options.basis is TrustBasis.TRANSPORT and is_plain(subscription.uri):
        raise UnverifiedSourceError(
            f"nobody vouches for the images at {subscription.uri}: the registry is asked without TLS, so that anybody "
            "on the way can answer",
            resolution="Use oci://, or name the public key with the option `cosign_key`, or a list with `list`.",
        )
    return options, load_keys(options)


def _trusted_by(subscription: Subscription, keys: Sequence[PublicKey]) -> TrustedBy:
    if not keys:
        return TrustedBy(basis=TrustBasis.TRANSPORT, signer=read_address(subscription.uri).registry)
    return TrustedBy(
        basis=TrustBasis.COSIGN,
        signer=", ".join(sorted(str(each.fingerprint) for each in keys)),
        fingerprint=keys[0].fingerprint if len(keys) == 1 else None,
    )


def _state(keys: Sequence[PublicKey]) -> str:
    if not keys:
        return ""
    return Checksum.of("\n".join(sorted(str(each.fingerprint) for each in keys)).encode("ascii"), "sha256").hexdigest


def _is_known(validators: Validators, state: bytes, now: datetime, valid_days: float) -> bool:
    """Tell whether the caller has this very state, gathered less than half its life ago."""
    match = _ETAG.fullmatch(validators.etag or "")
    if match is None or match[1] != digest_of(state).partition(":")[2]:
        return False
    age = now - datetime.fromtimestamp(int(match[2]), UTC)
    return timedelta(0) <= age < timedelta(days=valid_days / 2)
