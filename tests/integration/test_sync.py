# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.clock import FixedClock
from coppice.cloud.directory import DirectoryCloud
from coppice.cloud.memory import MemoryCloud
from coppice.cloud.model import ImageState
from coppice.conversion.unpack_spool import sweep_spool
from coppice.database import Database
from coppice.errors import InputError, LockedError, NotFoundError
from coppice.events.journal import Journal
from coppice.factory.ports import free_port
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.http import Client
from coppice.imagelist.model import Profile
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT
from coppice.schedule.lock import run_lock
from coppice.settings.model import (
    ConversionSettings,
    FactorySettings,
    PlanSettings,
    PublishingSettings,
    Settings,
    TransferSettings,
)
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import WarningKind
from coppice.subscription.store import SubscriptionStore
from coppice.testing import images
from coppice.testing.archives import archive, member
from coppice.testing.authority import Authority
from coppice.testing.server import serve, status
from coppice.testing.simulator import Simulator
from coppice.workflows.retire import retire
from coppice.workflows.sync import sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.cloud.driver import Cloud
    from coppice.testing.server import LoopbackServer
    from coppice.workflows.converge import SyncReport

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed"),
]
GRACE = timedelta(days=7)
SITE = "test-site"


def settings_in(directory: Path) -> Settings:
    return Settings(
        state_directory=directory,
        database_url=f"sqlite:///{directory}/coppice.db",
        definitions_directory=None,
        factory=FactorySettings(mirror=None, build_timeout_seconds=60, boot_timeout_seconds=60),
        transfer=TransferSettings(
            list_size_limit_bytes=10**6,
            image_size_limit_bytes=10**8,
            connect_timeout_seconds=2,
            read_timeout_seconds=5,
            minimum_rate_bytes_per_second=1,
            total_timeout_seconds=30,
            attempts=1,
            allow_private_addresses=True,
        ),
        lists=DEFAULT_LIMITS,
        subscriptions=DEFAULT_TERMS,
        publishing=PublishingSettings(retire_images_days=7),
        conversion=ConversionSettings(maximum_virtual_size_bytes=10**9, memory_bytes=2 * 1024**3, timeout_seconds=60),
        plan=PlanSettings(grace_days=GRACE.days, maximum_withdrawn_share=0.5),
        publishers={},
        clouds={},
        origins={},
    )


