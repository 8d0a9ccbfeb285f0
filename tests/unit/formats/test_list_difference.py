# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coppice.formats.list_difference import ImageDifference, image_facts, list_difference
from coppice.imagelist.model import ImageList, ListedImage, MarketplaceUser, UnreadableEntry
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName, Endorser
from coppice.model.identifiers import ImageIdentifier, ListIdentifier
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.validity import Validity

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def image(number: int, version: str = "1", content: bytes = b"one") -> ListedImage:
    return ListedImage(
        identifier=ImageIdentifier(f"00000000-0000-4000-8000-{number:012d}"),
        version=version,
        title=f"Image {number}",
        description="",
        uri=f"https://x/{number}",
        size_bytes=len(content),
        checksum=Checksum.of(content),
        declared_format="qcow2",
        operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        hypervisor="KVM",
        comments="",
        expires=NOW + 28 * DAY,
        requirements=Requirements(),
        groups=(),
        mpuri=None,
        base_mpuri=None,
    )


def listing(*images: ListedImage, version: str = "1", at: datetime = NOW) -> ImageList:
    name = DistinguishedName.of(("cn", "Jane"))
    return ImageList(
        identifier=ListIdentifier("2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11"),
        version=version,
        title="List",
        description="",
        source="",
        uri="https://x/list",
        validity=Validity(created=at, expires=at + 28 * DAY),
        endorsers=(Endorser(name="Jane", email="j@x", subject=name, issuer=name),),
        vo=None,
        images=images,
    )


def test_a_list_does_not_differ_from_itself_whatever_the_order_of_its_images() -> None:
    found = list_difference(listing(image(1), image(2)), listing(image(2), image(1)))
    assert found.is_empty
    assert found.is_renewal
    assert found.unchanged == 2


def test_without_an_earlier_list_everything_is_new() -> None:
    found = list_difference(None, listing(image(1)))
    assert (found.before, found.after) == (None, "1")
    assert [(each.kind, each.before, each.after) for each in found.images] == [(ImageDifference.ADDED, None, "1")]
    assert not found.is_empty
    assert not found.is_renewal


def test_each_image_is_told_by_what_became_of_it() -> None:
    before = listing(image(1), image(2), image(3), image(4), image(5))
    after = listing(
        replace(image(1), title="Renamed"),
        image(2, "2", b"two"),
        image(3, "1", b"other"),
        image(6),
        image(5),
        version="2",
    )
    found = list_difference(before, after)
    assert [(each.identifier[-1], each.kind, each.before, each.after) for each in found.images] == [
        ("1", ImageDifference.DESCRIBED, "1", "1"),
        ("2", ImageDifference.NEW_VERSION, "1", "2"),
        ("3", ImageDifference.OTHER_CONTENT, "1", "1"),
        ("4", ImageDifference.REMOVED, "1", None),
        ("6", ImageDifference.ADDED, None, "1"),
    ]
    assert found.images[0].title == "Renamed"
    assert [(each.key, each.before, each.after) for each in found.images[0].fields] == [
        ("dc:title", "Image 1", "Renamed")
    ]
    assert found.unchanged == 1


def test_a_renewal_changes_dates_and_version_only() -> None:
    later = replace(image(1), expires=NOW + 29 * DAY)
    found = list_difference(listing(image(1)), listing(later, version="2", at=NOW + DAY))
    assert not found.is_empty
    assert found.is_renewal
    assert not list_difference(listing(image(1)), replace(listing(later), title="Other")).is_renewal


def test_an_entry_that_became_unreadable_is_not_told_as_removed() -> None:
    entry = UnreadableEntry(identifier=image(1).identifier, problem="no title")
    broken = replace(listing(), unreadable=(entry,))
    [changed] = list_difference(listing(image(1)), broken).images
    assert (changed.kind, changed.before, changed.after) == (ImageDifference.UNREADABLE, "1", None)
    assert list_difference(broken, broken).images == ()
    [back] = list_difference(broken, listing(image(1))).images
    assert back.kind is ImageDifference.ADDED
    [gone] = list_difference(broken, listing()).images
    assert (gone.kind, gone.title) == (ImageDifference.REMOVED, image(1).identifier)


def test_unknown_keys_differ_by_value_and_by_type() -> None:
    before = replace(listing(), extra={"x:number": 1, "x:gone": "a"})
    after = replace(listing(), extra={"x:number": True, "x:new": None})
    assert [(each.key, each.before, each.after) for each in list_difference(before, after).fields] == [
        ("x:number", 1, True),
        ("x:gone", "a", None),
    ]


def test_keys_beside_the_objects_and_of_endorsers_differ_too() -> None:
    before = listing(image(1))
    [endorser] = before.endorsers
    after = replace(
        before,
        outer_extra={"x": 1},
        number_of_images=1,
        endorsers=(replace(endorser, extra={"x": 1}),),
        images=(replace(image(1), wrapper_extra={"x": 1}),),
    )
    found = list_difference(before, after)
    assert {each.key for each in found.fields} == {"../x", "ad:num_of_images", "hv:endorser"}
    assert [each.key for each in found.images[0].fields] == ["../x"]


def test_every_key_of_an_image_that_is_said_is_compared() -> None:
    full = replace(
        image(1),
        user=MarketplaceUser(full_name="Jane", guid="g", uri="u"),
        appliance_id="7",
        traffic_in=["x"],
        groups=("a", "b"),
        requirements=Requirements(minimum_ram_mib=512),
    )
    facts = image_facts(full)
    assert facts["ad:user:guid"] == "g"
    assert facts["ad:group"] == "a, b"
    assert facts["hv:ram_minimum"] == 512
    assert "hv:core_minimum" not in facts
