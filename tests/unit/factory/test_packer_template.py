# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import shlex
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import (
    Access,
    Boot,
    DefinedFile,
    DefinedUser,
    Definition,
    FileSystemKind,
    Firewall,
    Provisioner,
    ProvisionerKind,
    Services,
)
from coppice.errors import BuildError, DefinitionError
from coppice.factory.machine import Acceleration, UefiFirmware
from coppice.factory.model import BuildOptions
from coppice.factory.packer import prepared
from coppice.factory.packer.guest import FOLDER, GuestSetting, chef_attributes, guest_work, plan_of
from coppice.factory.packer.laid import laid_over
from coppice.factory.packer.messages import MessageReader, read_message
from coppice.factory.packer.options import OpenStackOptions, QemuOptions, read_options
from coppice.factory.packer.supported import check_rendered, check_supported
from coppice.factory.packer.systems import installer_of, system_of
from coppice.factory.packer.template import Cooking, Hardware, Places, Start, literal, template, variables
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements

pytestmark = pytest.mark.unit

SUM = "sha256:" + "a" * 64
QEMU = {"iso-url": "https://images.example/x.iso", "iso-checksum": SUM}
PLAIN = Definition(
    name="plain",
    path=Path("plain/appliance.toml"),
    title="Plain",
    description="",
    groups=(),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    suite="bookworm",
    builder="packer",
    packages=("jq",),
    disk_size_bytes=1 << 32,
    firmware=(Firmware.BIOS,),
    formats=(DiskFormat.QCOW2,),
    user="debian",
    requirements=Requirements.from_values({}),
    platforms={"qemu": QEMU},
)
RED_HAT = replace(
    PLAIN,
    operating_system=OperatingSystem(kind="Linux", distribution="Rocky Linux", version="9", architecture="x86_64"),
    suite="el9",
)
CHEF = Provisioner(
    name="cook",
    kind=ProvisionerKind.CHEF,
    files={"cookbooks/a/recipes/default.rb": b"", "node.json": b'{"run_list": ["recipe[a]"], "a": {"b": "{{ c }}"}}'},
    entry="node.json",
)
SETTING = GuestSetting(login="coppice-build", was_installed=False)
PLACES = Places(
    output=Path("/w/output"),
    archive=Path("/w/archive.tar"),
    served=Path("/w/served"),
    web_port=8001,
    ssh_port=2201,
    serial_log=Path("/w/serial.log"),
    seed=None,
    user_data=None,
    cookbooks={"cook": Path("/w/chef/0")},
)
HARDWARE = Hardware(acceleration=Acceleration.TCG, firmware=Firmware.BIOS, uefi=None, disk_bytes=1 << 32)


def shell(*scripts, **fields):
    return Provisioner(name="one", kind=ProvisionerKind.SHELL, files={"run": b"#!/bin/sh\nls\n"}, entry="run", **fields)


def members(definition, parent=None, setting=SETTING):
    work = guest_work(definition, parent, setting)
    return work.steps, unpacked(work)


def unpacked(work):
    with tarfile.open(fileobj=io.BytesIO(work.archive)) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}


def rendered(options=None, *, start=None, hardware=HARDWARE, places=PLACES, steps=(), login="root", cooking=None):
    text = template(
        options or QemuOptions.model_validate(QEMU),
        start=start or Start(address="/m.iso", checksum=SUM, is_disk=False, command=("url={address}/a", "<enter>")),
        hardware=hardware,
        places=places,
        steps=steps,
        cooking=cooking or {},
        login=login,
        image_name="plain",
    )
    return json.loads(text)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"iso-ulr": "https://a.example/b"}, "did you mean iso-url"),
        ({"iso-url": "https://a.example/b"}, "iso-url is given without iso-checksum"),
        ({"iso-checksum": SUM}, "iso-checksum is given without iso-url"),
        ({"iso-url": "https://a.example/b", "iso-checksum": "none"}, "iso-checksum"),
        ({"iso-url": "https://a.example/b", "iso-checksum": "md5:" + "a" * 32}, "iso-checksum"),
        ({"iso-url": "../b.iso", "iso-checksum": SUM}, "neither an address"),
        ({"iso-url": "ftp://a.example/b", "iso-checksum": SUM}, "neither an address"),
        ({"iso-url": "https://u:p@a.example/b", "iso-checksum": SUM}, "neither an address"),
        ({**QEMU, "disk": "/d", "disk-checksum": SUM}, "keep one"),
        ({"disk": "https://a.example/d", "disk-checksum": SUM}, "absolute path"),
        ({"disk": "/a/../d", "disk-checksum": SUM}, "neither an address"),
        ({**QEMU, "boot-command": ["a\nb"]}, "control characters"),
        ({**QEMU, "boot-wait": "soon"}, "boot-wait"),
        ({**QEMU, "memory-mib": "2048"}, "memory-mib"),
        ({**QEMU, "qemuargs": [["-netdev", "user"]]}, "unknown key"),
    ],
)
def test_what_a_platform_is_told_is_checked_key_by_key(said, told):
    with pytest.raises(DefinitionError) as caught:
        read_options(replace(PLAIN, platforms={"qemu": said}))
    assert told in caught.value.message
    assert "platform.qemu" in caught.value.message


