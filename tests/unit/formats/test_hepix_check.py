# SPDX-License-Identifier: Apache-2.0
"""All that is wrong with a list is said at once, each with its place."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from coppice.formats.hepix_check import MAX_PROBLEMS, Problem, find_problems, schema
from coppice.formats.limits import ListLimits
from coppice.imagelist.model import Profile

if TYPE_CHECKING:
    from coppice.testing.simulator import Simulator

pytestmark = pytest.mark.unit


def problems(document: Any, **terms: Any) -> dict[str, str]:
    return {each.path: each.message for each in find_problems(json.dumps(document).encode(), **terms).problems}


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema())
    assert {"strict", "lenient"} <= schema()["$defs"].keys()


@pytest.mark.parametrize("profile", Profile)
def test_the_shipped_schema_says_the_same_with_its_references(publisher: Simulator, profile: Profile) -> None:
    validator = Draft202012Validator({**schema(), "$ref": f"#/$defs/{profile}"})
    document = publisher.document()
    assert validator.is_valid(document)
    document["hv:imagelist"]["hv:images"][0]["hv:image"]["hv:size"] = "many"
    assert not validator.is_valid(document)


def test_all_problems_are_said_at_once(publisher: Simulator) -> None:
    document = publisher.document()
    fields = document["hv:imagelist"]
    [good] = fields["hv:images"]
    del fields["dc:title"]
    fields["dc:date:created"] = "2026-02-30T10:00:00Z"
    fields["dc:identifier"] = "x"
    fields["hv:version"] = "--"
    fields["ad:num_of_images"] = "7"
    fields["hv:endorser"]["hv:x509"] = {"dc:creator": "Jane", "hv:email": "", "hv:ca": "=", "hv:dn": "Jane"}
    bad = {**good["hv:image"], "hv:size": 0, "hv:uri": "http://x\ty", "hv:version": "...", "dc:date:expires": "soon"}
    fields["hv:images"] += [{}, 3, {"hv:image": bad}]
    entry = "$.hv:imagelist.hv:images"
    assert problems(document) == {
        "$.hv:imagelist.dc:title": "it is missing",
        "$.hv:imagelist.dc:date:created": "there is no such date: '2026-02-30T10:00:00Z'",
        "$.hv:imagelist.dc:identifier": "a UUID is needed, not 'x'",
        "$.hv:imagelist.hv:version": "it has no order: '--'",
        "$.hv:imagelist.ad:num_of_images": "it says '7', and 4 are there",
        "$.hv:imagelist.hv:endorser.hv:x509.hv:ca": "not a distinguished name such as /DC=org/CN=Jane: '='",
        "$.hv:imagelist.hv:endorser.hv:x509.hv:dn": (
            "a distinguished name such as /DC=org/CN=Jane is needed, not 'Jane'"
        ),
        f"{entry}[1].hv:image": "it is missing",
        f"{entry}[2]": "an object is needed, not 3",
        f"{entry}[3].hv:image.hv:size": "a whole number from 1 on is needed, not 0",
        f"{entry}[3].hv:image.hv:version": "it has no order: '...'",
        f"{entry}[3].hv:image.dc:date:expires": "a date such as 2026-11-24T10:00:00Z is needed, not 'soon'",
        f"{entry}[3].hv:image.dc:identifier": (
            f"the image {bad['dc:identifier']!r} stands there twice, first at {entry}[0]"
        ),
    }


def test_what_only_the_reader_finds_is_said_too(publisher: Simulator) -> None:
    document = publisher.document()
    document["hv:imagelist"]["hv:images"][0]["hv:image"]["hv:uri"] = "http://x\ty"
    assert problems(document) == {"$.hv:imagelist.hv:images[0].hv:image.hv:uri": "it contains control characters"}
    document["hv:images"] = []
    assert "which of the two" in problems(document)["$.hv:images"]


def test_a_list_that_ends_before_it_begins_is_a_problem_of_its_own(publisher: Simulator) -> None:
    document = publisher.document()
    document["hv:imagelist"]["dc:date:expires"] = document["hv:imagelist"]["dc:date:created"]
    assert list(problems(document)) == ["$.hv:imagelist.dc:date:expires"]


def test_each_endorser_of_several_has_its_place(publisher: Simulator) -> None:
    document = publisher.document()
    one = document["hv:imagelist"]["hv:endorser"]
    document["hv:imagelist"]["hv:endorser"] = [
        one,
        {"hv:x509": {}},
        {"hv:x509": {**one["hv:x509"], "hv:dn": "/x=\\xff"}},
    ]
    place = "$.hv:imagelist.hv:endorser"
    assert list(problems(document)) == [
        *(f"{place}[1].hv:x509.{key}" for key in ("dc:creator", "hv:email", "hv:ca", "hv:dn")),
        f"{place}[2].hv:x509.hv:dn",
    ]


def test_the_lenient_profile_has_fewer_problems(publisher: Simulator) -> None:
    document = publisher.document()
    for key in ("hv:endorser", "dc:title", "hv:version", "hv:uri", "dc:description", "dc:source"):
        del document["hv:imagelist"][key]
    assert len(problems(document)) == 6
    assert problems(document, profile=Profile.LENIENT) == {}


def test_identifiers_that_differ_in_case_are_one_only_if_they_are_uuids(publisher: Simulator) -> None:
    document = publisher.document()
    images = document["hv:imagelist"]["hv:images"]
    images.append(
        {"hv:image": {**images[0]["hv:image"], "dc:identifier": images[0]["hv:image"]["dc:identifier"].upper()}}
    )
    assert len(problems(document)) == 1
    images[0]["hv:image"]["dc:identifier"], images[1]["hv:image"]["dc:identifier"] = "a", "A"
    assert problems(document, profile=Profile.LENIENT) == {}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "not JSON"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[" * 100_000, "nested"),
        (b"\xff\xfe", "byte order mark"),
        (b'{"hv:imagelist": {"dc:title": "\\ud800"}}', "half a character"),
    ],
)
def test_what_is_no_json_has_one_problem(payload: bytes, said: str) -> None:
    [problem] = find_problems(payload).problems
    assert said in problem.message


def test_limits_are_problems_too(publisher: Simulator) -> None:
    document = publisher.document()
    assert problems(document, limits=ListLimits(images=0)) == {"$.hv:imagelist.hv:images": "more than 0 images"}
    assert problems(document, limits=ListLimits(title_bytes=11)) == {
        "$.hv:imagelist.dc:title": "a text longer than 11 bytes"
    }


def test_hostile_lists_have_bounded_problems_in_bounded_time(publisher: Simulator) -> None:
    document = publisher.document()
    fields = document["hv:imagelist"]
    started = time.process_time()
    fields["hv:images"] = [1] * 50_000
    assert list(problems(document)) == ["$.hv:imagelist.hv:images"]
    fields["hv:images"] = [{"hv:image": {}}] * 900
    findings = find_problems(json.dumps(document).encode())
    assert len(findings.problems) == MAX_PROBLEMS
    assert findings.truncated
    fields["hv:images"], fields["hv:endorser"] = [], [1] * 50_000
    assert list(problems(document)) == ["$.hv:imagelist.hv:endorser"]
    fields["hv:endorser"], fields["hv:uri"] = [], " " * 60_000 + "\x00"
    fields["dc:date:created"] = " " * 60_000 + "x"
    fields["dc:identifier"] = "0" * 60_000
    assert {f"$.hv:imagelist.{key}" for key in ("hv:uri", "dc:date:created", "dc:identifier")} <= problems(
        document
    ).keys()
    assert time.process_time() - started < 20


def test_a_problem_is_a_place_and_a_message(publisher: Simulator) -> None:
    document = publisher.document()
    document["hv:imagelist"]["hv:images"][0]["hv:image"]["hv:size"] = ["x"]
    assert find_problems(json.dumps(document).encode()).problems == (
        Problem(
            path="$.hv:imagelist.hv:images[0].hv:image.hv:size",
            message="a whole number from 1 on is needed, not an array",
        ),
    )
