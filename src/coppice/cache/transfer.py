# SPDX-License-Identifier: Apache-2.0
"""`fetch_file`: brings a file here from the first of its addresses that gives it, and goes on where it stopped.

Which bytes are right only the signed checksum decides. So what is here is gone on with from any address; when the
result is wrong, it may be a splice of two files, and is fetched once more before the address is blamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.cache.crew import PACE, Crew, Pace
from coppice.cache.origin import open_origin, places_of
from coppice.cache.reception import (
    admitted,
    collected,
    ended_early,
    known_state,
    remember,
    too_large,
)
from coppice.errors import (
    ChecksumMismatchError,
    CoppiceError,
    CredentialError,
    SizeMismatchError,
    ToolMissingError,
    TransferError,
    TransferStalledError,
    TransferTooLargeError,
)
from coppice.http import failures
from coppice.http.location import show
from coppice.http.ranges import NOT_SATISFIABLE, Part
from coppice.monitor import SILENT_TASK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from coppice.cache.origin import Origin
    from coppice.cache.partial import PartialFile
    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.http.ranges import Body
    from coppice.model.checksum import Checksum
    from coppice.monitor import Task

PROGRESS_BYTES = 1024 * 1024
"""An attempt that brought so much that was not here before does not count: the time in all is what ends these."""
_NEXT_ADDRESS = (TransferError, CredentialError, ToolMissingError, ChecksumMismatchError, SizeMismatchError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a transfer came to.

    Attributes:
        uri: Address that gave the last bytes, without secrets.
        fetched_bytes: That came over the network, what had to be thrown away included.
        taken_up_bytes: That were here from before, and stayed.
        attempts: How often an address was asked.
        most_at_once: How many connections brought it at a time.
        failures: What went wrong on the way: address → why.
        checksums: Of the whole file, by algorithm.
    """

    uri: str
    fetched_bytes: int
    taken_up_bytes: int
    attempts: int
    most_at_once: int = 1
    failures: tuple[tuple[str, str], ...] = ()
    checksums: Mapping[str, Checksum] = field(default_factory=dict)


def fetch_file(
    uris: Sequence[str],
    *,
    size_bytes: int | None,
    partial: PartialFile,
    client: Client,
    accesses: Sequence[Access] = (),
    task: Task = SILENT_TASK,
    allow_file_uris: bool = False,
    max_bytes: int | None = None,
    expected: Checksum | None = None,
    pace: Pace = PACE,
) -> Transfer:
    """Bring a file here, into ``partial``; when this returns, all of it is there and durable.

    Args:
        uris: Its addresses, most wanted first; the site's mirrors (`transfer.mirrors`) come before them.
        size_bytes: That it has, exactly; None: nobody signed it.
        partial: Where the bytes go; what is there already is gone on with.
        client: For limits and connections.
        accesses: How servers are approached; a credential goes to its own server only.
        task: Told how far it is, and what went wrong on the way.
        allow_file_uris: Whether ``file`` addresses are read.
        max_bytes: Most that it may have; None: `transfer.image_size_limit_bytes`.
        expected: Its checksum, by an algorithm of ``partial``: what has another one is fetched from the next address.
            None: whoever calls compares.
        pace: When more connections are tried.

    Raises:
        TransferError: No address gave it; this is what the last one failed of, the others are in the details.
        ChecksumMismatchError: The last address gave other bytes. Nothing of them stays.
        SizeMismatchError: The last address has a file of another size.
        CredentialError: The credential for the last address cannot be read or used.
        ToolMissingError: The last address needs a package that is not installed.
        StorageError: The disk failed or is full; what was written stays in ``partial``.
    """
    limit = client.settings.image_size_limit_bytes if max_bytes is None else max_bytes
    if size_bytes is not None and size_bytes > limit:
        raise too_large(show(uris[0]) if uris else "the file", limit, f"Its list says {size_bytes} bytes.")
    fetch = _Fetch(
        partial, size_bytes=size_bytes, limit_bytes=limit, client=client, task=task, expected=expected, pace=pace
    )
    places = places_of(uris, client.settings)
    for number, uri in enumerate(places):
        fetch.share_time(is_last=number == len(places) - 1)
        try:
            with open_origin(uri, client=client, accesses=accesses, allow_file_uris=allow_file_uris) as origin:
                fetch.bring(origin)
            return fetch.result(show(uri)[1:-1])
        except _NEXT_ADDRESS as error:
            fetch.failures.append((show(uri)[1:-1], error.message))
            if uri == places[-1] or client.deadline(0) >= fetch.deadline:
                raise fetch.told(error) from error.__cause__
            task.note(f"{error.message}; asking {show(places[number + 1])} instead")
    raise TransferError("there is no address that the file could be fetched from")