def test_one_platform_is_built_on_and_it_is_qemu_where_none_is_named():
    assert isinstance(read_options(replace(PLAIN, platforms={})), QemuOptions)
    with pytest.raises(DefinitionError, match="one disk on one platform"):
        read_options(replace(PLAIN, platforms={"qemu": QEMU, "virtualbox": QEMU}))
    with pytest.raises(DefinitionError, match="no platform 'vmware'"):
        read_options(replace(PLAIN, platforms={"vmware": {}}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"platforms": {}}, "nothing that Packer could start from"),
        ({"file_system": FileSystemKind.XFS}, "no root of xfs"),
        ({"is_encrypted": True}, "no encrypted root"),
        ({"boot": Boot(secure_boot=True)}, "secure boot"),
        ({"formats": (DiskFormat.VHDX,)}, "does not write vhdx"),
        ({"disk_size_bytes": (1 << 32) + 1}, "whole MiB"),
        ({"firmware": (Firmware.BIOS, Firmware.UEFI)}, "one firmware"),
        ({"snapshot": "20260101T000000Z"}, "no snapshot"),
        ({"parent": "other"}, "whose build is not kept"),
        ({"operating_system": replace(PLAIN.operating_system, architecture="aarch64")}, "not for aarch64"),
        ({"operating_system": replace(PLAIN.operating_system, distribution="Slackware")}, "does not know"),
        ({"operating_system": replace(RED_HAT.operating_system, version="8")}, "record of packages"),
        ({"operating_system": replace(PLAIN.operating_system, distribution="openSUSE Leap")}, "record of packages"),
        ({"platforms": {"qemu": {**QEMU, "installer": "kickstart"}}}, "not installed by kickstart"),
        (
            {"platforms": {"openstack": {"cloud": "c", "flavor": "f", "source-image-name": "i"}}},
            "stays in that cloud",
        ),
    ],
)
def test_what_the_builder_does_not_honour_is_refused_with_what_to_do(changes, told):
    with pytest.raises(BuildError, match=told) as caught:
        check_supported(replace(PLAIN, **changes), BuildOptions())
    assert caught.value.resolution


def test_other_families_are_refused_what_only_debian_gets():
    for changes, told in (
        ({"access": Access(vnc=True)}, "VNC"),
        ({"access": Access(web_console=True)}, "web console"),
    ):
        with pytest.raises(BuildError, match=told):
            check_rendered(replace(RED_HAT, **changes))
    puppet = Provisioner(name="p", kind=ProvisionerKind.PUPPET, files={"s.pp": b""}, entry="s.pp")
    with pytest.raises(BuildError, match="borrowed on Debian"):
        guest_work(replace(RED_HAT, provisioners=(puppet,)), None, SETTING)
    work = guest_work(replace(RED_HAT, provisioners=(puppet,), packages=("puppet-agent",)), None, SETTING)
    assert [step.provisioner.name for step in work.steps if step.provisioner] == ["p"]


def test_installers_go_by_the_distribution():
    names = {"Debian": "preseed", "Ubuntu": "autoinstall", "AlmaLinux": "kickstart", "openSUSE Leap": "autoyast"}
    for name, installer in names.items():
        definition = replace(PLAIN, operating_system=replace(PLAIN.operating_system, distribution=name))
        assert installer_of(definition, None) == installer
    assert installer_of(PLAIN, "preseed") == "preseed"
    assert system_of(replace(RED_HAT)).family == "red-hat"


