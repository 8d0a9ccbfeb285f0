# SPDX-License-Identifier: Apache-2.0
"""Properties of reader, writer and schema, over documents that nobody thought of."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.errors import DocumentError
from coppice.formats.hepix import read_list, write_list
from coppice.formats.hepix_check import find_problems
from coppice.formats.limits import ListLimits
from coppice.imagelist.model import (
    DeltaPatch,
    ImageDelta,
    ImageList,
    ListedImage,
    MarketplaceUser,
    Profile,
    RemoteFile,
)
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName, Endorser
from coppice.model.identifiers import ImageIdentifier, ListIdentifier
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.validity import Validity

pytestmark = pytest.mark.unit

TEXT = st.text(max_size=12)
FILLED = st.text(min_size=1, max_size=12)
WORD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=12)
VERSION = st.from_regex(r"[0-9]{1,3}(\.[0-9a-z]{1,3}){0,3}(-rc[0-9])?", fullmatch=True)
UUID = st.uuids().map(str)
LENIENT_IDENTIFIER = WORD.filter(lambda text: text.isprintable() and not set(text) & set("/\\"))
INSTANT = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda naive: naive.replace(tzinfo=UTC))  # noqa: DTZ001 - made aware
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
EXTRA = st.dictionaries(TEXT.map(lambda key: f"xx:{key}"), JSON, max_size=2)
NUMBER = st.none() | st.integers(0, 2**63 - 1)
NAME = st.lists(
    st.lists(st.tuples(st.sampled_from(["CN", "O", "DC", "emailAddress", "1.2.3"]), TEXT), min_size=1, max_size=2),
    min_size=1,
    max_size=3,
).map(DistinguishedName.of_relatives)
ENDORSER = st.builds(Endorser, name=TEXT, email=TEXT, subject=NAME, issuer=NAME, extra=EXTRA, wrapper_extra=EXTRA)
GROUP = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters=","), min_size=1, max_size=8)

CHECKSUM = st.binary(max_size=2).map(Checksum.of)
FILE = st.builds(RemoteFile, uri=WORD, size_bytes=st.integers(1, 2**63 - 1), checksum=CHECKSUM)
DELTA = st.builds(
    ImageDelta,
    guest_size_bytes=st.integers(1, 2**44),
    guest_checksum=CHECKSUM,
    index=FILE,
    packs=st.lists(FILE, max_size=2).map(tuple),
    patches=st.lists(st.builds(DeltaPatch, origin=CHECKSUM, file=FILE), max_size=2).map(tuple),
)


def images(identifier: st.SearchStrategy[str]) -> st.SearchStrategy[ListedImage]:
    kind = FILLED
    return st.builds(
        ListedImage,
        identifier=identifier.map(ImageIdentifier),
        version=VERSION,
        title=TEXT,
        description=TEXT,
        uri=WORD,
        size_bytes=st.integers(1, 2**63 - 1),
        checksum=st.binary(max_size=2).map(Checksum.of),
        declared_format=st.none() | FILLED,
        operating_system=st.builds(OperatingSystem, kind=kind, distribution=FILLED, version=TEXT, architecture=TEXT),
        hypervisor=TEXT,
        comments=TEXT,
        expires=st.none() | INSTANT,
        mirrors=st.lists(WORD, max_size=2).map(tuple),
        delta=st.none() | DELTA,
        requirements=st.builds(
            Requirements,
            minimum_cores=NUMBER,
            minimum_ram_mib=NUMBER,
            minimum_disk_bytes=NUMBER,
            recommended_cores=NUMBER,
            recommended_ram_mib=NUMBER,
        ),
        groups=st.lists(GROUP, max_size=3).map(tuple),
        mpuri=st.none() | FILLED,
        base_mpuri=st.none() | FILLED,
        appliance_id=st.none() | FILLED,
        user=st.none() | st.builds(MarketplaceUser, full_name=FILLED, guid=st.none() | FILLED, uri=st.none() | FILLED),
        traffic_in=JSON,
        traffic_out=JSON,
        extra=EXTRA,
        wrapper_extra=EXTRA,
    )


def lists(*, lenient: bool = False) -> st.SearchStrategy[ImageList]:
    identifier = UUID | LENIENT_IDENTIFIER if lenient else UUID
    return st.builds(
        ImageList,
        identifier=identifier.map(ListIdentifier),
        version=VERSION,
        title=TEXT,
        description=TEXT,
        source=TEXT,
        uri=st.just("") | WORD if lenient else WORD,
        validity=st.builds(Validity, created=INSTANT, expires=INSTANT),
        endorsers=st.lists(ENDORSER, min_size=0 if lenient else 1, max_size=3).map(tuple),
        vo=st.none() | FILLED,
        images=st.lists(images(identifier), max_size=3, unique_by=lambda image: image.identifier).map(tuple),
        swid=st.none() | FILLED,
        number_of_images=NUMBER,
        extra=EXTRA,
        outer_extra=EXTRA,
    )


@settings(max_examples=25, deadline=None)
@given(lists())
def test_any_list_is_read_from_what_it_is_written_as(content: ImageList) -> None:
    written = write_list(content)
    assert read_list(written) == content
    assert read_list(written, profile=Profile.LENIENT) == content
    assert write_list(read_list(written)) == written


@settings(max_examples=15, deadline=None)
@given(lists(lenient=True))
def test_any_lenient_list_is_read_from_what_it_is_written_as(content: ImageList) -> None:
    assert read_list(write_list(content), profile=Profile.LENIENT) == content


SAMPLE: dict[str, Any] = {
    "hv:imagelist": {
        "dc:date:created": "2026-11-22T10:00:00Z",
        "dc:date:expires": "2026-12-20T10:00:00Z",
        "dc:identifier": "2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11",
        "dc:title": "Example list",
        "dc:description": "Test images",
        "dc:source": "https://lists.example.org/",
        "hv:version": "0.0.7",
        "hv:uri": "https://lists.example.org/vo/demo/image.list",
        "ad:vo": "vo.example.org",
        "ad:swid": "4",
        "ad:num_of_images": "2",
        "hv:endorser": {
            "hv:x509": {
                "dc:creator": "Jane Doe",
                "hv:email": "jane@example.org",
                "hv:ca": "/DC=org/DC=example/CN=Example CA",
                "hv:dn": "/DC=org/DC=example/O=People/CN=Jane Doe",
            }
        },
        "hv:images": [
            {
                "hv:image": {
                    "dc:identifier": f"8a1f2f60-0f0c-4c49-8b43-2f4a9be7c1d{number}",
                    "dc:title": "Debian 12",
                    "dc:description": "minimal",
                    "dc:date:expires": "2027-05-22T10:00:00Z",
                    "hv:uri": "https://lists.example.org/img/debian12.qcow2",
                    "hv:format": "qcow2",
                    "hv:size": "734003200",
                    "sl:checksum:sha512": hashlib.sha512(b"x").hexdigest(),
                    "hv:hypervisor": "KVM",
                    "hv:version": "2026.11.22",
                    "hv:ram_minimum": "512",
                    "hv:core_minimum": "1",
                    "sl:arch": "x86_64",
                    "sl:os": "Linux",
                    "sl:osname": "Debian",
                    "sl:osversion": "12",
                    "sl:comments": "",
                    "ad:group": "General",
                    "ad:mpuri": "https://mp.example.org/store/vm/image/8a1f:77/",
                    "ad:base_mpuri": "https://mp.example.org/store/vm/image/8a1f/",
                    "ad:appid": "1234",
                    "ad:user:fullname": "Jane Doe",
                    "ad:user:guid": "f00d",
                    "ad:user:uri": "https://mp.example.org/store/person/jane",
                    "ad:traffic_in": "tcp",
                    "coppice:disk_minimum": 2147483648,
                }
            }
            for number in range(2)
        ],
    }
}
ODD_TEXTS = [
    *("", " ", "\n", "-1", "0", " 7 ", "9223372036854775807", "9223372036854775808", "00000000000000000000", "٣"),
    *("2026-11-22T10:00:00Z", "2026-02-30T10:00:00Z", "2026-11-22t10:00:00.123456789+02:00", " 2026-11-22 10:00:00Z "),
    *("0001-01-01T00:00:00+23:59", "2026-11-22", "8A1F2F60-0F0C-4C49-8B43-2F4A9BE7C1D0", "/CN=x", "CN=x,O=y", "/", "="),
    *("a\tb", "a\x00b", "\x85a", "a\x85b", "AB" * 64, " " + "ab" * 64 + "\n", "---", "1.2-rc1", "../x", "a b"),
    *("x" * 300, "é" * 2000, "x" * 5000),
]
ODD = JSON | st.sampled_from([*ODD_TEXTS, [], {}, [{}], {"hv:x509": {}}, True, 0, 1, 1.0, 2**63, -1])
ODD_KEYS = ["hv:dn_x509", "hv:images", "hv:imagelist", "xx:new", "ad:traffic_out"]


def places(value: object, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for step, member in members for found in places(member, (*place, step)))]


PLACES = [place for place in places(SAMPLE) if place]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    document = copy.deepcopy(SAMPLE)
    for place in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        parent: Any = document
        try:
            for step in place[:-1]:
                parent = parent[step]
            action = draw(st.sampled_from(["replace", "remove", "add", "wrap", "copy"]))
            if action == "replace":
                parent[place[-1]] = draw(ODD)
            elif action == "remove":
                del parent[place[-1]]
            elif action == "wrap":
                parent[place[-1]] = [parent[place[-1]]]
            elif action == "copy" and isinstance(parent, list):
                parent.append(copy.deepcopy(parent[place[-1]]))
            elif isinstance(parent, dict):
                parent[draw(st.sampled_from(ODD_KEYS))] = draw(ODD)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    if draw(st.booleans()) and isinstance(document.get("hv:imagelist"), dict):
        return dict(document["hv:imagelist"])
    return document


LIMITS = ListLimits(text_bytes=2048, title_bytes=256)


@settings(max_examples=150, deadline=None)
@given(mutated(), st.sampled_from(Profile))
def test_reader_and_schema_agree(document: dict[str, Any], profile: Profile) -> None:
    """What the reader takes whole, the schema takes; and what has no problem, the reader takes.

    Beside the schema stand the problems that a reader can live with, by their words.
    """
    payload = json.dumps(document).encode()
    tolerable = ("it has no order", "it says", "the list expires before")
    findings = find_problems(payload, profile=profile, limits=LIMITS)
    try:
        content: ImageList | None = read_list(payload, profile=profile, limits=LIMITS)
    except DocumentError:
        content = None
    assert findings.content == content
    if content is None:
        assert findings.problems
        return
    if content.unreadable:
        assert len({problem.path for problem in findings.problems}) >= len(content.unreadable)
        return
    assert [problem for problem in findings.problems if not problem.message.startswith(tolerable)] == []
    assert read_list(write_list(content), profile=profile).images == content.images


def test_the_sample_is_in_order_and_nothing_is_wrong_with_it() -> None:
    payload = json.dumps(SAMPLE).encode()
    for profile in Profile:
        assert find_problems(payload, profile=profile).problems == ()
        assert len(read_list(payload, profile=profile).images) == 2


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_any_json_is_read_or_refused_by_name(value: object) -> None:
    for document in (value, {"hv:imagelist": value}, {"hv:images": value}, {"hv:imagelist": {"hv:images": value}}):
        payload = json.dumps(document).encode()
        for profile in Profile:
            with pytest.raises(DocumentError):
                read_list(payload, profile=profile)
            assert find_problems(payload, profile=profile).problems


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 3000), st.integers(0, 60))
def test_any_bytes_are_read_or_refused_by_name(noise: bytes, at: int, taken: int) -> None:
    payload = json.dumps(SAMPLE).encode()
    for damaged in (noise, payload[:at] + noise + payload[at + taken :]):
        for profile in Profile:
            try:
                read_list(damaged, profile=profile)
            except DocumentError:
                assert find_problems(damaged, profile=profile).problems


@settings(max_examples=60, deadline=None)
@given(st.timedeltas(timedelta(0), timedelta(days=1)), st.integers(-1439, 1439))
def test_an_instant_is_the_same_in_every_time_zone(after: timedelta, offset_minutes: int) -> None:
    instant = datetime(2026, 11, 22, tzinfo=UTC) + after
    local = (instant + timedelta(minutes=offset_minutes)).strftime("%Y-%m-%dT%H:%M:%S.%f")
    sign, minutes = "-" if offset_minutes < 0 else "+", abs(offset_minutes)
    document = copy.deepcopy(SAMPLE)
    document["hv:imagelist"]["dc:date:created"] = f"{local}{sign}{minutes // 60:02}:{minutes % 60:02}"
    assert read_list(json.dumps(document).encode()).validity.created == instant
