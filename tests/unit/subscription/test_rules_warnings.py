# SPDX-License-Identifier: Apache-2.0
"""What is said of a list that is accepted, and what it may not go back behind."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coppice.errors import ChangedListError, FutureListError, OlderListError
from coppice.imagelist.model import Profile
from coppice.model.checksum import Checksum
from coppice.settings.load import load_settings
from coppice.subscription.anchors import TrustAnchors
from coppice.subscription.list_rules import check_version
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import TrustedVersion, WarningKind
from coppice.subscription.rules import verify_list
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from coppice.subscription.model import VerifiedImageList
    from coppice.testing.authority import Authority

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
DATE = "%Y-%m-%dT%H:%M:%SZ"


def verify(publisher: Simulator, **changes: Any) -> VerifiedImageList:
    authority = publisher.authority
    crl = changes.pop("crl", None)
    trust = changes.pop("trust", {})
    subscription = publisher.subscription(Path("/anchors"))
    anchors = TrustAnchors(
        certificates=(authority.identity.certificate,),
        crls=(authority.crl() if crl is None else crl,),
        problems=(),
        path=Path("/anchors"),
    )
    given: dict[str, Any] = {
        "subscription": replace(subscription, trust=replace(subscription.trust, **trust)),
        "anchors": anchors,
        "last": None,
        "now": NOW,
        **changes,
    }
    return verify_list(given.pop("message", None) or publisher.message(), **given)


def kinds(verified: VerifiedImageList) -> list[WarningKind]:
    return [each.kind for each in verified.warnings]


def edited(publisher: Simulator, **fields: Any) -> bytes:
    document = publisher.document()
    for key, value in fields.items():
        document["hv:imagelist"][key.replace("_", ":")] = value
    return publisher.message(payload=json.dumps({key: drop_none(value) for key, value in document.items()}).encode())


def drop_none(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if value is not None}


def test_the_terms_that_are_used_without_settings_are_those_of_the_settings() -> None:
    shipped = load_settings(config=None, environ={"HOME": "/nowhere"}, options={}).subscriptions
    assert replace(shipped, parallel=DEFAULT_TERMS.parallel) == DEFAULT_TERMS


# What ends soon.


@pytest.mark.threat("T34")
def test_a_list_is_said_to_expire_soon_and_to_be_stale(publisher: Simulator) -> None:
    publisher.created, publisher.expires = NOW - DAY, NOW + 99 * DAY
    assert kinds(verify(publisher)) == []
    assert kinds(verify(publisher, now=NOW + 76 * DAY)) == ["list-stale"]
    both = verify(publisher, now=NOW + 93 * DAY)
    assert kinds(both) == ["list-stale", "list-expiring"]
    assert f"{publisher.expires:%Y-%m-%d}" in str(both.warnings[1])
    wide = replace(DEFAULT_TERMS, warn_list_days=100)
    assert kinds(verify(publisher, terms=wide)) == ["list-expiring"]


def test_images_that_expire_soon_are_named_the_first_ones_first(publisher: Simulator) -> None:
    publisher.expires = NOW + 90 * DAY
    identifiers = [
        publisher.add_image(dc_date="", **{"dc_date:expires": f"{NOW + days * DAY:{DATE}}"})["dc:identifier"]
        for days in (13, 15, -1, 12, 11, 10, 9)
    ]
    verified = verify(publisher)
    assert kinds(verified) == ["image-expiring"]
    text = str(verified.warnings[0])
    assert text.index(identifiers[2]) < text.index(identifiers[6]) < text.index(identifiers[4])
    assert identifiers[1] not in text
    assert "and 1 more" in text
    assert kinds(verify(publisher, terms=replace(DEFAULT_TERMS, warn_image_days=0))) == ["image-expiring"]


def test_an_image_that_ends_with_its_list_is_told_with_the_list(publisher: Simulator) -> None:
    publisher.expires = NOW + 10 * DAY
    publisher.images.clear()
    publisher.add_image()["dc:date:expires"] = f"{publisher.expires:{DATE}}"
    assert kinds(verify(publisher)) == []
    publisher.images[0]["dc:date:expires"] = f"{publisher.expires - DAY:{DATE}}"
    assert kinds(verify(publisher)) == ["image-expiring"]


def test_certificates_of_the_path_that_expire_soon_are_named(authority: Authority) -> None:
    below = authority.issue_authority("Sub CA", not_after=NOW + 10 * DAY)
    publisher = Simulator.create(authority, endorser=below.issue("Jane Doe", not_after=NOW + 5 * DAY))
    anchors = TrustAnchors(
        certificates=(authority.identity.certificate,),
        crls=(authority.crl(), below.crl()),
        problems=(),
        path=Path("/anchors"),
    )
    verified = verify(publisher, anchors=anchors)
    assert kinds(verified) == ["certificate-expiring"] * 2
    assert "the signer's certificate expires on" in str(verified.warnings[0])
    assert "Sub CA" in str(verified.warnings[1])
    assert kinds(verify(publisher, anchors=anchors, terms=replace(DEFAULT_TERMS, warn_certificate_days=1))) == []


@pytest.mark.threat("T18")
def test_of_a_recalled_list_it_is_said_that_its_certificate_has_expired(authority: Authority) -> None:
    publisher = Simulator.create(authority, endorser=authority.issue("Jane Doe", not_after=NOW + DAY))
    message = publisher.message()
    recalled = verify(publisher, message=message, now=NOW + 2 * DAY, first_verified_at=NOW)
    assert kinds(recalled) == ["certificate-expiring"]
    assert "expired on" in str(recalled.warnings[0])
    assert "the next list by it will be refused" in str(recalled.warnings[0])


def test_a_crl_that_is_due_soon_is_said(publisher: Simulator) -> None:
    due = publisher.authority.crl(last_update=NOW - DAY, next_update=NOW + DAY)
    verified = verify(publisher, crl=due)
    assert kinds(verified) == ["revocation-expiring"]
    assert f"{NOW + DAY:%Y-%m-%d %H:%M}" in str(verified.warnings[0])
    assert kinds(verify(publisher, crl=due, terms=replace(DEFAULT_TERMS, warn_revocation_days=0.5))) == []


# What is unusual.


@pytest.mark.threat("T43")
def test_another_address_is_said_and_changes_nothing(publisher: Simulator) -> None:
    verified = verify(publisher, message=edited(publisher, hv_uri="https://elsewhere.example.org/list"))
    assert kinds(verified) == ["uri-differs"]
    assert "this site keeps to https://lists.example.org/demo.list" in str(verified.warnings[0])


def test_a_list_that_names_no_endorser_is_said_in_the_lenient_profile(publisher: Simulator) -> None:
    verified = verify(publisher, message=edited(publisher, hv_endorser=None), trust={"profile": Profile.LENIENT})
    assert kinds(verified) == ["no-endorser"]


@pytest.mark.threat("T32")
def test_the_skew_of_clocks_that_is_granted_is_a_setting(publisher: Simulator) -> None:
    publisher.created = NOW + timedelta(seconds=60)
    assert verify(publisher).content
    with pytest.raises(FutureListError, match="yet to come"):
        verify(publisher, terms=replace(DEFAULT_TERMS, clock_skew_seconds=30))


# What a list may not go back behind.


def trusted(version: str, created: datetime | None = None) -> TrustedVersion:
    return TrustedVersion(version=version, payload_checksum=Checksum.of(b"what was verified before"), created=created)


@pytest.mark.threat("T33")
@pytest.mark.parametrize(("before", "said"), [("7", True), ("9" * 20, False)])
def test_a_leap_of_the_version_is_said_once(publisher: Simulator, before: str, said: bool) -> None:
    message = publisher.message(version=str(10**25))
    verified = verify(publisher, message=message, last=trusted(before))
    assert (kinds(verified) == ["version-jump"]) is said


def test_a_higher_version_that_was_created_earlier_is_accepted_and_said(publisher: Simulator) -> None:
    verified = verify(publisher, message=publisher.message(version="9"), last=trusted("8", NOW))
    assert kinds(verified) == ["created-earlier"]
    assert kinds(verify(publisher, message=publisher.message(version="9"), last=trusted("8"))) == []


@pytest.mark.threat("T31")
@pytest.mark.parametrize(
    ("version", "before"),
    [("---", "2"), ("2", "---"), ("---", "---"), ("", "2")],
    ids=["now none", "before none", "neither", "left out"],
)
def test_where_versions_have_no_order_the_dates_of_creation_decide(
    publisher: Simulator, version: str, before: str
) -> None:
    content = replace(verify(publisher).content, version=version)
    payload, created = Checksum.of(b"now"), content.validity.created
    check_version(content, payload, trusted(before, created - DAY))
    with pytest.raises(OlderListError, match="no version that can be compared"):
        check_version(content, payload, trusted(before, created + DAY))
    with pytest.raises(ChangedListError):
        check_version(content, payload, trusted(before, created))
    check_version(content, payload, TrustedVersion(version=before, payload_checksum=payload, created=created))


@pytest.mark.threat("T31")
def test_where_neither_version_nor_date_tells_the_list_is_refused_unless_it_is_the_same(publisher: Simulator) -> None:
    content = replace(verify(publisher).content, version="---")
    with pytest.raises(OlderListError, match="no place in the order"):
        check_version(content, Checksum.of(b"now"), trusted("---"))
    check_version(content, Checksum.of(b"what was verified before"), trusted("---"))


@pytest.mark.threat("T30")
def test_versions_that_only_look_different_are_the_same_version(publisher: Simulator) -> None:
    content = replace(verify(publisher).content, version="1-0")
    with pytest.raises(ChangedListError, match="1-0"):
        check_version(content, Checksum.of(b"now"), trusted("1.0"))