@pytest.mark.threat("T93")
def test_who_logs_in_and_by_what_is_in_the_file_of_variables_alone():
    said = rendered()
    (builder,) = said["builders"]
    assert (builder["ssh_username"], builder["ssh_private_key_file"]) == ("{{user `login`}}", "{{user `key`}}")
    assert said["variables"] == {"login": "", "key": ""}
    assert said["sensitive-variables"] == ["key"]
    assert "ssh_password" not in builder
    assert json.loads(variables("root", Path("/w/key"))) == {"login": "root", "key": "/w/key"}


def test_everything_that_listens_is_bound_to_loopback():
    (builder,) = rendered()["builders"]
    assert builder["vnc_bind_address"] == builder["http_bind_address"] == "127.0.0.1"
    (forward,) = [words[1] for words in builder["qemuargs"] if words[0] == "-netdev"]
    assert forward == "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"
    assert builder["host_port_min"] == builder["host_port_max"] == 2201
    assert builder["boot_command"] == ["url=http://10.0.2.2:8001/a", "<enter>"]
    # Other users of this machine reach its loopback, too. Who has the password is told by a file of this user's.
    assert builder["vnc_use_password"] is True
    assert builder["qmp_socket_path"] == "qmp"
    virtualbox = read_options(replace(PLAIN, platforms={"virtualbox": QEMU}))
    (builder,) = rendered(virtualbox)["builders"]
    assert builder["vrdp_bind_address"] == builder["http_bind_address"] == "127.0.0.1"


def test_a_machine_with_uefi_gets_its_firmware_and_one_from_a_disk_its_seed():
    uefi = UefiFirmware(code=Path("/f/code"), variables=Path("/w/v,ars"))
    hardware = replace(HARDWARE, firmware=Firmware.UEFI, uefi=uefi)
    places = replace(PLACES, served=None, seed=Path("/w/seed.img"))
    start = Start(address="/w/start.qcow2", checksum=SUM, is_disk=True)
    (builder,) = rendered(hardware=hardware, places=places, start=start)["builders"]
    words = [" ".join(each) for each in builder["qemuargs"]]
    assert any("pflash0=code,pflash1=variables" in each for each in words)
    assert any("file.filename=/w/v,,ars" in each for each in words)
    assert "-device virtio-blk-pci,drive=seed" in words
    assert builder["disk_image"] is True
    assert builder["disable_vnc"] is True
    assert builder.keys().isdisjoint({"vnc_bind_address", "vnc_use_password", "qmp_socket_path"})
    assert "http_directory" not in builder
    assert "boot_command" not in builder


@pytest.mark.threat("T75")
def test_what_packer_would_take_for_an_expression_is_told_apart():
    assert literal("a {{ user `key` }} {{{") == "a {{`{{`}} user `key` }} {{`{{`}}{"
    options = OpenStackOptions.model_validate({"cloud": "c", "flavor": "f", "source-image-name": "i"})
    places = replace(PLACES, user_data=Path("/w/{{x}}/user-data"))
    steps, _ = members(replace(PLAIN, provisioners=(CHEF,)))
    run_list, attributes = chef_attributes(CHEF, replace(PLAIN, variables={"v": "{{ w }}"}))
    cooking = {"cook": Cooking(run_list=run_list, attributes=attributes)}
    said = rendered(options, places=places, steps=steps, cooking=cooking, login="coppice-build")
    (builder,) = said["builders"]
    assert builder["user_data_file"] == "/w/{{`{{`}}x}}/user-data"
    (chef,) = [each for each in said["provisioners"] if each["type"] == "chef-solo"]
    assert chef["json"] == {"a": {"b": "{{`{{`}} c }}"}, "v": "{{`{{`}} w }}"}
    assert chef["run_list"] == ["recipe[a]"]
    assert chef["skip_install"] is True
    assert chef["execute_command"].startswith("sudo -n timeout --kill-after=10 1800 chef-solo ")
    # What a definition says is in the archive, never in a command.
    for each in said["provisioners"]:
        for line in each.get("inline", ()):
            assert line.startswith(("mkdir ", "tar ", "rm ", f"/bin/sh {FOLDER}/"))


