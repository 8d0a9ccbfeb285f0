# SPDX-License-Identifier: Apache-2.0
"""What a site's settings say under every definition: the values of those that say nothing themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.settings.model import FactorySettings


def site_defaults(settings: FactorySettings) -> dict[str, object]:
    """Return what ``settings`` say of definitions, in the form of an ``appliance.toml``."""
    build: dict[str, object] = {}
    if settings.default_disk_size_bytes is not None:
        build["disk-size"] = settings.default_disk_size_bytes
    if settings.default_formats:
        build["formats"] = list(settings.default_formats)
    return {"build": build} if build else {}
