# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.definition.export import export_definition
from coppice.definition.read import find_definition, resolve_definition
from coppice.errors import DefinitionError, ExistsError

pytestmark = pytest.mark.unit

BASE = """\
[appliance]
title = "Base"
description = "A base."
[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"
[build]
disk-size = "4 GiB"
user = "debian"
[[file]]
path = "/etc/x"
source = "files/x"
"""


@pytest.fixture
def root(tmp_path):
    for name, text in (("base", BASE), ("web", 'from = "base"\n[variants.small]\n'), ("other", 'from = "base"\n')):
        (tmp_path / "defs" / name).mkdir(parents=True)
        (tmp_path / "defs" / name / "appliance.toml").write_text(text)
    (tmp_path / "defs" / "base" / "files").mkdir()
    (tmp_path / "defs" / "base" / "files" / "x").write_bytes(b"\0x")
    return tmp_path / "defs"


def test_what_is_exported_stands_by_itself_and_is_the_same(root, tmp_path):
    to = tmp_path / "new" / "place"
    folders = export_definition(resolve_definition(root, "web@small"), to)
    assert [each.name for each in folders] == ["web", "base"]
    assert sorted(each.name for each in to.iterdir()) == ["base", "web"]
    assert find_definition(to, "web@small").digest() == find_definition(root, "web@small").digest()


def test_a_second_child_of_the_same_parent_is_exported_beside_the_first(root, tmp_path):
    for name in ("web", "other", "web"):
        export_definition(resolve_definition(root, name), tmp_path / "out")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["base", "other", "web"]


@pytest.mark.parametrize("kind", ["changed", "file", "link"])
def test_nothing_that_is_there_is_written_over(root, tmp_path, kind):
    place = tmp_path / "out" / "base"
    if kind == "changed":
        export_definition(resolve_definition(root, "base"), tmp_path / "out")
        (place / "appliance.toml").write_text("mine")
    elif kind == "file":
        place.parent.mkdir()
        place.write_text("mine")
    else:
        place.parent.mkdir()
        place.symlink_to(root / "base")
    with pytest.raises(ExistsError, match="is there, and is not the same"):
        export_definition(resolve_definition(root, "web"), tmp_path / "out")
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["base"]
    assert kind != "changed" or (place / "appliance.toml").read_text() == "mine"


def test_a_link_in_a_folder_is_refused_and_nothing_is_copied(root, tmp_path):
    (root / "base" / "notes").symlink_to("/etc/passwd")
    with pytest.raises(DefinitionError, match="is a link"):
        export_definition(resolve_definition(root, "web"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
