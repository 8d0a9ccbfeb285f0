# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import (
    DefinedFile,
    DefinedUser,
    Definition,
    Provisioner,
    ProvisionerKind,
    Services,
)
from coppice.errors import BuildError, DefinitionError
from coppice.factory.bootstrap.overlay import check_definition
from coppice.factory.provision.commands import command_of, package_of
from coppice.factory.provision.inputs import provision_inputs
from coppice.factory.provision.plan import check_provisioning, make_plan
from coppice.factory.provision.run import folder_name, lay_materials
from coppice.factory.provision.templates import content_of
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements

pytestmark = pytest.mark.unit

PLAIN = Definition(
    name="plain",
    path=Path("plain/appliance.toml"),
    title="Plain",
    description="",
    groups=(),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    suite="bookworm",
    builder="bootstrap",
    packages=("jq",),
    disk_size_bytes=1 << 32,
    firmware=(Firmware.BIOS,),
    formats=(DiskFormat.QCOW2,),
    user="debian",
    requirements=Requirements.from_values({}),
)
SCRIPT = Provisioner(name="one", kind=ProvisionerKind.SHELL, files={"run": b"#!/bin/sh\nls\n"}, entry="run")
PUPPET = Provisioner(name="p", kind=ProvisionerKind.PUPPET, files={"manifests/site.pp": b""}, entry="manifests/site.pp")
ANSIBLE = Provisioner(name="a", kind=ProvisionerKind.ANSIBLE, files={"site.yml": b"[]"}, entry="site.yml")


def template(text):
    return DefinedFile(path="/etc/x", content=text, is_template=True)


def test_a_template_has_its_variables_filled_in_and_other_dollars_left_alone():
    text = b"a=${a} b=${b-c} cost=$5 home=$HOME $${a}"
    assert content_of(template(text), {"a": "1 ${b-c}", "b-c": "2"}) == b"a=1 ${b-c} b=2 cost=$5 home=$HOME ${a}"


def test_what_is_no_template_stays_as_it_is():
    assert content_of(DefinedFile(path="/etc/x", content=b"${a}\xff"), {"a": "1"}) == b"${a}\xff"


def test_an_unknown_variable_is_refused_with_its_line_and_the_nearest_one():
    with pytest.raises(DefinitionError, match="line 3 of the template of /etc/x names the variable 'sever'") as caught:
        content_of(template(b"x\n\n${sever}"), {"server": "a"})
    assert "server" in (caught.value.resolution or "")


def test_a_template_that_is_no_text_is_refused():
    with pytest.raises(DefinitionError, match="no text"):
        content_of(template(b"\xff"), {})


def test_a_script_runs_by_what_is_stated_or_by_its_first_line():
    assert command_of(SCRIPT, PLAIN, "/f").words == ("/bin/sh", "/f/run")
    env = replace(SCRIPT, files={"run": b"#! /usr/bin/env python3 -I \nprint()\n"})
    assert command_of(env, PLAIN, "/f").words == ("/usr/bin/env", "python3 -I", "/f/run")
    stated = replace(SCRIPT, interpreter=("/bin/bash", "-e"))
    assert command_of(stated, PLAIN, "/f").words == ("/bin/bash", "-e", "/f/run")


@pytest.mark.parametrize("first", [b"", b"ls\n", b"#!sh\n", b"#!\n", b"#!/bin/sh"])
def test_a_script_that_does_not_say_what_interprets_it_is_refused(first):
    with pytest.raises(DefinitionError, match="does not say what interprets it"):
        command_of(replace(SCRIPT, files={"run": first}), PLAIN, "/f")


def test_an_interpreter_is_a_whole_path():
    with pytest.raises(DefinitionError, match="no whole path"):
        command_of(replace(SCRIPT, interpreter=("bash",)), PLAIN, "/f")


@pytest.mark.threat("T93")
@pytest.mark.parametrize("provisioner", [SCRIPT, PUPPET, ANSIBLE])
def test_variables_are_never_among_the_words(provisioner):
    command = command_of(
        replace(provisioner, variables={"own-token": "canary-1"}),
        replace(PLAIN, variables={"token": "canary-2", "own-token": "lost"}),
        "/f",
    )
    assert "canary" not in " ".join(command.words)
    carried = json.loads(command.variables_file) if command.variables_file else command.environment
    assert sorted(value for value in carried.values() if "canary" in value) == ["canary-1", "canary-2"]
    assert "lost" not in carried.values()


