# SPDX-License-Identifier: Apache-2.0
"""Simplestreams documents are read strictly; what one product has wrong hides no other."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import DocumentError
from coppice.formats.limits import ListLimits
from coppice.formats.simplestreams import (
    StreamIndex,
    StreamProducts,
    aliases_of,
    end_of_support,
    read_streams,
    relative_path,
)
from coppice.testing import streams

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)


def read_products(document: Any) -> StreamProducts:
    found = read_streams(json.dumps(document).encode())
    assert isinstance(found, StreamProducts)
    return found


def released() -> Any:
    noble = streams.ubuntu_product("noble", "amd64", {"20260101": b"one", "20260101.1": b"two"})
    return streams.products("com.ubuntu.cloud:released:download", {"noble": noble}, updated=NOW)


def test_an_index_names_its_streams_with_their_dates():
    contents = {
        "a:released:download": streams.entry("streams/v1/a.sjson", released(), updated=NOW),
        "a:released:aws": streams.entry("streams/v1/b.sjson", released(), datatype="image-ids", updated=None),
    }
    found = read_streams(streams.written(streams.index(contents, updated=NOW)))
    assert isinstance(found, StreamIndex)
    assert found.updated == NOW
    assert {(each.identifier, each.datatype, each.path, each.updated) for each in found.contents} == {
        ("a:released:download", "image-downloads", "streams/v1/a.sjson", NOW),
        ("a:released:aws", "image-ids", "streams/v1/b.sjson", None),
    }


def test_what_stands_higher_up_holds_below():
    found = read_products({**released(), "label": "top", "_aliases": {"x": {}}, "os": "other"})
    assert found.updated == NOW
    (product,) = found.products
    assert [version.name for version in product.versions] == ["20260101", "20260101.1"]
    values = found.values(product, product.versions[1], product.versions[1].items[0])
    assert values["os"] == "ubuntu"
    assert values["label"] == "release"
    assert values["version_name"] == "20260101.1"
    assert values["product_name"] == "noble"
    assert "_aliases" not in values


@pytest.mark.parametrize(
    "change",
    [
        lambda product: product.pop("versions"),
        lambda product: product.update(versions=[]),
        lambda product: product["versions"].update({"": {"items": {}}}),
        lambda product: product["versions"].update({"x\n": {"items": {}}}),
        lambda product: product["versions"].update({"20260202": {"items": 7}}),
        lambda product: product["versions"]["20260101"]["items"].update({"disk1.img": "x"}),
    ],
)
def test_a_product_that_cannot_be_read_hides_no_other(change: Any):
    document = released()
    document["products"]["bad"] = json.loads(json.dumps(document["products"]["noble"]))
    change(document["products"]["bad"])
    good, bad = read_products(document).products
    assert (good.name, good.problem, len(good.versions)) == ("noble", None, 2)
    assert bad.name == "bad"
    assert bad.problem is not None
    assert bad.versions == ()


@pytest.mark.threat("T77")
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"format": "products:1.0", "format": "products:1.0"}',
        b'{"format": "products:2.0"}',
        b'{"format": "products:1.0", "content_id": "", "products": {}}',
        b'{"format": "products:1.0", "content_id": "a", "products": []}',
        b'{"format": "products:1.0", "content_id": "a", "products": {"": {}}}',
        b'{"format": "products:1.0", "content_id": "a", "products": {}, "updated": "yesterday"}',
        b'{"format": "products:1.0", "content_id": "a", "products": {}, "updated": "Wed, 25 Nov 2026 10:00:00"}',
        b'{"format": "products:1.0", "content_id": "a", "products": {}, "updated": "Wed, 99 Nov 99999 10:00 +0000"}',
        b'{"format": "products:1.0", "content_id": "a", "products": {}, "updated": 7}',
        b'{"format": "index:1.0"}',
        b'{"format": "index:1.0", "index": {"a": {"path": "/x"}}}',
        b'{"format": "index:1.0", "index": {"a": {"path": "../x"}}}',
        b'{"format": "index:1.0", "index": {"a": {"path": "https://example.org/x"}}}',
        b'{"format": "index:1.0", "index": {"a": {}}}',
        b'{"format": "index:1.0", "index": {"\\u001b": {"path": "x"}}}',
        b'{"format": "index:1.0", "index": {"a": {"path": "x"}, "a": {"path": "y"}}}',
        b'{"format": "products:1.0", "content_id": NaN, "products": {}}',
        b'{"format": "products:1.0", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xef\xbb\xbf{}",
        '{"format": "index:1.0", "index": {}}'.encode("utf-16"),
    ],
)
def test_what_is_no_such_document_is_refused(payload: bytes):
    with pytest.raises(DocumentError):
        read_streams(payload)


def test_a_document_is_no_larger_than_a_list_may_be():
    payload = streams.written(released())
    with pytest.raises(DocumentError, match="longer"):
        read_streams(payload, limits=ListLimits(size_bytes=len(payload) - 1))
    many = {"format": "index:1.0", "index": {str(number): {"path": "x"} for number in range(1001)}}
    with pytest.raises(DocumentError, match="more than"):
        read_streams(json.dumps(many).encode())


@pytest.mark.threat("T78")
@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "http://example.org/x",
        "//example.org/x",
        "a\\..\\b",
        "a%2e%2e/b",
        "a?b",
        "a#b",
        "a\nb",
        "a\x00b",
        "ä",
        "a" * 3000,
        7,
        None,
        ["a"],
    ],
)
def test_a_path_leads_nowhere_but_below(path: object):
    with pytest.raises(DocumentError):
        relative_path(path)


def test_the_paths_of_the_publishers_are_paths():
    for path in (
        "streams/v1/com.ubuntu.cloud:released:download.sjson",
        "server/releases/noble/release-20260101.1/ubuntu-24.04-server-cloudimg-amd64.img",
        "images/alpine/3.22/amd64/default/20260101_13:00/disk.qcow2",
    ):
        assert relative_path(path) == path


def test_aliases_are_written_in_two_ways():
    assert aliases_of("24.04, noble,,noble") == ("24.04", "noble")
    assert aliases_of(["a", "b"]) == ("a", "b")
    assert aliases_of(None) == ()
    for bad in (7, {"a": 1}, [7], ["a" * 300], ["a"] * 201):
        with pytest.raises(DocumentError):
            aliases_of(bad)


def test_support_ends_with_its_last_day():
    assert end_of_support("2029-05-31") == datetime(2029, 6, 1, tzinfo=UTC)
    assert end_of_support("2029-05-31T12:00:00Z") == datetime(2029, 5, 31, 12, tzinfo=UTC)
    assert end_of_support("") is None
    assert end_of_support(None) is None
    for bad in ("soon", "2029-13-01", "9999-12-31", 2029, "2029-05"):
        with pytest.raises(DocumentError):
            end_of_support(bad)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.fixed_dictionaries(
    {"format": st.sampled_from(["index:1.0", "products:1.0"])},
    optional={
        "content_id": JSON,
        "updated": st.text(max_size=30) | JSON,
        "products": st.dictionaries(st.text(max_size=4), JSON, max_size=3) | JSON,
        "index": st.dictionaries(st.text(max_size=4), JSON, max_size=3) | JSON,
    },
)


@given(DOCUMENTS)
def test_no_document_breaks_the_reader(document: Any):
    try:
        read_streams(json.dumps(document).encode())
    except DocumentError:
        return
