# SPDX-License-Identifier: Apache-2.0
"""Which images a stream gives: filters, versions, types, checksums, and what cannot be read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import CoppiceError, DocumentError, InputError
from coppice.formats.limits import DEFAULT_LIMITS, ListLimits
from coppice.formats.simplestreams import StreamProducts, read_streams
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ListIdentifier
from coppice.subscription.source.simplestreams import SimplestreamsSource
from coppice.subscription.source.simplestreams_images import ImageMaker
from coppice.subscription.source.simplestreams_options import (
    read_address,
    read_filter,
    read_options,
    split_filters,
)
from coppice.testing import streams

if TYPE_CHECKING:
    from coppice.imagelist.model import ListedImage, UnreadableEntry

pytestmark = pytest.mark.unit
LIST = ListIdentifier("0b4f2f1e-5f0e-4b8b-9d6e-0a4b3a0f8c11")
BASE = "https://mirror.example.org/releases/"
NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)


def make(
    document: Any, *filters: str, limits: ListLimits = DEFAULT_LIMITS, **options: Any
) -> tuple[tuple[ListedImage, ...], tuple[UnreadableEntry, ...]]:
    given = {"trust": "transport", **({"filters": list(filters)} if filters else {}), **options}
    found = read_streams(json.dumps(document).encode())
    assert isinstance(found, StreamProducts)
    return ImageMaker(found, read_options(given), read_address(BASE, signed=True), LIST, limits).make()


def released(**versions: bytes) -> Any:
    held = {name.removeprefix("v").replace("_", "."): data for name, data in versions.items()} or {"20260101": b"a"}
    found = {
        f"server:{release}:{arch}": streams.ubuntu_product(release, arch, held)
        for release in ("noble", "jammy")
        for arch in ("amd64", "arm64")
    }
    return streams.products("released", found, updated=NOW)


def only(document: Any, *filters: str, **options: Any) -> ListedImage:
    images, unreadable = make(document, *(filters or ("release=noble", "arch=amd64", "ftype=disk1.img")), **options)
    assert unreadable == ()
    (image,) = images
    return image


def test_an_image_says_what_its_product_says():
    image = only(released(v20260101=b"old", v20260101_9=b"x", v20260101_10=b"new"))
    assert image.version == "20260101.10"
    assert image.checksum == Checksum.of(b"new", "sha256")
    assert image.size_bytes == 3
    assert image.uri == (f"{BASE}server/releases/noble/release-20260101.10/ubuntu-24.04-server-cloudimg-amd64.img")
    assert image.operating_system.distribution == "ubuntu"
    assert image.operating_system.version == "24.04"
    assert image.operating_system.architecture == "x86_64"
    assert image.title == "ubuntu 24.04 LTS amd64 disk1.img"
    assert image.expires == datetime(2029, 6, 1, tzinfo=UTC)
    assert image.declared_format == "qcow2"
    assert image.extra["simplestreams:aliases"] == ["24.04", "noble", "default", "lts"]
    assert image.extra["simplestreams:combined_sha256"]


def test_the_end_of_support_can_be_ignored_and_is_shown_all_the_same():
    image = only(released(), "release=noble", "arch=amd64", "ftype=disk1.img", support_eol="ignore")
    assert image.expires is None
    assert image.extra["simplestreams:support_eol"] == "2029-05-31"


def test_only_disks_are_taken_where_no_filter_says_which_items():
    images, unreadable = make(released())
    assert not unreadable
    assert {image.extra["simplestreams:ftype"] for image in images} == {"disk1.img"}
    assert len(images) == 4
    with_root, _ = make(released(), "ftype~(ova|squashfs)")
    assert len(with_root) == 8


def test_servers_of_lxd_give_virtual_machines_with_their_fingerprints():
    found = {"alpine:3.22:amd64:default": streams.lxd_product("Alpine", "3.22", "amd64", {"20260101_13:00": b"vm"})}
    image = only(streams.products("images", found, updated=None), "aliases=alpine/3.22")
    assert image.version == "20260101_13:00"
    assert image.uri == f"{BASE}images/alpine/3.22/amd64/default/20260101_13:00/disk.qcow2"
    assert image.extra["simplestreams:combined_sha256"] == Checksum.of(b"metavm", "sha256").hexdigest
    assert image.extra["simplestreams:requirements"] == {"secureboot": "false"}
    assert image.title == "Alpine 3.22 default amd64 disk-kvm.img"


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (("release~(noble|jammy)",), 4),
        (("release~nob",), 2),
        (("release!~nob",), 2),
        (("release!=noble", "arch=arm64"), 1),
        (("aliases=24.04",), 2),
        (("aliases~24",), 2),
        (("supported=True",), 4),
        (("supported=true",), 4),
        (("supported=false",), 0),
        (("product_name=server:noble:amd64",), 1),
        (("version_name~2026",), 4),
        (("item_name=disk1.img",), 4),
        (("content_id=released",), 4),
        (("nothing=",), 4),
        (("nothing=x",), 0),
        (("release = noble", "arch = amd64"), 1),
    ],
)
def test_filters_are_those_of_sstream_mirror(filters: tuple[str, ...], count: int):
    images, _ = make(released(), *filters)
    assert len(images) == count


def test_filters_may_be_one_text_with_commas_between_them():
    text = "release~(noble|jammy), arch=amd64,version_name~[0-9]{8,9}"
    assert split_filters(text) == ["release~(noble|jammy)", " arch=amd64", "version_name~[0-9]{8,9}"]
    document = json.dumps(released()).encode()
    found = read_streams(document)
    assert isinstance(found, StreamProducts)
    options = read_options({"trust": "transport", "filters": text})
    images, _ = ImageMaker(found, options, read_address(BASE, signed=True), LIST, DEFAULT_LIMITS).make()
    assert len(images) == 2


@pytest.mark.parametrize("text", ["", "release", "~x", "a b=c", "release~(a+)+", "release~(", "release~"])
def test_a_filter_that_is_none_is_refused(text: str):
    with pytest.raises(InputError):
        read_filter(text)


@pytest.mark.threat("T44")
def test_a_product_that_cannot_be_read_keeps_its_images_of_types_that_a_pattern_chose():
    document = released()
    wanted = ("arch=amd64", "ftype~(squashfs|disk1)")
    before, _ = make(document, *wanted)
    assert len(before) == 4
    document["products"]["server:noble:amd64"]["versions"] = 7
    images, unreadable = make(document, *wanted)
    assert {each.identifier for each in before} <= {each.identifier for each in (*images, *unreadable)}


def test_an_item_that_newer_versions_lack_is_taken_from_an_older_one_but_not_from_any():
    document = released(v20260101=b"1", v20260102=b"2", v20260103=b"3", v20260104=b"4")
    versions = document["products"]["server:noble:amd64"]["versions"]
    for name in ("20260103", "20260104"):
        del versions[name]["items"]["disk1.img"]
    wanted = ("release=noble", "arch=amd64", "ftype=disk1.img")
    assert only(document, *wanted).version == "20260102"
    assert make(document, *wanted, max_items=2) == ((), ())


@pytest.mark.threat("T44")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda item: item.pop("sha256"), "no sha256 or sha512, only md5"),
        (lambda item: item.update(sha256="0" * 63), "not a sha256 digest"),
        (lambda item: item.update(sha512=7), "not a sha512 digest"),
        (lambda item: item.pop("size"), "size"),
        (lambda item: item.update(size=0), "size"),
        (lambda item: item.update(size=-1), "size"),
        (lambda item: item.update(size=True), "size"),
        (lambda item: item.update(size="abc"), "size"),
        (lambda item: item.update(size=1 << 63), "size"),
        (lambda item: item.update(path="../../other"), "path"),
        (lambda item: item.update(path="https://example.org/x"), "path"),
        (lambda item: item.update(path="%2e%2e/x"), "path"),
        (lambda item: item.pop("path"), "path"),
        (lambda item: item.update(support_eol="soon"), "support_eol"),
        (lambda item: item.update(arch="a b"), "architecture"),
        (lambda item: item.update(arch=""), "architecture"),
        (lambda item: item.update(os=["x"]), "os is no short text"),
        (lambda item: item.update(pubname="a\x1bb"), "pubname"),
        (lambda item: item.update(aliases=[1]), "alias"),
    ],
)
def test_an_item_that_cannot_be_read_is_unknown_and_no_older_one_takes_its_place(change: Any, problem: str):
    document = released(v20260101=b"old", v20260102=b"new")
    good = only(document)
    change(document["products"]["server:noble:amd64"]["versions"]["20260102"]["items"]["disk1.img"])
    images, unreadable = make(document, "release=noble", "product_name~server:noble:amd64", "ftype=disk1.img")
    assert images == ()
    assert [each.identifier for each in unreadable] == [good.identifier]
    assert problem in unreadable[0].problem


@pytest.mark.parametrize("doubled", ["20260102.0", "~"])
def test_versions_without_an_order_leave_the_product_unknown(doubled: str):
    document = released(v20260102_0=b"one")
    good = only(document)
    versions = document["products"]["server:noble:amd64"]["versions"]
    versions["20260102-0" if doubled != "~" else "~"] = versions["20260102.0"]
    images, unreadable = make(document, "release=noble", "arch=amd64", "ftype=disk1.img")
    assert images == ()
    assert [each.identifier for each in unreadable] == [good.identifier]


def test_two_items_of_one_type_are_no_answer():
    document = released()
    items = document["products"]["server:noble:amd64"]["versions"]["20260101"]["items"]
    items["other.img"] = items["disk1.img"]
    images, unreadable = make(document, "release=noble", "arch=amd64")
    assert images == ()
    assert "several items" in unreadable[0].problem
    assert only(document, "release=noble", "arch=amd64", "item_name=other.img").version == "20260101"


def test_a_product_that_cannot_be_read_leaves_all_its_images_unknown():
    document = released()
    good = only(document)
    document["products"]["server:noble:amd64"]["versions"] = []
    images, unreadable = make(document)
    assert len(images) == 3
    assert good.identifier in {each.identifier for each in unreadable}


def test_more_images_than_a_list_may_have_are_refused():
    with pytest.raises(DocumentError, match="more than 3"):
        make(released(), limits=ListLimits(images=3))


def test_filters_change_no_identifier():
    assert only(released()).identifier == only(released(), "product_name=server:noble:amd64").identifier


@pytest.mark.parametrize(
    ("uri", "base", "path"),
    [
        ("https://a.example/releases", "https://a.example/releases/", "streams/v1/index.sjson"),
        ("https://a.example/releases/", "https://a.example/releases/", "streams/v1/index.sjson"),
        ("https://a.example/r/streams/v1/index.sjson", "https://a.example/r/", "streams/v1/index.sjson"),
        ("https://a.example/streams/v1/x:y.sjson", "https://a.example/", "streams/v1/x:y.sjson"),
        ("file:///srv/mirror", "file:///srv/mirror/", "streams/v1/index.sjson"),
    ],
)
def test_a_mirror_is_named_by_its_base_or_by_its_index(uri: str, base: str, path: str):
    found = read_address(uri, signed=True)
    assert (found.base, found.path) == (base, path)
    assert read_address("https://a.example/", signed=False).path == "streams/v1/index.json"


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://a.example/",
        "https:///x",
        "file://other.example/x",
        "https://a.example/?x",
        "https://jane:secret@a.example/",
        "https://a.example/streams/v1/../x",
        "https://[a/",
        "",
    ],
)
def test_another_address_is_refused(uri: str):
    with pytest.raises(InputError):
        read_address(uri, signed=True)


@pytest.mark.threat("T25")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"keyring": "ring.gpg"},
        {"keyring": "/ring.gpg", "trust": "transport"},
        {"trust": "flase"},
        {"trust": "local"},
        {"trust": "transport", "signer": "A" * 40},
        {"keyring": "/ring.gpg", "signer": "DEADBEEF"},
        {"trust": "transport", "max_items": 0},
        {"trust": "transport", "support_eol": "never"},
        {"trust": "transport", "filter": "a=b"},
        {"trust": "transport", "valid_days": 0},
        {"trust": "transport", "filters": [7]},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object]):
    with pytest.raises(InputError):
        SimplestreamsSource.check_options(options)


def test_a_fingerprint_may_be_written_as_people_read_it():
    written = "d2eb 4462 6fdd c30b 513d  5bb7 1a5d 6c4c 7db8 7c81"
    found = read_options({"keyring": ["/a.gpg", "/b.asc"], "signer": written})
    assert found.trust.signer == "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"
    assert [str(each) for each in found.trust.keyrings] == ["/a.gpg", "/b.asc"]


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.lists(st.text(max_size=3), max_size=2)


@given(
    st.dictionaries(
        st.sampled_from(["sha256", "size", "path", "arch", "os", "ftype", "aliases", "support_eol"]), VALUES
    )
)
def test_no_item_breaks_the_maker_of_images(changed: dict[str, object]):
    document = released()
    for product in document["products"].values():
        for item in product["versions"]["20260101"]["items"].values():
            item.update(changed)
    try:
        images, unreadable = make(document)
    except CoppiceError:
        return
    identifiers = [each.identifier for each in (*images, *unreadable)]
    assert len(set(identifiers)) == len(identifiers)
