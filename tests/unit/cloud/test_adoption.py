# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.clock import FixedClock
from coppice.cloud.adoption import Program, recognise
from coppice.cloud.adoption_plan import Proof, Verdict, plan_adoption
from coppice.cloud.apply.adoption import adopt_images
from coppice.cloud.driver import ForeignImage
from coppice.cloud.memory import MemoryCloud
from coppice.cloud.model import Desired, ImageState, Revocation
from coppice.cloud.plan import plan
from coppice.cloud.properties import to_properties
from coppice.cloud.steps import ActionKind
from coppice.errors import AdoptionError
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT
from coppice.testing.desired import (
    LATER,
    NOW,
    SITE,
    content_of,
    desired_image,
    desired_list,
    list_identifier,
    marker_of,
    registered_image,
)
from coppice.testing.populations import POPULATIONS, keep_in_memory
from coppice.workflows.mapping import policy_for

pytestmark = pytest.mark.unit
EVERY = sorted(POPULATIONS)
OTHER_BYTES = b"what another program converted" * 40


def listed(name="debian", version="2", **said):
    image = desired_image(name, version, **said)
    of = replace(image.listed, mpuri=f"https://mp.example.org/{name}:{version}/")
    return replace(image, listed=of, vo="vo.example.org")


def foreign_of(prepared, identifier="f-1", *, tells_checksum=True, **said):
    return ForeignImage(
        cloud="main",
        cloud_identifier=identifier,
        name=said.pop("name", prepared.name),
        properties={**prepared.properties, **said.pop("properties", {})},
        ready=said.pop("ready", True),
        checksum=Checksum.of(prepared.content) if tells_checksum else None,
        **said,
    )


def judged(foreign, *images, registered=(), converted=None, trust=False, now=NOW):
    images = images or (listed(),)
    foreign = foreign if isinstance(foreign, list) else [foreign]
    desired = Desired(lists=(desired_list(*images),))
    return plan_adoption(foreign, registered, desired, converted or {}, now, trust_markers=trust)


def prepared(name, image=None, content=None):
    image = image or listed()
    return POPULATIONS[name](image, content if content is not None else content_of("debian", image.listed.version))


@pytest.mark.parametrize("name", EVERY)
def test_an_image_of_each_program_is_recognised_and_taken_where_the_cloud_s_checksum_is_the_list_s(name):
    image = listed()
    (found,) = judged(foreign_of(prepared(name)))
    assert (found.verdict, found.proof, found.claim.program) == (
        Verdict.TAKE,
        Proof.PUBLISHED,
        prepared(name).program,
    )
    assert (found.desired, found.version, found.digest) == (image, "2", image.listed.checksum)


@pytest.mark.parametrize("name", EVERY)
def test_an_image_that_was_converted_is_taken_where_it_is_what_coppice_makes_of_the_listed_file(name):
    own = {listed().listed.checksum: frozenset({Checksum.of(b"x"), Checksum.of(OTHER_BYTES)})}
    (found,) = judged(foreign_of(prepared(name, content=OTHER_BYTES)), converted=own)
    assert (found.verdict, found.proof) == (Verdict.TAKE, Proof.CONVERTED)


@pytest.mark.parametrize("tells_checksum", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_an_image_of_which_only_its_program_says_what_it_is_is_shown_and_not_taken(name, tells_checksum):
    image = foreign_of(prepared(name, content=OTHER_BYTES), tells_checksum=tells_checksum)
    (found,) = judged(image)
    assert (found.verdict, found.proof) == (Verdict.UNPROVEN, Proof.MARKER)
    assert ("no checksum" in found.reason) is not tells_checksum
    (trusted,) = judged(image, trust=True)
    assert (trusted.verdict, trusted.proof) == (Verdict.TAKE, Proof.MARKER)
    assert trusted.digest == listed().listed.checksum


@pytest.mark.parametrize("name", EVERY)
def test_keys_are_recognised_in_whatever_case_a_cloud_writes_them(name):
    image = prepared(name)
    for change in (str.upper, str.lower):
        shouted = replace(image, properties={change(key): value for key, value in image.properties.items()})
        assert judged(foreign_of(shouted))[0].verdict is Verdict.TAKE


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"os_distro": "debian"},
        {"vmcatcher_event_ad_mpuri": "https://mp.example.org/debian:2/"},
        {"vmcatcher_event_dc_identifier": "  "},
        {"cloudkeeper_id": "x"},
        {"appdb_id": "x"},
        {"appliance_id": "x"},
    ],
)
def test_what_no_known_program_registered_is_nobody_s_whatever_its_bytes_are(properties):
    image = replace(foreign_of(prepared("atrope")), properties=properties)
    assert recognise(image) is None
    assert judged(image, trust=True) == ()


