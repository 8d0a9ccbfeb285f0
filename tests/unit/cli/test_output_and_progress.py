# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime, timedelta

import pytest

from coppice.cli.envelope import plain
from coppice.cli.output import Output, age
from coppice.cli.progress import PlainMonitor, RichMonitor, make_monitor
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT, Unit

pytestmark = pytest.mark.unit


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class _Ticker:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_table_in_a_pipe_is_plain_columns():
    out = io.StringIO()
    Output(stdout=out).table(["name", "size"], [["a", 1], ["long", None]])
    assert out.getvalue() == "NAME  SIZE\na     1\nlong  -\n"


def test_an_instant_is_shown_in_one_form_everywhere():
    out = io.StringIO()
    Output(stdout=out).pairs({"expires": datetime(2026, 12, 9, 16, 39, 13, 280781, tzinfo=UTC)})
    assert out.getvalue() == "expires  2026-12-09T16:39:13Z\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (4.4, "4 s ago"),
        (72, "1 min 12 s ago"),
        (332, "5 min ago"),
        (5400, "1 h 30 min ago"),
        (9000, "2 h ago"),
        (100_000, "1 d 3 h ago"),
        (-600_000, "in 6 d"),
        (-0.4, "0 s ago"),
    ],
)
def test_how_far_away_something_is_is_said_roughly(seconds, said):
    now = datetime(2026, 12, 9, tzinfo=UTC)
    assert age(now - timedelta(seconds=seconds), now) == said


def test_an_empty_table_still_has_its_headings():
    out = io.StringIO()
    Output(stdout=out).table(["name"], [])
    assert out.getvalue() == "NAME\n"


@pytest.mark.parametrize(
    ("row", "whole"),
    [
        (["science", "a title of many words " * 4, "4996cf6f-fe81-44e9-8314-bc0880d4556a"], slice(2, None)),
        (["ops", "https://images.example.org/" + "x" * 60, "2026-12-24T05:40:42Z", "y" * 36], slice(2, 3)),
        (["z" * 90, "w" * 90], slice(0)),
    ],
)
def test_on_a_narrow_terminal_identifiers_and_instants_stay_whole_and_nothing_is_lost(monkeypatch, row, whole):
    monkeypatch.setenv("COLUMNS", "80")
    out = _Terminal()
    Output(stdout=out, color=False).table([f"c{i}" for i in range(len(row))], [row])
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines[1:]), out.getvalue()
    assert all(value in out.getvalue() for value in row[whole]), out.getvalue()
    shown = "".join(lines[2:])
    assert {each: shown.count(each) for each in "wxyz"} == {each: "".join(row).count(each) for each in "wxyz"}


@pytest.mark.threat("T76")
@pytest.mark.parametrize("stream", [io.StringIO, _Terminal])
def test_a_title_of_a_stranger_cannot_steer_the_terminal(stream):
    out = stream()
    Output(stdout=out, color=False).table(["title"], [["\x1b[2J[bold]x[/bold]\n\u202eevil"]])
    assert "\x1b[2J" not in out.getvalue()
    assert "[bold]x" in out.getvalue()
    assert "\u202e" not in out.getvalue()


def test_text_that_the_stream_cannot_encode_is_written_with_escapes():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Output(stdout=out).line("Größe")
    out.flush()
    assert raw.getvalue() == b"Gr\\xf6\\xdfe\n"


def test_a_short_task_is_not_worth_a_line():
    stream, ticker = io.StringIO(), _Ticker()
    with PlainMonitor(stream, monotonic=ticker).task("fetch", unit=Unit.BYTES) as task:
        ticker.now = 1.9
        task.advance(1)
    assert stream.getvalue() == ""


def test_a_long_task_tells_now_and_then_with_bytes_and_rate():
    stream, ticker = io.StringIO(), _Ticker()
    with PlainMonitor(stream, monotonic=ticker).task("fetch", total=40 * 1024, unit=Unit.BYTES) as task:
        for second in range(1, 21):
            ticker.now = float(second)
            task.advance(2048)
    assert stream.getvalue().splitlines() == [
        "fetch: 4 KiB of 40 KiB (10 %) (2 KiB/s)",
        "fetch: 24 KiB of 40 KiB (60 %) (2 KiB/s)",
        "fetch: done after 20 s (2 KiB/s)",
    ]


def test_a_failed_task_says_so_however_short():
    stream = io.StringIO()
    with pytest.raises(KeyError), PlainMonitor(stream, monotonic=_Ticker()).task("convert"):
        raise KeyError
    assert stream.getvalue() == "convert: failed after 0 s\n"


def test_bars_on_a_terminal_show_nested_tasks_and_take_markup_as_text():
    stream = _Terminal()
    monitor = RichMonitor(stream, color=False)
    with monitor.task("outer", total=2) as outer, monitor.task("[red]inner", total=1024, unit=Unit.BYTES) as inner:
        inner.reach(1024)
        outer.note("one")
        outer.advance(2)
        monitor.message("half way")
    assert "outer" in stream.getvalue()
    assert "[red]inner" in stream.getvalue()
    assert "1 KiB of 1 KiB (100 %)" in stream.getvalue()
    assert "half way" in stream.getvalue()


def test_text_that_would_be_broken_markup_is_shown_as_it_stands():
    stream = _Terminal()
    monitor = RichMonitor(stream, color=False)
    with monitor.task(r"task \[/]") as task:
        task.note(r"note \[/b]")
        monitor._progress.refresh()
        monitor.message(r"said \[/] :smile:")
    for text in (r"task \[/]", r"note \[/b]", r"said \[/] :smile:"):
        assert text in stream.getvalue()


def test_the_monitor_suits_its_stream():
    assert make_monitor(io.StringIO(), silent=True) is SILENT
    assert isinstance(make_monitor(io.StringIO()), PlainMonitor)
    assert isinstance(make_monitor(_Terminal()), RichMonitor)


def test_data_of_every_kind_has_a_json_form():
    assert plain([Checksum.of(b"")]) == ["sha512:" + hashlib.sha512(b"").hexdigest()]
    assert plain({"at": datetime(2026, 1, 2, tzinfo=UTC), "set": frozenset({1})}) == {
        "at": "2026-01-02T00:00:00Z",
        "set": [1],
    }
    with pytest.raises(TypeError):
        plain(object())