@pytest.mark.parametrize("text", ["it's", 'a"b', "$(reboot)", "`reboot`", "a\nb", "\\", "{{user `key`}}", "; reboot"])
def test_hostile_texts_reach_the_guest_as_they_are(text):
    definition = replace(
        PLAIN,
        users=(DefinedUser(name="worker", comment=text.replace("\n", " ")),),
        files=(DefinedFile(path="/etc/it's $(here)", content=text.encode()),),
        provisioners=(shell(variables={"what": text}),),
    )
    steps, found = members(definition)
    assert [step.script for step in steps] == ["prepare.sh", "accounts.sh", "provision/000.sh", "finish.sh"]
    script = found["provision/000.sh"].decode()
    (line,) = [each for each in shlex.split(script, comments=True) if each.startswith("what=")]
    assert line == f"what={text}"
    assert shlex.join(["--comment", text.replace("\n", " ")]) in found["accounts.sh"].decode()
    with tarfile.open(fileobj=io.BytesIO(found["files.tar"])) as tar:
        (file,) = list(tar)
        assert (file.name, tar.extractfile(file).read()) == ("etc/it's $(here)", text.encode())


def test_the_settings_of_the_guest_say_what_differs_from_its_parent():
    parent = replace(PLAIN, provisioners=(shell(),), services=Services(enabled=("a.service",)))
    child = replace(
        parent,
        name="child",
        packages=("jq", "tree"),
        services=Services(masked=("b.service",)),
        boot=Boot(menu_seconds=2),
    )
    steps, found = members(child, parent)
    said = dict(line.split("=", 1) for line in found["settings.sh"].decode().splitlines())
    assert [step.script for step in steps] == ["prepare.sh", "finish.sh"]
    assert "tree" in shlex.split(said["packages"])[0].split()
    assert said["masked"] == "b.service"
    assert said["released"] == "a.service"
    assert said["sets_boot"] == "yes"
    _, again = members(replace(child, boot=parent.boot), parent)
    assert b"\nsets_boot=no\n" in again["settings.sh"]
    _, fresh = members(PLAIN, None, replace(SETTING, was_installed=True))
    assert b"\npackages=''\n" in fresh["settings.sh"]


def test_what_provisioners_need_is_borrowed_and_what_stays_is_not():
    puppet = Provisioner(name="p", kind=ProvisionerKind.PUPPET, files={"s.pp": b""}, entry="s.pp")
    ansible = Provisioner(name="a", kind=ProvisionerKind.ANSIBLE, files={"s.yml": b"[]"}, entry="s.yml", stays=True)
    _, found = members(replace(PLAIN, provisioners=(puppet, ansible)))
    said = dict(line.split("=", 1) for line in found["settings.sh"].decode().splitlines())
    assert (said["borrowed"], said["staying"]) == ("puppet-agent", "ansible-core")
    assert 'case "$status" in 0 | 2) ;;' in found["provision/000.sh"].decode()
    assert "grep -Eq" in found["provision/001.sh"].decode()
    assert found["provision/001-a.json"] == b"{}"


def test_chef_is_run_where_it_stands_among_the_others():
    definition = replace(PLAIN, provisioners=(shell(), CHEF, replace(shell(), name="two")))
    assert [each.name for each in plan_of(definition, None).provisioners] == ["one", "cook", "two"]
    parent = replace(definition, provisioners=(shell(), CHEF))
    assert [each.name for each in plan_of(definition, parent).provisioners] == ["two"]
    for files, told in (
        ({**CHEF.files, "node.json": b"[]"}, "what Chef runs"),
        ({**CHEF.files, "node.json": b'{"run_list": []}'}, "what Chef runs"),
        ({"node.json": CHEF.files["node.json"]}, "no cookbooks"),
        ({**CHEF.files, "../x": b""}, "leads elsewhere"),
    ):
        with pytest.raises(DefinitionError, match=told):
            check_rendered(replace(PLAIN, provisioners=(replace(CHEF, files=files),)))


def test_other_families_find_the_firewall_and_the_administrators_where_they_look():
    laid = laid_over(RED_HAT, private_mirror=True)
    assert laid.has_own_firewall
    assert "/etc/systemd/system/sysinit.target.wants/appliance-firewall.service" in laid.entries
    assert not [path for path in laid.entries if path.endswith("/nftables.service")]
    assert b'"groups": ["adm", "wheel"]' in laid.entries["/etc/cloud/cloud.cfg.d/99-coppice.cfg"].content
    assert "chrony" in laid.packages
    assert not {"systemd-timesyncd", "unattended-upgrades"} & set(laid.packages)
    debian = laid_over(PLAIN, private_mirror=False)
    assert "/etc/systemd/system/sysinit.target.wants/nftables.service" in debian.entries
    assert not debian.has_own_firewall
    assert not laid_over(replace(RED_HAT, firewall=Firewall(enabled=False)), private_mirror=False).has_own_firewall


