# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.definition.git_address import GitAddress
from coppice.definition.git_tree import Entry, TakenFile, digest_of, lay_down, names_of, read_laid, take
from coppice.errors import DefinitionSourceError

pytestmark = pytest.mark.unit


class Held:
    """A commit in memory: contents by path; a content may be given with a mode."""

    def __init__(self, files) -> None:
        self.files = {
            path: ("100644", content) if isinstance(content, bytes) else content for path, content in files.items()
        }

    def entries(self, folder):
        prefix = f"{folder}/" if folder else ""
        found = tuple(
            Entry(mode=mode, identifier=path, path=path.removeprefix(prefix))
            for path, (mode, _) in self.files.items()
            if path.startswith(prefix)
        )
        return found or None

    def contents(self, entries):
        return [self.files[entry.identifier][1] for entry in entries]


def taken(files, fragment="main"):
    return take(Held(files), GitAddress.parse(f"git+https://h.example/mine.git#{fragment}"))


def test_every_folder_with_a_definition_is_taken_and_nothing_beside_them():
    found = taken(
        {
            "README": b"x",
            "a/appliance.toml": b"",
            "a/files/motd": ("100755", b"hello"),
            "b/appliance.toml": b"",
            "c/other": b"x",
            "a/inner/appliance.toml": b"",
        }
    )
    assert names_of(found) == ("a", "b")
    assert list(found) == ["a/appliance.toml", "a/files/motd", "b/appliance.toml", "a/inner/appliance.toml"]
    assert found["a/files/motd"] == TakenFile(content=b"hello", is_executable=True)


def test_links_in_folders_that_are_not_taken_do_not_matter():
    assert names_of(taken({"a/appliance.toml": b"", "doc/link": ("120000", b"/etc"), "x": ("160000", b"")})) == ("a",)


def test_a_definition_brings_its_parents_as_far_as_they_are_beside_it():
    files = {
        "x/a/appliance.toml": b'from = "b@small"',
        "x/b/appliance.toml": b'from = "c"',
        "x/c/appliance.toml": b'from = "debian-12"',
        "x/d/appliance.toml": b"",
    }
    assert names_of(taken(files, "main:x/a")) == ("a", "b", "c")
    assert names_of(taken(files, "main:x/c")) == ("c",)


def test_parents_in_a_circle_end():
    files = {"a/appliance.toml": b'from = "b"', "b/appliance.toml": b'from = "a"'}
    assert names_of(taken(files, "main:a")) == ("a", "b")


@pytest.mark.parametrize("said", [b'from = "../b"', b"from = 1", b"from = [", b"\xff", b'from = "x/y"'])
def test_a_parent_that_is_no_name_is_not_looked_for(said):
    assert names_of(taken({"a/appliance.toml": said, "b/appliance.toml": b""}, "main:a")) == ("a",)


def test_the_top_of_a_repository_is_called_as_it():
    assert list(taken({"appliance.toml": b"", "x/y": b""})) == ["mine/appliance.toml", "mine/x/y"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "there is no folder"),
        ({"a/other": b""}, "no folder in"),
        ({"A/appliance.toml": b""}, "cannot be the name of a definition"),
        ({"a/appliance.toml": ("120000", b"x")}, "symbolic link"),
        ({"a/appliance.toml": b"", "a/x": ("160000", b"")}, "submodule"),
        ({"a/appliance.toml": b"", "a/x": ("040000", b"")}, "no ordinary file"),
        ({"a/appliance.toml": b"", "a/../x": b""}, "name that is not taken"),
        ({"a/appliance.toml": b"", "a/.git/config": b""}, "name that is not taken"),
        ({"a/appliance.toml": b"", "a/x y": b""}, "name that is not taken"),
        ({"a/appliance.toml": b"", "a/" + "d/" * 16 + "x": b""}, "name that is not taken"),
        ({"a/appliance.toml": b"", "a/x": b"version https://git-lfs.github.com/spec/v1\n"}, "LFS"),
        ({"a/appliance.toml": b"x" * (4 * 1024 * 1024 + 1)}, "larger than"),
        ({"a/appliance.toml": b"", **{f"a/{number}": b"" for number in range(2000)}}, "more than 2000 files"),
        ({"a/appliance.toml": b"", **{f"a/{number}": b"x" * 1024 * 1024 for number in range(33)}}, "more than"),
    ],
)
def test_what_no_definition_has_is_refused(files, why):
    with pytest.raises(DefinitionSourceError, match=why):
        taken(files)


FILES = st.dictionaries(
    st.from_regex(r"[a-z]{1,3}/[a-z]{1,3}", fullmatch=True),
    st.builds(TakenFile, content=st.binary(max_size=20), is_executable=st.booleans()),
    max_size=4,
)


@given(FILES, FILES)
def test_two_sets_of_files_have_one_digest_only_when_they_are_the_same(first, second):
    assert (digest_of(first) == digest_of(second)) == (first == second)


def test_what_is_laid_down_is_known_again(tmp_path):
    files = {"a/appliance.toml": TakenFile(content=b"x"), "a/b/c": TakenFile(content=b"\0", is_executable=True)}
    lay_down(files, tmp_path / "x" / "y")
    assert read_laid(tmp_path / "x" / "y") == files
    assert not list((tmp_path / "x").glob(".coppice-*"))


def test_a_link_or_a_pipe_among_what_was_laid_down_is_noticed(tmp_path):
    for make in (lambda path: path.symlink_to("/etc/passwd"), os.mkfifo):
        make(tmp_path / "odd")
        with pytest.raises(DefinitionSourceError, match="is no file of a definition"):
            read_laid(tmp_path)
        (tmp_path / "odd").unlink()
