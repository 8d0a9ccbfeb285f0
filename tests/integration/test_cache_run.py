# SPDX-License-Identifier: Apache-2.0
"""A cache run as its hooks and its administrator see it: events in their order, files, and what is tried again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.test_sync import World as SyncWorld

from coppice.cache.shelf import Shelf
from coppice.errors import GivenUpError, LockedError, QuotaError, StorageError
from coppice.http import Client
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageKey
from coppice.monitor import SILENT
from coppice.schedule.lock import run_lock
from coppice.testing import server as behave
from coppice.testing.server import LoopbackServer
from coppice.workflows import fetch as fetching
from coppice.workflows.cached import describe_cache, prune_cache
from coppice.workflows.sync import sync
from coppice.workflows.verify_cache import verify_cache

pytestmark = pytest.mark.integration


class World(SyncWorld):
    """A site without clouds, whose hooks register images."""

    def __init__(self, path, server) -> None:
        super().__init__(path)
        self.server = server
        self.clouds = {}
        self.publisher.uri = server.url("demo.list")
        self.settings = replace(self.settings, cache=replace(self.settings.cache, fetch="all"))
        self.cache = self.settings.state_directory / "cache"

    def publish(self, *, version=None):
        if version is not None:
            self.publisher.version = version
        self.server.set("demo.list", behave.serve(self.publisher.message()))
        for name, data in self.publisher.files.items():
            self.server.set(f"images/{name}", behave.serve(data))

    def subscribe(self):
        self.store.add(replace(self.publisher.subscription(self.anchors), uri=self.publisher.uri))

    def add(self, title, data=None):
        return self.publisher.add_image(title=title, data=data or title.encode() * 5000)

    def renew(self, image, version, data):
        name = f"{image['dc:identifier']}-{version}.qcow2"
        self.publisher.files[name] = data
        image |= {
            "hv:version": version,
            "hv:uri": self.server.url(f"images/{name}"),
            "hv:size": str(len(data)),
            "sl:checksum:sha512": Checksum.of(data).hexdigest,
        }

    def fetch(self, **options):
        options.setdefault("refresh_lists", True)
        return fetching.fetch(
            settings=self.settings,
            database=self.database,
            clock=self.clock,
            monitor=SILENT,
            client=Client(self.settings.transfer, clock=self.clock, sleep=lambda _: None),
            **options,
        )

    def told(self):
        """Return the events of cache runs since it was asked last."""
        kinds = ("CacheRun", "ImageCach", "ImageUncach", "ImageFetch", "ImageCorrupt")
        events = [each for each in self.journal.events(after=self.seen) if str(each.kind).startswith(kinds)]
        self.seen = max((each.number for each in events), default=self.seen)
        return events

    seen = 0

    def kinds(self):
        return [(str(each.kind), each.facts.get("listed", {}).get("title")) for each in self.told()]

    def handed(self):
        return {path.name: path.read_bytes() for path in (self.cache / "handed-out").glob("*")}

    def expired(self):
        return sorted(path.name for path in (self.cache / "expired").glob("*"))


@pytest.fixture
def server():
    with LoopbackServer() as started:
        yield started


@pytest.fixture
def world(tmp_path, server):
    made = World(tmp_path, server)
    yield made
    made.database.close()


RUN = ("CacheRunBegun", None), ("CacheRunEnded", None)


def around(*events):
    return [RUN[0], *events, RUN[1]]


def came(title):
    return ("ImageCaching", title), ("ImageCached", title)


def left(title):
    return ("ImageUncaching", title), ("ImageUncached", title)


def identifier(image):
    return image["dc:identifier"]


def test_a_new_list_an_update_a_withdrawal_and_an_expiry_are_told_in_the_order_of_vmcatcher(world):
    one, two = world.add("One"), world.add("Two")
    world.publish(version="1")
    world.subscribe()
    assert world.fetch().errors == ()
    assert world.kinds() == around(*came("One"), *came("Two"))
    assert set(world.handed()) == {identifier(one), identifier(two)}

    world.renew(one, "2", b"new" * 9000)
    world.publish(version="2")
    world.fetch()
    assert world.kinds() == around(*left("One"), *came("One"))
    assert world.handed()[identifier(one)] == b"new" * 9000
    assert len(world.expired()) == 1

    world.publisher.images.remove(two)
    world.publish(version="3")
    world.fetch()
    events = world.told()
    assert [str(each.kind) for each in events[1:-1]] == ["ImageUncaching", "ImageUncached"]
    assert events[1].facts["reason"] == "withdrawn"
    assert events[1].facts["digest"] == str(Checksum.of(b"Two" * 5000))
    assert set(world.handed()) == {identifier(one)}

    world.clock.advance(timedelta(days=60))
    world.server.set("demo.list", behave.status(503))
    world.fetch()
    assert world.kinds() == around(*left("One"))
    assert world.handed() == {}


def test_a_run_without_change_fetches_nothing_tells_nothing_and_reads_no_file(world, monkeypatch):
    world.add("One")
    world.publish()
    world.subscribe()
    world.fetch()
    world.told()
    asked = len(world.server.requests)
    monkeypatch.setattr("coppice.cache.shelf.hash_file", lambda *_: pytest.fail("a file was read"))
    world.fetch()
    assert world.kinds() == around()
    assert [each.path for each in world.server.requests[asked:]] == ["/demo.list"]


def test_the_old_version_stays_while_the_new_one_cannot_be_had(world):
    one, two = world.add("One"), world.add("Two")
    world.publish(version="1")
    world.subscribe()
    world.fetch()
    world.told()
    world.renew(one, "2", b"new" * 9000)
    world.renew(two, "2", b"two" * 9000)
    world.publish(version="2")
    world.server.set(f"images/{identifier(one)}-2.qcow2", behave.status(404))
    report = world.fetch()
    assert [error.code for error in report.errors] == ["source-status"]
    assert world.kinds() == around(("ImageFetchFailed", "One"), *left("Two"), *came("Two"))
    assert world.handed() == {identifier(one): b"One" * 5000, identifier(two): b"two" * 9000}
    world.publish()
    asked = len(world.server.requests)
    assert world.fetch().errors == ()
    # Only what failed is tried again.
    assert len(world.server.requests) == asked + 2
    assert world.handed()[identifier(one)] == b"new" * 9000


def test_a_run_that_goes_on_with_what_leaves_tells_the_same_reason(world, monkeypatch):
    image = world.add("One")
    world.publish(version="1")
    world.subscribe()
    world.fetch()
    world.renew(image, "2", b"Two" * 5000)
    world.publish(version="2")
    world.told()

    def fails(*_):
        raise StorageError("the disk failed")

    with monkeypatch.context() as patched:
        patched.setattr("coppice.cache.handout.HandOut.take_back", fails)
        world.fetch()
    world.fetch()
    left = [each for each in world.told() if str(each.kind).startswith("ImageUncach")]
    assert [(str(each.kind), each.facts["reason"]) for each in left] == [
        ("ImageUncaching", "superseded"),
        ("ImageUncached", "superseded"),
    ]
    assert world.handed() == {identifier(image): b"Two" * 5000}


def test_a_list_that_is_not_known_today_takes_nothing_away_until_its_dates_do(world):
    world.add("One")
    world.publish()
    world.subscribe()
    world.fetch()
    world.told()
    world.server.set("demo.list", behave.serve(world.publisher.tampered()))
    report = world.fetch()
    assert [error.code for error in report.errors] == ["signature-invalid"] or report.errors
    assert world.kinds() == around()
    assert len(world.handed()) == 1
    (world.path / "anchors").rename(world.path / "gone")
    assert world.fetch().unknown
    assert world.kinds() == around()
    world.clock.advance(timedelta(days=29))
    world.fetch()
    assert world.kinds() == around(*left("One"))


@pytest.mark.threat("T56")
def test_wrong_bytes_are_not_fetched_for_ever(world):
    bad, good = world.add("Bad"), world.add("Good")
    world.publish(version="1")
    world.subscribe()
    path = f"/images/{identifier(bad)}.qcow2"
    world.server.set(path, behave.serve(b"Ba!" * 5000))
    limit = world.settings.transfer.image_attempts
    for _ in range(limit):
        assert [error.code for error in world.fetch().errors] == ["image-checksum"]
    (error,) = world.fetch().errors
    assert isinstance(error, GivenUpError)
    assert sum(each.path == path for each in world.server.requests) == limit
    assert set(world.handed()) == {identifier(good)}
    assert list((world.cache / "partial").iterdir()) == []
    world.fetch(retry=True)
    assert sum(each.path == path for each in world.server.requests) == limit + 1
    world.publish(version="2")
    world.fetch()
    assert set(world.handed()) == {identifier(bad), identifier(good)}


@pytest.mark.threat("T56")
def test_a_server_that_fails_is_asked_again_a_day_later_and_one_with_a_wrong_file_is_not(world):
    failing, wrong = world.add("Failing"), world.add("Wrong")
    world.publish()
    world.subscribe()
    paths = {f"images/{identifier(each)}.qcow2" for each in (failing, wrong)}
    world.server.set(f"images/{identifier(failing)}.qcow2", behave.status(404))
    world.server.set(f"images/{identifier(wrong)}.qcow2", behave.serve(b"Wr!ng" * 3000))
    for _ in range(world.settings.transfer.image_attempts):
        world.fetch()
    assert [type(error) for error in world.fetch().errors] == [GivenUpError] * 2
    world.clock.advance(timedelta(hours=25))
    before = len(world.server.requests)
    assert sorted(error.code for error in world.fetch().errors) == ["source-status", "transfer-given-up"]
    assert [each.path for each in world.server.requests[before:] if each.path[1:] in paths] == [
        f"/images/{identifier(failing)}.qcow2"
    ]
    assert [type(error) for error in world.fetch().errors] == [GivenUpError] * 2


def test_the_limit_of_the_site_gives_nothing_up(world):
    image = world.add("One")
    world.publish()
    world.subscribe()
    world.settings = replace(world.settings, transfer=replace(world.settings.transfer, image_size_limit_bytes=10))
    for _ in range(world.settings.transfer.image_attempts + 1):
        assert [error.code for error in world.fetch().errors] == ["transfer-too-large"]
    world.settings = replace(world.settings, transfer=replace(world.settings.transfer, image_size_limit_bytes=10**6))
    assert world.fetch().errors == ()
    assert set(world.handed()) == {identifier(image)}


@pytest.mark.threat("T56")
def test_a_mirror_is_tried_when_the_bytes_are_wrong(world):
    image = world.add("One")
    image["coppice:mirrors"] = [world.server.url("mirror")]
    world.publish()
    world.subscribe()
    world.server.set(f"images/{identifier(image)}.qcow2", behave.serve(b"On!" * 5000))
    world.server.set("mirror", behave.serve(b"One" * 5000))
    assert world.fetch().errors == ()
    assert world.handed() == {identifier(image): b"One" * 5000}


def test_the_mirrors_that_a_list_names_come_before_the_images_own_address(world):
    image = world.add("One")
    image["coppice:mirrors"] = [world.server.url("far"), world.server.url("near")]
    world.publish()
    world.subscribe()
    world.server.set("near", behave.serve(b"One" * 5000))
    assert world.fetch().errors == ()
    asked = [
        each.path
        for each in world.server.requests
        if each.path in {"/far", "/near", f"/images/{identifier(image)}.qcow2"}
    ]
    assert asked == ["/far", "/near"]


def test_servers_that_cannot_be_reached_are_not_given_up(world):
    world.add("One")["hv:uri"] = "http://127.0.0.1:1/x"
    world.publish()
    world.subscribe()
    for _ in range(world.settings.transfer.image_attempts + 1):
        assert [error.code for error in world.fetch().errors] == ["source-unreachable"]


def test_a_slow_image_stops_no_other(world):
    slow = world.add("A slow one")
    quick = [world.add(f"Quick {number}") for number in range(5)]
    world.publish()
    world.subscribe()
    world.settings = replace(
        world.settings, transfer=replace(world.settings.transfer, total_timeout_seconds=3, read_timeout_seconds=3)
    )
    world.server.set(f"images/{identifier(slow)}.qcow2", behave.stall(b"A slow one" * 5000, 100))
    report = world.fetch()
    assert len(report.errors) == 1
    assert set(world.handed()) == {identifier(each) for each in quick}


@pytest.mark.parametrize("identical", ["identifier", "bytes"])
def test_two_images_with_something_in_common_are_both_handed_out(world, identical):
    one = world.add("One")
    world.publish()
    world.subscribe()
    if identical == "bytes":
        two = world.add("Two", data=b"One" * 5000)
        world.publish()
        world.fetch()
        assert set(world.handed()) == {identifier(one), identifier(two)}
        assert len(describe_cache(world.settings, world.database, world.clock).objects) == 1
        return
    other = SyncWorld(world.path / "other").publisher
    copy = other.add_image(title="Other", data=b"other" * 3000)
    copy |= {"dc:identifier": identifier(one), "hv:uri": world.server.url("other-image")}
    world.server.set("other-image", behave.serve(b"other" * 3000))
    world.server.set("other.list", behave.serve(other.message()))
    other.authority.write_to(world.path / "other-anchors")
    found = other.subscription(world.path / "other-anchors", name="other")
    world.store.add(replace(found, uri=world.server.url("other.list")))
    assert world.fetch().errors == ()
    names = set(world.handed())
    assert identifier(one) in names
    assert len(names) == 2
    assert sorted(world.handed().values()) == sorted([b"One" * 5000, b"other" * 3000])


@pytest.mark.threat("T86")
@pytest.mark.parametrize("harm", ["altered", "replaced", "lost"])
def test_a_file_that_was_handed_out_and_harmed_is_put_right(world, harm):
    image = world.add("One")
    world.publish()
    world.subscribe()
    world.fetch()
    world.told()
    path = world.cache / "handed-out" / identifier(image)
    if harm == "altered":
        (kept,) = (each.entry.path for each in describe_cache(world.settings, world.database, world.clock).objects)
        kept.chmod(0o644)
        with kept.open("r+b") as stream:
            stream.write(b"X")
    elif harm == "replaced":
        path.unlink()
        path.symlink_to("/etc/passwd")
    else:
        path.unlink()
    assert world.fetch().errors == ()
    assert not path.is_symlink()
    assert path.read_bytes() == b"One" * 5000
    assert world.kinds() == around()


def test_what_nothing_needs_stays_for_a_time_and_then_goes(world):
    one, two = world.add("One"), world.add("Two")
    world.publish(version="1")
    world.subscribe()
    world.fetch()
    world.publisher.images.remove(two)
    world.publish(version="2")
    world.fetch()
    found = describe_cache(world.settings, world.database, world.clock)
    assert {bool(each.needers): each.unneeded_since is None for each in found.objects} == {True: True, False: False}
    assert len(world.expired()) == 1
    assert prune_cache(world.settings, world.database, world.clock)[0].removed == ()
    preview = prune_cache(world.settings, world.database, world.clock, at_once=True, dry_run=True)[0]
    assert [each.checksum for each in preview.removed] == [Checksum.of(b"Two" * 5000)]
    world.clock.advance(timedelta(days=8))
    world.fetch()
    found = describe_cache(world.settings, world.database, world.clock)
    assert [each.entry.checksum for each in found.objects] == [Checksum.of(b"One" * 5000)]
    assert world.expired() == []
    assert set(world.handed()) == {identifier(one)}


def test_nothing_is_removed_when_the_database_is_lost(world):
    world.add("One")
    world.publish()
    world.subscribe()
    world.fetch()
    world.database.close()
    for path in world.settings.state_directory.glob("coppice.db*"):
        path.unlink()
    fresh = World(world.path, world.server)
    assert prune_cache(fresh.settings, fresh.database, fresh.clock)[0].removed == ()
    fresh.clock.advance(timedelta(days=1))
    assert prune_cache(fresh.settings, fresh.database, fresh.clock)[0].removed == ()
    fresh.database.close()


def test_the_quota_drops_what_nothing_needs_and_never_what_a_list_names(world):
    world.settings = replace(world.settings, cache=replace(world.settings.cache, quota_bytes=60_000))
    one = world.add("One")
    world.publish(version="1")
    world.subscribe()
    world.fetch()
    two = world.add("Two", data=os.urandom(30_000))
    three = world.add("Three", data=os.urandom(30_000))
    world.publish(version="2")
    (error,) = world.fetch().errors
    assert isinstance(error, QuotaError)
    assert identifier(one) in world.handed()
    assert len(world.handed()) == 2
    world.publisher.images.remove(one)
    world.publisher.images.remove(two)
    world.publish(version="3")
    assert world.fetch().errors == ()
    assert set(world.handed()) == {identifier(three)}


def test_verifying_moves_aside_what_is_corrupt_and_fetches_it_again(world):
    world.add("One")
    world.publish()
    world.subscribe()
    world.fetch()
    world.told()
    (each,) = describe_cache(world.settings, world.database, world.clock).objects
    each.entry.path.chmod(0o644)
    with each.entry.path.open("r+b") as stream:
        stream.write(b"X")
    slept = []
    world.settings = replace(world.settings, cache=replace(world.settings.cache, verify_rate_bytes_per_second=10_000))
    client = Client(world.settings.transfer)

    def sleep(seconds):
        slept.append(seconds)
        world.clock.advance(timedelta(seconds=seconds))

    options = {"settings": world.settings, "database": world.database, "clock": world.clock, "monitor": SILENT}
    found = verify_cache(**options, client=client, sleep=sleep)
    assert [entry.checksum for entry in found.quarantined] == [Checksum.of(b"One" * 5000)]
    assert found.fetched_again == found.quarantined
    assert found.errors == ()
    assert sum(slept) == pytest.approx(1.5, abs=0.1)
    assert ("ImageCorrupt", None) in world.kinds()
    assert len(verify_cache(**options, client=client, sleep=sleep).intact) == 1


DIE_AT = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from coppice.clock import SystemClock
from coppice.database import Database
from coppice.http import Client
from coppice.monitor import SILENT
from coppice.workflows.fetch import fetch
from tests.integration.test_sync import settings_in

remaining = int(sys.argv[2])

def count(event, arguments):
    global remaining
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (event in {"os.rename", "os.link", "os.remove", "os.mkdir"} or writes) and "state" in str(arguments[0]):
        remaining -= 1
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

settings = settings_in(Path(sys.argv[1]) / "state")
settings = replace(settings, cache=replace(settings.cache, fetch="all"))
database = Database(settings.database_url)
sys.addaudithook(count)
clock = SystemClock()
client = Client(settings.transfer)
fetch(settings=settings, database=database, clock=clock, monitor=SILENT, client=client)
"""


