# SPDX-License-Identifier: Apache-2.0
"""Verified lists in the database: the archive, the one in force, whose list it is, and what is told of it."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from coppice.database import Database
from coppice.errors import (
    ExpiredListError,
    InputError,
    ListIdentifierError,
    MalformedListError,
    NotFoundError,
    OlderListError,
    StateError,
    UnreachableError,
    WrongSignerError,
)
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.http import Validators
from coppice.imagelist.model import Profile
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ListIdentifier
from coppice.subscription.anchors import load_anchors
from coppice.subscription.archive import ListArchive
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import ImageSelection, PinnedEndorser, TrustPolicy, WarningKind
from coppice.subscription.overview import FreshnessState, overview
from coppice.subscription.rules import verify_list
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.forgery import craft
from coppice.testing.simulator import Simulator
from coppice.testing.sources import sources_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.subscription.model import ListWarning, VerifiedImageList
    from coppice.testing.authority import Identity

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


class Place:
    """A site's store, and publishers whose lists it takes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(f"sqlite:///{path / 'c.db'}")
        self.store = SubscriptionStore(self.database)
        self.archive = ListArchive(self.database)

    def anchors(self, publisher: Simulator) -> Path:
        directory = self.path / str(publisher.authority.identity.certificate.serial_number)
        return publisher.authority.write_to(directory)

    def verify(self, publisher: Simulator, message: bytes, name: str, now: datetime) -> VerifiedImageList:
        subscription = self.store.get(name)
        identifier = subscription.list_identifier
        return verify_list(
            message,
            subscription=subscription,
            anchors=load_anchors(subscription.trust.anchors),
            last=self.store.last_trusted(identifier) if identifier else None,
            now=now,
        )

    def take(
        self, publisher: Simulator, name: str = "demo", *, now: datetime = NOW, **options: Any
    ) -> tuple[ListWarning, ...]:
        message = options.pop("message", None) or publisher.message()
        return self.store.record(self.verify(publisher, message, name, now), message, **options)

    def told(self, *kinds: EventKind) -> list[tuple[str, Any]]:
        return [(each.subject, each.facts) for each in Journal(self.database).events() if each.kind in kinds]

    def state(self, name: str = "demo", now: datetime = NOW) -> FreshnessState:
        return next(each.state for each in overview(self.database, now) if each.name == name)


@pytest.fixture
def place(database_file: Path) -> Iterator[Place]:
    place = Place(database_file.parent)
    yield place
    place.database.close()


@pytest.fixture
def followed(place: Place, publisher: Simulator, authority: Authority) -> Place:
    place.store.add(publisher.subscription(authority.write_to(place.path / "anchors")))
    return place


def test_what_was_known_before_is_told_one_by_one_but_for_what_was_taken_back(followed: Place, publisher: Simulator):
    def take(version: str) -> bytes:
        publisher.version = version
        message = publisher.message()
        followed.take(publisher, message=message)
        return message

    assert list(followed.store.earlier_messages("demo")) == []
    first, second = take("1"), take("2")
    assert list(followed.store.earlier_messages("demo")) == [first, second]
    followed.store.reset_version("demo", reason="r", now=NOW)
    assert list(followed.store.earlier_messages("demo")) == []
    third = take("3")
    assert list(followed.store.earlier_messages("demo")) == [third]


def test_every_verified_list_is_archived_once_as_it_was_signed(followed: Place, publisher: Simulator):
    first = publisher.message()
    followed.take(publisher, message=first)
    followed.take(publisher, message=first, now=NOW + DAY)
    publisher.version = "2"
    second = publisher.message()
    followed.take(publisher, message=second, now=NOW + DAY)
    kept = followed.archive.versions("demo")
    assert [(each.version, each.is_current, each.verified_at) for each in kept] == [
        ("2", True, NOW + DAY),
        ("1", False, NOW),
    ]
    assert kept[0].signer == str(publisher.endorser.subject)
    assert followed.archive.message("demo", "1")[1] == first
    assert followed.archive.message("demo")[1] == second
    with pytest.raises(NotFoundError, match="'3'"):
        followed.archive.message("demo", "3")
    assert len(followed.told(EventKind.LIST_VERIFIED)) == 2


