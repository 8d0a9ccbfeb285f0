# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.model.version import Version

pytestmark = pytest.mark.unit

RISING = [
    ("1.9", "1.10"),
    ("20260101", "20260102"),
    ("2.0-rc1", "2.0"),
    ("2.0~rc1", "2.0"),
    ("2.0alpha2", "2.0beta1"),
    ("2.0beta1", "2.0rc1"),
    ("2.0", "2.0.1"),
    ("2.0", "2.0a"),
    ("2.0a", "2.0.1"),
    ("1.0~~", "1.0~"),
    ("1", "999999999999999999999"),
]


@pytest.mark.threat("T31")
@pytest.mark.parametrize(("older", "newer"), RISING)
def test_versions_rise_as_documented(older: str, newer: str) -> None:
    assert Version(older) < Version(newer)
    assert not Version(newer) < Version(older)
    assert Version(older) != Version(newer)


@pytest.mark.parametrize(("one", "other"), [("1.0", "1-0"), ("2.0~rc1", "2.0-rc1"), ("01.2", "1.02"), ("A1", "a1")])
def test_separators_zeros_and_case_do_not_make_another_version(one: str, other: str) -> None:
    assert Version(one) == Version(other)
    assert hash(Version(one)) == hash(Version(other))


@pytest.mark.parametrize("text", ["", "...", "~", "1" * 257])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        Version(text)


VERSIONS = st.from_regex(r"[0-9a-c.~-]{0,6}[0-9a](rc|beta|alpha)?[0-9]{0,2}", fullmatch=True).map(Version)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_is_total(one: Version, two: Version, three: Version) -> None:
    assert (one < two) + (two < one) + (one == two) == 1
    if one <= two <= three:
        assert one <= three
