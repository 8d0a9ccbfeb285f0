# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import struct

import pytest

from coppice.cage.calls import IDENTITY_CALLS, REFUSED_CALLS, UNKNOWN_CALLS, Call
from coppice.cage.filter import filter_program, has_filter

pytestmark = pytest.mark.unit

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
READ = {"x86_64": 0, "aarch64": 63}
THREAD = 0x00010000
CLONE = {"x86_64": 56, "aarch64": 220}
TGKILL = {"x86_64": 234, "aarch64": 131}
OPERATION = {"x86_64": 157, "aarch64": 167}
FILE_CONTROL = {"x86_64": 72, "aarch64": 25}


def answer(program: bytes, number: int, *arguments: int, machine: int) -> int:
    """Run a filter as the kernel does; every jump must land within it."""
    data = struct.pack("<iIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return value
        else:
            tests = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            at += if_true if tests[code] else if_false


def number_of(call: Call, machine: str) -> int | None:
    return call.x86_64 if machine == "x86_64" else call.aarch64


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_what_no_program_needs_is_refused_and_the_rest_is_allowed(machine: str) -> None:
    program = filter_program(machine=machine)
    refused = {number_of(call, machine) for call in (*REFUSED_CALLS, *IDENTITY_CALLS)} - {None}
    unknown = {number_of(call, machine) for call in UNKNOWN_CALLS}
    by_argument = {CLONE[machine], OPERATION[machine], FILE_CONTROL[machine]} | {302 if machine == "x86_64" else 261}
    for number in range(600):
        expected = ERRNO | errno.EPERM if number in refused else ERRNO | errno.ENOSYS if number in unknown else ALLOW
        if number not in by_argument:
            assert answer(program, number, machine=MACHINES[machine]) == expected, number


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_a_thread_may_be_made_and_a_process_may_not(machine: str) -> None:
    program = filter_program(machine=machine)
    assert answer(program, CLONE[machine], THREAD | 0x100, machine=MACHINES[machine]) == ALLOW
    assert answer(program, CLONE[machine], 17, machine=MACHINES[machine]) == ERRNO | errno.EPERM
    # What is asked for in the upper half of the argument is no thread.
    assert answer(program, CLONE[machine], THREAD << 32, machine=MACHINES[machine]) == ERRNO | errno.EPERM


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_a_program_cannot_arrange_to_outlive_who_started_it(machine: str) -> None:
    program = filter_program(machine=machine)
    assert answer(program, OPERATION[machine], 1, 0, machine=MACHINES[machine]) == ERRNO | errno.EPERM
    assert answer(program, OPERATION[machine], 15, 0, machine=MACHINES[machine]) == ALLOW


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_a_program_cannot_have_the_kernel_send_signals_for_it(machine: str) -> None:
    program = filter_program(machine=machine)
    for order in range(20):
        # F_SETOWN, F_SETSIG, F_SETOWN_EX
        expected = ERRNO | errno.EPERM if order in {8, 10, 15} else ALLOW
        assert answer(program, FILE_CONTROL[machine], 3, order, machine=MACHINES[machine]) == expected


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_without_a_tree_of_its_own_a_program_sends_signals_to_itself_alone(machine: str) -> None:
    program = filter_program(machine=machine, own_process=4711)
    assert answer(program, TGKILL[machine], 4711, 4711, 6, machine=MACHINES[machine]) == ALLOW
    assert answer(program, TGKILL[machine], 4712, 4712, 6, machine=MACHINES[machine]) == ERRNO | errno.EPERM


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_calls_by_the_numbers_of_another_machine_end_the_program(machine: str) -> None:
    program = filter_program(machine=machine)
    for other in (0x40000003, 0x40000028, 0):
        assert answer(program, READ[machine], machine=other) == KILL


def test_calls_of_the_half_width_numbering_end_the_program() -> None:
    assert answer(filter_program(machine="x86_64"), 0x40000000 | 41, machine=MACHINES["x86_64"]) == KILL


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_who_becomes_nobody_on_the_way_in_may_give_up_rights_only(machine: str) -> None:
    program = filter_program(machine=machine, may_become_another=True)
    for call in IDENTITY_CALLS:
        assert answer(program, number_of(call, machine) or 0, machine=MACHINES[machine]) == ALLOW
    for call in REFUSED_CALLS:
        if (number := number_of(call, machine)) is not None:
            assert answer(program, number, machine=MACHINES[machine]) == ERRNO | errno.EPERM


def test_there_is_no_filter_for_a_machine_whose_numbers_are_not_known() -> None:
    assert not has_filter("riscv64")
    with pytest.raises(KeyError):
        filter_program(machine="riscv64")


def test_no_call_is_listed_twice() -> None:
    names = [call.name for call in (*REFUSED_CALLS, *IDENTITY_CALLS, *UNKNOWN_CALLS)]
    assert len(names) == len(set(names))
    for machine in sorted(MACHINES):
        numbers = [number_of(call, machine) for call in (*REFUSED_CALLS, *IDENTITY_CALLS, *UNKNOWN_CALLS)]
        known = [number for number in numbers if number is not None]
        assert len(known) == len(set(known))
