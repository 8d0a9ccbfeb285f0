# SPDX-License-Identifier: Apache-2.0
"""The lock of a cloud: who holds it is the only one on this machine that changes what is registered there.

It is held while a cloud is looked at and changed, and never while something is fetched or converted: a revocation need
not wait for a download.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from coppice.errors import LockedError
from coppice.schedule.lock import run_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.settings.model import Settings


@contextmanager
def cloud_lock(settings: Settings, cloud: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock of ``cloud`` while the block runs.

    Args:
        settings: All settings.
        cloud: Name of the target.
        wait_seconds: How long to wait for another run that changes it.

    Raises:
        LockedError: Another run holds it still; the message names the cloud and that run.
        StorageError: The file cannot be made, or its file system has no locks.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(run_lock(settings.state_directory / "locks" / f"cloud-{cloud}.lock", wait_seconds))
        except LockedError as problem:
            raise problem.told_of(f"cloud {cloud}", cloud=cloud) from None
        yield
