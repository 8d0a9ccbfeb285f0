# SPDX-License-Identifier: Apache-2.0
"""`Crew`: fetches what is missing of a file by one connection, and by more of them where that is measured to help.

It begins with one. While bytes come much slower than this machine can hash them, one more connection takes over the
second half of what the slowest-ending one still has before it; when the rate did not grow by it, that was the last.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cache.reception import (
    admitted,
    collected,
    ended_early,
    known_state,
    not_a_part,
    remember,
    too_large,
)
from coppice.errors import CoppiceError, TransferError
from coppice.http.ranges import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coppice.cache.origin import Origin
    from coppice.cache.partial import PartialFile
    from coppice.http import Client
    from coppice.http.ranges import Body
    from coppice.monitor import Task

_JOIN_SECONDS = 2.0
_NAP_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When more connections are tried.

    Attributes:
        sample_seconds: Over which the rate is measured.
        settle_seconds: That a new connection has to come up to speed.
        split_bytes: The least that a connection is made for.
        ample_share: Of the rate of hashing: what comes so fast needs no help.
        worth_share: By how much the rate must have grown for a connection to have been worth it.
        assumed_hash_rate: Until hashing was measured, in bytes a second.
    """

    sample_seconds: float = 2.0
    settle_seconds: float = 1.0
    split_bytes: int = 16 * 1024 * 1024
    ample_share: float = 0.5
    worth_share: float = 1.15
    assumed_hash_rate: float = 300e6


PACE = Pace()


@dataclass(slots=True, eq=False)
class _Job:
    """Bytes that one connection is there for; its end moves when another one takes over the rest."""

    position: int
    end: int
    taken: int = 0
    """Up to where pieces are being written."""
    of: _Job | None = None
    """Whose second half it is."""
    body: Body | None = None


