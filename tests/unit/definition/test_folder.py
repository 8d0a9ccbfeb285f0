# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from coppice.definition import folder as bounds
from coppice.definition.folder import Sources

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "definition"
    (found / "scripts" / "deep").mkdir(parents=True)
    (found / "scripts" / "a.sh").write_text("a")
    (found / "scripts" / "deep" / "b.sh").write_text("b")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "x").write_text("secret")
    return found


def test_a_file_and_a_tree_are_read(folder):
    sources = Sources()
    assert sources.read_file(folder, "scripts/a.sh", 10) == b"a"
    assert sources.read_tree(folder, "scripts") == {"a.sh": b"a", "deep/b.sh": b"b"}
    assert sources.read_tree(folder, "scripts/deep/b.sh") == {"b.sh": b"b"}
    assert sources.total_bytes == 4


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "scripts/a.sh", "missing"])
def test_a_link_is_not_followed_wherever_it_leads(folder, target):
    (folder / "link").symlink_to(target)
    with pytest.raises(ValueError, match="is a link, or lies behind one"):
        Sources().read_file(folder, "link", 10)
    with pytest.raises(ValueError, match="is a link, or lies behind one"):
        Sources().read_tree(folder, "link")


def test_a_link_in_the_middle_of_a_path_or_in_a_tree_is_not_followed(folder):
    (folder / "scripts" / "out").symlink_to("../../secrets")
    with pytest.raises(ValueError, match="is a link, or lies behind one"):
        Sources().read_file(folder, "scripts/out/x", 10)
    with pytest.raises(ValueError, match="is a link, or lies behind one"):
        Sources().read_tree(folder, "scripts")


@pytest.mark.parametrize("name", ["..", ".", "", "../secret", "scripts/../../secret", "a\0b"])
def test_a_path_that_leads_out_is_refused(folder, name):
    with pytest.raises(ValueError, match="has a name that is not taken"):
        Sources().read_file(folder, name, 10)


def test_what_is_neither_file_nor_folder_is_refused_at_once(folder):
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "scripts" / "pipe")
    for read in (lambda: Sources().read_file(folder, "pipe", 10), lambda: Sources().read_tree(folder, "scripts")):
        with pytest.raises(ValueError, match=r"not a file|neither a file nor a folder"):
            read()


def test_what_is_too_large_too_much_or_too_deep_is_refused(folder, monkeypatch):
    with pytest.raises(ValueError, match="larger than 0 bytes"):
        Sources().read_file(folder, "scripts/a.sh", 0)
    for name, told in (
        ("TREE_LIMIT_BYTES", "larger than"),
        ("TREE_LIMIT_FILES", "more than 1 files"),
        ("TREE_LIMIT_DEPTH", "nested more than"),
        ("TOTAL_LIMIT_BYTES", "all files together"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(bounds, name, 1)
            with pytest.raises(ValueError, match=told):
                Sources().read_tree(folder, "scripts")


def test_an_empty_folder_and_one_that_is_not_there_are_refused(folder):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="has no file"):
        Sources().read_tree(folder, "empty")
    with pytest.raises(ValueError, match="No such file"):
        Sources().read_tree(folder, "missing")
    with pytest.raises(ValueError, match="is not a file"):
        Sources().read_file(folder, "empty", 10)
    with pytest.raises(ValueError, match="cannot read"):
        Sources().read_file(folder / "missing", "x", 10)


def test_no_handle_is_left_open_whatever_was_refused(folder):
    (folder / "scripts" / "z-link").symlink_to("a.sh")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("scripts", "missing", "scripts/z-link/x", "scripts/a.sh/x"):
        with pytest.raises(ValueError, match=r"."):
            Sources().read_tree(folder, name)
        with pytest.raises(ValueError, match=r"."):
            Sources().read_file(folder, name, 0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
