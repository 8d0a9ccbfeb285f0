# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.factory.difference import Change, package_difference
from coppice.factory.model import Package

pytestmark = pytest.mark.unit


def package(name: str, version: str, architecture: str = "amd64", manager: str = "deb") -> Package:
    return Package(name=name, version=version, architecture=architecture, manager=manager)


def told(before, after):
    return [(each.name, each.change, each.before, each.after) for each in package_difference(before, after)]


def test_each_kind_of_change_is_told_by_name_and_what_stayed_is_not():
    before = [package("b", "1"), package("c", "1.0-1"), package("d", "2:1"), package("e", "1"), package("same", "1")]
    after = [package("a", "1"), package("c", "1.0-1+deb12u1"), package("d", "9"), package("same", "1")]
    assert told(before, after) == [
        ("a", Change.ADDED, None, "1"),
        ("b", Change.REMOVED, "1", None),
        ("c", Change.UPDATED, "1.0-1", "1.0-1+deb12u1"),
        ("d", Change.DOWNGRADED, "2:1", "9"),
        ("e", Change.REMOVED, "1", None),
    ]


def test_an_update_is_one_by_the_order_of_the_package_manager():
    assert told([package("x", "1.0~rc1")], [package("x", "1.0")])[0][1] is Change.UPDATED
    assert told([package("x", "1.10")], [package("x", "1.9")])[0][1] is Change.DOWNGRADED


def test_what_has_no_known_order_has_changed():
    assert told([package("x", "1", manager="rpm")], [package("x", "2", manager="rpm")])[0][1] is Change.CHANGED
    assert told([package("x", "odd_")], [package("x", "1")])[0][1] is Change.CHANGED
    assert told([package("x", "1.0")], [package("x", "0:1.0")])[0][1] is Change.CHANGED


def test_architectures_are_told_apart_and_a_change_of_it_is_no_other_package():
    both = [package("libc6", "1"), package("libc6", "1", "i386")]
    assert told(both, both[:1]) == [("libc6", Change.REMOVED, "1", None)]
    assert told([package("x", "1")], [package("x", "2", "all")]) == [("x", Change.UPDATED, "1", "2")]
    assert told([package("x", "1")], [package("x", "1", "all")]) == [("x", Change.CHANGED, "1", "1")]


PACKAGES = st.lists(
    st.builds(package, st.sampled_from("abcd"), st.sampled_from(["1", "1.1", "2~", "2"])),
    unique_by=lambda each: each.name,
)


@given(PACKAGES, PACKAGES)
def test_a_difference_and_its_opposite_tell_the_same(before, after):
    forth, back = package_difference(before, after), package_difference(after, before)
    assert [(each.name, each.before, each.after) for each in forth] == [
        (each.name, each.after, each.before) for each in back
    ]
    versions = {each.name: each.version for each in before}
    for each in forth:
        if each.after is None:
            del versions[each.name]
        else:
            versions[each.name] = each.after
    assert versions == {each.name: each.version for each in after}
