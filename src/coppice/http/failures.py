# SPDX-License-Identifier: Apache-2.0
"""What a transfer can fail by, in words: each names the host, and shows nothing that is secret."""

from __future__ import annotations

import base64
import html
import json
import re
import ssl
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from coppice.errors import (
    AddressRefusedError,
    CoppiceError,
    HttpStatusError,
    RedirectRefusedError,
    TransferCutError,
    TransferError,
    TransferStalledError,
    TransferTooLargeError,
    UnreachableError,
)
from coppice.http.guard import Verdict
from coppice.http.location import Location, show

if TYPE_CHECKING:
    from coppice.http.exchange import Answer

_EXCERPT_BYTES = 300
_READ_BYTES = 16 * 1024
"""Of an explanation; more than is shown, so that no half of a repeated secret stays at the end."""
_SHORTEST_SECRET = 3
_NOT_ALLOWED = (
    "What was there before stays as it is. Name a credential that this server takes, or check the one that is named: "
    "it may have ended, or may not be for this."
)
_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3}).{0,100}")
_WORTH_RETRYING = frozenset({429, 500, 502, 503, 504})


def worth_retrying(error: TransferError) -> bool:
    """Whether the same request may go better at another time."""
    if isinstance(error, HttpStatusError):
        return error.context.get("status") in _WORTH_RETRYING
    if isinstance(error, UnreachableError):
        return not error.context.get("final")
    return isinstance(error, TransferCutError) and not error.context.get("complete")


def too_large(location: Location, limit_bytes: int, details: str | None = None) -> TransferTooLargeError:
    """Return the error for what is longer than it may be."""
    return TransferTooLargeError(
        f"{show(location.url)} is longer than the {limit_bytes} bytes that it may have",
        details=details,
        resolution=f"Nothing of it is used. Ask whoever runs {location.host} what it serves there.",
        context={"url": location.shown, "host": location.host, "limit_bytes": limit_bytes},
    )


def too_short(answer: Answer, received: int, expected: int) -> TransferCutError:
    """Return the error for what ended before its size."""
    complete = answer.length_bytes == received
    return TransferCutError(
        f"{show(answer.location.url)} ended after {received} of {expected} bytes",
        details="The server announced that length." if complete else "The connection was closed early.",
        resolution=f"Run again; if it stays so, {answer.location.host} serves another file than the one signed.",
        context={
            "url": answer.location.shown,
            "host": answer.location.host,
            "received": received,
            "complete": complete,
        },
    )


def status(answer: Answer, method: str, authorization: str | None = None) -> HttpStatusError:
    """Return the error for a status that is no answer, with the beginning of what the server said.

    Args:
        answer: With that status.
        method: What was asked.
        authorization: What the server was shown. Some servers repeat it in their explanation.
    """
    excerpt = bytearray()
    try:
        for piece in answer.pieces():
            excerpt.extend(piece[:_READ_BYTES])
            if len(excerpt) >= _READ_BYTES:
                break
    except TransferError:
        # The status is what counts; the text below it is only an explanation.
        pass
    text = _without(bytes(excerpt).decode("utf-8", errors="replace"), authorization)[:_EXCERPT_BYTES]
    return HttpStatusError(
        f"{answer.location.host} answered {answer.status} for {show(answer.location.url)}",
        details=show(text, _EXCERPT_BYTES) if text else None,
        resolution=_NOT_ALLOWED
        if answer.status in {401, 403}
        else "What was there before stays as it is. Check the URL, or ask whoever runs the server.",
        context={
            "url": answer.location.shown,
            "host": answer.location.host,
            "method": method,
            "status": answer.status,
            **_asked_to_wait(answer),
        },
    )


def _asked_to_wait(answer: Answer) -> dict[str, int]:
    """Return after how many seconds the server wants to be asked again, if it says so (RFC 9110, 10.2.3)."""
    said = (answer.header("Retry-After") or "").strip()
    if answer.status not in {429, 503} or not said:
        return {}
    if said.isascii() and said.isdigit():
        return {"retry_after_seconds": int(said[:9])}
    try:
        wanted = parsedate_to_datetime(said)
        now = parsedate_to_datetime(answer.header("Date") or "")
        return {"retry_after_seconds": max(0, int((wanted - now).total_seconds()))}
    except (ValueError, TypeError, OverflowError):
        return {}


def too_many_redirects(url: str, limit: int) -> RedirectRefusedError:
    """Return the error for a chain of redirects that does not end."""
    return RedirectRefusedError(
        f"{show(url)} redirects more than {limit} times",
        resolution="Ask whoever runs the server; there may be a loop.",
        context={"url": show(url)},
    )


def unsafe_redirect(location: Location, method: str, target: Location) -> RedirectRefusedError:
    """Return the error for a redirect of a request that changes something."""
    return RedirectRefusedError(
        f"{show(location.url)} redirects the method {method} to {show(target.url)}",
        details="What changes something on a server goes where it was addressed to, or stays undone.",
        resolution="If the new place is right, use its URL.",
        context={"url": location.shown, "host": location.host},
    )


def clear_text(location: Location) -> AddressRefusedError:
    """Return the error for a credential that would go over a connection that others can read."""
    return AddressRefusedError(
        f"{show(location.url)} would get a credential in clear text (http)",
        resolution="Use https. Without it, credentials are shown to servers on loopback only.",
        context={"url": location.shown, "host": location.host},
    )


def out_of_time(location: Location) -> TransferStalledError:
    """Return the error for a deadline that passed before a connection was made."""
    return TransferStalledError(
        f"{show(location.url)} took too long in all and was given up",
        resolution="Run again later, or raise transfer.total_timeout_seconds.",
        context={"url": location.shown, "host": location.host},
    )


