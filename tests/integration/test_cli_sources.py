# SPDX-License-Identifier: Apache-2.0
"""Subscriptions to other sources on the command line: who is believed is always said, and never weaker by default."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, dict[str, Any]]]

pytestmark = pytest.mark.integration


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def _run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = main(["--json", *map(str, arguments)])
        return code, json.loads(capsys.readouterr().out)

    return _run


@pytest.fixture
def folder(home: Path) -> Path:
    folder = home / "descriptors"
    folder.mkdir()
    (folder / "a.raw").write_bytes(b"disk" * 1000)
    document = {
        "action": "registration",
        "title": "Debian",
        "identifier": "debian",
        "version": "12.1",
        "os": {"distribution": "debian", "version": "12", "arch": "x86_64"},
        "disks": [{"type": "os", "format": "raw", "path": "a.raw"}],
    }
    (folder / "debian.json").write_text(json.dumps(document))
    return folder


def add(run: Run, folder: Path, *more: object) -> tuple[int, dict[str, Any]]:
    return run("subscription", "add", "comfy", folder.as_uri(), "--source", "descriptors", *more)


def test_a_folder_of_descriptors_is_followed_and_says_who_is_believed(run: Run, folder: Path) -> None:
    code, said = add(run, folder, "--trust", "local", "--option", "valid_days=30")
    assert code == 0, said
    followed = said["data"]["subscription"]
    assert followed["source"] == {"driver": "descriptors", "options": {"trust": "local", "valid_days": "30"}}
    assert followed["trusted_by"] == "whoever may write there"
    assert followed["anchors"] is None
    assert any("whoever may write there decides" in each for each in said["messages"])
    code, said = run("subscription", "refresh", "comfy")
    assert (code, said["data"]["lists"][0]["images"]) == (0, 1), said
    code, said = run("subscription", "archive", "comfy")
    (kept,) = said["data"]["lists"]
    assert (kept["basis"], kept["signer"], kept["signer_fingerprint"]) == ("local", f"the folder {folder}", None)
    code, said = run("subscription", "show", "comfy", "--version", kept["version"])
    assert (code, [each["title"] for each in said["data"]["list"]["images"]]) == (0, ["Debian"])
    voucher = run("subscription", "show", "comfy")[1]["data"]["subscription"]["vouched_for_by"]
    assert voucher == {"basis": "local", "signer": f"the folder {folder}"}
    checks = {each["name"]: each for each in run("doctor")[1]["data"]["checks"]}
    assert "whoever may write there" in checks["source of comfy"]["found"]
    assert run("status")[0] == 0


def test_there_is_no_default_for_whom_to_believe(run: Run, folder: Path) -> None:
    code, said = add(run, folder)
    assert code == 3
    assert "--trust local" in said["errors"][0]["resolution"]
    assert run("subscription", "list")[1]["data"]["subscriptions"] == []


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--trust", "transport"), 3),
        (("--trust", "local", "--option", "keyrin=/x"), 3),
        (("--trust", "local", "--option", "valid_days=soon"), 3),
        (("--trust", "local", "--option", "valid_days"), 2),
        (("--trust", "local", "--option", "trust=local"), 2),
        (("--trust", "local", "--anchors", "/x"), 3),
        (("--trust", "local", "--trust-on-first-use"), 3),
        (("--trust", "local", "--keyring", "/nowhere"), 3),
        (("--trust", "everybody"), 2),
    ],
)
def test_what_means_nothing_for_a_source_is_refused(run: Run, folder: Path, more: tuple[str, ...], code: int) -> None:
    found, said = add(run, folder, *more)
    assert found == code, said
    assert run("subscription", "list")[1]["data"]["subscriptions"] == []


@pytest.mark.parametrize(
    ("uri", "driver"),
    [("https://example.org/x", "descriptors"), ("catalogue:../x", "catalogue"), ("file:///x", "no-such")],
)
def test_an_address_or_a_source_that_cannot_be_is_refused(run: Run, uri: str, driver: str) -> None:
    code, said = run("subscription", "add", "x", uri, "--source", driver, "--trust", "local")
    assert code == 3, said


def test_a_signed_list_needs_anchors_and_an_endorser_as_ever(run: Run) -> None:
    code, said = run("subscription", "add", "x", "https://example.org/l")
    assert (code, "--anchors is missing" in said["errors"][0]["message"]) == (2, True)
    code, said = run("subscription", "add", "x", "https://example.org/l", "--trust", "transport", "--anchors", "/x")
    assert code == 2, said


def test_a_keyring_that_is_not_there_is_found_out_at_once(run: Run, home: Path) -> None:
    code, said = run(
        "subscription", "add", "x", "https://example.org/images/", "--source", "files", "--keyring", home / "none.gpg",
        "--option", "pattern=debian-*.qcow2",
    )  # fmt: skip
    assert (code, said["errors"][0]["code"]) in {(5, "keyring"), (3, "input-invalid")}, said


def test_options_are_edited_and_a_source_stays_what_it_is(run: Run, folder: Path) -> None:
    add(run, folder, "--trust", "local")
    code, said = run("subscription", "edit", "comfy", "--option", "valid_days=7")
    assert code == 0, said
    assert said["data"]["subscription"]["source"]["options"] == {"trust": "local", "valid_days": "7"}
    code, said = run("subscription", "edit", "comfy", "--option", "valid_days=")
    assert said["data"]["subscription"]["source"]["options"] == {"trust": "local"}
    assert run("subscription", "edit", "comfy", "--option", "trust=")[0] == 3
    assert run("subscription", "edit", "comfy", "--source", "hepix")[0] == 2
    assert run("subscription", "edit", "comfy", "--source", "descriptors")[0] == 0
    assert run("subscription", "edit", "comfy", "--set", "anchors=/x")[0] == 3


def test_people_read_it_too(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(run, folder, "--trust", "local")
    assert main(["subscription", "show", "comfy"]) == 0
    said = capsys.readouterr().out
    assert "option trust" in said
    assert "revocation" not in said
    assert main(["subscription", "list"]) == 0
    assert "descriptors" in capsys.readouterr().out


def test_an_own_list_that_is_not_there_is_a_failure(run: Run) -> None:
    assert run("subscription", "add", "own", "catalogue:own", "--source", "catalogue", "--trust", "local")[0] == 0
    code, said = run("subscription", "refresh", "own")
    assert (code, said["errors"][0]["code"]) == (6, "source-unreachable"), said
