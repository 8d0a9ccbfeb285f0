# SPDX-License-Identifier: Apache-2.0
"""The operating system inside an image."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Architecture(StrEnum):
    """Processor architectures, by the kernel's names."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


class Firmware(StrEnum):
    """How a machine starts."""

    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingSystem:
    """What runs in the image.

    Attributes:
        kind: The family, as image lists write it in ``sl:os``: ``Linux``.
        distribution: ``Debian``, ``AlmaLinux`` … (``sl:osname``).
        version: ``12`` … (``sl:osversion``).
        architecture: ``x86_64`` … (``sl:arch``); as written by the publisher.
    """

    kind: str
    distribution: str
    version: str
    architecture: str