def balance(events):
    """Return how often each image came and left by what was told."""
    counted = {}
    for each in events:
        if "image" in each.facts and each.facts.get("listed"):
            key = each.facts["image"], each.facts["version"]
            counted.setdefault(key, []).append(str(each.kind))
    return counted


@pytest.mark.threat("T79")
def test_a_cache_run_that_is_killed_anywhere_loses_no_event_and_ends_the_same(tmp_path, server):
    point, ended = 0, False
    while not ended:
        point += 12
        world = World(tmp_path / str(point), server)
        one = world.add("One")
        gone = world.add("Gone")
        world.publish(version="1")
        world.subscribe()
        world.fetch()
        world.renew(one, "2", b"new" * 9000)
        world.publisher.images.remove(gone)
        world.publish(version="2")
        world.told()
        world.fetch(dry_run=True)
        argv = [sys.executable, "-c", DIE_AT, str(world.path), str(point), str(Path(__file__).parents[2])]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        ended = done.returncode == 0
        assert world.fetch().errors == ()
        assert world.handed() == {identifier(one): b"new" * 9000}
        told = balance(world.told())
        for version, first, last in (("2", "ImageCaching", "ImageCached"), ("1", "ImageUncaching", "ImageUncached")):
            kinds = told[identifier(one), version]
            assert (kinds[0], kinds[-1]) == (first, last)
            assert kinds.count(last) == 1
        assert told[identifier(gone), "1"][-1] == "ImageUncached"
        assert list((world.cache / "handed-out").glob(".coppice-*")) == []
        world.database.close()
    assert point > 20


