# SPDX-License-Identifier: Apache-2.0
"""What distributions call processors, in the kernel's words, which are the model's."""

from __future__ import annotations

_KERNEL_NAMES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armhf": "armv7l",
    "i386": "i686",
    "ppc64el": "ppc64le",
    "x64": "x86_64",
    "x86-64": "x86_64",
}


def kernel_name(word: str) -> str:
    """Return the kernel's name of an architecture; the word itself where it has no other."""
    return _KERNEL_NAMES.get(word.lower(), word)
