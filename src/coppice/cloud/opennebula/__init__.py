# SPDX-License-Identifier: Apache-2.0
"""OpenNebula as a cloud: images in datastores, and a VM template for each appliance, by its XML-RPC interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.opennebula.options import OPTIONS, read_front_end, read_placing
from coppice.errors import SettingsError

if TYPE_CHECKING:
    from coppice.cloud.opennebula.driver import OpenNebulaCloud
    from coppice.conversion.model import Formats
    from coppice.settings.clouds import CloudSettings

__all__ = ["OPTIONS", "open_opennebula"]


def open_opennebula(settings: CloudSettings, formats: Formats) -> OpenNebulaCloud:
    """Return the OpenNebula that ``settings`` describe, without asking it anything yet.

    Raises:
        SettingsError: An option is missing or wrong.
    """
    from coppice.cloud.opennebula.driver import DEFAULT_FORMATS, OpenNebulaCloud
    from coppice.cloud.opennebula.failures import Failures
    from coppice.cloud.opennebula.front_end import FrontEnd
    from coppice.cloud.transports.members import open_transport
    from coppice.settings.driver_options import Options

    where = f"clouds.{settings.name}"
    refused = sorted(str(each) for each in formats if each not in DEFAULT_FORMATS)
    if refused:
        raise SettingsError(
            f"{where}.formats: OpenNebula takes no {', '.join(refused)}",
            resolution=f"Use some of: {', '.join(DEFAULT_FORMATS)}.",
        )
    options = Options(settings.options, of="the cloud driver opennebula")
    front_end = read_front_end(options, where)
    placing = read_placing(settings, options)
    if "transport" not in settings.options:
        raise SettingsError(
            f"{where}.transport is missing: how does the front-end get at an image's bytes?",
            resolution=f'Write a table [{where}.transport] with driver = "path", "http" or "ssh" and its options.',
        )
    return OpenNebulaCloud(
        settings.name,
        settings.site,
        front_end=FrontEnd(front_end, Failures(settings.name, front_end.endpoint)),
        placing=placing,
        transport=open_transport(settings.options["transport"], f"{where}.transport"),
        formats=formats or DEFAULT_FORMATS,
    )
