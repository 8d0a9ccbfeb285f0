# SPDX-License-Identifier: Apache-2.0
"""The units for systemd, judged by systemd's own tools and held to the product."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from coppice.cli.main import root
from coppice.settings.model import ServiceSettings

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
SERVICES = sorted((PACKAGING / "systemd").glob("*.service"))
TIMERS = sorted((PACKAGING / "systemd").glob("*.timer"))
PROGRAM = "/opt/coppice/bin/coppice"
FACTORY = "coppice-factory"
"""It may more than the others: what, is in ``test_factory_unit.py``."""
MOST_EXPOSED = 40
"""Tenths, as `systemd-analyze security` counts: 100 is a service that may do everything."""


def unit(path):
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(path)
    return parser


def run(*argv):
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path):
    """Return the units beside each other, with a program and a user that there are."""
    program = tmp_path / "coppice"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for path in (*SERVICES, *TIMERS):
        text = path.read_text().replace(PROGRAM, str(program))
        (tmp_path / path.name).write_text(re.sub(r"^(User|Group)=coppice$", r"\1=root", text, flags=re.MULTILINE))
    return tmp_path


def test_there_is_a_service_and_a_pair_of_units_for_each_job():
    names = {"coppice-sync", "coppice-retire", "coppice-prune", FACTORY}
    assert {path.stem for path in SERVICES} == {"coppice", *names}
    assert {path.stem for path in TIMERS} == names


def test_systemd_finds_nothing_wrong_with_any_unit(installed):
    units = [str(installed / path.name) for path in (*SERVICES, *TIMERS)]
    assert run("systemd-analyze", "verify", "--man=no", *units) == (0, "")


@pytest.mark.parametrize("name", [path.name for path in SERVICES if path.stem != FACTORY])
def test_what_a_service_may_do_is_bounded(installed, name):
    code, said = run(
        *("systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSED}"),
        str(installed / name),
    )
    assert code == 0, said


def test_every_service_is_bounded_alike():
    def bounds(path):
        _, _, rest = path.read_text().partition("# What it may do.")
        assert rest
        return rest.partition("[Install]")[0].strip()

    assert len({bounds(path) for path in SERVICES if path.stem != FACTORY}) == 1


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_the_command_of_a_service_is_one_of_coppice(path):
    program, *words = shlex.split(unit(path)["Service"]["ExecStart"])
    assert program == PROGRAM
    done = CliRunner().invoke(root, [*words, "--help"], prog_name="coppice")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Usage: coppice {' '.join(words[2:])}")


def test_systemd_waits_for_longer_than_the_service_waits_for_its_jobs():
    service = unit(PACKAGING / "systemd" / "coppice.service")["Service"]
    assert int(service["TimeoutStopSec"]) > ServiceSettings().stop_seconds + 30
    assert service["Type"] == "notify"
    assert service["KillMode"] == "mixed"


@pytest.mark.parametrize("path", TIMERS, ids=lambda path: path.stem)
def test_a_timer_comes_round(path):
    calendar = unit(path)["Timer"]["OnCalendar"]
    code, said = run("systemd-analyze", "calendar", "--iterations=2", calendar)
    assert code == 0, said
    assert "Next elapse" in said


def test_the_user_and_the_directories_are_made(tmp_path):
    (tmp_path / "etc").mkdir()
    code, said = run("systemd-sysusers", f"--root={tmp_path}", str(PACKAGING / "sysusers.d" / "coppice.conf"))
    assert code == 0, said
    user = re.search(r"^coppice:.*$", (tmp_path / "etc" / "passwd").read_text(), re.MULTILINE)
    assert user is not None
    assert user[0].split(":")[5:] == ["/var/lib/coppice", "/usr/sbin/nologin"]
    code, said = run(
        "systemd-tmpfiles", "--create", f"--root={tmp_path}", str(PACKAGING / "tmpfiles.d" / "coppice.conf")
    )
    assert code == 0, said
    assert {(tmp_path / place).stat().st_mode & 0o777 for place in ("etc/coppice", "var/lib/coppice")} == {0o750}


def test_the_page_names_every_unit_and_says_nothing_of_others():
    page = (ROOT / "docs" / "how-to" / "run-on-schedule.md").read_text()
    named = set(re.findall(r"\bcoppice(?:-[a-z]+)?\.(?:service|timer)\b", page))
    assert named == {path.name for path in (*SERVICES, *TIMERS)}
