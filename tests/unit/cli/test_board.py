# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io

import pytest
from rich.console import Console

from coppice.cli.board import LineBoard, LiveBoard, shown_board
from coppice.errors import BuildError
from coppice.execution.model import Ended, SilentBoard
from coppice.monitor import SILENT
from coppice.settings.quantities import format_duration

pytestmark = pytest.mark.unit

NEEDS = {"base": None, "web": "base", "bad": None, "of-bad": "bad"}


class Told:
    def __init__(self) -> None:
        self.said = []

    def message(self, text):
        self.said.append(text)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(board):
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(board.table())
    return [line.strip() for line in console.file.getvalue().splitlines()]


def test_lines_say_what_begins_and_what_becomes_of_each():
    told, now = Told(), [10.0]
    board = LineBoard(told, monotonic=lambda: now[0])
    board.plan(NEEDS)
    assert board.begin("base") is told
    now[0] += 90
    board.end(Ended(name="base", result=1))
    board.begin("bad")
    board.end(Ended(name="bad", error=BuildError("no such package")))
    board.end(Ended(name="of-bad", kept_by="bad"))
    assert told.said == [
        "4 builds: base, web (upon base), bad, of-bad (upon bad)",
        "base: begun",
        f"base: done after {format_duration(90)}",
        "bad: begun",
        "bad: failed: no such package",
        "of-bad: not built, since bad failed",
    ]


def test_a_single_build_is_not_told_of_twice():
    told = Told()
    board = LineBoard(told)
    board.plan({"base": None})
    board.begin("base")
    board.end(Ended(name="base", result=1))
    assert told.said == []


def test_the_table_has_a_row_for_each_with_what_it_does_now():
    now = [10.0]
    with LiveBoard(Terminal(), SILENT, color=False, monotonic=lambda: now[0]) as board:
        board.plan(NEEDS)
        lines = shown(board)
        assert lines[0].split() == ["·", "base", "waits"]
        assert lines[1].split() == ["·", "web", "waits", "for", "base"]
        monitor = board.begin("base")
        with monitor.task("building base", total=4) as task:
            task.reach(1)
            task.note("unpacking [red]packages[/red]")
            now[0] += 30
            line = shown(board)[0]
            assert line.endswith("building base 25 %: unpacking [red]packages[/red]")
            assert "at work" in line
            assert "30 s" in line
        board.end(Ended(name="base", result=1))
        now[0] += 30
        board.begin("bad")
        board.end(Ended(name="bad", error=BuildError("no such package")))
        board.end(Ended(name="of-bad", kept_by="bad"))
        lines = shown(board)
    assert lines[0].split() == ["✓", "base", "done", "30", "s"]
    assert lines[2].endswith("failed: no such package")
    assert lines[3].endswith("not built, since bad failed")
    assert lines[4] == "4 builds: 1 waits, 1 done, 1 failed, 1 not built"


def test_control_characters_of_strangers_do_not_reach_the_terminal():
    terminal = Terminal()
    with LiveBoard(terminal, SILENT, color=False) as board:
        board.plan(NEEDS)
        monitor = board.begin("base")
        monitor.message("\x1b]0;owned\x07 done")
        with monitor.task("building base") as task:
            task.note("\x1b[2Jgone")
            board._live.refresh()
    assert "\x1b]0;" not in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()


def test_text_that_would_be_broken_markup_is_shown_as_it_stands():
    terminal = Terminal()
    with LiveBoard(terminal, SILENT, color=False) as board:
        board.plan(NEEDS)
        monitor = board.begin("base")
        monitor.message(r"said \[/] :smile:")
        with monitor.task("building base") as task:
            task.note(r"sed s/\[/b]/x/")
            assert shown(board)[0].endswith(r"building base: sed s/\[/b]/x/")
            board._live.refresh()
    assert r"said \[/] :smile:" in terminal.getvalue()


def test_a_single_build_on_a_terminal_is_shown_by_the_usual_monitor():
    with LiveBoard(Terminal(), SILENT) as board:
        board.plan({"base": None})
        assert board.begin("base") is SILENT
        board.end(Ended(name="base", result=1))


@pytest.mark.parametrize(
    ("stream", "silent", "kind"),
    [(Terminal(), False, LiveBoard), (io.StringIO(), False, LineBoard), (Terminal(), True, SilentBoard)],
)
def test_what_suits_the_stream_is_shown(stream, silent, kind):
    with shown_board(stream, SILENT, silent=silent) as board:
        assert isinstance(board, kind)
