# SPDX-License-Identifier: Apache-2.0
"""`BuildResult`: what a build made, what is in it, and what its tests said; and the `Builder` plug-in kind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.model.image import Image
    from coppice.monitor import Monitor


class Outcome(StrEnum):
    """What a test said."""

    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One test of one image's bytes, kept by their digest so that it need not run again.

    Attributes:
        gate: What was tested: ``boot-bios``, ``boot-uefi``.
        image_digest: ``sha512:…`` of the image that was tested.
        outcome: Passed or failed.
        decided_at: When.
        seconds: How long it took.
        facts: What was seen (``cloud-init``: ``done`` …).
    """

    gate: str
    image_digest: str
    outcome: Outcome
    decided_at: datetime
    seconds: float
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One installed package."""

    name: str
    version: str
    architecture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """An image file that a build made."""

    path: Path
    image: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a build's bytes come from.

    Attributes:
        definition_digest: sha256 of the definition's content.
        builder: Name and version of the builder.
        tools: Pairs of (tool, version) that took part.
        started_at: When the build started.
        seconds: How long it took.
    """

    definition_digest: str
    builder: str
    tools: tuple[tuple[str, str], ...]
    started_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """A finished build.

    Attributes:
        definition: What was built.
        key: sha256 of all that decides the content; a second build of the same key is the first one.
        directory: Where the images and ``build.json`` lie.
        images: At least one; in the order of the definition's formats.
        packages: What is installed in them, by name.
        provenance: Where the bytes come from.
        verdicts: What the tests said.
        reused: True when it was found, not made.
    """

    definition: Definition
    key: str
    directory: Path
    images: tuple[BuiltImage, ...]
    packages: tuple[Package, ...]
    provenance: Provenance
    verdicts: tuple[Verdict, ...]
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a site decides about its builds.

    Attributes:
        mirror: Where the bootstrapper fetches packages; None: its own default.
        work_directory: Where a build works; the system's temporary directory when None.
        cache_directory: Where builders keep what later builds can start from; nothing is kept when None.
        timeout_seconds: For the whole build.
    """

    mirror: str | None = None
    work_directory: Path | None = None
    cache_directory: Path | None = None
    timeout_seconds: float = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderOutput:
    """What a builder hands back: images in the directory that it was given, and what is in them."""

    images: tuple[BuiltImage, ...]
    packages: tuple[Package, ...]
    tools: tuple[tuple[str, str], ...]


class Builder(Protocol):
    """A plug-in that makes images from definitions (entry point group ``coppice.builders``)."""

    name: str
    version: str

    def build(self, definition: Definition, into: Path, options: BuildOptions, monitor: Monitor) -> BuilderOutput:
        """Make the images of ``definition`` as files in the empty directory ``into``.

        Raises:
            BuildError: The image could not be made.
            ToolMissingError: A program that the builder needs is not installed.
        """
        ...
