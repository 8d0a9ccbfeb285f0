# SPDX-License-Identifier: Apache-2.0
"""The UEFI firmware of virtual machines: where this machine has it, and a copy for one boot test."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from coppice.atomic import storage_errors
from coppice.errors import ToolMissingError
from coppice.factory.machine import UefiFirmware
from coppice.model.operating_system import Architecture

_PAIRS = {
    Architecture.X86_64: (("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd")),
    Architecture.AARCH64: (("AAVMF_CODE.fd", "AAVMF_VARS.fd"), ("QEMU_EFI-pflash.raw", "vars-template-pflash.raw")),
}
# Their variables hold the keys that distributions' loaders are signed by.
_SECURE_PAIRS = {
    Architecture.X86_64: (
        ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
        ("OVMF_CODE.secboot.fd", "OVMF_VARS.ms.fd"),
        ("OVMF_CODE.secboot.fd", "OVMF_VARS.secboot.fd"),
    ),
    Architecture.AARCH64: (("AAVMF_CODE.ms.fd", "AAVMF_VARS.ms.fd"),),
}
_FOLDERS = {
    Architecture.X86_64: (Path("/usr/share/OVMF"), Path("/usr/share/edk2/ovmf")),
    Architecture.AARCH64: (Path("/usr/share/AAVMF"), Path("/usr/share/edk2/aarch64")),
}
_PACKAGES = {Architecture.X86_64: "ovmf", Architecture.AARCH64: "qemu-efi-aarch64"}


def find_uefi(
    folders: tuple[Path, ...] | None = None,
    *,
    architecture: Architecture = Architecture.X86_64,
    is_secure: bool = False,
) -> UefiFirmware:
    """Return the UEFI firmware that is installed on this machine.

    Args:
        folders: Where to look; None: where distributions put it.
        architecture: Of the machine that it is for.
        is_secure: Whether it must start only what is signed.

    Raises:
        ToolMissingError: There is none.
    """
    pairs = (_SECURE_PAIRS if is_secure else _PAIRS)[architecture]
    for folder in _FOLDERS[architecture] if folders is None else folders:
        for code, variables in pairs:
            if (folder / code).is_file() and (folder / variables).is_file():
                return UefiFirmware(code=folder / code, variables=folder / variables, is_secure=is_secure)
    package = _PACKAGES[architecture]
    kind = "UEFI firmware with secure boot" if is_secure else "UEFI firmware"
    raise ToolMissingError(
        f"there is no {kind} for virtual machines of {architecture}, which Coppice needs for boot tests",
        resolution=f"Install it: apt-get install {package}.",
        context={"tool": package, "package": package},
    )


def own_uefi(work: Path, *, architecture: Architecture, is_secure: bool = False) -> UefiFirmware:
    """Return the firmware with variables of its own in ``work``.

    Raises:
        ToolMissingError: There is none on this machine.
        StorageError: The copy could not be written.
    """
    installed = find_uefi(architecture=architecture, is_secure=is_secure)
    own = work / "uefi-variables.fd"
    with storage_errors("writing", own):
        shutil.copyfile(installed.variables, own)
        own.chmod(0o600)
    return replace(installed, variables=own)
