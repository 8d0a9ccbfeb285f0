# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coppice.schedule.health import HUNG_SECONDS, is_alive, reasons_not_ready
from coppice.schedule.model import JobRecord, Outcome
from coppice.schedule.standing import Board, Standing

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
WELL = Standing(started_at=NOW, beat=1000.0, records={"sync": JobRecord(name="sync", outcome=Outcome.SUCCESS)})


def changed(**changes):
    board = Board()
    board.write(started_at=WELL.started_at, beat=WELL.beat, records=WELL.records)
    board.write(**changes)
    return board.read()


@pytest.mark.parametrize(
    ("standing", "reasons"),
    [
        (WELL, ()),
        (Standing(), ("starting",)),
        (changed(stopping=True), ("stopping",)),
        (changed(settings_error="settings-invalid"), ("settings: settings-invalid",)),
        (changed(database_error="database-failed"), ("database: database-failed",)),
        (changed(beat=1000.0 - HUNG_SECONDS), ("hung",)),
        (
            changed(
                records={
                    "sync": JobRecord(name="sync", outcome=Outcome.FAILED, exit_code=137, error="canary"),
                    "retire": JobRecord(name="retire", outcome=Outcome.PARTIAL, exit_code=1),
                }
            ),
            ("job sync: failed with status 137",),
        ),
    ],
)
def test_each_reason_is_told_in_fixed_words(standing, reasons):
    assert reasons_not_ready(standing, 1000.0) == reasons


def test_a_loop_that_goes_round_no_more_is_told_from_one_that_has_not_begun():
    assert is_alive(WELL, 1000.0 + HUNG_SECONDS - 1)
    assert not is_alive(WELL, 1000.0 + HUNG_SECONDS)
    assert is_alive(Standing(), 1_000_000.0)
