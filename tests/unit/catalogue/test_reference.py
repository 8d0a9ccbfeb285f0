# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from coppice.catalogue.drafts import APPLIANCE_COMPUTED, APPLIANCE_KEYS, LIST_COMPUTED, LIST_KEYS

pytestmark = pytest.mark.unit
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "catalogue.md"


def test_every_key_that_can_be_set_stands_in_the_reference_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8")
    lists = text.split("### Of an image list")[1].split("### Of an appliance")[0]
    appliances = text.split("### Of an appliance")[1].split("## Keys that Coppice adds")[0]
    for chapter, keys, computed in (
        (lists, LIST_KEYS, LIST_COMPUTED),
        (appliances, APPLIANCE_KEYS, APPLIANCE_COMPUTED),
    ):
        rows = [line.split("|")[1].strip(" `") for line in chapter.splitlines() if line.startswith("| `")]
        assert rows == [*(key.name for key in keys), *computed]
        for key in keys:
            assert key.meaning in chapter
