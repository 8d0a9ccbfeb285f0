# SPDX-License-Identifier: Apache-2.0
"""The order of RPM versions: RPM's own examples (tests/rpmvercmp.at), and what must hold of any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.formats.rpm_version import RpmVersion, split_rpm_version

pytestmark = pytest.mark.unit

EQUAL = """
1.0 1.0|2.0.1 2.0.1|2.0.1a 2.0.1a|5.5p1 5.5p1|5.5p10 5.5p10|xyz10 xyz10|xyz.4 xyz.4|1.0aa 1.0aa|10.0001 10.0001
10.0001 10.1|4.999.9 4.999.9|20101121 20101121|2_0 2_0|2.0 2_0|a a|a+ a+|a+ a_|+a +a|+a _a|+_ +_|_+ +_|+ _
1.0~rc1 1.0~rc1|1.0~rc1~git123 1.0~rc1~git123|1.0^ 1.0^|1.0^git1 1.0^git1|1.0^20160101 1.0^20160101
1.0~rc1^git1 1.0~rc1^git1|1.0^git1~pre 1.0^git1~pre|3.0.0_fc 3.0.0.fc|1b.fc17 1b.fc17|1.1.ä 1.1.ö|1.1. 1.1
"""
LOWER = """
1.0 2.0|2.0 2.0.1|2.0.1 2.0.1a|5.5p1 5.5p2|5.5p1 5.5p10|10xyz 10.1xyz|xyz10 xyz10.1|xyz.4 8|xyz.4 2|5.5p2 5.6p1
5.6p1 6.5p1|6.0 6.0.rc1|10a1 10b2|1.0a 1.0aa|10.0001 10.0039|4.999.9 5.0|20101121 20101122|1.0~rc1 1.0
1.0~rc1 1.0~rc2|1.0~rc1~git123 1.0~rc1|1.0~rc1 1.0arc1|1.0 1.0^|1.0 1.0^git1|1.0^git1 1.0^git2|1.0^git1 1.01
1.0^20160101 1.0.1|1.0^20160101^git1 1.0^20160102|1.0~rc1 1.0~rc1^git1|1.0~rc1^git1 1.0|1.0^git1~pre 1.0^git1
1.900 1.8000|FC5 fc4|2a 2.0|1.fc4 1.0|1b.fc17 1.fc17|1.fc17 1g.fc17
1-1 1-2|1-9 2-1|9-9 1:1-1|1:1-1 2:0.1-1|1-1~beta 1-1|5.14.0-427.9.1.el9 5.14.0-427.13.1.el9_4|4.9-9 4.10-1
"""


def pairs(text):
    return [tuple(pair.split()) for line in text.split("\n") for pair in line.split("|") if pair]


@pytest.mark.parametrize(("one", "other"), pairs(EQUAL))
def test_what_rpm_takes_for_the_same_is_the_same(one, other):
    assert RpmVersion(one) == RpmVersion(other)
    assert hash(RpmVersion(one)) == hash(RpmVersion(other))


@pytest.mark.parametrize(("lower", "higher"), pairs(LOWER))
def test_what_rpm_takes_for_lower_is_lower(lower, higher):
    assert RpmVersion(lower) < RpmVersion(higher)
    assert RpmVersion(higher) > RpmVersion(lower)


def test_a_version_has_an_epoch_of_0_where_it_says_none():
    assert RpmVersion("0:1.0-1") == RpmVersion("1.0-1")
    assert split_rpm_version("1.0-1") == (0, "1.0", "1")
    assert split_rpm_version("2:1.0") == (2, "1.0", "")
    assert not RpmVersion("2:1.0").has_release
    assert RpmVersion("2:1.0-3").without_release == RpmVersion("2:1.0")
    assert str(RpmVersion("2:1.0-3")) == "2:1.0-3"
    assert RpmVersion("1") != "1"


@pytest.mark.parametrize(
    "text", ["", "-", "1-", "1:", ":1", "x:1-1", "1-1-1", "1 -1", "1:2:3-1", "-1:2", "4294967296:1-1", "1" * 1025]
)
def test_what_is_no_version_is_refused(text):
    with pytest.raises(ValueError, match="no version of an RPM package"):
        RpmVersion(text)


PART = st.text("019ab.~^_", min_size=1, max_size=7)
VERSIONS = st.tuples(st.sampled_from(["", "0:", "1:"]), PART, st.just("-"), PART).map("".join)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_it_is_an_order(one, two, three):
    first, second, third = sorted(map(RpmVersion, (one, two, three)))
    assert first <= second <= third
    assert first <= third
    assert (first == second) == (not first < second)
