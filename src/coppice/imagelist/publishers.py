# SPDX-License-Identifier: Apache-2.0
"""The publishers there are: Coppice's own in a table, others by the entry point group ``coppice.publishers``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from coppice.errors import SettingsError
from coppice.imagelist.publication import PlacePublisher
from coppice.settings.driver_options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.imagelist.model import Publisher
    from coppice.settings.model import PublisherSettings, TransferSettings

GROUP = "coppice.publishers"
BUILT_IN: Mapping[str, tuple[str, str]] = {
    "directory": ("coppice.imagelist.directory", "open_directory"),
    "oci": ("coppice.imagelist.oci", "open_oci"),
    "s3": ("coppice.imagelist.s3", "open_s3"),
    "sftp": ("coppice.imagelist.sftp", "open_sftp"),
    "webdav": ("coppice.imagelist.webdav", "open_webdav"),
}
"""Driver → module and function; the function takes `Options` and gives a `coppice.imagelist.place.Place`."""


def load_publisher(settings: PublisherSettings, transfer: TransferSettings | None = None) -> Publisher:
    """Return the publisher that ``settings`` describe; a plug-in is called with the options.

    Args:
        settings: Of the publisher.
        transfer: Bounds on transfers, for the publishers that use Coppice's own HTTP client; None: the defaults.

    Raises:
        SettingsError: There is no such driver, it cannot be loaded, or its options are wrong.
        ToolMissingError: A package that the driver needs is not installed.
    """
    try:
        if settings.driver in BUILT_IN:
            module, function = BUILT_IN[settings.driver]
            return PlacePublisher(getattr(import_module(module), function)(Options(settings.options, transfer)))
        publisher: Publisher = _foreign(settings)(settings.options)
    except SettingsError as problem:
        raise SettingsError(
            f"publishers.{settings.name}: {problem.message}", details=problem.details, resolution=problem.resolution
        ) from problem
    return publisher


def _foreign(settings: PublisherSettings) -> Any:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if settings.driver not in found:
        raise SettingsError(
            f"there is no publisher driver {settings.driver!r}",
            details=f"there are: {', '.join(sorted({*BUILT_IN, *found}))}",
            resolution="Correct `driver`, or install the package that brings it.",
        )
    try:
        return found[settings.driver].load()
    except (ImportError, AttributeError) as problem:
        raise SettingsError(f"the driver {settings.driver!r} cannot be loaded: {problem}") from problem
