# SPDX-License-Identifier: Apache-2.0
"""Build an appliance that was built a second time, and see that the same bytes come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.factory.build import load_build_result
from coppice.factory.verification import verify_build
from coppice.workflows.build import build_options, factory_root, find_build

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.verification import Verification
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.build import Find


def verify_appliance(definition: Definition, *, settings: Settings, monitor: Monitor, find: Find) -> Verification:
    """Build ``definition``, of which there is a build, a second time upon the same parents, and compare.

    Raises:
        BuildError: Other bytes came out; the details name the files that differ. Or it could not be built again.
        NotFoundError: It, or a parent, was not built, or not since it was changed.
        ToolMissingError: A program is not installed.
    """
    first = find_build(definition, settings=settings, find=find)
    builds = factory_root(settings) / "builds"
    ancestors = tuple(load_build_result(builds / each.key) for each in first.provenance.lineage)
    found = verify_build(first, options=build_options(settings, ancestors), monitor=monitor)
    if not found.is_identical:
        raise _differs(definition, found)
    return found


def _differs(definition: Definition, found: Verification) -> BuildError:
    images = [name for name, (first, second) in found.digests.items() if first != second]
    if not found.is_compared:
        said = "which files differ cannot be told of this builder"
    elif found.count:
        said = f"{found.count} files differ"
    else:
        said = "every file is the same, at another place of the disk"
    details = [*found.differing, *(["…"] if found.count > len(found.differing) else [])]
    return BuildError(
        f"a second build of {definition.name} gave other bytes ({', '.join(images)}): {said}",
        details="\n".join(details) or None,
        resolution="Packages that came out since the first build differ: build anew with --fresh, then verify. What a "
        "provisioner writes must not depend on the time or on chance.",
        context={"differing": list(found.differing), "count": found.count},
    )