def rewrapped(message: bytes) -> list[bytes]:
    """Return the same signed list as somebody on the path could wrap it: none of it needs a key."""
    head, _, signature = message.rpartition(b"base64\r\n")
    return [
        b"Received: by nobody\n" + message,
        b"X-Any: 1\nX-Other: 2\n" + message,
        message.replace(b"\r\n", b"\n"),
        head + b"base64\r\nX-Between: 1\r\n" + signature,
        re.sub(rb"(?<=\r\n)([A-Za-z0-9+/]{32})([A-Za-z0-9+/]{32})(?=\r\n)", rb"\1\r\n\2", message),
    ]


def test_a_list_that_is_wrapped_anew_is_the_same_and_pushes_no_other_out_of_the_archive(
    followed: Place, publisher: Simulator
):
    terms = replace(DEFAULT_TERMS, archive_keep=3)
    messages = {}
    for version in "123":
        publisher.version = version
        messages[version] = publisher.message()
        followed.take(publisher, message=messages[version], terms=terms)
    before = followed.archive.versions("demo")
    forms = rewrapped(messages["3"])
    assert len({*forms, messages["3"]}) == 6
    for number, form in enumerate(forms):
        followed.take(publisher, message=form, now=NOW + DAY, terms=terms, etag=f'"{number}"')
        assert followed.store.known()["demo"].etag == f'"{number}"'
    assert followed.archive.versions("demo") == before
    assert [(each.version, each.is_current) for each in before] == [("3", True), ("2", False), ("1", False)]
    assert {each: followed.archive.message("demo", each)[1] for each in messages} == messages
    assert len(followed.told(EventKind.LIST_VERIFIED)) == 3
    # Nor does it bring a list that was put aside back as another one.
    anchors = load_anchors(followed.path / "anchors")
    with followed.database.session() as session:
        session.execute(text("DELETE FROM current_list"))
    followed.take(publisher, message=forms[0])
    assert followed.store.roll_forward("demo", sources_of(anchors), NOW + DAY).content.version == "3"
    assert followed.archive.versions("demo") == before


def test_the_same_list_signed_with_another_certificate_is_archived_beside(
    followed: Place, publisher: Simulator, authority: Authority
):
    first = publisher.message()
    followed.take(publisher, message=first)
    renewed = authority.issue("Jane Doe")
    second = publisher.message(signer=renewed)
    followed.take(publisher, message=second, now=NOW + DAY)
    kept = followed.archive.versions("demo")
    assert [(each.version, each.is_current) for each in kept] == [("1", True), ("1", False)]
    assert len({each.signer_fingerprint for each in kept}) == 2
    assert len({each.payload_checksum for each in kept}) == 1
    assert followed.archive.message("demo")[1] == second
    assert len(followed.told(EventKind.LIST_VERIFIED)) == 2
    # The first one again: it is in force again, and was known.
    followed.take(publisher, message=rewrapped(first)[0], now=NOW + DAY)
    assert followed.archive.message("demo")[1] == first
    assert len(followed.archive.versions("demo")) == 2
    assert len(followed.told(EventKind.LIST_VERIFIED)) == 2


def test_kept_bytes_that_would_be_refused_today_give_way_to_the_same_list_signed_better(
    followed: Place, publisher: Simulator, jane_with_rsa: Identity
):
    def edit(**policy: bool) -> None:
        followed.store.edit("demo", lambda each: replace(each, trust=replace(each.trust, **policy)), now=NOW)

    edit(allow_sha1=True)
    weak, strong = (craft(publisher.payload(), jane_with_rsa, digest=each) for each in ("sha1", "sha256"))
    followed.take(publisher, message=weak)
    followed.take(publisher, message=strong, now=NOW + DAY)
    assert followed.archive.message("demo")[1] == weak
    edit(allow_sha1=False)
    followed.take(publisher, message=strong, now=NOW + DAY)
    (kept,) = followed.archive.versions("demo")
    assert followed.archive.message("demo")[1] == strong
    assert kept.verified_at == NOW + DAY
    assert kept.message_checksum == Checksum.of(strong)
    assert followed.store.recall("demo", sources_of(load_anchors(followed.path / "anchors")), NOW + DAY)
    assert len(followed.told(EventKind.LIST_VERIFIED)) == 1


