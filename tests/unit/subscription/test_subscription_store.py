# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from coppice.database import Database
from coppice.errors import (
    ChangedListError,
    DatabaseError,
    ExistsError,
    ExpiredListError,
    InputError,
    ListIdentifierError,
    NotFoundError,
    OlderListError,
    SignerRevokedError,
    UnreachableError,
)
from coppice.model.identifiers import ImageIdentifier, ListIdentifier
from coppice.subscription.anchors import TrustAnchors
from coppice.subscription.model import ImageSelection, TrustPolicy
from coppice.subscription.rules import verify_list
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.simulator import Simulator
from coppice.testing.sources import sources_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.subscription.model import Subscription, VerifiedImageList

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture
def store(database_file: Path) -> Iterator[SubscriptionStore]:
    database = Database(f"sqlite:///{database_file}")
    yield SubscriptionStore(database)
    database.close()


def anchors_of(authority: Authority) -> TrustAnchors:
    return TrustAnchors(
        certificates=(authority.identity.certificate,), crls=(authority.crl(),), problems=(), path=Path("/anchors")
    )


def verified(publisher: Simulator, message: bytes, subscription: Subscription) -> VerifiedImageList:
    return verify_list(message, subscription=subscription, anchors=anchors_of(publisher.authority), last=None, now=NOW)


def take(store: SubscriptionStore, publisher: Simulator, name: str = "demo") -> bytes:
    message = publisher.message()
    store.record(verified(publisher, message, store.get(name)), message)
    return message


def test_a_subscription_is_kept_as_it_was_added(store: SubscriptionStore, publisher: Simulator) -> None:
    wanted = (ImageIdentifier(publisher.images[0]["dc:identifier"]),)
    subscription = publisher.subscription(Path("/anchors"), images=wanted)
    store.add(subscription)
    assert store.get("demo") == subscription
    assert store.all() == (subscription,)
    with pytest.raises(ExistsError):
        store.add(subscription)
    with pytest.raises(NotFoundError, match="other"):
        store.get("other")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"uri": "ftp://x/y"},
        {"uri": "http://[x"},
        {"uri": "https://h/a b"},
        {"list_identifier": "x"},
        {"selection": ImageSelection(images=(ImageIdentifier("x"),))},
        {"selection": ImageSelection(refused=(ImageIdentifier("x"),))},
        {"selection": ImageSelection(expression="os =")},
        {"trust": TrustPolicy(endorsers=(), anchors=Path("/anchors"))},
    ],
)
def test_what_cannot_be_a_subscription_is_refused(store: SubscriptionStore, publisher: Simulator, change) -> None:
    with pytest.raises(InputError):
        store.add(replace(publisher.subscription(Path("/anchors")), **change))


def test_the_first_verified_list_fixes_which_list_it_is(store: SubscriptionStore, publisher: Simulator) -> None:
    store.add(replace(publisher.subscription(Path("/anchors")), list_identifier=None))
    assert store.last_message("demo") is None
    message = take(store, publisher)
    assert store.get("demo").list_identifier == publisher.identifier
    assert store.last_message("demo") == message


@pytest.mark.threat("T29")
def test_the_floor_never_sinks_and_outlives_the_subscription(store: SubscriptionStore, publisher: Simulator) -> None:
    identifier = ListIdentifier(publisher.identifier)
    unfixed = replace(publisher.subscription(Path("/anchors")), list_identifier=None)
    store.add(unfixed)
    publisher.version = "10"
    kept = take(store, publisher)
    publisher.version = "9"
    with pytest.raises(OlderListError):
        take(store, publisher)
    assert store.last_message("demo") == kept
    store.remove("demo", now=NOW)
    floor = store.last_trusted(identifier)
    assert floor is not None
    assert floor.version == "10"
    # Subscribed anew without knowing which list it will be: the old version is refused all the same.
    store.add(unfixed)
    with pytest.raises(OlderListError):
        take(store, publisher)
    publisher.version, publisher.extra = "10", {"xx:other": "content"}
    with pytest.raises(ChangedListError):
        take(store, publisher)


