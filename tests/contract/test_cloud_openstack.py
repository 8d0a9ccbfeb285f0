# SPDX-License-Identifier: Apache-2.0
"""OpenStack, held to the suite of clouds over a real Glance and a real Keystone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coppice.testing.contracts.cloud_abilities import (
    AdoptingContract,
    AudienceContract,
    DriftContract,
    TidyContract,
    UseContract,
)
from coppice.testing.contracts.clouds import CloudContract
from coppice.testing.openstack_stand import OpenStackStand

if TYPE_CHECKING:
    from coppice.testing.openstack import OpenStack

pytestmark = pytest.mark.contract


class TestOpenStack(CloudContract, DriftContract, UseContract, AudienceContract, TidyContract, AdoptingContract):
    @pytest.fixture
    def stand(self, openstack: OpenStack) -> OpenStackStand:
        return OpenStackStand(openstack)