def test_the_archive_is_pruned_and_never_loses_the_list_in_force(followed: Place, publisher: Simulator):
    terms = replace(DEFAULT_TERMS, archive_keep=3)
    for version in "12345":
        publisher.version = version
        followed.take(publisher, terms=terms)
    assert [each.version for each in followed.archive.versions("demo")] == ["5", "4", "3"]
    followed.take(publisher, terms=replace(terms, archive_keep=1))
    assert [each.version for each in followed.archive.versions("demo")] == ["5"]
    assert followed.store.last_message("demo") is not None


def test_kept_bytes_that_changed_are_not_used(followed: Place, publisher: Simulator):
    followed.take(publisher)
    with followed.database.session() as session:
        session.execute(text("UPDATE archived_list SET message = X'00'"))
    with pytest.raises(StateError, match="not those that were verified"):
        followed.store.recall("demo", sources_of(load_anchors(followed.path / "anchors")), NOW)
    with pytest.raises(StateError):
        followed.archive.message("demo")


def test_kept_bytes_that_changed_are_replaced_when_the_list_is_verified_anew(followed: Place, publisher: Simulator):
    message = publisher.message()
    followed.take(publisher, message=message)
    for again, verified_at in ((message, NOW), (rewrapped(message)[0], NOW + DAY)):
        with followed.database.session() as session:
            session.execute(text("UPDATE archived_list SET message = X'00'"))
        followed.take(publisher, message=again, now=NOW + DAY)
        (kept,) = followed.archive.versions("demo")
        assert followed.archive.message("demo") == (kept, again)
        assert kept.verified_at == verified_at
    assert len(followed.told(EventKind.LIST_VERIFIED)) == 1


def test_validators_stay_with_the_list_that_they_belong_to(followed: Place, publisher: Simulator):
    followed.take(publisher, etag='"a"', last_modified="Mon, 01 Jan 2026 00:00:00 GMT")
    source = followed.store.known()["demo"]
    assert (source.etag, source.last_modified) == ('"a"', "Mon, 01 Jan 2026 00:00:00 GMT")
    # A server that is out of reach says nothing about the list; a list that is refused does.
    followed.store.record_failure("demo", UnreachableError("no route"), NOW)
    assert followed.store.known()["demo"].etag == '"a"'
    followed.store.record_failure("demo", MalformedListError("odd"), NOW)
    assert followed.store.known()["demo"].etag is None


@pytest.mark.parametrize(
    "change",
    [
        lambda each: replace(each, trust=replace(each.trust, allow_sha1=True)),
        lambda each: replace(each, trust=replace(each.trust, profile=Profile.LENIENT)),
        lambda each: replace(each, trust=replace(each.trust, anchors=Path("/other"))),
        lambda each: replace(each, trust=replace(each.trust, endorsers=(*each.trust.endorsers, stranger()))),
        lambda each: replace(each, selection=ImageSelection(architectures=("x86_64",))),
        lambda each: replace(each, uri="https://elsewhere.example.org/list"),
    ],
)
def test_a_changed_subscription_asks_for_the_whole_list_again(followed: Place, publisher: Simulator, change):
    followed.take(publisher, etag='"a"')
    after, changes = followed.store.edit("demo", change, now=NOW)
    assert followed.store.get("demo") == after
    assert changes
    assert followed.store.known()["demo"].etag is None
    assert followed.told(EventKind.SUBSCRIPTION_CHANGED)[-1][1]["change"] == "edited"


def stranger() -> PinnedEndorser:
    subject = Authority.create("Other CA").identity.subject
    return PinnedEndorser(subject=subject, issuer=subject)


def test_a_change_says_whether_it_asks_for_less(followed: Place):
    def weaker(each):
        return replace(each, trust=replace(each.trust, allow_sha1=True, endorsers=(*each.trust.endorsers, stranger())))

    _, changes = followed.store.edit("demo", weaker, now=NOW)
    assert [(each.field, each.weakens) for each in changes] == [("allow_sha1", True), ("endorser", True)]
    _, changes = followed.store.edit(
        "demo", lambda each: replace(each, trust=replace(each.trust, allow_sha1=False)), now=NOW
    )
    assert [(each.field, each.weakens) for each in changes] == [("allow_sha1", False)]
    assert followed.store.edit("demo", lambda each: each, now=NOW)[1] == ()
    with pytest.raises(StateError, match="stays so"):
        followed.store.edit(
            "demo", lambda each: replace(each, list_identifier=ListIdentifier(str(uuid.uuid4()))), now=NOW
        )


