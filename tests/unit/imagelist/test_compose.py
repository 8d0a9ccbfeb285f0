# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coppice.catalogue.model import ApplianceVersion, ReferencedImage, SelectedSet, Selection, SetRelease
from coppice.formats.hepix import read_list, write_list
from coppice.imagelist.compose import Composed, compose
from coppice.model.appliance import Appliance
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName, Endorser
from coppice.model.identifiers import ImageIdentifier, ListIdentifier
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.workflows.listed_sets import built_on

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 1, 12, 0, 0, 123456, tzinfo=UTC)
CREATED = NOW.replace(microsecond=0)
DAY = timedelta(days=1)
NAME = DistinguishedName.of(("dc", "org"), ("cn", "Jane"))
JANE = Endorser(name="Jane", email="jane@example.org", subject=NAME, issuer=NAME)


def identifier(number: int) -> ImageIdentifier:
    return ImageIdentifier(f"00000000-0000-4000-8000-{number:012d}")


def version(number: int, **changes: object) -> ApplianceVersion:
    appliance = Appliance(
        name=f"a{number}",
        identifier=identifier(number),
        title=f"A{number}",
        description="",
        groups=("g",),
        operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        requirements=Requirements(minimum_cores=1),
    )
    made = ApplianceVersion(
        appliance=appliance,
        version="1.0",
        path=Path("/x"),
        image=Image(format=DiskFormat.RAW, size_bytes=1, virtual_size_bytes=1, checksum=Checksum.of(b"x")),
        created=NOW,
        expires=None,
        provenance=None,
    )
    of_version = {key: value for key, value in changes.items() if key in {"expires", "image", "path", "mpuri"}}
    of_appliance = {key: value for key, value in changes.items() if key not in of_version}
    return replace(made, appliance=replace(appliance, **of_appliance), **of_version)  # type: ignore[arg-type]


def selection(*versions: ApplianceVersion, sets: tuple[SelectedSet, ...] = ()) -> Selection:
    return Selection(
        name="general",
        identifier=ListIdentifier("2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11"),
        title="General",
        description="",
        source="https://x/",
        vo=None,
        endorser="jane",
        publisher="web",
        lifetime_days=28,
        last_version=None,
        versions=versions,
        sets=sets,
    )


def composed(chosen: Selection, **options: object) -> Composed:
    return compose(
        chosen,
        version="1",
        now=NOW,
        endorser=JANE,
        image_uris={f"a{number}": f"https://x/{number}" for number in range(9)},
        list_uri="https://x/general.list",
        **options,  # type: ignore[arg-type]
    )


def a_set(*members: ApplianceVersion, expires: datetime | None = None) -> SelectedSet:
    release = SetRelease(version="3", created=NOW, members=members)
    return SelectedSet(name="stack", identifier="set-identifier", expires=expires, release=release)


def test_what_is_composed_reads_as_it_was_meant() -> None:
    content = composed(selection(version(1, keys={"x:y": {"z": [1]}}), sets=(a_set(version(2), version(3)),))).content
    assert read_list(write_list(content)) == content


def test_an_end_is_the_earliest_of_those_that_are_set() -> None:
    early, late = CREATED + DAY, CREATED + 9 * DAY
    for chosen, end in (
        (version(1), CREATED + 28 * DAY),
        (version(1, expires=early), early),
        (version(1, expires=early, discontinued_on=late), early),
        (version(1, expires=late, discontinued_on=early), early),
        (version(1, discontinued_on=early + timedelta(microseconds=5)), early),
    ):
        assert composed(selection(chosen)).content.images[0].expires == end


def test_what_has_ended_is_told_once_and_then_left_out() -> None:
    ended = version(1, expires=CREATED - DAY)
    first = composed(selection(ended))
    assert [image.expires for image in first.content.images] == [CREATED - DAY]
    assert first.left_out == ()
    for told in ({identifier(1): ("1.0", CREATED - 2 * DAY)}, {identifier(1): ("0.9", CREATED - DAY)}):
        assert composed(selection(ended), told=told).left_out == ()
    second = composed(selection(ended), told={identifier(1): ("1.0", CREATED - DAY)})
    assert second.content.images == ()
    assert second.left_out == (ended,)


def test_what_ends_now_has_ended() -> None:
    ended = version(1, expires=CREATED)
    assert composed(selection(ended), told={identifier(1): ("1.0", CREATED)}).left_out == (ended,)
    to_come = version(1, expires=CREATED + timedelta(seconds=1))
    assert composed(selection(to_come), told={identifier(1): ("1.0", to_come.expires)}).left_out == ()


def test_the_parts_of_a_set_end_with_the_first_and_tell_to_what_they_belong() -> None:
    members = (version(2, expires=CREATED + 3 * DAY), version(3, discontinued_on=CREATED + 2 * DAY))
    images = composed(selection(version(1), sets=(a_set(*members, expires=CREATED + 5 * DAY),))).content.images
    assert [image.title for image in images] == ["A1", "A2", "A3"]
    assert [image.expires for image in images] == [CREATED + 28 * DAY, CREATED + 2 * DAY, CREATED + 2 * DAY]
    assert [image.extra for image in images] == [
        {},
        *({"coppice:set": "set-identifier", "coppice:set_version": "3", "coppice:set_size": 2} for _ in members),
    ]


def test_a_successor_is_told_only_of_what_is_discontinued() -> None:
    successor = identifier(8)
    [image] = composed(selection(version(1, successor=successor))).content.images
    assert image.extra == {}
    [image] = composed(selection(version(1, successor=successor, discontinued_on=CREATED + DAY))).content.images
    assert image.extra == {"coppice:successor": successor}


def test_what_an_image_is_built_on_is_told_the_nearest_first() -> None:
    parents = (Checksum.of(b"parent"), Checksum.of(b"grandparent"))
    [image] = composed(selection(replace(version(1), built_on=parents))).content.images
    assert image.extra == {"coppice:built_on": [str(each) for each in parents]}
    assert built_on(image) == parents


def test_an_image_that_somebody_else_holds_is_listed_where_it_is() -> None:
    held = ReferencedImage(uri="https://elsewhere/x", format=None, size_bytes=7, checksum=Checksum.of(b"y"))
    [image] = composed(selection(version(1, image=held, path=None))).content.images
    assert (image.uri, image.declared_format, image.size_bytes) == ("https://elsewhere/x", None, 7)


def test_marketplace_addresses_are_those_that_were_set_or_made_of_the_lists() -> None:
    [image] = composed(selection(version(1))).content.images
    assert image.base_mpuri == f"https://x/general.list#{identifier(1)}"
    assert image.mpuri == f"{image.base_mpuri}:1.0"
    keys = {"ad:base_mpuri": "https://mp/1", "ad:mpuri": "https://mp/1:{version}/", "ad:appid": "7"}
    [image] = composed(selection(version(1, keys=keys))).content.images
    assert (image.base_mpuri, image.mpuri, image.appliance_id, image.extra) == (
        "https://mp/1",
        "https://mp/1:1.0/",
        "7",
        {},
    )
    [image] = composed(selection(version(1, keys=keys, mpuri="https://mp/1:77/"))).content.images
    assert image.mpuri == "https://mp/1:77/"


@pytest.mark.parametrize(
    "key",
    ["ad:vo", "ad:mpuri", "ad:base_mpuri", "ad:group", "ad:user:fullname", "dc:date:expires", "sl:osname"],
)
def test_what_some_readers_need_is_always_there(key: str) -> None:
    chosen = replace(selection(version(1, groups=())), vo="vo.example.org")
    assert f'"{key}"'.encode() in write_list(composed(chosen).content)
