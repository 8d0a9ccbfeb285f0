# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import DocumentError
from coppice.formats.debian_index import PARAGRAPH_LIMIT_BYTES, IndexedFile, read_packages, read_release

pytestmark = pytest.mark.unit

DIGEST = "a" * 64
RELEASE = f"""\
Origin: Debian
Label: Debian-Security
Suite: oldstable-security
Codename: bookworm-security
Date: Sat, 07 Nov 2026 10:00:00 UTC
Valid-Until: Sat, 14 Nov 2026 10:00:00 UTC
Acquire-By-Hash: yes
Components: main contrib
MD5Sum:
 {"0" * 32} 12 main/binary-amd64/Packages
SHA256:
 {DIGEST} 12 main/binary-amd64/Packages
 {"b" * 64}      7 main/binary-amd64/Packages.xz
"""


def test_a_release_says_when_it_was_made_how_long_it_counts_and_what_it_vouches_for():
    release = read_release(RELEASE.encode())
    assert release.date == datetime(2026, 11, 7, 10, tzinfo=UTC)
    assert release.valid_until == datetime(2026, 11, 14, 10, tzinfo=UTC)
    assert release.by_hash
    assert (release.origin, release.label) == ("Debian", "Debian-Security")
    assert release.files == {
        "main/binary-amd64/Packages": IndexedFile(size_bytes=12, sha256=DIGEST),
        "main/binary-amd64/Packages.xz": IndexedFile(size_bytes=7, sha256="b" * 64),
    }


@pytest.mark.parametrize(
    ("label", "suite", "codename", "expected"),
    [
        ("Debian-Security", "oldstable-security", "bookworm-security", True),
        ("Ubuntu", "jammy-security", "jammy", True),
        ("Debian-Security", "stable", "bookworm", True),
        ("Debian", "stable", "bookworm", False),
        ("Debian", "stable-updates", "bookworm-updates", False),
        ("Insecurity", "stable", "bookworm", False),
    ],
)
def test_a_security_archive_is_known_by_its_label_or_by_its_suite(label, suite, codename, expected):
    text = RELEASE.replace("oldstable-security", suite).replace("bookworm-security", codename)
    assert read_release(text.replace("Debian-Security", label).encode()).is_security is expected


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\xff\xfe",
        RELEASE.replace("Date:", "Dated:").encode(),
        RELEASE.replace("Sat, 07 Nov 2026 10:00:00 UTC", "yesterday").encode(),
        RELEASE.replace("SHA256:", "SHA1:").encode(),
        RELEASE.replace(DIGEST, "short").encode(),
        RELEASE.encode() + b"Label: Another\n",
        RELEASE.encode() + f" {'c' * 64} 12 main/binary-amd64/Packages\n".encode(),
        b"<html>not found</html>",
    ],
    ids=["empty", "bytes", "dateless", "no date", "no digests", "no digest", "twice", "two contents", "page"],
)
def test_what_is_no_release_is_refused(wrong):
    with pytest.raises(DocumentError):
        read_release(wrong)


def packages(*entries):
    return "\n".join(
        f"Package: {name}\nArchitecture: amd64\nVersion: {version}\nDescription: a thing\n of two lines\n"
        for name, version in entries
    ).encode()


def test_of_several_versions_of_a_package_the_highest_counts():
    text = packages(("bash", "5.2-1"), ("zlib1g", "1:1.2.13"), ("bash", "5.10-1"), ("bash", "5.10-1~rc1"))
    assert read_packages([text]) == {"bash": "5.10-1", "zlib1g": "1:1.2.13"}


def test_an_index_without_packages_has_none():
    assert read_packages([]) == {}
    assert read_packages([b"\n"]) == {}


@given(st.lists(st.integers(min_value=1, max_value=400), max_size=8))
def test_it_does_not_matter_in_which_pieces_an_index_comes(cuts):
    text = packages(("a", "1"), ("b", "2:3-4"), ("c", "0~beta"), ("a", "2"))
    pieces, start = [], 0
    for cut in cuts:
        pieces.append(text[start : start + cut])
        start += cut
    assert read_packages([*pieces, text[start:]]) == {"a": "2", "b": "2:3-4", "c": "0~beta"}


@pytest.mark.parametrize(
    "wrong",
    [
        b"Package: bash\n",
        b"Version: 1\n",
        b"Package: bash\nVersion: no version\n",
        b"Package: bash\nVersion: 1\nVersion: 2\n",
        b"Package: ../x\nVersion: 1\n",
        b"Package: \xff\nVersion: 1\n",
    ],
)
def test_an_entry_that_is_no_package_is_refused(wrong):
    with pytest.raises(DocumentError):
        read_packages([packages(("a", "1")), b"\n", wrong])


def test_an_entry_without_end_is_refused_before_it_is_held():
    def without_end():
        yield b"Package: a\nVersion: 1\nDescription: "
        while True:
            yield b"x" * 65536

    with pytest.raises(DocumentError, match=str(PARAGRAPH_LIMIT_BYTES)):
        read_packages(without_end())
