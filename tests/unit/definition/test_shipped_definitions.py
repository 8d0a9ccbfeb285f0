# SPDX-License-Identifier: Apache-2.0
"""The definitions that Coppice brings: every one is right, can be asked of its builder, and says how it is tested."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from coppice.definition.lint import lint
from coppice.definition.model import FileSystemKind
from coppice.definition.read import find_definition, find_lineage, list_references, resolve_definition
from coppice.factory.bootstrap.overlay import check_definition
from coppice.factory.bootstrap.rpm_releases import find_release, is_rpm_release
from coppice.factory.bootstrap.rpm_supported import check_rpm_supported
from coppice.factory.bootstrap.suites import find_suite
from coppice.factory.bootstrap.supported import check_supported
from coppice.factory.model import BuildOptions
from coppice.factory.provision.templates import content_of
from coppice.model.operating_system import Firmware

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "definitions"
LINEAGE = {
    "almalinux-10": ("almalinux-10",),
    "almalinux-9": ("almalinux-9",),
    "centos-stream-10": ("centos-stream-10",),
    "centos-stream-9": ("centos-stream-9",),
    "database": ("database", "hardened", "debian-12"),
    "debian-11": ("debian-11",),
    "debian-12": ("debian-12",),
    "debian-13": ("debian-13",),
    "docker-host": ("docker-host", "hardened", "debian-12"),
    "fedora-44": ("fedora-44",),
    "hardened": ("hardened", "debian-12"),
    "jupyterhub": ("jupyterhub", "hardened", "debian-12"),
    "rocky-10": ("rocky-10",),
    "rocky-9": ("rocky-9",),
    "ubuntu-22.04": ("ubuntu-22.04",),
    "ubuntu-24.04": ("ubuntu-24.04",),
    "ubuntu-26.04": ("ubuntu-26.04",),
    "web-server": ("web-server", "hardened", "debian-12"),
}
NAMES = sorted(LINEAGE)
FOR_ARM = ("debian-12@arm64", "debian-13@arm64")


def test_the_set_is_the_one_that_is_documented():
    page = (ROOT / "docs" / "reference" / "shipped-definitions.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([a-z0-9.-]+)` \| [^|]+ \| (-|`[a-z0-9.-]+`) \|", page, re.MULTILINE))
    assert sorted(path.name for path in SHIPPED.iterdir()) == NAMES
    assert {name for name in list_references(SHIPPED) if "@" in name} == set(FOR_ARM)
    assert set(re.findall(r"^\| `([a-z0-9.-]+@[a-z0-9]+)` \|", page, re.MULTILINE)) == set(FOR_ARM)
    assert {name: parent.strip("`") for name, parent in told.items()} == {
        name: (*chain, "-")[1] for name, chain in LINEAGE.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_definition_is_built_upon_what_it_should_be(name):
    assert tuple(each.name for each in find_lineage(SHIPPED, name)) == LINEAGE[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_definition_asks_for_nothing_that_its_builder_does_not_do(name):
    definition = find_definition(SHIPPED, name)
    if is_rpm_release(definition.suite):
        check_rpm_supported(definition, BuildOptions())
        assert find_release(definition.suite).name == name
    else:
        check_definition(definition)
        assert find_suite(definition.suite).name == definition.suite
    assert definition.operating_system.architecture == "x86_64"
    assert definition.file_system is FileSystemKind.EXT4
    assert (definition.is_encrypted, definition.platforms, definition.snapshot) == (False, {}, "")


@pytest.mark.parametrize("name", FOR_ARM)
def test_a_variant_for_arm_differs_from_its_definition_in_what_it_must_alone(name):
    plain, variant = (find_definition(SHIPPED, each) for each in (name.partition("@")[0], name))
    check_supported(variant, BuildOptions(mirror="http://mirror.example/debian"))
    assert (variant.name, variant.parent) == (name.replace("@", "-"), None)
    assert (variant.operating_system.architecture, variant.firmware) == ("aarch64", (Firmware.UEFI,))
    assert variant.title == f"{plain.title} for ARM"
    same = replace(
        variant,
        name=plain.name,
        variant="",
        title=plain.title,
        description=plain.description,
        operating_system=plain.operating_system,
        firmware=plain.firmware,
    )
    assert same == plain


@pytest.mark.parametrize("name", [*NAMES, *FOR_ARM])
def test_a_shipped_definition_has_nothing_that_lint_finds(name):
    # Debian 11 gets no updates any more; that is what its date says.
    found = lint(resolve_definition(SHIPPED, name), date(2026, 5, 1))
    assert [(each.rule.code, each.message) for each in found] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_definition_brings_a_test_of_its_own_beside_those_of_its_parents(name):
    tests = {each.name: each.script.decode() for each in find_definition(SHIPPED, name).tests}
    assert len(tests) == len(LINEAGE[name])
    for script in tests.values():
        assert script.startswith("#!/bin/sh\n# ")
        assert "\nset -eu\n" in script


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_definition_names_no_mirror_and_says_when_its_updates_end(name):
    text = (SHIPPED / name / "appliance.toml").read_text(encoding="utf-8")
    # An address without a host is the machine's own, which a boot test asks.
    assert not re.search(r"https?://[^:/\s]", text)
    end = find_definition(SHIPPED, name).end_of_life
    page = (ROOT / "docs" / "reference" / "shipped-definitions.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{re.escape(name)}` .*\| {end} \|", page, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_beside_a_shipped_definition_is_used_by_it(name):
    folder = SHIPPED / name
    said = tomllib.loads((folder / "appliance.toml").read_text(encoding="utf-8"))
    used = {
        each["source"] for kind in ("file", "test", "provisioner") for each in said.get(kind, []) if "source" in each
    }
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {"appliance.toml", *used}


def test_only_what_an_example_is_for_is_open():
    ports = {
        name: [(each.source, each.port, each.protocol) for each in find_definition(SHIPPED, name).firewall.open_ports]
        for name in NAMES
    }
    assert {name for name, found in ports.items() if found} == {"database", "jupyterhub", "web-server"}
    assert ports["web-server"] == [(None, 80, "tcp"), (None, 443, "tcp")]
    assert ports["jupyterhub"] == [(None, 443, "tcp")]
    assert {port for _, port, _ in ports["database"]} == {5432}
    assert None not in {source for source, _, _ in ports["database"]}


def test_the_page_of_the_web_server_says_what_its_variables_say():
    definition = find_definition(SHIPPED, "web-server")
    page = next(each for each in definition.files if each.path == "/var/www/html/index.html")
    assert "<h1>It works</h1>" in content_of(page, definition.variables).decode()


def test_settings_in_other_languages_are_well_formed():
    files = {each.path: each.content for name in NAMES for each in find_definition(SHIPPED, name).files}
    assert json.loads(files["/etc/docker/daemon.json"])["no-new-privileges"] is True
    compile(files["/etc/jupyterhub/jupyterhub_config.py"], "jupyterhub_config.py", "exec")
