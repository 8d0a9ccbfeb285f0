# SPDX-License-Identifier: Apache-2.0
"""A database of the first schema, with rows in it, is a database of today: nothing that was followed is lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, text

from coppice.database import MIGRATIONS, Database
from coppice.errors import ListIdentifierError, OlderListError
from coppice.formats.cms import open_message
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ListIdentifier
from coppice.subscription.anchors import load_anchors
from coppice.subscription.archive import ListArchive
from coppice.subscription.model import NamespacePolicy, RevocationPolicy
from coppice.subscription.overview import FreshnessState, overview
from coppice.subscription.rules import verify_list
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.simulator import Simulator
from coppice.testing.sources import sources_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC).replace(microsecond=0)
STAMP = "%Y-%m-%d %H:%M:%S.000000"


def at_first_schema(path: Path, rows: list[tuple[str, dict[str, object]]]) -> None:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _configure(connection, _record) -> None:
        connection.execute("PRAGMA foreign_keys=ON")

    scripts = ScriptDirectory(str(MIGRATIONS))
    with engine.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"fn": lambda revision, _context: scripts._upgrade_revs("0001", revision)}
        )
        with Operations.context(context):
            context.run_migrations()
        for statement, values in rows:
            connection.execute(text(statement), values)
    engine.dispose()


@pytest.fixture
def publisher() -> Simulator:
    publisher = Simulator.create(Authority.create("Example CA"))
    publisher.add_image()
    publisher.version = "7"
    return publisher


@pytest.fixture
def database(tmp_path: Path, publisher: Simulator) -> Iterator[Database]:
    publisher.authority.write_to(tmp_path / "anchors")
    message = publisher.message()
    digest = Checksum.of(open_message(message).payload).hexdigest
    image = publisher.images[0]["dc:identifier"]
    names = {
        "subject": json.dumps([list(pair) for pair in publisher.endorser.subject.attributes]),
        "issuer": json.dumps([list(pair) for pair in publisher.endorser.issuer.attributes]),
    }
    add = (
        "INSERT INTO subscription VALUES (:name, :uri, :list, :subject, :issuer, :anchors, :revocation, :images, :at, "
        ":attempt, :code, :error)"
    )
    common = {"anchors": str(tmp_path / "anchors"), "at": NOW.strftime(STAMP), **names}
    nothing = {"attempt": None, "code": None, "error": None}
    kept = {
        "message": message,
        "version": "7",
        "digest": digest,
        "expires": publisher.expires.strftime(STAMP),
        "at": NOW.strftime(STAMP),
        "list": publisher.identifier,
    }
    rows: list[tuple[str, dict[str, object]]] = [
        (add, {**common, **nothing, "name": "demo", "uri": publisher.uri, "list": publisher.identifier,
               "revocation": "if-present", "images": json.dumps([image])}),
        (add, {**common, "name": "new", "uri": "https://lists.example.org/new", "list": None, "revocation": "require",
               "images": "[]", "attempt": NOW.strftime(STAMP), "code": "source-unreachable", "error": "no route"}),
        ("INSERT INTO verified_list VALUES ('demo', :message, :version, :digest, :expires, :at)", kept),
        ("INSERT INTO trusted_version VALUES (:list, :version, :digest, :at)", kept),
        ("INSERT INTO unsubscribed_list VALUES ('gone-list', :at)", kept),
        ("INSERT INTO trusted_version VALUES ('gone-list', '3', :digest, :at)", kept),
    ]  # fmt: skip
    at_first_schema(tmp_path / "c.db", rows)
    database = Database(f"sqlite:///{tmp_path / 'c.db'}")
    yield database
    database.close()


def test_subscriptions_keep_endorser_selection_and_what_became_of_them(database: Database, publisher: Simulator):
    store = SubscriptionStore(database)
    demo, new = store.get("demo"), store.get("new")
    assert [(each.subject, each.issuer) for each in demo.trust.endorsers] == [
        (publisher.endorser.subject, publisher.endorser.issuer)
    ]
    assert demo.selection.images == (publisher.images[0]["dc:identifier"],)
    assert (demo.trust.revocation, new.trust.revocation) == (RevocationPolicy.IF_PRESENT, RevocationPolicy.REQUIRE)
    assert demo.trust.namespaces is NamespacePolicy.AUTOMATIC
    assert (demo.added_at, demo.list_identifier, new.list_identifier) == (NOW, publisher.identifier, None)
    assert store.last_failure("new") == ("source-unreachable", "no route", NOW)
    assert store.unsubscribed() == ("gone-list",)
    states = {each.name: each.state for each in overview(database, NOW)}
    assert states == {"demo": FreshnessState.FRESH, "new": FreshnessState.FAILED}


def test_the_verified_list_is_archived_and_still_in_force(database: Database, publisher: Simulator):
    store = SubscriptionStore(database)
    anchors = load_anchors(store.get("demo").trust.anchors)
    assert store.recall("demo", sources_of(anchors), NOW + timedelta(days=1)).content.version == "7"
    (kept,) = ListArchive(database).versions("demo")
    assert (kept.version, kept.is_current, kept.verified_at, kept.signer) == ("7", True, NOW, None)
    _, message = ListArchive(database).message("demo")
    assert Checksum.of(open_message(message).payload) == kept.payload_checksum


def test_the_verified_list_is_known_by_its_message_and_its_signer_from_then_on(
    database: Database, publisher: Simulator
):
    store, archive = SubscriptionStore(database), ListArchive(database)
    anchors = load_anchors(store.get("demo").trust.anchors)
    _, message = archive.message("demo")

    def take(wrapped: bytes) -> None:
        verified = verify_list(wrapped, subscription=store.get("demo"), anchors=anchors, last=None, now=NOW)
        store.record(verified, wrapped)

    take(message)
    (kept,) = archive.versions("demo")
    assert (kept.is_current, kept.signer) == (True, str(publisher.endorser.subject))
    # Who signed what was archived by the old schema is not kept: another form of it is one row more, and no third.
    with database.session() as session:
        session.execute(text("UPDATE archived_list SET signer_fingerprint = NULL"))
    for form in (b"X-Any: 1\n" + message, b"X-Any: 2\n" + message, message):
        take(form)
        assert [each.is_current for each in archive.versions("demo")] == [True, False]


@pytest.mark.threat("T29")
def test_the_floor_and_whose_list_it_is_are_kept(database: Database, publisher: Simulator):
    store = SubscriptionStore(database)
    anchors = load_anchors(store.get("demo").trust.anchors)
    last = store.last_trusted(ListIdentifier(publisher.identifier))
    with pytest.raises(OlderListError):
        verify_list(publisher.message(version="6"), subscription=store.get("demo"), anchors=anchors, last=last, now=NOW)
    store.remove("demo", now=NOW)
    mallory = Simulator.create(Authority.create("Other CA"))
    mallory.identifier, mallory.version = publisher.identifier, "8"
    subscription = mallory.subscription(mallory.authority.write_to(Path(anchors.path).parent / "other"), name="mallory")
    store.add(subscription)
    message = mallory.message()
    taken = verify_list(
        message, subscription=subscription, anchors=load_anchors(subscription.trust.anchors), last=last, now=NOW
    )
    with pytest.raises(ListIdentifierError):
        store.record(taken, message)


def test_what_no_subscription_vouched_for_before_is_not_refused_for_want_of_a_name(database: Database):
    floor = SubscriptionStore(database).last_trusted(ListIdentifier("gone-list"))
    assert floor is not None
    assert (floor.version, floor.created) == ("3", None)


def test_the_first_refresh_after_it_asks_for_the_whole_list(database: Database):
    source = SubscriptionStore(database).known()["demo"]
    assert (source.etag, source.last_modified) == (None, None)
    assert source.in_force is not None
