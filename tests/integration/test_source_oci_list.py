# SPDX-License-Identifier: Apache-2.0
"""Images in Debian's docker-registry that nobody signs there: a signed list that is followed names them."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.cache.store import ImageCache
from coppice.clock import ShiftedClock
from coppice.database import Database
from coppice.errors import ExpiredListError, MalformedListError, SignerRevokedError, StateError
from coppice.formats.oci import digest_of
from coppice.http import Client
from coppice.model.identifiers import ImageKey
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.archive import ListArchive
from coppice.subscription.model import SourceReference, TrustBasis
from coppice.subscription.source.drivers import judging_shelf
from coppice.subscription.source.gathered import read_gathered
from coppice.subscription.source.oci_named import DOCUMENT
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.oci import egi_annotations
from coppice.testing.simulator import Simulator
from coppice.testing.stages.oci import OciByTransport
from coppice.workflows.listed import recall_lists
from coppice.workflows.refresh import refresh
from coppice.workflows.sources import judging_sources

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
REPOSITORY = "vo/debian-x86_64"
SETTINGS = """
state_directory = "{path}/state"

[transfer]
allow_private_addresses = true
attempts = 1
"""


class Place:
    """A registry, a publisher of a signed list, and a site that follows both: `signed` vouches for `demo`."""

    def __init__(self, path, stage) -> None:
        self.path, self.stage = path, stage
        self.authority = Authority.create("Example CA")
        self.anchors = self.authority.write_to(path / "anchors")
        self.publisher = Simulator.create(self.authority, uri=(path / "lists" / "demo.list").as_uri())
        (path / "lists").mkdir()
        file = path / "coppice.toml"
        file.write_text(SETTINGS.format(path=path))
        self.settings = load_settings(config=file, environ={}, options={}, system_file=file)
        self.clock = ShiftedClock()
        self.database = Database(self.settings.database_url)
        self.store = SubscriptionStore(self.database)
        self.client = Client(self.settings.transfer)

    def name(self, *disks, manifest=None, version="1", repository=REPOSITORY) -> None:
        """Publish a signed list that names these disks, by their layers or by one manifest."""
        self.publisher.images.clear()
        for disk in disks:
            digest = manifest or digest_of(disk)
            uri = f"oci+http://{self.stage.host}/{repository}@{digest}"
            self.publisher.add_image(data=disk, hv_uri=uri)
        self.publisher.version = version
        self.publish()

    def publish(self) -> None:
        (self.path / "lists" / "demo.list").write_bytes(self.publisher.message())

    def follow(self, **options) -> None:
        # The name of the naming list comes later in the alphabet, and is refreshed first all the same.
        self.store.add(self.publisher.subscription(self.anchors, name="signed"))
        source = SourceReference(driver="oci", options={"list": "signed", **options})
        self.store.add(replace(self.stage.subscription(), source=source))

    def refresh(self, **options):
        report = refresh(
            self.store.all(),
            store=self.store,
            client=self.client,
            clock=self.clock,
            settings=self.settings,
            monitor=SILENT,
            **options,
        )
        return {each.subscription.name: each for each in report.outcomes}

    def images(self):
        outcome = self.refresh()["demo"]
        assert outcome.error is None, outcome.error.as_dict()
        return outcome.verified.content.images

    def recalled(self):
        return {each.subscription.name: each for each in recall_lists(self.store, self.clock)}["demo"]

    def revoke(self) -> None:
        self.authority.revoke(self.publisher.endorser.certificate)
        shutil.rmtree(self.anchors)
        self.authority.write_to(self.anchors)


@pytest.fixture
def place(tmp_path):
    with OciByTransport(tmp_path / "stage") as stage:
        made = Place(tmp_path, stage)
        yield made
        made.database.close()


def test_what_the_signed_list_names_is_listed_and_nothing_else(place):
    disks = place.stage.publish(1)
    place.name(disks["x86_64"])
    place.follow()
    outcome = place.refresh()["demo"]
    (image,) = outcome.verified.content.images
    assert image.checksum.hexdigest == hashlib.sha256(disks["x86_64"]).hexdigest()
    assert outcome.verified.content.unreadable == ()
    by = outcome.verified.trusted_by
    assert (by.basis, by.signer) == (TrustBasis.LIST, str(place.publisher.endorser.subject))
    assert by.fingerprint is not None
    (kept,) = ListArchive(place.database).versions("demo")
    assert (kept.basis, kept.signer) == (TrustBasis.LIST, by.signer)
    # What comes is what was named, to the byte.
    cache = ImageCache(place.path / "cache", client=place.client)
    cached = cache.obtain(ImageKey(outcome.verified.content.identifier, image.identifier), image)
    assert cached.path.read_bytes() == disks["x86_64"]
    cache.close()


def test_a_list_may_name_the_manifest_instead_of_its_disk(place):
    disks = place.stage.publish(1)
    place.name(disks["aarch64"], manifest=place.stage.digest(REPOSITORY, "12"))
    place.follow()
    (image,) = place.images()
    # Digest of the manifest above; what the list says of the disk itself has another form.
    assert image.checksum.hexdigest == hashlib.sha256(disks["x86_64"]).hexdigest()


def test_a_digest_with_another_size_than_the_list_says_is_not_named(place):
    disks = place.stage.publish(1)
    place.name(disks["x86_64"])
    place.publisher.images[0]["hv:size"] = "7"
    place.publish()
    place.follow()
    outcome = place.refresh()["demo"]
    assert (outcome.verified, outcome.in_force) == (None, None)
    assert isinstance(outcome.error, MalformedListError)
    assert "the list of 'signed' names" in outcome.error.message


def test_an_image_that_the_list_drops_is_listed_no_more(place):
    disks = place.stage.publish(1)
    place.name(*disks.values())
    place.follow()
    assert len(place.images()) == 2
    place.name(disks["aarch64"], version="2", repository="vo/debian-aarch64")
    outcome = place.refresh()["demo"]
    assert [each.operating_system.architecture for each in outcome.verified.content.images] == ["aarch64"]
    assert outcome.verified.content.unreadable == ()
    assert not outcome.unchanged


def test_a_tag_that_moved_on_before_the_list_leaves_its_image_unknown(place):
    disks = place.stage.publish(1)
    place.name(*disks.values())
    place.follow()
    before = {each.operating_system.architecture: each.identifier for each in place.images()}
    place.stage.push(REPOSITORY, b"newer" * 100, egi_annotations("2025-10-01-aaaa1111", architecture="x86_64"))
    outcome = place.refresh()["demo"]
    content = outcome.verified.content
    assert [each.identifier for each in content.images] == [before["aarch64"]]
    assert [each.identifier for each in content.unreadable] == [before["x86_64"]]


def test_while_the_list_is_unknown_so_is_what_it_vouches_for(place):
    disks = place.stage.publish(1)
    place.name(disks["x86_64"])
    place.store.add(replace(place.stage.subscription(), source=SourceReference(driver="oci", options={"list": "no"})))
    outcome = place.refresh()["demo"]
    assert isinstance(outcome.error, StateError)
    assert (outcome.verified, outcome.distrusted) == (None, False)
    place.store.remove("demo", now=place.clock.now())
    place.follow()
    place.images()
    # The subscription is removed: what it named is not known any more, and nothing is said to be gone.
    place.store.remove("signed", now=place.clock.now())
    for known in (place.refresh()["demo"], place.recalled()):
        assert isinstance(known.error, StateError)
        assert (known.verified, known.distrusted) == (None, False)


def test_a_list_of_another_source_vouches_for_nothing(place):
    place.stage.publish(1)
    place.store.add(replace(place.stage.subscription(), name="signed"))
    source = SourceReference(driver="oci", options={"list": "signed"})
    place.store.add(replace(place.stage.subscription(), source=source))
    outcome = place.refresh()["demo"]
    assert "no signed image list" in outcome.error.message
    assert outcome.verified is None


def test_when_the_list_is_distrusted_so_is_what_it_vouched_for(place):
    disks = place.stage.publish(1)
    place.name(disks["x86_64"])
    place.follow()
    place.images()
    place.revoke()
    found = place.refresh()
    assert found["signed"].distrusted
    assert found["demo"].distrusted
    assert isinstance(found["demo"].error, SignerRevokedError)
    assert found["demo"].verified is None
    assert place.recalled().distrusted


def test_it_ends_with_the_list_and_each_image_with_its_entry(place):
    disks = place.stage.publish(1)
    place.name(disks["x86_64"])
    ends = place.publisher.created + timedelta(days=5)
    place.publisher.images[0]["dc:date:expires"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    place.publish()
    place.follow(valid_days=300)
    outcome = place.refresh()["demo"]
    content = outcome.verified.content
    assert content.validity.expires == place.publisher.expires
    assert [each.expires for each in content.images] == [ends]
    place.clock.advance(timedelta(days=30))
    found = place.refresh()["demo"]
    assert (found.verified, found.distrusted) == (None, False)
    assert isinstance(found.error, ExpiredListError)


def test_a_renewed_list_that_names_the_same_prolongs_and_is_no_new_version(place):
    disks = place.stage.publish(1)
    place.name(disks["x86_64"])
    place.follow(valid_days=300)
    before = place.refresh()["demo"]
    place.publisher.expires += timedelta(days=20)
    place.name(disks["x86_64"], version="2")
    after = place.refresh()["demo"]
    assert after.verified.content.version == before.verified.content.version
    assert after.verified.content.validity.expires == place.publisher.expires
    assert after.in_force.expires == place.publisher.expires
    assert place.refresh()["demo"].unchanged


def test_the_verdict_is_repeated_from_what_is_archived_and_by_the_list_of_today(place):
    disks = place.stage.publish(1)
    place.name(*disks.values())
    place.follow()
    before = place.refresh()["demo"].verified
    _, message = ListArchive(place.database).message("demo")
    note = read_gathered(message, driver="oci", limits=place.settings.lists).document(DOCUMENT).data
    assert place.publisher.identifier.encode() in note
    place.stage.stop()
    again = place.recalled()
    assert again.error is None
    assert again.verified.content == before.content
    subscription = place.store.get("demo")
    shown = judging_sources(place.database, place.clock).open(subscription.source)
    assert shown.read(message, subscription, place.settings.lists).images == tuple(
        replace(each, expires=None) for each in before.content.images
    )
    # Where no subscriptions are at hand nothing is known, whatever the message says.
    with pytest.raises(StateError, match="not at hand"):
        place.store.recall("demo", judging_shelf(place.clock), place.clock.now())
    # The registry is gone when the list drops an image: it is unknown what there is until it is gathered anew.
    place.name(disks["x86_64"], version="2")
    found = place.refresh()["demo"]
    assert (found.verified, found.distrusted) == (None, False)
    assert isinstance(place.recalled().error, StateError)


def test_another_list_under_the_same_name_vouches_for_nothing_that_was_gathered_before(place):
    disks = place.stage.publish(1)
    place.name(*disks.values())
    place.follow()
    place.images()
    place.store.remove("signed", now=place.clock.now())
    place.publisher.identifier = "7d0a1c1e-7a37-4a51-9d0c-0d9b0d3f3a11"
    place.publish()
    place.store.add(place.publisher.subscription(place.anchors, name="signed"))
    place.stage.stop()
    found = place.refresh()
    assert found["signed"].error is None
    assert (found["demo"].verified, found["demo"].distrusted) == (None, False)
    assert "another list" in place.recalled().error.message
