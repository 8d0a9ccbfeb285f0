# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from coppice.definition.read import MAX_FILE_BYTES, find_definition, find_definitions, read_definition
from coppice.definition.values import parse_size
from coppice.errors import DefinitionError, NotFoundError, UnreadableFileError
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware

pytestmark = pytest.mark.unit

SHIPPED = Path(__file__).parents[3] / "definitions"
GOOD = """\
[appliance]
title = "Tiny"
description = "A tiny appliance."

[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"

[build]
disk-size = "4 GiB"
user = "debian"
packages = ["jq", "curl", "jq"]

[requirements]
minimum-ram = "512 MiB"
"""


def write(root: Path, content: str | bytes, name: str = "tiny") -> Path:
    folder = root / name
    folder.mkdir()
    data = content.encode() if isinstance(content, str) else content
    (folder / "appliance.toml").write_bytes(data)
    return folder


def test_a_good_definition_is_read_with_its_defaults(tmp_path):
    definition = read_definition(write(tmp_path, GOOD))
    assert definition.name == "tiny"
    assert definition.builder == "bootstrap"
    assert definition.packages == ("curl", "jq")
    assert definition.disk_size_bytes == 4 * 1024**3
    assert definition.firmware == (Firmware.BIOS, Firmware.UEFI)
    assert definition.formats == (DiskFormat.QCOW2,)
    assert definition.requirements.minimum_ram_mib == 512
    assert definition.requirements.minimum_disk_bytes == 4 * 1024**3
    assert definition.operating_system.architecture == "x86_64"


