# SPDX-License-Identifier: Apache-2.0
"""Refresh against servers on loopback: conditions, many at a time, failures side by side, an interrupted run."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.clock import FixedClock
from coppice.database import Database
from coppice.errors import DatabaseError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.http import Client
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription import rules
from coppice.subscription.archive import ListArchive
from coppice.subscription.model import WarningKind
from coppice.subscription.overview import FreshnessState, overview
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.server import conditional, in_turn, serve, stall, status
from coppice.testing.simulator import Simulator
from coppice.workflows.refresh import refresh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.testing.server import LoopbackServer
    from coppice.workflows.refresh import ListOutcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
DAY = timedelta(days=1)
SETTINGS = """
state_directory = "{path}/state"

[transfer]
allow_private_addresses = true
attempts = 1
read_timeout_seconds = {silence}

[subscriptions]
parallel = 4
"""


class Site:
    """A site that follows lists of a loopback server."""

    def __init__(self, path: Path, server: LoopbackServer, *, silence: float = 5) -> None:
        self.path, self.server = path, server
        file = path / "coppice.toml"
        file.write_text(SETTINGS.format(path=path, silence=silence))
        self.settings = load_settings(config=file, environ={}, options={}, system_file=file)
        self.clock = FixedClock(datetime.now(UTC).replace(microsecond=0))
        self.database = Database(self.settings.database_url)
        self.store = SubscriptionStore(self.database)
        self.authority = Authority.create("Example CA")
        self.anchors = self.authority.write_to(path / "anchors")

    def follow(self, name: str) -> Simulator:
        publisher = Simulator.create(self.authority, uri=self.server.url(f"/{name}"))
        publisher.add_image()
        self.store.add(replace(publisher.subscription(self.anchors, name=name), list_identifier=None))
        return publisher

    def publish(self, name: str, publisher: Simulator, message: bytes | None = None, etag: str | None = None) -> None:
        data = publisher.message() if message is None else message
        self.server.set(f"/{name}", conditional(data, etag=etag or f'"{publisher.version}"'))

    def refresh(self, **options: Any) -> dict[str, ListOutcome]:
        report = refresh(
            options.pop("subscriptions", None) or self.store.all(),
            store=self.store,
            client=Client(self.settings.transfer),
            clock=self.clock,
            settings=self.settings,
            monitor=SILENT,
            **options,
        )
        return {each.subscription.name: each for each in report.outcomes}

    def conditions(self, name: str) -> list[str | None]:
        return [each.headers.get("If-None-Match") for each in self.server.requests if each.path == f"/{name}"]

    def told(self, kind: EventKind) -> list[Any]:
        return [each.facts for each in Journal(self.database).events() if each.kind is kind]


@pytest.fixture
def site(tmp_path: Path, loopback_server: LoopbackServer) -> Iterator[Site]:
    site = Site(tmp_path, loopback_server)
    yield site
    site.database.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the lengths of all messages that were opened."""
    lengths: list[int] = []
    real = rules.open_message

    def counted(message: bytes, **options: Any) -> Any:
        lengths.append(len(message))
        return real(message, **options)

    monkeypatch.setattr(rules, "open_message", counted)
    return lengths


def test_a_list_that_did_not_change_is_asked_for_with_a_condition_and_not_read(site: Site, read: list[int]):
    publisher = site.follow("a")
    site.publish("a", publisher)
    first = site.refresh(with_contents=False)["a"]
    assert (first.fresh, first.unchanged, first.verified) == (True, False, None)
    assert first.subscription.list_identifier == publisher.identifier
    assert len(read) == 1
    site.clock.advance(DAY)
    again = site.refresh(with_contents=False)["a"]
    assert (again.fresh, again.unchanged, again.error) == (True, True, None)
    assert again.in_force is not None
    assert again.in_force.version == "1"
    assert len(read) == 1
    assert site.conditions("a") == [None, '"1"']
    (standing,) = overview(site.database, site.clock.now())
    assert (standing.state, standing.checked_at) == (FreshnessState.UNCHANGED, site.clock.now())
    # Who needs what the list says gets it verified anew.
    assert site.refresh()["a"].verified is not None
    assert len(read) == 2
    assert site.refresh(with_contents=False, force=True)["a"].unchanged is False
    assert site.conditions("a") == [None, '"1"', '"1"', None]


