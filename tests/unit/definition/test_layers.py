# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.definition.layers import (
    KEYED,
    Origin,
    annotate,
    dotted,
    lay,
    leaves,
    node_at,
    of_other_form,
    origin_near,
    plain,
)

pytestmark = pytest.mark.unit

WORDS = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 9)


def or_replaced(lists):
    return lists | lists.map(lambda items: {"replace": items})


# A number, a list and a table, each by a key of its own: what is of two forms is refused before it is laid.
TREES = st.recursive(
    st.fixed_dictionaries({}, optional={"a": NUMBERS, "b": or_replaced(st.lists(NUMBERS, max_size=3))}),
    lambda inner: st.fixed_dictionaries({}, optional={"a": NUMBERS, "c": inner}),
    max_leaves=4,
)


def keyed(name, **others):
    items = st.fixed_dictionaries({KEYED[name]: WORDS}, optional=others)
    return or_replaced(st.lists(items, max_size=3, unique_by=lambda item: item[KEYED[name]]))


LAYERS = st.fixed_dictionaries(
    {},
    optional={
        "file": keyed("file", content=WORDS, source=WORDS, mode=WORDS),
        "user": keyed("user", groups=or_replaced(st.lists(WORDS, max_size=3))),
        "test": keyed("test", script=WORDS, source=WORDS),
        "contextualisation": st.fixed_dictionaries({}, optional={"user-data": WORDS, "user-data-file": WORDS}),
        "build": TREES,
    },
)
CHAINS = st.lists(LAYERS, min_size=1, max_size=5)


def nodes(chain):
    return [annotate(each, {}, str(number)) for number, each in enumerate(chain)]


@given(CHAINS, st.data())
@settings(max_examples=60, deadline=None)
def test_it_does_not_matter_which_of_a_chain_are_laid_over_each_other_first(chain, data):
    parts = nodes(chain)
    while len(parts) > 1:
        place = data.draw(st.integers(0, len(parts) - 2))
        parts[place : place + 2] = [lay(parts[place], parts[place + 1])]
    assert parts[0] == reduce(lay, nodes(chain))


@given(st.lists(st.lists(NUMBERS, max_size=4), min_size=1, max_size=5))
def test_lists_follow_each_other_from_the_base_to_the_last_child(lists):
    laid = reduce(lay, nodes([{"build": {"packages": each}} for each in lists]))
    assert plain(laid) == {"build": {"packages": [item for each in lists for item in each]}}


@given(st.lists(st.lists(NUMBERS, max_size=4), min_size=2, max_size=5), st.data())
def test_a_list_that_replaces_hides_all_below_it_and_nothing_above(lists, data):
    place = data.draw(st.integers(0, len(lists) - 1))
    chain = [{"x": {"replace": each} if number == place else each} for number, each in enumerate(lists)]
    assert plain(reduce(lay, nodes(chain))) == {"x": [item for each in lists[place:] for item in each]}


@given(CHAINS)
@settings(max_examples=60, deadline=None)
def test_each_value_comes_from_the_last_layer_that_says_it(chain):
    for path, leaf in leaves(reduce(lay, nodes(chain))):
        source = chain[int(leaf.origin.source)]
        if not any(isinstance(part, int) for part in path):
            assert plain(node_at(annotate(source, {}, ""), path)) == leaf.value
            later = [annotate(each, {}, "") for each in chain[int(leaf.origin.source) + 1 :]]
            assert all(node_at(each, path) is None for each in later)


def test_an_entry_of_the_same_key_is_changed_where_it_stands():
    below = {"file": [{"path": "/a", "content": "1", "mode": "0600"}, {"path": "/b", "content": "2"}]}
    above = {"file": [{"path": "/c", "content": "3"}, {"path": "/a", "source": "a.txt"}]}
    assert plain(reduce(lay, nodes([below, above])))["file"] == [
        {"path": "/a", "mode": "0600", "source": "a.txt"},
        {"path": "/b", "content": "2"},
        {"path": "/c", "content": "3"},
    ]


def test_a_list_with_the_name_of_a_keyed_one_deeper_down_is_an_ordinary_list():
    chain = [{"metadata": {"file": [{"path": "/a"}]}}, {"metadata": {"file": [{"path": "/a"}]}}]
    assert plain(reduce(lay, nodes(chain))) == {"metadata": {"file": [{"path": "/a"}, {"path": "/a"}]}}


def test_what_is_of_another_form_than_below_is_found_wherever_it_is():
    below = {"a": {"b": [1], "same": {"x": 1}}, "file": [{"path": "/a", "owner": {"x": 1}}, {"path": "/b"}]}
    above = {"a": {"b": {"c": 1}, "same": {"x": 2}}, "file": [{"path": "/b"}, {"path": "/a", "owner": "root"}]}
    found = list(of_other_form(*nodes([below, above])))
    assert [dotted(path) for path, _, _ in found] == ["a.b", "file[1].owner"]
    assert [(old.origin.source, new.origin.source) for _, old, new in found] == [("0", "1")] * 2


def test_the_place_of_what_is_missing_is_that_of_the_table_that_should_have_it():
    lines = {("build",): 3, ("build", "x"): 4}
    node = annotate({"build": {"x": 1}}, lines, "f")
    assert origin_near(node, ("build", "x")) == Origin("f", 4)
    assert origin_near(node, ("build", "y")) == Origin("f", 3)
    assert origin_near(node, ("z",)) == Origin("f")
    assert str(Origin("f", 4)) == "f:4"
    assert dotted(("file", 0, "mode")) == "file[0].mode"
