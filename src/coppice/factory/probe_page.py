# SPDX-License-Identifier: Apache-2.0
"""Pages of a booted machine, asked for from outside; and its web console, logged in to as a person would.

A machine that was just made has a certificate that nobody vouches for, so none is verified: the connection goes to
the host's own loopback, and from there into the machine that the test started.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.definition.model import Page

_CONNECTION_SECONDS = 30.0
_PAUSE_SECONDS = 2.0
_PAGE_LIMIT_BYTES = 4 * 1024 * 1024
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a web server answered.

    Attributes:
        status: Its status.
        kind: Of what it served, by its own words.
        body: That, up to a limit.
    """

    status: int
    kind: str
    body: bytes


def fetch(port: int, path: str, *, is_encrypted: bool, headers: Mapping[str, str] | None = None) -> Answered | None:
    """Ask for a page at a port of the host's loopback; None: no web server answered."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=_CONNECTION_SECONDS, context=_any_certificate())
        if is_encrypted
        else http.client.HTTPConnection("127.0.0.1", port, timeout=_CONNECTION_SECONDS)
    )
    try:
        connection.request("GET", path, headers={"Accept": "*/*", **(headers or {})})
        response = connection.getresponse()
        kind = response.getheader("Content-Type", "") or ""
        return Answered(status=response.status, kind=kind, body=response.read(_PAGE_LIMIT_BYTES))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def fetch_page(page: Page, port: int, *, seconds: float) -> tuple[str, str | None]:
    """Ask for ``page`` until it is as it should be, at most ``seconds``; return what was seen, and what is wrong."""
    wanted = page.contains.encode()

    def judged() -> tuple[str, str | None]:
        answered = fetch(port, page.path, is_encrypted=page.is_encrypted)
        where = f"the page {page.name} at port {page.port}"
        if answered is None:
            return "none", f"{where} was not served: no web server answered"
        seen = f"{answered.status}, {len(answered.body)} bytes"
        if answered.status != page.status:
            return seen, f"{where} was answered with {answered.status}, not with {page.status}"
        if wanted not in answered.body:
            return seen, f"{where} does not hold {page.contains!r}"
        return seen, None

    return _until_right(judged, seconds)


def enter_web_console(port: int, *, user: str, password: str, seconds: float) -> tuple[str, str | None]:
    """Log in to Cockpit, trying at most ``seconds``; return what was seen, and what is wrong."""

    def judged() -> tuple[str, str | None]:
        front = fetch(port, "/", is_encrypted=True)
        if front is None or front.status != _OK:
            return "silent", "its web console does not answer"
        pair = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        said = {"Authorization": f"Basic {pair}", "X-Superuser": "any"}
        entered = fetch(port, "/cockpit/login", is_encrypted=True, headers=said)
        if entered is None or entered.status != _OK:
            status = "nothing" if entered is None else entered.status
            return "refuses", f"its web console does not let {user} in by the password on its console: {status}"
        try:
            is_session = "csrf-token" in json.loads(entered.body)
        except (ValueError, TypeError):
            is_session = False
        return (f"lets {user} in", None) if is_session else ("strange", "its web console began no session")

    return _until_right(judged, seconds)


def _until_right(judged: Callable[[], tuple[str, str | None]], seconds: float) -> tuple[str, str | None]:
    deadline = time.monotonic() + seconds
    while True:
        seen, wrong = judged()
        if wrong is None or time.monotonic() >= deadline:
            return seen, wrong
        time.sleep(_PAUSE_SECONDS)


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