def test_the_mirror_that_an_installer_was_given_does_not_stay_in_the_appliance():
    for mirror, is_from_mirror in (("http://mirror.example/debian", True), (None, False)):
        work = prepared._guest(PLAIN, BuildOptions(mirror=mirror), login="root", from_disk=False)
        found = unpacked(work)
        said = dict(line.split("=", 1) for line in found["settings.sh"].decode().splitlines())
        assert ("/etc/apt/sources.list" in shlex.split(said["left_out"])[0].split()) is is_from_mirror
        assert (b"preserve_sources_list: false" in found["overlay.tar"]) is is_from_mirror


def test_sources_of_the_distribution_are_not_said_to_be_signed_by_the_keys_of_a_mirror(tmp_path):
    ubuntu = replace(
        PLAIN,
        operating_system=OperatingSystem(kind="Linux", distribution="Ubuntu", version="24.04", architecture="x86_64"),
        suite="noble",
        snapshot="20260101T000000Z",
    )
    keyring = tmp_path / "site.gpg"
    keyring.write_bytes(b"keys")
    for mirror in (None, "http://mirror.example/{snapshot}"):
        work = prepared._guest(ubuntu, BuildOptions(mirror=mirror, keyring=keyring), login="x", from_disk=True)
        found = unpacked(work)
        assert found["sources.list"]
        assert (b"signed-by=" in found["sources.list"]) is ("mirror.gpg" in found) is (mirror is not None)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname",
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssh/sshd_config.d/00-coppice.conf",
        "/tmp/x",  # noqa: S108 - of the guest
        "/var/tmp/x",  # noqa: S108 - of the guest
        "/var/log/x",
        "/var/lib/cloud/x",
        "/root/.ssh/authorized_keys",
    ],
)
def test_a_file_that_the_last_steps_would_take_away_or_write_over_is_refused(path):
    check_rendered(replace(PLAIN, files=(DefinedFile(path="/etc/motd", content=b""),)))
    with pytest.raises(DefinitionError, match="cannot be laid in"):
        check_rendered(replace(PLAIN, files=(DefinedFile(path=path, content=b""),)))


def test_a_unit_that_access_or_the_firewall_starts_is_not_for_services():
    check_rendered(replace(PLAIN, services=Services(enabled=("cron.service",))))
    for said in (Services(disabled=("nftables.service",)), Services(masked=("nftables.service",))):
        with pytest.raises(DefinitionError, match="not for services"):
            check_rendered(replace(PLAIN, services=said))
    red_hat = replace(RED_HAT, services=Services(disabled=("appliance-firewall.service",)))
    with pytest.raises(DefinitionError, match="not for services"):
        check_rendered(red_hat)


def test_packers_words_are_read_line_by_line_whatever_the_pieces():
    line = "1795684291,,ui,say,==> qemu: a%!(PACKER_COMMA) b\\n\\r\\nc\n1795684291,qemu,error,it broke\nplain words\n"
    for size in (1, 7, len(line)):
        reader = MessageReader()
        pieces = [line[at : at + size] for at in range(0, len(line), size)]
        said = [message for piece in pieces for message in reader.take(piece)]
        assert [each.text for each in said] == ["==> qemu: a, b\n\r\nc", "it broke", "plain words"]
        assert [each.is_error for each in said] == [False, True, False]
    assert read_message("1795684291,qemu,artifact,0,id,VM").kind == "artifact"
    assert read_message("no message") is None
    assert read_message("1795684291,,ui,error,bad").is_error


def test_the_scripts_of_the_guest_are_such():
    folder = Path(template.__code__.co_filename).parent / "guest"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["begin.sh", "farewell.sh", "finish.sh", "prepare.sh"]
    for name in names:
        text = (folder / name).read_text(encoding="utf-8")
        assert name == "begin.sh" or f". {FOLDER}/begin.sh\n" in text