def test_a_list_that_was_verified_for_what_the_subscription_was_is_not_recorded(followed: Place, publisher: Simulator):
    before = followed.store.get("demo")
    message = publisher.message()
    verified = followed.verify(publisher, message, "demo", NOW)
    followed.store.edit("demo", lambda each: replace(each, trust=replace(each.trust, allow_sha1=True)), now=NOW)
    with pytest.raises(StateError, match="changed while"):
        followed.store.record(verified, message, as_of=before)
    followed.store.edit("demo", lambda each: replace(each, trust=replace(each.trust, endorsers=(stranger(),))), now=NOW)
    with pytest.raises(WrongSignerError):
        followed.store.record(verified, message)
    assert followed.archive.versions("demo") == ()


def test_a_list_signed_by_any_of_several_endorsers_is_taken(followed: Place, publisher: Simulator, jane: Identity):
    john = publisher.authority.issue("John Doe")
    followed.take(publisher)
    publisher.endorser, publisher.version = john, "2"
    with pytest.raises(WrongSignerError):
        followed.take(publisher)
    both = (
        PinnedEndorser(subject=jane.subject, issuer=jane.issuer),
        PinnedEndorser(subject=john.subject, issuer=john.issuer),
    )
    followed.store.edit("demo", lambda each: replace(each, trust=replace(each.trust, endorsers=both)), now=NOW)
    followed.take(publisher)
    publisher.endorser, publisher.version = jane, "3"
    followed.take(publisher)
    assert followed.store.get("demo").trust.endorsers == both


def test_the_endorser_of_the_first_list_is_pinned_only_when_told_so_and_recorded(
    place: Place, publisher: Simulator, authority: Authority
):
    anchors = authority.write_to(place.path / "anchors")
    nobody = replace(publisher.subscription(anchors), trust=TrustPolicy(endorsers=(), anchors=anchors))
    with pytest.raises(InputError, match="trust nobody"):
        place.store.add(nobody)
    place.store.add(replace(nobody, trust=replace(nobody.trust, trust_on_first_use=True)))
    message = publisher.message()
    verified = place.verify(publisher, message, "demo", NOW)
    place.store.record(verified, message)
    trust = place.store.get("demo").trust
    assert [(each.subject, each.first_use) for each in trust.endorsers] == [(publisher.endorser.subject, True)]
    assert not trust.trust_on_first_use
    ((_, facts),) = place.told(EventKind.ENDORSER_PINNED)
    assert facts["subject"] == str(publisher.endorser.subject)
    publisher.version, publisher.endorser = "2", authority.issue("Mallory")
    with pytest.raises(WrongSignerError):
        place.take(publisher)
    # Two runs met the first list at once: the second one finds whom the first one pinned.
    mallory = replace(verified, signer=publisher.endorser.subject)
    with pytest.raises(WrongSignerError):
        place.store.record(mallory, message)


@pytest.mark.threat("T41")
def test_the_same_image_in_two_lists_is_told_and_stays_two_images(
    place: Place, publisher: Simulator, authority: Authority
):
    other = Simulator.create(authority, endorser=authority.issue("John Doe"))
    other.add_image()
    other.images[0]["dc:identifier"] = publisher.images[0]["dc:identifier"]
    anchors = authority.write_to(place.path / "anchors")
    place.store.add(publisher.subscription(anchors))
    place.store.add(other.subscription(anchors, name="other"))
    assert place.take(publisher) == ()
    (warning,) = place.take(other, "other")
    assert warning.kind is WarningKind.SHARED_IDENTIFIER
    assert publisher.identifier in warning.text
    assert other.identifier in warning.text
    assert "demo" in warning.text
    said = {each.name: [one.kind for one in each.warnings] for each in overview(place.database, NOW)}
    assert said == {"demo": [WarningKind.SHARED_IDENTIFIER], "other": [WarningKind.SHARED_IDENTIFIER]}
    # Both are in force; the one's removal ends the warning and leaves the other's image.
    place.store.remove("other", now=NOW)
    assert [each.warnings for each in overview(place.database, NOW)] == [()]
    assert place.take(publisher) == ()


