# SPDX-License-Identifier: Apache-2.0
"""libvirt as a cloud: images in a storage pool, with a machine definition each, for one machine or a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.libvirt_pool.options import DEFAULT_CALL_SECONDS, OPTIONS, read_placing, read_uri
from coppice.errors import SettingsError

if TYPE_CHECKING:
    from coppice.cloud.libvirt_pool.driver import LibvirtCloud
    from coppice.conversion.model import Formats
    from coppice.settings.clouds import CloudSettings

__all__ = ["OPTIONS", "open_libvirt"]


def open_libvirt(settings: CloudSettings, formats: Formats) -> LibvirtCloud:
    """Return the libvirt that ``settings`` describe, without asking it anything yet.

    Raises:
        SettingsError: An option is wrong.
    """
    from coppice.cloud.libvirt_pool.driver import DEFAULT_FORMATS, LibvirtCloud
    from coppice.cloud.libvirt_pool.session import Session
    from coppice.settings.driver_options import Options

    where = f"clouds.{settings.name}"
    refused = sorted(str(each) for each in formats if each not in DEFAULT_FORMATS)
    if refused:
        raise SettingsError(
            f"{where}.formats: the driver libvirt takes no {', '.join(refused)}",
            resolution=f"Use some of: {', '.join(DEFAULT_FORMATS)}. what a machine writes to these is kept apart.",
        )
    options = Options(settings.options, of="the cloud driver libvirt")
    uri = read_uri(options, where)
    placing = read_placing(settings, options)
    seconds = options.seconds("timeout", DEFAULT_CALL_SECONDS)
    options.finish()
    return LibvirtCloud(
        settings.name,
        settings.site,
        session=Session(settings.name, uri, seconds),
        placing=placing,
        formats=formats or DEFAULT_FORMATS,
    )
