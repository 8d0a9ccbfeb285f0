# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from coppice.errors import ToolMissingError
from coppice.factory import acceleration as accelerations
from coppice.factory.acceleration import Measurement, choose_acceleration, compare, probe_sector, remember
from coppice.factory.boot import BootSettings, boot_gate, judge, printable, read_facts
from coppice.factory.login import Login
from coppice.factory.machine import Acceleration, Machine, UefiFirmware, find_uefi, firmware_of, qemu_command
from coppice.factory.seed import meta_data, user_data
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware

pytestmark = pytest.mark.unit

DISK = Path("/images/a,b.qcow2")


def machine(**facts):
    return Machine(**{"disk": DISK, "disk_format": DiskFormat.QCOW2, "acceleration": Acceleration.TCG, **facts})


def test_the_command_names_disk_format_and_escapes_commas():
    words = qemu_command(machine())
    assert words[0] == "qemu-system-x86_64"
    assert "if=none,id=disk,format=qcow2,file=/images/a,,b.qcow2,discard=unmap" in words
    assert words[-2:] == ("-serial", "mon:stdio")


def test_vhd_goes_by_qemus_own_name():
    assert any("format=vpc" in word for word in qemu_command(machine(disk_format=DiskFormat.VHD)))


def test_emulation_and_kvm_have_their_options():
    assert "tcg,thread=multi" in qemu_command(machine())
    assert "kvm" in qemu_command(machine(acceleration=Acceleration.KVM))


def test_the_network_is_loopback_only_and_isolated_unless_told_otherwise():
    network = next(word for word in qemu_command(machine(ssh_port=2222)) if word.startswith("user,"))
    assert network == "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22"
    opened = qemu_command(machine(ssh_port=2222, isolated=False))
    assert any("restrict=off" in word for word in opened)
    assert "-netdev" not in qemu_command(machine())


def test_uefi_brings_code_read_only_and_variables_of_its_own():
    uefi = UefiFirmware(code=Path("/code.fd"), variables=Path("/own.fd"))
    words = qemu_command(machine(uefi=uefi))
    assert "if=pflash,unit=0,format=raw,readonly=on,file=/code.fd" in words
    assert "if=pflash,unit=1,format=raw,file=/own.fd" in words
    assert firmware_of(machine(uefi=uefi)) is Firmware.UEFI
    assert firmware_of(machine()) is Firmware.BIOS


def test_the_seed_is_read_only_and_never_booted_from():
    words = qemu_command(machine(seed=Path("/seed.img")))
    assert "if=none,id=seed,format=raw,file=/seed.img,readonly=on" in words
    assert "virtio-blk-pci,drive=disk,bootindex=0" in words
    assert "virtio-blk-pci,drive=seed" in words


def test_missing_uefi_firmware_names_its_package(tmp_path):
    with pytest.raises(ToolMissingError) as caught:
        find_uefi((tmp_path,))
    assert "ovmf" in (caught.value.resolution or "")


def test_uefi_firmware_is_found_in_pairs_only(tmp_path):
    (tmp_path / "OVMF_CODE_4M.fd").touch()
    (tmp_path / "OVMF_CODE.fd").touch()
    (tmp_path / "OVMF_VARS.fd").touch()
    assert find_uefi((tmp_path,)).code.name == "OVMF_CODE.fd"


@pytest.mark.parametrize(
    ("kvm", "tcg", "better"),
    [
        (1.0, 3.0, Acceleration.KVM),
        (9.0, 3.0, Acceleration.TCG),
        (None, 3.0, Acceleration.TCG),
        (1.0, None, Acceleration.KVM),
        (None, None, Acceleration.TCG),
    ],
)
def test_kvm_is_chosen_only_when_it_was_measured_to_be_quicker(kvm, tcg, better):
    seconds = {Acceleration.KVM: kvm, Acceleration.TCG: tcg}
    assert compare(lambda acceleration: seconds[acceleration]).acceleration is better


def test_the_measured_answer_is_kept_until_the_machine_starts_anew(tmp_path, monkeypatch):
    state = tmp_path / "acceleration.json"
    remember(state, Measurement(acceleration=Acceleration.KVM, reason="measured"))
    assert choose_acceleration(state) == Measurement(acceleration=Acceleration.KVM, reason="measured")
    monkeypatch.setattr(accelerations, "_KVM", tmp_path / "missing")
    state.write_text(json.dumps({**json.loads(state.read_text()), "boot_id": "another"}))
    assert choose_acceleration(state).acceleration is Acceleration.TCG


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"boot_id": 1}', "\0"])
def test_a_damaged_answer_is_measured_again(tmp_path, monkeypatch, content):
    monkeypatch.setattr(accelerations, "_KVM", tmp_path / "missing")
    state = tmp_path / "acceleration.json"
    state.write_text(content)
    assert choose_acceleration(state).acceleration is Acceleration.TCG
    assert json.loads(state.read_text())["acceleration"] == "tcg"


