# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import string
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.definition.lines import find_lines

pytestmark = pytest.mark.unit


def paths_of(value, path=()):
    """Every key, table and element of a document that tomllib read."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from paths_of(each, (*path, key))


BARE = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=4)
ANY = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=6)


def basic(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def literal(text):
    return f"'{text}'" if "'" not in text else basic(text)


KEYS = BARE | ANY.map(basic) | ANY.map(literal)
MULTI = st.text("ab\n\"' #=[]{},", max_size=12)
SCALARS = st.one_of(
    st.sampled_from(
        ["1", "-0.5e3", "true", "inf", "0xff", "1979-05-27", "1979-05-27 07:32:00Z", "1979-05-27T07:32:00", "07:32:00"]
    ),
    ANY.map(basic),
    ANY.map(literal),
    MULTI.map(lambda text: '"""' + text.replace('"""', '""x') + 'x"""'),
    MULTI.map(lambda text: "'''" + text.replace("'''", "''x") + "x'''"),
    st.sampled_from(["'''a'''''", '"""a"""""', '"""\\""""', '"""a\\\n  b"""', "''''''", '""""""']),
)
SPACES = st.sampled_from(["", " ", "\t", "  "])
GAPS = st.sampled_from(["", " ", "\n", " # a comment ] } , =\n", "\n\n  "])


def listed(values):
    def write(items, gap, trailing):
        comma = f"{gap}," if trailing and items else ""
        return f"[{gap}" + f"{gap},{gap}".join(items) + comma + f"{gap}]"

    return st.builds(write, st.lists(values, max_size=3), GAPS, st.booleans())


def inlined(values):
    pairs = st.lists(st.tuples(BARE, values), max_size=3, unique_by=lambda pair: pair[0])
    return pairs.map(lambda items: "{ " + ", ".join(f"{key} = {value}" for key, value in items) + " }")


VALUES = st.recursive(SCALARS, lambda values: listed(values) | inlined(values), max_leaves=6)
DOTTED = st.lists(KEYS, min_size=1, max_size=3)
LINES = st.one_of(
    st.builds(
        lambda key, space, value: f"{space}{f'{space}.{space}'.join(key)}{space}={space}{value}{space}",
        DOTTED,
        SPACES,
        VALUES,
    ),
    st.builds(lambda key, space: f"{space}[{space}{f'{space}.{space}'.join(key)}{space}]{space}# x", DOTTED, SPACES),
    st.builds(lambda key, space: f"[[{space}{'.'.join(key)}{space}]]", DOTTED, SPACES),
    st.sampled_from(["", "# [a comment]", "  "]),
)


@given(st.lists(LINES, max_size=8), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=100, deadline=None)
def test_each_key_and_element_that_the_parser_reads_has_a_line_and_nothing_else_has(lines, end):
    text = end.join(lines)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = find_lines(text)
    assert set(found) == set(paths_of(document))
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


@given(st.lists(st.tuples(st.sampled_from(["pair", "table", "element"]), VALUES, st.integers(0, 3)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_line_is_the_one_on_which_the_key_stands(parts):
    text, expected, table, elements = "", {}, (), 0
    for number, (kind, value, blanks) in enumerate(parts):
        text += "\n" * blanks
        line = text.count("\n") + 1
        if kind == "table":
            table = (f"t{number}",)
            text += f"[t{number}]\n"
        elif kind == "element":
            table = ("many", elements)
            elements += 1
            text += "[[many]]\n"
        else:
            table = (*table,)
            text += f"k{number} = {value}\n"
            expected[*table, f"k{number}"] = line
            continue
        expected[table] = line
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = find_lines(text)
    assert {path: found[path] for path in expected} == expected


def test_headers_reach_into_the_last_element_and_dotted_keys_into_tables():
    text = """\
a.b = 1
[[file]]
path = '/x'
[file.more]
x = { y = 1, "z.z" = [ 1,
  2 ] }
[[file]]
path = '''
/y'''
last = true
"""
    found = find_lines(text)
    assert found["a",] == found["a", "b"] == 1
    assert found["file",] == found["file", 0] == 2
    assert found["file", 0, "more"] == 4
    assert found["file", 0, "more", "x", "z.z", 1] == 6
    assert found["file", 1] == 7
    assert found["file", 1, "last"] == 10


def test_what_is_no_toml_is_refused_and_not_searched_for_ever():
    for text in ("a", "= 1", "[a", 'a = "x', "a = [1", "a = {b", "[[a]"):
        with pytest.raises(ValueError, match="not TOML"):
            find_lines(text)
