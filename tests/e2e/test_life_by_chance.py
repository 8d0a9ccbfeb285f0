# SPDX-License-Identifier: Apache-2.0
"""Random lives: ten thousand steps, of a seed that is printed and can be given again."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from coppice.testing.life_machine import LifeMachine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.soak]


@pytest.mark.threat("T95")
@pytest.mark.timeout(7200)
def test_whatever_happens_in_ten_thousand_steps_the_invariants_hold(tmp_path: Path):
    number = int(os.environ.get("COPPICE_SEED") or secrets.randbits(32))
    print(f"COPPICE_SEED={number}")  # noqa: T201 - it is what the run is repeated with

    class Machine(LifeMachine):
        directory = tmp_path

    chosen = settings(
        deadline=None,
        max_examples=250,
        stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
        database=None,
        print_blob=True,
    )
    run_state_machine_as_test(seed(number)(Machine), settings=chosen)
