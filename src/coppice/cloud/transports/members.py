# SPDX-License-Identifier: Apache-2.0
"""The transports there are: Coppice's own in a literal table, others by the entry point group ``coppice.transports``.

An entry point names a function that takes the options, as the settings have them, and gives a `Transport`.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from coppice.errors import SettingsError
from coppice.settings.driver_options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.cloud.transports.transport import Transport

ENTRY_POINT_GROUP = "coppice.transports"
BUILT_IN: Mapping[str, tuple[str, str]] = {
    "http": ("coppice.cloud.transports.by_http", "open_http"),
    "path": ("coppice.cloud.transports.by_path", "open_path"),
    "ssh": ("coppice.cloud.transports.by_ssh", "open_ssh"),
}
"""Driver → module and function; the function takes `Options` and gives a `Transport`."""


def open_transport(given: object, where: str) -> Transport:
    """Return the transport that a cloud's settings describe, without bringing anything anywhere yet.

    Args:
        given: The name of a driver, or a table with ``driver`` and its options: ``[clouds.NAME.transport]``.
        where: Names the setting in errors: ``clouds.NAME.transport``.

    Raises:
        SettingsError: There is no such driver, it cannot be loaded, or its options are wrong.
        ToolMissingError: A package that the driver needs is not installed.
    """
    try:
        driver, options = _parts(given)
        transport = _opened(driver, options)
    except SettingsError as problem:
        raise SettingsError(
            f"{where}: {problem.message}",
            details=problem.details,
            resolution=problem.resolution,
            context={"setting": where},
        ) from problem
    return transport


def _parts(given: object) -> tuple[str, dict[str, object]]:
    if isinstance(given, str):
        return given, {}
    if not isinstance(given, dict) or not isinstance(given.get("driver"), str):
        raise SettingsError(
            "it is not a table with `driver`",
            resolution='Write it as a table of its own, with `driver = "path"`, `"http"` or `"ssh"` and its options.',
        )
    return given["driver"], {str(name): value for name, value in given.items() if name != "driver"}


def _opened(driver: str, options: Mapping[str, object]) -> Transport:
    if driver in BUILT_IN:
        module, function = BUILT_IN[driver]
        reader = Options(options, of=f"the transport {driver}")
        transport = getattr(import_module(module), function)(reader)
        reader.finish()
        return cast("Transport", transport)
    return cast("Transport", _foreign(driver)(options))


def _foreign(driver: str) -> Any:
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if driver not in found:
        known = sorted({*BUILT_IN, *found})
        near = difflib.get_close_matches(driver, known, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise SettingsError(
            f"there is no transport {driver!r}.{meant}",
            resolution=f"Use one of: {', '.join(known)}; or install the package that brings it.",
        )
    try:
        return found[driver].load()
    except (ImportError, AttributeError) as problem:
        raise SettingsError(
            f"the transport {driver!r} ({found[driver].value}) cannot be loaded: {problem}",
            resolution="Install the plug-in anew, in a version that fits this Coppice.",
        ) from problem
