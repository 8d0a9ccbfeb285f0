# SPDX-License-Identifier: Apache-2.0
"""A definition's own tests, run in a booted machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import ToolFailedError, ToolTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.definition.model import GuestTest
    from coppice.factory.boot_channel import Channel

_TAIL_CHARACTERS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class RanTest:
    """What became of a test.

    Attributes:
        name: The test's.
        seconds: How long it took.
        failure: Why it failed; None: it passed.
        output: The end of what it wrote.
    """

    name: str
    seconds: float
    failure: str | None
    output: str


def run_guest_tests(
    channel: Channel, tests: Sequence[GuestTest], *, left_seconds: Callable[[], float], note: Callable[[str], None]
) -> tuple[RanTest, ...]:
    """Run the tests one after the other, as root; all of them, also when one fails.

    Args:
        channel: Into the machine.
        tests: What to run.
        left_seconds: How long there is for all that is still to be done.
        note: Told which one runs.
    """
    found = []
    for test in tests:
        note(f"running its test {test.name}")
        started = time.monotonic()
        seconds = max(1.0, min(test.timeout_seconds, left_seconds()))
        failure: str | None = None
        try:
            output = channel.run_program(test.script, seconds).combined
        except ToolTimeoutError as problem:
            failure, output = f"did not end within {seconds:.0f} s", problem.details or ""
        except ToolFailedError as problem:
            failure, output = f"ended with {problem.context.get('returncode')}", problem.details or ""
        took = round(time.monotonic() - started, 1)
        found.append(RanTest(name=test.name, seconds=took, failure=failure, output=output[-_TAIL_CHARACTERS:]))
    return tuple(found)
