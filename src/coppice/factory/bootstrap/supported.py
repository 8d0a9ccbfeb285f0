# SPDX-License-Identifier: Apache-2.0
"""What a definition may ask of the bootstrap builder: what it does not do is refused, never passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.definition.model import FileSystemKind
from coppice.errors import BuildError
from coppice.factory.bootstrap.disk import END_RESERVE_BYTES, ROOT_START_BYTES
from coppice.factory.bootstrap.overlay import check_definition
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.outputs import FORMATS

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.model import BuildOptions

_LEAST_ROOT_BYTES = 1024**3
_SECTOR_BYTES = 512
_ARCHITECTURE = "x86_64"


def check_supported(definition: Definition, options: BuildOptions) -> None:
    """Refuse what the bootstrap builder cannot honour.

    Raises:
        BuildError: It asks for something that the builder does not do; what, where and what to do instead.
        DefinitionError: It contradicts itself.
    """
    sources(find_suite(definition.suite), options.mirror, definition.snapshot)
    architecture = definition.operating_system.architecture
    if architecture != _ARCHITECTURE:
        raise _refused(
            definition, f"builds for {_ARCHITECTURE}, not for {architecture}", "operating-system.architecture"
        )
    unknown = [each.value for each in definition.formats if each not in FORMATS]
    if unknown:
        raise BuildError(
            f"{definition.name}: the bootstrap builder does not write {', '.join(unknown)}",
            resolution=f"Set build.formats to some of: {', '.join(FORMATS)}. Subscribers convert to what they need, "
            "and `coppice image convert` does it here.",
        )
    if definition.file_system is not FileSystemKind.EXT4:
        raise _refused(definition, f"makes no root of {definition.file_system}, only of ext4", "build.file-system")
    if definition.is_encrypted:
        raise _refused(definition, "makes no encrypted root", "build.encrypted")
    if definition.platforms:
        named = ", ".join(sorted(definition.platforms))
        raise _refused(definition, f"has no use for options of hypervisors ({named})", "[platform.*]")
    _check_size(definition)
    _check_parent(definition, options)
    check_definition(definition)


def _check_size(definition: Definition) -> None:
    least = ROOT_START_BYTES + _LEAST_ROOT_BYTES + END_RESERVE_BYTES
    if definition.disk_size_bytes < least or definition.disk_size_bytes % _SECTOR_BYTES:
        raise BuildError(
            f"{definition.name}: a disk of {definition.disk_size_bytes} bytes is too small, or no whole sectors",
            resolution="Set build.disk-size to 2 GiB or more.",
        )


def _check_parent(definition: Definition, options: BuildOptions) -> None:
    if definition.parent is None:
        return
    if not options.ancestors or options.ancestors[0].tree is None:
        raise BuildError(
            f"{definition.name} is built upon {definition.parent}, which has no tree that is kept",
            resolution=f"Build it first: coppice build {definition.parent} --fresh.",
        )
    parent = options.ancestors[0].definition
    if parent.suite != definition.suite:
        raise BuildError(
            f"{definition.name} is of {definition.suite}, and {parent.name}, which it is built upon, of {parent.suite}",
            resolution="Build it upon an appliance of its own release.",
        )


def _refused(definition: Definition, why: str, key: str) -> BuildError:
    return BuildError(
        f"{definition.name}: the bootstrap builder {why}",
        resolution=f"Leave {key} out of {definition.path}, or use another builder.",
    )
