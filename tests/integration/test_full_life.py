# SPDX-License-Identifier: Apache-2.0
"""Whole lives of appliances and of sets of them, in each cloud, by the workflows that commands call.

After each step the cloud is looked at as its users do, never through the driver.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.testing.site_world import World
from coppice.testing.used_clouds import UsedDirectory, UsedMemory
from coppice.testing.used_servers import UsedLibvirt, UsedOpenNebula, UsedOpenStack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.testing.used_clouds import UsedCloud

pytestmark = [pytest.mark.integration, pytest.mark.threat("T36"), pytest.mark.threat("T90")]
GRACE = timedelta(days=7)
CLOUDS = ("directory", "libvirt", "memory", "opennebula", "openstack")


@pytest.fixture(params=CLOUDS)
def used(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UsedCloud]:
    if request.param == "openstack":
        yield UsedOpenStack(request.getfixturevalue("openstack"))
    elif request.param == "libvirt":
        yield UsedLibvirt(request.getfixturevalue("libvirtd"))
    elif request.param == "opennebula":
        opennebula = UsedOpenNebula(tmp_path / "one")
        with opennebula.running():
            yield opennebula
    elif request.param == "directory":
        yield UsedDirectory(tmp_path / "cloud")
    else:
        yield UsedMemory()


@pytest.fixture
def world(used: UsedCloud, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, used, grace_days=GRACE.days)
    yield world
    world.close()


def states(world: World) -> dict[str, str]:
    """Return the states of the only image's versions."""
    (cloud,) = world.used
    found = cloud.states()
    assert len(found) <= 1
    return next(iter(found.values()), {})


def check_sharing(world: World, image: str, version: str) -> None:
    """Check, by logging in as the other projects, who finds a version; as OpenStack alone can tell."""
    (cloud,) = world.used
    if not isinstance(cloud, UsedOpenStack):
        return
    assert (image, version) in cloud.finds("gus")
    # The other project has to accept it, and does: until then, it starts it by its identifier alone.
    assert (image, version) not in cloud.finds("bob")
    (identifier,) = (
        each["id"] for each in cloud.owned() if (each["coppice_image"], each["coppice_version"]) == (image, version)
    )
    assert cloud.can_start(identifier, "bob")
    assert cloud.accept() == 1
    assert (image, version) in cloud.finds("bob")


def test_an_appliance_lives_its_whole_life(world: World):
    debian = world.add("Debian 12")
    world.publish()
    world.subscribe()
    check_versions(world, debian)
    check_revocation(world, debian)
    check_rollback(world, debian)
    check_withdrawal(world, debian)
    check_expiry(world, debian)
    kinds = ["ImageRegistered", "ImageUpdated", "ImageSuperseded", "ImageRevoked", "RevocationTakenBack"]
    kinds += ["ImagePinned", "ImageUnpinned", "ImageWithdrawn", "ImageExpired", "ImageRemoved"]
    assert set(kinds) <= set(world.told())
    assert "ImageFailed" not in world.told()


def check_versions(world: World, debian: dict[str, Any]) -> None:
    """Register, describe anew, do nothing, update."""
    (cloud,) = world.used
    image = debian["dc:identifier"]
    world.synced()
    assert states(world) == {"1": "available"}
    check_sharing(world, image, "1")
    debian["dc:title"] = 'Debian "stable" 12 ]]> ${HOME}'
    world.publish()
    world.synced()
    (seen,) = cloud.seen().values()
    assert str(seen) == "available"
    assert "stable" in seen.title
    report = world.synced()
    assert all(each.plan is not None and each.plan.actions == () for each in report.clouds)
    world.renew(debian, "2")
    world.publish()
    world.synced()
    assert states(world) == {"1": "superseded", "2": "available"}
    assert cloud.usable(image) == "2"
    check_sharing(world, image, "2")


def check_revocation(world: World, debian: dict[str, Any]) -> None:
    """Revoke the newest version, and take it back."""
    (cloud,) = world.used
    image = debian["dc:identifier"]
    world.revoke(debian, "2", "a password was left in it")
    revoked = cloud.seen()[image, "2"]
    assert str(revoked) == "revoked"
    assert "a password was left in it" in revoked.reason
    world.synced()
    assert cloud.seen()[image, "2"] == revoked
    world.unrevoke(debian, "2")
    world.synced()
    assert states(world) == {"1": "superseded", "2": "available"}
    assert cloud.usable(image) == "2"


def check_rollback(world: World, debian: dict[str, Any]) -> None:
    """Go back to the older version, which stays whatever the list says, and follow the list again."""
    (cloud,) = world.used
    world.rollback(debian, "1")
    assert states(world) == {"1": "available", "2": "superseded"}
    world.synced()
    assert cloud.usable(debian["dc:identifier"]) == "1"
    world.release(debian)
    world.synced()
    assert states(world) == {"1": "superseded", "2": "available"}


def check_withdrawal(world: World, debian: dict[str, Any]) -> None:
    """Take the image from the list: that is held until it is confirmed; and list it again."""
    (cloud,) = world.used
    world.publisher.images.remove(debian)
    world.publish()
    world.sync()
    assert states(world)["2"] == "available"
    world.synced(allow_withdrawals=True)
    assert states(world) == {"1": "withdrawn", "2": "withdrawn"}
    world.publisher.images.append(debian)
    world.publish()
    world.synced()
    assert states(world)["2"] == "available"
    assert cloud.usable(debian["dc:identifier"]) == "2"


def check_expiry(world: World, debian: dict[str, Any]) -> None:
    """Let the list's date pass, since nobody renews it, and then the grace period."""
    (cloud,) = world.used
    world.advance(timedelta(days=29))
    world.sync()
    assert states(world).get("2") == "expired"
    assert cloud.usable(debian["dc:identifier"]) is None
    world.advance(GRACE - timedelta(hours=1))
    world.retire()
    assert states(world) == {"2": "expired"}
    world.advance(timedelta(hours=1))
    world.retire()
    assert states(world) == {}
    assert cloud.is_empty()


def test_a_set_lives_its_whole_life_together(world: World):
    (cloud,) = world.used
    head, node = images = [world.add("Cluster head"), world.add("Cluster node")]
    both = [image["dc:identifier"] for image in images]
    world.bind(images, "1")
    world.publish()
    world.subscribe()
    world.synced()
    assert cloud.states() == {image: {"1": "available"} for image in both}

    world.renew(head, "2")
    world.renew(node, "2")
    world.bind(images, "2")
    world.publish()
    world.synced()
    assert cloud.states() == {image: {"1": "superseded", "2": "available"} for image in both}

    # The release is not whole: nothing of it is shown.
    world.renew(head, "3")
    head["coppice:set_version"] = "3"
    world.publish()
    world.sync()
    assert [cloud.usable(image) for image in both] == ["2", "2"]

    world.rollback(node, "1")
    assert cloud.states()[both[1]] | {"3": ""} == {"1": "available", "2": "superseded", "3": ""}
    assert [cloud.usable(image) for image in both] == ["1", "1"]
    world.release(head)
    world.renew(node, "3")
    node["coppice:set_version"] = "3"
    world.publish()
    world.synced()
    assert [cloud.usable(image) for image in both] == ["3", "3"]

    world.advance(timedelta(days=29))
    world.sync()
    assert [cloud.states()[image]["3"] for image in both] == ["expired", "expired"]
    assert [cloud.usable(image) for image in both] == [None, None]
    world.advance(GRACE)
    world.retire()
    assert cloud.is_empty()
