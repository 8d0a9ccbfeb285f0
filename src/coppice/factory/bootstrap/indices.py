# SPDX-License-Identifier: Apache-2.0
"""The repositories' signed indices that went into a tree, by digest. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.factory.model import BuildInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.factory.bootstrap.tree import Made
    from coppice.factory.model import BuildOptions


def index_inputs(sources: Iterable[str], made: Iterable[Made], options: BuildOptions) -> tuple[BuildInput, ...]:
    """Return one input for each of ``sources`` (lines of ``sources.list``) of which an index was read."""
    found: dict[str, BuildInput] = {}
    digests = [pair for each in made for pair in each.indices.items()]
    for line in sources:
        address, suite = line.split("] ")[-1].removeprefix("deb ").split()[:2]
        for name, digest in digests:
            if f"_dists_{suite}_" in name:
                # The address of a site's own mirror is nobody else's affair.
                uri = "" if options.mirror is not None else f"{address}/dists/{suite}/InRelease"
                found[suite] = BuildInput(name=f"index {suite}", uri=uri, digest=f"sha256:{digest}")
    return tuple(found.values())
