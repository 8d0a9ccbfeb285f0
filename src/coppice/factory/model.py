# SPDX-License-Identifier: Apache-2.0
"""`BuildResult`: what a build made, what is in it, and what its tests said; and the `Builder` plug-in kind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.definition.model import Definition, Start
    from coppice.model.checksum import Checksum
    from coppice.model.image import DiskFormat, Image
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
    """One installed package.

    Attributes:
        name: Its name.
        version: Its version, as its manager writes it.
        architecture: Its architecture, likewise.
        source: Name of the source package that it was built from; empty: its own.
        source_version: Of that one; empty: its own.
        manager: ``deb`` or ``rpm``.
        licence: As its manager knows it (RPM does); empty: it does not.
    """

    name: str
    version: str
    architecture: str
    source: str = ""
    source_version: str = ""
    manager: str = "deb"
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """An image file that a build made."""

    path: Path
    image: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInput:
    """Something that went into a build, known by its digest.

    Attributes:
        name: What it is (``index bookworm-security/main``, ``parent debian-12``, ``module apache``).
        uri: Where it came from; empty: from this machine.
        digest: ``algorithm:hex`` of its bytes.
    """

    name: str
    uri: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """A build that another was built upon.

    Attributes:
        definition: Its definition's name.
        key: Its build's.
        image_digest: ``sha512:…`` of its first image, which is what a list names it by.
    """

    definition: str
    key: str
    image_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a build's bytes come from.

    Attributes:
        definition_digest: sha256 of the definition's content.
        builder: Name and version of the builder.
        tools: Pairs of (tool, version) that took part.
        started_at: When the build started.
        seconds: How long it took.
        definition_source: Address and commit that the definition came from; empty: a folder of this machine.
        inputs: What went in, by digest.
        lineage: What it was built upon: its parent first, then the parent's parent.
    """

    definition_digest: str
    builder: str
    tools: tuple[tuple[str, str], ...]
    started_at: datetime
    seconds: float
    definition_source: str = ""
    inputs: tuple[BuildInput, ...] = ()
    lineage: tuple[Ancestor, ...] = ()


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
        tree: The built tree, in its builder's own form, on which children are built; None: there is none.
    """

    definition: Definition
    key: str
    directory: Path
    images: tuple[BuiltImage, ...]
    packages: tuple[Package, ...]
    provenance: Provenance
    verdicts: tuple[Verdict, ...]
    reused: bool
    tree: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDisk:
    """The disk that a build starts from, after its bytes were vouched for and looked at.

    Attributes:
        raw: The disk, raw, in the directory of the build, which may change it.
        name: The published file's name.
        uri: Where it came from; empty: from this machine.
        checksum: Of the published file.
        format: Of the disk in it.
        original: The published file itself, which nobody writes into; None: it is no bare disk that a cloud could take
            as it is.
    """

    raw: Path
    name: str
    uri: str
    checksum: Checksum
    format: DiskFormat
    original: Path | None


class StartSource(Protocol):
    """Gives the images that builds start from; the factory neither fetches nor opens what others made."""

    def identity(self, start: Start) -> str:
        """Return what the definition does not say of the bytes and is known before they are had; may be empty.

        Raises:
            NotFoundError: There is no such appliance, or no such version of it.
        """
        ...

    def take(self, start: Start, into: Path, monitor: Monitor) -> StartDisk:
        """Return the disk of ``start``, laid into the directory ``into``.

        Raises:
            BuildError: It cannot be had, or other bytes came than what vouches for them says.
            CoppiceError: It was refused otherwise; the class says why.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a site decides about its builds.

    Attributes:
        mirror: Where the bootstrapper fetches packages; None: its own default.
        work_directory: Where a build works; the system's temporary directory when None.
        cache_directory: Where builders keep what later builds can start from; nothing is kept when None.
        timeout_seconds: For the whole build.
        keyring: Keys that sign what the mirror has; None: the distribution's.
        ancestors: The builds that the definition's parents have, the nearest first; each with its tree.
        starts: Where the images come from that builds start from; None: nothing can be started from one.
        disk_directory: An empty directory where a builder may leave the disk that it wrote the images from; None: there
            is none.
        require_cage: Whether programs that read disks run only where they can be shut in fully.
    """

    mirror: str | None = None
    work_directory: Path | None = None
    cache_directory: Path | None = None
    timeout_seconds: float = 3600
    keyring: Path | None = None
    ancestors: tuple[BuildResult, ...] = ()
    starts: StartSource | None = None
    disk_directory: Path | None = None
    require_cage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderOutput:
    """What a builder hands back: images in the directory that it was given, and what is in them.

    Attributes:
        images: In the order of the definition's formats.
        packages: What is installed in them, by name.
        tools: Pairs of (tool, version) that took part.
        inputs: What went in, by digest.
        tree: The built tree (a file or directory in that directory, in the builder's own form), on which children are
            built; None: there is none.
        log: Of the build, in that directory; None: there is none.
        disk: The disk, raw, in the directory that the options name for it, where the builder has read back that the
            first image has just this content; None: whoever wants to look into the image reads it.
    """

    images: tuple[BuiltImage, ...]
    packages: tuple[Package, ...]
    tools: tuple[tuple[str, str], ...]
    inputs: tuple[BuildInput, ...] = ()
    tree: Path | None = None
    log: Path | None = None
    disk: Path | None = None


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
