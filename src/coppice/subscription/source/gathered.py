# SPDX-License-Identifier: Apache-2.0
"""What was gathered at a source, as one message; and the verdict on it, for sources that no certificate vouches for.

A source of another kind than a signed list is several documents (an index, signatures, manifests). They are kept as
they came, in one message, which is all that the verdict needs: it can be archived, judged again, and carried elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from coppice.errors import DocumentError, MalformedListError, TransferTooLargeError, UnverifiedSourceError
from coppice.formats.fields import Fields
from coppice.formats.strict_json import read_json
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ListIdentifier
from coppice.subscription.judgement import RuleTable
from coppice.subscription.list_rules import check_floor, check_identifier, check_validity
from coppice.subscription.list_warnings import warnings_of_content
from coppice.subscription.model import TrustBasis, VerifiedImageList

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import ImageList
    from coppice.subscription.model import ListWarning, Subscription, TrustedBy, TrustedVersion
    from coppice.subscription.source.protocol import Circumstances

FORM = "coppice-gathered-1"
MAX_DOCUMENTS = 20_000
DEFAULT_VALID_DAYS = 180.0
RENEWING = frozenset({TrustBasis.LIST, TrustBasis.LOCAL, TrustBasis.TRANSPORT})
"""Nobody signed a date: such a list counts from when it was gathered, and is gathered anew before half its life."""
_NAMESPACE = uuid.UUID("6f0cb2e4-2d5b-5d0e-9a56-6c0a5d6c1f3b")
_WHAT = "gathered message"
_DEFAULT_PORTS = {"http": ":80", "https": ":443", "oci": ":443", "oci+http": ":80"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a source.

    Attributes:
        name: What it is to the driver, such as ``index`` or ``manifest sha256:…``; unique in the message.
        uri: Where it came from.
        data: Its bytes, as they came.
    """

    name: str
    uri: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """All that was gathered at a source for one verdict.

    Attributes:
        driver: Of the source.
        gathered_at: When; aware, UTC.
        documents: In the driver's order.
    """

    driver: str
    gathered_at: datetime
    documents: tuple[Document, ...]

    def find(self, name: str) -> Document | None:
        """Return the document of that name; None: there is none."""
        return next((each for each in self.documents if each.name == name), None)

    def document(self, name: str) -> Document:
        """Return the document of that name.

        Raises:
            MalformedListError: There is none.
        """
        found = self.find(name)
        if found is None:
            raise MalformedListError(f"a {_WHAT} of the source {self.driver} lacks the document {name[:80]!r}")
        return found


def write_gathered(gathered: Gathered, limits: ListLimits) -> bytes:
    """Return the message, in its one spelling.

    Raises:
        TransferTooLargeError: It would be longer than a list may be.
        ValueError: Two documents have one name.
    """
    names = [each.name for each in gathered.documents]
    if len(set(names)) != len(names):
        problem = "two documents of one message have the same name"
        raise ValueError(problem)
    size = sum(len(each.data) for each in gathered.documents)
    if size > limits.size_bytes or len(names) > MAX_DOCUMENTS:
        raise TransferTooLargeError(
            f"what the source has is {size} bytes in {len(names)} documents; {limits.size_bytes} bytes in "
            f"{MAX_DOCUMENTS} documents are the most",
            resolution="Narrow what is taken of it, or raise transfer.list_size_limit_bytes in the settings.",
        )
    message = _spelled(gathered)
    if len(message) > limits.message_bytes:
        raise TransferTooLargeError(
            f"what the source has makes a message of {len(message)} bytes; {limits.message_bytes} are the most"
        )
    return message


def read_gathered(message: bytes, *, driver: str, limits: ListLimits) -> Gathered:
    """Return what `write_gathered` wrote; each message has one reading, and each reading one message.

    Raises:
        MalformedListError: It is no such message, or another driver's.
    """
    try:
        document = read_json(
            message,
            what=_WHAT,
            max_bytes=limits.message_bytes,
            max_depth=4,
            max_text_bytes=limits.message_bytes,
            max_values=limits.values,
        )
        fields = Fields(document, "$", _WHAT)
        if fields.word("form") != FORM:
            fields.refuse("form", f"{FORM} is needed")
        found = fields.word("driver")
        if found != driver:
            fields.refuse("driver", f"it is of the source {found[:40]!r}, not of {driver}")
        entries = fields.array("documents")
        if len(entries) > MAX_DOCUMENTS:
            fields.refuse("documents", f"there are more than {MAX_DOCUMENTS}")
        gathered = Gathered(
            driver=driver,
            gathered_at=fields.instant("gathered_at"),
            documents=tuple(_document(fields, number, entry) for number, entry in enumerate(entries)),
        )
        if len({each.name for each in gathered.documents}) != len(gathered.documents):
            fields.refuse("documents", "two have the same name")
        if _spelled(gathered) != message:
            fields.refuse("form", "it is not in its one spelling")
    except DocumentError as problem:
        raise MalformedListError(problem.message, details=problem.details, context=problem.context) from problem
    return gathered


