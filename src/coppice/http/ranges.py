# SPDX-License-Identifier: Apache-2.0
"""Parts of a file over HTTP: what is asked for, and whether the answer is that (RFC 9110, 14).

The answer to a request for a part may be the part, the whole, a refusal, or a lie. Nothing of it is used as a part
unless it says that it is the very one that was asked for, of a file of the right size, in the state that is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.errors import TransferCutError
from coppice.http.location import show
from coppice.http.message import Validators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from coppice.http.client import Client
    from coppice.http.exchange import Answer
    from coppice.monitor import Task

PARTIAL_CONTENT = 206
NOT_SATISFIABLE = 416
_DIGITS = 19
_CONTENT_RANGE = re.compile(rf"bytes ([0-9]{{1,{_DIGITS}}})-([0-9]{{1,{_DIGITS}}})/([0-9]{{1,{_DIGITS}}}|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which bytes are asked for.

    Attributes:
        start: The first one.
        end: Behind the last one; None: to the end of the file.
        size_bytes: Of the whole file; None: not known.
        known: What the server called the file's state before; None: nothing is known of it.
    """

    start: int = 0
    end: int | None = None
    size_bytes: int | None = None
    known: Validators | None = None

    @property
    def is_whole(self) -> bool:
        """Whether that is the whole file."""
        return self.start == 0 and (self.end is None or self.end == self.size_bytes)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that ask for it; a condition is set with a strong validator only (RFC 9110, 13.1.5)."""
        if self.is_whole:
            return {}
        found = {"Range": f"bytes={self.start}-{'' if self.end is None else self.end - 1}"}
        if self.known is not None and self.known.is_strong:
            found["If-Range"] = str(self.known.etag)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """An answer whose body is still to come.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        start: Where in the file its first byte belongs: where it was asked for, or 0 when the whole file comes.
        end: Behind its last byte; None: nobody said.
        validators: What the server calls the file's state.
        takes_ranges: Whether the server says that it gives parts.
        pieces: The bytes, as they come.
        shown: The address that answered, for messages.
        abort: Ends it; another thread may call it.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    start: int = 0
    end: int | None = None
    validators: Validators = field(default_factory=Validators)
    takes_ranges: bool = False
    pieces: Iterator[bytes]
    shown: str
    abort: Callable[[], object] = lambda: None


def body_of(answer: Answer, part: Part, *, piece_bytes: int) -> Body:
    """Return the body of an answer (200 or 206) to the question for ``part``.

    Raises:
        TransferCutError: It is another part, or one of another file; ``context["restart"]`` is True.
    """
    headers = answer.headers
    validators = Validators.seen(headers)
    start, end = 0, answer.length_bytes
    if answer.status == PARTIAL_CONTENT:
        start, end = _range(show(answer.location.url), headers.get("content-range"), part)
        if part.known is not None and part.known.contradicts(validators):
            raise restart(
                show(answer.location.url), "is not the file any more that it was: its tag or date changed", changed=True
            )
    return Body(
        status=answer.status,
        headers=headers,
        start=start,
        end=end,
        validators=validators,
        takes_ranges=answer.status == PARTIAL_CONTENT or headers.get("accept-ranges", "").strip().lower() == "bytes",
        pieces=answer.pieces(piece_bytes),
        shown=answer.location.shown,
        abort=answer.abort,
    )


def restart(shown: str, reason: str, *, changed: bool = False) -> TransferCutError:
    """Return the error for an answer that cannot be put to what is here already.

    Args:
        shown: The address, for messages.
        reason: What is wrong with the answer.
        changed: Whether the server has another file there now.
    """
    return TransferCutError(
        f"{shown} {reason}",
        resolution="Nothing of that answer is used. If it stays so, ask whoever runs the server.",
        context={"url": shown, "restart": True, "complete": True, "changed": changed},
    )


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ``ranges`` (start, length), those that touch put together.

    Raises:
        ValueError: They are not in order, overlap, or one is empty.
    """
    found: list[tuple[int, int]] = []
    for start, length in ranges:
        behind = found[-1][0] + found[-1][1] if found else 0
        if length < 1 or start < behind:
            message = f"the range of {length} bytes at {start} does not follow what ends at {behind}"
            raise ValueError(message)
        if found and start == behind:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((start, length))
    return found


def read_parts(
    ranges: Iterable[tuple[int, int]],
    *,
    size_bytes: int,
    sink: Callable[[int, bytes], object],
    open_part: Callable[[Part, float], AbstractContextManager[Body]],
    client: Client,
    shown: str,
    known: Validators | None = None,
    task: Task | None = None,
) -> int:
    """Read ranges of one state of a file, one after the other; return how many bytes came. See `Client.read_ranges`.

    Args:
        ranges: See there.
        size_bytes: See there.
        sink: See there.
        open_part: Asks for a part, until a monotonic instant.
        client: For attempts, bandwidth and the time in all.
        shown: The address, for messages.
        known: See there.
        task: See there.

    Raises:
        TransferError: See there.
        ValueError: See there.
    """
    deadline = client.deadline()
    state, received = known, 0
    for start, length in merged(ranges):
        position, end = start, start + length

        def read(until: float, end: int = end) -> None:
            nonlocal state, received, position
            part = Part(start=position, end=end, size_bytes=size_bytes, known=state)
            with open_part(part, until) as body:
                if body.start != part.start or (body.end is not None and body.end != end):
                    raise restart(shown, "answers a request for a part of a file with something else")
                if state is None:
                    state = body.validators
                for piece in body.pieces:
                    if position + len(piece) > end:
                        raise restart(shown, "sent more than the part that was asked for")
                    client.bandwidth.pay(len(piece))
                    sink(position, piece)
                    position += len(piece)
                    received += len(piece)
                    if task is not None:
                        task.advance(len(piece))
            if position != end:
                raise TransferCutError(
                    f"{shown} ended {end - position} bytes before the end of a part",
                    resolution="Run again; what was there before stays as it is.",
                )

        client.attempts.run(read, deadline=deadline, task=task)
    return received


def _range(shown: str, header: str | None, part: Part) -> tuple[int, int]:
    """Return start and end of what is sent, which is exactly what was asked for."""
    said = _CONTENT_RANGE.fullmatch(header or "")
    if said is None:
        raise restart(shown, "answered with a part, and did not say which")
    start, end = int(said[1]), int(said[2]) + 1
    total = None if said[3] == "*" else int(said[3])
    wanted_end = part.end if part.end is not None else part.size_bytes if part.size_bytes is not None else total
    if start != part.start or end <= start or (wanted_end is not None and end != wanted_end):
        raise restart(shown, f"answered with another part than the one from {part.start} on: {said[0]}")
    if total is not None and part.size_bytes is not None and total != part.size_bytes:
        raise restart(shown, f"is a file of {total} bytes; {part.size_bytes} are expected")
    return start, end
