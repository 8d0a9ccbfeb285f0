# SPDX-License-Identifier: Apache-2.0
"""Random lives: the short form. The long one is in tests/e2e/test_life_by_chance.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from coppice.testing.life_machine import LifeMachine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.mark.threat("T95")
def test_whatever_happens_the_invariants_hold(tmp_path: Path):
    class Machine(LifeMachine):
        directory = tmp_path

    chosen = settings(
        deadline=None,
        max_examples=8,
        stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=(Phase.generate,),
        database=None,
    )
    run_state_machine_as_test(Machine, settings=chosen)
