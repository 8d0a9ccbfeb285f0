# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from coppice.definition.describe import describe_definition
from coppice.definition.json_schema import SCHEMA_FILE, schema_text
from coppice.definition.problems import keys_of, sections

pytestmark = pytest.mark.unit

SHIPPED = Path(__file__).parents[3] / "definitions"
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
"""
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))


def problems(text):
    # JSON has no dates of its own.
    return list(VALIDATOR.iter_errors(json.loads(json.dumps(tomllib.loads(text), default=str))))


def test_the_shipped_file_is_what_the_schema_says_today():
    assert SCHEMA_FILE.read_text() == schema_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


def test_the_shipped_definitions_follow_it():
    found = sorted(SHIPPED.glob("*/appliance.toml"))
    assert len(found) >= 2
    assert [str(path) for path in found if problems(path.read_text())] == []


@pytest.mark.parametrize(
    "text",
    [
        BASE,
        'from = "base"',
        'from = "base@small"\nbuild.packages = { replace = ["nginx"] }',
        'from = "base"\n[[file]]\npath = "/etc/x"\nmode = "0600"',
        'from = "base"\nfile = { replace = [] }',
        'from = "base"\n[variants.small]\nfrom = "other"\nbuild.disk-size = "2 GiB"\n[metadata]\nx = [{ y = 1 }]',
        'from = "base"\noperating-system.end-of-life = 2028-06-30\n[platform.qemu]\nmachine = "q35"',
        'from = "base"\n[[test]]\nname = "x"\nscript = ""\ntimeout = "5 min"',
    ],
)
def test_what_can_be_read_is_taken(text):
    assert problems(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        BASE.replace('title = "Base"\n', ""),
        f"{BASE}pakages = []",
        'from = "../base"',
        'from = "base"\n[variants.small]\nbuild.pakages = []',
        'from = "base"\n[variants.small.variants.x]',
        'from = "base"\nbuild.packages = { replace = ["-o"] }',
        'from = "base"\nbuild.packages = ["jq; rm"]',
        'from = "base"\n[[file]]\ncontent = "x"',
        'from = "base"\n[[audit-exception]]\ncheck = "x"\npath = "/x"',
        'from = "base"\nfirewall.enabled = "yes"',
        'from = "base"\nbuild.formats = ["floppy"]',
    ],
)
def test_what_is_refused_when_it_is_read_is_refused_by_it(text):
    assert problems(text) != []


def test_every_key_is_described():
    described = {table.heading: table for table in describe_definition()}
    for name, section in sections():
        if name:
            table = described.get(f"`[{name}]`") or described[f"`[[{name}]]`"]
            assert [key.name for key in table.keys] == keys_of(section)
    keys = [key for table in described.values() for key in table.keys]
    assert all(key.kind and key.meaning.endswith((".", "…")) for key in keys)
    assert described["At the top"].keys[0].name == "from"
