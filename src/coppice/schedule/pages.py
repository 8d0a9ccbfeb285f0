# SPDX-License-Identifier: Apache-2.0
"""The pages of the service: ``/metrics``, ``/healthz`` and ``/readyz``; each is an answer to one question."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from coppice.errors import CoppiceError
from coppice.log import get_logger
from coppice.schedule.health import is_alive, reasons_not_ready
from coppice.schedule.metrics import Exposition, service_metrics, site_metrics, tally_metrics
from coppice.schedule.tally import Counts
from coppice.workflows.facts import site_facts

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.schedule.standing import Board
    from coppice.schedule.tally import Tally
    from coppice.settings.model import Settings
    from coppice.workflows.facts import SiteFacts

FACTS_SECONDS: Final = 10.0
"""For how long facts are told again before they are gathered anew, however many ask."""
WAIT_SECONDS: Final = 5.0
"""How long one who asks waits for another's gathering."""
_log = get_logger("schedule.pages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An answer.

    Attributes:
        status: HTTP status.
        content_type: What the body is.
        body: The body.
    """

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What was known at a moment; without facts, the code of the error that kept them from being read, if any."""

    at: float
    facts: SiteFacts | None = None
    error: str | None = None
    counts: Counts = field(default_factory=Counts)


def plain_page(status: int, text: str) -> Page:
    """Return a page of one line."""
    return Page(status=status, content_type="text/plain; charset=utf-8", body=f"{text}\n".encode())


class Pages:
    """Answers questions about the service; threads may share it.

    Args:
        settings: The settings; whoever reads them anew puts the new ones in their place.
        database: Where facts are.
        board: How the service stands.
        tally: What was counted since it began.
        clock: Tells the time.
    """

    def __init__(self, *, settings: Settings, database: Database, board: Board, tally: Tally, clock: Clock) -> None:
        self.settings = settings
        self._database = database
        self._board = board
        self._tally = tally
        self._clock = clock
        self._gathering = threading.Lock()
        self._last = _Known(at=-math.inf)

    def answer(self, path: str, accept: str) -> Page:
        """Return the page at ``path``; ``accept`` is what the asker said that it reads."""
        if path == "/metrics":
            return self._metrics(accept)
        if path == "/healthz":
            return self._health()
        if path == "/readyz":
            return self._readiness()
        if path == "/":
            return plain_page(200, "Coppice. Pages: /metrics /healthz /readyz")
        return plain_page(404, "There is no such page.")

    def _health(self) -> Page:
        alive = is_alive(self._board.read(), self._clock.monotonic())
        return plain_page(200, "alive") if alive else plain_page(503, "hung")

    def _readiness(self) -> Page:
        reasons = self._reasons(self._known().error)
        body = json.dumps({"ready": not reasons, "reasons": reasons}).encode() + b"\n"
        return Page(status=503 if reasons else 200, content_type="application/json", body=body)

    def _reasons(self, unreadable: str | None) -> list[str]:
        reasons = list(reasons_not_ready(self._board.read(), self._clock.monotonic()))
        if unreadable is not None and not any(each.startswith("database") for each in reasons):
            reasons.append(f"database: {unreadable}")
        return reasons

    def _metrics(self, accept: str) -> Page:
        from prometheus_client.exposition import choose_encoder

        known, told = self._known(), Exposition()
        service_metrics(told, self._board.read(), ready=not self._reasons(known.error))
        told.set("coppice_facts_readable", known.facts is not None)
        if known.facts is not None:
            site_metrics(told, known.facts, self._clock.now())
        tally_metrics(told, known.counts)
        encode, content_type = choose_encoder(accept)
        # An encoder asks a registry for one thing only, and ours is made anew for each scrape.
        return Page(status=200, content_type=content_type, body=encode(told))

    def _known(self) -> _Known:
        """Return what is known; one at a time gathers it, and who would wait for long is told what was known last."""
        if not self._gathering.acquire(timeout=WAIT_SECONDS):
            return self._last
        try:
            now = self._clock.monotonic()
            if now - self._last.at >= FACTS_SECONDS:
                self._last = self._gather(now)
            return self._last
        finally:
            self._gathering.release()

    def _gather(self, now: float) -> _Known:
        try:
            counts = self._tally.catch_up()
            facts = site_facts(self.settings, self._database, self._clock.now())
        except CoppiceError as problem:
            _log.error("facts cannot be read", extra={"fields": {"code": problem.code, "error": problem.message}})
            return _Known(at=now, error=problem.code, counts=self._last.counts)
        return _Known(at=now, facts=facts, counts=counts)
