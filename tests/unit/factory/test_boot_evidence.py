# SPDX-License-Identifier: Apache-2.0
"""What is kept of failed boot tests goes after its time."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from coppice.factory.boot_evidence import CONSOLE, KEPT_FOR, SCREEN, forget_failures

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def kept(root, image, gate, **ages):
    folder = root / image / gate
    folder.mkdir(parents=True)
    for name, age in ages.items():
        path = folder / {"console": CONSOLE, "screen": SCREEN}[name]
        path.write_text("what was seen")
        at = (NOW - age).timestamp()
        os.utime(path, (at, at))
    at = (NOW - max(ages.values(), default=timedelta(days=999))).timestamp()
    os.utime(folder, (at, at))
    return folder


def test_what_is_too_old_goes_and_what_is_not_stays(tmp_path):
    old = kept(tmp_path, "one", "boot-bios", console=KEPT_FOR, screen=KEPT_FOR)
    beside = kept(tmp_path, "one", "boot-uefi", console=KEPT_FOR - timedelta(seconds=1))
    # Whatever its folder says: one file is new.
    mixed = kept(tmp_path, "two", "boot-bios", console=KEPT_FOR * 2, screen=timedelta(0))
    alone = kept(tmp_path, "three", "boot-bios", console=KEPT_FOR * 2)
    assert forget_failures(tmp_path, NOW) == (old, alone)
    assert not old.exists()
    assert beside.exists()
    assert (mixed / CONSOLE).exists()
    assert not alone.parent.exists()
    assert forget_failures(tmp_path, NOW) == ()


def test_where_nothing_was_ever_kept_nothing_is_done(tmp_path):
    assert forget_failures(tmp_path / "failures", NOW) == ()
    (tmp_path / "stray").write_text("a file where a folder of an image would be")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "stray").write_text("a file where a folder of a gate would be")
    assert forget_failures(tmp_path, NOW) == ()
