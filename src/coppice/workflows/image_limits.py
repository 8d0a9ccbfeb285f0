# SPDX-License-Identifier: Apache-2.0
"""The bounds on images that the settings of a site say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.model import ConversionLimits

if TYPE_CHECKING:
    from coppice.settings.model import ConversionSettings


def limits_of(settings: ConversionSettings) -> ConversionLimits:
    """Return the bounds on what is inspected and converted."""
    return ConversionLimits(
        maximum_virtual_size_bytes=settings.maximum_virtual_size_bytes,
        memory_bytes=settings.memory_bytes,
        cpu_seconds=settings.cpu_seconds,
        timeout_seconds=settings.timeout_seconds,
        maximum_expansion=settings.maximum_expansion,
        maximum_archive_members=settings.maximum_archive_members,
    )
