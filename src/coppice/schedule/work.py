# SPDX-License-Identifier: Apache-2.0
"""A run of a job: the command line as a process of its own, and what its one JSON object says of how it went.

So a crash, a leak or an end for want of memory takes one run of one job, and never the service.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from coppice.errors import JobFailedError, JobTimeoutError, LockedError
from coppice.process.child import ANSWER_LIMIT_BYTES, Child
from coppice.schedule.model import Ended, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.schedule.model import Job

_OOM_SCORE: Final = 500
"""When memory is short, a job is ended before the service that would start it again."""
_SERVICE_VARIABLES: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS"})
"""What the system says to the service is not for its jobs: they must not answer in its name."""
_SIGNAL_BASE: Final = 128
_TOLD_BY_STATUS: Final = {0: Outcome.SUCCESS, 1: Outcome.PARTIAL}
_OUTCOMES: Final = {"success": Outcome.SUCCESS, "partial": Outcome.PARTIAL, "error": Outcome.FAILED}


class Command:
    """How jobs are run: this very Python, this very Coppice, the same settings file and the same way of logging.

    Args:
        config: The file that was named with ``--config``.
        log_format: How log lines are written.
        verbose: Whether jobs say what they do.
        quiet: Whether jobs log errors only.
    """

    def __init__(
        self, *, config: Path | None = None, log_format: str = "human", verbose: bool = False, quiet: bool = False
    ) -> None:
        self._options = [
            "--json",
            *("--log-format", log_format),
            *(("--config", os.fspath(config.absolute())) if config is not None else ()),
            *(("--verbose",) if verbose else ()),
            *(("--quiet",) if quiet else ()),
        ]

    def argv(self, job: Job) -> tuple[str, ...]:
        """Return the words that run a job."""
        # -P: what lies in the directory that the service was started in is no part of the program.
        return (sys.executable, "-P", "-m", "coppice", *self._options, *job.words)

    def start(self, job: Job, environ: Mapping[str, str]) -> Child:
        """Start a run.

        Raises:
            ToolFailedError: It cannot be started.
        """
        env = {name: value for name, value in environ.items() if name not in _SERVICE_VARIABLES}
        return Child(self.argv(job), env=env, oom_score=_OOM_SCORE)


def judge(status: int, answer: bytes) -> Ended:
    """Return what became of a run that ended by itself.

    Args:
        status: Its exit status; negative: the signal that ended it.
        answer: What it wrote to standard output.
    """
    if status < 0:
        return Ended(
            outcome=Outcome.FAILED,
            exit_code=_SIGNAL_BASE - status,
            error=f"it was ended by {_signal_name(-status)}",
            error_code=JobFailedError.code,
        )
    said = _read(answer)
    if said is None and len(answer) >= ANSWER_LIMIT_BYTES and status in _TOLD_BY_STATUS:
        # It said more than is kept: a run of tens of thousands of steps. How it ended says enough.
        why = None if status == 0 else "some of its items failed: its events say which"
        return Ended(outcome=_TOLD_BY_STATUS[status], exit_code=status, error=why)
    if said is None:
        why = f"it ended with status {status}, and did not say why"
        return Ended(outcome=Outcome.FAILED, exit_code=status, error=why, error_code=JobFailedError.code)
    code, message = _first_error(said)
    if status == LockedError.exit_code and code == LockedError.code:
        return Ended(outcome=Outcome.BUSY, exit_code=status, error=message, error_code=code)
    outcome = _OUTCOMES.get(str(said.get("status")), Outcome.FAILED)
    if outcome is Outcome.SUCCESS and status != 0:
        outcome = Outcome.FAILED
    is_left = outcome is not Outcome.SUCCESS and LockedError.code in _codes(said)
    return Ended(outcome=outcome, exit_code=status, error=message, error_code=code, is_left=is_left)


def timed_out(seconds: float, status: int) -> Ended:
    """Return what became of a run that was ended since it took too long."""
    return Ended(
        outcome=Outcome.FAILED,
        exit_code=_SIGNAL_BASE - status if status < 0 else status,
        error=f"it did not end within {seconds:.0f} s, and was ended",
        error_code=JobTimeoutError.code,
    )


def _read(answer: bytes) -> dict[str, object] | None:
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _codes(said: dict[str, object]) -> set[str]:
    errors = said.get("errors")
    found = errors if isinstance(errors, list) else []
    return {str(each.get("code")) for each in found if isinstance(each, dict)}


def _first_error(said: dict[str, object]) -> tuple[str | None, str | None]:
    errors = said.get("errors")
    if not isinstance(errors, list) or not errors or not isinstance(errors[0], dict):
        return None, None
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return str(errors[0].get("code")), f"{errors[0].get('message')}{more}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