class Crew:
    """Fetches the gaps of one file from one address, once.

    Args:
        origin: Where from.
        partial: Where to.
        size_bytes: Of the whole file.
        client: For limits.
        deadline: Monotonic instant at which it ends.
        task: Told how far it is.
        begin_anew: Called when the server sends the whole file although a part was asked for.
        pace: When more connections are tried; None: never.
    """

    def __init__(
        self,
        origin: Origin,
        partial: PartialFile,
        *,
        size_bytes: int,
        client: Client,
        deadline: float,
        task: Task,
        begin_anew: Callable[[], object],
        pace: Pace | None,
    ) -> None:
        self.fetched_bytes = 0
        self.most_at_once = 1
        self.saw_change = False
        self._origin = origin
        self._partial = partial
        self._size_bytes = size_bytes
        self._client = client
        self._deadline = deadline
        self._task = task
        self._begin_anew = begin_anew
        self._pace = pace or PACE
        self._lock = threading.RLock()
        self._wrote = threading.Condition(self._lock)
        self._writing = 0
        self._jobs: list[_Job] = []
        self._threads: list[threading.Thread] = []
        self._is_over = False
        self._fatal: CoppiceError | None = None
        self._may_grow: bool | None = None if pace is not None else False
        self._rate_before: float | None = None
        self._sample = (time.monotonic(), 0)

    def run(self) -> None:
        """Fetch until nothing is missing.

        Raises:
            TransferError: It could not be had; what came stays.
            StorageError: The disk failed.
        """
        try:
            while True:
                self._raise_fatal()
                job = self._next_job()
                if job is not None:
                    self._do(job)
                elif self._is_idle():
                    break
                else:
                    time.sleep(_NAP_SECONDS)
                    self._report()
            self._raise_fatal()
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._is_over = True
            bodies = [job.body for job in self._jobs if job.body is not None]
        for body in bodies:
            body.abort()
        with self._wrote:
            # However slow the disk is: what comes next must not find that somebody still writes.
            self._wrote.wait_for(lambda: not self._writing)
        for thread in self._threads:
            # One that still waits for its turn at the host finds that it is over when its turn comes.
            thread.join(_JOIN_SECONDS)

    def _is_idle(self) -> bool:
        with self._lock:
            return not self._jobs and not any(thread.is_alive() for thread in self._threads)

    def _raise_fatal(self) -> None:
        with self._lock:
            if self._fatal is not None:
                raise self._fatal

    def _next_job(self) -> _Job | None:
        """Return bytes that nobody is there for, or the second half of what another connection has before it."""
        with self._lock:
            for gap in self._partial.gaps(self._size_bytes):
                start, end = gap
                for job in sorted(self._jobs, key=lambda each: each.position):
                    if job.position <= start < job.end:
                        start = job.end
                    elif start < job.position < end:
                        end = job.position
                if start < end:
                    found = _Job(start, end)
                    self._jobs.append(found)
                    return found
            if not self._may_grow:
                return None
            largest = max(self._jobs, key=lambda each: each.end - each.position, default=None)
            if largest is None or largest.end - largest.position < 2 * self._pace.split_bytes:
                return None
            return _Job((largest.position + largest.end) // 2, largest.end, of=largest)

    def _do(self, job: _Job) -> None:
        part = Part(
            start=job.position,
            end=job.end,
            size_bytes=self._size_bytes,
            known=known_state(self._origin, self._partial),
        )
        try:
            with self._origin.open(part, self._deadline) as body:
                if not self._begins(job, part, body):
                    return
                for piece in collected(self._counted(job, body, part)):
                    if not self._put(job, piece):
                        return
                if job.position < job.end:
                    raise ended_early(body.shown, job.position, job.end)
        finally:
            with self._lock:
                self._jobs = [each for each in self._jobs if each is not job]

    def _begins(self, job: _Job, part: Part, body: Body) -> bool:
        """Take what the server says of its answer; False: it is not needed any more."""
        with self._lock:
            if self._is_over:
                return False
            if body.start != part.start:
                if self._jobs != [job] or self._threads:
                    raise not_a_part(body.shown)
                # All of it comes: what is here is thrown away, for it may be of another file.
                self._begin_anew()
                job.position, job.end = 0, self._size_bytes
            admitted(body, part, limit_bytes=self._size_bytes)
            if job.of is not None:
                if job.of not in self._jobs or max(job.of.position, job.of.taken) >= job.position:
                    return False
                job.end = job.of.end
                job.of.end = job.position
                self._jobs.append(job)
            job.body = body
            remember(body, self._origin, self._partial)
            if self._may_grow is None:
                # What was found out later about this server is not taken back.
                self._may_grow = self._origin.many_at_once and body.takes_ranges and body.validators.is_strong
            return True

    def _counted(self, job: _Job, body: Body, part: Part) -> Iterator[bytes]:
        """Yield the body until it ends, or until what follows is another connection's."""
        received = 0
        most = (part.end if body.start == part.start and part.end else self._size_bytes) - body.start
        for piece in body.pieces:
            received += len(piece)
            with self._lock:
                self.fetched_bytes += len(piece)
            if received > most:
                raise too_large(body.shown, self._size_bytes)
            self._client.bandwidth.pay(len(piece))
            yield piece
            if job.end <= body.start + received < body.start + most:
                return

    def _put(self, job: _Job, piece: bytes) -> bool:
        """Write a piece; False: the rest is another connection's."""
        with self._lock:
            if self._is_over:
                return False
            piece = piece[: job.end - job.position]
            job.taken = job.position + len(piece)
            self._writing += 1
        try:
            if piece:
                self._partial.write(job.position, piece)
                job.position = job.taken
        finally:
            with self._wrote:
                self._writing -= 1
                self._wrote.notify_all()
        if threading.current_thread() not in self._threads:
            self._raise_fatal()
            self._report()
            self._consider()
        return job.position < job.end or job.end == self._size_bytes

    def _report(self) -> None:
        self._task.reach(self._partial.total_bytes, self._size_bytes)

    def _consider(self) -> None:
        """Measure, and add a connection where that may help."""
        since, bytes_then = self._sample
        now = time.monotonic()
        if now < since:
            self._sample = (since, self.fetched_bytes)
        if now - since < self._pace.sample_seconds:
            return
        rate = (self.fetched_bytes - bytes_then) / (now - since)
        self._sample = (now, self.fetched_bytes)
        if self._rate_before is not None and rate < self._rate_before * self._pace.worth_share:
            self._may_grow = False
        self._rate_before = None
        if self._may_grow and self._needs_help(rate):
            thread = threading.Thread(target=self._help, name="coppice-range", daemon=True)
            with self._lock:
                self._threads.append(thread)
                self.most_at_once = len(self._threads) + 1
            thread.start()
            self._rate_before = rate
            self._sample = (now + self._pace.settle_seconds, self.fetched_bytes)
            self._task.note(f"{len(self._threads) + 1} connections to {self._origin.shown}")

    def _needs_help(self, rate: float) -> bool:
        settings = self._client.settings
        hashing = self._partial.hash_rate_bytes_per_second or self._pace.assumed_hash_rate
        limit = settings.bandwidth_limit_bytes_per_second
        missing = self._size_bytes - self._partial.total_bytes
        return (
            len(self._threads) + 1 < settings.ranges_per_image
            and rate < hashing * self._pace.ample_share
            and (limit is None or rate < limit * self._pace.ample_share)
            and missing >= 2 * self._pace.split_bytes
            # One more connection always stays for those who have none.
            and self._client.hosts.free(self._origin.host) > 1
        )

    def _help(self) -> None:
        """Fetch beside the first connection, as long as there is something to fetch."""
        try:
            while not self._is_over and (job := self._next_job()) is not None:
                self._do(job)
        except TransferError as error:
            with self._lock:
                # Servers behind one name may call the same state differently: the first connection goes on alone.
                self._may_grow = False
                self.saw_change = self.saw_change or bool(error.context.get("changed"))
        except CoppiceError as error:
            with self._lock:
                self._fatal = error
