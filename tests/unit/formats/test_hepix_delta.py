# SPDX-License-Identifier: Apache-2.0
"""``coppice:delta`` and ``coppice:mirrors`` of an image of a list."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from coppice.formats.hepix import read_list, write_list
from coppice.formats.hepix_check import find_problems
from coppice.formats.list_difference import ImageDifference, list_difference
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from coppice.testing.simulator import Simulator

pytestmark = pytest.mark.unit

DIGEST = Checksum.of(b"x").hexdigest
PLACE = "$.hv:imagelist.hv:images[0].hv:image"


def file(name: str, size: object = 7, **more: object) -> dict[str, object]:
    return {**more, "uri": f"https://example.org/images/{name}", "size": size, "sha512": DIGEST}


def delta(**changes: object) -> dict[str, object]:
    return {
        "format": "coppice-delta-1",
        "guest": {"size": 8192, "sha512": DIGEST},
        "index": file("index"),
        "packs": [file("a"), file("b", size="9")],
        "patches": [file("p", **{"from": DIGEST})],
        **changes,
    }


def test_a_delta_and_mirrors_are_read_and_written(publisher: Simulator) -> None:
    publisher.images[0].update({"coppice:delta": delta(), "coppice:mirrors": ["https://a.example.org/x", " b "]})
    content = read_list(publisher.payload())
    [image] = content.images
    assert image.mirrors == ("https://a.example.org/x", "b")
    assert image.delta is not None
    assert [pack.size_bytes for pack in image.delta.packs] == [7, 9]
    assert image.delta.patches[0].origin.hexdigest == DIGEST
    assert not image.extra
    assert read_list(write_list(content)) == content
    assert find_problems(publisher.payload()).problems == ()


@pytest.mark.parametrize("written", [{"format": "coppice-delta-2", "x": 1}, "soon", 7, {"guest": None}, []])
def test_a_delta_in_another_form_is_kept_as_it_is(publisher: Simulator, written: Any) -> None:
    publisher.images[0]["coppice:delta"] = written
    content = read_list(publisher.payload())
    assert content.images[0].delta is None
    assert content.images[0].extra["coppice:delta"] == written
    assert json.loads(write_list(content))["hv:imagelist"]["hv:images"][0]["hv:image"]["coppice:delta"] == written
    assert find_problems(publisher.payload()).problems == ()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"guest": {"size": 0, "sha512": DIGEST}}, "guest.size"),
        ({"guest": {"size": 2**44 + 1, "sha512": DIGEST}}, "guest.size"),
        ({"guest": {"size": 1, "sha512": "x"}}, "guest.sha512"),
        ({"index": None}, "index"),
        ({"index": file("x", size=-1)}, "index.size"),
        ({"packs": {}}, "packs"),
        ({"packs": [file("x")] * 33}, "packs"),
        ({"packs": ["x"]}, "packs[0]"),
        ({"patches": [file("x")]}, "patches[0].from"),
        ({"patches": [file("x", **{"from": "../x"})]}, "patches[0].from"),
        ({"patches": None}, "patches"),
    ],
)
def test_a_malformed_delta_makes_its_entry_unreadable(
    publisher: Simulator, changes: dict[str, object], place: str
) -> None:
    publisher.images[0]["coppice:delta"] = delta(**changes)
    content = read_list(publisher.payload())
    assert not content.images
    assert f"coppice:delta.{place}" in content.unreadable[0].problem
    assert [each.path for each in find_problems(publisher.payload()).problems] == [f"{PLACE}.coppice:delta.{place}"]


@pytest.mark.parametrize("mirrors", ["x", [""], ["a\tb"], [{}], ["x"] * 33])
def test_malformed_mirrors_make_their_entry_unreadable(publisher: Simulator, mirrors: Any) -> None:
    publisher.images[0]["coppice:mirrors"] = mirrors
    assert not read_list(publisher.payload()).images
    assert find_problems(publisher.payload()).problems


def test_another_delta_only_describes(publisher: Simulator) -> None:
    before = read_list(publisher.payload())
    publisher.images[0].update({"coppice:delta": delta(), "coppice:mirrors": ["x"]})
    [changed] = list_difference(before, read_list(publisher.payload())).images
    assert changed.kind is ImageDifference.DESCRIBED
    assert [each.key for each in changed.fields] == ["coppice:mirrors", "coppice:delta"]
