# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.imagelist.model import ImageList, UnreadableEntry
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName, Endorser
from coppice.model.validity import Validity
from coppice.subscription.model import (
    ImageSelection,
    PinnedEndorser,
    Subscription,
    TrustBasis,
    TrustedBy,
    TrustPolicy,
    VerifiedImageList,
)
from coppice.testing.desired import LATER, NOW, desired_image, image_identifier, list_identifier
from coppice.workflows.refresh import ListOutcome
from coppice.workflows.select import select, unreadable_entries

if TYPE_CHECKING:
    from coppice.imagelist.model import ListedImage

pytestmark = pytest.mark.unit
NAME = DistinguishedName.of(("CN", "Jane"))
LIST = list_identifier("a")


def listed(name: str, version: str = "1") -> ListedImage:
    return desired_image(name, version).listed


def outcome(
    *images: ListedImage,
    name: str = "one",
    version: str = "1",
    wanted: tuple[str, ...] = (),
    unreadable: tuple[str, ...] = (),
    verified: bool = True,
) -> ListOutcome:
    subscription = Subscription(
        name=name,
        uri="https://example.org/list",
        list_identifier=LIST,
        trust=TrustPolicy(endorsers=(PinnedEndorser(subject=NAME, issuer=NAME),), anchors=Path("/anchors")),
        selection=ImageSelection(images=tuple(image_identifier(each) for each in wanted)),
        added_at=NOW,
    )
    content = ImageList(
        identifier=LIST,
        version=version,
        title="t",
        description="",
        source="",
        uri="https://example.org/list",
        validity=Validity(created=NOW, expires=LATER),
        endorsers=(Endorser(name="Jane", email="jane@example.org", subject=NAME, issuer=NAME),),
        vo=None,
        images=images,
        unreadable=tuple(UnreadableEntry(identifier=image_identifier(each), problem="size") for each in unreadable),
    )
    made = VerifiedImageList(
        subscription=name,
        content=content,
        payload_checksum=Checksum.of(b""),
        trusted_by=TrustedBy(basis=TrustBasis.X509, signer=str(NAME)),
        signer=NAME,
        signer_issuer=NAME,
        signer_fingerprint=Checksum.of(b"", "sha256"),
        verified_at=NOW,
    )
    return ListOutcome(subscription=subscription, verified=made if verified else None, fresh=verified)


def test_without_a_choice_every_image_of_a_list_is_wanted():
    (wanted,) = select([outcome(listed("x"), listed("y"))], ()).lists
    assert [image.key.image_identifier for image in wanted.images] == [image_identifier("x"), image_identifier("y")]
    assert (wanted.identifier, wanted.version, wanted.expires) == (LIST, "1", LATER)


def test_only_chosen_images_are_wanted():
    (wanted,) = select([outcome(listed("x"), listed("y"), wanted=("y",))], ()).lists
    assert [image.key.image_identifier for image in wanted.images] == [image_identifier("y")]
    assert wanted.unknown == frozenset()


def test_an_image_ends_with_its_own_date_or_its_lists_whichever_is_first():
    early = replace(listed("x"), expires=NOW + timedelta(days=1))
    late = replace(listed("y"), expires=LATER + timedelta(days=1))
    (wanted,) = select([outcome(early, late)], ()).lists
    assert [image.expires for image in wanted.images] == [NOW + timedelta(days=1), LATER]


@pytest.mark.threat("T44")
def test_an_entry_that_cannot_be_read_is_unknown_and_told():
    outcomes = [outcome(listed("x"), unreadable=("y",))]
    assert select(outcomes, ()).lists[0].unknown == {image_identifier("y")}
    (error,) = unreadable_entries(outcomes)
    assert image_identifier("y") in error.message


def test_an_image_whose_version_has_no_order_is_unknown():
    (wanted,) = select([outcome(listed("x", "!"))], ()).lists
    assert wanted.images == ()
    assert wanted.unknown == {image_identifier("x")}


def test_a_list_that_is_not_known_is_neither_wanted_nor_unsubscribed():
    desired = select([outcome(verified=False)], ())
    assert desired.lists == ()
    assert desired.unsubscribed == frozenset()


def test_a_list_that_is_followed_again_is_not_unsubscribed():
    gone = list_identifier("gone")
    assert select([outcome(verified=False)], (LIST, gone)).unsubscribed == {gone}
    assert select([outcome(listed("x"))], (LIST, gone)).unsubscribed == {gone}


def test_of_two_subscriptions_to_one_list_the_highest_version_counts_and_both_choices():
    old = outcome(listed("x", "1"), listed("y", "1"), name="one", version="9", wanted=("x",))
    new = outcome(listed("x", "2"), listed("y", "2"), name="two", version="10", wanted=("y",))
    for outcomes in ([old, new], [new, old]):
        (wanted,) = select(outcomes, ()).lists
        assert [image.listed.version for image in wanted.images] == ["2", "2"]


def test_what_only_a_subscription_in_doubt_wants_is_unknown_and_not_unwanted():
    sure = outcome(listed("x"), listed("y"), wanted=("x",))
    (wanted,) = select([sure, outcome(name="two", wanted=("y",), verified=False)], ()).lists
    assert [image.key.image_identifier for image in wanted.images] == [image_identifier("x")]
    assert wanted.unknown == {image_identifier("y")}


