# SPDX-License-Identifier: Apache-2.0
"""A virtual machine under QEMU: the command that starts it (pure), and the running machine.

The command is also what a person gets to start an image by hand.
"""

from __future__ import annotations

import contextlib
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BootTestError, ToolMissingError
from coppice.factory.files import qemu_format
from coppice.model.operating_system import Firmware
from coppice.process import end_process_group, find_tool, preparation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.model.image import DiskFormat

QEMU = "qemu-system-x86_64"
_UEFI_PAIRS = (("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd"))
_UEFI_FOLDERS = (Path("/usr/share/OVMF"), Path("/usr/share/edk2/ovmf"))
_LOG_TAIL_BYTES = 64 * 1024


class Acceleration(StrEnum):
    """How QEMU runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class UefiFirmware:
    """The firmware's code, and a template of the variables that a machine needs its own copy of."""

    code: Path
    variables: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a virtual machine is made of.

    Attributes:
        disk: The disk image; it is written to.
        disk_format: What it is.
        acceleration: KVM, or emulation.
        memory_mib: Memory in MiB.
        cores: Processor cores.
        seed: A raw disk with cloud-init's NoCloud data, opened read-only.
        uefi: The firmware with this machine's own variables; None: BIOS.
        ssh_port: TCP port on the host's loopback that leads to the guest's port 22; None: no network.
        isolated: Whether the guest reaches nothing outside.
        serial_log: File for the serial console; None: the terminal.
    """

    disk: Path
    disk_format: DiskFormat
    acceleration: Acceleration
    memory_mib: int = 1024
    cores: int = 2
    seed: Path | None = None
    uefi: UefiFirmware | None = None
    ssh_port: int | None = None
    isolated: bool = True
    serial_log: Path | None = None


def qemu_command(machine: Machine) -> tuple[str, ...]:
    """Return the command that starts ``machine``, with the program's bare name first."""
    words = [QEMU, "-no-user-config", "-nodefaults", "-machine", "q35", *acceleration_options(machine.acceleration)]
    words += ["-smp", str(machine.cores), "-m", str(machine.memory_mib), "-display", "none", "-no-reboot"]
    if machine.uefi is not None:
        words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_escaped(machine.uefi.code)}"]
        words += ["-drive", f"if=pflash,unit=1,format=raw,file={_escaped(machine.uefi.variables)}"]
    words += _drive("disk", machine.disk, qemu_format(machine.disk_format), ",discard=unmap")
    if machine.seed is not None:
        words += _drive("seed", machine.seed, "raw", ",readonly=on")
    words += ["-device", "virtio-rng-pci"]
    if machine.ssh_port is not None:
        network = (
            f"user,id=net0,restrict={'on' if machine.isolated else 'off'},hostfwd=tcp:127.0.0.1:{machine.ssh_port}-:22"
        )
        # An empty romfile: the machine never starts from the network, so it need not try.
        words += ["-netdev", network, "-device", "virtio-net-pci,netdev=net0,romfile="]
    console = "mon:stdio" if machine.serial_log is None else f"file:{machine.serial_log}"
    return (*words, "-serial", console)


def acceleration_options(acceleration: Acceleration) -> tuple[str, ...]:
    """Return QEMU's options for ``acceleration``."""
    if acceleration is Acceleration.KVM:
        return ("-accel", "kvm", "-cpu", "host")
    return ("-accel", "tcg,thread=multi", "-cpu", "max")


def find_uefi(folders: tuple[Path, ...] = _UEFI_FOLDERS) -> UefiFirmware:
    """Return the UEFI firmware that is installed on this machine.

    Raises:
        ToolMissingError: There is none.
    """
    for folder in folders:
        for code, variables in _UEFI_PAIRS:
            if (folder / code).is_file() and (folder / variables).is_file():
                return UefiFirmware(code=folder / code, variables=folder / variables)
    raise ToolMissingError(
        "there is no UEFI firmware for virtual machines, which Coppice needs for boot tests",
        resolution="Install it: apt-get install ovmf.",
        context={"tool": "ovmf", "package": "ovmf"},
    )


def firmware_of(machine: Machine) -> Firmware:
    """Return what ``machine`` starts by."""
    return Firmware.BIOS if machine.uefi is None else Firmware.UEFI


class RunningMachine:
    """A started virtual machine."""

    def __init__(self, machine: Machine, child: subprocess.Popen[bytes], complaints: Path) -> None:
        self.machine = machine
        self._child = child
        self._complaints = complaints

    def has_ended(self) -> bool:
        """Tell whether QEMU has ended."""
        return self._child.poll() is not None

    def wait(self, seconds: float) -> bool:
        """Wait until QEMU ends, at most ``seconds``; tell whether it did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=seconds)
        return self.has_ended()

    def end(self) -> None:
        """End QEMU now; whoever waits for the machine, or talks to it, then finds it gone."""
        end_process_group(self._child)

    def complaints(self) -> str:
        """Return what QEMU itself wrote."""
        return _tail(self._complaints)

    def serial_tail(self, lines: int = 40) -> str:
        """Return the last lines of the serial console."""
        log = self.machine.serial_log
        text = _tail(log) if log is not None else ""
        return "\n".join(line.rstrip() for line in text.splitlines()[-lines:])


@contextmanager
def running(machine: Machine, work: Path) -> Iterator[RunningMachine]:
    """Start ``machine``; end QEMU, with all that it started, when the block is left.

    Raises:
        ToolMissingError: QEMU is not installed.
        BootTestError: It could not be started.
    """
    words = list(qemu_command(machine))
    words[0] = find_tool(words[0])
    complaints = work / "qemu.log"
    with storage_errors("writing", complaints), complaints.open("wb") as stream:
        try:
            child = subprocess.Popen(  # noqa: S603 - an argument list, no shell
                words,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=work,
                start_new_session=True,
                preexec_fn=preparation(),  # noqa: PLW1509 - only prctl runs in it
            )
        except OSError as problem:
            raise BootTestError(f"cannot start {words[0]}: {problem}") from problem
    with child:
        try:
            yield RunningMachine(machine, child, complaints)
        finally:
            end_process_group(child)


def _drive(name: str, path: Path, disk_format: str, more: str) -> list[str]:
    index = ",bootindex=0" if name == "disk" else ""
    return [
        "-drive",
        f"if=none,id={name},format={disk_format},file={_escaped(path)}{more}",
        "-device",
        f"virtio-blk-pci,drive={name}{index}",
    ]


def _escaped(path: Path) -> str:
    # QEMU splits its options at commas; a doubled one stands for itself.
    return str(path).replace(",", ",,")


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            return stream.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
