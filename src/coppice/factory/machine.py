# SPDX-License-Identifier: Apache-2.0
"""A virtual machine under QEMU: the command that starts it (pure), and the running machine.

The command is also what a person gets to start an image by hand.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from coppice.atomic import storage_errors
from coppice.errors import BootTestError
from coppice.factory.files import qemu_format
from coppice.model.operating_system import Architecture, Firmware
from coppice.process import Starting, end_process_group, find_tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.model.image import DiskFormat

QEMU = "qemu-system-x86_64"
QEMU_ARM = "qemu-system-aarch64"
GUEST_MAC = "52:54:00:c0:99:1c"
REPORT_PORT = "org.coppice.boot-test"
_LOG_TAIL_BYTES = 64 * 1024


class Acceleration(StrEnum):
    """How QEMU runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class UefiFirmware:
    """The firmware's code, and a template of the variables that a machine needs its own copy of.

    Attributes:
        code: What runs.
        variables: What it remembers.
        is_secure: Whether it starts only what is signed.
    """

    code: Path
    variables: Path
    is_secure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The network of one machine: a router that hands out one address and lets nothing out, all inside QEMU.

    Attributes:
        prefix: The first three numbers of its addresses: ``10.0.2``.
        forwards: Pairs of a port on the host's loopback and the guest's port that it leads to.
        service: Command that QEMU starts for each connection to port 80 of address 254; empty: nothing is there.
        wire: Descriptor of a stream socket on which every frame of this network passes; None: nobody listens.
    """

    prefix: str = "10.0.2"
    forwards: tuple[tuple[int, int], ...] = ()
    service: tuple[str, ...] = ()
    wire: int | None = None

    @property
    def guest(self) -> str:
        """The address that the guest gets."""
        return f"{self.prefix}.15"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a machine says of itself by SMBIOS; clouds are told apart by it.

    Attributes:
        product: Its product's name.
        uuid: Its UUID, which is then its serial number too.
    """

    product: str = ""
    uuid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a virtual machine is made of.

    Attributes:
        disk: The disk image; it is written to.
        disk_format: What it is.
        acceleration: KVM, or emulation.
        architecture: Of its processor.
        memory_mib: Memory in MiB.
        cores: Processor cores.
        seed: A raw disk with cloud-init's data, opened read-only.
        uefi: The firmware with this machine's own variables; None: BIOS.
        ssh_port: TCP port on the host's loopback that leads to the guest's port 22; None: no network but ``network``.
        isolated: Whether the guest reaches nothing outside.
        network: A network of its own, always isolated; None: by ``ssh_port``.
        identity: What it says of itself.
        report: Descriptor of a stream socket that the guest finds as the virtio port `REPORT_PORT`; None: none.
        monitor: Descriptor of a stream socket on which QEMU is told what to do, by QMP; None: none.
        has_screen: Whether it has one, of which pictures can be taken.
        serial_log: File for the serial console; None: the terminal.
    """

    disk: Path
    disk_format: DiskFormat
    acceleration: Acceleration
    architecture: Architecture = Architecture.X86_64
    memory_mib: int = 1024
    cores: int = 2
    seed: Path | None = None
    uefi: UefiFirmware | None = None
    ssh_port: int | None = None
    isolated: bool = True
    network: Network | None = None
    identity: Identity = Identity()
    report: int | None = None
    monitor: int | None = None
    has_screen: bool = False
    serial_log: Path | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What QEMU is handed open."""
        wire = None if self.network is None else self.network.wire
        return tuple(each for each in (wire, self.report, self.monitor) if each is not None)


def qemu_command(machine: Machine) -> tuple[str, ...]:
    """Return the command that starts ``machine``, with the program's bare name first."""
    words = [*_board(machine), "-smp", str(machine.cores), "-m", str(machine.memory_mib)]
    words += ["-display", "none", "-no-reboot", *_identity(machine.identity)]
    if machine.uefi is not None:
        words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_escaped(machine.uefi.code)}"]
        words += ["-drive", f"if=pflash,unit=1,format=raw,file={_escaped(machine.uefi.variables)}"]
    words += _drive("disk", machine.disk, qemu_format(machine.disk_format), ",discard=unmap")
    if machine.seed is not None:
        words += _drive("seed", machine.seed, "raw", ",readonly=on")
    words += ["-device", "virtio-rng-pci"]
    if machine.has_screen:
        words += ["-device", "VGA" if machine.architecture is Architecture.X86_64 else "virtio-gpu-pci"]
    words += _network(machine)
    if machine.report is not None:
        words += ["-chardev", f"socket,id=report,fd={machine.report}", "-device", "virtio-serial-pci"]
        words += ["-device", f"virtserialport,chardev=report,name={REPORT_PORT}"]
    if machine.monitor is not None:
        words += ["-chardev", f"socket,id=monitor,fd={machine.monitor}", "-mon", "chardev=monitor,mode=control"]
    console = "mon:stdio" if machine.serial_log is None else f"file:{machine.serial_log}"
    return (*words, "-serial", console)


