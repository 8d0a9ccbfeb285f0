# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import date

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coppice.definition.describe import describe_definition
from coppice.definition.lint import lint
from coppice.definition.read import find_definition, read_definition, resolve_definition
from coppice.definition.told import told_values
from coppice.errors import CoppiceError, DefinitionError

pytestmark = pytest.mark.unit

WORDS = sorted(
    {key.name.partition(".")[0] for table in describe_definition() for key in table.keys}
    | {table.heading.strip("`[]") for table in describe_definition() if table.heading.startswith("`")}
    | {"replace", "x", "base", "base@x", "NAME", "../x", ""}
)
BASE = """\
[appliance]
title = "Base"
description = "A base."
[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"
[build]
user = "debian"
disk-size = "4 GiB"
"""
TEXTS = st.sampled_from([*WORDS, "/etc/x", "80/tcp", "4 GiB", "0644", "shell", "\0", "$t", "a\nb"]) | st.text(
    max_size=4
)
VALUES = st.recursive(
    st.none().map(lambda _: True) | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=5)


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(toml(each) for each in value)}]"
    if isinstance(value, float):
        return repr(value) if value == value and abs(value) != float("inf") else "nan"  # noqa: PLR0124 - nan
    return json.dumps(value)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("definitions")
    for name in ("base", "child"):
        (found / name).mkdir()
    (found / "base" / "appliance.toml").write_text(BASE)
    return found


@given(DOCUMENTS)
@example({"from": "base", "file": {"replace": [{"path": 1}, 2, [3]]}, "variants": {"x": {"from": 1}}})
@example({"from": "base", "variants": {"x": {"file": [1]}, "y": [], "": {}}})
@example({"from": "base", "metadata": {"x": {"replace": [[{"replace": []}]]}}, "provisioner": [{"name": "x"}]})
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_says_is_read_or_refused_with_a_declared_error(root, document):
    text = "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in document.items())
    (root / "child" / "appliance.toml").write_text(text)
    try:
        found = resolve_definition(root, "child")
    except CoppiceError as problem:
        json.dumps(problem.as_dict())
    else:
        assert found.definition == find_definition(root, "child")
        assert len(found.definition.digest()) == 64
        assert told_values(found)
        lint(found, date(2026, 1, 1))


@pytest.mark.parametrize(
    "text",
    [
        "a." * 400_000 + "a = 1",
        "[" + "a." * 400_000 + "a]",
        "'a' . " * 100_000 + "'a' = 1",
        "x = " + "[" * 100 + "]" * 100,
        "x = " + "{a=" * 100 + "1" + "}" * 100,
        "x = " + "[" * 100_000,
        "[metadata]\nx = " + "[" * 40 + "]" * 40,
    ],
)
def test_what_is_nested_too_deeply_is_refused_before_it_costs_anything(tmp_path, text):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "appliance.toml").write_text(text)
    with pytest.raises(DefinitionError, match="nested too deeply"):
        read_definition(tmp_path / "deep")


@pytest.mark.parametrize("text", ["a" * 1_000_000, "a b " * 250_000, '"' * 1_000_000, "a." * 10 + " x " * 300_000])
def test_long_files_without_deep_keys_are_refused_as_what_they_are(tmp_path, text):
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "appliance.toml").write_text(text)
    with pytest.raises(DefinitionError, match="is not TOML"):
        read_definition(tmp_path / "long")


def test_a_long_list_is_counted_and_not_told_value_by_value(tmp_path):
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "appliance.toml").write_text(f"{BASE}packages = [{chr(10).join(['12,'] * 20_000)}]\n")
    with pytest.raises(DefinitionError) as caught:
        read_definition(tmp_path / "long")
    assert len(caught.value.details or "") < 100_000