@pytest.mark.threat("T34")
def test_an_unchanged_list_expires_by_this_machines_clock(site: Site):
    publisher = site.follow("a")
    site.publish("a", publisher)
    site.refresh()
    site.clock.advance(22 * DAY)
    kinds = {each.kind for each in site.refresh(with_contents=False)["a"].warnings}
    assert kinds == {WarningKind.LIST_STALE, WarningKind.LIST_EXPIRING}
    site.clock.advance(7 * DAY)
    for with_contents in (False, True):
        outcome = site.refresh(with_contents=with_contents)["a"]
        assert outcome.error is not None
        assert outcome.error.code == "list-expired"
        assert (outcome.fresh, outcome.verified) == (False, None)
    assert [facts["what"] for facts in site.told(EventKind.LIST_EXPIRING)] == ["list-stale", "list-expiring"]
    assert len(site.told(EventKind.LIST_EXPIRED)) == 1


@pytest.mark.threat("T19")
def test_an_unchanged_list_whose_signer_was_revoked_since_is_distrusted(site: Site):
    publisher = site.follow("a")
    site.publish("a", publisher)
    site.refresh()
    site.authority.revoke(publisher.endorser.certificate)
    site.authority.write_to(site.anchors)
    outcome = site.refresh()["a"]
    assert outcome.error is not None
    assert (outcome.error.code, outcome.distrusted, outcome.verified) == ("signer-revoked", True, None)


@pytest.mark.threat("T19")
def test_a_refresh_that_reads_no_list_judges_anew_when_the_revocation_lists_have_changed(site: Site, monkeypatch):
    publisher = site.follow("a")
    site.publish("a", publisher)
    site.refresh(with_contents=False)
    judged: list[bytes] = []
    judge = rules.open_message
    monkeypatch.setattr(rules, "open_message", lambda message, **how: judged.append(message) or judge(message, **how))
    assert site.refresh(with_contents=False)["a"].unchanged
    assert judged == []
    site.authority.write_to(site.anchors)
    assert site.refresh(with_contents=False)["a"].unchanged
    assert len(judged) == 1
    assert site.refresh(with_contents=False)["a"].unchanged
    assert len(judged) == 1
    site.authority.revoke(publisher.endorser.certificate)
    site.authority.write_to(site.anchors)
    for _ in range(2):
        outcome = site.refresh(with_contents=False)["a"]
        assert outcome.error is not None
        assert (outcome.error.code, outcome.fresh) == ("signer-revoked", False)
    (site.anchors / "ca.pem").unlink()
    assert site.refresh(with_contents=False)["a"].error.code == "trust-anchor"  # type: ignore[union-attr]


def imitate(site: Site, publisher: Simulator, *, version: str = "99") -> Simulator:
    """Follow the same list as ``b``, by the anchors of an authority that has the same name and another key."""
    false = Authority.create("Example CA")
    double = Simulator.create(false, endorser=false.issue("Jane Doe"), uri=site.server.url("/b"))
    double.identifier, double.version = publisher.identifier, version
    double.add_image(title="false")
    anchors = false.write_to(site.path / "false")
    site.store.add(replace(double.subscription(anchors, name="b"), list_identifier=None))
    return double


@pytest.mark.threat("T17")
@pytest.mark.parametrize("together", [False, True])
def test_an_authority_that_only_another_subscription_trusts_does_not_sign_a_followed_list(site: Site, together: bool):
    publisher = site.follow("a")
    publisher.version = "5"
    site.publish("a", publisher)
    if not together:
        site.refresh()
    double = imitate(site, publisher)
    site.publish("b", double)
    if together:
        # Whose list comes first is whose list it is.
        late = serve(double.message())
        site.server.set("/b", lambda talk: (talk.pause(1), late(talk)))
        first = site.refresh()
        assert (first["a"].fresh, first["b"].fresh) == (True, False)
        site.publish("b", double)
    outcome = site.refresh()["b"]
    assert outcome.error is not None
    assert (outcome.error.code, outcome.verified) == ("list-identifier-mismatch", None)
    publisher.version = "6"
    site.publish("a", publisher)
    fresh = site.refresh()["a"]
    assert fresh.verified is not None
    assert fresh.verified.content.version == "6"


def test_two_subscriptions_to_one_list_by_two_copies_of_the_trust_anchors_both_go_on(site: Site):
    publisher = site.follow("a")
    site.publish("a", publisher)
    site.refresh()
    copies = site.authority.write_to(site.path / "copies")
    second = replace(publisher.subscription(copies, name="c"), list_identifier=None)
    site.store.add(replace(second, uri=site.server.url("/c")))
    site.publish("c", publisher)
    assert site.refresh()["c"].fresh
    publisher.version = "2"
    for name in ("a", "c"):
        site.publish(name, publisher)
    assert all(outcome.fresh for outcome in site.refresh().values())
    # The other's own trouble stops nobody.
    (site.anchors / "ca.crl.pem").unlink()
    publisher.version = "3"
    for name in ("a", "c"):
        site.publish(name, publisher)
    outcomes = site.refresh()
    assert outcomes["a"].error is not None
    assert outcomes["a"].error.code == "revocation-unknown"
    assert outcomes["c"].fresh