@pytest.mark.threat("T41")
def test_two_subscriptions_to_one_list_must_both_trust_its_signer(
    place: Place, publisher: Simulator, authority: Authority, jane: Identity
):
    anchors = authority.write_to(place.path / "anchors")
    john = authority.issue("John Doe")
    place.store.add(publisher.subscription(anchors))
    place.take(publisher)
    both = replace(
        publisher.subscription(anchors, name="both"),
        trust=TrustPolicy(
            endorsers=(
                PinnedEndorser(subject=jane.subject, issuer=jane.issuer),
                PinnedEndorser(subject=john.subject, issuer=john.issuer),
            ),
            anchors=anchors,
        ),
    )
    place.store.add(both)
    place.take(publisher, "both")
    publisher.endorser, publisher.version = john, "2"
    with pytest.raises(ListIdentifierError, match="'demo'"):
        place.take(publisher, "both")


@pytest.mark.threat("T33")
def test_a_version_that_none_can_follow_is_taken_back_by_the_administrator(followed: Place, publisher: Simulator):
    followed.take(publisher)
    publisher.version = "1" + "0" * 18
    followed.take(publisher, etag='"high"')
    publisher.version = "2"
    with pytest.raises(OlderListError):
        followed.take(publisher)
    assert followed.store.reset_version("demo", reason="stolen key", now=NOW) == (publisher.identifier, "1" + "0" * 18)
    assert followed.store.last_trusted(ListIdentifier(publisher.identifier)) is None
    assert followed.store.last_message("demo") is None
    assert followed.store.known()["demo"].etag is None
    ((subject, facts),) = followed.told(EventKind.VERSION_FLOOR_RESET)
    assert (subject, facts["reason"], facts["version"]) == ("demo", "stolen key", "1" + "0" * 18)
    followed.take(publisher)
    assert followed.store.taken_back() == {publisher.identifier: "1" + "0" * 18}
    publisher.version = "1"
    with pytest.raises(OlderListError):
        followed.take(publisher)


def test_to_reset_needs_a_list_that_was_verified(followed: Place, publisher: Simulator):
    with pytest.raises(NotFoundError, match="no version"):
        followed.store.reset_version("demo", reason="r", now=NOW)
    followed.take(publisher)
    with pytest.raises(StateError, match="not to"):
        followed.store.reset_version("demo", reason="r", now=NOW, list_identifier=ListIdentifier("other"))


def test_the_newest_archived_list_is_put_in_force_again_by_todays_rules(followed: Place, publisher: Simulator):
    anchors = load_anchors(followed.path / "anchors")
    with pytest.raises(StateError, match="no version to go on"):
        followed.store.roll_forward("demo", sources_of(anchors), NOW)
    followed.take(publisher)
    publisher.version = "2"
    followed.take(publisher)
    with followed.database.session() as session:
        session.execute(text("DELETE FROM current_list"))
    assert followed.store.last_message("demo") is None
    followed.store.record_failure("demo", UnreachableError("no route"), NOW)
    assert followed.store.roll_forward("demo", sources_of(anchors), NOW + DAY).content.version == "2"
    # What became of the source is another matter.
    assert followed.state() is FreshnessState.FAILED
    assert followed.told(EventKind.SUBSCRIPTION_CHANGED)[-1][1]["change"] == "rolled forward"
    assert [(each.version, each.is_current) for each in followed.archive.versions("demo")] == [
        ("2", True),
        ("1", False),
    ]
    # Never behind the floor, and never what has expired.
    with pytest.raises(OlderListError):
        followed.store.roll_forward("demo", sources_of(anchors), NOW, version="1")
    with pytest.raises(ExpiredListError):
        followed.store.roll_forward("demo", sources_of(anchors), NOW + 40 * DAY)


def test_after_a_reset_the_version_that_was_taken_back_is_not_rolled_forward_to(followed: Place, publisher: Simulator):
    anchors = load_anchors(followed.path / "anchors")
    followed.take(publisher)
    publisher.version = "999"
    followed.take(publisher)
    followed.store.reset_version("demo", reason="r", now=NOW)
    assert followed.store.roll_forward("demo", sources_of(anchors), NOW).content.version == "1"


