# SPDX-License-Identifier: Apache-2.0
"""The builders: built-in ones by a literal table, others by the entry point group ``coppice.builders``."""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

from coppice.errors import NotFoundError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.factory.model import Builder

ENTRY_POINT_GROUP = "coppice.builders"

BUILT_IN: dict[str, str] = {
    "bootstrap": "coppice.factory.bootstrap.builder:BootstrapBuilder",
    "image": "coppice.factory.image_start.builder:ImageBuilder",
    "prebuilt": "coppice.factory.prebuilt.builder:PrebuiltBuilder",
    "packer": "coppice.factory.packer.builder:PackerBuilder",
}
"""Name to ``module:class``; imported only when it is used."""


def builder_names() -> tuple[str, ...]:
    """Return the names of all builders, built-in and installed."""
    return tuple(sorted({*BUILT_IN, *(point.name for point in _installed())}))


def builder_needs(builder: Builder) -> frozenset[str]:
    """Return what a machine must have for ``builder`` (``root``, ``kvm``); most say nothing, and need neither."""
    return frozenset(getattr(builder, "needs", ()))


def load_builder(name: str) -> Builder:
    """Return the builder ``name``.

    Raises:
        NotFoundError: There is none of that name; the resolution names the nearest.
        SettingsError: It is a third party's and cannot be loaded, or takes a built-in name.
    """
    installed = [point for point in _installed() if point.name == name]
    if name in BUILT_IN:
        if installed:
            raise SettingsError(
                f"an installed plug-in claims the name of the built-in builder {name!r}: {installed[0].value}",
                resolution="Uninstall the plug-in, or rename its entry point.",
            )
        module, _, attribute = BUILT_IN[name].partition(":")
        return cast("Builder", getattr(import_module(module), attribute)())
    if not installed:
        known = builder_names()
        near = difflib.get_close_matches(name, known, n=1)
        raise NotFoundError(
            f"no builder named {name[:80]!r}",
            resolution=f"Did you mean {near[0]!r}?" if near else f"Known builders: {', '.join(known)}.",
            context={"name": name[:80], "known": list(known)},
        )
    return _load(installed[0])


def _load(point: EntryPoint) -> Builder:
    try:
        return cast("Builder", point.load()())
    except (ImportError, AttributeError, TypeError) as problem:
        raise SettingsError(
            f"the plug-in for the builder {point.name!r} cannot be loaded: {point.value}",
            details=f"{type(problem).__name__}: {problem}",
            resolution="Install what it needs, or uninstall it.",
        ) from problem


def _installed() -> Iterable[EntryPoint]:
    return entry_points(group=ENTRY_POINT_GROUP)