@pytest.mark.threat("T5")
@pytest.mark.threat("T29")
def test_a_refused_body_keeps_no_validators_and_changes_nothing(site: Site):
    publisher = site.follow("a")
    publisher.version = "2"
    site.publish("a", publisher)
    site.refresh()
    before = ListArchive(site.database).message("a")
    for number, bad in enumerate((publisher.tampered(), publisher.message(version="1"), b"{}")):
        site.publish("a", publisher, bad, etag=f'"bad-{number}"')
        outcome = site.refresh()["a"]
        assert outcome.error is not None
        assert outcome.error.exit_code == 5
        assert outcome.verified is not None
        assert outcome.verified.content.version == "2"
        assert ListArchive(site.database).message("a") == before
    # Never asked "is it still the bad one?", which would let a refused list pass for a confirmed one.
    assert not any(asked and asked.startswith('"bad') for asked in site.conditions("a"))
    codes = [facts["error"]["code"] for facts in site.told(EventKind.LIST_REFUSED)]
    assert codes == ["list-tampered", "list-older", "list-unsigned"]
    site.publish("a", publisher)
    assert site.refresh()["a"].fresh


@pytest.mark.threat("T29")
def test_a_server_that_says_not_modified_to_an_unconditional_request_gives_no_list(site: Site):
    site.follow("a")
    site.server.set("/a", status(304))
    outcome = site.refresh()["a"]
    assert outcome.error is not None
    assert (outcome.error.code, outcome.fresh) == ("source-status", False)


def test_after_the_list_in_force_was_lost_the_whole_list_is_fetched(site: Site):
    from sqlalchemy import text

    site.publish("a", site.follow("a"))
    site.refresh()
    with site.database.session() as session:
        session.execute(text("DELETE FROM current_list"))
    outcome = site.refresh(with_contents=False)["a"]
    assert (outcome.fresh, outcome.unchanged) == (True, False)
    assert site.conditions("a") == [None, None]


@pytest.mark.threat("T39")
@pytest.mark.threat("T40")
def test_another_vos_list_at_a_subscriptions_address_is_refused(site: Site):
    ours, theirs = site.follow("a"), site.follow("b")
    theirs.endorser, theirs.extra = ours.endorser, {"ad:vo": "other.example.org"}
    site.publish("a", ours)
    site.publish("b", theirs)
    assert site.refresh(subscriptions=[site.store.get("a")])["a"].fresh
    site.publish("a", theirs, etag='"theirs"')
    outcome = site.refresh(subscriptions=[site.store.get("a")])["a"]
    assert outcome.error is not None
    assert outcome.error.code == "list-identifier-mismatch"
    assert outcome.verified is not None
    assert outcome.verified.content.identifier == ours.identifier


@pytest.mark.threat("T43")
def test_a_list_that_says_that_it_lives_elsewhere_is_told_and_not_followed(site: Site):
    publisher = site.follow("a")
    publisher.uri = "https://elsewhere.example.org/list"
    site.publish("a", publisher)
    outcome = site.refresh()["a"]
    assert WarningKind.URI_DIFFERS in {each.kind for each in outcome.warnings}
    assert site.store.get("a").uri == site.server.url("/a")
    assert [each.path for each in site.server.requests] == ["/a"]