def stalled(location: Location, verdict: Verdict) -> TransferStalledError:
    """Return the error for what the guard ended."""
    what, setting = {
        Verdict.DEADLINE: ("took too long in all", "transfer.total_timeout_seconds"),
        Verdict.TOO_SLOW: ("came too slowly", "transfer.minimum_rate_bytes_per_second"),
        Verdict.ABORTED: ("was not needed any more", "nothing"),
    }[verdict]
    return TransferStalledError(
        f"{show(location.url)} from {location.host} {what} and was given up",
        resolution=f"Run again later, or change {setting}.",
        context={"url": location.shown, "host": location.host},
    )


def translate(
    location: Location, problem: Exception, *, was_connected: bool, proxy: Location | None = None
) -> CoppiceError:
    """Return what an error of urllib3 or of the machine means.

    Args:
        location: What was asked for.
        problem: The error.
        was_connected: Whether there was a connection, verified where it is one with TLS: something may have been sent.
        proxy: What stands between.
    """
    from urllib3 import exceptions

    context = {"url": location.shown, "host": location.host}
    if proxy is not None and not was_connected and (error := _of_proxy(location, problem, proxy)) is not None:
        return error
    if isinstance(problem, exceptions.NewConnectionError | exceptions.ConnectTimeoutError):
        return UnreachableError(
            f"{location.host} port {location.port} cannot be reached",
            details=_spoken(problem),
            resolution="Check that the server runs and that this machine may connect to it.",
            context=context,
        )
    cause = _tls_cause(problem)
    if cause is not None and (not was_connected or "ALERT" in (cause.reason or "").upper()):
        # With TLS 1.3, a server says only after the handshake that it wants another client certificate, or one at all.
        return _untrusted(location, cause)
    if isinstance(problem, exceptions.TimeoutError | TimeoutError):
        return TransferStalledError(
            f"{location.host} was silent for too long while {show(location.url)} was fetched",
            details=str(problem),
            resolution="Run again later, or raise transfer.read_timeout_seconds.",
            context=context,
        )
    return TransferCutError(
        f"the connection to {location.host} broke while {show(location.url)} was fetched",
        details=str(problem),
        resolution="Run again; what was there before stays as it is.",
        context=context,
    )


def _of_proxy(location: Location, problem: Exception, proxy: Location) -> UnreachableError | None:
    """Return what the proxy failed of; None: it did its part."""
    from urllib3 import exceptions

    context = {"url": location.shown, "host": location.host, "proxy": proxy.authority}
    if isinstance(problem, exceptions.NewConnectionError | exceptions.ConnectTimeoutError):
        return UnreachableError(
            f"the proxy {proxy.authority} cannot be reached",
            details=_spoken(problem),
            resolution="Check transfer.proxy, and that the proxy runs.",
            context=context,
        )
    said = _TUNNEL.search(str(problem))
    if said is None:
        return None
    return UnreachableError(
        f"the proxy {proxy.authority} does not connect to {location.host} port {location.port}: {said[1]}",
        details=show(said[0])[1:-1],
        resolution="Ask whoever runs the proxy; it is told the server's address, not its name. Where no proxy is "
        "needed, name the server in transfer.no_proxy.",
        context={**context, "final": int(said[1]) not in _WORTH_RETRYING},
    )


def without_credential(problem: RedirectRefusedError, authorization: str | None) -> RedirectRefusedError:
    """Return the error for a redirect, should the address that it names repeat what the server was shown."""
    return RedirectRefusedError(
        _without(problem.message, authorization), resolution=problem.resolution, context=problem.context
    )


def _without(text: str, authorization: str | None) -> str:
    if authorization is None:
        return text
    scheme, _, value = authorization.partition(" ")
    secrets = [value]
    if scheme == "Basic":
        secrets += base64.b64decode(value).decode("utf-8").split(":", 1)
    forms = {form for secret in secrets for form in _written(secret)}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _SHORTEST_SECRET:
            text = text.replace(form, "…")
    return text


def _written(secret: str) -> tuple[str, ...]:
    """Return how an explanation may write what it repeats: as it is, in a URL, in HTML, in JSON."""
    return secret, quote(secret, safe=""), html.escape(secret), json.dumps(secret)[1:-1], secret.replace("/", r"\/")


def _spoken(problem: BaseException) -> str:
    """Return what a connection failed of, without the names of classes and numbers of errors around it."""
    return re.sub(r"^\w+\([^)]*\): |\[Errno -?\d+\] ", "", str(problem))


def _untrusted(location: Location, cause: ssl.SSLError) -> UnreachableError:
    context = {"url": location.shown, "host": location.host, "final": True}
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UnreachableError(
            f"no trusted TLS connection to {location.host} port {location.port}: {cause.verify_message}",
            details=str(cause),
            resolution="The server's certificate must be valid today, for that name, and come from an authority that "
            "this machine trusts, or that is named for this server.",
            context=context,
        )
    if "ALERT" in (cause.reason or "").upper():
        return UnreachableError(
            f"{location.host} port {location.port} refused the TLS connection",
            details=str(cause),
            resolution="The server may ask for a client certificate, or not take the one that it was shown.",
            context=context,
        )
    return UnreachableError(
        f"no trusted TLS connection to {location.host} port {location.port}",
        details=str(cause),
        resolution="Check that it is an https server, with TLS 1.2 or later.",
        context=context,
    )


def _tls_cause(problem: BaseException | None) -> ssl.SSLError | None:
    for _ in range(5):
        if problem is None or isinstance(problem, ssl.SSLError):
            return problem
        inner = problem.args[0] if problem.args and isinstance(problem.args[0], BaseException) else None
        problem = inner or problem.__cause__ or problem.__context__
    return None
