# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coppice.cli.main import COMMANDS

pytestmark = pytest.mark.integration

HEAVY = ("sqlalchemy", "pydantic", "rich", "cryptography", "oslo_utils", "asn1crypto", "urllib3", "alembic")


@pytest.fixture
def coppice(tmp_path):
    home = tmp_path / "home"
    home.mkdir()

    def _coppice(*arguments, environ=None, keep_home=True, before=""):
        environment = {"PATH": os.environ["PATH"], "COPPICE_STATE_DIRECTORY": str(home / "state")}
        environment |= {"HOME": str(home)} if keep_home else {}
        program = f"{before}\nimport sys\nfrom coppice.cli.main import main\nsys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=environment | (environ or {}),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    _coppice.home = home
    return _coppice


def test_help_lists_every_command_without_loading_what_is_heavy(coppice):
    report = "import atexit, sys\natexit.register(lambda: print('LOADED', *sorted(sys.modules), file=sys.stderr))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = coppice("--help", before=report)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"CPU {after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.3f} s")  # noqa: T201 - measured, not asserted
    assert ended.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in ended.stdout
    loaded = ended.stderr.partition("LOADED")[2].split()
    assert "coppice.cli.main" in loaded
    assert not [name for name in loaded if name.partition(".")[0] in HEAVY]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_json(coppice, name):
    ended = coppice(name, "--help")
    assert ended.returncode == 0, ended.stderr
    assert "--json" in ended.stdout


def test_a_choice_that_is_missing_is_told_in_one_line(coppice):
    ended = coppice("convert", "disk.raw")
    assert ended.returncode == 2
    assert "Missing option '--to'. Choose from: raw, qcow2, vmdk," in ended.stderr
    assert "\\" not in ended.stderr


@pytest.mark.parametrize("arguments", [("--json", "status"), ("status", "--json")])
def test_status_works_before_anything_was_set_up_and_makes_nothing(coppice, arguments):
    ended = coppice(*arguments)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["status"] == "success"
    assert said["data"]["set_up"] is False
    assert list(coppice.home.iterdir()) == []


@pytest.mark.threat("T94")
def test_status_works_when_home_is_not_set(coppice):
    ended = coppice("--json", "status", keep_home=False)
    assert json.loads(ended.stdout)["status"] == "success"


@pytest.mark.threat("T25")
def test_a_misspelt_switch_stops_every_command_that_reads_settings(coppice):
    ended = coppice("--json", "status", environ={"COPPICE_TRANSFER__ALLOW_PRIVATE_ADDRESSES": "flase"})
    said = json.loads(ended.stdout)
    assert ended.returncode == 3
    assert said["errors"][0]["code"] == "settings-invalid"
    assert list(coppice.home.iterdir()) == []


def test_doctor_names_what_is_missing_and_how_to_get_it(coppice):
    empty = coppice.home / "empty"
    empty.mkdir()
    emptied = "import coppice.process\ncoppice.process._SEARCH_PATH = ''"
    ended = coppice("--json", "doctor", environ={"PATH": str(empty)}, before=emptied)
    said = json.loads(ended.stdout)
    assert ended.returncode == 4
    assert said["data"]["usable"] is False
    by_name = {each["name"]: each for each in said["data"]["checks"]}
    assert by_name["qemu-img"]["verdict"] == "missing"
    assert by_name["qemu-img"]["remedy"] == "apt-get install qemu-utils"
    assert "tool-missing" in {each["code"] for each in said["errors"]}


def test_a_reader_that_goes_away_is_no_error_to_shout_about(coppice):
    closed = "import os, sys\nread, write = os.pipe()\nos.close(read)\nos.dup2(write, 1)"
    ended = coppice("--help", before=closed)
    assert ended.returncode == 141
    assert ended.stderr == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_command_ends_with_a_clean_message(coppice, tmp_path, number, code):
    slow = (
        "import time, coppice.cli.checks as checks\n"
        "def wait(context, role):\n    print('ready', flush=True)\n    time.sleep(30)\n"
        "checks.all_checks = wait\nimport sys\nfrom coppice.cli.main import main\nsys.exit(main(['doctor']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", slow],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.1)
        child.send_signal(number)
        _, stderr = child.communicate(timeout=20)
    assert child.returncode == code
    assert stderr.startswith("error[interrupted]:")
    assert "Traceback" not in stderr


def test_the_shipped_definitions_are_valid(coppice):
    ended = coppice("definition", "validate")
    assert ended.returncode == 0, ended.stderr
    assert "debian-12: valid" in ended.stdout


def test_the_package_runs_as_a_module(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "coppice", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("coppice, version ")
    assert Path(tmp_path).is_dir()