@pytest.mark.parametrize("name", EVERY)
def test_an_image_of_another_site_is_never_taken_even_where_another_program_wrote_on_it_too(name):
    marker = to_properties(marker_of(listed(), site="other-site"))
    for mark in (marker, {"COPPICE_SITE": "other-site"}, {"coppice_list": "x"}):
        assert judged(foreign_of(prepared(name), properties=mark), trust=True) == ()


@pytest.mark.parametrize("name", EVERY)
def test_an_image_that_no_list_wants_here_is_left(name):
    (found,) = judged(foreign_of(prepared(name, listed("alma"))), listed("debian"), trust=True)
    assert found.verdict is Verdict.LEAVE
    assert "no list" in found.reason


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cloudkeeper-one", {"properties": {"CLOUDKEEPER_EXPIRED": "yes"}}),
        ("cloudkeeper-one", {"name": "EXPIRED_1700000000_x@default"}),
        ("cloudkeeper-os", {"properties": {"APPLIANCE_STATUS": "EOL"}}),
        ("cloudkeeper-os", {"properties": {"APPLIANCE_REMOVE": "True"}}),
        ("vmcatcher-opennebula", {"name": "8a1f_EXPIRED_2026-01-02_03-04-05_+0000-UTC"}),
    ],
)
def test_what_its_program_has_put_out_of_use_is_left(name, said):
    (found,) = judged(foreign_of(prepared(name), **said), trust=True)
    assert (found.verdict, found.claim.retired) == (Verdict.LEAVE, True)
    assert "out of use" in found.reason


@pytest.mark.parametrize("name", EVERY)
def test_what_is_not_whole_revoked_or_has_ended_is_left(name):
    image = prepared(name)
    assert "not whole" in judged(foreign_of(image, ready=False), trust=True)[0].reason
    assert "ended" in judged(foreign_of(image), now=LATER, trust=True)[0].reason
    revoked = replace(listed(), revoked="a hole")
    assert judged(foreign_of(image), revoked, trust=True)[0].reason == "it is revoked: a hole"


@pytest.mark.parametrize("by", ["digest", "key", "version", "lineage", "marker"])
def test_what_an_administrator_revoked_is_left_however_it_was_said(by):
    image, below = listed(), Checksum.of(b"what it is built on")
    said = {
        "digest": Revocation(digest=image.listed.checksum, key=None, version=None, reason="a hole", at=NOW),
        "key": Revocation(digest=None, key=image.key, version=None, reason="a hole", at=NOW),
        "version": Revocation(digest=None, key=image.key, version="2", reason="a hole", at=NOW),
        "lineage": Revocation(digest=below, key=None, version=None, reason="a hole", at=NOW),
    }
    gone = registered_image(image, state=ImageState.REVOKED)
    gone = replace(gone, marker=replace(gone.marker, reason="a hole", version="0"))
    desired = Desired(
        lists=(desired_list(replace(image, built_on=(below,))),), revocations=(said[by],) if by in said else ()
    )
    registered = [gone] if by == "marker" else []
    (found,) = plan_adoption([foreign_of(prepared("nifty"))], registered, desired, {}, NOW, trust_markers=True)
    assert found.verdict is Verdict.LEAVE
    assert "a hole" in found.reason


def test_an_earlier_version_that_is_revoked_is_left():
    earlier = listed(version="1")
    said = Revocation(digest=None, key=earlier.key, version="1", reason="a hole", at=NOW)
    desired = Desired(lists=(desired_list(listed()),), revocations=(said,))
    image = foreign_of(prepared("nifty", earlier, OTHER_BYTES))
    (found,) = plan_adoption([image], [], desired, {}, NOW, trust_markers=True)
    assert found.reason == "it is revoked: a hole"


@pytest.mark.parametrize("name", ["atrope-egi", "glancepush", "nifty", "vmcatcher-opennebula"])
def test_an_earlier_version_is_taken_on_trust_where_its_checksum_is_written(name):
    earlier = listed(version="1")
    image = foreign_of(prepared(name, earlier, OTHER_BYTES))
    assert judged(image)[0].verdict is Verdict.UNPROVEN
    (found,) = judged(image, trust=True)
    assert (found.verdict, found.version, found.digest) == (Verdict.TAKE, "1", earlier.listed.checksum)


