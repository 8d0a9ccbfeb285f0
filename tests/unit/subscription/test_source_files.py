# SPDX-License-Identifier: Apache-2.0
"""Which images a checksum file gives, and which options are accepted."""

from __future__ import annotations

from typing import Any

import pytest

from coppice.errors import DocumentError, InputError
from coppice.formats.checksum_file import read_checksum_file
from coppice.formats.limits import DEFAULT_LIMITS, ListLimits
from coppice.model.identifiers import ListIdentifier
from coppice.subscription.source.files import FilesSource
from coppice.subscription.source.files_images import choose, make_images
from coppice.subscription.source.files_options import place_of, read_address, read_options

pytestmark = pytest.mark.unit
LIST = ListIdentifier("0b4f2f1e-5f0e-4b8b-9d6e-0a4b3a0f8c11")
DEBIAN = r"debian-(?P<release>[0-9]+)-generic-(?P<arch>amd64|arm64)-(?P<version>[0-9-]+)\.qcow2"
A = "a" * 64


def made(names: dict[str, int], pattern: str, *, limits: ListLimits = DEFAULT_LIMITS, **options: Any) -> Any:
    read = read_options({"trust": "transport", "pattern": pattern, **options})
    files = read_checksum_file("".join(f"{A}  {name}\n" for name in names).encode())
    place = read_address("https://mirror.example.org/cloud")
    return make_images(
        choose(files, read), read, place, names, list_identifier=LIST, list_version="20260101000000", limits=limits
    )


def test_the_newest_of_each_kind_is_listed():
    names = {
        "debian-12-generic-amd64-20260101-9.qcow2": 1,
        "debian-12-generic-amd64-20260101-10.qcow2": 2,
        "debian-12-generic-arm64-20260101-9.qcow2": 3,
        "debian-13-generic-amd64-20251231-1.qcow2": 4,
        "debian-13-generic-amd64-20251231-1.tar.xz": 5,
        "debian-13-nocloud-amd64-20251231-1.qcow2": 6,
    }
    images, unreadable = made(names, DEBIAN, title="Debian", os_name="Debian", os_version="12")
    assert not unreadable
    assert {(each.version, each.operating_system.architecture, each.size_bytes) for each in images} == {
        ("20260101-10", "x86_64", 2),
        ("20260101-9", "aarch64", 3),
        ("20251231-1", "x86_64", 4),
    }
    assert {each.title for each in images} == {"Debian (x86_64)", "Debian (aarch64)"}
    assert images[0].uri == "https://mirror.example.org/cloud/debian-12-generic-amd64-20260101-10.qcow2"
    assert images[0].declared_format == "qcow2"
    older, _ = made({"debian-12-generic-amd64-20250101-1.qcow2": 1}, DEBIAN)
    assert older[0].identifier == images[0].identifier


def test_a_file_whose_name_has_no_version_has_its_lists():
    images, _ = made({"noble-amd64.img": 1}, r"noble-(?P<arch>amd64)\.img")
    assert [each.version for each in images] == ["20260101000000"]
    assert images[0].declared_format is None
    assert images[0].title == "noble-amd64.img"


@pytest.mark.threat("T44")
@pytest.mark.parametrize(
    ("names", "pattern", "problem"),
    [
        ({"a-1.img": 1, "b/a-1.img": 1}, r"(b/)?a-(?P<version>[0-9.]+)\.img", "both fit"),
        ({"x/a.img": 1, "y/a.img": 1}, r"[xy]/a\.img", "both fit"),
        ({"a-~.img": 1}, r"a-(?P<version>.)\.img", "not a version"),
        ({"a.img": 0}, r"a\.img", "size is not known"),
    ],
)
def test_what_cannot_be_told_apart_is_unknown(names: dict[str, int], pattern: str, problem: str):
    images, unreadable = made(names, pattern, architecture="x86_64")
    assert images == ()
    assert len(unreadable) == 1
    assert problem in unreadable[0].problem


def test_an_image_says_for_which_architecture_it_is():
    images, unreadable = made({"a.img": 1}, r"a\.img")
    assert images == ()
    assert "architecture" in unreadable[0].problem
    assert made({"a.img": 1}, r"a\.img", architecture="amd64")[0][0].operating_system.architecture == "x86_64"


def test_there_are_no_more_images_than_a_list_may_have():
    with pytest.raises(DocumentError):
        made({f"{name}.img": 1 for name in "abc"}, r"(?P<name>.)\.img", limits=ListLimits(images=2))


@pytest.mark.threat("T25")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pattern": "a"},
        {"trust": "transport"},
        {"trust": "transport", "pattern": "(a+)+"},
        {"trust": "transport", "pattern": "a", "directory": "(a|b)*"},
        {"trust": "transport", "pattern": "a", "checksums": "../SHA256SUMS"},
        {"trust": "transport", "pattern": "a", "checksums": "a/b"},
        {"trust": "transport", "pattern": "a", "checksums": "a", "checksums_pattern": "b"},
        {"trust": "transport", "pattern": "a", "signature": "/x"},
        {"trust": "transport", "pattern": "a", "below": "../x"},
        {"trust": "transport", "pattern": "a", "architecture": "a b"},
        {"trust": "transport", "pattern": "a", "format": "exe"},
        {"trust": "transport", "pattern": "a", "keyring": "/x"},
        {"keyring": "x", "pattern": "a"},
        {"trust": "transport", "pattern": "a", "patern": "b"},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object]):
    with pytest.raises(InputError):
        FilesSource.check_options(options)


@pytest.mark.parametrize(
    "uri", ["", "ftp://a/b", "https:///a", "https://a/b?c", "https://j:s@a/b", "https://[a", "file://b/c"]
)
def test_another_address_is_refused(uri: str):
    with pytest.raises(InputError):
        read_address(uri)


def test_a_message_is_of_the_place_that_the_options_name():
    base = read_address("https://a.example/x/")
    fixed = read_options({"trust": "transport", "pattern": "a"})
    found = place_of("https://a.example/x/SHA256SUMS", base, fixed)
    assert found is not None
    assert found[0].root == "https://a.example/x/"
    several = read_options({"trust": "transport", "pattern": "a", "directory": "[0-9]+", "below": "b/c"})
    found = place_of("https://a.example/x/20260101/b/c/SHA256SUMS", base, several)
    assert found is not None
    assert found[0].directory == "20260101"
    assert found[0].uri("d e.img") == "https://a.example/x/20260101/b/c/d%20e.img"
    for uri in (
        "https://b.example/x/SHA256SUMS",
        "https://a.example/x/SHA512SUMS",
        "https://a.example/x/y/SHA256SUMS",
        "https://a.example/x/../SHA256SUMS",
        "https://a.example/x/20260101/b/c/SHA256SUMS",
        "",
    ):
        assert place_of(uri, base, fixed) is None
    for uri in (
        "https://a.example/x/SHA256SUMS",
        "https://a.example/x/latest/b/c/SHA256SUMS",
        "https://a.example/x/20260101/SHA256SUMS",
        "https://a.example/x/20260101/b/c/../SHA256SUMS",
    ):
        assert place_of(uri, base, several) is None
