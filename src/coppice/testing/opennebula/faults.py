# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on demand, call by call and copy by copy."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum

ENDLESS_BYTES = 100 * 1024 * 1024


class Act(StrEnum):
    """What happens to a call."""

    REFUSE = "refuse"
    """It is answered with `Fault.code` and `Fault.text`."""
    STATUS = "status"
    """The HTTP status `Fault.code` answers it."""
    CUT = "cut"
    """The connection ends without an answer."""
    CUT_ANSWER = "cut-answer"
    """The connection ends in the middle of the answer."""
    STALL = "stall"
    """Nothing is answered for `Fault.seconds`, then the connection ends."""
    DELAY = "delay"
    """It is answered after `Fault.seconds`."""
    HUGE = "huge"
    """An answer of 100 MB that is well-formed for as long as anybody reads."""
    BOMB = "bomb"
    """An answer whose entities grow to gigabytes."""
    OUTSIDE = "outside"
    """An answer with a document type that names a local file."""
    GARBAGE = "garbage"
    """An answer that is no XML."""
    WRONG_SHAPE = "wrong-shape"
    """An XML-RPC answer with other values than the interface says."""
    HALF = "half"
    """The half of a pool: it is cut after the first half of its objects."""


class When(StrEnum):
    """Whether the call was done before it goes wrong."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        method: Of the call: ``one.image.allocate``; ``*`` for each.
        act: What happens.
        when: Whether the call has been done by then.
        skip: So many such calls go well before.
        times: So many go wrong; None: all from then on.
        code: Of the refusal, or the HTTP status.
        text: Of the refusal.
        seconds: How long it is silent.
    """

    method: str
    act: Act
    when: When = When.BEFORE
    skip: int = 0
    times: int | None = 1
    code: int = 0x2000
    text: str = "Something failed."
    seconds: float = 60.0


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0


@dataclass(slots=True)
class Copying:
    """How copies into datastores go; what is set counts for those that begin later.

    Attributes:
        seconds: How long an image stays LOCKED at least.
        held: While true, images stay LOCKED; a change frees those that wait.
        error: Why each copy ends in ERROR; None: it does not.
        flipped: True: one byte of each copy is another.
        sizing_seconds: How long `one.image.allocate` looks at the file.
        deleting_seconds: How long an image is in DELETE.
    """

    seconds: float = 0.0
    held: bool = False
    error: str | None = None
    flipped: bool = False
    sizing_seconds: float = 0.0
    deleting_seconds: float = 0.0


@dataclass(slots=True)
class Faults:
    """All that is set to go wrong.

    Attributes:
        copying: How copies go.
    """

    copying: Copying = field(default_factory=Copying)
    _armed: list[_Armed] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *faults: Fault) -> None:
        """Set these to go wrong from now on."""
        with self._lock:
            self._armed += [_Armed(fault) for fault in faults]

    def clear(self) -> None:
        """Let all go well again, copies included."""
        with self._lock:
            self._armed.clear()
            self.copying = Copying()

    def due(self, method: str) -> Fault | None:
        """Count a call, and return what goes wrong with it."""
        with self._lock:
            found: Fault | None = None
            for armed in self._armed:
                if armed.fault.method not in {method, "*"}:
                    continue
                armed.seen += 1
                place = armed.seen - armed.fault.skip
                times = armed.fault.times
                if found is None and place > 0 and (times is None or place <= times):
                    found = armed.fault
            return found
