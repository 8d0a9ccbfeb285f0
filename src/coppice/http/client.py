# SPDX-License-Identifier: Apache-2.0
"""`Client`: talks to servers that nobody vouches for.

Each transfer has a size limit, a time without a byte, a least rate and a total time. Redirects are followed by own
rules, each with its name resolved and judged anew. There is no cookie, no netrc, and no proxy but that of the settings:
nothing is taken from the environment but the machine's trusted authorities. Threads may share a client.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coppice.clock import Clock, SystemClock
from coppice.errors import TransferError, UnreachableError
from coppice.http import failures
from coppice.http.address import Resolver, resolve
from coppice.http.ask import NOT_MODIFIED, Asker
from coppice.http.attempts import Attempts
from coppice.http.dial import Dialer
from coppice.http.location import parse_location, show
from coppice.http.message import BodyFile, Fetched, Question, Reply, Validators
from coppice.http.pace import Bandwidth, HostLimits
from coppice.http.ranges import PARTIAL_CONTENT, Body, Part, body_of, read_parts
from coppice.http.tls import Contexts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from coppice.http.credential import Credential
    from coppice.http.exchange import Answer
    from coppice.monitor import Task
    from coppice.settings.model import TransferSettings


RATE_WINDOW_SECONDS = 60.0
IMAGE_PIECE_BYTES = 1024 * 1024
"""Of an image, most that is read at once: what comes so large is neither copied together nor apart."""


class Client:
    """Talks HTTP and HTTPS.

    Args:
        settings: Limits.
        clock: For durations.
        resolver: Takes the place of the machine's name resolution.
        ca_file: PEM file of authorities that are trusted in addition to the machine's.
        sleep: Takes the place of `time.sleep` between attempts.
        rate_window_seconds: Over which the least rate is averaged.
    """

    def __init__(
        self,
        settings: TransferSettings,
        *,
        clock: Clock | None = None,
        resolver: Resolver | None = None,
        ca_file: Path | None = None,
        sleep: Callable[[float], object] = time.sleep,
        rate_window_seconds: float = RATE_WINDOW_SECONDS,
    ) -> None:
        self.settings = settings
        self._clock = clock or SystemClock()
        self.attempts = Attempts(settings.attempts, clock=self._clock, sleep=sleep)
        self.bandwidth = Bandwidth(settings.bandwidth_limit_bytes_per_second, clock=self._clock, sleep=sleep)
        self.hosts = HostLimits(settings.connections_per_host)
        self.dialer = Dialer(
            settings, clock=self._clock, resolver=resolver or resolve, rate_window_seconds=rate_window_seconds
        )
        self._asker = Asker(
            settings, clock=self._clock, dialer=self.dialer, contexts=Contexts(ca_file), hosts=self.hosts
        )

    def get_bytes(
        self,
        url: str,
        *,
        limit_bytes: int,
        credential: Credential | None = None,
        accept: str | None = None,
        server_anchors: Path | None = None,
    ) -> bytes:
        """Return what is at ``url``.

        Args:
            url: An ``http`` or ``https`` URL.
            limit_bytes: More than this is refused.
            credential: Shown to this server, and to none that it redirects to.
            accept: Media types that are wanted.
            server_anchors: Authorities that the server's certificate may come from, beside the machine's.

        Raises:
            TransferError: It could not be had, or is too large; the class says which.
            CredentialError: The credential cannot be used there.
        """
        question = Question(
            headers={} if accept is None else {"Accept": accept}, credential=credential, server_anchors=server_anchors
        )
        return self._whole(url, question, limit_bytes).body

    def get_if_changed(
        self,
        url: str,
        *,
        limit_bytes: int,
        validators: Validators | None,
        credential: Credential | None = None,
        accept: str | None = None,
        server_anchors: Path | None = None,
    ) -> Fetched:
        """Return what is at ``url`` unless it is what it was when ``validators`` were given.

        Validators belong to one URL. They are not sent to where it redirects to, and an answer that came by a redirect
        brings none: two files can bear the same date or tag.

        Args:
            url: An ``http`` or ``https`` URL.
            limit_bytes: More than this is refused.
            validators: Of the last answer for this very URL; None: it is fetched in any case.
            credential: Shown to this server, and to none that it redirects to.
            accept: Media types that are wanted.
            server_anchors: Authorities that the server's certificate may come from, beside the machine's.

        Raises:
            HttpStatusError: Among others: "not modified" (304) was answered to a request that set no condition.
            TransferError: It could not be had, or is too large; the class says which.
            CredentialError: The credential cannot be used there.
        """
        question = Question(
            headers={} if accept is None else {"Accept": accept},
            validators=validators or None,
            credential=credential,
            server_anchors=server_anchors,
        )
        reply = self._whole(url, question, limit_bytes)
        if reply.status == NOT_MODIFIED:
            # What was sent describes the body that the caller holds; what the server says beside a 304 may not.
            return Fetched(body=None, validators=validators or Validators())
        return Fetched(
            body=reply.body, validators=Validators() if reply.was_redirected else Validators.of(reply.headers)
        )

    def request(
        self,
        method: str,
        url: str,
        *,
        expected: Collection[int],
        limit_bytes: int,
        body: bytes | BodyFile | None = None,
        headers: Mapping[str, str] | None = None,
        credential: Credential | None = None,
        server_anchors: Path | None = None,
        deadline_seconds: float | None = None,
        retry: bool = False,
        monitor_task: Task | None = None,
    ) -> Reply:
        """Send one request and return the whole answer.

        What changes something is sent once, unless the connection was never made or ``retry`` says that it may be sent
        again; it follows only redirects that keep the method (307, 308) on the same server. An expected redirect is an
        answer, and is not followed.

        Args:
            method: ``GET``, ``HEAD``, ``PUT``, ``POST``, ``PATCH``, ``DELETE``, ``OPTIONS``, ``MKCOL``, ``MOVE``,
                ``COPY`` or ``PROPFIND``.
            url: An ``http`` or ``https`` URL.
            expected: Status codes that are an answer.
            limit_bytes: A longer answer is refused.
            body: Sent with its length; a file is not held in memory.
            headers: Beside those that the client says itself.
            credential: Shown to this server, and to none that it redirects to.
            server_anchors: Authorities that the server's certificate may come from, beside the machine's.
            deadline_seconds: For all attempts together; None: the setting.
            retry: Whether a request that changes something may be sent again.
            monitor_task: Told how many bytes of the body were sent.

        Raises:
            HttpStatusError: Another status than expected; it is ``context["status"]``.
            TransferError: There was no answer, or it is too large; the class says which.
            UnreadableFileError: The body cannot be read.
            InputError: Method or headers cannot be sent.
            CredentialError: The credential cannot be used there.
        """
        question = Question(
            method=method,
            headers=headers or {},
            body=body,
            credential=credential,
            server_anchors=server_anchors,
            accepted=frozenset(expected),
        )
        return self._whole(
            url, question, limit_bytes, deadline_seconds=deadline_seconds, retry=retry, task=monitor_task
        )

    def download(
        self,
        url: str,
        *,
        expected_size_bytes: int,
        sink: Callable[[bytes], object],
        monitor_task: Task | None = None,
        restart: Callable[[], object] | None = None,
        credential: Credential | None = None,
        server_anchors: Path | None = None,
    ) -> None:
        """Stream what is at ``url`` into ``sink``, exactly ``expected_size_bytes`` of it.

        Args:
            url: An ``http`` or ``https`` URL.
            expected_size_bytes: The signed size; what the server announces is only used to give up early.
            sink: Takes the pieces in order; never more than the expected size in all.
            monitor_task: Told how far it is, in bytes.
            restart: Called before a new attempt begins from the start; without it, an attempt that gave bytes
                to the sink is the last.
            credential: Shown to this server, and to none that it redirects to.
            server_anchors: Authorities that the server's certificate may come from, beside the machine's.

        Raises:
            TransferTooLargeError: There is more than expected; nothing beyond the size went to the sink.
            TransferCutError: There is less. ``context["complete"]`` is True when the server meant it so.
            TransferError: It could not be had otherwise; the class says why.
            CredentialError: The credential cannot be used there.
        """
        received = 0
        question = Question(credential=credential, server_anchors=server_anchors)

        def fetch(deadline: float) -> None:
            nonlocal received
            if received:
                received = 0
                if restart is not None:
                    restart()
            with self._asker.answer(url, question, deadline) as answer:
                _refuse_larger(answer, expected_size_bytes)
                for piece in answer.pieces():
                    if received + len(piece) > expected_size_bytes:
                        raise failures.too_large(answer.location, expected_size_bytes)
                    sink(piece)
                    received += len(piece)
                    if monitor_task is not None:
                        monitor_task.reach(received, expected_size_bytes)
                if received != expected_size_bytes:
                    raise failures.too_short(answer, received, expected_size_bytes)

        self.attempts.run(
            fetch,
            deadline=self.deadline(),
            can_restart=lambda _: restart is not None or not received,
            task=monitor_task,
        )

    @contextmanager
    def opened(
        self,
        url: str,
        part: Part,
        *,
        deadline: float,
        credential: Credential | None = None,
        server_anchors: Path | None = None,
        headers: Mapping[str, str] | None = None,
        also: Collection[int] = (),
    ) -> Iterator[Body]:
        """Ask once for a part of a file and yield the answer, whose body is still to come.

        What comes may be another part than the one that was asked for, or all: `Body.start` says it.

        Args:
            url: An ``http`` or ``https`` URL.
            part: What is asked for.
            deadline: Instant of `deadline` at which it ends.
            credential: Shown to this server, and to none that it redirects to.
            server_anchors: Authorities that the server's certificate may come from, beside the machine's.
            headers: Beside those that the client says itself.
            also: Status codes that are an answer too, beside 200 and 206.

        Raises:
            TransferCutError: Among others: another part came, or the file changed; ``context["restart"]`` is True.
            HttpStatusError: Among others: there is no such part (416).
            TransferError: There was no answer; the class says why.
            CredentialError: The credential cannot be used there.
        """
        question = Question(
            headers={**part.headers, **(headers or {})},
            credential=credential,
            server_anchors=server_anchors,
            accepted=frozenset({200, *also} if part.is_whole else {200, PARTIAL_CONTENT, *also}),
        )
        with self._asker.answer(url, question, deadline) as answer:
            yield body_of(answer, part, piece_bytes=self.bandwidth.piece_bytes(IMAGE_PIECE_BYTES))

    def deadline(self, seconds: float | None = None) -> float:
        """Return the monotonic instant that is so far away; None: as far as a transfer may take in all."""
        return self._clock.monotonic() + (self.settings.total_timeout_seconds if seconds is None else seconds)

    def read_ranges(
        self,
        url: str,
        ranges: Iterable[tuple[int, int]],
        *,
        size_bytes: int,
        sink: Callable[[int, bytes], object],
        credential: Credential | None = None,
        server_anchors: Path | None = None,
        known: Validators | None = None,
        monitor_task: Task | None = None,
    ) -> int:
        """Read parts of one state of a file; return how many bytes came.

        Ranges that touch are asked for together; each is one request, and tried again from where it stopped.

        Args:
            url: An ``http`` or ``https`` URL.
            ranges: Where each begins and its length; in order, none over another.
            size_bytes: Of the whole file: a server whose file has another size is refused.
            sink: Takes where in the file a piece begins, and the piece; in order.
            credential: Shown to this server, and to none that it redirects to.
            server_anchors: Authorities that the server's certificate may come from, beside the machine's.
            known: What the server called the file's state before; None: what it says first.
            monitor_task: Told of bytes that came.

        Raises:
            TransferCutError: Among others: the server gives no parts, another part, or the file changed. What went to
                the sink before is right as long as ``context["restart"]`` is not set.
            TransferError: There was no answer; the class says why.
            ValueError: The ranges are not in order.
        """
        return read_parts(
            ranges,
            size_bytes=size_bytes,
            sink=sink,
            open_part=lambda part, until: self.opened(
                url, part, deadline=until, credential=credential, server_anchors=server_anchors
            ),
            client=self,
            shown=show(url),
            known=known,
            task=monitor_task,
        )

    def _whole(
        self,
        url: str,
        question: Question,
        limit_bytes: int,
        *,
        deadline_seconds: float | None = None,
        retry: bool = False,
        task: Task | None = None,
    ) -> Reply:
        """Ask until there is a whole answer, or no use in asking."""

        def fetch(deadline: float) -> Reply:
            with self._asker.answer(url, question, deadline, task) as answer:
                body = b"" if question.method == "HEAD" else _read(answer, limit_bytes)
                return Reply(
                    status=answer.status,
                    headers=answer.headers,
                    body=body,
                    url=answer.location.url,
                    was_redirected=answer.location.url != parse_location(url).url,
                )

        def can_restart(error: TransferError) -> bool:
            # Where no connection was made, nothing was sent.
            return retry or question.is_safe or isinstance(error, UnreachableError)

        return self.attempts.run(fetch, deadline=self.deadline(deadline_seconds), can_restart=can_restart, task=task)


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs lead to the same scheme, host and port: what is shown to one may be shown to the other.

    Raises:
        AddressRefusedError: One of them is no URL that can be asked for.
    """
    return parse_location(one).origin == parse_location(other).origin


def _read(answer: Answer, limit_bytes: int) -> bytes:
    _refuse_larger(answer, limit_bytes)
    body = bytearray()
    for piece in answer.pieces():
        body.extend(piece)
        if len(body) > limit_bytes:
            raise failures.too_large(answer.location, limit_bytes)
    return bytes(body)


def _refuse_larger(answer: Answer, limit_bytes: int) -> None:
    announced = answer.length_bytes
    if announced is not None and announced > limit_bytes and answer.status != NOT_MODIFIED:
        raise failures.too_large(answer.location, limit_bytes, f"The server announces {announced} bytes.")
