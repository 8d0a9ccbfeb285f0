# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from coppice.errors import BootTestError, InterruptedRunError, ToolMissingError
from coppice.factory import acceleration as accelerations
from coppice.factory.acceleration import Measurement, choose_acceleration, compare, probe_sector, remember
from coppice.factory.boot import BootSettings, boot_gate, ended_by, failure_folder
from coppice.factory.boot_firmware import find_uefi
from coppice.factory.login import Login
from coppice.factory.machine import (
    GUEST_MAC,
    Acceleration,
    Identity,
    Machine,
    Network,
    UefiFirmware,
    firmware_of,
    qemu_command,
)
from coppice.factory.seed import meta_data, user_data
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Architecture, Firmware

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


def network_words(**facts):
    words = qemu_command(machine(network=Network(**facts)))
    return words, [word for name, word in pairwise(words) if name == "-netdev"]


def test_a_network_of_its_own_is_always_isolated_and_forwards_from_loopback_alone():
    words, backends = network_words(forwards=((4001, 80), (4002, 5901)))
    (router,) = backends
    assert router.startswith("user,id=router,restrict=on,net=10.0.2.0/24,dhcpstart=10.0.2.15,")
    assert router.endswith(",hostfwd=tcp:127.0.0.1:4001-:80,hostfwd=tcp:127.0.0.1:4002-:5901")
    assert f"virtio-net-pci,romfile=,netdev=router,mac={GUEST_MAC}" in words


def test_a_wire_a_router_and_the_guest_are_plugged_into_one_hub():
    words, backends = network_words(wire=7)
    assert "socket,id=wire,fd=7" in backends
    assert [word for word in backends if word.startswith("hubport,")] == [
        "hubport,id=hub-router,hubid=0,netdev=router",
        "hubport,id=hub-wire,hubid=0,netdev=wire",
        "hubport,id=hub-guest,hubid=0",
    ]
    assert any("netdev=hub-guest" in word for word in words)
    assert machine(network=Network(wire=7), report=8, monitor=9).descriptors == (7, 8, 9)


def test_a_service_is_started_for_each_connection_and_its_words_are_kept_apart():
    _, backends = network_words(prefix="169.254.169", service=("python3", "/odd, path/serve.py"))
    assert backends[0].endswith(",guestfwd=tcp:169.254.169.254:80-cmd:python3 '/odd,, path/serve.py'")


def test_a_machine_says_of_itself_what_it_is_told():
    words = qemu_command(machine(identity=Identity(uuid="ec2e1916-9099-7caf-fd21-012345abcdef")))
    assert words[words.index("-uuid") + 1] == "ec2e1916-9099-7caf-fd21-012345abcdef"
    said = words[words.index("-smbios") + 1]
    assert said == ("type=1,serial=ec2e1916-9099-7caf-fd21-012345abcdef,uuid=ec2e1916-9099-7caf-fd21-012345abcdef")
    assert "type=1,product=OpenStack Nova" in qemu_command(machine(identity=Identity(product="OpenStack Nova")))
    assert "-smbios" not in qemu_command(machine())


def test_report_monitor_and_screen_are_there_when_they_are_asked_for():
    words = qemu_command(machine(report=5, monitor=6, has_screen=True))
    assert "socket,id=report,fd=5" in words
    assert "virtserialport,chardev=report,name=org.coppice.boot-test" in words
    assert "chardev=monitor,mode=control" in words
    assert "VGA" in words
    assert not {"-mon", "-chardev", "VGA"} & set(qemu_command(machine()))


def test_a_machine_for_arm_is_another_board():
    words = qemu_command(machine(architecture=Architecture.AARCH64, has_screen=True))
    assert words[0] == "qemu-system-aarch64"
    assert words[words.index("-machine") + 1] == "virt"
    assert "virtio-gpu-pci" in words
    # Return addresses are signed by a cipher that is fast to emulate.
    assert words[words.index("-cpu") + 1] == "max,pauth-impdef=on"
    kvm = qemu_command(machine(architecture=Architecture.AARCH64, acceleration=Acceleration.KVM))
    assert kvm[kvm.index("-cpu") + 1] == "host"


