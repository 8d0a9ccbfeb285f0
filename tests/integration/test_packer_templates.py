# SPDX-License-Identifier: Apache-2.0
"""Templates and answers of every shipped definition, looked at by the programs that know what they must be."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import Provisioner, ProvisionerKind
from coppice.definition.read import find_definitions
from coppice.errors import DefinitionError
from coppice.factory.acceleration import Measurement
from coppice.factory.machine import Acceleration
from coppice.factory.model import BuildOptions
from coppice.factory.packer import prepared
from coppice.factory.packer.look_over import look_over
from coppice.factory.packer.options import Installer, read_options
from coppice.factory.packer.prepared import lay_out
from coppice.factory.packer.runner import PackerRun
from coppice.factory.packer.systems import installer_of
from coppice.factory.packer.template import Start
from coppice.model.operating_system import Firmware
from coppice.testing.keystone import PASSWORDS, PROJECTS, REGION, Keystone

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).parents[2]
SUM = "sha256:" + "a" * 64
MEDIUM = {"iso-url": "https://images.example/x.iso", "iso-checksum": SUM}
CHEF = Provisioner(
    name="cook",
    kind=ProvisionerKind.CHEF,
    files={
        "cookbooks/a/recipes/default.rb": b"",
        "roles/b.json": b"{}",
        "node.json": b'{"run_list": ["recipe[a]"], "text": "{{ user `key` }}"}',
    },
    entry="node.json",
)
SHIPPED = [
    each
    for each in find_definitions([CHECKOUT / "definitions"])
    if each.parent is None and each.operating_system.architecture == "x86_64"
]
OTHERS = [
    # None is shipped that its installer would install.
    replace(
        SHIPPED[0],
        name="opensuse-leap",
        suite="leap",
        operating_system=replace(SHIPPED[0].operating_system, distribution="openSUSE Leap", version="15.6"),
    )
]


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch):
    found = Measurement(acceleration=Acceleration.TCG, reason="")
    monkeypatch.setattr(prepared, "choose_acceleration", lambda *_, **__: found)


def laid_out(definition, work, *, start=None):
    work.mkdir(mode=0o700)
    said = read_options(definition)
    start = start or Start(address=MEDIUM["iso-url"], checksum=SUM, is_disk=False)
    laid = lay_out(definition, said, start=start, options=BuildOptions(), work=work)
    run = PackerRun(
        template=laid.template,
        variables=laid.variables,
        work=work,
        cache=work / "cache",
        serial_log=laid.serial_log,
        provisioners=(),
    )
    return run, work / "served"


def installed(definition, firmware, platform="qemu"):
    return replace(
        definition, builder="packer", parent=None, snapshot="", firmware=(firmware,), platforms={platform: MEDIUM}
    )


def release_of(definition):
    system = definition.operating_system
    major = system.version.partition(".")[0]
    return f"F{major}" if system.distribution.startswith("Fedora") else f"RHEL{major}"


def validator_of(definition, served):
    """Return what looks at the answers, and which file they are in."""
    installer = installer_of(definition, None)
    if installer is Installer.PRESEED:
        return ["debconf-set-selections", "-c"], served / "preseed.cfg"
    if installer is Installer.KICKSTART:
        return [str(Path(sys.executable).with_name("ksvalidator")), "-v", release_of(definition)], served / "ks.cfg"
    if installer is Installer.AUTOINSTALL:
        return ["cloud-init", "schema", "--config-file"], served / "user-data"
    # There is no validator of profiles to be had: what is wanted of them stands in the unit tests.
    return [sys.executable, "-c", PARSED], served / "autoinst.xml"


@pytest.mark.parametrize("installer", list(Installer))
def test_the_answers_for_every_shipped_definition_are_what_its_installer_takes(tmp_path, installer):
    shipped = [each for each in (*SHIPPED, *OTHERS) if installer_of(each, None) is installer]
    assert shipped
    looked_at = set()
    for definition in shipped:
        for firmware in Firmware:
            work = tmp_path / f"{definition.name}-{firmware}"
            _, served = laid_out(installed(definition, firmware), work)
            argv, file = validator_of(definition, served)
            key = " ".join((work / "key.pub").read_text().split()[:2])
            # But for the key, several definitions and both firmwares may get the same answers.
            same = (*argv, file.read_text().replace(key, ""))
            if same in looked_at:
                continue
            looked_at.add(same)
            done = subprocess.run([*argv, file], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


PARSED = "import sys, xml.dom.minidom as dom; dom.parse(sys.argv[1]).getElementsByTagName('partition')[1]"


@pytest.mark.parametrize("platform", ["qemu", "virtualbox"])
@pytest.mark.parametrize("firmware", [Firmware.BIOS, Firmware.UEFI])
def test_packer_takes_the_template_of_a_definition_with_everything_in_it(tmp_path, platform, firmware):
    plain = next(each for each in SHIPPED if each.name == "debian-12")
    shell = Provisioner(name="one", kind=ProvisionerKind.SHELL, files={"run": b"#!/bin/sh\nls\n"}, entry="run")
    definition = replace(installed(plain, firmware, platform), provisioners=(shell, CHEF))
    run, _ = laid_out(definition, tmp_path / "work")
    run.validate()


def test_packer_takes_a_template_however_long_the_path_of_its_work_is(tmp_path):
    plain = next(each for each in SHIPPED if each.name == "debian-12")
    (tmp_path / ("long" * 40)).mkdir()
    run, _ = laid_out(installed(plain, Firmware.BIOS), tmp_path / ("long" * 40) / "work")
    run.validate()
    assert not list(run.work.glob("packer-plugin*"))


def test_packer_takes_the_template_that_starts_from_a_disk(tmp_path):
    plain = next(each for each in SHIPPED if each.name == "debian-12")
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
    definition = replace(plain, builder="packer", platforms={"qemu": {}})
    start = Start(address=str(disk), checksum=SUM, is_disk=True)
    run, served = laid_out(definition, tmp_path / "work", start=start)
    run.validate()
    assert not served.exists()


def test_programs_look_at_a_definition_when_they_are_asked_to(tmp_path, monkeypatch):
    rocky = next(each for each in SHIPPED if each.name == "rocky-9")
    definition = installed(rocky, Firmware.BIOS)
    assert look_over(definition) == ("ksvalidator", "packer")
    # One that starts from an appliance has no installer.
    assert look_over(replace(definition, platforms={})) == ("packer",)
    program = tmp_path / "ksvalidator"
    program.write_text("#!/bin/sh\necho line 3 is nonsense\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("coppice.factory.packer.look_over._find", lambda _name: str(program))
    with pytest.raises(DefinitionError, match="ksvalidator does not take") as caught:
        look_over(definition)
    assert "line 3 is nonsense" in (caught.value.details or "")


def test_the_command_says_who_looked_at_a_definition(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    lines = ['from = "debian-12"', "[appliance]", 'title = "Mine"', 'description = "Mine."', "[build]"]
    (folder / "appliance.toml").write_text("\n".join([*lines, 'builder = "packer"', ""]))
    argv = [sys.executable, "-m", "coppice", "--json", "definition", "validate", folder, "--tools"]
    said = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert said["data"]["valid"][0]["tools"] == ["packer"]
    with (folder / "appliance.toml").open("a") as stream:
        stream.write('[platform.qemu]\niso-ulr = "x"\n')
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "did you mean iso-url" in json.loads(done.stdout)["errors"][0]["message"]


@pytest.mark.soak
def test_packer_logs_in_to_openstack_with_the_template_for_it(tmp_path, monkeypatch):
    plain = next(each for each in SHIPPED if each.name == "debian-12")
    options = {"cloud": "alice", "flavor": "small", "source-image-name": "Debian 12", "networks": ["inside"]}
    definition = replace(plain, builder="packer", platforms={"openstack": options}, provisioners=(CHEF,))
    with Keystone(tmp_path, glance_port=1, faulty_port=1, compute_port=1) as keystone:
        keystone.wait()
        clouds = {
            "alice": {
                "auth": {
                    "auth_url": keystone.auth_url,
                    "username": "alice",
                    "password": PASSWORDS["alice"],
                    "project_name": PROJECTS["alice"],
                    "user_domain_id": "default",
                    "project_domain_id": "default",
                },
                "region_name": REGION,
            }
        }
        file = tmp_path / "clouds.yaml"
        # What is JSON is YAML, too.
        file.write_text(json.dumps({"clouds": clouds}))
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))
        run, _ = laid_out(definition, tmp_path / "work")
        run.validate()
        text = run.template.read_text()
    assert PASSWORDS["alice"] not in text
    assert '"expect_disconnect": true' in text
