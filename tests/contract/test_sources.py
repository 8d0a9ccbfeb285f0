# SPDX-License-Identifier: Apache-2.0
"""What every source keeps to, each against a real server of its kind."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cache.store import ImageCache
from coppice.clock import ShiftedClock
from coppice.database import Database
from coppice.errors import CoppiceError, InputError, MalformedListError, OlderListError, TransferError, TrustError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.http import Client, Validators
from coppice.model.identifiers import ImageKey, is_uuid
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.archive import ListArchive
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import ImageSelection, TrustBasis
from coppice.subscription.source.drivers import BUILT_IN, judging_shelf
from coppice.subscription.source.protocol import Circumstances
from coppice.subscription.store import SubscriptionStore
from coppice.testing.stages import STAGES
from coppice.testing.stages.simplestreams import StreamsByKey
from coppice.workflows.obtain import approach_of
from coppice.workflows.refresh import refresh
from coppice.workflows.select import select
from coppice.workflows.sources import open_sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.imagelist.model import ListedImage
    from coppice.settings.model import Settings
    from coppice.subscription.model import Subscription, VerifiedImageList
    from coppice.testing.stages.stage import SourceStage
    from coppice.workflows.refresh import ListOutcome

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]
FAILURES = [(name, how) for name, stage in STAGES.items() for how in stage.failures]
SHARED = [name for name, stage in STAGES.items() if stage.is_shared]
SIGNED = [name for name, stage in STAGES.items() if stage.is_signed]
SETTINGS = """
state_directory = "{path}/state"