def test_secure_boot_has_variables_that_only_the_firmware_writes():
    uefi = UefiFirmware(code=Path("/code.fd"), variables=Path("/own.fd"), is_secure=True)
    words = qemu_command(machine(uefi=uefi))
    assert words[words.index("-machine") + 1] == "q35,smm=on"
    assert "driver=cfi.pflash01,property=secure,value=on" in words


def test_the_seed_is_read_only_and_never_booted_from():
    words = qemu_command(machine(seed=Path("/seed.img")))
    assert "if=none,id=seed,format=raw,file=/seed.img,readonly=on" in words
    assert "virtio-blk-pci,drive=disk,bootindex=0" in words
    assert "virtio-blk-pci,drive=seed" in words


@pytest.mark.parametrize(
    ("architecture", "package"), [(Architecture.X86_64, "ovmf"), (Architecture.AARCH64, "qemu-efi-aarch64")]
)
@pytest.mark.parametrize("is_secure", [False, True])
def test_missing_uefi_firmware_names_its_package(tmp_path, architecture, package, is_secure):
    with pytest.raises(ToolMissingError) as caught:
        find_uefi((tmp_path,), architecture=architecture, is_secure=is_secure)
    assert package in (caught.value.resolution or "")
    assert ("secure boot" in caught.value.message) is is_secure


def test_uefi_firmware_is_found_in_pairs_only(tmp_path):
    (tmp_path / "OVMF_CODE_4M.fd").touch()
    (tmp_path / "OVMF_CODE.fd").touch()
    (tmp_path / "OVMF_VARS.fd").touch()
    assert find_uefi((tmp_path,)).code.name == "OVMF_CODE.fd"
    with pytest.raises(ToolMissingError):
        find_uefi((tmp_path,), is_secure=True)
    (tmp_path / "OVMF_CODE_4M.secboot.fd").touch()
    (tmp_path / "OVMF_VARS_4M.ms.fd").touch()
    assert find_uefi((tmp_path,), is_secure=True).is_secure


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
    for option in (
        "HostKeyAlias=boot-test",
        "BatchMode=yes",
        "IdentityAgent=none",
        "IdentitiesOnly=yes",
        'UserKnownHostsFile="/hosts"',
    ):
        assert option in words
    assert words[-3:] == ["--", "debian@127.0.0.1", "true"]
    assert "-i" not in login().command("true", by_key=False)


def test_each_firmware_has_its_own_gate():
    assert boot_gate(Firmware.BIOS) == "boot-bios"
    assert boot_gate(Firmware.UEFI) == "boot-uefi"
    assert BootSettings().timeout_seconds > 600


def test_what_is_kept_of_a_failure_has_a_folder_for_each_image_and_gate(tmp_path):
    digest = "ab" * 64
    assert failure_folder(tmp_path, f"sha512:{digest}", "boot-uefi") == tmp_path / digest[:32] / "boot-uefi"


class Guest:
    def __init__(self) -> None:
        self.ended = threading.Event()

    def end(self):
        self.ended.set()


def test_a_machine_that_keeps_its_test_waiting_is_ended_when_the_time_is_over():
    guest = Guest()
    with ended_by(None, guest, seconds=0):
        assert guest.ended.wait(30), "what reads from it would wait for ever"


def test_a_machine_is_ended_when_its_test_is_stopped():
    guest, stop = Guest(), threading.Event()

    def test():
        with ended_by(stop, guest, seconds=600):
            stop.set()
            assert guest.ended.wait(30)
            raise BootTestError("it is gone")

    with pytest.raises(InterruptedRunError):
        test()


def test_a_machine_that_is_in_time_is_left_alone():
    guest = Guest()
    with ended_by(None, guest, seconds=600):
        assert not guest.ended.is_set()
    assert not guest.ended.is_set()


def test_a_path_with_a_space_in_it_is_one_file_of_known_hosts():
    words = Login(port=1, user="u", key=Path("k"), known_hosts=Path("/my work/100%/hosts")).command("true")
    assert 'UserKnownHostsFile="/my work/100%%/hosts"' in words
