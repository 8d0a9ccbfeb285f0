# SPDX-License-Identifier: Apache-2.0
"""The template that Packer is run with, in its JSON form. Pure.

Texts of definitions stand in it as they are: what Packer would take for an expression of its own is told apart. Who
logs in, and by which key, comes from a file of variables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice.factory.machine import Acceleration
from coppice.factory.packer.guest import FOLDER
from coppice.factory.packer.options import OpenStackOptions, QemuOptions, VirtualBoxOptions
from coppice.model.operating_system import Firmware

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from coppice.factory.machine import UefiFirmware
    from coppice.factory.packer.guest import Step
    from coppice.factory.packer.options import MachineOptions, PlatformOptions
    from coppice.model.image import DiskFormat

DISK_NAME = "disk"
HOST_ADDRESS = "10.0.2.2"
"""The host's loopback, as a guest behind QEMU's or VirtualBox's own router sees it."""
ARCHIVE = "/var/tmp/coppice-build.tar"  # noqa: S108 - of the guest
_LOOPBACK = "127.0.0.1"
_MIB = 1024 * 1024
_SHUTDOWN = "5m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where on this machine things are.

    Attributes:
        output: What Packer makes; it must not be there yet.
        archive: What is unpacked in the guest.
        served: Folder that its web server gives out; None: it serves nothing.
        web_port: Of that server, on loopback.
        ssh_port: Leads to the guest's port 22, on loopback.
        serial_log: Of the guest's serial port.
        seed: A disk that lets this build in by cloud-init; None: the installed system does.
        user_data: The same for a cloud; None: it is none.
        cookbooks: Folder of each of Chef's provisioners, by name.
    """

    output: Path
    archive: Path
    served: Path | None
    web_port: int
    ssh_port: int
    serial_log: Path
    seed: Path | None
    user_data: Path | None
    cookbooks: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the machine starts from.

    Attributes:
        address: Of the medium or the disk.
        checksum: ``algorithm:hex`` of its bytes.
        is_disk: Whether it is a disk that has a system on it.
        command: What is typed; empty: nothing.
        upon: The disk that the one at the address is laid upon, and its format; None: it is whole.
    """

    address: str
    checksum: str
    is_disk: bool
    command: tuple[str, ...] = ()
    upon: tuple[Path, DiskFormat] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The machine under QEMU.

    Attributes:
        acceleration: KVM, or emulation.
        firmware: What it starts by.
        uefi: The firmware's code and this machine's own variables; None: BIOS.
        disk_bytes: Virtual size of its disk.
    """

    acceleration: Acceleration
    firmware: Firmware
    uefi: UefiFirmware | None
    disk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooking:
    """What Chef is given for a provisioner.

    Attributes:
        run_list: What it runs.
        attributes: Its node's.
    """

    run_list: tuple[str, ...]
    attributes: Mapping[str, object]


def literal(text: str) -> str:
    """Return ``text`` so that Packer takes it as it stands."""
    return text.replace("{{", "{{`{{`}}")


def template(
    options: PlatformOptions,
    *,
    start: Start | None,
    hardware: Hardware,
    places: Places,
    steps: Sequence[Step],
    cooking: Mapping[str, Cooking],
    login: str,
    image_name: str,
) -> str:
    """Return the whole template.

    Args:
        options: What the platform was told.
        start: What the machine starts from; None: a cloud has it.
        hardware: The machine.
        places: Where things are.
        steps: What is done in it.
        cooking: What Chef is given, by provisioner.
        login: Who logs in.
        image_name: What an image is called while it is in a cloud.
    """
    if isinstance(options, OpenStackOptions):
        builder = _openstack(options, places, image_name)
    elif isinstance(options, VirtualBoxOptions):
        builder = {**_virtualbox(options, hardware), **_machine(options, _started(start), places)}
    else:
        builder = {**_qemu(options, hardware, _started(start), places), **_machine(options, _started(start), places)}
        builder["iso_target_extension"] = "img" if _started(start).is_disk else "iso"
    is_root = login == "root"
    if not isinstance(options, OpenStackOptions):
        builder |= {"shutdown_command": _farewell(is_root=is_root), "shutdown_timeout": _SHUTDOWN}
    builder |= {
        "communicator": "ssh",
        "ssh_username": "{{user `login`}}",
        "ssh_private_key_file": "{{user `key`}}",
        "ssh_disable_agent_forwarding": True,
        "ssh_timeout": options.login_timeout,
        # While a machine starts, it is asked again and again.
        "ssh_handshake_attempts": 1000,
    }
    provisioners = _provisioners(steps, places, cooking, is_root=is_root)
    if isinstance(options, OpenStackOptions):
        provisioners.append(_shell([f"/bin/sh {FOLDER}/farewell.sh"], is_root=is_root) | _LAST)
    said = {
        "variables": {"login": "", "key": ""},
        "sensitive-variables": ["key"],
        "builders": [builder],
        "provisioners": provisioners,
    }
    return json.dumps(said, indent=2) + "\n"


def variables(login: str, key: Path) -> str:
    """Return the file of variables: who logs in, and by which key."""
    return json.dumps({"login": login, "key": str(key)}) + "\n"


# The machine ends while this runs.
_LAST = {"expect_disconnect": True}


def _started(start: Start | None) -> Start:
    assert start is not None  # noqa: S101 - only a cloud starts from what is not here
    return start


def _machine(options: MachineOptions, start: Start, places: Places) -> dict[str, Any]:
    said: dict[str, Any] = {
        "iso_url": literal(start.address),
        "iso_checksum": start.checksum,
        "headless": True,
        "vm_name": DISK_NAME,
        "output_directory": literal(str(places.output)),
        "boot_wait": options.boot_wait,
        "cpus": options.cores,
        "memory": options.memory_mib,
        "host_port_min": places.ssh_port,
        "host_port_max": places.ssh_port,
    }
    if start.command:
        address = f"http://{HOST_ADDRESS}:{places.web_port}"
        said["boot_command"] = [literal(each.replace("{address}", address)) for each in start.command]
    if places.served is not None:
        said |= {
            "http_directory": literal(str(places.served)),
            "http_bind_address": _LOOPBACK,
            "http_port_min": places.web_port,
            "http_port_max": places.web_port,
        }
    return said


def _qemu(options: QemuOptions, hardware: Hardware, start: Start, places: Places) -> dict[str, Any]:
    said: dict[str, Any] = {
        "type": "qemu",
        "accelerator": hardware.acceleration.value,
        "machine_type": options.machine_type,
        "boot_key_interval": options.boot_key_interval,
        "disk_image": start.is_disk,
        "disk_size": f"{hardware.disk_bytes // _MIB}M",
        "disk_interface": "virtio",
        "disk_discard": "unmap",
        "format": "qcow2",
        # The image is written anew from what is on the disk.
        "skip_compaction": True,
        "net_device": "virtio-net-pci",
    }
    forward = f"hostfwd=tcp:{_LOOPBACK}:{{{{ .SSHHostPort }}}}-:22"
    words = [
        ["-netdev", f"user,id=user.0,{forward}"],
        ["-cpu", "host" if hardware.acceleration is Acceleration.KVM else "max"],
        ["-serial", f"file:{_word(places.serial_log)}"],
        ["-device", "virtio-net-pci,netdev=user.0"],
        ["-device", "virtio-rng-pci"],
    ]
    if start.is_disk:
        # Nothing is typed. Without an order, the firmware might start from the seed.
        said["disable_vnc"] = True
        file = f"if=none,id=system,format=qcow2,discard=unmap,file={_word(places.output / DISK_NAME)}"
        words += [["-drive", file], ["-device", "virtio-blk-pci,drive=system,bootindex=0"]]
    else:
        # Packer makes the password up, and tells QEMU by a socket where both work: a whole path might be too long.
        said |= {"vnc_bind_address": _LOOPBACK, "vnc_use_password": True, "qmp_socket_path": "qmp"}
    if places.seed is not None:
        file = f"driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename={_word(places.seed)}"
        words += [["-blockdev", file], ["-device", "virtio-blk-pci,drive=seed"]]
    if hardware.uefi is not None:
        for name, path, mode in (
            ("code", hardware.uefi.code, "on"),
            ("variables", hardware.uefi.variables, "off"),
        ):
            file = f"driver=raw,node-name={name},read-only={mode},file.driver=file,file.filename={_word(path)}"
            words.append(["-blockdev", file])
        kind = f"type={options.machine_type},accel={hardware.acceleration},pflash0=code,pflash1=variables"
        words.append(["-machine", kind])
    said["qemuargs"] = words
    return said


def _virtualbox(options: VirtualBoxOptions, hardware: Hardware) -> dict[str, Any]:
    kind = "efi" if hardware.firmware is Firmware.UEFI else "bios"
    return {
        "type": "virtualbox-iso",
        "guest_os_type": options.guest_os_type,
        "disk_size": hardware.disk_bytes // _MIB,
        "hard_drive_interface": options.hard_drive_interface,
        "guest_additions_mode": "disable",
        "format": "ovf",
        "vrdp_bind_address": _LOOPBACK,
        "vboxmanage": [["modifyvm", "{{ .Name }}", "--firmware", kind]],
    }


def _openstack(options: OpenStackOptions, places: Places, image_name: str) -> dict[str, Any]:
    said: dict[str, Any] = {
        "type": "openstack",
        "cloud": literal(options.cloud),
        "flavor": literal(options.flavor),
        "image_name": literal(image_name),
        "image_visibility": "private",
        "user_data_file": literal(str(places.user_data)),
    }
    texts = {
        "source_image": options.source_image,
        "source_image_name": options.source_image_name,
        "floating_ip_network": options.floating_ip_network,
        "availability_zone": options.availability_zone,
    }
    said |= {key: literal(text) for key, text in texts.items() if text is not None}
    lists = {"networks": options.networks, "security_groups": options.security_groups}
    return said | {key: [literal(each) for each in names] for key, names in lists.items() if names}


def _provisioners(
    steps: Sequence[Step], places: Places, cooking: Mapping[str, Cooking], *, is_root: bool
) -> list[dict[str, Any]]:
    unpack = [
        f"mkdir -m 0700 {FOLDER}",
        f"tar --extract --no-same-owner --file={ARCHIVE} --directory={FOLDER}",
        f"rm -f {ARCHIVE}",
    ]
    found: list[dict[str, Any]] = [
        {"type": "file", "source": literal(str(places.archive)), "destination": ARCHIVE},
        _shell(unpack, is_root=is_root),
    ]
    for step in steps:
        if step.provisioner is not None and not step.script:
            name = step.provisioner.name
            found.append(_chef(places.cookbooks[name], cooking[name], step, is_root=is_root))
        else:
            found.append(_shell([f"/bin/sh {FOLDER}/{step.script}"], is_root=is_root))
    return found


def _shell(lines: list[str], *, is_root: bool) -> dict[str, Any]:
    return {
        "type": "shell",
        "inline": lines,
        "inline_shebang": "/bin/sh -eu",
        "remote_folder": "/var/tmp",  # noqa: S108 - of the guest
        "skip_clean": True,
        "execute_command": f"{'' if is_root else 'sudo -n '}/bin/sh -eu {{{{ .Path }}}}",
    }


def _chef(folder: Path, cooking: Cooking, step: Step, *, is_root: bool) -> dict[str, Any]:
    assert step.provisioner is not None  # noqa: S101 - of Chef's steps alone
    seconds = f"{step.provisioner.timeout_seconds:.0f}"
    sudo = "" if is_root else "sudo -n "
    chef = "chef-solo --no-color -c {{ .ConfigPath }} -j {{ .JsonPath }}"
    said: dict[str, Any] = {
        "type": "chef-solo",
        "cookbook_paths": [literal(str(folder / "cookbooks"))],
        "run_list": [literal(each) for each in cooking.run_list],
        "json": _literals(cooking.attributes),
        # Chef is a package of the definition's: nothing is fetched and run that nobody signed.
        "skip_install": True,
        "prevent_sudo": is_root,
        "staging_directory": "/var/tmp/coppice-chef",  # noqa: S108 - of the guest
        "execute_command": f"{sudo}timeout --kill-after=10 {seconds} {chef}",
    }
    for key, name in (("roles_path", "roles"), ("data_bags_path", "data_bags"), ("environments_path", "environments")):
        if any(path.startswith(f"{name}/") for path in step.provisioner.files):
            said[key] = literal(str(folder / name))
    return said


def _literals(value: object) -> Any:
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, list | tuple):
        return [_literals(each) for each in value]
    if hasattr(value, "items"):
        return {literal(str(key)): _literals(each) for key, each in value.items()}
    return value


def _farewell(*, is_root: bool) -> str:
    return f"{'' if is_root else 'sudo -n '}/bin/sh {FOLDER}/farewell.sh"


def _word(path: Path) -> str:
    # QEMU splits its options at commas; a doubled one stands for itself.
    return literal(str(path).replace(",", ",,"))
