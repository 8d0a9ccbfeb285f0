# SPDX-License-Identifier: Apache-2.0
"""What handlers that were written for vmcatcher get: every name, every value, nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.events.model import Event, EventKind
from coppice.events.payload import image_facts, kept_facts, run_facts
from coppice.events.vmcatcher import TYPES, facts_of, handler_environment
from coppice.imagelist.model import ImageList, ListedImage, MarketplaceUser
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName, Endorser
from coppice.model.identifiers import ImageIdentifier, ListIdentifier
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.validity import Validity

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 1, tzinfo=UTC)
IMAGE = "8a1f3c9e-0b52-4c58-9a53-0d7c1d1f6c11"
LIST = "1f0c4d5e-97a2-4d0c-8a7e-5b0f5a0c0b11"
SESSION = "c0ffee00-0000-4000-8000-000000000000"
NAME = DistinguishedName.parse("/CN=Somebody")
LISTED = ListedImage(
    identifier=ImageIdentifier(IMAGE),
    version="1.0.4",
    title="Debian 12",
    description="A server.",
    uri="https://example.org/debian.qcow2",
    size_bytes=4096,
    checksum=Checksum.of(b"image"),
    declared_format="qcow2",
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    hypervisor="qemu",
    comments="None worth mentioning.",
    expires=None,
    requirements=Requirements(),
    groups=("general", "grid"),
    mpuri="https://market.example.org/image/1",
    base_mpuri="https://market.example.org/appliance/1",
    user=MarketplaceUser(full_name="Ada", guid="42", uri="https://example.org/ada"),
)
CONTENT = ImageList(
    identifier=ListIdentifier(LIST),
    version="7",
    title="Images",
    description="",
    source="Example",
    uri="https://example.org/list",
    validity=Validity(created=NOW, expires=NOW.replace(year=2027)),
    endorsers=(Endorser(name="Somebody", email="a@example.org", subject=NAME, issuer=NAME),),
    vo="vo.example.org",
    images=(LISTED,),
)
PLACES: dict[str, str] = {
    "VMCATCHER_CACHE_DIR_CACHE": "/s/cache/handed-out",
    "VMCATCHER_CACHE_DIR_DOWNLOAD": "/s/cache/partial",
    "VMCATCHER_CACHE_DIR_EXPIRE": "/s/cache/expired",
    "VMCATCHER_RDBMS": "sqlite:////s/coppice.sqlite",
}


def told(kind: EventKind, facts: Mapping[str, object]) -> dict[str, str] | None:
    # What is told comes from the journal, so it is what the journal keeps.
    event = Event(number=1, kind=kind, subject="x", facts=kept_facts(facts), at=NOW)
    return handler_environment(event, cache=Path("/s/cache"), database_url="sqlite:////s/coppice.sqlite")


def facts_for(listed: ListedImage = LISTED, content: ImageList = CONTENT, **more: object) -> dict[str, object]:
    return image_facts("egi", content, listed, file_name=IMAGE, session=SESSION, **more)


def test_an_available_image_has_every_variable_that_handlers_read() -> None:
    assert told(EventKind.IMAGE_CACHED, facts_for()) == PLACES | {
        "VMCATCHER_EVENT_TYPE": "AvailablePostfix",
        "VMCATCHER_EVENT_DC_DESCRIPTION": "A server.",
        "VMCATCHER_EVENT_DC_IDENTIFIER": IMAGE,
        "VMCATCHER_EVENT_DC_TITLE": "Debian 12",
        "VMCATCHER_EVENT_HV_HYPERVISOR": "qemu",
        "VMCATCHER_EVENT_HV_SIZE": "4096",
        "VMCATCHER_EVENT_HV_URI": "https://example.org/debian.qcow2",
        "VMCATCHER_EVENT_HV_VERSION": "1.0.4",
        "VMCATCHER_EVENT_HV_FORMAT": "qcow2",
        "VMCATCHER_EVENT_SL_ARCH": "x86_64",
        "VMCATCHER_EVENT_SL_CHECKSUM_SHA512": Checksum.of(b"image").hexdigest,
        "VMCATCHER_EVENT_SL_COMMENTS": "None worth mentioning.",
        "VMCATCHER_EVENT_SL_OS": "Linux",
        "VMCATCHER_EVENT_SL_OSNAME": "Debian",
        "VMCATCHER_EVENT_SL_OSVERSION": "12",
        "VMCATCHER_EVENT_FILENAME": IMAGE,
        "VMCATCHER_EVENT_IL_DC_IDENTIFIER": LIST,
        "VMCATCHER_EVENT_AD_MPURI": "https://market.example.org/image/1",
        "VMCATCHER_EVENT_AD_GROUP": "general,grid",
        "VMCATCHER_EVENT_AD_USER_FULLNAME": "Ada",
        "VMCATCHER_EVENT_AD_USER_GUID": "42",
        "VMCATCHER_EVENT_AD_USER_URI": "https://example.org/ada",
        "VMCATCHER_EVENT_VO": "vo.example.org",
        "VMCATCHER_EVENT_UUID_SESSION": SESSION,
    }


def test_the_types_are_those_on_the_wire() -> None:
    assert list(TYPES.values()) == [
        "ProcessPrefix",
        "ExpirePrefix",
        "ExpirePostfix",
        "AvailablePrefix",
        "AvailablePostfix",
        "ProcessPostfix",
        "SubscriptionImageNew",
    ]


def test_events_that_vmcatcher_does_not_know_are_not_told() -> None:
    assert [kind for kind in EventKind if told(kind, facts_for()) is not None] == [
        kind for kind in EventKind if kind in TYPES
    ]


def test_a_run_has_no_image() -> None:
    assert told(EventKind.CACHE_RUN_BEGUN, run_facts(SESSION)) == PLACES | {
        "VMCATCHER_EVENT_TYPE": "ProcessPrefix",
        "VMCATCHER_EVENT_UUID_SESSION": SESSION,
    }


def test_a_new_image_of_a_list_has_no_cache() -> None:
    found = told(EventKind.IMAGE_NEW, image_facts("egi", CONTENT, LISTED))
    assert found is not None
    assert found["VMCATCHER_EVENT_TYPE"] == "SubscriptionImageNew"
    assert not [name for name in found if name.startswith("VMCATCHER_CACHE")]
    assert "VMCATCHER_EVENT_FILENAME" not in found
    assert found["VMCATCHER_EVENT_UUID_SESSION"]


def test_what_is_empty_is_left_out() -> None:
    bare = replace(
        LISTED, description="", comments="", hypervisor="", declared_format=None, mpuri=None, groups=(), user=None
    )
    found = told(EventKind.IMAGE_CACHED, facts_for(bare, replace(CONTENT, vo=None)))
    assert found is not None
    assert "" not in found.values()
    gone = ("DC_DESCRIPTION", "SL_COMMENTS", "HV_HYPERVISOR", "HV_FORMAT", "AD_MPURI", "AD_GROUP", "VO", "AD_USER_GUID")
    assert [name for name in gone if f"VMCATCHER_EVENT_{name}" in found] == []


@pytest.mark.threat("T74")
@pytest.mark.parametrize(
    ("said", "given"),
    [
        ("a\nb\tc", "a\nb\tc"),
        ("$(touch /tmp/x) `id` ; rm -rf / | \" ' \\", "$(touch /tmp/x) `id` ; rm -rf / | \" ' \\"),
        ("nul\x00l", "null"),
        ("\x1b[2Jred\r\x7f\x85", "[2Jred"),
        ("émoji \U0001f4be \u202egnp \u2028", "émoji \U0001f4be \u202egnp \u2028"),
        ("password: secret token=1", "password: secret token=1"),
    ],
)
def test_hostile_values_are_handed_over_word_for_word(said: str, given: str) -> None:
    found = told(EventKind.IMAGE_CACHED, facts_for(replace(LISTED, title=said, description=said)))
    assert found is not None
    assert found["VMCATCHER_EVENT_DC_TITLE"] == found["VMCATCHER_EVENT_DC_DESCRIPTION"] == given


@pytest.mark.threat("T74")
def test_a_value_has_four_kib_at_most_and_whole_characters() -> None:
    found = told(EventKind.IMAGE_CACHED, facts_for(replace(LISTED, description="é" * 10_000)))
    assert found is not None
    assert found["VMCATCHER_EVENT_DC_DESCRIPTION"] == "é" * 2048


@pytest.mark.threat("T78")
@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "."])
def test_a_file_name_that_is_a_path_is_not_handed_over(name: str) -> None:
    found = told(EventKind.IMAGE_CACHED, facts_for() | {"file_name": name})
    assert found is not None
    assert "VMCATCHER_EVENT_FILENAME" not in found


def test_an_image_that_is_handed_out_to_nobody_is_not_told() -> None:
    facts = image_facts("egi", CONTENT, LISTED)
    assert told(EventKind.IMAGE_CACHED, facts) is None
    assert told(EventKind.IMAGE_UNCACHED, facts) is not None


def test_an_image_with_another_checksum_is_told_with_the_sha512_that_the_cache_knows() -> None:
    other = replace(LISTED, checksum=Checksum.of(b"image", "sha256"))
    without = told(EventKind.IMAGE_CACHED, facts_for(other))
    known = told(
        EventKind.IMAGE_CACHED, image_facts("egi", CONTENT, other, file_name=IMAGE, sha512=Checksum.of(b"image"))
    )
    assert without is not None
    assert known is not None
    assert "VMCATCHER_EVENT_SL_CHECKSUM_SHA512" not in without
    assert known["VMCATCHER_EVENT_SL_CHECKSUM_SHA512"] == Checksum.of(b"image").hexdigest


def test_what_another_vmcatcher_told_is_told_again_as_it_was() -> None:
    first = told(EventKind.IMAGE_CACHED, facts_for())
    assert first is not None
    assert told(EventKind.IMAGE_CACHED, facts_of(first)) == first


@pytest.mark.parametrize("size", ["-1", "1e9", "x", "9" * 30, "٣"])
def test_a_size_that_is_no_size_is_left_out(size: str) -> None:
    listed = facts_of({"VMCATCHER_EVENT_HV_SIZE": size, "VMCATCHER_EVENT_DC_TITLE": "t"})["listed"]
    assert listed == {"title": "t"}


@pytest.mark.threat("T78")
@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", ".", "a/b"])
def test_a_file_name_of_another_machine_that_is_a_path_is_told_to_nobody(name: str):
    assert "file_name" not in facts_of({"VMCATCHER_EVENT_FILENAME": name, "VMCATCHER_EVENT_DC_TITLE": "t"})
