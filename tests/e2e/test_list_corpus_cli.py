# SPDX-License-Identifier: Apache-2.0
"""The crafted lists of ``tests/data/lists`` through the command line, with the defaults that are shipped."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from coppice.cli.main import main

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
LISTS = Path(__file__).parents[1] / "data" / "lists"
TABLE = json.loads((LISTS / "manifest.json").read_text())
LARGE = 8 * 1024 * 1024


def cases(rows):
    return [
        pytest.param(row, id=row["name"], marks=[pytest.mark.threat(number) for number in row["threats"]])
        for row in rows
    ]


def one_of_each(rows):
    """Return the first case of each code, and one that is accepted."""
    found = {}
    for row in rows:
        found.setdefault(row["code"], row)
    return list(found.values())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    specification = importlib.util.spec_from_file_location("crafted_lists", LISTS / "make.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    directory = tmp_path_factory.mktemp("lists")
    assert module.make(directory) == TABLE
    return directory


@pytest.fixture
def coppice(tmp_path, monkeypatch, capfd):
    """Return ``coppice`` without any settings but where its files are: the defaults for all else are those shipped."""
    for name in [name for name in os.environ if name.startswith(("COPPICE_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(tmp_path / "state"))
    (tmp_path / "home").mkdir()

    def run(*arguments):
        capfd.readouterr()
        code = main(["--json", *map(str, arguments)])
        said, aside = capfd.readouterr()
        assert "Traceback" not in said + aside
        return code, json.loads(said)

    return run


def trusting(row, corpus):
    """Return the options that say whom to trust."""
    names = [word for pair in row["endorsers"] for word in ("--endorser-dn", pair[0], "--endorser-ca", pair[1])]
    return [*names, "--anchors", corpus / "trust" / row["trust"], *row["options"]]


def codes(said):
    return [error["code"] for error in said["errors"]]


@pytest.mark.parametrize("row", cases(TABLE))
def test_verify_refuses_each_with_its_code_and_exit_code_5_or_accepts_it(row, corpus, coppice, tmp_path):
    against = trusting(row, corpus)
    if row["before"] is not None:
        # What was verified before is remembered by a subscription only.
        assert coppice("subscription", "add", "demo", (corpus / row["before"]).as_uri(), *against)[0] == 0
        assert coppice("subscription", "refresh", "demo")[0] == 0
        against = ["--subscription", "demo"]
    code, said = coppice("imagelist", "verify", corpus / row["file"], *against)
    expected = [] if row["code"] is None else [row["code"]]
    assert (code, codes(said)) == (5 if expected else 0, expected), said
    assert said["status"] == ("error" if expected else "success")
    failed = [each for each in said["data"]["rules"] if each["outcome"] == "failed"]
    assert [each["code"] for each in failed] == expected
    assert (said["data"]["list"] is None) is bool(expected)
    if row["before"] is None:
        assert not (tmp_path / "state").exists(), "verifying changes nothing"


@pytest.mark.parametrize("row", cases(one_of_each(row for row in TABLE if row["before"] is None and row["endorsers"])))
def test_refresh_refuses_it_likewise_and_keeps_nothing_of_it(row, corpus, coppice):
    file = corpus / row["file"]
    assert coppice("subscription", "add", "demo", file.as_uri(), *trusting(row, corpus))[0] == 0
    code, said = coppice("subscription", "refresh", "demo")
    expected = [] if row["code"] is None else [row["code"]]
    assert (code, codes(said)) == (5 if expected else 0, expected), said
    shown = coppice("subscription", "show", "demo")[1]["data"]["subscription"]
    assert (shown["verified_version"] is None) is bool(expected)
    if expected:
        assert shown["last_failure"]["code"] == row["code"]


@pytest.mark.parametrize("row", cases(row for row in TABLE if row["before"] is not None))
def test_refresh_goes_by_what_was_verified_before(row, corpus, coppice, tmp_path):
    place = tmp_path / "demo.list"
    place.write_bytes((corpus / row["before"]).read_bytes())
    assert coppice("subscription", "add", "demo", place.as_uri(), *trusting(row, corpus))[0] == 0
    assert coppice("subscription", "refresh")[0] == 0
    version = coppice("subscription", "show", "demo")[1]["data"]["subscription"]["verified_version"]
    place.write_bytes((corpus / row["file"]).read_bytes())
    code, said = coppice("subscription", "refresh")
    assert (code, codes(said)) == ((5, [row["code"]]) if row["code"] else (0, [])), said
    after = coppice("subscription", "show", "demo")[1]["data"]["subscription"]["verified_version"]
    if row["code"]:
        assert after == version


def test_explain_prints_every_rule_for_people(corpus, coppice, capfd):
    row = next(row for row in TABLE if row["code"] == "signer-revoked")
    assert main(["imagelist", "verify", str(corpus / row["file"]), *map(str, trusting(row, corpus)), "--explain"]) == 5
    said, aside = capfd.readouterr()
    lines = [line.split()[0] for line in said.splitlines()[1:]]
    assert set(lines) == {"passed", "failed", "not-reached"}
    assert lines.count("failed") == 1
    assert len(lines) == 25
    assert "was revoked on" in next(line for line in said.splitlines() if line.startswith("failed"))
    assert aside.startswith("error[signer-revoked]")
