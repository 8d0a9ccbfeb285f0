# SPDX-License-Identifier: Apache-2.0
"""Bounds on a program, by the kernel's resource limits."""

from __future__ import annotations

import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on one program, set in the child before it starts.

    Attributes:
        address_space_bytes: Virtual memory.
        cpu_seconds: CPU time.
        file_size_bytes: The largest file that it may write.
        open_files: Open file descriptors.
        processes: Processes and threads of its user, those of other programs counted; the kernel does not hold root to
            it. `coppice.cage` counts those of the program alone.
    """

    address_space_bytes: int | None = None
    cpu_seconds: int | None = None
    file_size_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None

    def apply(self) -> None:
        """Set the limits on the calling process (runs in the child)."""
        for kind, value in (
            (resource.RLIMIT_AS, self.address_space_bytes),
            (resource.RLIMIT_CPU, self.cpu_seconds),
            (resource.RLIMIT_FSIZE, self.file_size_bytes),
            (resource.RLIMIT_NOFILE, self.open_files),
            (resource.RLIMIT_NPROC, self.processes),
            (resource.RLIMIT_CORE, 0),
        ):
            if value is not None:
                # Nobody but root may have more than was left to him.
                hard = resource.getrlimit(kind)[1]
                bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
                resource.setrlimit(kind, (bound, bound))
