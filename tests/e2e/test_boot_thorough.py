# SPDX-License-Identifier: Apache-2.0
"""A thorough boot test of a real appliance: a restart, every port, and every source of data that can be served here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coppice.clock import SystemClock
from coppice.definition.read import read_definition
from coppice.factory.boot import BootSettings, boot_test
from coppice.factory.boot_model import BootLevel, promise_of
from coppice.factory.boot_sources import served_sources
from coppice.factory.build import build
from coppice.factory.model import BuildOptions, Outcome
from coppice.model.operating_system import Firmware
from coppice.monitor import SILENT

pytestmark = [pytest.mark.e2e, pytest.mark.soak, pytest.mark.timeout(7200), pytest.mark.xdist_group("boot")]

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("COPPICE_TEST_CACHE", CHECKOUT / ".cache" / "tests")) / "factory"


def test_a_machine_stays_itself_and_takes_its_data_from_each_source(tmp_path):
    definition = read_definition(CHECKOUT / "definitions" / "debian-12")
    promise = promise_of(definition)
    result = build(definition, root=CACHE, options=BuildOptions(), clock=SystemClock(), monitor=SILENT)
    verdict = boot_test(
        result.images[0],
        firmware=Firmware.BIOS,
        promise=promise,
        settings=BootSettings(
            level=BootLevel.THOROUGH, work_directory=tmp_path / "work", failures_directory=tmp_path / "failures"
        ),
        monitor=SILENT,
        clock=SystemClock(),
    )
    facts = dict(verdict.facts)
    assert verdict.outcome is Outcome.PASSED
    assert facts["restart"].startswith("the same machine")
    first, *others = served_sources(promise.sources)
    assert first in facts["datasource"]
    assert {name.removeprefix("source-") for name in facts if name.startswith("source-")} == set(others)
    assert facts["ports-let-in"] == "22/tcp"
    assert int(facts["ports-closed"].split()[0]) > 65_000
