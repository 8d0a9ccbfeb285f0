# SPDX-License-Identifier: Apache-2.0
"""`Asker`: takes a question to the server that answers it, by redirects and addresses that may be followed.

What belongs to the server that was asked first stays there: credentials, client certificates and headers go to no other
scheme, host or port, and validators to no other URL.
"""

from __future__ import annotations

import ipaddress
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.errors import CredentialError, RedirectRefusedError, UnreachableError
from coppice.http import failures
from coppice.http.exchange import Answer, Timeouts, Wire, exchange
from coppice.http.location import Location, parse_location, redirected, show
from coppice.http.message import BodyFile, Question
from coppice.http.route import Route, Router

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from coppice.clock import Clock
    from coppice.http.credential import Credential
    from coppice.http.dial import Dialer
    from coppice.http.pace import HostLimits
    from coppice.http.tls import Contexts
    from coppice.monitor import Task
    from coppice.settings.model import TransferSettings

REDIRECT_LIMIT = 5
NOT_MODIFIED = 304
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD = frozenset({307, 308})
_TRAVELLING = frozenset({"accept", "range"})
"""Headers that go along when a redirect leads to another server; all others are for the one that was asked."""


class Asker:
    """Asks; threads may share it.

    Args:
        settings: Limits.
        clock: For durations.
        dialer: Judges addresses.
        contexts: For TLS.
        hosts: Counts the connections to each host.
    """

    def __init__(
        self,
        settings: TransferSettings,
        *,
        clock: Clock,
        dialer: Dialer,
        contexts: Contexts,
        hosts: HostLimits,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._dialer = dialer
        self._router = Router(settings, dialer)
        self._contexts = contexts
        self._hosts = hosts

    @contextmanager
    def answer(self, url: str, question: Question, deadline: float, task: Task | None = None) -> Iterator[Answer]:
        """Follow redirects from ``url`` and yield the answer, when its status is one that is accepted."""
        location = parse_location(url)
        _check_credential(location, question.credential)
        for _ in range(REDIRECT_LIMIT + 1):
            accepted = question.accepted | ({NOT_MODIFIED} if question.validators else frozenset())
            with self._connected(location, question, deadline, task) as answer:
                if answer.status in accepted:
                    yield answer
                    return
                header = answer.header("Location")
                if answer.status not in _REDIRECTS or header is None:
                    raise failures.status(answer, question.method, _authorization(location, question))
                status = answer.status
            try:
                target = redirected(location, header)
            except RedirectRefusedError as problem:
                raise failures.without_credential(problem, _authorization(location, question)) from None
            question = _carried(question, status, location, target)
            location = target
        raise failures.too_many_redirects(url, REDIRECT_LIMIT)

    @contextmanager
    def _connected(
        self, location: Location, question: Question, deadline: float, task: Task | None
    ) -> Iterator[Answer]:
        """Connect to the first judged address of the location's host that answers, or have the proxy do it."""
        routes = self._router.routes(location)
        wire = _wire(location, question, task)
        if location.scheme == "http" and "Authorization" in wire.headers and not all(map(_stays_here, routes)):
            raise failures.clear_text(location)
        context = self._context(location, question)
        timeouts = Timeouts(
            connect_seconds=self._settings.connect_timeout_seconds, read_seconds=self._settings.read_timeout_seconds
        )
        with ExitStack() as stack:
            stack.enter_context(self._counted(location, deadline))
            for position, route in enumerate(routes):
                if self._clock.monotonic() >= deadline:
                    break
                guard = self._dialer.guard(deadline)
                try:
                    answer = stack.enter_context(
                        exchange(location, route, wire, context=context, timeouts=timeouts, guard=guard)
                    )
                except UnreachableError as problem:
                    # A server that answers with the wrong certificate is not passed over for another one.
                    if position == len(routes) - 1 or problem.context.get("final"):
                        raise
                    continue
                yield answer
                return
        raise failures.out_of_time(location)

    @contextmanager
    def _counted(self, location: Location, deadline: float) -> Iterator[None]:
        """Wait until the host has one more connection to give."""
        if not self._hosts.take(location.authority, wait_seconds=deadline - self._clock.monotonic()):
            raise failures.out_of_time(location)
        try:
            yield
        finally:
            self._hosts.give_back(location.authority)

    def _context(self, location: Location, question: Question) -> ssl.SSLContext | None:
        if location.scheme != "https":
            return None
        certificate = None if question.credential is None else question.credential.certificate
        return self._contexts.get(question.server_anchors, certificate)


def _check_credential(location: Location, credential: Credential | None) -> None:
    if credential is None:
        return
    if location.authorization is not None:
        raise CredentialError(
            f"{show(location.url)} is given with credentials in the URL, and a credential besides",
            resolution="Leave one of them out; the URL is the worse place.",
        )
    if credential.certificate is not None and location.scheme != "https":
        raise CredentialError(f"{show(location.url)} takes no client certificate", resolution="Use https.")


def _carried(question: Question, status: int, location: Location, target: Location) -> Question:
    """Return what is asked where a redirect leads."""
    same = location.origin == target.origin
    is_plain = question.method in {"GET", "HEAD"} and question.body is None
    if not is_plain and not (same and status in _KEEP_METHOD):
        raise failures.unsafe_redirect(location, question.method, target)
    if same:
        return replace(question, validators=None)
    headers = {name: value for name, value in question.headers.items() if name.lower() in _TRAVELLING}
    return replace(question, validators=None, credential=None, headers=headers)


def _wire(location: Location, question: Question, task: Task | None) -> Wire:
    headers = {"Accept": "*/*"} if "accept" not in map(str.lower, question.headers) else {}
    headers.update(question.headers)
    if question.validators is not None:
        headers.update(question.validators.headers)
    authorization = _authorization(location, question)
    if authorization is not None:
        headers["Authorization"] = authorization
    size = question.body.size_bytes if isinstance(question.body, BodyFile) else len(question.body or b"")
    on_sent = None if task is None else lambda sent: task.reach(sent, size)
    return Wire(method=question.method, headers=headers, body=question.body, on_sent=on_sent)


def _authorization(location: Location, question: Question) -> str | None:
    if question.credential is not None and question.credential.authorization is not None:
        return question.credential.authorization
    return location.authorization


def _stays_here(route: Route) -> bool:
    """Whether what is sent is seen by this machine alone."""
    return route.proxy is None and ipaddress.ip_address(route.address).is_loopback
