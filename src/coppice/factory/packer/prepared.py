# SPDX-License-Identifier: Apache-2.0
"""Everything that Packer is run with, laid out where a build works: template, key, seed, answers, archive."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.definition.model import ProvisionerKind
from coppice.errors import BuildError
from coppice.factory.acceleration import choose_acceleration
from coppice.factory.boot_firmware import own_uefi
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.machine import Acceleration
from coppice.factory.packer.answers import Installation, answers_of
from coppice.factory.packer.guest import GuestSetting, chef_attributes, guest_work, kernel_options, packages_of
from coppice.factory.packer.options import OpenStackOptions, QemuOptions
from coppice.factory.packer.systems import Family, installer_of, system_of
from coppice.factory.packer.template import Cooking, Hardware, Places, template, variables
from coppice.factory.ports import free_ports
from coppice.factory.seed import make_disk, make_key
from coppice.model.operating_system import Architecture, Firmware

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.factory.model import BuildOptions
    from coppice.factory.packer.guest import GuestWork
    from coppice.factory.packer.options import MachineOptions, PlatformOptions
    from coppice.factory.packer.template import Start

ACCOUNT = "coppice-build"
"""Logs in while an appliance is built from a disk; it is gone from what comes out."""
_SIGNED_BY = "/var/tmp/coppice-mirror.gpg"  # noqa: S108 - of the guest
_ACCELERATION = "packer/acceleration.json"
_MOST_KEYRING_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidOut:
    """Where things are.

    Attributes:
        template: Of Packer.
        variables: Who logs in, and by which key; for this user alone.
        output: What Packer makes.
        serial_log: Of the guest's serial port.
        public_key: The other half of the key.
    """

    template: Path
    variables: Path
    output: Path
    serial_log: Path
    public_key: str


def lay_out(
    definition: Definition,
    said: PlatformOptions,
    *,
    start: Start | None,
    options: BuildOptions,
    work: Path,
    is_run: bool = True,
) -> LaidOut:
    """Write all of it into ``work``, which is this user's alone.

    Args:
        definition: What is built.
        said: What it says of its platform.
        start: What the machine starts from; None: a cloud has it.
        options: What the site decides.
        work: An empty directory.
        is_run: Whether Packer is to build with it; where it only looks at it, nothing is measured.

    Raises:
        BuildError: It asks for what cannot be done.
        DefinitionError: A value in the definition cannot be what it says.
        ToolMissingError: A program is not installed.
        StorageError: The disk failed.
    """
    key = make_key(work)
    with storage_errors("reading", key):
        public_key = " ".join(key.with_suffix(".pub").read_text(encoding="ascii").split()[:2])
    from_disk = start is None or start.is_disk
    login = ACCOUNT if from_disk else "root"
    places = _places(work, web=not from_disk)
    firmware = Firmware.BIOS if Firmware.BIOS in definition.firmware else Firmware.UEFI
    if not from_disk and start is not None and not isinstance(said, OpenStackOptions):
        command = _answer(
            definition=definition,
            said=said,
            firmware=firmware,
            public_key=public_key,
            options=options,
            places=places,
        )
        start = replace(start, command=command)
    seed_data = _seed_data(public_key)
    if isinstance(said, OpenStackOptions):
        user_data = work / "user-data"
        _write(user_data, seed_data["user-data"])
        places = replace(places, user_data=user_data)
    elif from_disk:
        places = replace(places, seed=make_disk(work, label="CIDATA", files=seed_data))
    guest = _guest(definition, options, login=login, from_disk=from_disk)
    acceleration = _acceleration(options, work) if is_run and isinstance(said, QemuOptions) else Acceleration.TCG
    _write(places.archive, guest.archive)
    cooking, cookbooks = _cooking(definition, work)
    places = replace(places, cookbooks=cookbooks)
    text = template(
        said,
        start=start,
        hardware=_hardware(definition, said, firmware, work, acceleration),
        places=places,
        steps=guest.steps,
        cooking=cooking,
        login=login,
        image_name=definition.name,
    )
    paths = LaidOut(
        template=work / "template.json",
        variables=work / "variables.json",
        output=places.output,
        serial_log=places.serial_log,
        public_key=public_key,
    )
    _write(paths.template, text.encode())
    _write(paths.variables, variables(login, key).encode())
    return paths


def _guest(definition: Definition, options: BuildOptions, *, login: str, from_disk: bool) -> GuestWork:
    ancestors = options.ancestors if definition.parent is not None else ()
    setting = GuestSetting(
        login=login,
        was_installed=not from_disk,
        is_from_mirror=not from_disk and _given_mirror(definition, options) is not None,
        sources=_sources(definition, options) if from_disk else (),
        keyring=_keyring(options) if from_disk else None,
    )
    return guest_work(definition, ancestors[0].definition if ancestors else None, setting)


def _places(work: Path, *, web: bool) -> Places:
    web_port, ssh_port = free_ports(2)
    return Places(
        output=work / "output",
        archive=work / "archive.tar",
        served=work / "served" if web else None,
        web_port=web_port,
        ssh_port=ssh_port,
        serial_log=work / "serial.log",
        seed=None,
        user_data=None,
        cookbooks={},
    )


def _answer(
    *,
    definition: Definition,
    said: MachineOptions,
    firmware: Firmware,
    public_key: str,
    options: BuildOptions,
    places: Places,
) -> tuple[str, ...]:
    """Write the answers for the installer where they are served; return what is typed."""
    major = definition.operating_system.version.partition(".")[0]
    installation = Installation(
        device="/dev/vda" if isinstance(said, QemuOptions) else "/dev/sda",
        firmware=firmware,
        public_key=public_key,
        packages=packages_of(definition, private_mirror=options.mirror is not None),
        kernel_options=kernel_options(definition),
        menu_seconds=definition.boot.menu_seconds,
        mirror=_given_mirror(definition, options),
        install_url=said.install_url,
        major=int(major) if major.isdigit() else 0,
    )
    answers = answers_of(installer_of(definition, said.installer), installation)
    assert places.served is not None  # noqa: S101 - an installer is served
    with storage_errors("making", places.served):
        places.served.mkdir(mode=0o700)
    for name, content in answers.files.items():
        _write(places.served / name, content.encode())
    return answers.command if said.boot_command is None else tuple(said.boot_command)


def _given_mirror(definition: Definition, options: BuildOptions) -> str | None:
    """Return the mirror that an installer is given."""
    return options.mirror if system_of(definition).family is Family.DEBIAN else None


def _seed_data(public_key: str) -> dict[str, bytes]:
    account = {
        "name": ACCOUNT,
        # Outside of the numbers from which the appliance's own accounts take the next.
        "uid": 60900,
        "lock_passwd": True,
        "shell": "/bin/sh",
        "sudo": ["ALL=(ALL) NOPASSWD:ALL"],
        "ssh_authorized_keys": [public_key],
    }
    # The image's own account is not made: it is the first start of a machine that makes it.
    user_data = "#cloud-config\n" + json.dumps({"users": [account], "package_update": False}) + "\n"
    meta_data = json.dumps({"instance-id": "coppice-build", "local-hostname": "localhost"}) + "\n"
    return {"user-data": user_data.encode(), "meta-data": meta_data.encode()}


def _sources(definition: Definition, options: BuildOptions) -> tuple[str, ...]:
    if options.mirror is None and not definition.snapshot:
        return ()
    if system_of(definition).family is not Family.DEBIAN:
        if definition.snapshot:
            raise BuildError(
                f"{definition.name}: the builder packer takes packages of a snapshot on Debian and Ubuntu alone",
                resolution="Leave build.snapshot out.",
            )
        return ()
    if options.mirror is not None and not options.mirror.startswith(("http://", "https://")):
        raise BuildError(
            f"{definition.name}: the machine in which it is built cannot reach the mirror {options.mirror[:200]!r}",
            resolution="Set factory.mirror to an address with http:// or https://, or use the builder bootstrap.",
        )
    lines = sources(find_suite(definition.suite), options.mirror, definition.snapshot)
    if options.keyring is None or options.mirror is None:
        # The keys are those of the mirror; without one, the machine's own are right.
        return lines
    signed = f"signed-by={_SIGNED_BY}"
    return tuple(
        line.replace("deb [", f"deb [{signed} ", 1) if line.startswith("deb [") else f"deb [{signed}] {line[4:]}"
        for line in lines
    )


def _keyring(options: BuildOptions) -> bytes | None:
    if options.keyring is None or options.mirror is None:
        return None
    with storage_errors("reading", options.keyring), options.keyring.open("rb") as stream:
        return stream.read(_MOST_KEYRING_BYTES)


def _acceleration(options: BuildOptions, work: Path) -> Acceleration:
    state = None if options.cache_directory is None else options.cache_directory / _ACCELERATION
    return choose_acceleration(state, work_directory=work).acceleration


def _hardware(
    definition: Definition, said: PlatformOptions, firmware: Firmware, work: Path, acceleration: Acceleration
) -> Hardware:
    is_ours = isinstance(said, QemuOptions) and firmware is Firmware.UEFI
    uefi = own_uefi(work, architecture=Architecture.X86_64) if is_ours else None
    return Hardware(acceleration=acceleration, firmware=firmware, uefi=uefi, disk_bytes=definition.disk_size_bytes)


def _cooking(definition: Definition, work: Path) -> tuple[dict[str, Cooking], dict[str, Path]]:
    found: dict[str, Cooking] = {}
    folders: dict[str, Path] = {}
    for number, provisioner in enumerate(definition.provisioners):
        if provisioner.kind is not ProvisionerKind.CHEF:
            continue
        folder = work / "chef" / str(number)
        for path, content in provisioner.files.items():
            place = folder / path
            with storage_errors("making", place):
                place.parent.mkdir(parents=True, exist_ok=True)
            _write(place, content)
        run_list, attributes = chef_attributes(provisioner, definition)
        found[provisioner.name] = Cooking(run_list=run_list, attributes=attributes)
        folders[provisioner.name] = folder
    return found, folders


def _write(path: Path, content: bytes) -> None:
    with storage_errors("writing", path):
        path.touch(mode=0o600)
        path.write_bytes(content)