def test_the_probe_is_a_boot_sector():
    assert len(probe_sector()) == 512
    assert probe_sector()[510:] == b"\x55\xaa"


def test_the_seed_lets_one_key_in_and_says_nothing_else():
    assert json.loads(user_data("ssh-ed25519 AAAA me\n").removeprefix("#cloud-config\n")) == {
        "ssh_authorized_keys": ["ssh-ed25519 AAAA me"]
    }
    assert json.loads(meta_data("one"))["instance-id"] == "one"


def login(port=22):
    return Login(port=port, user="debian", key=Path("/key"), known_hosts=Path("/hosts"))


def test_the_login_uses_no_configuration_agent_or_password_of_the_host():
    words = login().command("true")
    assert words[:3] == ["ssh", "-F", "none"]
    for option in ("BatchMode=yes", "IdentityAgent=none", "IdentitiesOnly=yes", "UserKnownHostsFile=/hosts"):
        assert option in words
    assert words[-3:] == ["--", "debian@127.0.0.1", "true"]
    assert "-i" not in login().command("true", by_key=False)


GOOD = {
    "cloud-init": "done",
    "cloud-init-errors": "",
    "datasource": "DataSourceNoCloud [seed=/dev/vdb]",
    "sshd-passwordauthentication": "no",
    "sshd-kbdinteractiveauthentication": "no",
    "sshd-permitrootlogin": "no",
    "ssh-methods": "publickey",
    "host-keys": "2",
    "host-keys-older-than-boot": "0",
    "machine-id": "0" * 32,
    "root-password": "*",
    "root-bytes": "950",
    "failed-units": "",
    "firmware": "bios",
}


def test_a_good_appliance_has_nothing_wrong():
    assert judge(GOOD, firmware=Firmware.BIOS, disk_bytes=1000) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cloud-init", "error", "cloud-init says 'error'"),
        ("cloud-init", "running", "cloud-init says 'running'"),
        ("cloud-init-errors", "boom", "boom"),
        ("datasource", "DataSourceNone", "DataSourceNone"),
        ("sshd-passwordauthentication", "yes", "by password"),
        ("sshd-kbdinteractiveauthentication", "yes", "keyboard-interactive"),
        ("sshd-permitrootlogin", "yes", "root may log in"),
        ("ssh-methods", "publickey,password", "publickey,password"),
        ("host-keys", "0", "no SSH host keys"),
        ("host-keys-older-than-boot", "1", "older than the machine"),
        ("machine-id", "", "no machine-id"),
        ("root-password", "$", "root has a password"),
        ("root-password", "", "root has a password"),
        ("root-bytes", "500", "did not grow"),
        ("failed-units", "nftables.service", "nftables.service"),
        ("firmware", "uefi", "started by 'uefi'"),
    ],
)
def test_each_fact_that_is_wrong_is_told(name, value, said):
    wrong = judge({**GOOD, name: value}, firmware=Firmware.BIOS, disk_bytes=1000)
    assert len(wrong) == 1
    assert said in wrong[0]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_fact_that_could_not_be_found_out_is_wrong_too(name):
    facts = {key: value for key, value in GOOD.items() if key != name}
    assert judge(facts, firmware=Firmware.BIOS, disk_bytes=1000)


def test_facts_are_read_line_by_line_and_cloud_inits_result_taken_apart():
    result = json.dumps({"v1": {"datasource": "DataSourceNoCloud", "errors": ["a", "b"]}})
    facts = read_facts(f"kernel=6.1\nnoise\ncloud-init-result={result}\nsystem=De\x1b[31mbian\n")
    assert facts == {
        "kernel": "6.1",
        "system": "De[31mbian",
        "datasource": "DataSourceNoCloud",
        "cloud-init-errors": "a; b",
    }


@pytest.mark.parametrize("result", ["", "[]", "{", '{"v1": {}}'])
def test_an_unreadable_result_of_cloud_init_is_an_error(result):
    assert read_facts(f"cloud-init-result={result}")["cloud-init-errors"]


def test_what_a_terminal_would_obey_is_taken_out():
    assert printable("a\x1b]0;b\x07\u202ec") == "a]0;bc"


def test_each_firmware_has_its_own_gate():
    assert boot_gate(Firmware.BIOS) == "boot-bios"
    assert boot_gate(Firmware.UEFI) == "boot-uefi"
    assert BootSettings().timeout_seconds > 600