def test_removing_leaves_the_list_marked_until_it_is_followed_again(
    store: SubscriptionStore, publisher: Simulator
) -> None:
    subscription = publisher.subscription(Path("/anchors"))
    store.add(subscription)
    store.add(replace(subscription, name="second"))
    store.remove("second", now=NOW)
    assert store.unsubscribed() == ()
    take(store, publisher)
    store.remove("demo", now=NOW)
    assert store.unsubscribed() == (publisher.identifier,)
    store.add(subscription)
    assert store.unsubscribed() == ()
    assert store.last_message("demo") is None


def test_a_failure_is_noted_and_changes_nothing(store: SubscriptionStore, publisher: Simulator) -> None:
    store.add(publisher.subscription(Path("/anchors")))
    message = take(store, publisher)
    store.record_failure("demo", UnreachableError("no route"), NOW + DAY)
    assert store.last_failure("demo") == ("source-unreachable", "no route", NOW + DAY)
    assert store.last_message("demo") == message
    take(store, publisher)
    assert store.last_failure("demo") is None


@pytest.mark.threat("T18")
@pytest.mark.threat("T19")
def test_the_kept_list_is_recalled_while_its_dates_and_its_signer_hold(store: SubscriptionStore) -> None:
    authority = Authority.create("Example CA")
    short = authority.issue("Jane Doe", not_after=NOW + DAY)
    publisher = Simulator.create(authority, endorser=short)
    store.add(publisher.subscription(Path("/anchors")))
    with pytest.raises(NotFoundError):
        store.recall("demo", sources_of(anchors_of(authority)), NOW)
    take(store, publisher)
    recalled = store.recall("demo", sources_of(anchors_of(authority)), NOW + 2 * DAY)
    assert recalled.content.version == "1"
    with pytest.raises(ExpiredListError):
        store.recall("demo", sources_of(anchors_of(authority)), NOW + 29 * DAY)
    authority.revoke(short.certificate)
    with pytest.raises(SignerRevokedError):
        store.recall("demo", sources_of(anchors_of(authority)), NOW + 2 * DAY)


@pytest.mark.threat("T41")
def test_another_endorsers_list_does_not_take_the_identifier_of_one_that_is_followed(
    store: SubscriptionStore, publisher: Simulator
) -> None:
    store.add(publisher.subscription(Path("/anchors")))
    take(store, publisher)
    mallory = Simulator.create(Authority.create("Other CA"))
    mallory.identifier, mallory.version = publisher.identifier, "999"
    store.add(replace(mallory.subscription(Path("/anchors"), name="mallory"), list_identifier=None))
    with pytest.raises(ListIdentifierError, match="'demo'"):
        take(store, mallory, "mallory")
    assert store.get("mallory").list_identifier is None
    trusted = store.last_trusted(ListIdentifier(publisher.identifier))
    assert trusted is not None
    assert trusted.version == "1"
    # Nor once the other subscription is gone: what was registered of that list may still be there.
    store.remove("demo", now=NOW)
    with pytest.raises(ListIdentifierError, match="others vouched for"):
        take(store, mallory, "mallory")
    # Until the administrator says that it is the same list.
    store.reset_version("mallory", reason="new endorser", now=NOW, list_identifier=ListIdentifier(mallory.identifier))
    take(store, mallory, "mallory")


@pytest.mark.threat("T85")
@pytest.mark.parametrize(
    "damage", ["UPDATE subscription SET revocation = 'never'", "UPDATE subscription_endorser SET subject = '[1]'"]
)
def test_a_damaged_row_is_an_error_and_no_missing_subscription(
    store: SubscriptionStore, publisher: Simulator, damage: str
) -> None:
    store.add(publisher.subscription(Path("/anchors")))
    with store._database.session() as session:
        session.execute(text(damage))
    with pytest.raises(DatabaseError, match="cannot be"):
        store.all()