def test_variables_are_environment_of_scripts_facts_of_puppet_and_variables_of_ansible():
    definition = replace(PLAIN, variables={"Web-Port": "80"})
    assert command_of(SCRIPT, definition, "/f").environment == {"Web_Port": "80"}
    assert command_of(PUPPET, definition, "/f").environment == {"FACTER_web_port": "80"}
    assert json.loads(command_of(ANSIBLE, definition, "/f").variables_file or b"") == {"Web_Port": "80"}


@pytest.mark.parametrize("name", ["PATH", "HOME", "LD_PRELOAD", "LD-PRELOAD"])
def test_a_variable_that_the_builder_sets_is_refused(name):
    with pytest.raises(DefinitionError, match="is set by the builder"):
        command_of(replace(SCRIPT, variables={name: "x"}), PLAIN, "/f")


@pytest.mark.parametrize("name", ["", "1a", "a b", "a=b", "-a", "a\nb"])
def test_a_variable_whose_name_cannot_be_one_is_refused(name):
    with pytest.raises(DefinitionError, match="not the name of a variable"):
        command_of(SCRIPT, replace(PLAIN, variables={name: "x"}), "/f")


def test_puppet_says_whether_something_failed_and_ansible_whether_something_was_done():
    puppet = command_of(PUPPET, PLAIN, "/f")
    assert "--detailed-exitcodes" in puppet.words
    assert puppet.ok == (0, 2)
    assert "--modulepath=/f/modules" in puppet.words
    assert puppet.words[-1] == "/f/manifests/site.pp"
    hiera = replace(PUPPET, files={**PUPPET.files, "hiera.yaml": b""})
    assert "--hiera_config=/f/hiera.yaml" in command_of(hiera, PLAIN, "/f").words
    assert command_of(ANSIBLE, PLAIN, "/f").proof


def test_each_kind_knows_its_package():
    assert package_of(ProvisionerKind.SHELL, "bookworm") is None
    assert package_of(ProvisionerKind.PUPPET, "bookworm") == "puppet-agent"
    assert package_of(ProvisionerKind.PUPPET, "bullseye") == "puppet"
    assert package_of(ProvisionerKind.ANSIBLE, "trixie") == "ansible-core"


def test_chef_is_refused_with_advice():
    with pytest.raises(BuildError, match="of the kind chef") as caught:
        check_definition(replace(PLAIN, provisioners=(replace(SCRIPT, kind=ProvisionerKind.CHEF),)))
    assert "shell, puppet or ansible" in (caught.value.resolution or "")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"provisioners": (SCRIPT, SCRIPT)}, "or two are"),
        ({"provisioners": (replace(SCRIPT, name="../x"),)}, "cannot be named"),
        ({"provisioners": (replace(SCRIPT, entry="other"),)}, "no file 'other'"),
        ({"provisioners": (replace(SCRIPT, files={**SCRIPT.files, "../x": b""}),)}, "leads elsewhere"),
        ({"provisioners": (replace(SCRIPT, files={**SCRIPT.files, "/etc/x": b""}),)}, "leads elsewhere"),
        ({"provisioners": (replace(SCRIPT, timeout_seconds=0),)}, "no time"),
        ({"files": (DefinedFile(path="etc/x", content=b""),)}, "not a path"),
        ({"files": (DefinedFile(path="/etc/../x", content=b""),)}, "not a path"),
        ({"files": (DefinedFile(path="/etc/x\n", content=b""),)}, "not a path"),
        ({"files": (DefinedFile(path="/etc/x", content=b"", mode=0o17777),)}, "cannot have the mode"),
        ({"files": (DefinedFile(path="/etc/x", content=b"", owner="a:b"),)}, "not the name of an account"),
        ({"files": (template(b"${no}"),)}, "names the variable 'no'"),
        ({"users": (DefinedUser(name="--uid=0"),)}, "not the name of an account"),
        ({"users": (DefinedUser(name="root"),)}, "not for the definition's users"),
        ({"users": (DefinedUser(name="debian"),)}, "not for the definition's users"),
        ({"users": (DefinedUser(name="ann", groups=("a,b",)),)}, "not the name of an account"),
        ({"users": (DefinedUser(name="ann", comment="a:0:0"),)}, "has a colon"),
        ({"users": (DefinedUser(name="ann", home="home"),)}, "not a path"),
        ({"services": Services(enabled=("--root=/",))}, "not the name of a unit"),
        ({"services": Services(masked=("../x.service",))}, "not the name of a unit"),
    ],
)
def test_what_cannot_be_what_it_says_is_refused_before_anything_is_built(changes, what):
    with pytest.raises(DefinitionError, match=what):
        check_provisioning(replace(PLAIN, **changes))


