# SPDX-License-Identifier: Apache-2.0
"""Bills of materials, held against other people's readers of both forms."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from coppice.errors import DocumentError
from coppice.factory.model import BuiltImage, Package
from coppice.formats.bill import Bill, BillFile, package_url, source_of
from coppice.formats.cyclonedx import write_cyclonedx
from coppice.formats.spdx import write_spdx
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem

pytestmark = pytest.mark.unit

DEBIAN = OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64")


def image(name: str) -> BuiltImage:
    facts = Image(format=DiskFormat.QCOW2, size_bytes=1, virtual_size_bytes=1, checksum=Checksum.of(name.encode()))
    return BuiltImage(path=Path("/builds") / name, image=facts)


BILL = Bill(
    name="debian-12",
    title="Debian 12 “minimal”",
    build="ab" * 32,
    operating_system=DEBIAN,
    images=(image("debian-12.qcow2"), image("debian-12.vmdk")),
    packages=(
        Package(name="g++", version="4:12.2.0-3", architecture="amd64", source="gcc-defaults", source_version="1.203"),
        Package(name="libc6", version="2.36-9+deb12u8", architecture="amd64", source="glibc"),
        Package(name="libc6", version="2.36-9+deb12u8", architecture="i386", source="glibc"),
        Package(name="tzdata", version="2024a-0+deb12u1~x", architecture="all"),
        Package(name="bash", version="5.1.8-9.el9", architecture="x86_64", manager="rpm", licence="GPLv3+"),
    ),
    files=(
        BillFile(path="/etc/motd", sha256="0" * 64, sha1="0" * 40),
        BillFile(path="/srv/ein „Name\udce4“", sha256="1" * 64, sha1="1" * 40),
    ),
    created=datetime(2026, 11, 26, 12, tzinfo=UTC),
    tool=("coppice", "0.1.0"),
)


def problems_of_spdx(payload: bytes) -> list[str]:
    document = JsonLikeDictParser().parse(json.loads(payload))
    return [each.validation_message for each in validate_full_spdx_document(document)]


def problem_of_cyclonedx(payload: bytes) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(payload.decode())


def test_both_forms_are_what_their_own_readers_take() -> None:
    assert problem_of_cyclonedx(write_cyclonedx(BILL)) is None
    assert problems_of_spdx(write_spdx(BILL)) == []


def test_a_bill_of_nothing_is_still_one() -> None:
    empty = replace(BILL, packages=(), files=())
    assert problem_of_cyclonedx(write_cyclonedx(empty)) is None
    assert problems_of_spdx(write_spdx(empty)) == []


def test_the_same_bill_makes_the_same_bytes_and_another_image_another_name() -> None:
    for write in (write_cyclonedx, write_spdx):
        assert write(BILL) == write(replace(BILL))
    other = replace(BILL, images=(image("other.qcow2"),))
    assert other.identifier != BILL.identifier
    assert json.loads(write_spdx(other))["documentNamespace"] != json.loads(write_spdx(BILL))["documentNamespace"]


def test_every_package_and_file_and_image_is_in_both() -> None:
    cyclone, spdx = json.loads(write_cyclonedx(BILL)), json.loads(write_spdx(BILL))
    told = [(each["name"], each["version"]) for each in cyclone["components"] if each["type"] == "library"]
    assert told == [(package.name, package.version) for package in BILL.packages]
    own = {each["SPDXID"]: each for each in spdx["packages"]}
    contained = {each["relatedSpdxElement"] for each in spdx["relationships"] if each["relationshipType"] == "CONTAINS"}
    assert [(own[key]["name"], own[key]["versionInfo"]) for key in own if key in contained] == told
    assert next(each["name"] for each in cyclone["components"] if each["type"] == "file") == "/etc/motd"
    assert spdx["files"][0]["fileName"] == "./etc/motd"
    digest = BILL.images[0].image.checksum.hexdigest
    assert cyclone["metadata"]["component"]["components"][0]["hashes"] == [{"alg": "SHA-512", "content": digest}]
    assert spdx["packages"][1]["checksums"] == [{"algorithm": "SHA512", "checksumValue": digest}]


def test_a_package_url_reads_as_it_was_meant() -> None:
    found = PackageURL.from_string(package_url(BILL.packages[0], DEBIAN))
    assert (found.type, found.namespace, found.name, found.version) == ("deb", "debian", "g++", "4:12.2.0-3")
    assert found.qualifiers == {"arch": "amd64", "distro": "debian-12"}
    leap = OperatingSystem(kind="Linux", distribution="openSUSE Leap", version="15.6", architecture="x86_64")
    assert package_url(BILL.packages[4], leap).startswith("pkg:rpm/opensuse-leap/bash@5.1.8-9.el9?arch=x86_64")


def test_a_package_of_an_unknown_manager_is_refused_by_name() -> None:
    with pytest.raises(DocumentError, match="odd"):
        write_cyclonedx(replace(BILL, packages=(Package(name="odd", version="1", architecture="x", manager="egg"),)))


def test_a_source_that_is_not_named_is_the_package_itself() -> None:
    assert [source_of(package) for package in BILL.packages[:2]] == ["gcc-defaults 1.203", "glibc 2.36-9+deb12u8"]
    assert source_of(BILL.packages[3]) == "tzdata 2024a-0+deb12u1~x"


NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9+.-]{1,20}\Z")
VERSIONS = st.from_regex(r"\A(?:[1-9]:)?[0-9][0-9a-zA-Z.+~]{0,12}(?:-[0-9a-z.+~]{1,6})?\Z")


@given(NAMES, VERSIONS)
@settings(max_examples=60)
def test_any_package_url_comes_back_as_it_went(name: str, version: str) -> None:
    package = Package(name=name, version=version, architecture="amd64")
    url = package_url(package, DEBIAN)
    found = PackageURL.from_string(url)
    assert (found.name, found.version) == (name, version)
    assert found.to_string() == url
