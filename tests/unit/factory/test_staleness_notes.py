# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coppice.errors import StorageError
from coppice.factory.staleness import FailedTry
from coppice.factory.staleness_notes import RebuildNotes, read_notes, write_notes

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
FULL = RebuildNotes(
    failed=FailedTry(count=3, at=NOW, state="s", code="build-failed", message="no"),
    is_unpublished=True,
    tried_at=NOW,
    tried_state="t",
)


@pytest.mark.parametrize("notes", [FULL, RebuildNotes(is_unpublished=True), RebuildNotes(tried_at=NOW)])
def test_what_is_noted_is_read_again(tmp_path, notes):
    write_notes(tmp_path, "web", notes)
    assert read_notes(tmp_path, "web") == notes
    assert read_notes(tmp_path, "other") == RebuildNotes()


def test_nothing_to_note_leaves_no_file(tmp_path):
    write_notes(tmp_path, "web", FULL)
    write_notes(tmp_path, "web", RebuildNotes())
    assert list((tmp_path / "rebuilds").iterdir()) == []
    assert read_notes(tmp_path, "web") == RebuildNotes()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"failed": 3, "is_unpublished": false}', "\x00"])
def test_a_note_that_is_none_is_told_with_what_to_do(tmp_path, text):
    write_notes(tmp_path, "web", FULL)
    (tmp_path / "rebuilds" / "web.json").write_text(text)
    with pytest.raises(StorageError, match=r"web\.json") as caught:
        read_notes(tmp_path, "web")
    assert "Remove the file" in (caught.value.resolution or "")
