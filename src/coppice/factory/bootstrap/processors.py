# SPDX-License-Identifier: Apache-2.0
"""What depends on the processor that an appliance is for: a literal table."""

from __future__ import annotations

from dataclasses import dataclass

from coppice.errors import BuildError
from coppice.model.operating_system import Architecture

BIOS_CORE = "/boot/grub/i386-pc/core.img"
BIOS_BOOT = "/usr/lib/grub/i386-pc/boot.img"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLoader:
    """Debian's programs for secure boot: the first is signed by a key that firmware knows, and knows Debian's itself.

    Attributes:
        packages: That have them.
        vendor: The folder where GRUB looks for its menu on the partition that it was started from.
        first: Path of what the firmware starts.
        loads: Paths of what that one starts, by the names that it looks for.
    """

    packages: tuple[str, ...]
    vendor: str
    first: str
    loads: dict[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of all of them."""
        return (self.first, *self.loads.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A kind of processors.

    Attributes:
        architecture: As the kernel calls it.
        name: As Debian's archive calls it.
        cloud_kernel: Debian's package with the kernel for machines of clouds.
        loader_packages: Packages with GRUB's modules.
        efi_platform: What GRUB calls UEFI on it.
        efi_program: What its firmware starts from a disk without being told.
        has_bios: Whether machines with it may start by BIOS.
        serial_port: What Linux calls the first serial port of a virtual machine with it.
        signed_loader: For secure boot; None: there is none.
    """

    architecture: Architecture
    name: str
    cloud_kernel: str
    loader_packages: tuple[str, ...]
    efi_platform: str
    efi_program: str
    has_bios: bool
    serial_port: str
    signed_loader: SignedLoader | None = None

    @property
    def efi_core(self) -> str:
        """Where GRUB's image for UEFI lies in a tree."""
        return f"/boot/grub/{self.efi_platform}/core.efi"

    @property
    def boot_files(self) -> tuple[str, ...]:
        """What of a tree is written beside its root file system, so that it starts."""
        return (BIOS_BOOT, BIOS_CORE, self.efi_core) if self.has_bios else (self.efi_core,)


_PROCESSORS = {
    each.architecture.value: each
    for each in (
        Processor(
            architecture=Architecture.X86_64,
            name="amd64",
            cloud_kernel="linux-image-cloud-amd64",
            loader_packages=("grub-efi-amd64-bin", "grub-pc-bin"),
            efi_platform="x86_64-efi",
            efi_program="BOOTX64.EFI",
            has_bios=True,
            serial_port="ttyS0",
            signed_loader=SignedLoader(
                packages=("grub-efi-amd64-signed", "shim-signed"),
                vendor="debian",
                first="/usr/lib/shim/shimx64.efi.signed",
                loads={
                    "grubx64.efi": "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
                    "mmx64.efi": "/usr/lib/shim/mmx64.efi.signed",
                },
            ),
        ),
        Processor(
            architecture=Architecture.AARCH64,
            name="arm64",
            cloud_kernel="linux-image-cloud-arm64",
            loader_packages=("grub-efi-arm64-bin",),
            efi_platform="arm64-efi",
            efi_program="BOOTAA64.EFI",
            has_bios=False,
            serial_port="ttyAMA0",
        ),
    )
}
X86_64 = _PROCESSORS[Architecture.X86_64.value]


def find_processor(architecture: str) -> Processor:
    """Return the kind of processors that ``architecture`` names.

    Raises:
        BuildError: The builder does not know it.
    """
    found = _PROCESSORS.get(architecture)
    if found is None:
        raise BuildError(
            f"the bootstrap builder does not build for {architecture[:40]!r}",
            resolution=f"Set operating-system.architecture to one of: {', '.join(sorted(_PROCESSORS))}.",
        )
    return found