def test_one_that_fails_stops_no_other_and_the_order_of_the_report_is_that_of_the_question(site: Site):
    names = [f"n{number:02}" for number in range(20)]
    for number, name in enumerate(names):
        publisher = site.follow(name)
        data = publisher.message()
        slow = in_turn(lambda talk, data=data: (talk.pause(0.05), talk.whole(200, {}, data)))
        bad = (status(500), serve(publisher.tampered()), stall(data, 10), serve(b""))
        site.server.set(f"/{name}", bad[number // 4 % 4] if number % 4 == 0 else slow)
    found = site.refresh(subscriptions=list(reversed(site.store.all())), with_contents=False)
    assert list(found) == list(reversed(names))
    failed = {name: each.error.code for name, each in found.items() if each.error is not None}
    assert failed == {
        "n00": "source-status",
        "n04": "list-tampered",
        "n08": "transfer-stalled",
        "n12": "list-unsigned",
        "n16": "source-status",
    }
    assert all(each.fresh for name, each in found.items() if name not in failed)


def test_several_sources_are_asked_at_the_same_time(site: Site):
    at_once, most, lock = 0, 0, threading.Lock()

    for number in range(8):
        publisher = site.follow(f"n{number}")

        def behave(talk: Any, data: bytes = publisher.message()) -> None:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            talk.pause(0.2)
            with lock:
                at_once -= 1
            talk.whole(200, {"Content-Length": str(len(data))}, data)

        site.server.set(f"/n{number}", behave)
    assert all(each.fresh for each in site.refresh().values())
    assert 1 < most <= 4


def test_a_paused_subscription_is_not_asked_and_what_was_verified_stays_in_force(site: Site):
    publisher = site.follow("a")
    site.publish("a", publisher)
    site.refresh()
    site.store.edit("a", lambda each: replace(each, paused_at=site.clock.now()), now=site.clock.now())
    outcome = site.refresh()["a"]
    assert len(site.server.requests) == 1
    assert (outcome.fresh, outcome.error) == (False, None)
    assert outcome.verified is not None
    site.clock.advance(29 * DAY)
    outcome = site.refresh()["a"]
    assert (outcome.verified, outcome.error) == (None, None)
    assert len(site.told(EventKind.LIST_EXPIRED)) == 1
    assert overview(site.database, site.clock.now())[0].state is FreshnessState.EXPIRED
    # A revocation is told even so.
    site.clock.advance(-28 * DAY)
    site.authority.revoke(publisher.endorser.certificate)
    site.authority.write_to(site.anchors)
    outcome = site.refresh()["a"]
    assert outcome.distrusted
    assert outcome.error is not None


def test_a_subscription_that_is_removed_meanwhile_is_not_found_and_stops_nobody(site: Site):
    site.publish("a", site.follow("a"))
    publisher = site.follow("b")
    data = publisher.message()

    def behave(talk: Any) -> None:
        site.store.remove("b", now=site.clock.now())
        talk.whole(200, {"Content-Length": str(len(data))}, data)

    site.server.set("/b", behave)
    found = site.refresh()
    assert found["a"].fresh
    assert found["b"].error is not None
    assert found["b"].error.code == "not-found"


@pytest.mark.threat("T82")
def test_a_run_that_is_interrupted_leaves_at_once_and_records_nothing_afterwards(
    site: Site, monkeypatch: pytest.MonkeyPatch
):
    slow, quick = site.follow("slow"), site.follow("quick")
    held = threading.Event()
    data = slow.message()

    def behave(talk: Any) -> None:
        held.wait(20)
        talk.whole(200, {"Content-Length": str(len(data))}, data)

    site.server.set("/slow", behave)
    site.publish("quick", quick)

    class Interrupting:
        def advance(self, amount: int) -> None:
            raise KeyboardInterrupt

        def reach(self, amount: int, total: int | None = None) -> None: ...

        def note(self, text: str) -> None: ...

    monkeypatch.setattr("coppice.monitor._SilentTask", Interrupting)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        site.refresh()
    assert time.monotonic() - before < 5
    held.set()
    time.sleep(0.5)
    assert site.store.last_message("quick") is not None
    assert site.store.last_message("slow") is None
    assert site.told(EventKind.LIST_REFUSED) == []


@pytest.mark.threat("T29")
def test_two_refreshes_at_once_leave_the_higher_version(site: Site, tmp_path: Path, loopback_server: LoopbackServer):
    publisher = site.follow("a")
    publisher.version = "1"
    site.publish("a", publisher)
    site.refresh()
    older, newer = publisher.message(version="2"), publisher.message(version="3")
    arrived = threading.Barrier(2, timeout=20)

    def answer(talk: Any) -> None:
        # Both have asked before either is answered: each was told of the same floor.
        mine = older if arrived.wait() == 0 else newer
        talk.whole(200, {"Content-Length": str(len(mine))}, mine)

    site.server.set("/a", answer)
    other = Site.__new__(Site)
    other.__dict__.update(site.__dict__)
    other.database = Database(site.settings.database_url)
    other.store = SubscriptionStore(other.database)
    found: list[ListOutcome] = []
    thread = threading.Thread(target=lambda: found.append(other.refresh()["a"]))
    thread.start()
    found.append(site.refresh()["a"])
    thread.join(30)
    other.database.close()
    assert any(each.fresh for each in found)
    assert all(each.error is None or each.error.code == "list-older" for each in found)
    message = ListArchive(site.database).message("a")[0]
    assert message.version == "3"
    floor = site.store.last_trusted(site.store.get("a").list_identifier or publisher.identifier)  # type: ignore[arg-type]
    assert floor is not None
    assert floor.version == "3"


def test_a_database_that_fails_ends_the_run(site: Site, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b"):
        site.publish(name, site.follow(name))

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise DatabaseError("the disk is gone")

    monkeypatch.setattr(site.store, "record", fail)
    with pytest.raises(DatabaseError):
        site.refresh()
