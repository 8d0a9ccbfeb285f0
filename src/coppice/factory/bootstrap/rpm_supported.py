# SPDX-License-Identifier: Apache-2.0
"""What a definition of the RPM family may ask of the bootstrap builder: what it does not do is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.definition.model import FileSystemKind, ProvisionerKind
from coppice.errors import BuildError
from coppice.factory.bootstrap.rpm_overlay import check_rpm_definition
from coppice.factory.bootstrap.rpm_releases import find_release
from coppice.factory.bootstrap.rpm_repositories import repositories
from coppice.factory.bootstrap.supported import check_parent, check_size
from coppice.factory.outputs import check_formats

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.model import BuildOptions


def check_rpm_supported(definition: Definition, options: BuildOptions) -> None:
    """Refuse what the bootstrap builder cannot honour for the RPM family.

    Raises:
        BuildError: It asks for something that the builder does not do; what, where and what to do instead.
        DefinitionError: It contradicts itself.
    """
    release = find_release(definition.suite)
    repositories(release, options.mirror, definition.snapshot)
    if definition.operating_system.architecture != release.processor.architecture:
        raise _refused(
            definition, f"builds for {release.processor.architecture} alone", "operating-system.architecture"
        )
    check_formats(definition, "bootstrap")
    if definition.file_system is not FileSystemKind.EXT4:
        raise _refused(definition, f"makes no root of {definition.file_system}, only of ext4", "build.file-system")
    if definition.is_encrypted:
        raise _refused(definition, "makes no encrypted root", "build.encrypted")
    if definition.boot.secure_boot:
        raise _refused(definition, "makes no image for secure boot", "boot.secure-boot")
    if definition.start is not None:
        raise _refused(definition, "starts from packages, from no finished image,", "[start]")
    if definition.platforms:
        raise _refused(definition, "has no use for options of hypervisors", "[platform.*]")
    if any(each.kind is ProvisionerKind.PUPPET for each in definition.provisioners):
        raise _refused(
            definition, "runs no Puppet, which these distributions do not package,", "[[provisioner]] puppet"
        )
    check_size(definition)
    check_parent(definition, options)
    check_rpm_definition(definition)


def _refused(definition: Definition, why: str, key: str) -> BuildError:
    return BuildError(
        f"{definition.name}: the bootstrap builder {why} for the RPM family",
        resolution=f"Leave {key} out of {definition.path}, or use another builder.",
    )
