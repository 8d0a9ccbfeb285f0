# SPDX-License-Identifier: Apache-2.0
"""Walls without namespaces: Landlock keeps a process to the files that it was given, and the filter of calls to itself.

Containers and chroots often forbid namespaces. Landlock (Linux 5.13; ``Documentation/userspace-api/landlock.rst``) and
seccomp need no right at all. What differs from a full cage: the program sees names, sizes and dates of other files, but
not what is in them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import struct
from typing import TYPE_CHECKING

from coppice.cage.filter import filter_program, has_filter
from coppice.errors import CageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
LEAST_VERSION = 3
"""Linux 6.2: the first that keeps a process from cutting other files short."""
_DEVICE_VERSION, _SCOPE_VERSION = 5, 6
_BIND, _CONNECT, _ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1, 1 << 0, 1 << 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FOLDER, _REMOVE_FILE, _MAKE_FOLDER, _MAKE_FILE = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_TRUNCATE, _DEVICE_CALLS = 1 << 14, 1 << 15
_UP_TO_VERSION_3 = (1 << 15) - 1
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
RUN = _EXECUTE | _READ_FILE | _READ_FOLDER
READ = _READ_FILE
WRITE = _WRITE_FILE | _READ_FILE | _TRUNCATE
FILL = WRITE | _READ_FOLDER | _REMOVE_FOLDER | _REMOVE_FILE | _MAKE_FOLDER | _MAKE_FILE
"""Rights that a path is given with: to run, to read, to write a file; to fill a folder."""
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_PR_CAPBSET_DROP, _CAPABILITIES, _DAC_OVERRIDE = 24, 64, 1
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
_CAPABILITY_VERSION_3 = 0x20080522
NOBODY = 65534


def version() -> int:
    """Return the version of Landlock that this kernel has; 0: none, or it is switched off."""
    system = ctypes.CDLL(None, use_errno=True)
    return max(0, int(system.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def open_ruleset(paths: Iterable[tuple[str, int]]) -> int:
    """Return an open set of rules that allows those paths and nothing else; who calls closes it.

    Args:
        paths: Each with its rights. A path that is not there is left out: there is nothing to allow.

    Raises:
        CageError: The kernel would not have it.
    """
    system = ctypes.CDLL(None, use_errno=True)
    handled = _UP_TO_VERSION_3 | (_DEVICE_CALLS if version() >= _DEVICE_VERSION else 0)
    # Which files, which ports, whom it may reach by other ways. The filter of calls refuses the latter two as well.
    attributes = struct.pack("<Q", handled)
    if version() >= _SCOPE_VERSION:
        attributes = struct.pack("<QQQ", handled, _BIND | _CONNECT, _ABSTRACT_SOCKETS | _SIGNALS)
    ruleset = int(system.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        raise _unusable("create", ctypes.get_errno())
    try:
        for path, rights in paths:
            _allow(system, ruleset, path, rights)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def _allow(system: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise CageError(f"cannot let a program into {path}: {problem.strerror}", context={"path": path}) from problem
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= _FILE_RIGHTS
        rule = struct.pack("<Qi", rights, handle)
        if system.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0:
            raise _unusable(f"add {path} to", ctypes.get_errno())
    finally:
        os.close(handle)


def entering(ruleset: int | None, *, becomes_nobody: bool) -> Callable[[], None]:
    """Return what a child does to shut itself in: by ``ruleset`` if there is one, and by the filter of calls.

    What takes long or might fail is done here and now; the child makes system calls only.

    Args:
        ruleset: An open set of rules.
        becomes_nobody: Whether root's program becomes nobody's, so that limits on processes hold for it.
    """
    system = ctypes.CDLL(None, use_errno=True)
    # The number of the child is known there only: a filter has it where this one is found.
    mark = 0x7A5CA6E
    program = filter_program(own_process=mark) if has_filter() else b""
    room = ctypes.create_string_buffer(program, len(program)) if program else None
    places = [at + 4 for at in range(0, len(program), 8) if program[at + 4 : at + 8] == struct.pack("<I", mark)]
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(room)) if room is not None else b""

    parent = os.getpid()

    def enter() -> None:
        for capability in range(_CAPABILITIES):
            # What root may do goes, but for reading what belongs to others. Nobody else has anything to lose here.
            if capability != _DAC_OVERRIDE:
                system.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        if becomes_nobody:
            _become_nobody(system, parent)
        _check(system.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        if ruleset is not None:
            _check(system.syscall(_RESTRICT_SELF, ruleset, 0))
        if room is not None:
            for place in places:
                struct.pack_into("<I", room, place, os.getpid())
            _check(system.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0))

    return enter


def _become_nobody(system: ctypes.CDLL, parent: int) -> None:
    """Change the user, and keep the one right of using files whoever owns them (capabilities(7))."""
    _check(system.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kept = 1 << _DAC_OVERRIDE
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _check(system.capset(header, struct.pack("<6I", kept, kept, kept, 0, 0, 0)))
    _check(system.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _DAC_OVERRIDE, 0, 0))
    # The kernel forgets this with a change of user.
    _check(system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def _check(result: int) -> None:
    if result != 0:
        # Ends the child before it becomes the program: `coppice.process.run` tells of it.
        raise OSError(ctypes.get_errno(), "a wall of the cage could not be put up")


def _unusable(doing: str, number: int) -> CageError:
    return CageError(f"the kernel would not {doing} a set of Landlock rules: {os.strerror(number)}")