class _Fetch:
    """One file on its way, over all its addresses."""

    def __init__(
        self,
        partial: PartialFile,
        *,
        size_bytes: int | None,
        limit_bytes: int,
        client: Client,
        task: Task,
        expected: Checksum | None,
        pace: Pace,
    ) -> None:
        self.partial = partial
        self.deadline = self._until = client.deadline()
        self.failures: list[tuple[str, str]] = []
        self._size_bytes = size_bytes
        self._limit_bytes = limit_bytes if size_bytes is None else size_bytes
        self._client = client
        self._task = task
        self._expected = expected
        self._pace = pace
        self._fetched = 0
        self._attempts = 0
        self._most = self._taken_up = partial.total_bytes
        self._is_mixed = False
        self._was_begun_anew = self._is_alone = False
        self._most_at_once = 1
        self._checksums: Mapping[str, Checksum] = {}

    def share_time(self, *, is_last: bool) -> None:
        """Give the next address its share of the time that is left: one that drips must not use up all of it."""
        now = self._client.deadline(0)
        self._until = self.deadline if is_last else now + max(0.0, self.deadline - now) / 2

    def bring(self, origin: Origin) -> None:
        """Bring it from one address."""
        failed = 0
        if self._size_bytes is not None and self.partial.end_bytes > self._size_bytes:
            # It is of another file: somebody else signed another size for the same checksum.
            self._begin_anew()
        while True:
            before = max(self._most, self.partial.total_bytes)
            self._attempts += 1
            try:
                self._receive(origin)
                if self._is_right(origin):
                    return
                continue
            except (TransferTooLargeError, SizeMismatchError):
                # It is another file.
                self._begin_anew()
                raise
            except TransferError as error:
                self._most = max(before, self.partial.total_bytes)
                has_progress = self._most - before >= PROGRESS_BYTES
                failed = 0 if has_progress else failed + 1
                pause = self._client.attempts.pause_seconds(failed + 1, error)
                if not self._is_worth_another(error, failed, has_progress=has_progress) or pause is None:
                    raise
                if self._client.deadline(pause) >= self._until:
                    raise
                self._task.note(f"attempt {failed + 1} of {self._client.attempts.most}: {error.message}")
            self._client.attempts.wait(pause)

    def result(self, shown: str) -> Transfer:
        """Return what it came to."""
        return Transfer(
            uri=shown,
            fetched_bytes=self._fetched,
            taken_up_bytes=self._taken_up,
            attempts=self._attempts,
            most_at_once=self._most_at_once,
            failures=tuple(self.failures),
            checksums=self._checksums,
        )

    def told(self, error: CoppiceError) -> CoppiceError:
        """Return the error with what the other addresses failed of."""
        if len(self.failures) > 1:
            lines = [f"{shown}: {why}" for shown, why in self.failures]
            error.details = "\n".join([*([error.details] if error.details else []), "asked in turn:", *lines])
        return error

    def _is_worth_another(self, error: TransferError, failed: int, *, has_progress: bool) -> bool:
        if failed >= self._client.attempts.most:
            return False
        if error.context.get("restart") or error.context.get("status") == NOT_SATISFIABLE:
            had_bytes = self.partial.total_bytes > 0
            self._begin_anew()
            self._is_alone = True
            return had_bytes
        # What stalls under way is gone on with; what stalls from the start is not waited for again.
        return failures.worth_retrying(error) or (isinstance(error, TransferStalledError) and has_progress)

    def _is_right(self, origin: Origin) -> bool:
        """Compare; False: it is to be fetched once more from its beginning."""
        self._checksums = self.partial.finish(self._size_bytes)
        if self._expected is None:
            return True
        found = self._checksums[self._expected.algorithm]
        if found.matches(self._expected):
            return True
        was_mixed = self._is_mixed
        self._begin_anew()
        if was_mixed and not self._was_begun_anew:
            self._was_begun_anew = self._is_alone = True
            self._task.note("what was put together is not what was signed; fetching it from the beginning")
            return False
        raise ChecksumMismatchError(
            f"the file at {origin.shown} is not the one that was signed: its checksum differs",
            details=f"signed {self._expected}\nfound  {found}",
            resolution="Nothing of it is used. Tell whoever publishes the list; a new run fetches it again.",
            context={"url": origin.shown, "expected": str(self._expected), "found": str(found)},
        )

    def _begin_anew(self) -> None:
        self.partial.restart()
        self._is_mixed = False
        self._taken_up = 0

    def _receive(self, origin: Origin) -> None:
        """Ask for what is missing until nothing is."""
        self._is_mixed = self._is_mixed or self.partial.total_bytes > 0
        if self._size_bytes is None:
            self._receive_unsized(origin)
            return
        crew = Crew(
            origin,
            self.partial,
            size_bytes=self._size_bytes,
            client=self._client,
            deadline=self._until,
            task=self._task,
            begin_anew=self._begin_anew,
            pace=None if self._is_alone else self._pace,
        )
        try:
            crew.run()
        finally:
            self._fetched += crew.fetched_bytes
            self._is_mixed = self._is_mixed or crew.saw_change
            self._most_at_once = max(self._most_at_once, crew.most_at_once)

    def _receive_unsized(self, origin: Origin) -> None:
        """Take all that comes, up to the limit: nobody signed how much it is."""
        part = Part(start=self.partial.size_bytes, known=known_state(origin, self.partial))
        with origin.open(part, self._until) as body:
            if body.start != part.start:
                self._begin_anew()
            admitted(body, part, limit_bytes=self._limit_bytes)
            remember(body, origin, self.partial)
            for piece in collected(self._paid(body, self._limit_bytes - body.start)):
                self.partial.append(piece)
                self._task.reach(self.partial.total_bytes, body.end)
            if body.end is not None and self.partial.size_bytes != body.end:
                raise ended_early(body.shown, self.partial.size_bytes, body.end)

    def _paid(self, body: Body, most: int) -> Iterator[bytes]:
        received = 0
        for piece in body.pieces:
            received += len(piece)
            self._fetched += len(piece)
            if received > most:
                raise too_large(body.shown, self._limit_bytes)
            self._client.bandwidth.pay(len(piece))
            yield piece
