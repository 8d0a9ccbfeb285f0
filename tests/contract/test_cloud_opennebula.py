# SPDX-License-Identifier: Apache-2.0
"""OpenNebula, held to the suite of clouds over the simulated front-end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coppice.testing.contracts.cloud_abilities import AdoptingContract, DriftContract, TidyContract, UseContract
from coppice.testing.contracts.clouds import CloudContract
from coppice.testing.opennebula_stand import OpenNebulaStand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.contract


class TestOpenNebula(CloudContract, DriftContract, UseContract, TidyContract, AdoptingContract):
    @pytest.fixture
    def stand(self, tmp_path: Path) -> Iterator[OpenNebulaStand]:
        stand = OpenNebulaStand(tmp_path / "cloud")
        with stand.simulator:
            yield stand
