# SPDX-License-Identifier: Apache-2.0
"""What stands on a disk beside its root file system, so that firmware starts it.

GRUB made in the tree itself, by its own tools; for secure boot, the distribution's signed programs as they are: the
firmware starts the first one, that one GRUB, and GRUB the signed kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.filesystem import zero_written
from coppice.factory.bootstrap.processors import BIOS_BOOT, BIOS_CORE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.factory.bootstrap.processors import Processor

_FOLDER = "EFI/BOOT"


@dataclass(frozen=True, slots=True, kw_only=True)
class BootLoader:
    """The boot loader of a disk.

    Attributes:
        processor: That it runs on.
        is_secure: Whether UEFI starts the distribution's signed programs.
    """

    processor: Processor
    is_secure: bool

    @property
    def files(self) -> tuple[str, ...]:
        """What of the tree it is made of."""
        signed = self.processor.signed_loader
        if not self.is_secure or signed is None:
            return self.processor.boot_files
        return (*self.processor.boot_files, *signed.files)

    def write(self, disk: Path, content: Callable[[str], bytes], *, names: disks.Names, epoch: int, work: Path) -> None:
        """Write it to ``disk``, over what is there.

        Args:
            disk: With its partitions.
            content: Returns the content of one of `files`.
            names: Of what is on the disk.
            epoch: Seconds since 1970 of everything that it makes.
            work: A directory to work in.

        Raises:
            BuildError: It is not what GRUB's tools make, or could not be written.
            StorageError: The disk failed.
        """
        with storage_errors("writing", disk), disk.open("r+b") as stream:
            zero_written(stream.fileno(), disks.BIOS_START_BYTES, disks.ROOT_START_BYTES)
        if self.processor.has_bios:
            disks.write_bios_boot(disk, content(BIOS_BOOT), content(BIOS_CORE))
        disks.write_esp(disk, self._esp(content, names), epoch, names, work)

    def _esp(self, content: Callable[[str], bytes], names: disks.Names) -> dict[str, bytes]:
        signed = self.processor.signed_loader
        first = f"{_FOLDER}/{self.processor.efi_program}"
        if not self.is_secure or signed is None:
            return {first: content(self.processor.efi_core)}
        loaded = {f"{_FOLDER}/{name}": content(path) for name, path in signed.loads.items()}
        # What is signed cannot be told where the root is: it looks for this file on the partition that it came from.
        root = names.uuid("root")
        menu = f"search --no-floppy --fs-uuid --set=root {root}\nset prefix=($root)/boot/grub\n"
        menu += "configfile $prefix/grub.cfg\n"
        return {first: content(signed.first), **loaded, f"EFI/{signed.vendor}/grub.cfg": menu.encode()}
