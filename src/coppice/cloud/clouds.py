# SPDX-License-Identifier: Apache-2.0
"""The clouds there are: built-in drivers by a literal table, third parties' by the entry point group.

A driver is a module with `OPTIONS` (names of its settings) and a function that takes the target's settings and the
formats asked for (empty: the driver's own) and gives a `Cloud`. An entry point of the group ``coppice.clouds`` names
such a function; its settings are its own to check.
"""

from __future__ import annotations

import difflib
import importlib
import os
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from coppice.errors import SettingsError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coppice.cloud.driver import Cloud
    from coppice.conversion.model import Formats
    from coppice.settings.clouds import CloudSettings

    OpenCloud = Callable[[CloudSettings, Formats], Cloud]

ENTRY_POINT_GROUP = "coppice.clouds"


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    module: str
    function: str
    place: tuple[str, ...] = ()
    """The options that say which place it is; none: each target is a place of its own."""


BUILT_IN: dict[str, _BuiltIn] = {
    "directory": _BuiltIn("coppice.cloud.directory", "open_directory", ("path",)),
    "libvirt": _BuiltIn("coppice.cloud.libvirt_pool", "open_libvirt", ("uri", "pool")),
    "memory": _BuiltIn("coppice.cloud.memory", "open_memory"),
    "opennebula": _BuiltIn("coppice.cloud.opennebula", "open_opennebula", ("endpoint", "secret_file", "secret_env")),
    "openstack": _BuiltIn(
        "coppice.cloud.openstack",
        "open_openstack",
        (
            *("cloud", "clouds_file", "region", "auth_url", "username", "project_name", "project_id"),
            "application_credential_id",
        ),
    ),
}


def open_cloud(settings: CloudSettings) -> Cloud:
    """Return the cloud that ``settings`` describe, without asking it anything yet.

    Raises:
        SettingsError: The driver, an option or a format is unknown, or the site is not named.
    """
    where = f"clouds.{settings.name}"
    if not settings.site.strip():
        raise SettingsError(
            f"{where}.site is empty",
            resolution="Choose an identifier for this site and never change it: by it, Coppice knows its own images.",
        )
    formats = tuple(_format(text, where) for text in settings.formats)
    return _opener(settings, where)(settings, formats)


def refuse_shared_places(clouds: Iterable[CloudSettings]) -> None:
    """Refuse targets that are one place, as one site: each would withdraw what the other registers.

    Raises:
        SettingsError: There are two such; the message names them.
    """
    known: dict[tuple[object, ...], str] = {}
    for each in clouds:
        built_in = BUILT_IN.get(each.driver)
        if built_in is None or not built_in.place:
            continue
        place = [each.options.get(option) for option in built_in.place]
        if each.driver == "directory" and isinstance(place[0], str) and "\0" not in place[0]:
            place[0] = os.path.realpath(place[0])
        other = known.setdefault((each.driver, each.site, *map(repr, place)), each.name)
        if other != each.name:
            raise SettingsError(
                f"clouds.{other} and clouds.{each.name} are the same place, as the same site",
                details="each would take what the other registers for its own, and withdraw what it does not want",
                resolution="Join them to one, or give each a site of its own.",
                context={"setting": f"clouds.{each.name}.site"},
            )


def _opener(settings: CloudSettings, where: str) -> OpenCloud:
    built_in = BUILT_IN.get(settings.driver)
    if built_in is not None:
        module = importlib.import_module(built_in.module)
        for option in settings.options:
            if option not in module.OPTIONS:
                of_all = (each.name for each in fields(settings))
                raise _unknown(
                    f"{where}.{option}", f"an option of driver {settings.driver}", option, module.OPTIONS, of_all
                )
        return cast("OpenCloud", getattr(module, built_in.function))
    foreign = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    point = foreign.get(settings.driver)
    if point is None:
        raise _unknown(f"{where}.driver", "a cloud driver", settings.driver, [*BUILT_IN, *foreign])
    try:
        return cast("OpenCloud", point.load())
    except (ImportError, AttributeError) as problem:
        raise SettingsError(
            f"{where}.driver: the plug-in {settings.driver} ({point.value}) cannot be loaded: {problem}",
            resolution="Install the plug-in anew, in a version that fits this Coppice.",
        ) from problem


def _format(text: str, where: str) -> DiskFormat:
    try:
        return DiskFormat(text)
    except ValueError as problem:
        raise _unknown(f"{where}.formats", "a disk format", text, [str(each) for each in DiskFormat]) from problem


def _unknown(where: str, what: str, given: str, known: Iterable[str], also: Iterable[str] = ()) -> SettingsError:
    choices = sorted(known)
    near = difflib.get_close_matches(given, [*choices, *also], n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return SettingsError(
        f"{where}: {given!r} is not {what}.{meant}",
        resolution=f"Use one of: {', '.join(choices)}." if choices else "Remove it: there are none.",
        context={"setting": where},
    )
