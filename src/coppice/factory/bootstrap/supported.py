# SPDX-License-Identifier: Apache-2.0
"""What a definition may ask of the bootstrap builder: what it does not do is refused, never passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.definition.model import FileSystemKind
from coppice.errors import BuildError
from coppice.factory.bootstrap.disk import END_RESERVE_BYTES, ROOT_START_BYTES
from coppice.factory.bootstrap.overlay import check_definition
from coppice.factory.bootstrap.suites import Family, find_suite, sources
from coppice.factory.outputs import check_formats
from coppice.model.operating_system import Firmware

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.suites import Suite
    from coppice.factory.model import BuildOptions

_LEAST_ROOT_BYTES = 1024**3
_SECTOR_BYTES = 512


def check_supported(definition: Definition, options: BuildOptions) -> None:
    """Refuse what the bootstrap builder cannot honour.

    Raises:
        BuildError: It asks for something that the builder does not do; what, where and what to do instead.
        DefinitionError: It contradicts itself.
    """
    suite = find_suite(definition.suite, definition.operating_system.architecture)
    sources(suite, options.mirror, definition.snapshot)
    _check_boot(definition, suite)
    check_formats(definition, "bootstrap")
    if definition.file_system is FileSystemKind.XFS:
        raise _no_xfs(definition)
    if definition.is_encrypted:
        # A key that an image brings, or that a machine makes and keeps, lies beside what it locks.
        raise BuildError(
            f"{definition.name}: the bootstrap builder makes no encrypted root: nobody is there to open it at boot",
            resolution=f"Leave build.encrypted out of {definition.path}, and have the cloud encrypt the volumes of its "
            "machines.",
        )
    if definition.start is not None:
        raise _refused(definition, "starts from packages, from no finished image", "[start]")
    if definition.platforms:
        named = ", ".join(sorted(definition.platforms))
        raise _refused(definition, f"has no use for options of hypervisors ({named})", "[platform.*]")
    check_size(definition)
    check_parent(definition, options)
    _check_snapshot(definition, options)
    check_definition(definition)


def _check_snapshot(definition: Definition, options: BuildOptions) -> None:
    parent = options.ancestors[0].definition if definition.parent is not None else definition
    if parent.snapshot != definition.snapshot:
        # Its packages would come from where the sources in its parent's tree say.
        raise BuildError(
            f"{definition.name} is of {definition.snapshot or 'no snapshot'}, and {parent.name}, which it is built "
            f"upon, of {parent.snapshot or 'none'}",
            resolution="Set build.snapshot in the parent alone.",
        )


def _check_boot(definition: Definition, suite: Suite) -> None:
    processor = suite.processor
    if Firmware.BIOS in definition.firmware and not processor.has_bios:
        raise BuildError(
            f"{definition.name}: machines with {processor.architecture} do not start by BIOS",
            resolution='Set build.firmware to ["uefi"].',
        )
    if not definition.boot.secure_boot:
        return
    if processor.signed_loader is None or suite.family is not Family.DEBIAN:
        raise BuildError(
            f"{definition.name}: the bootstrap builder makes images for secure boot of Debian for x86_64 alone",
            resolution="Leave boot.secure-boot out, or set it to false.",
        )
    if Firmware.UEFI not in definition.firmware:
        raise BuildError(
            f"{definition.name}: secure boot is UEFI's, and build.firmware does not have it",
            resolution='Add "uefi" to build.firmware, or leave boot.secure-boot out.',
        )


def _no_xfs(definition: Definition) -> BuildError:
    # Of what mkfs.xfs writes without mounting anything, hard links, times and capabilities of files are not a part.
    return BuildError(
        f"{definition.name}: the bootstrap builder makes no root of xfs: mkfs.xfs would lose hard links, times and "
        "capabilities of its files",
        resolution=f"Set build.file-system to ext4 or btrfs in {definition.path}.",
    )


def check_size(definition: Definition) -> None:
    """Refuse a disk that is too small for its partitions.

    Raises:
        BuildError: It is.
    """
    least = ROOT_START_BYTES + _LEAST_ROOT_BYTES + END_RESERVE_BYTES
    if definition.disk_size_bytes < least or definition.disk_size_bytes % _SECTOR_BYTES:
        raise BuildError(
            f"{definition.name}: a disk of {definition.disk_size_bytes} bytes is too small, or no whole sectors",
            resolution="Set build.disk-size to 2 GiB or more.",
        )


def check_parent(definition: Definition, options: BuildOptions) -> None:
    """Refuse a parent that has no tree, or is of another release.

    Raises:
        BuildError: It has none, or is.
    """
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
    if parent.operating_system.architecture != definition.operating_system.architecture:
        raise BuildError(
            f"{definition.name} is for {definition.operating_system.architecture}, and {parent.name}, which it is "
            f"built upon, for {parent.operating_system.architecture}",
            resolution="Build it upon an appliance for its own processors.",
        )


def _refused(definition: Definition, why: str, key: str) -> BuildError:
    return BuildError(
        f"{definition.name}: the bootstrap builder {why}",
        resolution=f"Leave {key} out of {definition.path}, or use another builder.",
    )
