# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coppice.definition.git_difference import MAX_DIFF_LINES, FileChange, changed_files, changed_values
from coppice.definition.git_tree import TakenFile
from coppice.definition.read import read_definition

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

TOML = """\
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

[[file]]
path = "/etc/motd"
content = "hello"
"""


def file(content, *, is_executable=False):
    return TakenFile(content=content, is_executable=is_executable)


def test_files_are_told_apart_line_by_line():
    before = {"a/x": file(b"one\ntwo\n"), "a/gone": file(b"x\n"), "a/same": file(b"s")}
    after = {"a/x": file(b"one\n2\n"), "a/new": file(b"y\n"), "a/same": file(b"s")}
    changes = {each.path: each for each in changed_files(before, after)}
    assert {path: each.change for path, each in changes.items()} == {
        "a/gone": "removed",
        "a/new": "added",
        "a/x": "changed",
    }
    assert changes["a/x"].lines[-2:] == ("-two", "+2")
    assert changes["a/new"].lines[-1] == "+y"


def test_a_file_that_became_executable_is_told():
    (change,) = changed_files({"a": file(b"x")}, {"a": file(b"x", is_executable=True)})
    assert change == FileChange(path="a", change="changed", lines=("now executable",))


def test_what_is_no_text_or_too_long_is_not_shown():
    (binary,) = changed_files({"a": file(b"\xff")}, {"a": file(b"\xfe\xff")})
    assert binary.lines == ("no text: 1 bytes, now 2 bytes",)
    (large,) = changed_files({"a": file(b"x" * 200_000)}, {"a": file(b"y")})
    assert "too long to show" in large.lines[0]
    (long,) = changed_files({}, {"a": file(b"x\n" * 1000)})
    assert len(long.lines) == MAX_DIFF_LINES + 1
    assert "lines more" in long.lines[-1]


def read(root: Path, text: str):
    folder = root / "tiny"
    folder.mkdir(parents=True)
    (folder / "appliance.toml").write_text(text)
    return read_definition(folder)


def test_values_are_told_by_what_they_are_called(tmp_path):
    before = read(tmp_path / "1", TOML)
    after = read(tmp_path / "2", TOML.replace("hello", "good morning").replace("4 GiB", "5 GiB"))
    changes = changed_values({"tiny": before}, {"tiny": after})
    assert [each.key for each in changes] == [
        "disk_size_bytes",
        "files[/etc/motd].content",
        "requirements.minimum_disk_bytes",
    ]
    assert (changes[0].definition, changes[0].before, changes[0].after) == ("tiny", "4294967296", "5368709120")
    assert changed_values({"tiny": before}, {"tiny": before}) == ()


def test_a_definition_that_comes_or_goes_is_told_value_by_value(tmp_path):
    definition = read(tmp_path, TOML)
    added = changed_values({}, {"tiny": definition})
    assert {each.before for each in added} == {None}
    assert {"title", "suite"} <= {each.key for each in added}
