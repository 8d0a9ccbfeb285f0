# SPDX-License-Identifier: Apache-2.0
"""What a definition may ask of the image builder: what it does not do is refused, never passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.definition.model import Boot, FileSystemKind
from coppice.errors import BuildError
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.image_start.overlay import check_overlay
from coppice.factory.image_start.taking import check_start
from coppice.factory.outputs import check_formats
from coppice.factory.provision.plan import make_plan

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.model import BuildOptions

_ARCHITECTURE = "x86_64"


def check_supported(definition: Definition, options: BuildOptions) -> None:
    """Refuse what the image builder cannot honour.

    Raises:
        BuildError: It asks for something that the builder does not do; what, where and what to do instead.
        DefinitionError: It contradicts itself.
    """
    check_formats(definition, "image")
    sources(find_suite(definition.suite), options.mirror, definition.snapshot)
    architecture = definition.operating_system.architecture
    if architecture != _ARCHITECTURE:
        raise refused(definition, "image", f"works on {_ARCHITECTURE}, not on {architecture}", "its architecture")
    if definition.boot != Boot():
        raise refused(definition, "image", "leaves the boot loader as the image has it", "[boot]")
    check_disk(definition, "image")
    check_start(definition, options, "image")
    parent = options.ancestors[0].definition if options.ancestors else None
    if parent is not None and parent.suite != definition.suite:
        raise BuildError(
            f"{definition.name} is of {definition.suite}, and {parent.name}, which it is built upon, of {parent.suite}",
            resolution="Build it upon an appliance of its own release.",
        )
    check_overlay(definition, parent)
    make_plan(definition, parent)


def check_disk(definition: Definition, builder: str) -> None:
    """Refuse what a finished disk cannot be made into.

    Raises:
        BuildError: It is asked for.
    """
    if definition.file_system is not FileSystemKind.EXT4:
        raise refused(definition, builder, f"reads no root of {definition.file_system}, only ext4", "build.file-system")
    if definition.is_encrypted:
        raise refused(definition, builder, "makes no encrypted root", "build.encrypted")
    if definition.platforms:
        named = ", ".join(sorted(definition.platforms))
        raise refused(definition, builder, f"has no use for options of hypervisors ({named})", "[platform.*]")


def refused(definition: Definition, builder: str, why: str, key: str) -> BuildError:
    """Return the error for what a builder does not do."""
    return BuildError(
        f"{definition.name}: the builder {builder} {why}",
        resolution=f"Leave {key} out of {definition.path}, or use another builder.",
    )
