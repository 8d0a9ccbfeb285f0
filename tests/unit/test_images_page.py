# SPDX-License-Identifier: Apache-2.0
"""The page about images names each code, each bound, and for each threat the tests that show it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coppice.errors import ImageRefusedError, all_error_types
from coppice.model.image import DiskFormat
from coppice.settings.describe import describe_settings

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "images.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (T\d+) \| ([^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)


def test_every_code_of_a_refusal_is_explained() -> None:
    codes = {kind.code for kind in all_error_types() if issubclass(kind, ImageRefusedError)}
    assert {code for code in codes if f"| `{code}` |" not in PAGE} == set()


def test_every_format_and_every_setting_of_conversion_is_named() -> None:
    assert [each for each in DiskFormat if each is not DiskFormat.OVA and f"\n| {each} |" not in PAGE] == []
    pages = PAGE + (ROOT / "docs" / "how-to" / "convert-images.md").read_text(encoding="utf-8")
    names = [setting.name for setting in describe_settings() if setting.name.startswith("conversion.")]
    assert names != []
    assert [name for name in names if name not in pages] == []


def test_every_threat_of_images_has_a_row() -> None:
    assert [number for number, _, _ in ROWS] == [f"T{number}" for number in range(58, 72)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_modules_of_a_row_bear_its_number(row: tuple[str, str, str]) -> None:
    number, _, modules = row
    named = re.findall(r"`([\w/]+)`", modules)
    assert named != []
    for name in named:
        text = (ROOT / "tests" / f"{name}.py").read_text(encoding="utf-8")
        numbers = {each for mark in re.findall(r"\bthreat\(([^)]*)\)", text) for each in re.findall(r"T\d+", mark)}
        assert number in numbers, name
