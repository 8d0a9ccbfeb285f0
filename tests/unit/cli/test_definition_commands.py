# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from coppice.cli import definition_check
from coppice.cli.main import main
from coppice.definition.read import read_definition
from coppice.errors import DefinitionError
from coppice.factory.packer import look_over

pytestmark = pytest.mark.unit

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
WEB = """\
from = "base"
build.packages = ["nginx"]
appliance.title = "Web"
[variants.small]
appliance.title = "Small"
"""


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    defs = tmp_path / "defs"
    for name, text in (
        ("base", BASE),
        ("web", WEB),
        ("old", BASE.replace('"Debian"', '"Ubuntu"').replace('"12"', '"9.10"')),
        ("new", BASE.replace('"Debian"', '"Ubuntu"').replace('"12"', '"10.04"')),
    ):
        (defs / name).mkdir(parents=True)
        (defs / name / "appliance.toml").write_text(text)
    config = tmp_path / "coppice.toml"
    config.write_text(
        f'definitions_directory = "{defs}"\nstate_directory = "{tmp_path}/state"\n'
        'factory.default_disk_size_bytes = "6 GiB"\n'
    )
    monkeypatch.chdir(tmp_path)

    def call(*words, code=0, as_json=True):
        assert main(["--config", str(config), *(["--json"] if as_json else []), "definition", *words]) == code
        told = capsys.readouterr()
        return json.loads(told.out) if as_json else f"{told.out}{told.err}"

    call.defs = defs
    return call


def test_they_are_listed_by_distribution_with_what_they_are_built_upon(run):
    text = run("list", as_json=False)
    assert text.index("Debian\n") < text.index("base") < text.index("web@small") < text.index("Ubuntu\n")
    assert "6 GiB" in text
    names = [each["name"] for each in run("list")["data"]["definitions"]]
    assert names == ["base", "new", "old", "web", "web-small"]


def test_versions_are_in_their_own_order_and_can_be_those_of_one_distribution(run):
    releases = run("versions")["data"]["releases"]
    assert [(each["distribution"], each["version"]) for each in releases] == [
        ("Debian", "12"),
        ("Ubuntu", "9.10"),
        ("Ubuntu", "10.04"),
    ]
    assert releases[0]["definitions"] == ["base", "web", "web@small"]
    assert len(run("versions", "ubuntu")["data"]["releases"]) == 2
    assert "Debian, Ubuntu" in run("versions", "Slackware", code=12)["errors"][0]["resolution"]


def test_show_says_where_each_value_comes_from(run):
    values = {each["key"]: each for each in run("show", "web@small", "--resolved")["data"]["values"]}
    small = values["appliance.title"]
    assert (small["value"], small["line"], small["file"]) == ("Small", 5, f"{run.defs}/web/appliance.toml")
    assert values["operating-system.suite"]["file"] == f"{run.defs}/base/appliance.toml"
    assert (values["build.disk-size"]["file"], values["build.disk-size"]["line"]) == ("settings", None)
    assert values["access.ssh"] == {"key": "access.ssh", "value": True, "file": "default", "line": None}
    text = run("show", "web", "--resolved", "--origin", as_json=False)
    assert f"{run.defs}/web/appliance.toml:2" in text
    assert "appliance.toml" not in run("show", "web", "--resolved", as_json=False)


def test_show_without_more_says_what_it_is_built_upon(run):
    assert run("show", "web@small")["data"]["chain"] == ["web@small", "base"]
    assert "nginx" in run("show", "web", as_json=False)
    assert run("show", "web", "--origin", code=2)["errors"][0]["code"] == "usage"


def test_all_that_a_definition_can_hold_has_a_form_in_json(run):
    path = run.defs / "web" / "appliance.toml"
    path.write_text(
        'from = "base"\noperating-system.end-of-life = 2028-06-30\n[metadata]\nday = 2026-01-01\n'
        '[[file]]\npath = "/x"\ncontent = "hello"\n[[test]]\nname = "t"\nscript = "true"\n'
    )
    found = run("show", "web", "--resolved")["data"]
    assert found["definition"]["end_of_life"] == "2028-06-30"
    assert found["definition"]["files"][0]["content"] == "aGVsbG8="
    assert {"key": "metadata.day", "value": "2026-01-01", "file": str(path), "line": 4} in found["values"]
    (listed,) = [each for each in run("list")["data"]["definitions"] if each["name"] == "web"]
    assert listed["digest"] == found["digest"]
    assert "files" not in listed


def test_validate_takes_names_folders_and_all(run):
    assert len(run("validate")["data"]["valid"]) == 5
    found = run("validate", "web", "defs/base")["data"]["valid"]
    assert [each["name"] for each in found] == ["web", "base"]
    (run.defs / "web" / "appliance.toml").write_text('from = "bose"\n')
    told = run("validate", "web", "base", code=3)
    assert [each["name"] for each in told["data"]["valid"]] == ["base"]
    assert "line 1" in told["errors"][0]["message"]


def test_lint_ends_with_3_where_something_counts(run):
    assert run("lint")["data"]["findings"] == []
    assert "nothing found in 5 definitions" in run("lint", as_json=False)
    path = run.defs / "web" / "appliance.toml"
    path.write_text(path.read_text() + "[firewall]\nenabled = false\n")
    (finding, *_) = run("lint", "web")["data"]["findings"]
    assert (finding["code"], finding["severity"], finding["line"]) == ("no-firewall", "warning", 7)
    assert run("lint", "--strict", code=3)["errors"][0]["context"]["codes"] == ["no-firewall"]
    path.write_text(path.read_text() + '[[file]]\npath = "/x"\ncontent = ""\nmode = "0777"\n')
    text = run("lint", "defs/web", code=3, as_json=False)
    assert f"{path}:8: error world-writable: everybody may write to /x\n  Give a mode" in text


def test_lint_tells_a_wrong_definition_and_looks_at_the_others(run):
    (run.defs / "new" / "appliance.toml").write_text("[")
    told = run("lint", code=3)
    assert "is not TOML" in told["errors"][0]["message"]
    assert told["data"]["definitions"] == ["base", "old", "web", "web@small"]


def test_export_gives_a_directory_that_stands_by_itself(run, tmp_path):
    folders = run("export", "web", "--to", "mine")["data"]["folders"]
    assert folders == [str(tmp_path / "mine" / "web"), str(tmp_path / "mine" / "base")]
    assert run("validate", "mine/web")["data"]["valid"][0]["name"] == "web"
    (tmp_path / "mine" / "base" / "appliance.toml").write_text("x = 1\n")
    assert run("export", "web", "--to", "mine", code=12)["errors"][0]["code"] == "exists-already"


def test_the_schema_is_printed_as_it_is(run):
    text = run("schema", as_json=False)
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    assert run("schema")["data"] == json.loads(text)


def test_of_variants_each_is_what_programs_said_of_it(monkeypatch):
    shipped = read_definition(Path(__file__).parents[3] / "definitions" / "debian-12")
    good, bad = (replace(shipped, builder="packer", name=f"debian-12-{each}", variant=each) for each in ("good", "bad"))

    def look(definition):
        if definition.variant == "bad":
            raise DefinitionError("it is not taken")
        return ("packer",)

    monkeypatch.setattr(look_over, "look_over", look)
    asked, wrong = definition_check._asked([good, bad])
    assert asked == {good.reference: ("packer",)}
    assert [each.message for each in wrong] == ["it is not taken"]
    assert good.path == bad.path
