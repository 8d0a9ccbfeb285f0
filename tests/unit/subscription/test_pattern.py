# SPDX-License-Identifier: Apache-2.0
"""Expressions of subscriptions end soon, whatever others call their files."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import InputError, MalformedListError
from coppice.subscription.source.pattern import MAX_VALUE_LENGTH, Pattern

pytestmark = pytest.mark.unit


def test_named_groups_are_told_where_the_whole_fits():
    pattern = Pattern(r"debian-(?P<release>\d+)-generic-(?P<arch>amd64|arm64)-(?P<version>[0-9]{8}-[0-9]+)\.qcow2")
    found = pattern.match_whole("debian-13-generic-amd64-20261101-2291.qcow2")
    assert found == {"release": "13", "arch": "amd64", "version": "20261101-2291"}
    assert pattern.match_whole("debian-13-generic-amd64-20261101-2291.qcow2.asc") is None
    assert pattern.groups == ("release", "arch", "version")
    assert Pattern("no(ble)?").match_start("noble-minimal") == {}
    assert Pattern("(?P<a>x)?y").match_whole("y") == {"a": ""}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(a+)+",
        "(a|a)*",
        "(a*)*b",
        "(?:a?){30}",
        r"(a)\1",
        "(?=a)a",
        "(?<=a)b",
        "(?P<a>x)(?P=a)",
        "a**",
        "a*+",
        "(?>a)",
        "(?i)a",
        ".*.*.*.*x",
        "a?" * 40,
        "*a",
        "(a",
        "a)",
        "a{,}{2}",
        "[a",
        "[]||]",
        "[]||",
        "[^]||",
        "[]a]",
        "[[a]",
        "[a--b]",
        "x" * 600,
        r"\x41",
        r"\N{BULLET}",
    ],
)
def test_an_expression_that_could_take_for_ever_is_refused(text: str):
    with pytest.raises(InputError):
        Pattern(text)


def test_the_costliest_expression_that_is_accepted_ends_soon():
    pattern = Pattern(".*.*.*x")
    started = time.monotonic()
    assert pattern.match_whole("a" * MAX_VALUE_LENGTH) is None
    assert time.monotonic() - started < 5
    assert pattern.match_whole("a" * MAX_VALUE_LENGTH + "x") is None


def test_all_names_together_have_a_limit_of_time():
    ticks = iter(range(0, 1000, 6))
    pattern = Pattern("a", clock=lambda: float(next(ticks)))
    assert pattern.match_whole("a") == {}
    with pytest.raises(MalformedListError):
        pattern.match_whole("a")


@given(st.text(alphabet="ab()[]{}*+?|\\^-.,1:P<>=!d", max_size=30))
def test_whatever_is_accepted_means_what_it_means_to_re(text: str):
    try:
        pattern = Pattern(text)
    except InputError:
        return
    assert (pattern.match_whole("ab1") is None) == (re.fullmatch(text, "ab1", re.ASCII) is None)