def test_the_shipped_definitions_are_good_and_name_no_mirror():
    found = {definition.name: definition for definition in find_definitions(SHIPPED)}
    assert found["debian-12"].suite == "bookworm"
    assert found["debian-13"].suite == "trixie"
    assert not any(re.search(r"https?://[^:/\s]", definition.path.read_text()) for definition in found.values())


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("pakages = []", "build.packages"),
        ("disk_size = 1", "build.disk-size"),
        ("Formats = []", "build.formats"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_named(tmp_path, line, nearest):
    folder = write(tmp_path, GOOD.replace("[build]", f"[build]\n{line}"))
    with pytest.raises(DefinitionError) as caught:
        read_definition(folder)
    assert str(folder / "appliance.toml") in caught.value.message
    assert f"unknown key 'build.{line.split()[0]}'" in caught.value.message
    assert f"did you mean {nearest!r}" in caught.value.message


def test_an_unknown_section_is_refused_and_the_nearest_named(tmp_path):
    with pytest.raises(DefinitionError, match=r"unknown key 'requirments'; did you mean 'requirements'"):
        read_definition(write(tmp_path, GOOD.replace("[requirements]", "[requirments]")))


def test_a_key_in_the_wrong_section_is_sent_to_its_own(tmp_path):
    folder = write(tmp_path, GOOD.replace("[requirements]", '[requirements]\nuser = "x"'))
    with pytest.raises(DefinitionError, match=r"it belongs into \[build\]"):
        read_definition(folder)


def test_all_problems_are_told_at_once(tmp_path):
    text = GOOD.replace('title = "Tiny"\n', "").replace('"4 GiB"', '"huge"').replace('user = "debian"', 'user = "root"')
    with pytest.raises(DefinitionError) as caught:
        read_definition(write(tmp_path, text, name="Bad Name"))
    assert "4 problems" in caught.value.message
    for part in ("'Bad Name'", "'appliance.title' is missing", "not a size: 'huge'", "build.user"):
        assert part in (caught.value.details or "")


@pytest.mark.parametrize(
    "name", ["-oDebug::pkg=1", "--help", "jq; rm", "_jq", "a", "jq jq", "jq=1.0", "../x", "", "jq/sid"]
)
def test_a_package_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(DefinitionError, match="not a package name"):
        read_definition(write(tmp_path, GOOD.replace('"curl"', f'"{name}"')))


@pytest.mark.parametrize("name", ["g++", "libstdc++6", "0ad", "libsdl1.2debian", "NetworkManager", "perl-CPAN_Meta"])
def test_package_names_of_distributions_are_taken(tmp_path, name):
    assert name in read_definition(write(tmp_path, GOOD.replace('"curl"', f'"{name}"'))).packages


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('disk-size = "4 GiB"', "disk-size = 4294967297", "whole number of MiB"),
        ('disk-size = "4 GiB"', 'disk-size = "1 MiB"', "greater than or equal"),
        ('disk-size = "4 GiB"', "disk-size = true", "not a size"),
        ('title = "Tiny"', 'title = "Ti\\u001b[31mny"', "control character"),
        ('suite = "bookworm"', 'suite = "--help"', "not the name of a release"),
        ('user = "debian"', 'user = "debian"\nbuilder = "../x"', "not the name of a builder"),
        ('user = "debian"', 'user = "debian"\nfirmware = []', "at least 1 item"),
        ('user = "debian"', 'user = "debian"\nformats = ["floppy"]', "'qcow2'"),
        ('minimum-ram = "512 MiB"', 'minimum-disk = "1 GiB"', "would not fit"),
        ('minimum-ram = "512 MiB"', 'minimum-ram = "2 GiB"\nrecommended-ram = "1 GiB"', "less than minimum-ram"),
        ('minimum-ram = "512 MiB"', "minimum-cores = 0", "greater than or equal"),
        ('minimum-ram = "512 MiB"', 'minimum-cores = "2"', "valid integer"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(tmp_path, old, new, said):
    with pytest.raises(DefinitionError) as caught:
        read_definition(write(tmp_path, GOOD.replace(old, new)))
    assert said in (caught.value.details or "")


@pytest.mark.parametrize("content", [b"[appliance\n", b"\xff\xfe", b"x = " + b"[" * 5000, b"a = 1\na = 2\n"])
def test_what_is_no_toml_is_refused_without_a_traceback(tmp_path, content):
    with pytest.raises(DefinitionError):
        read_definition(write(tmp_path, content))


def test_a_file_over_the_limit_is_refused(tmp_path):
    with pytest.raises(DefinitionError, match="larger than"):
        read_definition(write(tmp_path, b"#" * (MAX_FILE_BYTES + 1)))


def test_a_named_pipe_is_refused_at_once(tmp_path):
    (tmp_path / "tiny").mkdir()
    os.mkfifo(tmp_path / "tiny" / "appliance.toml")
    with pytest.raises(UnreadableFileError, match="is not a file"):
        read_definition(tmp_path / "tiny")


def test_a_missing_definition_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        read_definition(tmp_path / "tiny")


def test_a_name_that_is_not_there_gets_the_nearest(tmp_path):
    write(tmp_path, GOOD, "debian-12")
    with pytest.raises(NotFoundError) as caught:
        find_definition(tmp_path, "debain-12")
    assert caught.value.resolution == "Did you mean 'debian-12'?"


def test_one_definition_is_found_although_another_is_wrong(tmp_path):
    write(tmp_path, GOOD, "good")
    write(tmp_path, "wrong = 1", "wrong")
    assert find_definition(tmp_path, "good").name == "good"


def test_all_wrong_definitions_are_told_at_once(tmp_path):
    write(tmp_path, "wrong = 1", "one")
    write(tmp_path, "wrong = 1", "two")
    write(tmp_path, GOOD, "good")
    with pytest.raises(DefinitionError) as caught:
        find_definitions(tmp_path)
    assert "one/appliance.toml" in (caught.value.details or "")
    assert "two/appliance.toml" in (caught.value.details or "")


def test_a_root_that_is_not_there_is_not_an_empty_one(tmp_path):
    assert find_definitions(tmp_path) == ()
    with pytest.raises(NotFoundError):
        find_definitions(tmp_path / "missing")


def test_folders_without_a_definition_are_passed_over(tmp_path):
    (tmp_path / ".git").mkdir()
    write(tmp_path, GOOD)
    assert [definition.name for definition in find_definitions(tmp_path)] == ["tiny"]


def test_the_digest_covers_what_is_said_and_not_where(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    here = read_definition(write(tmp_path, GOOD))
    there = read_definition(write(tmp_path / "elsewhere", GOOD + "# a comment\n"))
    more = read_definition(write(tmp_path / "elsewhere", GOOD.replace('"curl"', '"wget"'), "tiny2"))
    assert here.digest() == there.digest()
    assert here.digest() != more.digest()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8 GiB", 8 * 1024**3),
        ("8GiB", 8 * 1024**3),
        ("1.5 GiB", 1536 * 1024**2),
        ("5 GB", 5 * 10**9),
        ("7 B", 7),
        (42, 42),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1 GiB", "1e9 B", "8 gib", "8  GiB", "0.0001 B", 1.5, None, True, "\u0663 GiB"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=r"size|whole number"):
        parse_size(text)
