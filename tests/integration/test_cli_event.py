# SPDX-License-Identifier: Apache-2.0
"""``coppice event``: through the command line."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cli.main import main
from coppice.database import Database
from coppice.events.journal import Journal
from coppice.events.model import EventKind

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
HOSTILE = "a\r\nb\x1b[2J\u2028c\u2029\x85d\u202e"


class Site:
    """A site with two hooks, one of which refuses everything."""

    def __init__(self, path: Path, capture: Any) -> None:
        self.path, self.capture = path, capture
        self.file = path / "coppice.toml"
        self.switch = path / "there"
        self.file.write_text(
            f'state_directory = "{path}/state"\n[events]\nattempts = 1\n'
            f'[hooks.lines]\nkind = "file"\npath = "{path}/lines"\n'
            f'[hooks.picky]\nkind = "program"\ncommand = ["test", "-e", "{self.switch}"]\n'
        )

    def run(self, *words: object, code: int = 0, json_form: bool = True) -> Any:
        got = main(["--config", str(self.file), *(["--json"] if json_form else []), "event", *map(str, words)])
        out, err = self.capture.readouterr()
        assert got == code, (words, out, err)
        return json.loads(out) if json_form else out

    def happen(self, *images: str, **facts: object) -> None:
        database = Database(f"sqlite:///{self.path}/state/coppice.sqlite")
        for image in images:
            Journal(database).record(
                EventKind.IMAGE_CACHED,
                subject=f"l/{image}",
                facts={"list": "l", "image": image, **facts},
                at=datetime.now(UTC),
            )
        database.close()

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in (self.path / "lines").read_text().splitlines()]


@pytest.fixture
def site(tmp_path: Path, capfd: Any) -> Site:
    site = Site(tmp_path, capfd)
    site.run("hooks")
    return site


def numbers(said: Any) -> list[int]:
    return [each["number"] for each in said["data"]["events"]]


def test_events_are_listed_shown_delivered_parked_and_replayed(site: Site) -> None:
    site.happen("a", "b")
    assert [each["behind"] for each in site.run("hooks")["data"]["hooks"]] == [2, 2]
    assert site.run("deliver", "--dry-run")["data"]["dry_run"] is True
    assert not (site.path / "lines").exists()
    said = site.run("deliver", code=1)
    assert [(each["hook"], each["delivered"], each["given_up"]) for each in said["data"]["hooks"]] == [
        ("lines", 2, 0),
        ("picky", 0, 2),
    ]
    assert {each["code"] for each in said["errors"]} == {"hook-failed"}
    assert numbers(site.run("list", "--parked")) == [1, 2]
    assert site.run("list", "--parked")["data"]["events"][0]["deliveries"] == {"lines": "delivered", "picky": "parked"}
    shown = {each["hook"]: each for each in site.run("show", 1)["data"]["deliveries"]}
    assert shown["picky"]["error"] == "the hook 'picky' ended with status 1"
    assert "parked" in site.run("show", 1, json_form=False)
    site.switch.touch()
    assert len(site.run("replay", "--parked", "--dry-run")["data"]["replayed"]) == 2
    said = site.run("replay", "--parked")
    assert [(each["hook"], each["delivered"], each["parked"]) for each in said["data"]["hooks"]] == [("picky", 2, 0)]
    assert numbers(site.run("list", "--parked")) == []
    site.run("replay", "1-2", "--hook", "lines")
    assert [each["number"] for each in site.lines()] == [1, 2, 1, 2]


def test_parked_events_can_be_given_up(site: Site) -> None:
    site.happen("a")
    site.run("deliver", code=1)
    site.run("discard", 7, code=12)
    site.run("discard", code=2)
    assert len(site.run("discard", 1, "--dry-run")["data"]["discarded"]) == 1
    assert site.run("discard", 1)["data"]["discarded"] == [{"event": 1, "hook": "picky"}]
    assert [each["parked"] for each in site.run("hooks")["data"]["hooks"]] == [0, 0]


def test_events_are_found_by_kind_time_and_what_they_are_about(site: Site) -> None:
    site.happen("a", "b")
    assert numbers(site.run("list", "--kind", "imagecached", "--image", "b")) == [2]
    assert numbers(site.run("list", "--since", "1h")) == [1, 2]
    assert numbers(site.run("list", "--since", "2099-01-01")) == []
    assert numbers(site.run("list", "--limit", 1)) == [2]
    assert numbers(site.run("list", "--after", 0, "--limit", 1)) == [1]
    assert "Did you mean ImageCached" in site.run("list", "--kind", "ImageCachd", code=2)["errors"][0]["message"]
    assert "did you mean 'picky'" in site.run("list", "--hook", "pickey", code=12)["errors"][0]["message"]
    for words in (("show", 9), ("replay", 9)):
        assert site.run(*words, code=12)["errors"][0]["code"] == "not-found"
    for words in (("show", "x"), ("replay", "2-1"), ("replay",), ("list", "--since", "tomorrowish")):
        assert site.run(*words, code=2)["errors"][0]["code"] == "usage"


@pytest.mark.threat("T76")
def test_every_event_is_one_line_whatever_is_in_it(site: Site) -> None:
    site.happen(HOSTILE, title=HOSTILE, version=HOSTILE)
    table = site.run("list", json_form=False)
    assert len(table.splitlines()) == 2
    followed = site.run("follow", "--after", 0, "--count", 1, json_form=False)
    assert len(followed.splitlines()) == 1
    for text in (table, followed, site.run("show", 1, json_form=False)):
        assert not set(text) & set("\r\x1b\u2028\u2029\x85\u202e")
    site.run("deliver", code=1)
    (event,) = site.lines()
    assert event["image"] == HOSTILE


def test_following_prints_what_comes_and_ends_well_on_ctrl_c(site: Site) -> None:
    site.happen("old")
    child = subprocess.Popen(
        [sys.executable, "-m", "coppice", "--config", str(site.file), "event", "follow", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    deadline = time.monotonic() + 100
    # It follows from when it asked first what there is: until it tells of something, that may be yet to come.
    while not select.select([child.stdout], [], [], 0.5)[0]:
        assert time.monotonic() < deadline
        site.happen("new")
    site.happen(HOSTILE)
    got = [""]
    while got[-1] != HOSTILE:
        got.append(json.loads(child.stdout.readline())["image"])
    assert got[1] == "new"
    assert set(got[1:]) == {"new", HOSTILE}
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (0, "", "")


def test_archived_events_are_imported_and_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TYPE", "AvailablePostfix"), ("DC_IDENTIFIER", "i"), ("IL_DC_IDENTIFIER", "l")):
        monkeypatch.setenv(f"VMCATCHER_EVENT_{name}", value)
    inbox = site.path / "inbox"
    assert site.run("archive", "-m", inbox, "--dry-run")["data"]["dry_run"] is True
    assert not inbox.exists()
    site.run("archive", "-m", inbox, "-p", "0640")
    site.run("archive", "-m", inbox, "-p", "0666", code=2)
    (inbox / "1_AvailablePostfix_x.json").write_text("poison")
    said = site.run("import", inbox, "--dry-run", code=1)
    assert len(said["data"]["imported"]) == 1
    said = site.run("import", inbox, code=1)
    assert said["data"]["rejected"] == ["1_AvailablePostfix_x.json"]
    assert [each["kind"] for each in site.lines()] == ["ImageCached"]
    assert site.run("import", inbox)["data"]["imported"] == []
    site.run("import", site.path / "nowhere", code=3)
    monkeypatch.delenv("VMCATCHER_EVENT_TYPE")
    assert site.run("archive", "-m", inbox, code=3)["errors"][0]["code"] == "input-invalid"
