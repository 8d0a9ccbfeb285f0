# SPDX-License-Identifier: Apache-2.0
"""The demonstration, through the real command line; and the image that it registered boots under each firmware.

The builds are those of ``COPPICE_TEST_CACHE`` (default ``.cache/tests``): made once, found by all later runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.clock import SystemClock
from coppice.definition.model import GuestTest
from coppice.definition.read import read_definition
from coppice.factory.boot_model import promise_of
from coppice.factory.files import describe_image
from coppice.factory.model import Outcome
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.workflows.build import boot_everywhere

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800), pytest.mark.xdist_group("boot")]

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("COPPICE_TEST_CACHE", CHECKOUT / ".cache" / "tests")) / "factory"


def coppice(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COPPICE_", "XDG_", "PYTEST_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "coppice", *map(str, arguments)],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )


def run_demo(directory: Path) -> dict[str, object]:
    done = coppice("demo", "--no-boot", "--json", "--directory", directory, home=directory.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    envelope = json.loads(done.stdout)
    assert envelope["status"] == "success"
    return dict(envelope["data"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demonstration") / "demo"
    (directory / "publisher").mkdir(parents=True)
    (directory / ".coppice-demo").touch()
    CACHE.mkdir(parents=True, exist_ok=True)
    (directory / "publisher" / "factory").symlink_to(CACHE)
    return directory, run_demo(directory)


@pytest.fixture(scope="module")
def disk(stage):
    (found,) = stage[0].glob("cloud/*/disk.raw")
    return found


def test_every_step_of_the_life_is_taken_in_its_order(stage):
    steps = stage[1]["steps"]
    titles = [step["title"] for step in steps]
    assert titles[1] == "Build version 1"
    assert [re.sub(r"\W+", " ", title).split()[0] for title in titles[-3:]] == ["8", "22", "The"]
    said = {step["title"]: " ".join(step["said"]) for step in steps}
    assert "version 1, available" in said["Sync: verify, fetch, convert, register"]
    assert "version 1, superseded" in said["Sync: register 2, then hide 1"]
    assert "version 2, available" in said["Sync: register 2, then hide 1"]
    for code in ("list-tampered", "list-unsigned", "signer-not-pinned", "list-older", "source-unreachable"):
        assert f"refused as {code}; nothing changed" in " ".join(said.values())
    assert "version 1" not in said["8 days on: version 1 is past its grace period"]
    assert "version 2, expired" in said["22 more days on, nothing heard: the list expires"]
    assert "version 2, available" in said["The publisher is back and signs anew"]


def test_the_published_list_convinces_openssl(stage):
    directory = stage[0]
    argv = ["openssl", "cms", "-verify", "-in", directory / "web" / "demo.list", "-purpose", "any"]
    argv += ["-CAfile", directory / "trust" / "ca.pem", "-no-CApath", "-no-CAstore"]
    checked = subprocess.run(argv, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    content = json.loads(checked.stdout)["hv:imagelist"]
    assert content["hv:version"] == "3"
    assert len(content["hv:images"]) == 1


def test_the_published_image_is_sound(stage):
    for image in (stage[0] / "web" / "images").iterdir():
        assert subprocess.run(["qemu-img", "check", "-q", image], check=False).returncode == 0


def test_the_settings_that_it_leaves_work_with_every_command(stage):
    directory = stage[0]
    for arguments in (
        ["--config", directory / "site.toml", "status"],
        ["--config", directory / "site.toml", "cloud", "images"],
        ["--config", directory / "site.toml", "subscription", "show", "demo"],
        ["--config", directory / "publisher.toml", "appliance", "list"],
        ["--config", directory / "publisher.toml", "imagelist", "show", "demo"],
    ):
        done = coppice("--json", *arguments, home=directory.parent)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["status"] == "success"


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = coppice("demo", "--no-boot", "--json", "--directory", tmp_path, home=tmp_path)
    assert done.returncode == 12
    assert json.loads(done.stdout)["errors"][0]["code"] == "exists-already"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_image_that_was_registered_boots_under_each_firmware(stage, disk, tmp_path):
    settings = load_settings(config=None, environ={"HOME": str(tmp_path)}, options={"state_directory": str(tmp_path)})
    definition = read_definition(CHECKOUT / "definitions" / "debian-12")
    registered = describe_image(disk, DiskFormat.RAW)
    own = GuestTest(name="own", script=b"#!/bin/bash\nset -e\n[[ $(id -u) = 0 ]]\nsystemctl is-active ssh\n")
    before = disk.stat().st_mtime_ns

    def boot():
        return boot_everywhere(
            registered,
            firmware=definition.firmware,
            promise=replace(promise_of(definition), tests=(own, *definition.tests)),
            settings=settings,
            clock=SystemClock(),
            monitor=SILENT,
        )

    verdicts = boot()
    assert disk.stat().st_mtime_ns == before, "a boot test never writes to what it tests"
    assert boot() == verdicts, "the same bytes pass a gate once"
    assert {verdict.gate for verdict in verdicts} == {f"boot-{firmware}" for firmware in Firmware}
    for verdict in verdicts:
        facts = dict(verdict.facts)
        assert verdict.outcome is Outcome.PASSED
        assert facts["cloud-init"] == "done"
        assert facts["ssh-methods"] == "publickey"
        assert facts["failed-units"] == ""
        assert [name for name in facts if name.startswith("test-")] == ["test-own", "test-base"]
        assert facts["test-own"].startswith("passed")
        assert f"boot-{facts['firmware']}" == verdict.gate


@pytest.mark.soak
def test_a_second_run_finds_the_builds_and_ends_the_same(stage):
    directory, first = stage
    again = run_demo(directory)
    assert [step["title"] for step in again["steps"]] == [step["title"] for step in first["steps"]]
    assert "found in the cache" in again["steps"][1]["said"][0]
