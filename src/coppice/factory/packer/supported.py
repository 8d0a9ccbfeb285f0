# SPDX-License-Identifier: Apache-2.0
"""What a definition may ask of the builder ``packer``: what it does not do is refused, never passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.definition.model import FileSystemKind, ProvisionerKind
from coppice.errors import BuildError, DefinitionError
from coppice.factory.outputs import check_formats
from coppice.factory.packer.guest import chef_attributes, packages_of
from coppice.factory.packer.laid import laid_over
from coppice.factory.packer.options import OpenStackOptions, QemuOptions, read_options
from coppice.factory.packer.systems import Family, installer_of, system_of
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.model import BuildOptions
    from coppice.factory.packer.options import PlatformOptions

_ARCHITECTURE = "x86_64"
_STARTS = ("iso-url", "iso-checksum", "disk", "disk-checksum", "disk-format", "installer", "install-url")
_STARTED_FROM = frozenset({DiskFormat.QCOW2, DiskFormat.RAW})
_MIB = 1024 * 1024


def check_supported(definition: Definition, options: BuildOptions) -> PlatformOptions:
    """Refuse what the builder cannot honour; return what the definition says of its platform.

    Raises:
        BuildError: It asks for something that the builder does not do; what, where and what to do instead.
        DefinitionError: It contradicts itself.
    """
    said = check_rendered(definition)
    check_formats(definition, "packer")
    if isinstance(said, OpenStackOptions):
        raise BuildError(
            f"{definition.name}: what Packer builds in OpenStack stays in that cloud, and cannot be audited here",
            resolution="Build on [platform.qemu]; the image that comes out is registered in clouds by Coppice.",
        )
    _check_readable(definition)
    _check_start(definition, said, options)
    return said


def check_rendered(definition: Definition) -> PlatformOptions:
    """Refuse what could not even be written into a template; return what the definition says of its platform.

    Raises:
        BuildError: It asks for something that the builder does not do.
        DefinitionError: It contradicts itself.
    """
    said = read_options(definition)
    architecture = definition.operating_system.architecture
    for refused, why, key in (
        (definition.start is not None, "starts from what [platform.*] names", "[start]"),
        (
            architecture != _ARCHITECTURE,
            f"builds for {_ARCHITECTURE}, not for {architecture}",
            "operating-system.architecture",
        ),
        (
            definition.file_system is not FileSystemKind.EXT4,
            f"makes no root of {definition.file_system}, only of ext4",
            "build.file-system",
        ),
        (definition.is_encrypted, "makes no encrypted root", "build.encrypted"),
        (definition.boot.secure_boot, "makes no image for secure boot", "boot.secure-boot"),
        (definition.disk_size_bytes % _MIB != 0, "makes disks of whole MiB alone", "build.disk-size"),
    ):
        if refused:
            raise _refused(definition, why, key)
    packages_of(definition, private_mirror=True)
    _check_laid(definition)
    for provisioner in definition.provisioners:
        if provisioner.kind is ProvisionerKind.CHEF:
            _check_chef(definition, provisioner.name)
    if not isinstance(said, OpenStackOptions) and said.has_medium:
        installer_of(definition, said.installer)
    return said


def _check_laid(definition: Definition) -> None:
    laid = laid_over(definition, private_mirror=True)
    passed_over = [file.path for file in definition.files if laid.passes_over(file.path)]
    if passed_over:
        raise DefinitionError(
            f"{definition.name}: the file {passed_over[0]} cannot be laid in: the builder packer writes it itself, or "
            "never keeps it",
            resolution="Say what it is for by access, firewall or contextualisation, or choose another path.",
        )
    services = definition.services
    decided = [unit for unit in (*services.enabled, *services.disabled, *services.masked) if laid.switches(unit)]
    if decided:
        raise DefinitionError(
            f"{definition.name}: whether {decided[0]} starts is not for services to say",
            resolution="Set it by access or by firewall.enabled, and leave it out of services.",
        )


def _check_chef(definition: Definition, name: str) -> None:
    provisioner = next(each for each in definition.provisioners if each.name == name)
    for path in provisioner.files:
        if not path or any(part in {"", ".", ".."} for part in path.split("/")) or "\0" in path:
            raise DefinitionError(f"a path of the provisioner {name} leads elsewhere: {path[:100]!r}")
    if not any(path.startswith("cookbooks/") for path in provisioner.files):
        raise DefinitionError(
            f"the provisioner {name} has no cookbooks",
            resolution="Put them into the folder cookbooks of its source, beside roles, data_bags and environments.",
        )
    if provisioner.interpreter:
        raise _refused(definition, "runs Chef without an interpreter of one's own", "provisioner.interpreter")
    chef_attributes(provisioner, definition)


def _check_readable(definition: Definition) -> None:
    system, version = definition.operating_system, definition.operating_system.version
    family = system_of(definition).family
    is_old = family is Family.RED_HAT and version.partition(".")[0] in {"7", "8"}
    if family is Family.SUSE or is_old:
        raise BuildError(
            f"{definition.name}: what is installed on {system.distribution} {version} cannot be read by the audit: "
            "its record of packages has a form of its own",
            resolution="Build a release whose record is SQLite: RHEL 9 and its kin or later, Fedora.",
        )


def _check_start(definition: Definition, said: PlatformOptions, options: BuildOptions) -> None:
    if isinstance(said, OpenStackOptions):
        return
    has_disk = isinstance(said, QemuOptions) and said.disk is not None
    if definition.parent is not None:
        _check_parent(definition, said, options)
        return
    if not said.has_medium and not has_disk:
        raise BuildError(
            f"{definition.name}: there is nothing that Packer could start from",
            resolution="Give platform.qemu.iso-url with iso-checksum, platform.qemu.disk with disk-checksum, or `from` "
            "with an appliance.",
        )
    if said.has_medium:
        if len(definition.firmware) != 1:
            raise BuildError(
                f"{definition.name}: an installer makes a disk for one firmware, and build.firmware has several",
                resolution='Set it to ["bios"] or to ["uefi"].',
            )
        if definition.snapshot:
            raise _refused(definition, "installs from no snapshot", "build.snapshot")


def _check_parent(definition: Definition, said: PlatformOptions, options: BuildOptions) -> None:
    if not isinstance(said, QemuOptions):
        raise BuildError(
            f"{definition.name}: what is built upon {definition.parent} is built on QEMU",
            resolution="Use [platform.qemu], or leave `from` out and start from a medium.",
        )
    if not options.ancestors:
        raise BuildError(
            f"{definition.name} is built upon {definition.parent}, whose build is not kept",
            resolution=f"Build it first: coppice build {definition.parent} --fresh.",
        )
    parent = options.ancestors[0].definition
    own, had = definition.platforms.get("qemu", {}), parent.platforms.get("qemu", {})
    differing = [key for key in _STARTS if key in own and own[key] != had.get(key)]
    if differing:
        raise BuildError(
            f"{definition.name} is built upon {parent.name}, and platform.qemu.{differing[0]} names another start",
            resolution="Leave one of them out.",
        )
    if parent.suite != definition.suite:
        raise BuildError(
            f"{definition.name} is of {definition.suite}, and {parent.name}, which it is built upon, of {parent.suite}",
            resolution="Build it upon an appliance of its own release.",
        )
    more = [each for each in definition.firmware if each not in parent.firmware]
    if more:
        raise BuildError(
            f"{definition.name} must boot under {more[0]}, and {parent.name}, whose disk it has, does not",
            resolution="Correct build.firmware.",
        )
    if definition.boot != parent.boot and system_of(definition).family is not Family.DEBIAN:
        raise _refused(definition, "changes the boot options of a disk on Debian and Ubuntu alone", "[boot]")
    if options.ancestors[0].images[0].image.virtual_size_bytes > definition.disk_size_bytes:
        raise BuildError(
            f"{definition.name} has a smaller disk than {parent.name}, which it is built upon",
            resolution="Set build.disk-size to its parent's or more.",
        )


def starting_formats() -> frozenset[DiskFormat]:
    """Return the formats of disks that can be started from as they are."""
    return _STARTED_FROM


def _refused(definition: Definition, why: str, key: str) -> BuildError:
    return BuildError(
        f"{definition.name}: the builder packer {why}",
        resolution=f"Leave {key} out of {definition.path}, or use another builder.",
    )