def test_nothing_is_done_for_a_definition_of_packages_alone():
    assert make_plan(PLAIN, None).is_empty
    assert not make_plan(replace(PLAIN, services=Services(enabled=("x",))), None).is_empty


FULL = replace(
    PLAIN,
    users=(DefinedUser(name="ann", sudo=True), DefinedUser(name="bob")),
    files=(template(b"${a}"), DefinedFile(path="/etc/y", content=b"y")),
    provisioners=(SCRIPT, replace(SCRIPT, name="two")),
    services=Services(enabled=("x", "z"), masked=("y",)),
    variables={"a": "1"},
)


def test_a_child_that_changes_nothing_has_nothing_done():
    assert make_plan(replace(FULL, name="child"), FULL).is_empty


def test_a_child_has_done_what_it_adds_and_changes():
    child = replace(
        FULL,
        users=(DefinedUser(name="ann"), DefinedUser(name="bob"), DefinedUser(name="eve")),
        files=(*FULL.files, DefinedFile(path="/etc/z", content=b"z")),
        provisioners=(*FULL.provisioners, replace(SCRIPT, name="three")),
        services=Services(enabled=("x",), masked=("z",)),
    )
    plan = make_plan(child, FULL)
    assert [user.name for user in plan.users] == ["ann", "eve"]
    assert plan.no_more_sudo == ("ann",)
    assert [file.path for file in plan.files] == ["/etc/z"]
    assert [each.name for each in plan.provisioners] == ["three"]
    assert plan.services == Services(masked=("z",))
    assert plan.released == ("y",)


def test_other_variables_make_other_files_and_other_runs():
    plan = make_plan(replace(FULL, variables={"a": "2"}), FULL)
    assert [(file.path, file.content) for file in plan.files] == [("/etc/x", b"2")]
    assert [each.name for each in plan.provisioners] == ["one", "two"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"packages": ()}, "package jq"),
        ({"files": FULL.files[:1]}, "file /etc/y"),
        ({"users": FULL.users[:1]}, "account bob"),
        ({"provisioners": FULL.provisioners[:1]}, "provisioner two"),
    ],
)
def test_a_child_cannot_take_away_what_its_parents_tree_has(changes, what):
    with pytest.raises(BuildError, match=f"takes away what its parent plain has: {what}"):
        make_plan(replace(FULL, name="child", **changes), FULL)


def test_materials_can_be_read_by_all_and_scripts_run(tmp_path):
    definition = replace(PLAIN, provisioners=(replace(SCRIPT, files={**SCRIPT.files, "a/b/data": b"x"}), ANSIBLE))
    lay_materials(definition, tmp_path / "m")
    assert folder_name(definition, ANSIBLE) == "001-a"
    seen = tmp_path / "m/seen"
    found = {str(path.relative_to(seen)): path.stat().st_mode & 0o777 for path in seen.rglob("*")}
    assert found == {
        "000-one": 0o755,
        "000-one/run": 0o755,
        "000-one/a": 0o755,
        "000-one/a/b": 0o755,
        "000-one/a/b/data": 0o644,
        "001-a": 0o755,
        "001-a/site.yml": 0o644,
        "001-a.json": 0o644,
    }


def test_each_provisioner_is_an_input_known_by_what_it_runs():
    one, again = provision_inputs(replace(PLAIN, provisioners=(SCRIPT, replace(SCRIPT, name="again"))))
    assert one.name == "provisioner one"
    assert one.digest == again.digest
    assert one.digest.startswith("sha256:")
    other = provision_inputs(replace(PLAIN, provisioners=(replace(SCRIPT, files={"run": b"#!/bin/sh\n"}),)))
    assert other[0].digest != one.digest
