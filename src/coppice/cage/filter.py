# SPDX-License-Identifier: Apache-2.0
"""The filter of system calls (seccomp): what a caged program may not ask of the kernel, whoever it runs as.

Limits on processes do not hold for root, and a network namespace keeps sockets from nothing but networks; a filter
holds for all. It is a program of classic BPF (Linux ``Documentation/userspace-api/seccomp_filter.rst``), a list of
eight-byte instructions that are run upon each call. It names what is refused; all else is allowed, since what a program
needs differs by its version.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass
from functools import lru_cache

from coppice.cage.calls import (
    CLONE,
    FCNTL,
    IDENTITY_CALLS,
    KILL,
    PRCTL,
    PRLIMIT,
    REFUSED_CALLS,
    TGKILL,
    TKILL,
    UNKNOWN_CALLS,
    Call,
)

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_OFFSET, _MACHINE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
"""Of struct seccomp_data."""
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
_PR_SET_PDEATHSIG = 1
_SIGNAL_ORDERS = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: have the kernel send signals, to anybody of the same user."""
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_*: the machines whose numbers are known here. Both are little-endian."""


@dataclass(frozen=True, slots=True)
class _Argument:
    """The lower half of an argument of a call."""

    index: int

    @property
    def offset(self) -> int:
        return _ARGUMENTS_OFFSET + 8 * self.index


def has_filter(machine: str | None = None) -> bool:
    """Return whether there is a filter for this machine."""
    return (machine or platform.machine()) in _MACHINES


@lru_cache(maxsize=16)
def filter_program(
    *, machine: str | None = None, own_process: int | None = None, may_become_another: bool = False
) -> bytes:
    """Return the filter, as the kernel takes it.

    Args:
        machine: As `platform.machine` names it; this one when None.
        own_process: The program's process, the only one that it may send signals to; None: it sees no other anyway.
        may_become_another: Whether it may give up its user and its rights: root's program does on its way in.

    Raises:
        KeyError: There is none for that machine (`has_filter`).
    """
    machine = machine or platform.machine()
    program = [
        _step(_LOAD, _MACHINE_OFFSET),
        # A call by another machine's numbers (those of 32 bits) would be judged by the wrong table.
        *_unless_equal(_MACHINES[machine], _KILL_PROCESS),
        _step(_LOAD, _NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        program += [_step(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _step(_RETURN, _KILL_PROCESS)]

    def number(call: Call) -> int | None:
        return call.x86_64 if machine == "x86_64" else call.aarch64

    refused = REFUSED_CALLS if may_become_another else (*REFUSED_CALLS, *IDENTITY_CALLS)
    for calls, answer in ((UNKNOWN_CALLS, errno.ENOSYS), (refused, errno.EPERM)):
        for call in calls:
            if (known := number(call)) is not None:
                program += [_step(_JUMP_EQUAL, known, 0, 1), _refuse(answer)]
    for call, condition in _conditions(own_process):
        if (known := number(call)) is not None:
            program += [_step(_JUMP_EQUAL, known, 0, len(condition)), *condition]
    program.append(_step(_RETURN, _ALLOW))
    return b"".join(program)


def _conditions(own_process: int | None) -> list[tuple[Call, list[bytes]]]:
    """Return calls that depend on an argument, each with the steps that decide it."""
    found = [
        # A thread is no process.
        (CLONE, _decide(_Argument(0), _step(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0))),
        # It is not to outlive who started it.
        (PRCTL, _decide(_Argument(0), _step(_JUMP_EQUAL, _PR_SET_PDEATHSIG, 0, 1))),
        (FCNTL, _decide_none_of(_Argument(1), _SIGNAL_ORDERS)),
        (PRLIMIT, _decide(_Argument(0), _step(_JUMP_EQUAL, 0, 1, 0))),
    ]
    if own_process is not None:
        only_own = _decide(_Argument(0), _step(_JUMP_EQUAL, own_process, 1, 0))
        found += [(KILL, only_own), (TGKILL, only_own), (TKILL, [_refuse(errno.EPERM)])]
    return found


def _decide(argument: _Argument, test: bytes) -> list[bytes]:
    # The test jumps over the refusal where the call is allowed.
    return [_step(_LOAD, argument.offset), test, _refuse(errno.EPERM), _step(_RETURN, _ALLOW)]


def _decide_none_of(argument: _Argument, values: tuple[int, ...]) -> list[bytes]:
    # Each test jumps to the refusal at the end.
    tests = [_step(_JUMP_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [_step(_LOAD, argument.offset), *tests, _step(_RETURN, _ALLOW), _refuse(errno.EPERM)]


def _unless_equal(value: int, action: int) -> list[bytes]:
    return [_step(_JUMP_EQUAL, value, 1, 0), _step(_RETURN, action)]


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