[transfer]
allow_private_addresses = true
attempts = 1
"""


class Site:
    """A site that follows one source."""

    def __init__(self, path: Path, stage: SourceStage) -> None:
        self.path, self.stage = path, stage
        path.mkdir()
        file = path / "coppice.toml"
        file.write_text(SETTINGS.format(path=path))
        self.settings: Settings = load_settings(config=file, environ={}, options={}, system_file=file)
        self.clock = ShiftedClock()
        self.database = Database(self.settings.database_url)
        self.store = SubscriptionStore(self.database)
        self.client = Client(self.settings.transfer)
        stage.enter(self.database)

    def follow(self, **changed: Any) -> Subscription:
        subscription = replace(self.stage.subscription(), **changed)
        self.store.add(subscription)
        return subscription

    def refresh(self, **options: Any) -> ListOutcome:
        (outcome,) = self.refresh_all(**options).values()
        return outcome

    def refresh_all(self, **options: Any) -> dict[str, ListOutcome]:
        settings = options.pop("settings", self.settings)
        report = refresh(
            self.store.all(),
            store=self.store,
            client=self.client,
            clock=self.clock,
            settings=settings,
            monitor=SILENT,
            **options,
        )
        return {each.subscription.name: each for each in report.outcomes}

    def verified(self) -> VerifiedImageList:
        outcome = self.refresh()
        assert outcome.error is None, outcome.error.as_dict()
        assert outcome.verified is not None
        return outcome.verified

    def circumstances(self, **changed: Any) -> Circumstances:
        given: dict[str, Any] = {
            "last": None,
            "now": self.clock.now(),
            "limits": self.settings.lists,
            "terms": DEFAULT_TERMS,
        }
        return Circumstances(**{**given, **changed})


@pytest.fixture(scope="module", autouse=True)
def shared_servers() -> Iterator[None]:
    yield
    for stage in STAGES.values():
        stage.close()


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceStage]:
    with STAGES[request.param](tmp_path / "stage") as stage:
        yield stage


@pytest.fixture
def site(stage: SourceStage, tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site", stage)
    yield site
    site.database.close()


def by_architecture(verified: VerifiedImageList) -> dict[str, ListedImage]:
    return {image.operating_system.architecture: image for image in verified.content.images}


def test_every_source_that_coppice_brings_is_tested_here() -> None:
    assert {stage.driver for stage in STAGES.values()} == set(BUILT_IN)


def test_a_list_is_verified_and_says_by_what_it_is_trusted(site: Site) -> None:
    site.stage.publish(1)
    site.follow()
    verified = site.verified()
    assert verified.trusted_by.basis is site.stage.basis
    assert verified.trusted_by.signer
    assert set(by_architecture(verified)) == {"x86_64", "aarch64"}
    (told,) = [each for each in Journal(site.database).events() if each.kind is EventKind.LIST_VERIFIED]
    assert (told.facts["basis"], told.facts["signer"]) == (str(site.stage.basis), verified.trusted_by.signer)
    (kept,) = ListArchive(site.database).versions("demo")
    assert (kept.basis, kept.signer, kept.is_current) == (site.stage.basis, verified.trusted_by.signer, True)


def test_what_did_not_change_is_not_fetched_again_and_stays_in_force(site: Site) -> None:
    site.stage.publish(1)
    site.follow()
    first = site.verified()
    again = site.refresh()
    for _ in range(5):
        assert (again.error, again.fresh) == (None, True)
        if again.unchanged:
            break
        # Where a server tells a date, what it says counts once the second that it names is over.
        time.sleep(1)
        again = site.refresh()
    assert again.unchanged
    known = site.store.known()["demo"]
    source = open_sources(site.database, site.client, site.clock, site.settings).open(known.subscription.source)
    validators = Validators(etag=known.etag, last_modified=known.last_modified)
    assert source.fetch(known.subscription, validators).body is None
    assert again.verified is not None
    assert again.verified.content == first.content


def test_what_a_source_can_say_of_a_list_only_later_is_kept_as_well(tmp_path: Path) -> None:
    with StreamsByKey(tmp_path / "stage") as stage:
        site = Site(tmp_path / "site", stage)
        stage.publish(1)
        site.follow()
        products = stage.server.root / "releases/streams/v1" / stage.products_name
        # A date to come is not firm: what has it could change once more.
        os.utime(products, (time.time() + 3600,) * 2)
        site.verified()
        os.utime(products, (time.time() - 3600,) * 2)
        outcomes = [site.refresh() for _ in range(2)]
        assert [(each.error, each.unchanged) for each in outcomes] == [(None, True)] * 2
        site.database.close()
        log = stage.server.directory / "access.log"
        # Which it writes once it has answered.
        stage.server.wait_until(lambda: log.read_text().count(stage.products_name) >= 3, log=log)
        requests = [each for each in log.read_text().splitlines() if stage.products_name in each]
        assert [each.split()[8] for each in requests] == ["200", "200", "304"]


def test_a_newer_version_takes_its_place_and_every_identifier_stays(site: Site) -> None:
    site.stage.publish(1)
    site.follow()
    before = site.verified()
    site.stage.publish(2)
    after = site.verified()
    assert after.content.identifier == before.content.identifier
    old, new = by_architecture(before), by_architecture(after)
    assert {key: image.identifier for key, image in old.items()} == {key: each.identifier for key, each in new.items()}
    assert all(old[key].checksum != new[key].checksum for key in old)
    assert all(is_uuid(image.identifier) for image in after.content.images)
    assert [each.version for each in ListArchive(site.database).versions("demo")] == [
        after.content.version,
        before.content.version,
    ]


@pytest.mark.parametrize("stage", SHARED, indirect=True)
def test_a_second_site_gives_the_same_identifiers(site: Site, tmp_path: Path) -> None:
    site.stage.publish(1)
    site.follow()
    one = site.verified()
    other = Site(tmp_path / "other", site.stage)
    other.follow()
    two = other.verified()
    other.database.close()
    assert two.content.identifier == one.content.identifier
    assert [each.identifier for each in two.content.images] == [each.identifier for each in one.content.images]
    assert two.payload_checksum == one.payload_checksum


@pytest.mark.parametrize("stage", SIGNED, indirect=True)
def test_what_was_tampered_with_is_refused_and_changes_nothing(site: Site) -> None:
    site.stage.publish(1)
    site.follow()
    before = site.verified()
    site.stage.publish(2)
    site.stage.tamper()
    outcome = site.refresh()
    assert isinstance(outcome.error, TrustError)
    assert outcome.error.code in site.stage.tampered_codes
    assert not outcome.distrusted
    assert outcome.verified is not None
    assert outcome.verified.content == before.content


@pytest.mark.parametrize("stage", SIGNED, indirect=True)
def test_an_older_version_that_is_published_again_is_refused(site: Site) -> None:
    site.stage.publish(1)
    site.follow()
    site.verified()
    site.stage.publish(2)
    newer = site.verified()
    site.stage.publish(1)
    outcome = site.refresh()
    assert outcome.error is not None
    assert outcome.error.code == OlderListError.code
    assert outcome.verified is not None
    assert outcome.verified.content == newer.content


def test_an_older_message_is_refused(site: Site) -> None:
    site.stage.publish(1)
    subscription = site.follow()
    site.verified()
    old = site.store.last_message("demo")
    assert old is not None
    site.stage.publish(2)
    site.clock.advance(timedelta(seconds=1))
    newer = site.verified()
    last = site.store.last_trusted(newer.content.identifier)
    source = judging_shelf(site.clock).open(subscription.source)
    with pytest.raises(OlderListError):
        source.verify(old, subscription, site.circumstances(last=last))


@pytest.mark.parametrize(("stage", "how"), FAILURES, indirect=["stage"])
def test_a_source_that_fails_changes_nothing(site: Site, how: str) -> None:
    site.stage.publish(1)
    site.follow()
    before = site.verified()
    site.stage.fail(how)
    for _ in range(2):
        outcome = site.refresh(force=True)
        assert isinstance(outcome.error, TransferError if how != "empty" else CoppiceError)
        assert not outcome.fresh
        assert not outcome.distrusted
        assert outcome.verified is not None
        assert outcome.verified.content == before.content
    assert site.store.last_trusted(before.content.identifier) is not None


@pytest.mark.parametrize(("stage", "how"), FAILURES, indirect=["stage"])
def test_a_source_that_fails_at_first_is_not_a_list_without_images(site: Site, how: str) -> None:
    site.stage.publish(1)
    site.follow()
    site.stage.fail(how)
    outcome = site.refresh()
    assert outcome.error is not None
    assert outcome.verified is None
    assert ListArchive(site.database).versions("demo") == ()


@pytest.mark.parametrize("stage", [name for name in STAGES if name not in SIGNED], indirect=True)
def test_what_nobody_dates_is_gathered_anew_before_half_its_life_is_over(site: Site) -> None:
    site.stage.publish(1)
    site.follow()
    before = site.verified()
    for count in (1, 2, 3):
        site.clock.advance(timedelta(days=91))
        after = site.verified()
        assert after.content.version == before.content.version
        assert after.content.images == before.content.images
        assert after.content.validity.expires >= before.content.validity.expires + timedelta(days=91 * count)
    (kept,) = ListArchive(site.database).versions("demo")
    assert kept.expires == after.content.validity.expires


def test_a_message_is_judged_again_without_a_server_with_the_same_verdict(site: Site) -> None:
    site.stage.publish(1)
    site.follow()
    before = site.verified()
    site.stage.stop()
    recalled = site.store.recall("demo", judging_shelf(site.clock), site.clock.now())
    assert recalled.content == before.content
    assert recalled.trusted_by == before.trusted_by
    assert recalled.payload_checksum == before.payload_checksum
    assert recalled.anchors_state == before.anchors_state


def test_a_kept_message_can_be_read_to_be_shown(site: Site) -> None:
    site.stage.publish(1)
    subscription = site.follow()
    before = site.verified()
    message = site.store.last_message("demo")
    assert message is not None
    found = judging_shelf(site.clock).open(subscription.source).read(message, subscription, site.settings.lists)
    assert found.images == before.content.images


def test_the_list_in_force_can_be_put_aside_and_taken_up_again(site: Site) -> None:
    site.stage.publish(1)
    site.follow()
    before = site.verified()
    site.store.reset_version("demo", reason="a test", now=site.clock.now())
    rolled = site.store.roll_forward(
        "demo", judging_shelf(site.clock), site.clock.now(), version=before.content.version
    )
    assert rolled.content.images == before.content.images
    assert site.verified().content.identifier == before.content.identifier


def test_bytes_that_are_no_message_are_refused_by_name(site: Site) -> None:
    site.stage.publish(1)
    subscription = site.follow()
    site.verified()
    message = site.store.last_message("demo")
    assert message is not None
    source = judging_shelf(site.clock).open(subscription.source)
    for bad in (
        b"",
        b"{}",
        b"\x00" * 100,
        b"[" * 100_000,
        b'{"form": "coppice-gathered-1"}',
        message[: len(message) // 2],
    ):
        with pytest.raises(TrustError):
            source.verify(bad, subscription, site.circumstances())


def test_an_unknown_option_is_refused_before_anything_is_kept(site: Site) -> None:
    site.stage.publish(1)
    with pytest.raises(InputError, match="no_such_option"):
        site.store.add(replace(site.stage.subscription(), source=site.stage.reference(no_such_option="x")))
    assert site.store.all() == ()


def test_an_address_of_another_kind_is_refused(site: Site) -> None:
    with pytest.raises(InputError):
        site.store.add(replace(site.stage.subscription(), uri="gopher://example.org/list"))


def test_more_than_a_list_may_be_is_refused(site: Site) -> None:
    site.stage.publish(1)
    site.follow()
    small = replace(site.settings, lists=replace(site.settings.lists, size_bytes=40))
    outcome = site.refresh(settings=small)
    assert isinstance(outcome.error, TransferError | MalformedListError)
    assert outcome.verified is None


def test_a_selection_chooses_among_the_images(site: Site) -> None:
    site.stage.publish(1)
    site.follow(selection=ImageSelection(architectures=("aarch64",)))
    (wanted,) = select([site.refresh()], ()).lists
    assert [each.listed.operating_system.architecture for each in wanted.images] == ["aarch64"]
    assert not wanted.unknown


def test_images_come_into_the_cache_with_the_digest_that_the_source_gives(site: Site) -> None:
    expected = site.stage.publish(1)
    site.follow()
    outcome = site.refresh()
    assert outcome.verified is not None
    content = outcome.verified.content
    approach = approach_of([outcome])
    is_local = content.identifier in approach.local
    assert is_local or site.stage.basis is not TrustBasis.LOCAL
    cache = ImageCache(site.path / "cache", client=site.client, clock=site.clock, allow_file_uris=is_local)
    for image in content.images:
        held = cache.obtain(
            ImageKey(content.identifier, image.identifier),
            image,
            SILENT,
            accesses=approach.accesses.get(content.identifier, ()),
        )
        assert held.path.read_bytes() == expected[image.operating_system.architecture]
        assert held.listed_checksum == image.checksum


@pytest.mark.threat("T41")
@pytest.mark.parametrize("stage", [name for name in SIGNED if STAGES[name].driver != "hepix"], indirect=True)
def test_who_believes_by_less_does_not_take_the_list_of_who_asks_for_more(site: Site) -> None:
    site.stage.publish(1)
    demanding = site.follow()
    before = site.verified()
    options = {key: value for key, value in demanding.source.options.items() if key not in {"keyring", "cosign_key"}}
    weaker = replace(demanding.source, options={**options, "trust": "transport"})
    site.store.add(replace(demanding, name="weaker", source=weaker))
    site.stage.publish(2)
    site.stage.tamper()
    outcomes = site.refresh_all()
    assert outcomes["weaker"].verified is None
    assert outcomes["weaker"].error is not None
    assert outcomes["demo"].verified is not None
    assert outcomes["demo"].verified.content == before.content


@pytest.mark.parametrize("stage", SIGNED, indirect=True)
@pytest.mark.parametrize("reachable", [True, False])
def test_whoever_is_not_trusted_any_more_vouches_for_nothing(site: Site, reachable: bool) -> None:
    site.stage.publish(1)
    site.follow()
    before = site.verified()
    site.stage.distrust()
    if not reachable:
        site.stage.fail("gone")
    outcome = site.refresh()
    assert outcome.error is not None
    assert outcome.verified is None
    assert outcome.distrusted
    assert select([outcome], ()).distrusted == {before.content.identifier}