@pytest.mark.parametrize("name", ["cloudkeeper-one", "cloudkeeper-os"])
def test_an_earlier_version_of_which_nobody_knows_the_checksum_is_left(name):
    (found,) = judged(foreign_of(prepared(name, listed(version="1"), OTHER_BYTES)), trust=True)
    assert found.verdict is Verdict.LEAVE
    assert "checksum" in found.reason


@pytest.mark.parametrize("name", ["atrope-egi", "cloudkeeper-one", "cloudkeeper-os", "nifty"])
def test_a_version_that_the_list_does_not_know_yet_is_left(name):
    (found,) = judged(foreign_of(prepared(name, listed(version="3"), OTHER_BYTES)), trust=True)
    assert found.verdict is Verdict.LEAVE
    assert "version 3" in found.reason


@pytest.mark.parametrize("name", ["atrope-egi", "glancepush", "nifty"])
def test_a_marker_that_contradicts_the_list_is_not_trusted(name):
    other = listed(content=b"other content of version 2")
    (found,) = judged(foreign_of(prepared(name, other, OTHER_BYTES)), trust=True)
    assert found.verdict is Verdict.LEAVE
    assert "another checksum" in found.reason


def test_a_version_without_a_place_in_the_order_is_left():
    image = foreign_of(prepared("nifty", content=OTHER_BYTES), properties={"VMCATCHER_EVENT_HV_VERSION": "---"})
    image = replace(image, properties={**image.properties, "VMCATCHER_EVENT_SL_CHECKSUM_SHA512": "f" * 128})
    assert "no place in the order" in judged(image, trust=True)[0].reason


def test_of_two_of_one_version_the_proven_one_is_taken_and_the_other_told():
    converted = foreign_of(prepared("nifty", content=OTHER_BYTES), "a", tells_checksum=False)
    proven = foreign_of(prepared("atrope"), "b")
    first, second = judged([proven, converted], trust=True)
    assert (first.foreign.cloud_identifier, first.verdict) == ("a", Verdict.LEAVE)
    assert "one is enough" in first.reason
    assert (second.foreign.cloud_identifier, second.verdict) == ("b", Verdict.TAKE)


def test_what_is_registered_already_is_not_taken_a_second_time():
    (found,) = judged(foreign_of(prepared("atrope")), registered=[registered_image(listed())])
    assert found.verdict is Verdict.LEAVE
    assert "registered already" in found.reason
    (found,) = judged(foreign_of(prepared("atrope")), registered=[registered_image(listed(), ready=False)])
    assert found.verdict is Verdict.TAKE


def test_one_image_of_several_lists_is_settled_by_its_list_its_vo_or_not_at_all():
    here, there = listed(), replace(listed(of_list="b"), vo="other.example.org")
    desired = Desired(lists=(desired_list(here), desired_list(there, name="b")))

    def judge(image):
        return plan_adoption([image], [], desired, {}, NOW)[0]

    assert judge(foreign_of(prepared("cloudkeeper-os", there))).desired == there
    by_vo = foreign_of(prepared("nifty", there))
    without_list = {key: text for key, text in by_vo.properties.items() if key != "VMCATCHER_EVENT_IL_DC_IDENTIFIER"}
    assert judge(replace(by_vo, properties=without_list)).desired == there
    neither = judge(foreign_of(prepared("atrope", there)))
    assert (neither.verdict, neither.desired) == (Verdict.LEAVE, None)
    assert "several" in neither.reason


@pytest.mark.parametrize(
    "value",
    ["", "x", "sha512:zz", "md5:" + "0" * 32, "0" * 127, "undefined", "\x00", "sha512:" + "0" * 10_000_000],
)
def test_a_checksum_that_is_none_counts_as_not_said(value):
    image = foreign_of(prepared("nifty"), properties={"VMCATCHER_EVENT_SL_CHECKSUM_SHA512": value})
    assert recognise(image).published is None


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{", "[]", "null", '{"hv:version": 7}', '{"hv:version": "1"', "{" + " " * 70_000 + "}"]
)
def test_attributes_that_are_no_json_object_of_texts_say_nothing(text):
    claim = recognise(foreign_of(prepared("atrope-egi"), properties={"APPLIANCE_ATTRIBUTES": text}))
    assert (claim.program, claim.version) == (Program.ATROPE, None)


