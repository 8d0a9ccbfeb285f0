# SPDX-License-Identifier: Apache-2.0
"""Find out, by measuring, whether KVM makes virtual machines quicker here than emulation does.

A ``/dev/kvm`` that opens proves nothing: inside some virtual machines it is there and aborts, or is slower than
emulation. So a tiny guest that computes a little and touches many ports runs under both, and the quicker one wins.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import write_text
from coppice.errors import MachineError
from coppice.factory.machine import QEMU, Acceleration, acceleration_options
from coppice.factory.workplace import workplace
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Callable

_KVM = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROBE_SECONDS = 30.0
_EXIT_VALUE = 0x10
# isa-debug-exit makes QEMU end with twice the value, plus one.
_EXIT_STATUS = _EXIT_VALUE * 2 + 1
_PORT_WRITES = 100_000
_LOOPS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was found.

    Attributes:
        acceleration: The better one.
        reason: Why, for people.
    """

    acceleration: Acceleration
    reason: str


def choose_acceleration(state: Path | None, *, work_directory: Path | None = None) -> Measurement:
    """Return how virtual machines run best on this machine.

    Args:
        state: File where the answer is kept until the next start of this machine; None: it is not kept.
        work_directory: Where to measure; the system's temporary directory when None.

    Raises:
        ToolMissingError: QEMU is not installed.
        StorageError: The answer could not be kept.
    """
    boot_id = _read(_BOOT_ID)
    kept = _kept(state, boot_id) if state is not None else None
    if kept is not None:
        return kept
    if os.access(_KVM, os.R_OK | os.W_OK):
        with workplace(work_directory) as work:
            measured = compare(lambda acceleration: _probe(acceleration, work))
    else:
        measured = Measurement(acceleration=Acceleration.TCG, reason=f"{_KVM} is not there, or not for this user")
    if state is not None:
        remember(state, measured)
    return measured


def compare(probe: Callable[[Acceleration], float | None]) -> Measurement:
    """Return the quicker of the two, by what ``probe`` measured in seconds; None: it does not work."""
    emulated = probe(Acceleration.TCG)
    accelerated = probe(Acceleration.KVM)
    if accelerated is None:
        return Measurement(acceleration=Acceleration.TCG, reason="KVM is there and does not work")
    if emulated is not None and accelerated >= emulated:
        return Measurement(
            acceleration=Acceleration.TCG,
            reason=f"KVM is there and slower than emulation ({accelerated:.1f} s against {emulated:.1f} s)",
        )
    return Measurement(acceleration=Acceleration.KVM, reason=f"KVM works (the probe took {accelerated:.1f} s)")


def remember(state: Path, measured: Measurement) -> None:
    """Keep ``measured`` until the next start of this machine.

    Raises:
        StorageError: It could not be kept.
    """
    document = {
        "boot_id": _read(_BOOT_ID),
        "acceleration": measured.acceleration.value,
        "reason": measured.reason,
    }
    write_text(state, json.dumps(document, indent=2) + "\n")


def probe_sector() -> bytes:
    """Return a boot sector that writes to ports, computes, and ends QEMU."""
    code = b"\xfa"  # cli
    code += b"\x66\xb9" + struct.pack("<I", _PORT_WRITES)  # mov ecx, writes
    code += b"\xe6\x80\x66\x49\x75\xfa"  # again: out 0x80, al; dec ecx; jnz again
    code += b"\x66\xb9" + struct.pack("<I", _LOOPS)  # mov ecx, loops
    code += b"\x66\x49\x75\xfc"  # again: dec ecx; jnz again
    code += b"\xba\xf4\x00\xb0" + bytes([_EXIT_VALUE]) + b"\xee"  # mov dx, 0xf4; mov al, value; out dx, al
    code += b"\xf4\xeb\xfd"  # halt for ever
    return code.ljust(510, b"\0") + b"\x55\xaa"


def _probe(acceleration: Acceleration, work: Path) -> float | None:
    disk = work / "probe.img"
    disk.write_bytes(probe_sector())
    argv = [QEMU, "-no-user-config", "-nodefaults", "-display", "none", *acceleration_options(acceleration)]
    argv += [
        "-m",
        "64",
        "-drive",
        f"if=ide,format=raw,file={disk}",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=0x04",
    ]
    try:
        return run(argv, timeout_seconds=_PROBE_SECONDS, ok=(_EXIT_STATUS,)).seconds
    except MachineError as problem:
        if problem.code == "tool-missing":
            raise
        return None


def _kept(state: Path, boot_id: str) -> Measurement | None:
    # Whatever is wrong with the file, measuring again costs seconds.
    try:
        document = json.loads(state.read_text(encoding="utf-8"))
        if document["boot_id"] != boot_id:
            return None
        return Measurement(acceleration=Acceleration(document["acceleration"]), reason=str(document["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
