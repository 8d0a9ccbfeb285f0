# SPDX-License-Identifier: Apache-2.0
"""The second opinion itself is right: it accepts the example list and finds each fault."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from coppice.testing import consumers
from coppice.testing.consumers import KnownList, compare_versions

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 25, tzinfo=UTC)
SIGNER = ("/DC=org/CN=Jane Doe", "/DC=org/CN=Example CA")
IDENTIFIER = "2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11"
KNOWN = KnownList(identifier=IDENTIFIER, uri="https://lists.example.org/demo.list", endorser=SIGNER, version="0.0.6")
GOOD: dict[str, Any] = {
    "dc:date:created": "2026-11-22T10:00:00Z",
    "dc:date:expires": "2026-12-20T10:00:00Z",
    "dc:identifier": IDENTIFIER,
    "dc:title": "Example list",
    "dc:description": "Test images",
    "dc:source": "https://lists.example.org/",
    "hv:version": "0.0.7",
    "hv:uri": "https://lists.example.org/demo.list",
    "ad:vo": "vo.example.org",
    "hv:endorser": {
        "hv:x509": {"dc:creator": "Jane", "hv:email": "jane@example.org", "hv:dn": SIGNER[0], "hv:ca": SIGNER[1]}
    },
    "hv:images": [
        {
            "hv:image": {
                "dc:identifier": "8a1f2f60-0f0c-4c49-8b43-2f4a9be7c1d2",
                "dc:date:expires": "2026-12-20T10:00:00Z",
                "hv:size": "734003200",
                "sl:checksum:sha512": "0" * 128,
                **{key: "x" for key in consumers.ATROPE_IMAGE_KEYS if key not in {"hv:size", "sl:checksum:sha512"}},
            }
            | {"dc:identifier": "8a1f2f60-0f0c-4c49-8b43-2f4a9be7c1d2"}
        }
    ],
}


def complaints(content: Any) -> list[str]:
    payload = json.dumps({"hv:imagelist": content}).encode()
    return consumers.vmcatcher_complaints(payload, subject=SIGNER[0], issuer=SIGNER[1], known=KNOWN, now=NOW)


def test_the_example_is_accepted_by_all() -> None:
    payload = json.dumps({"hv:imagelist": GOOD}).encode()
    assert complaints(GOOD) == []
    assert consumers.cloudkeeper_complaints(payload) == []
    assert consumers.atrope_complaints(payload) == []


@pytest.mark.parametrize("key", consumers.LIST_KEYS)
def test_each_missing_key_of_the_list_is_found(key: str) -> None:
    assert complaints({name: value for name, value in GOOD.items() if name != key}) == [f"the list lacks {key}"]


@pytest.mark.parametrize("key", sorted({*consumers.IMAGE_KEYS, *consumers.ATROPE_IMAGE_KEYS, "dc:date:expires"}))
def test_each_missing_key_of_an_image_is_found(key: str) -> None:
    content = copy.deepcopy(GOOD)
    del content["hv:images"][0]["hv:image"][key]
    payload = json.dumps({"hv:imagelist": content}).encode()
    said = f"image 0 lacks {key}"
    assert (said in complaints(content)) is (key in consumers.IMAGE_KEYS)
    assert (said in consumers.atrope_complaints(payload)) is (key in consumers.ATROPE_IMAGE_KEYS)
    assert (said in consumers.cloudkeeper_complaints(payload)) is (key in consumers.CLOUDKEEPER_IMAGE_KEYS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hv:endorser": [GOOD["hv:endorser"]]}, "not one object"),
        ({"dc:date:created": "2026-11-22T10:00:00.5Z"}, "date"),
        ({"dc:date:created": "2026-11-26T10:00:00Z"}, "future"),
        ({"dc:date:expires": "2026-11-24T10:00:00Z"}, "expired"),
        ({"hv:uri": "https://elsewhere/"}, "hv:uri"),
        ({"dc:identifier": "8a1f2f60-0f0c-4c49-8b43-2f4a9be7c1d2"}, "dc:identifier"),
        ({"hv:version": "0.0.6"}, "does not come after"),
        ({"hv:version": "0.0.5"}, "does not come after"),
        ({"hv:images": {}}, "no array"),
        ({"hv:images": GOOD["hv:images"] * 2}, "has the identifier"),
        ({"hv:images": [{}]}, "no hv:image"),
    ],
)
def test_each_fault_is_found(changes: dict[str, Any], said: str) -> None:
    found = complaints({**GOOD, **changes})
    assert any(said in each for each in found), found


@pytest.mark.parametrize(
    ("old", "new"),
    [("1", "2"), ("9", "10"), ("0.0.9", "0.0.10"), ("1.0", "1.0.1"), ("a9", "a10"), ("a", "b"), ("x", "1")],
)
def test_versions_are_ordered_as_vmcatcher_orders_them(old: str, new: str) -> None:
    assert compare_versions(old, new) < 0 < compare_versions(new, old)
    assert compare_versions(old, old) == 0
