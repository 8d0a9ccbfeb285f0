# SPDX-License-Identifier: Apache-2.0
"""Sets, revocations and rollbacks, from what is wanted to what a cloud shows; and what is told of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from coppice.clock import FixedClock
from coppice.cloud.directory import DirectoryCloud
from coppice.cloud.memory import MemoryCloud
from coppice.cloud.model import Desired, ImageState
from coppice.cloud.revocations import Revocations, Target
from coppice.database import Database
from coppice.errors import CloudError, NotFoundError, PlanError, UsageError
from coppice.events.journal import Journal
from coppice.model.endorser import DistinguishedName
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.model import PinnedEndorser, Subscription, TrustPolicy
from coppice.subscription.store import SubscriptionStore
from coppice.testing.desired import LATER, NOW, SITE, content_of, converted_image, desired_image, desired_list
from coppice.workflows.converge import Site, SyncReport, converge
from coppice.workflows.retire import retire
from coppice.workflows.revoke import revoke, take_back, target_of
from coppice.workflows.rollback import release, rollback

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Sequence

    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import DesiredImage, OwnershipMarker, Presentation, RegisteredImage
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.model.identifiers import ListIdentifier
    from coppice.monitor import Monitor

pytestmark = pytest.mark.unit
PARTS = ("database", "portal", "worker")
KEY = desired_image().key


class FailingCloud(MemoryCloud):
    """Fails where it is told to; `seen` has what users find after each change."""

    def __init__(self, name: str, site: str) -> None:
        super().__init__(name, site)
        self.silent = False
        self.refuses: set[tuple[str, str]] = set()
        self.seen: list[set[str]] = []

    def describe(self) -> tuple[RegisteredImage, ...]:
        if self.silent:
            raise CloudError("no answer")
        return super().describe()

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        if ("register", presentation.name) in self.refuses:
            raise CloudError("no room")
        return self._look(super().register(converted, marker, presentation, monitor))

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        if (str(marker.state), registered.name) in self.refuses:
            raise CloudError("not now")
        return self._look(super().change_state(registered, marker))

    def _look(self, image: RegisteredImage) -> RegisteredImage:
        self.seen.append(self.listed())
        return image

    def listed(self) -> set[str]:
        """Return name and version of what users find."""
        return {
            f"{stored.name.removesuffix(' image')} {stored.properties['coppice_version']}"
            for stored in self.images.values()
            if stored.listed and stored.ready
        }


class World:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FixedClock(NOW)
        self.database = Database(f"sqlite:///{path}/c.db")
        file = path / "coppice.toml"
        file.write_text(f'state_directory = "{path}/state"\n[plan]\ngrace_days = 7\n')
        settings = load_settings(config=file, environ={}, options={}, system_file=file)
        self.site = Site(settings=settings, database=self.database, clock=self.clock, monitor=SILENT)
        self.memory = FailingCloud("memory", SITE)
        self.clouds: dict[str, Cloud] = {
            "folder": DirectoryCloud("folder", SITE, path / "cloud"),
            "memory": self.memory,
        }
        self.wanted: tuple[DesiredImage, ...] = ()
        self.list_version = 0

    def publish(self, *images: DesiredImage) -> SyncReport:
        self.list_version += 1
        self.wanted = tuple(replace(image, list_version=str(self.list_version)) for image in images)
        return self.sync()

    def sync(self) -> SyncReport:
        ends = max((image.expires for image in self.wanted), default=LATER)
        lists = (desired_list(*self.wanted, version=str(self.list_version), expires=ends),)
        desired = Desired(lists=lists, revocations=Revocations(self.database).in_force())
        reports = converge(desired, self.clouds, self.site, supplies=self)
        return SyncReport(refreshed=None, unreadable=(), clouds=reports)

    def retire(self) -> SyncReport:
        return retire(
            settings=self.site.settings,
            database=self.database,
            clock=self.clock,
            monitor=SILENT,
            clouds=self.clouds,
        )

    def want(self, images: Iterable[DesiredImage], formats: Formats) -> None:
        pass

    def is_here(self, image: DesiredImage, formats: Formats) -> bool:
        return True

    def end(self) -> None:
        pass

    def await_any(self, images: Sequence[DesiredImage], formats: Formats, stop: threading.Event) -> None:
        raise AssertionError

    def obtain(self, desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        content = content_of(str(desired.key), desired.listed.version)
        return converted_image(desired, self.path / "store", content)

    def states(self, cloud: str = "memory") -> dict[str, str]:
        return {
            f"{image.marker.version} {image.marker.key.image_identifier[:4]}": str(image.marker.state)
            for image in self.clouds[cloud].describe()
        }

    def versions(self, cloud: str = "memory") -> dict[str, str]:
        return {image.marker.version: str(image.marker.state) for image in self.clouds[cloud].describe()}

    def told(self) -> list[str]:
        return [str(event.kind) for event in Journal(self.database).events()]

    def current(self) -> set[str]:
        return {link.resolve().name.rpartition("-")[0] for link in (self.path / "cloud" / "current").iterdir()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.database.close()


def followed(name: str, identifier: ListIdentifier | None) -> Subscription:
    jane = DistinguishedName.parse("/CN=Jane")
    return Subscription(
        name=name,
        uri=f"https://example.org/{name}.list",
        list_identifier=identifier,
        trust=TrustPolicy(endorsers=(PinnedEndorser(subject=jane, issuer=jane),), anchors=Path("/anchors")),
        added_at=NOW,
    )


def a_set(version: str, *, release: str | None = None, **changes: Any) -> tuple[DesiredImage, ...]:
    return tuple(
        replace(desired_image(name, version, **changes), set_identifier="a-set", set_version=release or version)
        for name in PARTS
    )


def all_of(version: str) -> set[str]:
    return {f"{name} {version}" for name in PARTS}


@pytest.mark.threat("T90")
def test_a_set_is_listed_in_both_clouds_when_all_of_it_is_there_and_never_without_its_older_release(world: World):
    assert world.publish(*a_set("1")).errors == ()
    assert world.memory.listed() == all_of("1")
    world.memory.seen.clear()
    assert world.publish(*a_set("2")).errors == ()
    assert world.memory.listed() == all_of("2")
    # While the new release was brought, every part had its older version or the newer one.
    assert all({name.split()[0] for name in seen} == set(PARTS) for seen in world.memory.seen)
    assert world.memory.seen[:3] == [all_of("1")] * 3
    assert world.current() == {f"{name}-image-2" for name in PARTS}
    assert world.sync().clouds[1].plan is not None
    assert all(not report.plan.actions for report in world.sync().clouds if report.plan)


@pytest.mark.threat("T90")
def test_of_a_set_of_which_one_image_cannot_be_registered_none_is_listed_and_the_next_run_lists_all(world: World):
    world.publish(*a_set("1"))
    world.memory.refuses = {("register", "portal image")}
    report = world.publish(*a_set("2"))
    assert [error.message for error in report.errors] == ["no room"]
    assert world.memory.listed() == all_of("1")
    assert world.current() == {f"{name}-image-2" for name in PARTS}
    world.memory.refuses.clear()
    assert world.sync().errors == ()
    assert world.memory.listed() == all_of("2")
    assert set(world.versions().values()) == {"available", "superseded"}


@pytest.mark.threat("T90")
def test_of_a_set_of_which_one_image_cannot_be_listed_those_that_were_are_taken_back(world: World):
    world.publish(*a_set("1"))
    world.memory.seen.clear()
    world.memory.refuses = {("available", "worker image")}
    report = world.publish(*a_set("2"))
    assert report.errors
    assert world.memory.listed() == all_of("1")
    assert all({name.split()[0] for name in seen} == set(PARTS) for seen in world.memory.seen)
    assert "staged" in world.versions().values()
    world.memory.refuses.clear()
    assert world.sync().errors == ()
    assert world.memory.listed() == all_of("2")


class PickyDirectory(DirectoryCloud):
    """Refuses to list an image; `seen` has what ``current/`` has after each change, and `lost` how often it lost."""

    refuses = ""
    loses_answers = False

    def __init__(self, name: str, site: str, path: Path) -> None:
        super().__init__(name, site, path)
        self.seen: list[set[str]] = []

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        is_refused = self.refuses and marker.state is ImageState.AVAILABLE and self.refuses in registered.name
        if is_refused and not self.loses_answers:
            raise CloudError("not now")
        changed = super().change_state(registered, marker)
        self.seen.append({link.readlink().name.partition("-")[0] for link in (self.path / "current").iterdir()})
        if is_refused:
            raise CloudError("no answer")
        return changed


@pytest.mark.threat("T90")
@pytest.mark.parametrize("loses_answers", [False, True])
def test_where_one_version_alone_can_be_shown_the_older_is_shown_again_before_the_newer_is_taken_back(
    world: World, *, loses_answers: bool
):
    folder = PickyDirectory("folder", SITE, world.path / "cloud")
    world.clouds = {"folder": folder}
    world.publish(*a_set("1"))
    folder.refuses, folder.loses_answers = "worker-image-2", loses_answers
    folder.seen.clear()
    assert world.publish(*a_set("2")).errors
    assert world.current() == {f"{name}-image-1" for name in PARTS}
    assert folder.seen
    assert all(seen == set(PARTS) for seen in folder.seen)
    folder.refuses = ""
    assert world.sync().errors == ()
    assert world.current() == {f"{name}-image-2" for name in PARTS}


def test_a_set_goes_back_with_its_list_as_a_whole(world: World):
    world.publish(*a_set("1"))
    world.publish(*a_set("2"))
    assert world.publish(*a_set("1", release="3")).errors == ()
    assert world.memory.listed() == all_of("1")
    assert world.current() == {f"{name}-image-1" for name in PARTS}


def test_a_set_ends_as_a_whole(world: World):
    images = a_set("1")
    world.publish(*images)
    world.clock.advance(images[0].expires - NOW)
    assert world.retire().errors == ()
    assert set(world.versions().values()) == {"expired"}
    assert world.memory.listed() == set()


@pytest.mark.parametrize("every_version", [True, False])
def test_an_image_is_revoked_everywhere_at_once_and_let_go_again(world: World, *, every_version: bool):
    world.publish(desired_image(version="1"))
    world.publish(desired_image(version="2"))
    target = Target(key=KEY, version=None if every_version else "2")
    report = revoke(target, "a door at the back", world.clouds, world.site)
    assert report.is_new
    assert report.run.errors == ()
    older = "revoked" if every_version else "superseded"
    for cloud in world.clouds:
        assert world.versions(cloud) == {"1": older, "2": "revoked"}
        (newer,) = (each for each in world.clouds[cloud].describe() if each.marker.version == "2")
        assert newer.marker.reason == "a door at the back"
    assert world.memory.listed() == set()
    synced = world.sync()
    assert {each.code for report in synced.clouds if report.plan for each in report.plan.refused} == {"plan-revoked"}
    assert world.versions()["2"] == "revoked"
    assert world.told().count("RevocationMade") == 1
    assert not revoke(target, "another reason", world.clouds, world.site).is_new
    taken = take_back(target, world.clouds, world.site)
    assert [each.revocation.reason for each in taken.revocations] == ["a door at the back"]
    assert world.versions()["2"] == "withdrawn"
    world.sync()
    assert world.versions()["2"] == "available"
    assert world.memory.listed() == {"debian 2"}
    assert "RevocationTakenBack" in world.told()


def test_a_cloud_that_does_not_answer_learns_of_a_revocation_later(world: World):
    world.publish(desired_image())
    world.memory.silent = True
    report = revoke(Target(digest=desired_image().listed.checksum), "a door", world.clouds, world.site)
    assert [str(error) for error in report.run.errors] == ["no answer"]
    assert world.versions("folder") == {"1": "revoked"}
    world.memory.silent = False
    assert world.versions() == {"1": "available"}
    world.retire()
    assert world.versions() == {"1": "revoked"}


def test_what_is_revoked_while_a_run_registers_it_is_revoked_by_that_very_run(world: World):
    target, obtain = Target(digest=desired_image().listed.checksum), world.obtain

    def obtain_slowly(desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        # Another process: the cloud is locked, and learns nothing of it from there.
        Revocations(world.database).make(target, reason="a door", at=NOW)
        return obtain(desired, formats, monitor)

    world.obtain = obtain_slowly  # type: ignore[method-assign]
    world.publish(desired_image())
    # One cloud asks first. The other may ask after the revocation, and then does not register it at all.
    found = [world.versions(), world.versions("folder")]
    assert {"1": "revoked"} in found
    assert all(each in ({}, {"1": "revoked"}) for each in found)


def test_what_is_revoked_in_a_cloud_stays_so_until_it_is_let_go_there(world: World):
    world.publish(desired_image())
    target = Target(key=KEY, version="1")
    revoke(target, "a door", world.clouds, world.site)
    world.memory.silent = True
    take_back(target, world.clouds, world.site)
    world.memory.silent = False
    world.sync()
    assert (world.versions("folder"), world.versions()) == ({"1": "available"}, {"1": "revoked"})
    take_back(target, world.clouds, world.site)
    world.sync()
    assert world.versions() == {"1": "available"}


@pytest.mark.parametrize("is_selected", [True, False])
def test_what_is_built_on_what_a_list_alone_knows_is_revoked_at_once_and_let_go_again(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_selected: bool
):
    base = desired_image("base", of_list="b")
    content = SimpleNamespace(identifier=base.key.list_identifier, images=(base.listed,))
    outcome = SimpleNamespace(verified=SimpleNamespace(content=content))
    selected = Desired(lists=(desired_list(base, name="b"),) if is_selected else ())
    monkeypatch.setattr("coppice.workflows.revoke.recall_lists", lambda *_arguments: (outcome,))
    monkeypatch.setattr("coppice.workflows.revoke.select", lambda *_arguments: selected)
    world.publish(replace(desired_image(), built_on=(base.listed.checksum,)))
    target = Target(key=base.key, version="1")
    dry = revoke(target, "a door", world.clouds, world.site, dry_run=True)
    assert [[action.state for action in report.plan.actions] for report in dry.run.clouds] == [["revoked"]] * 2
    revoke(target, "a door", world.clouds, world.site)
    assert world.versions() == world.versions("folder") == {"1": "revoked"}
    take_back(target, world.clouds, world.site)
    assert world.versions() == world.versions("folder") == {"1": "withdrawn"}


@pytest.mark.parametrize("version", ["1", None])
def test_what_is_built_on_what_is_revoked_by_name_stays_refused_when_that_has_gone_from_lists_and_clouds(
    world: World, version: str | None
):
    ends = LATER + timedelta(days=90)
    base, newer = (desired_image("base", version, expires=ends) for version in ("1", "2"))
    built = replace(desired_image("top", expires=ends), built_on=(base.listed.checksum,))
    world.publish(base)
    revoke(Target(key=base.key, version=version), "a door", world.clouds, world.site)
    world.publish(newer)
    world.clock.advance(timedelta(days=8))
    world.retire()
    world.sync()
    assert world.versions() == world.versions("folder") == ({} if version is None else {"2": "available"})
    refused = [error.message for report in world.publish(newer, built).clouds for error in report.plan.refused]
    assert sum(str(built.key) in each and "what it is built on is revoked: a door" in each for each in refused) == 2
    take_back(Target(key=base.key, version=version), world.clouds, world.site)
    world.sync()
    assert world.versions() == {"1": "available", "2": "available"}


def test_what_is_revoked_and_was_listed_by_hand_still_says_why_it_is_revoked(world: World):
    world.publish(image := desired_image())
    revoke(Target(digest=image.listed.checksum), "a door", world.clouds, world.site)
    for stored in world.memory.images.values():
        stored.listed = True
    world.sync()
    assert world.memory.listed() == set()
    assert [each.marker.reason for each in world.memory.describe()] == ["a door"]


def test_a_dry_run_of_a_revocation_changes_neither_database_nor_cloud(world: World):
    world.publish(desired_image())
    report = revoke(Target(key=KEY, version="1"), "a door", world.clouds, world.site, dry_run=True)
    assert [len(each.plan.actions) for each in report.run.clouds if each.plan] == [1, 1]
    assert world.versions() == {"1": "available"}
    assert Revocations(world.database).all() == ()
    revoke(Target(key=KEY, version="1"), "a door", world.clouds, world.site)
    assert take_back(Target(key=KEY, version="1"), world.clouds, world.site, dry_run=True).revocations
    assert len(Revocations(world.database).all()) == 1
    assert world.versions() == {"1": "revoked"}


def test_a_version_that_was_gone_back_to_stays_until_it_is_released(world: World):
    world.publish(desired_image(version="1"))
    world.publish(desired_image(version="2"))
    world.memory.seen.clear()
    assert rollback(KEY, "1", world.clouds, world.site, reason="it does not start").errors == ()
    assert all(world.memory.seen)
    assert world.current() == {"debian-image-1"}
    world.sync()
    assert world.publish(desired_image(version="3")).errors == ()
    for cloud in world.clouds:
        assert world.versions(cloud) == {"1": "available", "2": "superseded"}
    assert release(KEY, world.clouds, world.site).errors == ()
    assert world.sync().errors == ()
    for cloud in world.clouds:
        assert world.versions(cloud) == {"1": "superseded", "2": "superseded", "3": "available"}
    assert world.memory.listed() == {"debian 3"}
    told = world.told()
    assert (told.count("ImagePinned"), told.count("ImageUnpinned")) == (2, 2)


def test_all_of_a_set_goes_back_and_forward_together(world: World):
    world.publish(*a_set("1"))
    world.publish(*a_set("2"))
    rollback(a_set("1")[0].key, "1", world.clouds, world.site)
    world.sync()
    assert world.memory.listed() == all_of("1")
    assert world.current() == {f"{name}-image-1" for name in PARTS}
    release(a_set("1")[1].key, world.clouds, world.site)
    world.sync()
    assert world.memory.listed() == all_of("2")


def test_a_set_of_which_a_part_is_revoked_where_it_was_gone_back_to_leaves_that_release_as_a_whole(world: World):
    world.publish(*a_set("1"))
    world.publish(*a_set("2"))
    rollback(a_set("1")[0].key, "1", world.clouds, world.site)
    revoke(Target(key=a_set("1")[1].key, version="1"), "a door", world.clouds, world.site)
    for _run in range(2):
        assert world.sync().errors == ()
        assert world.memory.listed() == all_of("2")
        assert world.current() == {f"{name}-image-2" for name in PARTS}
    assert {each.marker.pin for each in world.memory.describe() if each.marker.state is not ImageState.REVOKED} == {
        None
    }
    world.publish(*a_set("3"))
    assert world.memory.listed() == all_of("3")


def test_what_is_revoked_is_not_gone_back_to_although_the_cloud_has_not_learned_of_it(world: World):
    old = desired_image(version="1")
    world.publish(old)
    world.publish(desired_image(version="2"))
    world.memory.silent = True
    revoke(Target(digest=old.listed.checksum), "a door", world.clouds, world.site)
    world.memory.silent = False
    report = rollback(KEY, "1", world.clouds, world.site)
    assert [type(error) for error in report.errors] == [PlanError, PlanError]
    assert "it is revoked: a door" in str(report.errors[-1])
    assert world.versions() == {"1": "superseded", "2": "available"}


def test_going_back_that_did_not_come_to_its_end_is_ended_by_the_next_sync(world: World):
    world.publish(desired_image(version="1"))
    world.publish(desired_image(version="2"))
    world.memory.refuses.add(("superseded", "debian image"))
    assert len(rollback(KEY, "1", world.clouds, world.site).errors) == 1
    assert world.memory.listed() == {"debian 1", "debian 2"}
    world.memory.refuses.clear()
    assert world.sync().errors == ()
    assert world.memory.listed() == {"debian 1"}


def test_a_version_that_one_cloud_does_not_have_fails_there_alone(world: World):
    world.publish(desired_image(version="1"))
    world.publish(desired_image(version="2"))
    world.memory.images.pop("memory-000001")
    report = rollback(KEY, "1", world.clouds, world.site)
    assert [type(error) for error in report.errors] == [NotFoundError]
    assert world.versions("folder") == {"1": "available", "2": "superseded"}
    assert world.versions() == {"2": "available"}


def test_what_is_fixed_to_no_version_cannot_be_released(world: World):
    world.publish(desired_image())
    with pytest.raises(NotFoundError, match="fixed to no version"):
        release(KEY, world.clouds, world.site)


def test_what_is_revoked_must_be_said_without_doubt(world: World):
    with pytest.raises(UsageError):
        target_of("a/b", version=None, every_version=False, site=world.site)
    with pytest.raises(UsageError):
        target_of("a/b", version="1", every_version=True, site=world.site)
    with pytest.raises(UsageError):
        target_of(f"sha512:{'0' * 128}", version="1", every_version=False, site=world.site)
    with pytest.raises(UsageError):
        target_of("a/b", version="---", every_version=False, site=world.site)
    with pytest.raises(NotFoundError):
        target_of("b", version="1", every_version=False, site=world.site)
    assert str(target_of("a/b", version="1", every_version=False, site=world.site)) == "a/b version 1"
    assert target_of(f"sha256:{'0' * 64}", version=None, every_version=False, site=world.site).key is None


def test_a_revocation_made_of_every_version_is_not_taken_back_by_naming_one(world: World):
    revocations = Revocations(world.database)
    every, one = Target(key=KEY), Target(key=KEY, version="1")
    revocations.make(every, reason="gone", at=NOW)
    revocations.make(one, reason="bad", at=NOW)
    assert revocations.take_back(one, at=NOW)[0].revocation.reason == "bad"
    assert [each.revocation.reason for each in revocations.all()] == ["gone"]


def test_that_an_image_ends_soon_is_told_once_for_each_date(world: World):
    image = desired_image()
    world.publish(image)
    assert "ImageExpiring" not in world.told()
    world.clock.advance(image.expires - NOW - timedelta(days=7))
    world.sync()
    world.retire()
    assert world.told().count("ImageExpiring") == 2
    (event, _) = (each for each in Journal(world.database).events() if str(each.kind) == "ImageExpiring")
    assert event.facts["expires"] == "2026-12-01T12:00:00Z"
    # The list is renewed: what was told does not hold any more, and is told anew when it does.
    world.publish(replace(image, expires=image.expires + timedelta(days=30)))
    world.clock.advance(timedelta(days=7))
    world.sync()
    assert world.told().count("ImageExpiring") == 2


def test_a_subscription_s_name_is_its_list_s_even_when_the_list_names_the_image_no_more(world: World):
    store = SubscriptionStore(world.database)
    store.add(followed("science", KEY.list_identifier))
    store.add(followed("young", None))
    world.publish(desired_image())
    target = target_of(f"science/{KEY.image_identifier}", version=None, every_version=True, site=world.site)
    assert target.key == KEY
    with pytest.raises(NotFoundError, match="not known yet"):
        target_of(f"young/{KEY.image_identifier}", version="1", every_version=False, site=world.site)
    revoke(target, "its mirror was broken into", world.clouds, world.site)
    assert set(world.versions().values()) == {"revoked"}


def test_half_a_digest_is_taken_for_no_image(world: World):
    with pytest.raises(UsageError, match="not a sha512 digest"):
        target_of("sha512:3f9a1c", version=None, every_version=True, site=world.site)