def policy():
    from pathlib import Path

    from coppice.settings.load import load_settings

    settings = load_settings(config=None, environ={"HOME": "/n"}, options={}, system_file=Path("/nowhere/x"))
    return policy_for(settings, "main")


def adopted(cloud, *images, trust=False):
    desired = Desired(lists=(desired_list(*images),))
    found = plan_adoption(cloud.foreign(), cloud.describe(), desired, {}, NOW, trust_markers=trust)
    results = adopt_images(found, cloud, clock=FixedClock(NOW), monitor=SILENT, on_result=lambda _result: None)
    return found, results, desired


@pytest.mark.parametrize("name", EVERY)
def test_a_population_is_taken_over_without_an_upload_and_then_there_is_nothing_to_do(name):
    cloud = MemoryCloud("main", SITE)
    images = [replace(listed(each), set_identifier="s", set_version="9") for each in ("debian", "alma", "ubuntu")]
    for number, image in enumerate(images):
        content = content_of(image.listed.title.partition(" ")[0], "2")
        keep_in_memory(cloud, POPULATIONS[name](image, content), f"old-{number}")
    before = {identifier: stored.checksum for identifier, stored in cloud.images.items()}
    _, results, desired = adopted(cloud, *images)
    assert [each.error for each in results] == [None] * 3
    assert {identifier: stored.checksum for identifier, stored in cloud.images.items()} == before
    for each in cloud.describe():
        assert each.marker.adopted_from == str(prepared(name).program)
        assert each.marker.state is ImageState.AVAILABLE
        assert (each.marker.vo, each.marker.set_identifier, each.marker.set_version) == ("vo.example.org", "s", "9")
    said = cloud.images["old-0"].properties
    assert all(
        said[key] == value
        for key, value in POPULATIONS[name](images[0], b"").properties.items()
        if "CHECKSUM" not in key and "SIZE" not in key and key != "description"
    )
    assert plan(desired, cloud.describe(), policy(), NOW, "main").actions == ()
    again, results, _ = adopted(cloud, *images)
    assert (again, results) == ((), ())


def test_an_earlier_version_that_was_taken_over_stays_until_the_newest_is_there_and_goes_after_its_grace():
    cloud = MemoryCloud("main", SITE)
    keep_in_memory(cloud, prepared("nifty", listed(version="1"), OTHER_BYTES), "old", tells_checksum=False)
    _, (result,), desired = adopted(cloud, listed(version="2"), trust=True)
    assert result.registered is not None
    assert result.registered.marker.version == "1"
    assert cloud.images["old"].properties["version"] == "1"
    made = plan(desired, cloud.describe(), policy(), NOW, "main")
    kinds = [(each.kind, each.version, bool(each.after)) for each in made.actions]
    assert kinds == [(ActionKind.REGISTER, "2", False), (ActionKind.CHANGE_STATE, "1", True)]


def test_one_that_cannot_be_taken_over_stops_no_other():
    cloud = MemoryCloud("main", SITE)
    for name in ("debian", "alma"):
        keep_in_memory(cloud, prepared("atrope", listed(name), content_of(name, "2")), f"old-{name}")
    desired = Desired(lists=(desired_list(listed("debian"), listed("alma")),))
    found = plan_adoption(cloud.foreign(), (), desired, {}, NOW)
    del cloud.images["old-alma"]
    told = []
    results = adopt_images(found, cloud, clock=FixedClock(NOW), monitor=SILENT, on_result=told.append)
    assert [type(each.error) for each in results] == [AdoptionError, type(None)]
    assert tuple(told) == results


def test_a_cloud_that_cannot_have_images_of_others_says_so():
    class Bare:
        name = "bare"

    with pytest.raises(AdoptionError, match="bare"):
        adopt_images((), Bare(), clock=FixedClock(NOW), monitor=SILENT, on_result=lambda _result: None)


def test_the_list_s_identifier_in_a_marker_must_be_that_list_s():
    image = foreign_of(prepared("nifty"), properties={"VMCATCHER_EVENT_IL_DC_IDENTIFIER": list_identifier("b")})
    assert judged(image, trust=True)[0].verdict is Verdict.LEAVE
    assert judged(image, now=NOW + timedelta(days=1), trust=True)[0].verdict is Verdict.LEAVE
