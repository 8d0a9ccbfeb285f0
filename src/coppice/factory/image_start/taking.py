# SPDX-License-Identifier: Apache-2.0
"""What a build starts from: the image that its definition names, or that of its parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.factory.files import sha512_of
from coppice.factory.model import BuildInput, StartDisk
from coppice.factory.outputs import read_disk

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.factory.model import BuildOptions, BuildResult
    from coppice.monitor import Monitor

_READ_SECONDS = 1800.0


def check_start(definition: Definition, options: BuildOptions, builder: str) -> None:
    """Refuse a definition that names nothing to start from, or two things.

    Raises:
        BuildError: It does.
    """
    parent = options.ancestors[0].definition if options.ancestors else None
    if definition.parent is not None and parent is None:
        raise BuildError(
            f"{definition.name} is built upon {definition.parent}, of which there is no build",
            resolution=f"Build it first: coppice build {definition.parent}.",
        )
    if parent is None and definition.start is None:
        raise BuildError(
            f"{definition.name}: the builder {builder} starts from a finished image, and none is named",
            resolution=f"Name one by [start] in {definition.path}, or what it is built upon by from.",
        )
    if parent is not None and definition.start not in {None, parent.start}:
        raise BuildError(
            f"{definition.name} is built upon {parent.name}, and names an image of its own to start from",
            resolution="Leave out [start]: it starts from its parent's image. Or leave out from.",
        )
    if parent is None and options.starts is None:
        raise BuildError(
            f"{definition.name} starts from a finished image, and nothing here can get one",
            resolution="Build it by coppice build.",
        )


def take_start(definition: Definition, options: BuildOptions, work: Path, monitor: Monitor) -> StartDisk:
    """Return the disk that ``definition`` starts from, laid into ``work``.

    Raises:
        BuildError: The parent's image is not what it was, or cannot be read.
        CoppiceError: What the definition names cannot be had, or was refused; the class says why.
    """
    if options.ancestors:
        return _of_parent(options.ancestors[0], work)
    assert definition.start is not None  # noqa: S101 - looked at before anything was done
    assert options.starts is not None  # noqa: S101 - likewise
    return options.starts.take(definition.start, work, monitor)


def start_input(start: StartDisk) -> BuildInput:
    """Return what is said of the start in the build's provenance."""
    return BuildInput(name=f"image {start.name}", uri=start.uri, digest=str(start.checksum))


def _of_parent(parent: BuildResult, work: Path) -> StartDisk:
    image = parent.images[0]
    if not sha512_of(image.path).matches(image.image.checksum):
        raise BuildError(
            f"the parent's image {image.path} is not what it was when it was built",
            resolution=f"Build it anew: coppice build {parent.definition.name} --fresh.",
        )
    raw = work / "start.raw"
    read_disk(image, raw, timeout_seconds=_READ_SECONDS)
    return StartDisk(
        raw=raw,
        name=parent.definition.name,
        uri="",
        checksum=image.image.checksum,
        format=image.image.format,
        original=image.path,
    )
