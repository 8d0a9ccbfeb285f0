# SPDX-License-Identifier: Apache-2.0
"""What was gathered is one message with one reading; lists that no certificate vouches for keep to the common rules."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from coppice.errors import (
    ChangedListError,
    ExpiredListError,
    FutureListError,
    ListIdentifierError,
    MalformedListError,
    OlderListError,
    TransferTooLargeError,
)
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.imagelist.model import ImageList
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ListIdentifier
from coppice.model.validity import Validity
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import (
    SourceReference,
    Subscription,
    TrustBasis,
    TrustedBy,
    TrustedVersion,
    TrustPolicy,
)
from coppice.subscription.source.gathered import (
    Document,
    Gathered,
    canonical_address,
    image_identifier_of,
    judge,
    list_identifier_of,
    read_gathered,
    version_of_date,
    version_when_gathered,
    write_gathered,
)
from coppice.subscription.source.protocol import Circumstances

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
BY = TrustedBy(basis=TrustBasis.OPENPGP, signer="key ABCD")
LIST = list_identifier_of("files", "https://example.org/images")
FOLLOWED = Subscription(
    name="demo",
    uri="https://example.org/images",
    list_identifier=None,
    trust=TrustPolicy(endorsers=(), anchors=None),
    added_at=NOW,
    source=SourceReference(driver="files"),
)
CONTENT = ImageList(
    identifier=LIST,
    version="20261125110000",
    title="t",
    description="",
    source="",
    uri=FOLLOWED.uri,
    validity=Validity(created=NOW - timedelta(hours=1), expires=NOW + 30 * DAY),
    endorsers=(),
    vo=None,
    images=(),
)
AROUND = Circumstances(last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)


def gathered(*documents: Document) -> Gathered:
    return Gathered(driver="files", gathered_at=NOW, documents=documents)


@given(
    some.lists(
        some.builds(
            Document,
            name=some.text(some.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
            uri=some.text(some.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
            data=some.binary(max_size=200),
        ),
        unique_by=lambda each: each.name,
        max_size=5,
    )
)
def test_what_is_written_is_read_back(documents: list[Document]):
    made = gathered(*documents)
    assert read_gathered(write_gathered(made, DEFAULT_LIMITS), driver="files", limits=DEFAULT_LIMITS) == made


def bad_messages() -> dict[str, bytes]:
    good = write_gathered(gathered(Document(name="a", uri="file:///a", data=b"xy")), DEFAULT_LIMITS)
    document = json.loads(good)
    spelt = {"separators": (",", ":")}

    def with_(**changed: object) -> bytes:
        return json.dumps({**document, **changed}, **spelt).encode()  # type: ignore[arg-type]

    entry = document["documents"][0]
    return {
        "empty": b"",
        "no JSON": b"\x00\x01",
        "an array": b"[]",
        "cut": good[:-1],
        "longer": good + b" ",
        "another spelling": json.dumps(document).encode(),
        "another form": with_(form="coppice-gathered-2"),
        "another driver": with_(driver="oci"),
        "no date": with_(gathered_at="yesterday"),
        "a date with another zone": with_(gathered_at="2026-11-25T13:00:00.000000+01:00"),
        "more keys": with_(more=1),
        "documents that are none": with_(documents={}),
        "a document that is none": with_(documents=["x"]),
        "data that is no base64": with_(documents=[{**entry, "data": "!!!!"}]),
        "base64 in another spelling": with_(documents=[{**entry, "data": "eHk"}]),
        "base64 with bits left over": with_(documents=[{**entry, "data": "eHl="}]),
        "two of one name": with_(documents=[entry, entry]),
        "a document with more keys": with_(documents=[{**entry, "more": 1}]),
        "a key twice": good.replace(b'"driver"', b'"form":"coppice-gathered-1","driver"'),
        "deep": b'{"a":' * 50 + b"1" + b"}" * 50,
    }


@pytest.mark.parametrize("message", bad_messages().values(), ids=bad_messages().keys())
def test_a_message_of_any_other_form_is_refused(message: bytes):
    with pytest.raises(MalformedListError):
        read_gathered(message, driver="files", limits=DEFAULT_LIMITS)


def test_more_than_a_list_may_be_is_neither_written_nor_read():
    small = replace(DEFAULT_LIMITS, size_bytes=1000)
    big = gathered(Document(name="a", uri="file:///a", data=b"x" * 1001))
    with pytest.raises(TransferTooLargeError):
        write_gathered(big, small)
    with pytest.raises(MalformedListError):
        read_gathered(write_gathered(big, DEFAULT_LIMITS) + b" " * 1000, driver="files", limits=small)


def judged(content: ImageList = CONTENT, *, payload: bytes = b"one", **changed: object) -> str:
    found = judge(
        content,
        payload=payload,
        trusted_by=BY,
        subscription=replace(FOLLOWED, list_identifier=changed.pop("expected", None)),  # type: ignore[arg-type]
        circumstances=replace(AROUND, **changed),  # type: ignore[arg-type]
    )
    assert (found.trusted_by, found.signer, found.verified_at) == (BY, None, AROUND.now)
    return found.content.version


def test_the_rules_of_all_lists_are_applied():
    assert judged() == CONTENT.version
    assert judged(expected=LIST) == CONTENT.version
    with pytest.raises(ListIdentifierError):
        judged(expected=ListIdentifier("8a1f2f60-0000-4000-8000-000000000000"))
    with pytest.raises(FutureListError):
        judged(replace(CONTENT, validity=Validity(created=NOW + DAY, expires=NOW + 2 * DAY)))
    with pytest.raises(ExpiredListError):
        judged(replace(CONTENT, validity=Validity(created=NOW - 2 * DAY, expires=NOW)))
    last = TrustedVersion(version="20261125110000", payload_checksum=Checksum.of(b"one"))
    assert judged(last=last) == CONTENT.version
    with pytest.raises(ChangedListError):
        judged(last=last, payload=b"two")
    with pytest.raises(OlderListError):
        judged(last=replace(last, version="20261125110001"), payload=b"two")


def test_a_version_is_the_signed_date_or_when_something_else_was_gathered():
    assert version_of_date(datetime(2026, 11, 25, 13, 0, 5, tzinfo=UTC)) == "20261125130005"
    first = version_when_gathered(NOW, b"one", None)
    last = TrustedVersion(version=first, payload_checksum=Checksum.of(b"one"))
    assert first == "20261125120000.000000"
    assert version_when_gathered(NOW + DAY, b"one", last) == first
    assert version_when_gathered(NOW + timedelta(microseconds=1), b"two", last) == "20261125120000.000001"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://Example.ORG/images", "https://example.org:443/images/"),
        ("http://example.org:80/a", "http://example.org/a#part"),
        ("file:///srv/images", "file://localhost/srv/images/"),
        ("oci://r.example.org/p", "oci://R.example.org:443/p/"),
    ],
)
def test_two_spellings_of_an_address_are_one_list(one: str, other: str):
    assert canonical_address(one) == canonical_address(other)
    assert list_identifier_of("oci", one) == list_identifier_of("oci", other)


def test_identifiers_differ_by_driver_address_choice_and_name():
    found = {
        list_identifier_of("files", "https://example.org/a"),
        list_identifier_of("oci", "https://example.org/a"),
        list_identifier_of("files", "https://example.org/A"),
        list_identifier_of("files", "https://example.org/a", "b", "c"),
        list_identifier_of("files", "https://example.org/a", "b,c"),
    }
    assert len(found) == 5
    assert len({image_identifier_of(each, "x") for each in found}) == 5
