# SPDX-License-Identifier: Apache-2.0
"""libvirt, held to the suite of clouds over a real libvirtd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coppice.testing.contracts.cloud_abilities import DriftContract, TidyContract, UseContract
from coppice.testing.contracts.clouds import CloudContract
from coppice.testing.libvirt_stand import LibvirtStand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.testing.libvirtd import Libvirtd

pytestmark = pytest.mark.contract


class TestLibvirt(CloudContract, DriftContract, UseContract, TidyContract):
    @pytest.fixture
    def stand(self, libvirtd: Libvirtd) -> Iterator[LibvirtStand]:
        libvirtd.clear()
        stand = LibvirtStand(libvirtd)
        yield stand
        stand.close()
