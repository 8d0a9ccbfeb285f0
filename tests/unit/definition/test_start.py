# SPDX-License-Identifier: Apache-2.0
"""What a definition may say of the image that it starts from."""

from __future__ import annotations

import pytest

from coppice.definition.read import read_definition
from coppice.errors import DefinitionError
from coppice.formats.definition import definition_document, definition_from

pytestmark = pytest.mark.unit

HEAD = """\
[appliance]
title = "Own"
description = "Made of a finished image."

[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"

[build]
builder = "image"
disk-size = "4 GiB"
user = "debian"
"""
SUM = f'checksum = "sha512:{"a" * 128}"'
URL = 'url = "https://images.example.org/12/image.qcow2"'
SIGNED = 'checksums = "https://images.example.org/12/SHA512SUMS"\nkey = "key.asc"'


def read(tmp_path, start, more=""):
    folder = tmp_path / "own"
    folder.mkdir(exist_ok=True)
    (folder / "key.asc").write_text("a key")
    (folder / "appliance.toml").write_text(f"{HEAD}\n[start]\n{start}\n{more}")
    return read_definition(folder)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (f"{URL}\n{SUM}", {"url": "https://images.example.org/12/image.qcow2", "checksum": f"sha512:{'a' * 128}"}),
        (f"{URL}\n{SIGNED}", {"checksums": "https://images.example.org/12/SHA512SUMS", "key": b"a key"}),
        ('catalogue = "debian-12@20260401"', {"catalogue": "debian-12@20260401"}),
        ('catalogue = "debian-12"', {"catalogue": "debian-12", "url": ""}),
        (f'url = "file:///srv/image.raw"\n{SUM}', {"url": "file:///srv/image.raw"}),
    ],
)
def test_a_start_is_read_and_comes_back_from_a_record(tmp_path, said, found):
    definition = read(tmp_path, said)
    assert {name: getattr(definition.start, name) for name in found} == found
    assert definition_from(definition_document(definition)) == definition


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("", "one of catalogue and url must be given"),
        (URL, "one of checksum and checksums must be given"),
        (f'catalogue = "x"\n{URL}\n{SUM}', "are both given"),
        (f"{URL}\n{SUM}\n{SIGNED}", "are both given"),
        (f'catalogue = "x"\n{SUM}', "has its checksum there"),
        (f'{URL}\nchecksums = "https://images.example.org/SUMS"', "checksums and key belong together"),
        (f'{URL}\n{SUM}\nkey = "key.asc"', "checksums and key belong together"),
        (f'{URL}\n{SUM}\nsignature = "https://images.example.org/S"', "signature is that of checksums"),
        (f'url = "ftp://images.example.org/i"\n{SUM}', "not an address"),
        (f'url = "https://me:secret@images.example.org/i"\n{SUM}', "not an address"),
        (f'url = "file://relative"\n{SUM}', "not an address"),
        (f'{URL}\nchecksum = "md5:{"a" * 32}"', "not a checksum"),
        ('catalogue = "../etc"', "not an appliance of the catalogue"),
        (f'{URL}\nchecksums = "https://images.example.org/SUMS"\nkey = "../key"', "not a path"),
    ],
)
def test_a_start_that_nobody_vouches_for_or_that_is_two_is_refused(tmp_path, said, problem):
    with pytest.raises(DefinitionError) as caught:
        read(tmp_path, said)
    assert problem in f"{caught.value.message}\n{caught.value.details}"


def test_who_starts_elsewhere_has_it_vouched_for_anew(tmp_path):
    read(tmp_path, f"{URL}\n{SUM}")
    child = tmp_path / "child"
    child.mkdir()
    other = 'from = "own"\n[appliance]\ntitle = "Child"\n[start]\nurl = "https://images.example.org/other.qcow2"\n'
    (child / "appliance.toml").write_text(other)
    with pytest.raises(DefinitionError, match="one of checksum and checksums must be given"):
        read_definition(child)


def test_the_digest_covers_the_start(tmp_path):
    first = read(tmp_path, f"{URL}\n{SUM}")
    second = read(tmp_path, f'{URL}\n{SUM[:-2]}b"')
    assert first.start != second.start
    assert first.digest() != second.digest()