@pytest.mark.threat("T84")
def test_a_second_cache_run_says_that_another_is_at_work(world):
    world.subscribe()
    with run_lock(world.settings.state_directory / fetching.LOCK_NAME), pytest.raises(LockedError):
        world.fetch()


@pytest.mark.threat("T84")
def test_two_cache_runs_at_once_fetch_each_image_once_and_tell_it_once(world):
    for number in range(4):
        world.add(f"Image {number}")
    world.publish()
    world.subscribe()
    threads = [threading.Thread(target=world.fetch, kwargs={"wait_seconds": 30}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    images = [each.path for each in world.server.requests if each.path.startswith("/images/")]
    assert len(images) == len(set(images)) == 4
    assert [kind for kind, _ in world.kinds()].count("ImageCached") == 4


def test_a_sync_of_such_a_site_does_the_cache_run_as_well(world):
    image = world.add("One")
    world.publish()
    world.subscribe()
    report = sync(
        settings=world.settings,
        database=world.database,
        clock=world.clock,
        monitor=SILENT,
        clouds={},
        client=Client(world.settings.transfer, clock=world.clock),
    )
    assert report.errors == ()
    assert [each.change for each in report.cache.images] == ["fetched", "handed-out"]
    assert set(world.handed()) == {identifier(image)}
    shelf = Shelf(world.cache)
    assert not shelf.leases.is_used(Checksum.of(b"One" * 5000))
    assert str(ImageKey(world.publisher.identifier, identifier(image))) in next(shelf.layout.entries()).images