class World:
    """A publisher, its list as a file of this machine, and a site that follows it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FixedClock(datetime.now(UTC).replace(microsecond=0))
        self.settings = settings_in(path / "state")
        self.database = Database(self.settings.database_url)
        self.store = SubscriptionStore(self.database)
        self.journal = Journal(self.database)
        self.clouds: dict[str, Cloud] = {
            "folder": DirectoryCloud("folder", SITE, path / "cloud"),
            "memory": MemoryCloud("memory", SITE),
        }
        authority = Authority.create("Example CA")
        self.anchors = authority.write_to(path / "anchors")
        self.publisher = Simulator.create(authority, uri=f"file://{path}/www/demo.list")
        self.sizes = iter(range(1, 100))

    def disk(self) -> bytes:
        path = self.path / "new.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", str(path), f"{next(self.sizes)}M"], check=True, timeout=60
        )
        return path.read_bytes()

    def add(self, title: str) -> dict[str, Any]:
        return self.publisher.add_image(title=title, data=self.disk())

    def renew(self, image: dict[str, Any], version: str) -> None:
        data = self.disk()
        name = f"{image['dc:identifier']}-{version}.qcow2"
        self.publisher.files[name] = data
        image |= {
            "hv:version": version,
            "hv:uri": f"file://{self.path}/www/images/{name}",
            "hv:size": str(len(data)),
            "sl:checksum:sha512": hashlib.sha512(data).hexdigest(),
        }

    def publish(self, message: bytes | None = None) -> None:
        if message is None:
            self.publisher.version = str(int(self.publisher.version) + 1)
        self.publisher.write_to(self.path / "www", message=message)

    def sync(self, **options: Any) -> SyncReport:
        return sync(
            settings=self.settings,
            database=self.database,
            clock=self.clock,
            monitor=SILENT,
            clouds=self.clouds,
            client=Client(self.settings.transfer),
            **options,
        )

    def states(self, cloud: str = "folder") -> dict[str, ImageState]:
        images = self.clouds[cloud].describe()
        assert all(image.ready for image in images)
        return {image.marker.version: image.marker.state for image in images}

    def told(self) -> list[str]:
        return [str(event.kind) for event in self.journal.events() if not str(event.kind).startswith("ImageList")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.database.close()


@pytest.fixture
def running(world: World) -> World:
    world.add("Debian 12")
    world.publish()
    world.store.add(world.publisher.subscription(world.anchors))
    assert world.sync().failure() is None
    assert world.states() == {"1": ImageState.AVAILABLE}
    return world


def test_a_whole_life_from_registration_to_removal(running: World):
    assert running.states("memory") == {"1": ImageState.AVAILABLE}
    running.renew(running.publisher.images[0], "2")
    running.publish()
    assert running.sync().failure() is None
    for cloud in running.clouds:
        assert running.states(cloud) == {"1": ImageState.SUPERSEDED, "2": ImageState.AVAILABLE}
    running.clock.advance(GRACE)
    assert running.sync().failure() is None
    for cloud in running.clouds:
        assert running.states(cloud) == {"2": ImageState.AVAILABLE}
    again = running.sync()
    assert all(report.plan is not None and report.plan.actions == () for report in again.clouds)
    for kind in ("ImageRegistered", "ImageSuperseded", "ImageRemoved"):
        assert kind in running.told()
    assert "ImageFailed" not in running.told()
    (link,) = (running.path / "cloud" / "current").iterdir()
    published = running.publisher.files[f"{running.publisher.images[0]['dc:identifier']}-2.qcow2"]
    shown = subprocess.run(
        ["qemu-img", "compare", str(link / "disk.qcow2"), str(write(running.path / "published.qcow2", published))],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert shown.returncode == 0


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_dry_run_changes_no_cloud(world: World):
    world.add("Debian 12")
    world.publish()
    world.store.add(world.publisher.subscription(world.anchors))
    report = world.sync(dry_run=True)
    assert [len(each.plan.actions) for each in report.clouds if each.plan is not None] == [1, 1]
    assert world.states() == {}
    assert not (world.path / "state" / "cache").exists() or not any(
        path.is_file() and path.stat().st_size > 1000 for path in (world.path / "state" / "cache").rglob("*")
    )


def test_a_packed_image_is_unpacked_once_for_all_clouds(world: World):
    disk = images.raw_disk(4 * images.MIB)
    world.publisher.add_image(title="Packed", data=lzma.compress(disk), hv_format="raw")
    world.publish()
    world.store.add(world.publisher.subscription(world.anchors))
    world.clouds = {
        name: DirectoryCloud(name, SITE, world.path / name, (wanted,))
        for name, wanted in (("first", DiskFormat.RAW), ("second", DiskFormat.QCOW2), ("third", DiskFormat.QCOW2))
    }
    assert world.sync().failure() is None
    (raw,) = (world.path / "first" / "current").iterdir()
    assert (raw / "disk.raw").read_bytes() == disk
    made = [next((world.path / name / "current").iterdir()) / "disk.qcow2" for name in ("second", "third")]
    assert made[0].stat().st_ino == made[1].stat().st_ino
    subprocess.run(["qemu-img", "compare", "-q", raw / "disk.raw", made[0]], check=True)
    assert "ImageDiffers" not in world.told()


def test_a_packed_image_that_is_refused_is_unpacked_once_and_fails_in_each_cloud(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    spools = []

    def counted(directory: Path) -> list[Path]:
        spools.append(directory)
        return sweep_spool(directory)

    monkeypatch.setattr("coppice.conversion.unpack.sweep_spool", counted)
    world.publisher.add_image(title="No disk", data=lzma.compress(b"MZ" + bytes(images.MIB)), hv_format="raw")
    world.publish()
    world.store.add(world.publisher.subscription(world.anchors))
    report = world.sync()
    for each in report.clouds:
        assert each.applied is not None
        assert [result.error for result in each.applied.results] == list(report.errors)
    assert len(report.errors) == 1
    assert len(spools) == 1
    assert world.told().count("ImageFailed") == len(world.clouds)


@pytest.mark.parametrize("pack", [lzma.compress, lambda disc: archive(member("disc.iso", disc))])
def test_a_disc_stays_one_whatever_it_is_packed_in_and_stops_nothing_else(world: World, pack: Callable[[bytes], bytes]):
    disc = images.iso(hybrid=True)
    world.publisher.add_image(title="Disc", data=pack(disc), hv_format="iso")
    world.publisher.add_image(title="Disk", data=images.raw_disk(), hv_format="raw")
    world.publish()
    world.store.add(world.publisher.subscription(world.anchors))
    world.clouds = {
        name: DirectoryCloud(name, SITE, world.path / name, (wanted,))
        for name, wanted in (("discs", DiskFormat.ISO), ("disks", DiskFormat.RAW))
    }
    failure = world.sync().failure()
    assert failure is not None
    assert [each["code"] for each in failure.context["errors"]] == ["image-conversion"] * 2
    (kept,) = (world.path / "discs" / "current").iterdir()
    assert (kept / "disk.iso").read_bytes() == disc
    (kept,) = (world.path / "disks" / "current").iterdir()
    assert (kept / "disk.raw").read_bytes() == images.raw_disk()


def test_an_image_that_is_not_what_its_list_says_is_registered_and_told(world: World):
    world.publisher.add_image(title="Other", data=images.raw_disk(), hv_format="vmdk")
    world.publish()
    world.store.add(world.publisher.subscription(world.anchors))
    assert world.sync().failure() is None
    assert world.states() == {"1": ImageState.AVAILABLE}
    # Once, however many clouds get it.
    (differs,) = (event for event in world.journal.events() if str(event.kind) == "ImageDiffers")
    assert "is raw, and its list says 'vmdk'" in str(differs.facts["differs"])


@pytest.mark.threat("T62")
@pytest.mark.parametrize(("said", "rule"), [("raw", "report"), ("vmdk", "require")])
def test_an_image_that_is_not_what_its_list_must_say_reaches_no_cloud(world: World, said: str, rule: str):
    conversion = replace(world.settings.conversion, declared_format=rule)
    world.settings = replace(world.settings, conversion=conversion)
    world.publisher.add_image(title="Other", data=world.disk(), hv_format=said)
    world.publish()
    world.store.add(world.publisher.subscription(world.anchors))
    failure = world.sync().failure()
    assert failure is not None
    assert {each["code"] for each in failure.context["errors"]} == {"image-declared-format"}
    assert world.states() == {}


def tampered(world: World) -> bytes:
    return world.publisher.tampered()


def unsigned(world: World) -> bytes:
    return world.publisher.unsigned()


def by_a_stranger(world: World) -> bytes:
    return world.publisher.message(signer=world.publisher.authority.issue("Mallory"))


def older(world: World) -> bytes:
    return world.publisher.message(version="1")


def already_expired(world: World) -> bytes:
    return world.publisher.expired(world.clock.now())


def empty(world: World) -> bytes:
    return b""


def cut(world: World) -> bytes:
    return world.publisher.message()[:-200]


@pytest.mark.parametrize("bad", [tampered, unsigned, by_a_stranger, older, already_expired, empty, cut])
def test_a_list_that_is_refused_leaves_everything_as_it_is(running: World, bad: Callable[[World], bytes]):
    before = {name: cloud.describe() for name, cloud in running.clouds.items()}
    running.publish(bad(running))
    running.clock.advance(GRACE)
    report = running.sync()
    assert {name: cloud.describe() for name, cloud in running.clouds.items()} == before
    failure = report.failure()
    assert failure is not None
    assert failure.exit_code == 1
    assert len(report.errors) == 1


def point_to(world: World, uri: str) -> None:
    (subscription,) = world.store.all()
    world.store.remove(subscription.name, now=world.clock.now())
    world.store.add(replace(subscription, uri=uri))


@pytest.mark.threat("T35")
@pytest.mark.parametrize("code", [503, 404, 500, 204])
def test_a_server_that_does_not_give_the_list_changes_nothing_until_the_dates_say_so(
    running: World, loopback_server: LoopbackServer, code: int
):
    loopback_server.set("/demo.list", status(code))
    point_to(running, loopback_server.url("/demo.list"))
    before = running.clouds["folder"].describe()
    running.clock.advance(GRACE)
    assert running.sync().failure() is not None
    assert running.clouds["folder"].describe() == before
    running.clock.advance(timedelta(days=28))
    running.sync()
    assert running.states() == {"1": ImageState.EXPIRED}
    running.clock.advance(GRACE)
    running.sync()
    assert running.states() == {}


@pytest.mark.threat("T35")
def test_a_server_that_refuses_the_connection_changes_nothing(running: World):
    point_to(running, f"http://127.0.0.1:{free_port()}/demo.list")
    before = running.clouds["folder"].describe()
    running.clock.advance(GRACE)
    assert running.sync().failure() is not None
    assert running.clouds["folder"].describe() == before


@pytest.mark.threat("T38")
def test_a_list_that_names_no_image_is_held_until_it_is_confirmed(running: World):
    running.publisher.images.clear()
    running.publish()
    report = running.sync()
    assert {error.code for error in report.errors} == {"plan-deletion-cap"}
    assert running.states() == {"1": ImageState.AVAILABLE}
    running.sync(allow_withdrawals=True)
    assert running.states() == {"1": ImageState.WITHDRAWN}


@pytest.mark.threat("T36")
def test_an_image_that_is_dropped_and_listed_again_keeps_its_identifier(running: World):
    kept = running.publisher.images[:]
    running.add("Alma 9")
    running.publish()
    running.sync()
    (identifier,) = {each.cloud_identifier for each in running.clouds["folder"].describe() if "debian" in each.name}
    running.publisher.images.remove(kept[0])
    running.publish()
    running.sync()
    running.clock.advance(GRACE - timedelta(hours=1))
    running.publisher.images.append(kept[0])
    running.publish()
    assert running.sync().failure() is None
    assert {each.marker.state for each in running.clouds["folder"].describe()} == {ImageState.AVAILABLE}
    assert identifier in {each.cloud_identifier for each in running.clouds["folder"].describe()}


@pytest.mark.threat("T44")
def test_an_entry_that_cannot_be_read_stays_as_it_is_and_the_others_go_on(running: World):
    running.publisher.images[0]["hv:size"] = "abc"
    running.add("Alma 9")
    running.publish()
    report = running.sync()
    assert len(report.errors) == 1
    assert len(running.clouds["folder"].describe()) == 2
    assert {each.marker.state for each in running.clouds["folder"].describe()} == {ImageState.AVAILABLE}


def test_after_the_database_was_lost_nothing_is_orphaned_and_an_older_list_is_refused(running: World):
    old = running.publisher.message()
    running.publish()
    running.sync()
    before = running.clouds["folder"].describe()
    running.database.close()
    for leftover in (running.path / "state").glob("coppice.db*"):
        leftover.unlink()
    running.database = Database(running.settings.database_url)
    running.store = SubscriptionStore(running.database)
    running.store.add(running.publisher.subscription(running.anchors))
    running.publish(old)
    report = running.sync()
    assert {error.code for error in report.errors} == {"list-older"}
    assert running.clouds["folder"].describe() == before


def test_a_removed_subscription_withdraws_its_images_and_retiring_removes_them(running: World):
    running.store.remove("demo", now=running.clock.now())
    running.sync()
    assert running.states() == {"1": ImageState.WITHDRAWN}
    running.clock.advance(GRACE)
    report = retire(
        settings=running.settings,
        database=running.database,
        clock=running.clock,
        monitor=SILENT,
        clouds=running.clouds,
    )
    assert report.failure() is None
    assert running.states() == {}


def test_a_subscription_that_is_not_chosen_stays_as_it_is(running: World):
    running.publisher.images.clear()
    running.publish()
    with pytest.raises(NotFoundError):
        running.sync(only=["other"])
    assert running.sync(only=[]).failure() is None
    assert running.states() == {"1": ImageState.AVAILABLE}


@pytest.mark.threat("T84")
def test_two_runs_at_once_are_refused(running: World):
    with run_lock(running.settings.state_directory / "run.lock"), pytest.raises(LockedError):
        running.sync()


def test_while_a_list_is_out_of_reach_what_was_verified_last_still_serves_a_new_cloud(running: World):
    (running.path / "www" / "demo.list").unlink()
    running.clouds["late"] = MemoryCloud("late", SITE)
    report = running.sync()
    assert len(report.errors) == 1
    assert running.states("late") == {"1": ImageState.AVAILABLE}
    assert running.states() == {"1": ImageState.AVAILABLE}


@pytest.mark.threat("T53")
def test_a_list_that_is_also_followed_over_http_may_not_name_files_of_this_machine(
    running: World, loopback_server: LoopbackServer
):
    running.add("Local")
    running.publisher.version = "9"
    url = loopback_server.set("list", serve(running.publisher.message()))
    running.store.add(replace(running.publisher.subscription(running.anchors, name="web"), uri=url))
    report = running.sync()
    assert {error.code for error in report.errors} == {"address-refused"}
    assert running.states() == {"1": ImageState.AVAILABLE}


@pytest.mark.threat("T57")
def test_an_image_whose_uri_cannot_be_read_stops_nothing_else(world: World):
    world.add("Good")
    world.add("Bad")["hv:uri"] = "http://[bad"
    world.publish()
    world.store.add(world.publisher.subscription(world.anchors))
    report = world.sync()
    # It was tried once, whatever the number of clouds that wait for it.
    assert len(report.errors) == 1
    failed = [each for cloud in report.clouds for each in cloud.applied.results if each.error is not None]
    assert len(failed) == len(world.clouds)
    assert world.states() == {"1": ImageState.AVAILABLE}


@pytest.mark.threat("T93")
def test_an_address_with_credentials_in_it_is_not_kept(world: World):
    subscription = world.publisher.subscription(world.anchors)
    with pytest.raises(InputError) as caught:
        world.store.add(replace(subscription, uri="https://me:canary@127.0.0.1:1/list"))
    assert "canary" not in str(caught.value.as_dict())
    assert world.store.all() == ()


@pytest.mark.threat("T19")
@pytest.mark.threat("T20")
def test_images_of_a_list_whose_signer_was_revoked_since_are_hidden_even_while_its_server_is_dead(running: World):
    (running.path / "www" / "demo.list").unlink()
    running.publisher.authority.revoke(running.publisher.endorser.certificate)
    running.publisher.authority.write_to(running.path / "anchors")
    report = running.sync()
    assert [error.code for error in report.errors] == ["signer-revoked"]
    assert "source-unreachable" in str(report.errors[0].details)
    assert running.states() == {"1": ImageState.WITHDRAWN}
    # Signed anew by a certificate that holds, within the grace period: the same image comes back.
    identifier = running.clouds["folder"].describe()[0].cloud_identifier
    running.publisher.endorser = running.publisher.authority.issue("Jane Doe")
    running.publish()
    assert running.sync().failure() is None
    assert [each.cloud_identifier for each in running.clouds["folder"].describe()] == [identifier]
    assert running.states() == {"1": ImageState.AVAILABLE}


@pytest.mark.threat("T33")
def test_a_version_that_none_can_follow_is_taken_back_in_the_clouds_too(running: World):
    running.publisher.version = "999999999999999999"
    running.publish(running.publisher.message())
    assert running.sync().failure() is None
    running.publisher.version = "5"
    running.renew(running.publisher.images[0], "2")
    running.publish(running.publisher.message())
    assert {error.code for error in running.sync().errors} == {"list-older"}
    running.store.reset_version("demo", reason="the key was stolen", now=running.clock.now())
    report = running.sync()
    assert report.failure() is None, report.errors
    assert running.states() == {"1": ImageState.SUPERSEDED, "2": ImageState.AVAILABLE}
    assert "VersionFloorReset" in [str(event.kind) for event in running.journal.events()]


@pytest.mark.threat("T78")
def test_identifiers_that_are_no_uuids_name_no_path_and_keep_their_case(world: World):
    world.publisher.identifier = "Lists É vil"
    world.add("One")["dc:identifier"] = ".."
    world.add("Two")["dc:identifier"] = "Image"
    world.add("Three")["dc:identifier"] = "image"
    world.publish()
    strict = replace(world.publisher.subscription(world.anchors), list_identifier=None)
    world.store.add(replace(strict, trust=replace(strict.trust, profile=Profile.LENIENT)))
    report = world.sync()
    assert report.failure() is None, report.errors
    registered = world.clouds["folder"].describe()
    assert {str(each.marker.key.image_identifier) for each in registered} == {"..", "Image", "image"}
    assert {str(each.marker.key.list_identifier) for each in registered} == {"Lists É vil"}
    inside = {path.name for path in (world.path / "cloud").iterdir()}
    assert {each.cloud_identifier for each in registered} <= inside
    assert {path.name for path in world.path.iterdir()} == {"anchors", "cloud", "new.qcow2", "state", "www"}
    world.publisher.images.pop()
    world.publish()
    world.sync(allow_withdrawals=True)
    assert sorted(each.marker.state for each in world.clouds["folder"].describe()) == [
        ImageState.AVAILABLE,
        ImageState.AVAILABLE,
        ImageState.WITHDRAWN,
    ]


@pytest.mark.threat("T41")
def test_the_same_image_identifier_in_two_lists_is_two_images_and_neither_touches_the_other(running: World):
    other = Simulator.create(
        running.publisher.authority,
        endorser=running.publisher.authority.issue("John Doe"),
        uri=f"file://{running.path}/www/other.list",
    )
    other.version = "50"
    theirs = other.add_image(title="Debian 12", data=running.disk())
    theirs["dc:identifier"] = running.publisher.images[0]["dc:identifier"]
    theirs["hv:version"] = "99"
    other.write_to(running.path / "www", name="other")
    running.store.add(other.subscription(running.anchors, name="other"))
    mine = {each.cloud_identifier for each in running.clouds["folder"].describe()}
    report = running.sync()
    assert report.failure() is None, report.errors
    assert report.refreshed is not None
    said = {each.subscription.name: {one.kind for one in each.warnings} for each in report.refreshed.outcomes}
    assert WarningKind.SHARED_IDENTIFIER in said["other"]
    assert running.states() == {"1": ImageState.AVAILABLE, "99": ImageState.AVAILABLE}
    running.store.remove("other", now=running.clock.now())
    running.sync()
    running.clock.advance(GRACE)
    running.sync()
    assert {each.cloud_identifier for each in running.clouds["folder"].describe()} == mine
    assert running.states() == {"1": ImageState.AVAILABLE}
