# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.clock import FixedClock
from coppice.cloud.adoption_plan import Proof, Verdict, plan_adoption
from coppice.cloud.apply.adoption import adopt_images
from coppice.cloud.model import Desired, Policy, Visibility
from coppice.cloud.opennebula.options import Placing
from coppice.cloud.plan import plan
from coppice.monitor import SILENT
from coppice.testing.desired import NOW, content_of, desired_image, desired_list
from coppice.testing.opennebula_stand import OpenNebulaStand
from coppice.testing.populations import OPENNEBULA, POPULATIONS, keep_in_opennebula

pytestmark = pytest.mark.integration
PROGRAMS = ["cloudkeeper-one", "nifty", "vmcatcher-opennebula"]
POLICY = Policy(grace=timedelta(days=7))


@pytest.fixture
def stand(tmp_path):
    found = OpenNebulaStand(tmp_path)
    with found.simulator:
        yield found


def wanted():
    images = [replace(desired_image(name, "2"), vo="vo.example.org") for name in ("alma", "debian")]
    return images, Desired(lists=(desired_list(*images),))


def take(cloud, desired, *, trust):
    found = plan_adoption(cloud.foreign(), cloud.describe(), desired, {}, NOW, trust_markers=trust)
    results = adopt_images(found, cloud, clock=FixedClock(NOW), monitor=SILENT, on_result=lambda _result: None)
    return found, results


def test_the_programs_here_are_all_that_are_known_to_have_used_this_kind_of_cloud():
    image = desired_image()
    assert [name for name in sorted(POPULATIONS) if POPULATIONS[name](image, b"").kind == OPENNEBULA] == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_images_are_taken_over_as_they_are_with_their_templates(stand, program):
    images, desired = wanted()
    kept = {}
    for image in images:
        prepared = POPULATIONS[program](image, content_of(image.listed.title.split()[0], "2"))
        kept[image.key] = (
            prepared,
            *keep_in_opennebula(stand.simulator.endpoint, "oneadmin:secret", prepared, stand.path / "offers"),
        )
    machine = stand.simulator.start_machine(kept[images[0].key][1])
    sources = {each.identifier: each.source for each in stand.simulator.images()}
    templates = sorted(each.identifier for each in stand.simulator.templates())
    cloud = stand.driver

    found, results = take(cloud, desired, trust=False)
    assert [(each.verdict, each.proof) for each in found] == [(Verdict.UNPROVEN, Proof.MARKER)] * 2
    assert results == ()
    found, results = take(cloud, desired, trust=True)
    assert [each.error for each in results] == [None, None]

    assert {each.identifier: each.source for each in stand.simulator.images()} == sources
    left = {each.identifier for each in stand.simulator.templates()}
    assert set(templates) <= left
    assert {each.marker.key: int(each.cloud_identifier) for each in cloud.describe()} == {
        key: number for key, (_, number, _) in kept.items()
    }
    for prepared, number, template in kept.values():
        stored = stand.simulator.image(number).template
        for key, value in prepared.properties.items():
            if key.startswith(("NIFTY_", "CLOUDKEEPER_", "VMCATCHER_")):
                assert stored.first(key) == value
        assert template is None or template in left
    assert all(each.ready for each in cloud.describe())
    assert plan(desired, cloud.describe(), POLICY, NOW, "test").actions == ()
    assert take(cloud, desired, trust=True) == ((), ())
    stand.simulator.end_machine(machine)


def test_copies_in_several_datastores_are_one_image(tmp_path):
    stand = OpenNebulaStand(tmp_path, Placing(visibility=Visibility.PUBLIC, datastores=("default", "second")))
    second = stand.simulator.world.add_datastore("second")
    (image, _), _ = wanted()
    desired = Desired(lists=(desired_list(image),))
    prepared = POPULATIONS["nifty"](image, content_of("alma", "2"))
    copy = replace(prepared, name="alma image@second", template={})
    with stand.simulator:
        for each, datastore in ((prepared, 1), (copy, second.identifier)):
            keep_in_opennebula(
                stand.simulator.endpoint, "oneadmin:secret", each, stand.path / "offers", datastore=datastore
            )
        _, results = take(stand.driver, desired, trust=True)
        assert [each.error for each in results] == [None, None]
        (registered,) = stand.driver.describe()
        assert registered.ready, registered.problem
        assert plan(desired, (registered,), POLICY, NOW, "test").actions == ()
        assert take(stand.driver, desired, trust=True) == ((), ())


def test_an_image_that_another_user_owns_is_neither_shown_nor_taken(stand):
    (image, _), desired = wanted()
    prepared = POPULATIONS["nifty"](image, content_of("alma", "2"))
    keep_in_opennebula(stand.simulator.endpoint, "user:secret", prepared, stand.path / "offers")
    assert take(stand.driver, desired, trust=True) == ((), ())
