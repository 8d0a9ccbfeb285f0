# SPDX-License-Identifier: Apache-2.0
"""Publishing and removing at the same time, in every order of their steps: they have no lock."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from coppice.clock import FixedClock
from coppice.errors import PublicationError
from coppice.imagelist.place import Kind
from coppice.imagelist.publication import PlacePublisher
from coppice.monitor import SILENT
from coppice.testing.publishing.edition import Editor
from coppice.testing.publishing.memory import MemoryPlace

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
WEEK = timedelta(days=7)


class Duet:
    """A publication that stops at one of its calls, and goes on at one of a removal's."""

    def __init__(self, directory: Path) -> None:
        """Have ``old.raw`` at the place, named by no list for a week; the publication names it again."""
        self.clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
        place, editor = MemoryPlace(), Editor(directory)
        publisher = PlacePublisher(place, clock=self.clock)
        files = {name: {name: editor.image(name)} for name in ("old.raw", "new.raw")}
        editor.edition(publisher, files["old.raw"]).publish(publisher)
        editor.edition(publisher, files["new.raw"]).publish(publisher)
        self.clock.advance(WEEK)
        self.edition = editor.edition(publisher, files["old.raw"])
        self.held = dict(place.held)

    def play(self, *, start_at: int, stop_at: int, go_on_at: int) -> tuple[MemoryPlace, tuple[str, ...]]:
        """Begin to publish at one call of the removal, stop at a call of one's own, go on at another of the removal."""
        place = MemoryPlace()
        place.held.update(self.held)
        stopped, go_on = threading.Event(), threading.Event()
        calls = {"publishing": 0, "removing": 0}

        def before(_method: str, _name: str) -> None:
            if threading.current_thread() is thread:
                calls["publishing"] += 1
                if calls["publishing"] == stop_at:
                    stopped.set()
                    go_on.wait(10)
                return
            calls["removing"] += 1
            if calls["removing"] == start_at:
                thread.start()
                stopped.wait(10)
            if calls["removing"] == go_on_at:
                go_on.set()
                thread.join(10)

        def publish() -> None:
            with suppress(PublicationError):
                self.edition.publish(PlacePublisher(place, clock=self.clock), "two")
            stopped.set()

        thread = threading.Thread(target=publish)
        place.before = before
        removed = PlacePublisher(place, clock=self.clock).retire(unnamed_since=self.clock.now() - WEEK, monitor=SILENT)
        go_on.set()
        if thread.ident is not None:
            thread.join(10)
        return place, removed

    def steps(self) -> tuple[int, int, int]:
        """Return the calls of a publication, the one of them that replaces the list, and those of a removal."""
        place = MemoryPlace()
        place.held.update(self.held)
        self.edition.publish(PlacePublisher(place, clock=self.clock), "two")
        publishing, replacing = len(place.calls), place.calls.index(("replace", "two")) + 1
        place.held.clear()
        place.held.update(self.held)
        place.calls.clear()
        PlacePublisher(place, clock=self.clock).retire(unnamed_since=self.clock.now() - WEEK, monitor=SILENT)
        return publishing, replacing, len(place.calls)


def test_no_interleaving_of_a_publication_and_a_removal_takes_what_a_list_names(tmp_path: Path) -> None:
    duet, outcomes = Duet(tmp_path), set()
    publishing, replacing, removing = duet.steps()
    orders = [(1, stop_at, go_on_at) for stop_at in range(1, publishing + 1, 3) for go_on_at in range(1, removing + 1)]
    # The dangerous stop, between the check of the images and the list, with every place for its two ends.
    orders += [(start, replacing, go_on) for start in range(1, removing + 1) for go_on in range(start, removing + 1)]
    for start_at, stop_at, go_on_at in orders:
        place, removed = duet.play(start_at=start_at, stop_at=stop_at, go_on_at=go_on_at)
        is_listed = (Kind.LIST, "two") in place.held
        assert not is_listed or (Kind.IMAGE, "old.raw") in place.held, (start_at, stop_at, go_on_at)
        outcomes.add((is_listed, removed))
    # Whoever comes second gives way, or the image is put there once more.
    assert {(True, ()), (True, ("old.raw",)), (False, ("old.raw",))} <= outcomes
