# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from coppice.errors import DocumentError
from coppice.formats.hepix import read_list, write_list
from coppice.model.endorser import DistinguishedName

if TYPE_CHECKING:
    from coppice.testing.simulator import Simulator

pytestmark = pytest.mark.unit


def edited(publisher: Simulator, **fields: Any) -> bytes:
    document = publisher.document()
    for key, value in fields.items():
        document["hv:imagelist"][key.replace("_", ":")] = value
    return json.dumps(document).encode()


def test_a_list_is_read_whole(publisher: Simulator) -> None:
    content = read_list(publisher.payload())
    assert content.identifier == publisher.identifier
    assert (content.version, content.title, content.vo) == ("1", "Example list", "vo.example.org")
    assert content.validity.expires == publisher.expires
    assert content.endorsers[0].subject == DistinguishedName.parse("/DC=org/DC=example/CN=Jane Doe")
    [image] = content.images
    assert image.size_bytes == 4
    assert image.requirements.minimum_ram_mib == 512
    assert image.operating_system.distribution == "Debian"
    assert content.unreadable == ()


def test_what_is_written_reads_the_same(publisher: Simulator) -> None:
    publisher.extra["ad:publisher"] = {"name": "x"}
    publisher.images[0].update(
        {"ad:appid": "12", "ad:group": "a, b", "hv:core_minimum": 2, "dc:date:expires": "2027-01-01T00:00:00Z"}
    )
    content = read_list(publisher.payload())
    assert content.extra == {"ad:publisher": {"name": "x"}}
    assert content.images[0].appliance_id == "12"
    assert content.images[0].groups == ("a", "b")
    assert read_list(write_list(content)) == content


def test_every_key_that_the_format_demands_is_written(publisher: Simulator) -> None:
    document: Any = json.loads(write_list(read_list(publisher.payload())))["hv:imagelist"]
    demanded = "dc:date:created dc:date:expires dc:identifier dc:description dc:title dc:source hv:version hv:uri"
    assert set(demanded.split()) | {"hv:endorser", "hv:images"} <= document.keys()
    assert document["hv:endorser"]["hv:x509"].keys() == {"hv:ca", "hv:dn", "hv:email", "dc:creator"}
    demanded = (
        "dc:title dc:description hv:size sl:checksum:sha512 sl:arch hv:uri dc:identifier sl:os sl:osversion "
        "sl:comments hv:hypervisor hv:version"
    )
    assert set(demanded.split()) <= document["hv:images"][0]["hv:image"].keys()


def test_numbers_may_be_numbers_or_texts(publisher: Simulator) -> None:
    publisher.images[0]["hv:size"] = 4
    assert read_list(publisher.payload()).images[0].size_bytes == 4


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-11-22T10:00:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T10:00:00.5Z", datetime(2026, 11, 22, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-22T12:00:00+02:00", datetime(2026, 11, 22, 10, tzinfo=UTC)),
    ],
)
def test_dates_may_carry_fractions_and_offsets(publisher: Simulator, written: str, meant: datetime) -> None:
    assert read_list(edited(publisher, dc_date_created=written)).validity.created == meant


@pytest.mark.parametrize("written", ["2026-11-22", "2026-11-22T10:00:00", "soon", "2026-13-01T00:00:00Z", 5, None, ""])
def test_other_dates_refuse_the_list(publisher: Simulator, written: object) -> None:
    with pytest.raises(DocumentError, match=r"\$\.hv:imagelist\.dc:date:created"):
        read_list(edited(publisher, dc_date_created=written))


@pytest.mark.parametrize(
    "key",
    ["dc:identifier", "dc:title", "dc:source", "hv:version", "hv:uri", "hv:endorser", "hv:images", "dc:date:expires"],
)
def test_a_missing_key_is_named(publisher: Simulator, key: str) -> None:
    document = publisher.document()
    del document["hv:imagelist"][key]
    with pytest.raises(DocumentError, match=f"{key}: it is missing") as caught:
        read_list(json.dumps(document).encode())
    assert caught.value.context["path"] == f"$.hv:imagelist.{key}"


@pytest.mark.threat("T44")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sl:checksum:sha512", None),
        ("sl:checksum:sha512", "abc"),
        ("hv:size", "abc"),
        ("hv:size", -1),
        ("hv:size", True),
        ("hv:size", "0"),
        ("dc:date:expires", "soon"),
        ("dc:date:expires", {}),
        ("hv:core_minimum", []),
        ("hv:version", "---"),
        ("dc:title", "x" * 5000),
        ("hv:uri", "http://x/\x00y"),
    ],
)
def test_a_bad_entry_is_unknown_and_the_others_stand(publisher: Simulator, key: str, value: object) -> None:
    bad = publisher.add_image()
    bad[key] = value
    content = read_list(publisher.payload())
    assert len(content.images) == 1
    [entry] = content.unreadable
    assert entry.identifier == bad["dc:identifier"]
    assert key in entry.problem
    with pytest.raises(DocumentError, match="could not be read"):
        write_list(content)


@pytest.mark.threat("T42")
def test_an_identifier_that_stands_twice_refuses_the_list(publisher: Simulator) -> None:
    publisher.images.append({**publisher.images[0], "dc:identifier": publisher.images[0]["dc:identifier"].upper()})
    with pytest.raises(DocumentError, match="stands there twice"):
        read_list(publisher.payload())


@pytest.mark.threat("T78")
@pytest.mark.parametrize(
    "identifier", ["../../x", "/etc/x", ".", "x" * 300, "", None, 7, "{8a1f2f60-0f0c-4c49-8b43-2f4a9be7c1d2}"]
)
def test_an_identifier_that_is_no_uuid_refuses_the_list(publisher: Simulator, identifier: object) -> None:
    publisher.images[0]["dc:identifier"] = identifier
    with pytest.raises(DocumentError, match=r"hv:images\[0\].hv:image.dc:identifier"):
        read_list(publisher.payload())


def test_an_entry_without_an_image_refuses_the_list(publisher: Simulator) -> None:
    for entry in ({}, [], "x", {"hv:image": []}):
        with pytest.raises(DocumentError, match=r"hv:images\[0\]"):
            read_list(edited(publisher, hv_images=[entry]))


def test_too_many_images_refuse_the_list(publisher: Simulator) -> None:
    with pytest.raises(DocumentError, match="more than 10000"):
        read_list(edited(publisher, hv_images=[{}] * 10_001))


@pytest.mark.parametrize("name", ["Jane Doe", "", "CN Jane"])
def test_an_endorser_without_a_distinguished_name_refuses_the_list(publisher: Simulator, name: str) -> None:
    document = publisher.document()
    document["hv:imagelist"]["hv:endorser"]["hv:x509"]["hv:dn"] = name
    with pytest.raises(DocumentError, match="hv:dn"):
        read_list(json.dumps(document).encode())


def test_a_document_beyond_the_limit_is_refused_by_its_length(publisher: Simulator) -> None:
    with pytest.raises(DocumentError, match="longer than 16777216"):
        read_list(edited(publisher, dc_title="x" * (17 * 1024 * 1024)))


def test_a_title_that_is_too_long_is_refused(publisher: Simulator) -> None:
    with pytest.raises(DocumentError, match=r"dc:title: a text longer than 4096"):
        read_list(edited(publisher, dc_title="x" * 5000))


def test_unknown_keys_stay_beside_edited_ones(publisher: Simulator) -> None:
    publisher.extra["xx:new"] = [1, {"deep": None}]
    content = replace(read_list(publisher.payload()), version="2")
    assert read_list(write_list(content)).extra == {"xx:new": [1, {"deep": None}]}