def judge(
    content: ImageList,
    *,
    payload: bytes,
    trusted_by: TrustedBy,
    subscription: Subscription,
    circumstances: Circumstances,
    warnings: Iterable[ListWarning] = (),
    trust_state: str = "",
) -> VerifiedImageList:
    """Apply the rules that all lists keep to, to one whose signature (or the lack of one) was judged by its driver.

    Args:
        content: What the documents say.
        payload: The bytes that are vouched for: they tell whether two versions are one. Nothing that changes whenever
            it is gathered, such as the date, may be among them.
        trusted_by: Who vouches.
        subscription: Whose list it should be.
        circumstances: What it is judged by.
        warnings: What the driver has to say.
        trust_state: Of the keyrings or keys that it was judged by (`Source.trust_state`).

    Raises:
        ListIdentifierError, FutureListError, ExpiredListError, OlderListError, ChangedListError: A rule is broken.
    """
    table = RuleTable()
    checksum = Checksum.of(payload)
    check_identifier(content, subscription, table)
    check_validity(content, circumstances.now, circumstances.terms, table)
    check_floor(content, checksum, circumstances.last, table)
    said = warnings_of_content(content, subscription, circumstances.last, circumstances.now, circumstances.terms)
    return VerifiedImageList(
        subscription=subscription.name,
        content=content,
        payload_checksum=checksum,
        trusted_by=trusted_by,
        verified_at=circumstances.now,
        warnings=(*warnings, *said),
        anchors_state=trust_state,
    )


def check_carried(verified: VerifiedImageList) -> None:
    """Check that a list is signed which came another way than from its source (a bundle).

    Whoever is believed for holding a server's name, or for being able to write to this machine, said nothing of it:
    anybody can write such a message.

    Raises:
        UnverifiedSourceError: Nobody signed it.
    """
    basis = verified.trusted_by.basis
    if basis in RENEWING:
        raise UnverifiedSourceError(
            f"nobody signed the list of the subscription {verified.subscription!r}, which did not come from its source",
            details=f"The subscription believes {verified.trusted_by.signer} ({basis}); anybody could have made this.",
            resolution="Have the images published in a signed list; or name the keys of whoever signs the source.",
            context={"subscription": verified.subscription},
        )


def canonical_address(uri: str) -> str:
    """Return an address in one spelling: two ways to write it are one source."""
    parts = urlsplit(uri)
    host = parts.netloc.lower()
    default = _DEFAULT_PORTS.get(parts.scheme.lower())
    if default is not None:
        host = host.removesuffix(default)
    if parts.scheme.lower() == "file" and host == "localhost":
        host = ""
    return urlunsplit((parts.scheme.lower(), host, parts.path.rstrip("/"), parts.query, ""))


def list_identifier_of(driver: str, uri: str, *choice: str) -> ListIdentifier:
    """Return the identifier of what a driver makes of an address, the same over all versions.

    Args:
        driver: Which.
        uri: The address.
        choice: What chooses the content, such as a stream or a pattern.
    """
    return ListIdentifier(str(uuid.uuid5(_NAMESPACE, json.dumps([driver, canonical_address(uri), *choice]))))


def image_identifier_of(list_identifier: ListIdentifier, name: str) -> ImageIdentifier:
    """Return the identifier of an image by what names it in its list over all its versions."""
    return ImageIdentifier(str(uuid.uuid5(_NAMESPACE, json.dumps([list_identifier, name]))))


def version_of_date(signed: datetime) -> str:
    """Return the version of a list whose date is signed: that date as digits, to the second."""
    return f"{signed.astimezone(UTC):%Y%m%d%H%M%S}"


def version_when_gathered(gathered_at: datetime, payload: bytes, last: TrustedVersion | None) -> str:
    """Return the version of a list whose date nobody signed: when it was gathered, and differed from what was before.

    Args:
        gathered_at: When it was gathered.
        payload: As `judge` has it.
        last: What was verified last: the same content keeps its version.
    """
    if last is not None and last.payload_checksum.matches(Checksum.of(payload)):
        return last.version
    return f"{gathered_at.astimezone(UTC):%Y%m%d%H%M%S.%f}"


def expires_after(start: datetime, valid_days: float) -> datetime:
    """Return when a list ends whose source says no end: ``valid_days`` after ``start``."""
    return start + timedelta(days=valid_days)


def _document(parent: Fields, number: int, entry: object) -> Document:
    if not isinstance(entry, dict):
        parent.refuse(f"documents[{number}]", "an object is needed")
    fields = parent.element("documents", number, entry)
    text = fields.text_or_empty("data")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as problem:
        fields.refuse("data", f"it is no base64: {problem}")
    return Document(name=fields.text("name"), uri=fields.text("uri"), data=data)


def _spelled(gathered: Gathered) -> bytes:
    document = {
        "form": FORM,
        "driver": gathered.driver,
        "gathered_at": _to_microsecond(gathered.gathered_at),
        "documents": [
            {"name": each.name, "uri": each.uri, "data": base64.b64encode(each.data).decode("ascii")}
            for each in gathered.documents
        ],
    }
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _to_microsecond(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
