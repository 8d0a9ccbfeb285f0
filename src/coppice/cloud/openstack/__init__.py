# SPDX-License-Identifier: Apache-2.0
"""The driver ``openstack``: images in Glance."""

from __future__ import annotations

from coppice.cloud.openstack.driver import open_openstack
from coppice.cloud.openstack.settings import OPTIONS

__all__ = ["OPTIONS", "open_openstack"]
