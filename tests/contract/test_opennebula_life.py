# SPDX-License-Identifier: Apache-2.0
"""What only OpenNebula can be asked: its templates, groups, datastores, users, and what others left there."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.clouds import open_cloud
from coppice.cloud.model import Audience, ImageState, Visibility
from coppice.cloud.opennebula.document import texts
from coppice.cloud.opennebula.options import Placing
from coppice.cloud.properties import presentation_digest, presentation_of
from coppice.cloud.transports.by_http import open_http
from coppice.errors import AdoptionError, CloudError, CloudForbiddenError, CloudQuotaError, CloudRefusedImageError
from coppice.monitor import SILENT
from coppice.settings.clouds import CloudSettings
from coppice.settings.driver_options import Options
from coppice.testing.contracts.stand import register, register_at, to_state
from coppice.testing.desired import SITE, desired_image, marker_of
from coppice.testing.opennebula.faults import Act, Copying, Fault, When
from coppice.testing.opennebula.objects import Right, State
from coppice.testing.opennebula.template import Template
from coppice.testing.opennebula.template_calls import instantiate
from coppice.testing.opennebula_stand import OpenNebulaStand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.cloud.model import DesiredImage

pytestmark = pytest.mark.contract


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[OpenNebulaStand]:
    stand = OpenNebulaStand(tmp_path / "cloud")
    with stand.simulator:
        yield stand


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def shared(desired: DesiredImage, **said: object) -> DesiredImage:
    return replace(desired, presentation=replace(presentation_of(desired), **said))  # type: ignore[arg-type]


def test_the_template_keeps_its_number_over_a_whole_life(stand: OpenNebulaStand, store: Path):
    cloud = stand.cloud
    one = register(stand, desired_image(version="1"), store)
    number = [each.identifier for each in stand.simulator.templates()]
    two = register(stand, desired_image(version="2"), store)
    one = to_state(cloud, one, ImageState.SUPERSEDED)
    assert not stand.is_listed(one)
    retitled = desired_image(version="2", title="A better title")
    two = cloud.update_metadata(two, marker_of(retitled), presentation_of(retitled))
    two = to_state(cloud, two, ImageState.REVOKED, reason="a door at the back")
    assert not any(template.allows(stand.user, Right.USE) for template in stand.simulator.templates())
    one = to_state(cloud, one, ImageState.AVAILABLE, pin="1")
    assert stand.is_listed(one)
    cloud.remove(two)
    one = to_state(cloud, one, ImageState.EXPIRED)
    assert stand.image(one).state is State.DISABLED
    one = to_state(cloud, one, ImageState.AVAILABLE, pin=None)
    assert stand.is_listed(one)
    assert stand.can_start(one)
    assert [each.identifier for each in stand.simulator.templates()] == number
    cloud.remove(to_state(cloud, one, ImageState.WITHDRAWN))
    assert (stand.simulator.images(), stand.simulator.templates()) == ([], [])
    assert stand.simulator.stray_files() == []


def test_an_ordinary_user_instantiates_the_template_and_gets_the_newest_version(stand: OpenNebulaStand, store: Path):
    register(stand, desired_image(version="1"), store)
    new = register(stand, desired_image(version="2"), store)
    (template,) = stand.simulator.templates()
    machine = instantiate(stand.simulator.world, stand.user, template.identifier)
    assert stand.simulator.world.machines[machine].images == (int(new.cloud_identifier),)


@pytest.mark.threat("T88")
def test_a_marker_on_somebody_elses_image_is_no_marker(stand: OpenNebulaStand, store: Path):
    image = register(stand, desired_image(), store)
    stand.simulator.image(int(image.cloud_identifier)).owner = stand.user.identifier
    assert stand.cloud.describe() == ()
    with pytest.raises(CloudError):
        to_state(stand.cloud, image, ImageState.WITHDRAWN)
    again = register(stand, desired_image(), store)
    assert again.cloud_identifier != image.cloud_identifier
    assert stand.is_listed(again)


def test_describing_asks_twice_however_many_there_are(stand: OpenNebulaStand, store: Path):
    asked = []
    for number in range(1, 9):
        register(stand, desired_image(f"image-{number}"), store)
        before = len(stand.simulator.calls)
        assert len(stand.cloud.describe()) == number
        asked.append(len(stand.simulator.calls) - before)
    assert set(asked) == {2}


def test_an_image_is_for_its_group_and_changes_to_another(stand: OpenNebulaStand, store: Path):
    group = stand.simulator.add_group("biology")
    member = stand.simulator.add_user("biologist", "secret", group=group.identifier)
    audience = Audience(visibility=Visibility.SHARED, members=("biology",))
    image = register(stand, shared(desired_image(), audience=audience), store)
    (template,) = stand.simulator.templates()
    for thing in (stand.image(image), template):
        assert thing.allows(member, Right.USE)
        assert not thing.allows(member, Right.MANAGE)
        assert not thing.allows(stand.user, Right.USE)
    others = shared(desired_image(), audience=Audience(visibility=Visibility.SHARED, members=("users",)))
    marker = replace(marker_of(others), metadata_digest=presentation_digest(presentation_of(others)))
    stand.cloud.update_metadata(image, marker, presentation_of(others))
    for thing in (stand.image(image), template):
        assert not thing.allows(member, Right.USE)
        assert thing.allows(stand.user, Right.USE)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"audience": Audience(members=("biologie",))}, "Did you mean 'biology'"),
        ({"audience": Audience(members=("biology", "users"))}, "2 groups"),
        ({"datastores": ("defaults",)}, "Did you mean 'default'"),
        ({"datastores": ("system",)}, "no datastore 'system'"),
        ({"datastores": ("files",)}, "no datastore 'files'"),
    ],
)
def test_a_place_or_group_that_is_not_there_is_told_before_anything_is_copied(
    stand: OpenNebulaStand, store: Path, said: dict[str, object], says: str
):
    stand.simulator.add_group("biology")
    with pytest.raises(CloudRefusedImageError, match=says):
        register(stand, shared(desired_image(), **said), store)
    assert "one.image.allocate" not in stand.simulator.calls


def test_an_image_lies_in_each_datastore_and_is_one_registered_image(stand: OpenNebulaStand, store: Path):
    stand.simulator.world.add_datastore("second")
    desired = shared(desired_image(), datastores=("second", "1"))
    image = register(stand, desired, store)
    assert stand.cloud.describe() == (image,)
    first, second = stand.simulator.images()
    assert {first.datastore, second.datastore} == {1, stand.simulator.world.datastores[3].identifier}
    assert stand.image(image).datastore == 3
    assert first.name == f"{desired.listed.title} 1 @second"
    expired = to_state(stand.cloud, image, ImageState.EXPIRED)
    assert {each.state for each in stand.simulator.images()} == {State.DISABLED}
    stand.cloud.remove(expired)
    assert stand.simulator.images() == []


def test_an_image_of_which_one_copy_is_gone_is_made_whole(stand: OpenNebulaStand, store: Path):
    stand.simulator.world.add_datastore("second")
    desired = shared(desired_image(), datastores=("default", "second"))
    image = register(stand, desired, store)
    with stand.simulator.world.lock:
        stand.simulator.world.drop(stand.simulator.images()[1], with_file=True)
    (half,) = stand.cloud.describe()
    assert not half.ready
    assert half.problem == "it lies in 1 of 2 datastores"
    assert stand.is_listed(half)
    again = register(stand, desired, store)
    assert again.ready
    assert again.cloud_identifier == image.cloud_identifier
    assert len(stand.simulator.images()) == 2


def as_user(stand: OpenNebulaStand, session: str, placing: Placing) -> None:
    (stand.path / "one_auth").write_text(session)
    stand.placing = placing
    stand.driver = stand.of_site(SITE)
    stand.cloud = stand.driver


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_user_without_great_rights_registers_for_a_group_of_theirs(
    stand: OpenNebulaStand, store: Path, *, is_seen: bool
):
    stand.simulator.add_user("coppice", "secret", group=1)
    if is_seen:
        # As the rules of a new OpenNebula's default VDC allow it.
        stand.simulator.world.datastores[1].permissions[6] = 1
    as_user(stand, "coppice:secret", Placing(group="users", datastores=("default" if is_seen else "1",)))
    image = register(stand, desired_image(), store)
    assert image.ready
    assert image.drift is None
    assert stand.can_start(image)
    assert stand.is_listed(image)
    expired = to_state(stand.cloud, image, ImageState.EXPIRED)
    assert not stand.can_start(expired)
    back = to_state(stand.cloud, expired, ImageState.AVAILABLE)
    assert stand.is_listed(back)
    stand.cloud.remove(to_state(stand.cloud, back, ImageState.EXPIRED))
    assert (stand.simulator.images(), stand.simulator.templates()) == ([], [])


def test_a_user_who_may_not_create_images_is_told_so(stand: OpenNebulaStand, store: Path):
    stand.simulator.add_user("coppice", "secret", group=1, may_create=False)
    as_user(stand, "coppice:secret", Placing(group="users", datastores=("1",)))
    with pytest.raises(CloudForbiddenError, match="CREATE IMAGE"):
        register(stand, desired_image(), store)
    assert stand.simulator.images() == []


def test_the_front_end_fetches_an_image_over_http_with_its_checksums(
    stand: OpenNebulaStand, store: Path, tmp_path: Path
):
    stand.driver._transport = open_http(Options({"listen": "127.0.0.1:0"}, of="the transport http"))
    image = register(stand, desired_image(), store)
    stored = stand.image(image)
    assert stored.path.startswith("http://127.0.0.1:")
    assert set(stored.checksums) == {"md5", "sha1"}
    assert all(stored.checksums.values())
    assert stored.written is not None
    assert stored.written.read_bytes() == stand.convert(desired_image(), store).path.read_bytes()


@pytest.mark.parametrize("mark", ["NIFTY_APPLIANCE_ID", "CLOUDKEEPER_APPLIANCE_ID"])
def test_an_adopted_image_keeps_its_template_with_all_that_stands_in_it(stand: OpenNebulaStand, store: Path, mark: str):
    stand.add_foreign("debian-8@default")
    (foreign,) = stand.adopting.foreign()
    stand.simulator.image(int(foreign.cloud_identifier)).template.put(mark, "8a1f")
    theirs = stand.driver.front_end.allocate_template(
        (
            ("NAME", "debian-8@default"),
            ("CPU", "1"),
            ("DISK", (("IMAGE_ID", foreign.cloud_identifier),)),
            (mark, "8a1f"),
        )
    )
    (foreign,) = stand.adopting.foreign()
    assert foreign.properties[mark] == "8a1f"
    marker = replace(marker_of(desired_image()), adopted_from="nifty")
    adopted = stand.adopting.adopt(foreign, marker, presentation_of(desired_image()))
    assert adopted.ready
    assert adopted.drift is None
    (template,) = stand.simulator.templates()
    assert template.identifier == theirs
    assert template.template.first(mark) == "8a1f"
    assert stand.is_listed(adopted)
    assert stand.image(adopted).template.first(mark) == "8a1f"
    new = register(stand, desired_image(version="2"), store)
    assert stand.is_listed(new)
    assert [each.identifier for each in stand.simulator.templates()] == [theirs]


def test_an_image_of_another_user_or_that_is_not_whole_is_not_adopted(stand: OpenNebulaStand):
    stand.add_foreign("theirs")
    (foreign,) = stand.adopting.foreign()
    stored = stand.simulator.image(int(foreign.cloud_identifier))
    stored.enter(State.ERROR)
    with pytest.raises(AdoptionError, match="ERROR"):
        stand.adopting.adopt(foreign, marker_of(desired_image()), presentation_of(desired_image()))
    stored.enter(State.READY)
    stored.owner = stand.user.identifier
    with pytest.raises(AdoptionError, match="another user"):
        stand.adopting.adopt(foreign, marker_of(desired_image()), presentation_of(desired_image()))
    assert stand.adopting.foreign() == ()


def test_a_file_that_no_image_accounts_for_is_told_when_nothing_is_at_work_on_it(stand: OpenNebulaStand, store: Path):
    register(stand, desired_image("alma"), store)
    stand.simulator.faults.copying = Copying(error="cut short")
    with pytest.raises(CloudError):
        register(stand, desired_image(), store)
    (stray,) = stand.simulator.stray_files()
    assert stand.tidy.leftovers() == ()
    # Its change time cannot be set: it counts as quiet from another moment on.
    long_ago = time.time() - 7200
    os.utime(stray, (long_ago, long_ago))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coppice.cloud.opennebula.leftovers.QUIET_SECONDS", -1)
        found = [each for each in stand.tidy.leftovers() if each.identifier.endswith(stray.name)]
    assert len(found) == 1
    assert not found[0].can_be_cleared
    with pytest.raises(CloudError, match="not Coppice's to delete"):
        stand.tidy.clear(found[0])
    assert stray.exists()


def test_pieces_and_properties_of_the_site_stand_in_the_template(stand: OpenNebulaStand, store: Path):
    stand.placing = Placing(
        visibility=Visibility.PUBLIC,
        networks=("public",),
        pieces=(("MEMORY", "4096"), ("SCHED_REQUIREMENTS", 'CLUSTER_ID="100"')),
    )
    stand.driver = stand.of_site(SITE)
    stand.cloud = stand.driver
    register(stand, shared(desired_image(), properties={"LOGO": "images/logos/debian.png"}), store)
    (template,) = stand.driver.front_end.templates()
    found = texts(template.attributes)
    assert (found["MEMORY"], found["SCHED_REQUIREMENTS"]) == ("4096", 'CLUSTER_ID="100"')
    assert found["LOGO"] == "images/logos/debian.png"
    assert dict(dict(template.attributes)["NIC"]) == {"NETWORK": "public", "NETWORK_UNAME": "oneadmin"}


def test_a_full_datastore_is_told_to_an_administrator_too(stand: OpenNebulaStand, store: Path):
    stand.simulator.world.datastores[1].capacity = (10, 0, 10)
    with pytest.raises(CloudQuotaError, match="Not enough space"):
        register(stand, desired_image(), store)
    assert stand.simulator.images() == []


def test_a_new_front_end_that_does_not_know_its_datastores_yet_takes_images(stand: OpenNebulaStand, store: Path):
    stand.simulator.world.datastores[1].capacity = (0, 0, 0)
    assert stand.is_listed(register(stand, desired_image(), store))


def test_what_somebody_wrote_into_a_template_stays(stand: OpenNebulaStand, store: Path):
    register(stand, desired_image(version="1"), store)
    (template,) = stand.simulator.templates()
    template.template = template.template.merged(Template([("LABELS", "ours")]))
    register(stand, desired_image(version="2"), store)
    (template,) = stand.simulator.templates()
    assert template.template.first("LABELS") == "ours"


def test_two_sites_of_one_user_have_a_template_each(stand: OpenNebulaStand, store: Path):
    ours = register(stand, desired_image(), store)
    other = stand.of_site("another-site")
    theirs = register_at(other, stand, desired_image(), store)
    assert len({each.name for each in stand.simulator.templates()}) == 2
    other.remove(other.change_state(theirs, replace(theirs.marker, state=ImageState.WITHDRAWN)))
    assert stand.is_listed(ours)
    assert len(stand.simulator.templates()) == 1


def test_what_is_not_of_a_format_that_opennebula_takes_is_refused(stand: OpenNebulaStand, store: Path):
    from coppice.model.image import DiskFormat

    desired = desired_image()
    converted = stand.convert(desired, store)
    other = replace(converted, image=replace(converted.image, format=DiskFormat.VMDK))
    with pytest.raises(CloudRefusedImageError, match="vmdk"):
        stand.cloud.register(other, marker_of(desired), presentation_of(desired), SILENT)


def test_a_cloud_of_the_settings_registers_over_the_wire(stand: OpenNebulaStand, store: Path):
    cloud = open_cloud(
        CloudSettings(
            name="one",
            driver="opennebula",
            site=SITE,
            formats=(),
            visibility="public",
            options={
                "endpoint": stand.simulator.endpoint,
                "secret_file": str(stand.path / "one_auth"),
                "datastores": ["default"],
                "transport": {"driver": "path", "directory": str(stand.transport.directory)},
            },
        )
    )
    image = register_at(cloud, stand, desired_image(), store)
    assert stand.is_listed(image)
    assert stand.can_start(image)


@pytest.mark.threat("T90")
@pytest.mark.parametrize("seed", [1, 2])
def test_there_is_always_a_version_to_start_through_updates_with_faults(stand: OpenNebulaStand, store: Path, seed: int):
    chance = random.Random(seed)  # noqa: S311 - no secret
    current = register(stand, desired_image(version="0"), store)
    over, without = threading.Event(), []

    def look() -> None:
        while not over.wait(0.002):
            with stand.simulator.world.lock:
                if not stand.has_something_to_start():
                    without.append(time.monotonic())

    client = threading.Thread(target=look)
    client.start()
    try:
        for number in range(1, 11):
            desired = desired_image(version=str(number))
            for _ in range(chance.randrange(3)):
                act = chance.choice([Act.CUT, Act.CUT_ANSWER, Act.STATUS])
                when = chance.choice([When.BEFORE, When.AFTER])
                # From some call on everything fails, as for a run that is killed there.
                stand.simulator.faults.add(
                    Fault(method="*", act=act, when=when, skip=chance.randrange(25), times=None, code=403)
                )
                with suppress(CloudError):
                    register(stand, desired, store)
                    to_state(stand.cloud, current, ImageState.SUPERSEDED)
                stand.simulator.faults.clear()
            new = register(stand, desired, store)
            old = [each for each in stand.cloud.describe() if each.cloud_identifier != new.cloud_identifier]
            for image in old:
                stand.cloud.remove(to_state(stand.cloud, image, ImageState.SUPERSEDED))
            current = new
    finally:
        over.set()
        client.join()
    assert without == []
    assert [each.marker.version for each in stand.cloud.describe()] == ["10"]
    assert len(stand.simulator.templates()) == 1
    assert stand.simulator.stray_files() == []


def test_copies_that_another_program_made_in_several_datastores_are_one_image(stand: OpenNebulaStand):
    for name in ("debian-8@default", "debian-8@second"):
        stand.add_foreign(name)
    marker = replace(marker_of(desired_image()), adopted_from="nifty")
    adopted = [
        stand.adopting.adopt(foreign, marker, presentation_of(desired_image())) for foreign in stand.adopting.foreign()
    ]
    assert adopted[0] == adopted[1]
    assert stand.cloud.describe() == (adopted[0],)
    assert adopted[0].ready
    assert adopted[0].drift is None
    stand.cloud.remove(to_state(stand.cloud, adopted[0], ImageState.WITHDRAWN))
    assert stand.simulator.images() == []
