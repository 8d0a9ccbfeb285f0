# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.clock import FixedClock
from coppice.cloud.adoption_plan import Proof, Verdict, plan_adoption
from coppice.cloud.apply.adoption import adopt_images
from coppice.cloud.model import Desired, Policy
from coppice.cloud.plan import plan
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT
from coppice.testing.desired import NOW, content_of, desired_image, desired_list
from coppice.testing.openstack_stand import OpenStackStand
from coppice.testing.populations import OPENSTACK, POPULATIONS, keep_in_glance

pytestmark = pytest.mark.integration
PROGRAMS = ["atrope", "atrope-egi", "cloudkeeper-os", "cloudkeeper-os-head", "glancepush"]
POLICY = Policy(grace=timedelta(days=7))
CONVERTED = b"what another program made of it" * 30
MARKS = ("APPLIANCE_", "CLOUDKEEPER_", "VMCATCHER_EVENT_DC_ID", "APPDB", "IMAGE_HASH")


@pytest.fixture
def stand(openstack):
    return OpenStackStand(openstack)


def wanted(*names):
    images = []
    for name in names:
        image = desired_image(name, "2")
        listed = replace(image.listed, mpuri=f"https://mp.example.org/{name}:2/")
        images.append(replace(image, listed=listed, vo="vo.example.org"))
    return images, Desired(lists=(desired_list(*images),))


def take(cloud, desired, *, trust=False, converted=None):
    found = plan_adoption(cloud.foreign(), cloud.describe(), desired, converted or {}, NOW, trust_markers=trust)
    results = adopt_images(found, cloud, clock=FixedClock(NOW), monitor=SILENT, on_result=lambda _result: None)
    return found, results


def test_the_programs_here_are_all_that_are_known_to_have_used_this_kind_of_cloud():
    image = desired_image()
    assert [name for name in sorted(POPULATIONS) if POPULATIONS[name](image, b"").kind == OPENSTACK] == PROGRAMS


def test_an_image_of_each_program_is_taken_over_where_glance_s_own_checksum_is_the_list_s(stand, openstack):
    images, desired = wanted(*PROGRAMS)
    prepared = {
        keep_in_glance(openstack, "alice", each): each
        for program, image in zip(PROGRAMS, images, strict=True)
        for each in [POPULATIONS[program](image, content_of(program, "2"))]
    }
    before = {identifier: stand.image(identifier) for identifier in prepared}
    found, results = take(stand.cloud, desired)
    assert [(each.verdict, each.proof) for each in found] == [(Verdict.TAKE, Proof.PUBLISHED)] * len(PROGRAMS)
    assert [each.error for each in results] == [None] * len(PROGRAMS)
    described = stand.cloud.describe()
    assert {each.cloud_identifier: each.marker.adopted_from for each in described} == {
        identifier: str(each.program) for identifier, each in prepared.items()
    }
    for identifier, was in prepared.items():
        now = stand.image(identifier)
        for key in ("os_hash_value", "created_at", "size", "file"):
            assert now[key] == before[identifier][key]
        assert set(was.tags) <= set(now["tags"])
        for key, value in was.properties.items():
            # `APPLIANCE_ATTRIBUTES` is among what Coppice shows itself from now on.
            if key.upper().startswith(MARKS) and key != "APPLIANCE_ATTRIBUTES":
                assert now[key] == value
    assert plan(desired, described, POLICY, NOW, "test").actions == ()
    assert take(stand.cloud, desired) == ((), ())


def test_what_is_converted_incomplete_or_another_project_s_is_taken_for_proof_or_on_trust_or_not_at_all(
    stand, openstack
):
    (first, second, third, fourth), desired = wanted("alma", "debian", "rocky", "ubuntu")
    keep_in_glance(openstack, "alice", POPULATIONS["cloudkeeper-os"](first, CONVERTED))
    keep_in_glance(openstack, "alice", POPULATIONS["cloudkeeper-os"](second, CONVERTED + b"."))
    half = POPULATIONS["atrope-egi"](third, b"")
    stand.make({"name": half.name, **half.properties})
    other = POPULATIONS["atrope-egi"](fourth, content_of("ubuntu", "2"))
    keep_in_glance(openstack, "bob", replace(other, visibility="community"))
    own = {first.listed.checksum: frozenset({Checksum.of(CONVERTED)})}
    found, results = take(stand.cloud, desired, converted=own)
    assert {each.desired.key: (each.proof, each.verdict) for each in found} == {
        first.key: (Proof.CONVERTED, Verdict.TAKE),
        second.key: (Proof.MARKER, Verdict.UNPROVEN),
        third.key: (Proof.NONE, Verdict.LEAVE),
    }
    assert [each.candidate.desired.key for each in results] == [first.key]
    _, results = take(stand.cloud, desired, converted=own, trust=True)
    assert [(each.candidate.desired.key, each.error) for each in results] == [(second.key, None)]
