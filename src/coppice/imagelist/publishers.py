# SPDX-License-Identifier: Apache-2.0
"""The publishers there are: Coppice's own in a table, others by the entry point group ``coppice.publishers``."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from coppice.errors import SettingsError
from coppice.imagelist.directory import DirectoryPublisher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.imagelist.model import Publisher
    from coppice.settings.model import PublisherSettings

GROUP = "coppice.publishers"
BUILT_IN: Mapping[str, Callable[[Mapping[str, object]], Publisher]] = {
    "directory": DirectoryPublisher.from_options,
}


def load_publisher(settings: PublisherSettings) -> Publisher:
    """Return the publisher that ``settings`` describe; a plug-in is called with the options.

    Raises:
        SettingsError: There is no such driver, it cannot be loaded, or its options are wrong.
    """
    factory: Any = BUILT_IN.get(settings.driver)
    if factory is None:
        found = {point.name: point for point in entry_points(group=GROUP)}
        if settings.driver not in found:
            raise SettingsError(
                f"publishers.{settings.name}: there is no publisher driver {settings.driver!r}",
                details=f"there are: {', '.join(sorted({*BUILT_IN, *found}))}",
                resolution="Correct `driver`, or install the package that brings it.",
            )
        try:
            factory = found[settings.driver].load()
        except (ImportError, AttributeError) as problem:
            raise SettingsError(
                f"publishers.{settings.name}: the driver {settings.driver!r} cannot be loaded: {problem}"
            ) from problem
    try:
        publisher: Publisher = factory(settings.options)
    except SettingsError as problem:
        raise SettingsError(
            f"publishers.{settings.name}: {problem.message}", details=problem.details, resolution=problem.resolution
        ) from problem
    return publisher
