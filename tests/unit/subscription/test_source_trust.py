# SPDX-License-Identifier: Apache-2.0
"""Whose list an identifier is when lists come from sources of several kinds; and what a subscription to one may say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.clock import FixedClock
from coppice.database import Database
from coppice.errors import (
    InputError,
    ListIdentifierError,
    OlderListError,
    StateError,
    UnverifiedSourceError,
    WrongSignerError,
)
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.imagelist.model import ImageList
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName
from coppice.model.identifiers import ListIdentifier
from coppice.model.validity import Validity
from coppice.subscription.archive import ListArchive
from coppice.subscription.changes import differences
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import (
    PinnedEndorser,
    SourceReference,
    Subscription,
    TrustBasis,
    TrustedBy,
    TrustPolicy,
    VerifiedImageList,
)
from coppice.subscription.source.drivers import judging_shelf
from coppice.subscription.source.options import SourceOptions, is_plain
from coppice.subscription.source.protocol import Circumstances
from coppice.subscription.store import SubscriptionStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LIST = ListIdentifier("8a1f2f60-1111-4222-8333-444444444444")
JANE = DistinguishedName.parse("/DC=org/CN=Jane")
CA = DistinguishedName.parse("/DC=org/CN=CA")


@pytest.fixture
def store(database_file: Path) -> Iterator[SubscriptionStore]:
    database = Database(f"sqlite:///{database_file}")
    yield SubscriptionStore(database)
    database.close()


def follow(name: str, driver: str = "descriptors", uri: str = "file:///srv/images", **options: object) -> Subscription:
    return Subscription(
        name=name,
        uri=uri,
        list_identifier=None,
        trust=TrustPolicy(endorsers=(), anchors=None),
        added_at=NOW,
        source=SourceReference(driver=driver, options=options or {"trust": "local"}),
    )


def signed(name: str, anchors: Path) -> Subscription:
    pinned = PinnedEndorser(subject=JANE, issuer=CA)
    trust = TrustPolicy(endorsers=(pinned,), anchors=anchors)
    return replace(follow(name), uri="https://example.org/l", trust=trust, source=SourceReference())


def verified(
    name: str, *, basis: TrustBasis = TrustBasis.LOCAL, signer: str = "the folder", version: str = "1", **changed: Any
) -> VerifiedImageList:
    content = ImageList(
        identifier=LIST,
        version=version,
        title="t",
        description="",
        source="",
        uri="",
        validity=Validity(created=NOW, expires=changed.pop("expires", NOW + 30 * DAY)),
        endorsers=(),
        vo=None,
        images=(),
    )
    x509 = {"signer": JANE, "signer_issuer": CA, "signer_fingerprint": Checksum.of(b"", "sha256")}
    made = VerifiedImageList(
        subscription=name,
        content=content,
        payload_checksum=Checksum.of(changed.pop("payload", version.encode())),
        trusted_by=TrustedBy(basis=basis, signer=signer),
        verified_at=NOW,
    )
    return replace(made, **(x509 if basis is TrustBasis.X509 else {}), **changed)


@pytest.mark.threat("T41")
def test_a_signed_list_does_not_take_the_identifier_of_another_sources_list(store: SubscriptionStore, tmp_path: Path):
    store.add(follow("one"))
    store.record(verified("one"), b"m")
    store.add(signed("two", tmp_path))
    with pytest.raises(ListIdentifierError, match="one"):
        store.record(verified("two", basis=TrustBasis.X509, version="2"), b"n")
    store.remove("one", now=NOW)
    with pytest.raises(ListIdentifierError):
        store.record(verified("two", basis=TrustBasis.X509, version="2"), b"n")


@pytest.mark.threat("T41")
def test_another_source_does_not_take_the_identifier_of_a_signed_list(store: SubscriptionStore, tmp_path: Path):
    store.add(signed("one", tmp_path))
    store.record(verified("one", basis=TrustBasis.X509), b"m")
    store.add(follow("two"))
    with pytest.raises(ListIdentifierError, match="one"):
        store.record(verified("two", version="2"), b"n")
    store.remove("one", now=NOW)
    with pytest.raises(ListIdentifierError):
        store.record(verified("two", version="2"), b"n")


def test_who_vouched_before_is_known_after_the_subscription_is_gone(store: SubscriptionStore):
    store.add(follow("one"))
    store.record(verified("one"), b"m")
    store.remove("one", now=NOW)
    store.add(follow("two"))
    with pytest.raises(ListIdentifierError):
        store.record(verified("two", signer="another folder", version="2"), b"n")
    store.record(verified("two", version="2"), b"n")
    with pytest.raises(OlderListError):
        store.record(verified("two", version="1"), b"m")


def test_a_list_is_recorded_only_by_what_its_source_can_be_trusted_by(store: SubscriptionStore, tmp_path: Path):
    store.add(follow("one"))
    with pytest.raises(WrongSignerError):
        store.record(verified("one", basis=TrustBasis.X509), b"m")
    store.add(signed("two", tmp_path))
    with pytest.raises(WrongSignerError):
        store.record(verified("two"), b"m")


def test_a_list_that_was_judged_by_other_options_is_not_recorded(store: SubscriptionStore):
    before = follow("one")
    store.add(before)
    store.edit("one", lambda each: replace(each, source=follow("one", trust="local", valid_days=7).source), now=NOW)
    with pytest.raises(StateError):
        store.record(verified("one"), b"m", as_of=before)


def test_what_says_the_same_for_longer_takes_its_place_without_a_second_entry(store: SubscriptionStore):
    store.add(follow("one"))
    store.record(verified("one"), b"first")
    store.record(verified("one", expires=NOW + 60 * DAY, verified_at=NOW + DAY), b"second")
    archive = ListArchive(store.database)
    (kept,) = archive.versions("one")
    assert (kept.expires, kept.verified_at, kept.basis) == (NOW + 60 * DAY, NOW, TrustBasis.LOCAL)
    assert archive.message("one")[1] == b"second"
    store.record(verified("one", signer="another", verified_at=NOW + DAY), b"third")
    assert len(archive.versions("one")) == 2


def test_options_are_kept_as_they_are(store: SubscriptionStore):
    options = {"trust": "local", "valid_days": 7}
    store.add(follow("one", **options))
    assert store.get("one").source == SourceReference(driver="descriptors", options=options)
    assert store.get("one").trust.anchors is None


@pytest.mark.parametrize(
    "wrong",
    [
        follow("x", driver="no-such-driver"),
        follow("x", uri="https://example.org/"),
        follow("x", valid_days=7),
        follow("x", trust="transport"),
        follow("x", trust="local", more="1"),
        follow("x", trust="local", valid_days="soon"),
        follow("x", trust="local", **{f"o{number}": "x" for number in range(101)}),
        follow("x", driver="catalogue", uri="catalogue:../x"),
        follow("x", driver="catalogue", uri="catalogue:"),
        replace(follow("x"), trust=TrustPolicy(endorsers=(PinnedEndorser(subject=JANE, issuer=CA),), anchors=None)),
        replace(follow("x"), trust=TrustPolicy(endorsers=(), anchors=None, trust_on_first_use=True)),
        replace(follow("x"), list_identifier=ListIdentifier("no-uuid")),
        replace(follow("x"), uri="https://example.org/l", source=SourceReference()),
        replace(follow("x"), uri="https://example.org/l", source=SourceReference(options={"trust": "transport"})),
    ],
)
def test_a_subscription_that_cannot_be_is_refused(store: SubscriptionStore, wrong: Subscription):
    with pytest.raises(InputError):
        store.add(wrong)
    assert store.all() == ()


@pytest.mark.threat("T6")
@pytest.mark.parametrize(
    ("uri", "is_it"),
    [
        ("http://example.org/x", True),
        ("HTTP://10.0.0.1/x", True),
        ("oci+http://registry.example.org/x", True),
        ("http://localhost.example.org/", True),
        ("http://2130706433/", True),
        ("http://[::1", True),
        ("http://127.0.0.1:8080/x", False),
        ("http://[::1]/x", False),
        ("http://localhost/x", False),
        ("https://example.org/x", False),
        ("oci://registry.example.org/x", False),
        ("file:///x", False),
    ],
)
def test_a_server_is_believed_by_its_name_only_where_its_name_is_proved(uri: str, is_it: bool):
    assert is_plain(uri) is is_it


@pytest.mark.threat("T6")
@pytest.mark.parametrize(
    ("driver", "uri", "options"),
    [
        ("files", "http://example.org/images", {"pattern": "x"}),
        ("simplestreams", "http://example.org/images", {}),
        ("oci", "oci+http://registry.example.org/vo", {}),
    ],
)
def test_nobody_is_believed_by_his_servers_name_without_tls(
    store: SubscriptionStore, driver: str, uri: str, options: dict[str, object]
):
    reference = SourceReference(driver=driver, options={"trust": "transport", **options})
    plain = replace(follow("x"), uri=uri, source=reference)
    with pytest.raises(InputError, match="without TLS"):
        store.add(plain)
    # One that was kept by whatever way is asked for nothing.
    source = judging_shelf(FixedClock(NOW)).open(plain.source)
    circumstances = Circumstances(last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    with pytest.raises(UnverifiedSourceError, match="nobody vouches"):
        source.verify(b"", plain, circumstances)


def test_a_change_of_who_is_believed_is_said_to_ask_for_less():
    before = follow("x", driver="files", keyring=["/k"])
    changes = differences(before, follow("x", driver="files", trust="transport"))
    assert {each.field: each.weakens for each in changes} == {"option keyring": True, "option trust": True}
    assert [each.weakens for each in differences(follow("x"), follow("x", trust="local", valid_days=7))] == [False]


def test_a_key_in_place_of_mere_belief_asks_for_no_less():
    changes = differences(follow("x", trust="transport"), follow("x", keyring="/k"))
    assert {each.field: each.weakens for each in changes} == {"option keyring": False, "option trust": False}


@pytest.mark.parametrize(
    ("before", "after", "weakens"),
    [
        ({"signer": "A" * 40}, {}, True),
        ({"signer": "A" * 40}, {"signer": "B" * 40}, True),
        ({"check_reference": "yes"}, {}, True),
        ({"check_reference": True}, {"check_reference": "no"}, True),
        ({}, {"check_reference": "yes"}, False),
        ({}, {"valid_days": "3660"}, True),
        ({"valid_days": 30}, {}, True),
        ({"valid_days": "30"}, {"valid_days": 9}, False),
        ({"pattern": "a"}, {"pattern": "b"}, False),
    ],
)
def test_an_option_that_asks_for_less_is_said_to(before: dict[str, object], after: dict[str, object], weakens: bool):
    first, second = (follow("x", driver="files", keyring=["/k"], **each) for each in (before, after))
    assert [each.weakens for each in differences(first, second)] == [weakens]


def options(**values: object) -> SourceOptions:
    return SourceOptions("files", values)


def test_options_have_types():
    assert options(a="x").text("a") == "x"
    assert options(a="x, y,x").texts("a") == ("x", "y")
    assert options(a=["x", "y"]).texts("a") == ("x", "y")
    assert (options(a="1.5").number("a", 0, least=0, most=2), options().number("a", 1, least=0, most=2)) == (1.5, 1)
    assert (options(a="yes").flag("a"), options(a=False).flag("a", default=True)) == (True, False)
    assert options(a="3").whole_number("a", 0, least=0, most=5) == 3
    assert str(options(a="/x").optional_path("a")) == "/x"


@pytest.mark.parametrize("value", ["", " ", 1, True, [], {}, "x" * 5000, "\ud800"])
def test_a_text_is_a_text(value: object):
    with pytest.raises(InputError):
        options(a=value).text("a")


@pytest.mark.parametrize("value", ["", "nan", "inf", "1e999", "x", True, [], {}, -1, 99, None])
def test_a_number_is_within_its_bounds(value: object):
    if value is None:
        assert options(a=value).number("a", 5, least=0, most=10) == 5
        return
    with pytest.raises(InputError):
        options(a=value).number("a", 5, least=0, most=10)


@pytest.mark.parametrize("value", [[], [1], ["x", ""], {}, 1, ",", ["x"] * 1001, "x\ud800"])
def test_texts_are_texts(value: object):
    with pytest.raises(InputError):
        options(a=value).texts("a")


def test_other_values_are_refused():
    with pytest.raises(InputError):
        options(a="1.5").whole_number("a", 0, least=0, most=5)
    with pytest.raises(InputError):
        options(a="maybe").flag("a")
    with pytest.raises(InputError):
        options(a=1).flag("a")
    with pytest.raises(InputError):
        options(a="relative").optional_path("a")
    with pytest.raises(InputError):
        options(a="c").choice("a", {"a", "b"})
    with pytest.raises(InputError, match="needs the option"):
        options().text("a")
    known = options(keyrin="x")
    known.optional_text("keyring")
    with pytest.raises(InputError, match="'keyring'"):
        known.finish()
