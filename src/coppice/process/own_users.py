# SPDX-License-Identifier: Apache-2.0
"""Become a command in a user namespace of its own, in which everybody is who he is outside.

For root, who needs what only such a namespace has, and no other users. It is run as
``python -m coppice.process.own_users COMMAND...``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_EVERYBODY = "0 0 4294967295\n"
_NEW_USERS = 0x10000000
_PARENT_DEATH_SIGNAL = 1


def among_own_users() -> tuple[str, ...]:
    """Return what stands before a command that is to be run so."""
    return (sys.executable, "-P", "-m", "coppice.process.own_users")


def main() -> None:
    """Become the command that is given.

    Raises:
        OSError: There is no such program, or the namespace cannot be made.
    """
    library = ctypes.CDLL(None, use_errno=True)
    process, parent = os.getpid(), os.getppid()
    ready, tell = os.pipe()
    writer = os.fork()
    if not writer:
        # Only somebody outside may say who is who.
        os.close(tell)
        is_there = os.read(ready, 1)
        for name in ("uid_map", "gid_map") if is_there else ():
            Path(f"/proc/{process}/{name}").write_text(_EVERYBODY, encoding="ascii")
        os._exit(0)
    if library.unshare(_NEW_USERS):
        raise OSError(ctypes.get_errno(), "a user namespace cannot be made")
    os.write(tell, b"x")
    _, status = os.waitpid(writer, 0)
    if status:
        message = "the users of a namespace cannot be said"
        raise OSError(message)
    # The kernel forgets it when a process changes what it may.
    library.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before that was said.
        os._exit(1)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the program and its arguments are the caller's, no shell


if __name__ == "__main__":
    main()
