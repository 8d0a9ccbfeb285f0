# SPDX-License-Identifier: Apache-2.0
"""A folder of cloud-appliance-descriptor files, as COMFY and ITCHY write them: what NIFTY was fed with.

Whoever may write to the folder is believed, so the subscription has to say ``trust = local``. The message holds every
descriptor, in the order of the events that they are, and what was found of the images.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coppice.errors import DocumentError, InputError, MalformedListError
from coppice.formats.strict_json import read_json
from coppice.http import Fetched, Validators
from coppice.imagelist.model import ImageList, ListedImage, UnreadableEntry
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, is_uuid
from coppice.model.validity import Validity
from coppice.subscription.model import ListWarning, TrustBasis, TrustedBy, WarningKind
from coppice.subscription.source.descriptor_events import DescriptorFile, last_words, read_event
from coppice.subscription.source.descriptor_folder import DESCRIPTOR, IMAGE, PROBLEM, gather_folder
from coppice.subscription.source.gathered import (
    DEFAULT_VALID_DAYS,
    Gathered,
    expires_after,
    image_identifier_of,
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
    from coppice.model.identifiers import ListIdentifier
    from coppice.subscription.model import Subscription, TrustedVersion, VerifiedImageList
    from coppice.subscription.source.descriptor_events import Event, Told
    from coppice.subscription.source.gathered import Document
    from coppice.subscription.source.protocol import Circumstances, SourceSupplies

DRIVER = "descriptors"
_SHOWN_PROBLEMS = 20


class DescriptorsSource:
    """A folder of descriptors; see `coppice.subscription.source.protocol.Source`."""

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
        """Return what the folder holds, unless it is what it was."""
        supplies = self._supplies
        contents = gather_folder(_folder(subscription.uri), supplies.limits, supplies.notes_directory)
        gathered = Gathered(driver=DRIVER, gathered_at=supplies.clock.now(), documents=contents.documents)
        found = Validators()
        if contents.state is not None:
            digest = hashlib.sha256(_payload(gathered) + contents.state.encode()).hexdigest()
            found = Validators(etag=f'"{digest}"')
            if validators is not None and validators.etag == found.etag:
                return Fetched(body=None, validators=found)
        return Fetched(body=write_gathered(gathered, supplies.limits), validators=found)

    def verify(self, message: bytes, subscription: Subscription, circumstances: Circumstances) -> VerifiedImageList:
        """Judge a message by the rules of all lists."""
        gathered = read_gathered(message, driver=DRIVER, limits=circumstances.limits)
        told = _told(gathered)
        return judge(
            _content(gathered, told, subscription, circumstances.last),
            payload=_payload(gathered),
            trusted_by=TrustedBy(basis=TrustBasis.LOCAL, signer=f"the folder {_folder(subscription.uri)}"),
            subscription=subscription,
            circumstances=circumstances,
            warnings=_warnings(told),
            trust_state=self.trust_state(subscription),
        )

    def read(self, message: bytes, subscription: Subscription, limits: ListLimits) -> ImageList:
        """Return what a kept message says."""
        gathered = read_gathered(message, driver=DRIVER, limits=limits)
        return _content(gathered, _told(gathered), subscription, None)

    def trust_state(self, subscription: Subscription) -> str:
        """Return a word that stays the same: there are no keys."""
        del subscription
        return str(TrustBasis.LOCAL)


def _valid_days(options: Mapping[str, object]) -> float:
    given = SourceOptions(DRIVER, options)
    basis, days = given.unsigned_basis(TrustBasis.LOCAL), given.valid_days(DEFAULT_VALID_DAYS)
    given.finish()
    if basis is None:
        raise InputError(
            f"nobody signs what the source {DRIVER} has, and the subscription does not say whom it believes",
            resolution="--trust local says that whoever may write to the folder is believed.",
        )
    return days


def _folder(uri: str) -> Path:
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not path.startswith("/") or "\0" in path:
        raise InputError(f"{uri[:200]!r} is no folder of this machine", resolution="Write it as file:///path.")
    return Path(path)


def _payload(gathered: Gathered) -> bytes:
    """Return what tells whether two messages say the same, whenever they were gathered."""
    digests = [[each.name, hashlib.sha256(each.data).hexdigest()] for each in gathered.documents]
    return json.dumps(digests).encode("ascii")


def _told(gathered: Gathered) -> Told:
    events: list[Event] = []
    for each in gathered.documents:
        if each.name.startswith(DESCRIPTOR):
            events.append(read_event(DescriptorFile(name=each.name.removeprefix(DESCRIPTOR), data=each.data)))
        elif each.name.startswith(PROBLEM):
            problem = each.data.decode("utf-8", errors="replace")
            file = DescriptorFile(name=each.name.removeprefix(PROBLEM), data=b"", problem=problem)
            events.append(read_event(file))
    return last_words(events)


def _content(gathered: Gathered, told: Told, subscription: Subscription, last: TrustedVersion | None) -> ImageList:
    identifier = list_identifier_of(DRIVER, subscription.uri)
    found = {each.name: each for each in gathered.documents}
    images: dict[ImageIdentifier, ListedImage] = {}
    unreadable: dict[ImageIdentifier, str] = {}
    for event in told.registered.values():
        key = _image_identifier(identifier, event.identifier)
        if key in images:
            # One identifier in two spellings: which of the two is meant is not known.
            unreadable[key] = "it is registered in two spellings"
            continue
        image = _listed(key, event, found.get(IMAGE + event.file.name))
        if isinstance(image, str):
            unreadable[key] = image
        else:
            images[key] = image
    for event in told.in_doubt.values():
        unreadable[_image_identifier(identifier, event.identifier)] = event.problem
    folder = _folder(subscription.uri)
    ends = expires_after(gathered.gathered_at, _valid_days(subscription.source.options))
    return ImageList(
        identifier=identifier,
        version=version_when_gathered(gathered.gathered_at, _payload(gathered), last),
        title=f"Descriptors in {folder}",
        description="",
        source=subscription.uri,
        uri=subscription.uri,
        validity=Validity(created=gathered.gathered_at, expires=ends),
        endorsers=(),
        vo=None,
        images=tuple(image for key, image in images.items() if key not in unreadable),
        unreadable=tuple(UnreadableEntry(identifier=key, problem=problem) for key, problem in unreadable.items()),
    )


def _image_identifier(list_identifier: ListIdentifier, given: str) -> ImageIdentifier:
    return ImageIdentifier(given.lower()) if is_uuid(given) else image_identifier_of(list_identifier, given)


def _listed(identifier: ImageIdentifier, event: Event, document: Document | None) -> ListedImage | str:
    """Return the image of a registration, or why there is none."""
    told, name = event.told, event.file.name
    if told is None or told.disk is None or document is None:
        return f"the descriptor {name} has no image"
    try:
        facts = read_json(document.data, what="gathered message")
        size, text, problem = facts.get("size_bytes"), facts.get("sha512"), facts.get("problem")
        if problem is not None:
            return f"the descriptor {name}: {problem}"
        if not isinstance(size, int) or isinstance(size, bool) or size <= 0 or not isinstance(text, str):
            raise _malformed(name)
        checksum = Checksum("sha512", text)
    except (DocumentError, ValueError) as problem:
        raise _malformed(name) from problem
    return ListedImage(
        identifier=identifier,
        version=told.version,
        title=told.title,
        description=told.description,
        uri=document.uri,
        size_bytes=size,
        checksum=checksum,
        declared_format=told.disk.format,
        operating_system=told.operating_system,
        hypervisor="",
        comments="",
        expires=None,
        requirements=told.requirements,
        groups=told.groups,
        mpuri=told.mpuri,
        base_mpuri=None,
        extra=told.attributes,
    )


def _malformed(name: str) -> MalformedListError:
    return MalformedListError(f"a gathered message is malformed where it tells of the image of {name[:200]!r}")


def _warnings(told: Told) -> list[ListWarning]:
    said = [
        ListWarning(
            kind=WarningKind.UNREADABLE_ENTRIES,
            text=f"the descriptor {event.file.name} is passed over: {event.problem}",
        )
        for event in told.unreadable[:_SHOWN_PROBLEMS]
    ]
    if len(told.unreadable) > _SHOWN_PROBLEMS:
        more = len(told.unreadable) - _SHOWN_PROBLEMS
        said.append(ListWarning(kind=WarningKind.UNREADABLE_ENTRIES, text=f"{more} more descriptors are passed over"))
    return said
