# SPDX-License-Identifier: Apache-2.0
"""The matrix: every shipped definition of Debian that is kept up, and appliances that a test made, built and booted.

Hours under emulation. What is built is kept for the next time: in ``COPPICE_TEST_CACHE``, or ``.cache/tests`` of the
checkout. The mirror is the distribution's own.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import date
from pathlib import Path

import pytest

from coppice.definition.lint import lint
from coppice.definition.read import find_definition, resolve_definition
from coppice.testing.cluster import LocalCluster

pytestmark = pytest.mark.e2e

CHECKOUT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("COPPICE_TEST_CACHE", CHECKOUT / ".cache" / "tests")) / "appliances"
TODAY = date(2026, 11, 1)
SHIPPED = ("debian-12", "debian-13", "hardened", "web-server", "database", "docker-host", "jupyterhub")
MADE = ("by-puppet", "by-ansible", "desktop", "console-only", "first-boot")
FOUR = ("web-server", "database", "by-puppet", "first-boot")


def lay_out(place):
    """Lay the definitions of both kinds into one directory, where children find their parents."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(CHECKOUT / "definitions", place)
    shutil.copytree(CHECKOUT / "tests" / "data" / "appliances", place, dirs_exist_ok=True)
    return place


@pytest.fixture
def build(kit):
    """Return what builds by the command line, in a state that is kept."""

    def run(*words, more=""):
        KEPT.mkdir(parents=True, exist_ok=True)
        definitions = lay_out(KEPT / "definitions")
        text = f'state_directory = "{KEPT}/state"\ndefinitions_directory = "{definitions}"\n{more}'
        line = kit.CommandLine(KEPT, text)
        return finish(kit, line, "--json", "build", *words)

    return run


def finish(kit, line, *words):
    """Run a command for as long as it takes."""
    with kit.running(line.start(*words)) as child:
        said, complaints = child.communicate()
        return kit.Ended(line.argv(*words), child.returncode, said, complaints)


def test_the_appliances_of_the_matrix_are_valid_and_nothing_is_found_in_them(tmp_path):
    places = (lay_out(tmp_path / "definitions"),)
    found = {name: find_definition(places, name) for name in (*SHIPPED, *MADE)}
    assert {name: lint(resolve_definition(places, name), TODAY) for name in found} == dict.fromkeys(found, ())
    assert all(each.tests for each in found.values())
    # One of each kind that has to be shown.
    kinds = {str(step.kind) for each in found.values() for step in each.provisioners}
    assert {"puppet", "ansible", "shell"} <= kinds
    assert [name for name, each in found.items() if each.access.vnc] == ["desktop"]
    assert [name for name, each in found.items() if not each.access.ssh] == ["console-only"]
    assert found["console-only"].access.web_console
    assert (found["first-boot"].contextualisation.user_data or b"").startswith(b"#!")


@pytest.mark.soak
@pytest.mark.parametrize("name", [*SHIPPED, *MADE])
def test_an_appliance_is_built_passes_its_audit_and_boots_with_its_own_tests(build, name):
    ended = build(name)
    assert ended.code == 0, ended
    verdicts = {each["gate"]: each for each in ended.data["verdicts"]}
    assert {each["outcome"] for each in verdicts.values()} == {"passed"}
    definition = find_definition((KEPT / "definitions",), name)
    boots = [f"boot-{each}" for each in definition.firmware]
    assert boots
    if name in SHIPPED:
        assert set(boots) == {"boot-bios", "boot-uefi"}
    assert verdicts.keys() == {"audit", *boots}
    for gate in boots:
        assert {fact for fact in verdicts[gate]["facts"] if fact.startswith("test-")}
    print(json.dumps(verdicts, indent=1))  # noqa: T201 - what the campaign shows


@pytest.mark.soak
def test_four_appliances_are_built_on_a_cluster_of_two_workers(build, tmp_path):
    with LocalCluster(tmp_path / "cluster") as cluster:
        for name in ("first", "second"):
            cluster.worker(name, {"x86_64": 1})
        cluster.wait_for_workers("first", "second")
        more = f'[cluster]\nscheduler = "{cluster.address}"\n'
        ended = build(*FOUR, "--fresh", "--no-boot-test", "--on", "cluster", more=more)
    assert ended.code == 0, ended
    built = {each["definition"]: each for each in ended.data["builds"]}
    assert built.keys() == set(FOUR)
    assert not any(each["reused"] for each in built.values())
