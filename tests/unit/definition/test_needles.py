# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from coppice.definition.needles import fill_needles
from coppice.definition.read import find_definition

pytestmark = pytest.mark.unit

MADE_AT = datetime(2026, 11, 26, 6, 5, 59, tzinfo=UTC)
BASE = """\
[appliance]
title = "Base"
description = "A base."
groups = ["one", "$t"]
[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"
[build]
user = "debian"
disk-size = "4 GiB"
"""


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("COMFY-$n-$v", "COMFY-Debian-12"),
        ("$t", "202611260605"),
        ("$g", "one,$t"),
        ("$$t$$", "$t$"),
        ("$vx", "12x"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_needles_stand_for_what_they_do_in_comfy(tmp_path, template, filled):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "appliance.toml").write_text(BASE)
    definition = find_definition(Path(tmp_path), "base")
    assert fill_needles(template, definition, MADE_AT) == filled
    elsewhere = MADE_AT.astimezone(timezone(timedelta(hours=9)))
    assert fill_needles(template, definition, elsewhere) == filled
