# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.formats.deb_version import DebVersion, split_deb_version

pytestmark = pytest.mark.unit
VERSIONS = st.from_regex(r"\A(?:[0-3]:)?[0-9][0-9a-z.+~]{0,8}(?:-[0-9a-z.+~]{1,4})?\Z")


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("1.0~rc1-1", "1.0-1"),
        ("1.0~~", "1.0~"),
        ("0~", "0"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+1"),
        ("1.0+deb12u1", "1.0+deb12u2"),
        ("1.9", "1.10"),
        ("9", "1:0"),
        ("1.0-1", "1.0-1+b1"),
        ("1.0-1~bpo12+1", "1.0-1"),
        ("2.36-9+deb12u8", "2.36-9+deb12u10"),
        ("1", "1-1"),
    ],
)
def test_the_older_version_sorts_before_the_newer(lower: str, higher: str) -> None:
    assert DebVersion(lower) < DebVersion(higher)
    assert DebVersion(higher) > DebVersion(lower)
    assert DebVersion(lower) != DebVersion(higher)


@pytest.mark.parametrize(("one", "other"), [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.01", "1.1"), ("1.a0", "1.a")])
def test_what_dpkg_takes_for_the_same_is_equal_and_has_one_hash(one: str, other: str) -> None:
    assert DebVersion(one) == DebVersion(other)
    assert hash(DebVersion(one)) == hash(DebVersion(other))


@pytest.mark.parametrize(
    "text", ["", "-1", "1-", "1:", "a b", "1\n", "1_2", "2147483648:1", "1:-1", "x" * 1025, "1-ü", "\uff11"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no version of a Debian package"):
        DebVersion(text)


def test_a_version_falls_into_epoch_upstream_and_revision() -> None:
    assert split_deb_version("2:1.0-rc-3+b1") == (2, "1.0-rc", "3+b1")
    assert split_deb_version("7") == (0, "7", "")
    assert str(DebVersion("2:1.0-1")) == "2:1.0-1"


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_is_total(first: str, second: str, third: str) -> None:
    a, b, c = sorted((DebVersion(first), DebVersion(second), DebVersion(third)))
    assert a <= b <= c
    assert a <= c
    assert (a < b) + (a == b) + (a > b) == 1
