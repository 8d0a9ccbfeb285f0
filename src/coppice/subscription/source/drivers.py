# SPDX-License-Identifier: Apache-2.0
"""The sources there are: Coppice's own in a table, others by the entry point group ``coppice.sources``.

An entry point names a `SourceDriver`: usually a class that takes `SourceSupplies` and keeps to `Source`, with a static
method ``check_options``.
"""

from __future__ import annotations

import difflib
import importlib
import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from coppice.errors import InputError
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.subscription.anchors import AnchorShelf
from coppice.subscription.source.protocol import SourceSupplies

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.formats.limits import ListLimits
    from coppice.subscription.model import SourceReference
    from coppice.subscription.source.protocol import Source, SourceDriver

GROUP = "coppice.sources"
HEPIX = "hepix"
"""Image lists that an endorser signed: the only source that has trust anchors and endorsers."""


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    """A driver of Coppice's own.

    Attributes:
        module: Where it is.
        name: What it is there.
        schemes: Of the addresses that it understands.
        address: Pattern of all of them, where the scheme does not say enough.
    """

    module: str
    name: str
    schemes: frozenset[str]
    address: str = r".+"


_FILES = frozenset({"https", "http", "file"})
_NAMED_LIST = r"catalogue:[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_FOLDER = r"file://(?:localhost)?/[^?#]*"
BUILT_IN: dict[str, _BuiltIn] = {
    "hepix": _BuiltIn("coppice.subscription.source.hepix", "HepixSource", _FILES | {"oci", "oci+http"}),
    "catalogue": _BuiltIn(
        "coppice.subscription.source.catalogue", "CatalogueSource", frozenset({"catalogue"}), _NAMED_LIST
    ),
    "descriptors": _BuiltIn(
        "coppice.subscription.source.descriptors", "DescriptorsSource", frozenset({"file"}), _FOLDER
    ),
    "oci": _BuiltIn("coppice.subscription.source.oci", "OciSource", frozenset({"oci", "oci+http"})),
    "simplestreams": _BuiltIn("coppice.subscription.source.simplestreams", "SimplestreamsSource", _FILES),
    "files": _BuiltIn("coppice.subscription.source.files", "FilesSource", _FILES),
}


class SourceShelf:
    """The sources of one run, each made when it is first asked for."""

    def __init__(self, supplies: SourceSupplies) -> None:
        """Begin with none made."""
        self.supplies = supplies
        self._made: dict[str, Source] = {}

    def open(self, reference: SourceReference) -> Source:
        """Return the source of that driver.

        Raises:
            InputError: There is no such driver, or it cannot be loaded.
        """
        found = self._made.get(reference.driver)
        if found is None:
            found = self._made.setdefault(reference.driver, load_driver(reference.driver)(self.supplies))
        return found


def judging_shelf(clock: Clock, limits: ListLimits = DEFAULT_LIMITS) -> SourceShelf:
    """Return the sources of a run that judges what is kept, and fetches nothing."""
    return SourceShelf(SourceSupplies(client=None, clock=clock, limits=limits, anchors=AnchorShelf()))


def load_driver(driver: str) -> SourceDriver:
    """Return what makes sources of that kind.

    Raises:
        InputError: There is no such driver, or it cannot be loaded.
    """
    built_in = BUILT_IN.get(driver)
    try:
        if built_in is not None:
            return cast("SourceDriver", getattr(importlib.import_module(built_in.module), built_in.name))
        foreign = {point.name: point for point in entry_points(group=GROUP)}
        if driver in foreign:
            return cast("SourceDriver", foreign[driver].load())
    except (ImportError, AttributeError) as problem:
        raise InputError(f"the source driver {driver[:80]!r} cannot be loaded: {problem}") from problem
    known = sorted({*BUILT_IN, *foreign})
    near = difflib.get_close_matches(driver, known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"there is no source driver {driver[:80]!r}.{meant}",
        details=f"there are: {', '.join(known)}",
        resolution="Name one of them with --source, or install the package that brings it.",
    )


def understands(driver: str, uri: str) -> bool:
    """Tell whether a driver can be asked for an address; one of another's says so itself."""
    built_in = BUILT_IN.get(driver)
    if built_in is None:
        return True
    return uri.partition(":")[0].lower() in built_in.schemes and re.fullmatch(built_in.address, uri) is not None


def schemes_of(driver: str) -> frozenset[str] | None:
    """Return the schemes of the addresses that a driver understands; None: it is another's, and says so itself."""
    built_in = BUILT_IN.get(driver)
    return None if built_in is None else built_in.schemes
