# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.execution.relay import LONGEST_TEXT, Relay, SendingMonitor
from coppice.monitor import Unit

pytestmark = pytest.mark.unit


class Told:
    """A monitor that notes what it is told."""

    def __init__(self) -> None:
        self.said = []

    @contextmanager
    def task(self, label, *, total=None, unit=Unit.STEPS):
        self.said.append(("open", label, total, unit))
        try:
            yield self
        except BaseException:
            self.said.append(("failed", label))
            raise
        self.said.append(("done", label))

    def reach(self, amount, total=None):
        self.said.append(("reach", amount, total))

    def note(self, text):
        self.said.append(("note", text))

    def message(self, text):
        self.said.append(("message", text))


def test_what_a_worker_tells_is_told_here():
    told = Told()
    sending = SendingMonitor(Relay(told).take)
    with sending.task("building", total=4, unit=Unit.STEPS) as task:
        task.reach(1, 3)
    sending.message("hello")
    assert told.said == [
        ("open", "building", 4, Unit.STEPS),
        ("reach", 1, 3),
        ("done", "building"),
        ("message", "hello"),
    ]


def test_a_task_that_fails_there_is_one_that_failed_here():
    told = Told()
    sending = SendingMonitor(Relay(told).take)
    with pytest.raises(ValueError, match="no"), sending.task("building"):
        raise ValueError("no")
    assert told.said[-1] == ("failed", "building")


def test_a_task_is_told_of_at_most_once_a_second():
    now, sent = [100.0], []
    sending = SendingMonitor(sent.append, monotonic=lambda: now[0])
    with sending.task("copying", total=100, unit=Unit.BYTES) as task:
        for _ in range(50):
            task.advance(1)
            now[0] += 0.1
    reached = [note["done"] for note in sent if note["op"] == "reach"]
    assert len(reached) == 5
    assert reached[0] == 1


def test_long_words_are_cut_before_they_are_sent():
    sent = []
    SendingMonitor(sent.append).message("x" * 10_000)
    assert len(sent[0]["text"]) == LONGEST_TEXT


@pytest.mark.parametrize(("failed", "how"), [(True, "failed"), (False, "done")])
def test_when_the_work_ends_what_is_open_ends_and_late_notes_are_passed_over(failed, how):
    told = Told()
    relay = Relay(told)
    relay.take({"op": "open", "task": 0, "label": "a", "total": None, "unit": "steps"})
    relay.end(failed=failed)
    relay.take({"op": "message", "text": "late"})
    assert told.said[-1] == (how, "a")


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["op", "task", "label", "total", "unit", "done", "text", "failed"]),
            st.one_of(st.sampled_from(["open", "close", "reach", "message"]), st.integers(-2, 3), st.none()),
        ),
        max_size=8,
    )
)
def test_no_note_harms(notes):
    told = Told()
    relay = Relay(told)
    for note in notes:
        relay.take(note)
    relay.end(failed=True)
    opened = [each for each in told.said if each[0] == "open"]
    assert len(opened) == len([each for each in told.said if each[0] in {"done", "failed"}])
