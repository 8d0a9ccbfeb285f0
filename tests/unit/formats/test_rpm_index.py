# SPDX-License-Identifier: Apache-2.0
"""The indices of repositories of RPM packages, made up."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from coppice.errors import DocumentError
from coppice.formats import rpm_advisories, rpm_index
from coppice.formats.rpm_advisories import SecurityFix, read_advisories, worst
from coppice.formats.rpm_index import Obsoleted, RpmOffer, read_index, read_primary
from coppice.formats.rpm_version import RpmVersion
from coppice.testing.repodata import MadeUpAdvisory, MadeUpPackage, primary, repomd, updateinfo

pytestmark = pytest.mark.unit

FILES = {
    "primary": ("repodata/p.xml.gz", b"p"),
    "filelists": ("repodata/f.xml.gz", b"f"),
    "updateinfo": ("repodata/u.xml.zst", b"u"),
}
DIGEST = hashlib.sha256(b"p").hexdigest().encode()


def package(name, version, architecture="x86_64", *obsoletes):
    return MadeUpPackage(name=name, version=version, architecture=architecture, obsoletes=obsoletes)


def offers(*packages):
    return read_primary([primary(packages)])


def test_an_index_vouches_for_its_files_and_says_when_they_were_made():
    found = read_index(repomd(FILES, timestamp=1764150000))
    assert found.made_at == datetime(2025, 11, 26, 9, 40, tzinfo=UTC)
    assert sorted(found.files) == ["primary", "updateinfo"]
    entry = found.files["primary"]
    assert (entry.path, entry.size_bytes) == ("repodata/p.xml.gz", 1)
    assert entry.checksum.hexdigest == DIGEST.decode()
    # What is of a kind that nobody reads does not count, be it of the year 5138.
    said = repomd(FILES, timestamp=1764150000)
    at = said.index(b"<timestamp>", said.index(b"repodata/f.xml.gz"))
    assert read_index(said[:at] + said[at:].replace(b"1764150000", b"99999999999", 1)).made_at == found.made_at
    # Older programs write fractions of seconds.
    assert read_index(repomd(FILES, timestamp="1764150000.43")).made_at == found.made_at


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (b"repodata/p.xml.gz", b"../../../etc/passwd", "no place"),
        (b"repodata/p.xml.gz", b"repodata/../p.xml.gz", "no place"),
        (b"repodata/p.xml.gz", b"/etc/passwd", "no place"),
        (b"repodata/p.xml.gz", b"http://elsewhere.example/p.xml.gz", "no place"),
        (b'<location href="repodata/p', b'<location xml:base="http://e.example/" href="repodata/p', "no place"),
        (b'<location href="repodata/p.xml.gz"/>', b"", "no place"),
        (b'"sha256">' + DIGEST, b'"md5">' + hashlib.md5(b"p").hexdigest().encode(), "not accepted"),  # noqa: S324
        (b'"sha256">' + DIGEST, b'"sha">' + hashlib.sha1(b"p").hexdigest().encode(), "not accepted"),  # noqa: S324
        (b'"sha256">' + DIGEST, b'"sha256">' + DIGEST[:-1], "checksum"),
        (b"<size>1</size>", b"<size>-1</size>", "size"),
        (b"<timestamp>7</timestamp>", b"", "when it was made"),
        (b'"updateinfo"', b'"primary"', "two things"),
        (b"<repomd ", b"<!DOCTYPE x><repomd ", "document type"),
    ],
)
def test_an_index_that_is_none_is_refused(before, after, why):
    said = repomd(FILES, timestamp=7)
    assert before in said
    with pytest.raises(DocumentError, match=why):
        read_index(said.replace(before, after))


def test_an_index_that_is_too_long_is_refused():
    with pytest.raises(DocumentError, match="longer than"):
        read_index(b" " * (4 * 1024 * 1024 + 1))


def test_of_each_package_the_highest_version_of_an_architecture_counts_and_no_source():
    found = offers(
        package("bash", "5.1-9"),
        package("bash", "5.1-10"),
        package("bash", "5.1-2", "i686"),
        package("bash", "9-9", "src"),
        package("grub2", "1:2.06-1", "noarch"),
        package("nodejs", "1:20.1-1.module+el9.3+1"),
        package("nodejs", "1:16.2-1"),
    )
    assert found["bash"] == (
        RpmOffer(name="bash", version="5.1-10", architecture="x86_64"),
        RpmOffer(name="bash", version="5.1-2", architecture="i686"),
    )
    assert [(each.version, each.is_modular) for each in found["nodejs"]] == [
        ("1:20.1-1.module+el9.3+1", True),
        ("1:16.2-1", False),
    ]
    assert found["grub2"][0].version == "1:2.06-1"


def test_what_a_package_obsoletes_is_read():
    [found] = offers(package("new", "2-1", "noarch", "old LT 2-1", "older", "same LE 1:3"))["new"]
    assert found.obsoletes == (
        Obsoleted(name="old", flag="LT", version="2-1"),
        Obsoleted(name="older", flag="", version=""),
        Obsoleted(name="same", flag="LE", version="1:3"),
    )


@pytest.mark.parametrize(
    "bound",
    ["flags='??'", "flags='LT'", "flags='LT' ver=''", "flags='LT' ver='1 2'", "flags='LT' epoch='-1' ver='1'"],
)
def test_of_what_is_obsoleted_in_an_odd_way_nobody_can_tell_and_the_rest_is_read(bound):
    said = primary([package("new", "2-1", "noarch", "old LT 2-1")])
    entry = f"<rpm:obsoletes><rpm:entry name='some' {bound}/>".encode()
    [found] = read_primary([said.replace(b"<rpm:obsoletes>", entry)])["new"]
    odd, plain = found.obsoletes
    assert (odd.name, odd.is_odd, odd.has(RpmVersion("1-1")), plain.is_odd) == ("some", True, False, False)


@pytest.mark.parametrize("name", ["", "a b", "x" * 256, "../x", "cap(x)"])
def test_what_is_obsoleted_and_is_called_like_no_package_is_left_out(name):
    said = primary([package("new", "2-1", "noarch", "old")])
    [found] = read_primary([said.replace(b'"old"', f'"{name}"'.encode())])["new"]
    assert found.obsoletes == ()


@pytest.mark.parametrize(
    ("flag", "bound", "has", "has_not"),
    [
        ("", "", ["1-1", "9:9-9"], []),
        ("LT", "2-5", ["2-4", "1:1-1"[2:]], ["2-5", "3-1", "1:1-1"]),
        ("LE", "2-5", ["2-5"], ["2-6"]),
        ("LE", "2", ["2-5", "2-99"], ["2.1-1"]),
        ("LT", "2", ["1.9-1"], ["2-5"]),
        ("EQ", "2-5", ["2-5"], ["2-4", "2-6"]),
        ("GE", "1:2", ["1:2-1", "2:1-1"], ["3-1"]),
        ("GT", "2-5", ["2-6"], ["2-5"]),
    ],
)
def test_what_is_obsoleted_goes_by_version_and_by_release_where_both_say_one(flag, bound, has, has_not):
    obsoleted = Obsoleted(name="x", flag=flag, version=bound)
    assert all(obsoleted.has(RpmVersion(each)) for each in has)
    assert not any(obsoleted.has(RpmVersion(each)) for each in has_not)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (b"<name>bash</name>", b"<name>ba sh</name>", "name is none"),
        (b"<name>bash</name>", b"", "name is none"),
        (b"<name>bash</name>", b"<name>bash</name><name>dash</name>", "two things"),
        (b"<arch>x86_64</arch>", b"<arch>../x</arch>", "architecture is none"),
        (b'ver="5.1"', b'ver="5-1"', "no version"),
        (b'ver="5.1"', b"", "no version"),
        (b'epoch="0"', b'epoch="-1"', "no version"),
        (b'<version epoch="0" ver="5.1" rel="1"/>', b"", "without a version"),
        (b'rel="1"/>', b'rel="1"/><version epoch="0" ver="9" rel="9"/>', "two versions"),
        (b"<metadata ", b'<!DOCTYPE m [<!ENTITY a "aaaa">]><metadata ', "document type"),
        (b"</metadata>", b"", "no element found"),
        (b"<metadata", b"<metadatum", "begins with|mismatched"),
    ],
)
def test_packages_that_are_none_are_refused(before, after, why):
    said = primary([package("bash", "5.1-1")])
    assert before in said
    with pytest.raises(DocumentError, match=why):
        read_primary([said.replace(before, after)])


def test_there_is_an_end_to_packages_and_to_what_they_obsolete(monkeypatch):
    monkeypatch.setattr(rpm_index, "MAX_PACKAGES", 1)
    with pytest.raises(DocumentError, match="more than 1 packages"):
        offers(package("a", "1-1"), package("b", "1-1"))


def test_advisories_say_which_packages_close_security_holes_and_how_grave_they_are():
    found = read_advisories(
        [
            updateinfo(
                [
                    MadeUpAdvisory(packages=(package("bash", "5.1-2"), package("bash", "5.1-2", "src"))),
                    MadeUpAdvisory(packages=(package("bash", "5.1-3"),), kind="bugfix"),
                    MadeUpAdvisory(packages=(package("vim", "2:9-1"),), severity="Urgent"),
                    MadeUpAdvisory(packages=(package("vim", "2:9-2", "noarch"),), severity=""),
                ]
            )
        ]
    )
    assert found == {
        "bash": (SecurityFix(name="bash", version="5.1-2", architecture="x86_64", severity="important"),),
        "vim": (
            SecurityFix(name="vim", version="2:9-1", architecture="x86_64", severity=""),
            SecurityFix(name="vim", version="2:9-2", architecture="noarch", severity=""),
        ),
    }


def test_advisories_that_are_none_are_refused(monkeypatch):
    said = updateinfo([MadeUpAdvisory(packages=(package("bash", "5.1-2"),))])
    for before, after in ((b'"5.1"', b'"5 1"'), (b'"bash"', b'"b/sh"'), (b"<updates>", b"<!DOCTYPE u><updates>")):
        with pytest.raises(DocumentError):
            read_advisories([said.replace(before, after)])
    # An epoch that is not said is 0.
    assert read_advisories([said.replace(b'epoch="0"', b'epoch="(none)"')])["bash"][0].version == "5.1-2"
    assert read_advisories([said.replace(b'epoch="0" ', b"")])["bash"][0].version == "5.1-2"
    monkeypatch.setattr(rpm_advisories, "MAX_FIXES", 0)
    monkeypatch.setattr(rpm_advisories._Advisories, "__init__", _with_none_left(rpm_advisories._Advisories.__init__))
    with pytest.raises(DocumentError, match="more than 0"):
        read_advisories([said])


def _with_none_left(init):
    def start(self):
        init(self, _left=0)

    return start


def test_the_gravest_of_several_counts():
    assert worst(["low", "", "critical", "moderate"]) == "critical"
    assert worst(["", ""]) == ""
    assert worst([]) == ""
