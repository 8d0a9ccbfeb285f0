# SPDX-License-Identifier: Apache-2.0
"""What the first bytes of a kernel or of a program say of the processor that it is for; pure."""

from __future__ import annotations

import re
import struct
import zlib

from coppice.conversion.guest.model import Kernel

HEAD_BYTES = 256 * 1024
"""As much of a kernel as is looked at."""
_ELF_MACHINES = {3: "i686", 22: "s390x", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_ELF_POWER = 21
_PE_MACHINES = {
    0x014C: "i686",
    0x01C2: "armv7l",
    0x01C4: "armv7l",
    0x5064: "riscv64",
    0x8664: "x86_64",
    0xAA64: "aarch64",
}
_LONG_MODE_VERSION = 0x020C
_PE_BYTES = 6
_LEAST_BYTES = 1024
_VERSION = re.compile(rb"[0-9][A-Za-z0-9._+~-]{0,127}")


def kernel_of(path: str, head: bytes) -> Kernel | None:
    """Return the kernel whose file begins like that; None: it does not look like one.

    The forms: x86's bzImage (Linux, Documentation/arch/x86/boot.rst), arm64's Image
    (Documentation/arch/arm64/booting.rst), an EFI program (PE), ELF, and one of these inside gzip.

    Args:
        path: In the guest.
        head: The first bytes, as many as there are up to `HEAD_BYTES`.
    """
    if head[:3] == b"\x1f\x8b\x08":
        head = _gunzipped(head)
    head = _padded(head)
    if head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS":
        return _bz_image(path, head)
    if head[56:60] == b"ARM\x64":
        return Kernel(path=path, architecture="aarch64")
    architecture = program_architecture(head)
    return None if architecture is None else Kernel(path=path, architecture=architecture)


def program_architecture(head: bytes) -> str | None:
    """Return the processor that an ELF or PE program is for, by the kernel's name; None: it does not say."""
    head = _padded(head)
    if head[:4] == b"\x7fELF" and head[5] in {1, 2}:
        order = "<" if head[5] == 1 else ">"
        (machine,) = struct.unpack_from(f"{order}H", head, 18)
        if machine == _ELF_POWER:
            return "ppc64le" if order == "<" else "ppc64"
        return _ELF_MACHINES.get(machine)
    if head[:2] == b"MZ":
        (at,) = struct.unpack_from("<I", head, 60)
        if head[at : at + 4] == b"PE\0\0" and at <= len(head) - _PE_BYTES:
            return _PE_MACHINES.get(struct.unpack_from("<H", head, at + 4)[0])
    return None


def _bz_image(path: str, head: bytes) -> Kernel:
    protocol, _, _, text_at = struct.unpack_from("<HIHH", head, 0x206)
    architecture = None
    if protocol >= _LONG_MODE_VERSION:
        (flags,) = struct.unpack_from("<H", head, 0x236)
        architecture = "x86_64" if flags & 1 else "i686"
    found = _VERSION.match(head, text_at + 0x200) if text_at else None
    return Kernel(path=path, architecture=architecture, version="" if found is None else found[0].decode("ascii"))


def _padded(head: bytes) -> bytes:
    # What is cut off is as if it were zero: no look has to ask how long it is.
    return head.ljust(_LEAST_BYTES, b"\0")


def _gunzipped(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""