def _board(machine: Machine) -> list[str]:
    common = ["-no-user-config", "-nodefaults", "-machine"]
    if machine.architecture is Architecture.AARCH64:
        words = [QEMU_ARM, *common, "virt", *acceleration_options(machine.acceleration)]
        # Kernels sign where each function returns to, and the architecture's own cipher for that is slow to emulate.
        return [f"{word},pauth-impdef=on" if word == "max" else word for word in words]
    words = [QEMU, *common]
    if machine.uefi is not None and machine.uefi.is_secure:
        # The variables that say what may start are written by code in system management mode alone.
        words += ["q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
    else:
        words.append("q35")
    return [*words, *acceleration_options(machine.acceleration)]


def _identity(identity: Identity) -> list[str]:
    said = {"product": identity.product, "serial": identity.uuid, "uuid": identity.uuid}
    pairs = [f"{name}={value}" for name, value in said.items() if value]
    words = ["-uuid", identity.uuid] if identity.uuid else []
    return [*words, "-smbios", ",".join(["type=1", *pairs])] if pairs else words


def _network(machine: Machine) -> list[str]:
    network = machine.network
    # An empty romfile: the machine never starts from the network, so it need not try.
    card = "virtio-net-pci,romfile="
    if network is None:
        if machine.ssh_port is None:
            return []
        forward = f"hostfwd=tcp:127.0.0.1:{machine.ssh_port}-:22"
        router = f"user,id=net0,restrict={'on' if machine.isolated else 'off'},{forward}"
        return ["-netdev", router, "-device", f"{card},netdev=net0"]
    router = f"user,id=router,restrict=on,net={network.prefix}.0/24,dhcpstart={network.guest}"
    if machine.ssh_port is not None:
        router += f",hostfwd=tcp:127.0.0.1:{machine.ssh_port}-:22"
    for host, guest in network.forwards:
        router += f",hostfwd=tcp:127.0.0.1:{host}-:{guest}"
    if network.service:
        command = shlex.join(network.service).replace(",", ",,")
        router += f",guestfwd=tcp:{network.prefix}.254:80-cmd:{command}"
    if network.wire is None:
        return ["-netdev", router, "-device", f"{card},netdev=router,mac={GUEST_MAC}"]
    # Router, guest and wire are plugged into one hub: on the wire is another machine of the same network.
    return [
        *("-netdev", router, "-netdev", "hubport,id=hub-router,hubid=0,netdev=router"),
        *("-netdev", f"socket,id=wire,fd={network.wire}", "-netdev", "hubport,id=hub-wire,hubid=0,netdev=wire"),
        *("-netdev", "hubport,id=hub-guest,hubid=0", "-device", f"{card},netdev=hub-guest,mac={GUEST_MAC}"),
    ]


def acceleration_options(acceleration: Acceleration) -> tuple[str, ...]:
    """Return QEMU's options for ``acceleration``."""
    if acceleration is Acceleration.KVM:
        return ("-accel", "kvm", "-cpu", "host")
    return ("-accel", "tcg,thread=multi", "-cpu", "max")


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
    with Starting() as starting:
        with storage_errors("writing", complaints), complaints.open("wb") as stream:
            child = _started(starting, words, stdout=stream, stderr=stream, cwd=work, pass_fds=machine.descriptors)
        with child:
            try:
                starting.is_known()
                yield RunningMachine(machine, child, complaints)
            finally:
                end_process_group(child)


def _started(starting: Starting, words: list[str], **prepared: Any) -> subprocess.Popen[bytes]:
    try:
        return starting.program(words, stdin=subprocess.DEVNULL, **prepared)
    except (OSError, subprocess.SubprocessError) as problem:
        raise BootTestError(f"cannot start {words[0]}: {problem}") from problem


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
