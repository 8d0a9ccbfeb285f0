# SPDX-License-Identifier: Apache-2.0
"""Build a definition a second time, elsewhere and from nothing but its parent, and hold it against the first build."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.factory.bootstrap.layers import DISK
from coppice.factory.bootstrap.listing import read_listing
from coppice.factory.builders import load_builder
from coppice.factory.caged import cage_required
from coppice.factory.workplace import workplace

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.factory.bootstrap.listing import Listing
    from coppice.factory.model import BuildOptions, BuildResult
    from coppice.monitor import Monitor

MOST_DIFFERING = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a second build was, held against the first.

    Attributes:
        digests: Of each image, ``sha512:…`` of the first build and of the second, by the file's name.
        differing: Paths in the appliance that are not the same in both, at most `MOST_DIFFERING`.
        count: How many they are.
        is_compared: Whether the files could be compared; where not, ``differing`` is empty.
    """

    digests: dict[str, tuple[str, str]]
    differing: tuple[str, ...]
    count: int
    is_compared: bool

    @property
    def is_identical(self) -> bool:
        """Whether every image has the same bytes."""
        return all(first == second for first, second in self.digests.values())


def verify_build(result: BuildResult, *, options: BuildOptions, monitor: Monitor) -> Verification:
    """Build what ``result`` is a build of a second time, and compare.

    Nothing that an earlier build left is used but its parent's build and packages as they were fetched; what is built
    is removed again.

    Args:
        result: The first build.
        options: What the site decides; the ancestors are those that the first build had.
        monitor: Where progress is told.

    Raises:
        BuildError: The second build failed.
        CageError: A full cage is required and cannot be had, or one could not be set up.
        NotFoundError: There is no such builder.
        ToolMissingError: A program that the builder needs is not installed.
        NoSpaceError: The disk is full.
        StorageError: The disk failed otherwise.
    """
    builder = load_builder(result.definition.builder)
    with cage_required(is_required=options.require_cage), workplace(options.work_directory) as work:
        into, caches = work / "build", work / "caches"
        for directory in (into, caches):
            directory.mkdir()
        if options.cache_directory is not None:
            # Packages are known by their digests, which signed indices give: they need not be fetched again.
            packages = options.cache_directory / "packages"
            packages.mkdir(parents=True, exist_ok=True)
            (caches / "packages").symlink_to(packages.resolve())
        second = builder.build(
            result.definition, into, replace(options, work_directory=work, cache_directory=caches), monitor
        )
        digests = {
            first.path.name: (str(first.image.checksum), str(other.image.checksum))
            for first, other in zip(result.images, second.images, strict=True)
        }
        listings = [_listing(tree) for tree in (result.tree, second.tree)]
        paths = [] if None in listings else _differing(*(each or {} for each in listings))
    return Verification(
        digests=digests,
        differing=tuple(paths[:MOST_DIFFERING]),
        count=len(paths),
        is_compared=None not in listings,
    )


def _listing(tree: Path | None) -> Listing | None:
    if tree is None or not (tree / DISK).exists():
        return None
    return read_listing(tree / DISK)


def _differing(first: Listing, second: Listing) -> list[str]:
    return sorted(
        path
        for path in first.keys() | second.keys()
        if path not in first or path not in second or not first[path].same(second[path])
    )