def test_while_the_list_of_a_subscription_is_not_known_nothing_is_unsubscribed_or_unwanted():
    new = outcome(name="new", verified=False)
    new = replace(new, subscription=replace(new.subscription, list_identifier=None))
    desired = select([outcome(listed("x"), listed("y"), wanted=("x",)), new], (list_identifier("gone"),))
    assert desired.unsubscribed == frozenset()
    assert desired.lists[0].unknown == {image_identifier("y")}


def choosing(made: ListOutcome, **selection: object) -> ListOutcome:
    return replace(made, subscription=replace(made.subscription, selection=ImageSelection(**selection)))  # type: ignore[arg-type]


def chosen(*outcomes: ListOutcome) -> tuple[list[str], set[str]]:
    (wanted,) = select(outcomes, ()).lists
    return [image.key.image_identifier for image in wanted.images], set(wanted.unknown)


def test_an_image_is_wanted_when_every_condition_holds_and_refusing_goes_before_choosing():
    x, y = image_identifier("x"), image_identifier("y")
    made = outcome(listed("x"), listed("y"))
    assert chosen(choosing(made, refused=(x,))) == ([y], set())
    assert chosen(choosing(made, images=(x, y), refused=(x,))) == ([y], set())
    assert chosen(choosing(made, expression=f"identifier = {x}")) == ([x], set())
    assert chosen(choosing(made, architectures=("sparc",))) == ([], set())
    assert chosen(choosing(made, vos=("vo.example.org",))) == ([], set())


def test_an_image_of_which_the_condition_cannot_be_told_is_unknown_and_not_unwanted():
    no_cores = replace(listed("x"), requirements=replace(listed("x").requirements, minimum_cores=None))
    assert chosen(choosing(outcome(no_cores), expression="cores >= 2")) == ([], {image_identifier("x")})
    # Unless another subscription to the list wants it whatever it is.
    both = (choosing(outcome(no_cores), expression="cores >= 2"), outcome(no_cores, name="two"))
    assert chosen(*both) == ([image_identifier("x")], set())


@pytest.mark.threat("T44")
def test_an_entry_that_cannot_be_read_is_unknown_unless_it_is_refused_by_its_identifier():
    y = image_identifier("y")
    made = outcome(listed("x"), unreadable=("y",))
    assert chosen(choosing(made, expression="os = debian"))[1] == {y}
    refusing = choosing(made, refused=(y,))
    assert chosen(refusing)[1] == set()
    assert unreadable_entries([refusing]) == ()
    assert chosen(refusing, replace(made, subscription=replace(made.subscription, name="two")))[1] == {y}


@pytest.mark.threat("T19")
def test_a_list_is_distrusted_only_when_nobody_vouches_for_it_any_more():
    revoked = replace(outcome(name="two", verified=False), distrusted=True)
    desired = select([revoked], ())
    assert (desired.distrusted, desired.lists) == ({LIST}, ())
    assert select([revoked, outcome(name="three", verified=False)], ()).distrusted == frozenset()
    desired = select([revoked, outcome(listed("x"))], ())
    assert desired.distrusted == frozenset()
    assert len(desired.lists) == 1


def test_a_version_that_was_taken_back_is_handed_on():
    (wanted,) = select([outcome(listed("x"))], (), {LIST: "99"}).lists
    assert wanted.taken_back == "99"


def with_extra(listed: ListedImage, **extra: object) -> ListedImage:
    return replace(listed, extra={f"coppice:{key}": value for key, value in extra.items()})


def test_an_image_knows_the_vo_of_its_list_and_its_set():
    known = outcome(with_extra(listed("debian"), set="s-1", set_version="3"))
    known = replace(known, verified=replace(known.verified, content=replace(known.verified.content, vo="vo.example")))
    (image,) = select([known], ()).lists[0].images
    assert (image.vo, image.set_identifier, image.set_version) == ("vo.example", "s-1", "3")


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"set": "s"},
        {"set_version": "1"},
        {"set": "", "set_version": "1"},
        {"set": "s", "set_version": 1},
        {"set": ["s"], "set_version": "1"},
        {"set": "s\nt", "set_version": "1"},
        {"set": "s" * 201, "set_version": "1"},
        {"set": "s", "set_version": "\u202e1"},
        {"set": None, "set_version": None},
    ],
)
def test_an_image_whose_list_names_no_whole_set_is_of_none(extra):
    (image,) = select([outcome(with_extra(listed("debian"), **extra))], ()).lists[0].images
    assert (image.set_identifier, image.set_version) == (None, None)


def test_a_set_of_a_part_of_which_nothing_can_be_told_is_not_whole():
    parts = [with_extra(listed(name, version), set="s", set_version="2") for name, version in (("x", "2"), ("y", ""))]
    other = with_extra(listed("z"), set="t", set_version="1")
    images = {each.key.image_identifier: each for each in select([outcome(*parts, other)], ()).lists[0].images}
    assert set(images) == {image_identifier("x"), image_identifier("z")}
    assert images[image_identifier("x")].set_problem
    assert images[image_identifier("z")].set_problem is None


@pytest.mark.parametrize(("vo", "found"), [(None, None), ("", None), ("\u200b", None), ("a\nb", "a b")])
def test_the_name_of_a_vo_is_one_line_that_can_be_seen(vo, found):
    known = outcome(listed("debian"))
    known = replace(known, verified=replace(known.verified, content=replace(known.verified.content, vo=vo)))
    (image,) = select([known], ()).lists[0].images
    assert image.vo == found
