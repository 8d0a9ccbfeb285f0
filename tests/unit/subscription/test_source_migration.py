# SPDX-License-Identifier: Apache-2.0
"""A database from before there were sources of other kinds: what it follows are signed lists, and stay so."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from coppice.clock import FixedClock
from coppice.database import MIGRATIONS, Database
from coppice.errors import ListIdentifierError, OlderListError
from coppice.formats.cms import open_message
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ListIdentifier
from coppice.subscription.anchors import load_anchors
from coppice.subscription.archive import ListArchive
from coppice.subscription.model import SourceReference, TrustBasis
from coppice.subscription.rules import verify_list
from coppice.subscription.source.drivers import judging_shelf
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC).replace(microsecond=0)
STAMP = "%Y-%m-%d %H:%M:%S.000000"


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
    opened = open_message(message)
    at, expires = NOW.strftime(STAMP), publisher.expires.strftime(STAMP)
    subject = [list(pair) for pair in publisher.endorser.subject.attributes]
    issuer = [list(pair) for pair in publisher.endorser.issuer.attributes]
    verified = verify_list(
        message,
        subscription=publisher.subscription(tmp_path / "anchors"),
        anchors=load_anchors(tmp_path / "anchors"),
        last=None,
        now=NOW,
    )
    rows: list[tuple[str, dict[str, object]]] = [
        (
            "subscription",
            {
                "name": "demo", "uri": publisher.uri, "list_identifier": publisher.identifier,
                "anchors": str(tmp_path / "anchors"), "revocation": "require", "namespaces": "automatic",
                "profile": "strict", "trust_on_first_use": False, "allow_sha1": False, "allow_host_certificate": False,
                "selection": json.dumps({"images": []}), "added_at": at, "etag": '"7"',
            },
        ),
        (
            "subscription_endorser",
            {
                "subscription": "demo", "subject": json.dumps(subject), "issuer": json.dumps(issuer),
                "first_use": False, "added_at": at,
            },
        ),
        (
            "archived_list",
            {
                "number": 1, "subscription": "demo", "list_identifier": publisher.identifier, "version": "7",
                "created": publisher.created.strftime(STAMP), "expires": expires,
                "payload_sha512": Checksum.of(opened.payload).hexdigest,
                "message_sha512": Checksum.of(message).hexdigest, "signer": str(verified.signer),
                "signer_issuer": str(verified.signer_issuer),
                "signer_fingerprint": verified.signer_fingerprint.hexdigest if verified.signer_fingerprint else None,
                "verified_at": at, "message": message,
            },
        ),
        (
            "current_list",
            {
                "subscription": "demo", "archived": 1, "images": 1, "anchors_state": verified.anchors_state,
                "warnings": "[]", "told": "[]",
            },
        ),
        (
            "trusted_version",
            {
                "list_identifier": publisher.identifier, "version": "7",
                "payload_sha512": Checksum.of(opened.payload).hexdigest, "endorsers": json.dumps([[subject, issuer]]),
                "seen_at": at, "is_open": False,
            },
        ),
    ]  # fmt: skip
    engine = create_engine(f"sqlite:///{tmp_path / 'c.db'}")
    scripts = ScriptDirectory(str(MIGRATIONS))
    with engine.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"fn": lambda revision, _context: scripts._upgrade_revs("0003", revision)}
        )
        with Operations.context(context):
            context.run_migrations()
        for table, values in rows:
            names = ", ".join(values)
            places = ", ".join(f":{name}" for name in values)
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)  # noqa: S608 - names of above
    engine.dispose()
    database = Database(f"sqlite:///{tmp_path / 'c.db'}")
    yield database
    database.close()


def test_what_was_followed_is_a_signed_list_still(database: Database):
    demo = SubscriptionStore(database).get("demo")
    assert demo.source == SourceReference(driver="hepix", options={})
    known = SubscriptionStore(database).known()["demo"]
    assert known.in_force is not None
    assert (known.in_force.basis, known.etag) == (TrustBasis.X509, '"7"')
    (kept,) = ListArchive(database).versions("demo")
    assert (kept.basis, kept.is_current) == (TrustBasis.X509, True)


def test_its_list_is_recalled_and_a_newer_one_taken(database: Database, publisher: Simulator, tmp_path: Path):
    store = SubscriptionStore(database)
    shelf = judging_shelf(FixedClock(NOW))
    assert store.recall("demo", shelf, NOW + timedelta(days=1)).trusted_by.basis is TrustBasis.X509
    publisher.version = "8"
    anchors = load_anchors(tmp_path / "anchors")
    last = store.last_trusted(ListIdentifier(publisher.identifier))
    newer = verify_list(publisher.message(), subscription=store.get("demo"), anchors=anchors, last=last, now=NOW)
    store.record(newer, publisher.message())
    assert [each.version for each in ListArchive(database).versions("demo")] == ["8", "7"]
    with pytest.raises(OlderListError):
        verify_list(publisher.message(version="6"), subscription=store.get("demo"), anchors=anchors, last=last, now=NOW)


@pytest.mark.threat("T41")
def test_who_vouched_before_still_counts(database: Database, publisher: Simulator, tmp_path: Path):
    store = SubscriptionStore(database)
    store.remove("demo", now=NOW)
    stranger = publisher.authority.issue("Mallory")
    forged = replace_endorser(publisher, stranger)
    subscription = forged.subscription(tmp_path / "anchors")
    store.add(replace(subscription, list_identifier=None))
    forged.version = "9"
    verified = verify_list(
        forged.message(), subscription=subscription, anchors=load_anchors(tmp_path / "anchors"), last=None, now=NOW
    )
    with pytest.raises(ListIdentifierError):
        store.record(verified, forged.message())


def replace_endorser(publisher: Simulator, endorser: object) -> Simulator:
    return replace(publisher, endorser=endorser)  # type: ignore[arg-type]