@pytest.mark.threat("T34")
def test_what_ends_soon_or_has_ended_is_told_once(followed: Place, publisher: Simulator):
    followed.take(publisher)
    kinds = (EventKind.LIST_EXPIRING, EventKind.LIST_EXPIRED)

    def look(now: datetime) -> list[str]:
        before = len(followed.told(*kinds))
        followed.store.record_unchanged(["demo"], now, warn_list_days=7)
        return [facts["what"] for _, facts in followed.told(*kinds)][before:]

    assert look(NOW) == []
    assert look(publisher.expires - 6.9 * DAY) == ["list-stale", "list-expiring"]
    assert look(publisher.expires - 5 * DAY) == []
    assert look(publisher.expires) == ["list-expired"]
    assert look(publisher.expires + DAY) == []
    publisher.version, publisher.expires = "2", publisher.expires + 28 * DAY
    followed.take(publisher, now=publisher.expires - 20 * DAY)
    assert look(publisher.expires - 2 * DAY) == ["list-stale", "list-expiring"]


def test_what_an_unchanged_list_is_called_is_kept_unless_another_was_taken_meanwhile(
    followed: Place, publisher: Simulator
):
    def said(asked_with: str | None, etag: str) -> str | None:
        validators = {"demo": (asked_with, Validators(etag=etag))}
        followed.store.record_unchanged(["demo"], NOW, warn_list_days=7, validators=validators)
        return followed.store.known()["demo"].etag

    followed.take(publisher)
    assert followed.store.known()["demo"].etag is None
    assert said(None, '"a"') == '"a"'
    assert said('"a"', '"b"') == '"b"'
    # Another run was told of another list since this one asked.
    assert said('"a"', '"c"') == '"b"'
    assert said(None, '"c"') == '"b"'


def test_an_image_that_expires_soon_is_told_once_over_renewals_of_its_list(followed: Place, publisher: Simulator):
    publisher.images[0]["dc:date:expires"] = (NOW + 3 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    for version in "123":
        publisher.version = version
        followed.take(publisher)
    assert [facts["what"] for _, facts in followed.told(EventKind.LIST_EXPIRING)] == ["image-expiring"]
    (standing,) = overview(followed.database, NOW)
    assert [each.kind for each in standing.warnings] == [WarningKind.IMAGE_EXPIRING]


@pytest.mark.threat("T34")
@pytest.mark.threat("T35")
def test_every_state_of_a_subscription_can_be_seen(followed: Place, publisher: Simulator):
    assert followed.state() is FreshnessState.NEW
    followed.store.record_failure("demo", UnreachableError("no route"), NOW)
    assert followed.state() is FreshnessState.FAILED
    followed.take(publisher)
    assert followed.state() is FreshnessState.FRESH
    followed.store.record_unchanged(["demo"], NOW + DAY, warn_list_days=7)
    assert followed.state() is FreshnessState.UNCHANGED
    assert followed.state(now=publisher.expires - DAY) is FreshnessState.STALE
    # By this machine's clock, though the source is dead.
    followed.store.record_failure("demo", UnreachableError("no route"), NOW)
    assert followed.state(now=publisher.expires) is FreshnessState.EXPIRED
    followed.store.record_failure("demo", OlderListError("old"), NOW)
    assert followed.state() is FreshnessState.REFUSED
    followed.store.edit("demo", lambda each: replace(each, paused_at=NOW), now=NOW)
    assert followed.state() is FreshnessState.PAUSED


def test_identifiers_that_are_no_uuids_pass_through_under_the_lenient_profile_only(
    place: Place, publisher: Simulator, authority: Authority
):
    anchors = authority.write_to(place.path / "anchors")
    publisher.identifier = "Lists of É " + "x" * 200
    subscription = replace(
        publisher.subscription(anchors), selection=ImageSelection(images=(ImageIdentifier("Image A"),))
    )
    with pytest.raises(InputError) as caught:
        place.store.add(subscription)
    assert "lenient" in str(caught.value.resolution)
    lenient = replace(subscription, trust=replace(subscription.trust, profile=Profile.LENIENT))
    place.store.add(lenient)
    assert place.store.get("demo") == lenient
    for wrong in ("a\nb", "a/b", " a", "", "é" * 200, "a\u202eb"):
        with pytest.raises(InputError):
            place.store.add(replace(lenient, name="two", selection=ImageSelection(refused=(ImageIdentifier(wrong),))))


@pytest.mark.threat("T93")
@pytest.mark.parametrize("uri", ["https://u:canary@h.example/l", "https://h.example/l?token=canary"])
def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated(place: Place, publisher: Simulator, uri: str):
    with pytest.raises(InputError) as caught:
        place.store.add(replace(publisher.subscription(Path("/anchors")), uri=uri))
    assert "canary" not in str(caught.value.as_dict())
