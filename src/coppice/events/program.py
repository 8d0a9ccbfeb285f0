# SPDX-License-Identifier: Apache-2.0
"""Hooks that are programs: called with the event as JSON on their standard input, never through a shell.

A program of the compatible kind is called as vmcatcher calls its handlers instead: with the whole environment of this
process and the event in variables, and with nothing to read.
"""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice import process
from coppice.errors import HookFailedError, HookTimeoutError, ToolFailedError, ToolMissingError, ToolTimeoutError
from coppice.events.vmcatcher import PREFIX, handler_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.events.message import Telling
    from coppice.settings.model import HookSettings

LINGER_SECONDS = 5.0
"""What a program leaves behind may keep its output open for so long; whoever means to stay closes it."""
_MARK = "_COPPICE_MARK"
_ROUNDS = 20
_ANY_STATUS = range(-255, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What programs find around them.

    Attributes:
        environ: The environment of this process.
        secret_variables: Variables in it that no program gets: they hold secrets of other hooks.
        cache: The directory of the cache.
        database_url: Of the database, without a password.
        stopped: Whether the run is to end.
    """

    environ: Mapping[str, str]
    secret_variables: frozenset[str]
    cache: Path
    database_url: str
    stopped: Callable[[], bool]


class ProgramHook:
    """Runs a program for each event."""

    def __init__(self, hook: HookSettings, around: Surroundings) -> None:
        self._hook = hook
        self._around = around

    def prepare(self) -> None:
        """Check that the program is there.

        Raises:
            HookFailedError: It is not, or may not be run.
        """
        program = self._hook.command[0]
        # As `coppice.process.run` looks for it.
        found = program if os.sep in program else shutil.which(program, path=process.search_path())
        if found is None or not Path(found).is_file() or not os.access(found, os.X_OK):
            raise HookFailedError(
                f"the program {program!r} of the hook {self._hook.name!r} is not there, or may not be run",
                resolution="Correct `command`, or install the program. No event is lost: each is told when it runs.",
                context={"hook": self._hook.name, "program": program},
            )

    def tell(self, telling: Telling) -> str:
        """Run the program; return what it wrote.

        Raises:
            HookFailedError: It ended with another status than 0, or by a signal.
            HookTimeoutError: It did not end in time.
            InterruptedRunError: The run is to end.
        """
        hook, mark = self._hook, str(uuid.uuid4())
        compatible = hook.compat is not None
        try:
            done = process.run(
                hook.command,
                timeout_seconds=hook.timeout_seconds,
                env={**(self._compatible_environment(telling) if compatible else {}), _MARK: mark},
                whole_environment=compatible,
                input_bytes=None if compatible else telling.line(),
                ok=_ANY_STATUS,
                capture_bytes=hook.output_limit_bytes,
                linger_seconds=LINGER_SECONDS,
                on_ended=lambda: _end_marked(f"{_MARK}={mark}".encode()),
                stopped=self._around.stopped,
            )
        except ToolTimeoutError as problem:
            raise HookTimeoutError(
                f"the hook {hook.name!r} did not end within {hook.timeout_seconds:g} s and was ended",
                resolution="Give it more time with `timeout_seconds`, or let it hand on its work and return.",
                context={"hook": hook.name, "output": problem.details or ""},
            ) from problem
        except (ToolFailedError, ToolMissingError) as problem:
            raise HookFailedError(
                f"the hook {hook.name!r} cannot be run: {problem.message}", context={"hook": hook.name}
            ) from problem
        output = _kept(done.combined, hook.output_limit_bytes)
        if done.returncode != 0:
            status = done.returncode
            ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            raise HookFailedError(
                f"the hook {hook.name!r} {ended}",
                resolution="`coppice event show NUMBER` shows what it wrote.",
                context={"hook": hook.name, "status": status, "output": output},
            )
        return output

    def _compatible_environment(self, telling: Telling) -> dict[str, str]:
        around = self._around
        inherited = {
            name: value
            for name, value in around.environ.items()
            if not name.startswith(PREFIX) and name not in around.secret_variables
        }
        said = handler_environment(telling.event, cache=around.cache, database_url=around.database_url) or {}
        return {"PATH": process.search_path(), **inherited, **said}


def _kept(text: str, limit_bytes: int) -> str:
    encoded = text.encode("utf-8", errors="replace")[-limit_bytes:]
    return encoded.decode("utf-8", errors="ignore").replace("\x00", "")


def _end_marked(entry: bytes) -> None:
    # A daemon leaves its process group, and its parent; what it has from its environment goes along.
    for _ in range(_ROUNDS):
        numbers = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
        ended = [number for number in numbers if number != os.getpid() and _end_if_marked(number, entry)]
        if not ended:
            return


def _end_if_marked(number: int, entry: bytes) -> bool:
    try:
        handle = os.pidfd_open(number)
    except OSError:
        return False
    try:
        # The handle stands for this very process, whatever becomes of its number meanwhile.
        if entry not in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
