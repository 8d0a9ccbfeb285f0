# SPDX-License-Identifier: Apache-2.0
"""Put an image's disk together from what is here already, and fetch only the rest (docs/formats/delta.md).

Three ways are weighed by the bytes that each would fetch: a patch for something that is held, the blocks that nothing
here has, and the whole file. What comes out is held against the checksum that the list signed before anybody sees it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.assembly_choice import Choice, HeldDisk, Method, Work, choose, patch_name
from coppice.cache.assembly_patch import PatchAssembly
from coppice.cache.assembly_write import DiskWriter
from coppice.cache.locks import locked
from coppice.cache.objects import listing
from coppice.cache.seed_blocks import open_seed
from coppice.errors import ChecksumMismatchError, DeltaError, LockedError, NoSpaceError, SizeMismatchError
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from coppice.cache.assembly_remote import Remote
    from coppice.imagelist.model import ListedImage
    from coppice.model.checksum import Checksum
    from coppice.monitor import Monitor

__all__ = ["Assembly", "Method", "Seed", "assemble", "sweep_assemblies"]

KEEP_SECONDS = 7 * 24 * 3600.0
"""How long what was fetched for a disk stays that nobody goes on with."""
WAIT_SECONDS = 15 * 60.0
"""For another run that puts the same disk together: after that, the published file is fetched."""
RESERVE_BYTES = 16 * 1024 * 1024
"""What is left free on the file system beside a disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A disk that is held here and may have much in common with the one that is wanted.

    Attributes:
        path: Its bytes as a guest sees them (raw).
        checksum: sha512 of those bytes when they were verified last; they may have changed since.
    """

    path: Path
    checksum: Checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What was put together, or why nothing was.

    Attributes:
        method: `Method.WHOLE`: nothing was written, and the published file is to be fetched.
        reason: Why this one, in a few words with the bytes that were compared.
        fetched_bytes: That came over the network in this run.
        reused_bytes: Of the disk that were held here or are zero.
        requests: For ranges of packs and for whole files.
        fingerprint: State of the written file after its bytes were verified; empty where nothing was written.
    """

    method: Method
    reason: str
    fetched_bytes: int = 0
    reused_bytes: int = 0
    requests: int = 0
    fingerprint: tuple[int, ...] = ()


def assemble(
    listed: ListedImage,
    *,
    destination: Path,
    seeds: Sequence[Seed],
    remote: Remote,
    directory: Path,
    limit_bytes: int,
    monitor: Monitor = SILENT,
) -> Assembly:
    """Write the disk of ``listed`` to ``destination`` in the cheapest way; its signed checksum is verified.

    What was fetched is kept below ``directory`` until the disk is whole, so that a run that is killed is taken up
    without fetching a byte twice.

    Args:
        listed: With its ``delta``.
        destination: Where the file appears, whole and durable; on the same file system as ``directory``.
        seeds: What is held, most promising first.
        remote: Fetches (`coppice.cache.assembly_remote.ClientRemote`).
        directory: The cache's; ``partial/deltas/``, ``blocks/`` and ``locks/`` below it are used.
        limit_bytes: A larger disk is refused.
        monitor: Where progress is told.

    Returns:
        What was done. With `Method.WHOLE`, nothing was written.

    Raises:
        DeltaError: The delta is malformed, or does not give what was signed; the whole file is to be fetched.
        TransferError: Its files could not be had.
        LockedError: Another run puts the same disk together for too long.
        NoSpaceError: It does not fit on the disk.
        StorageError: The cache's directory cannot be used.
    """
    delta = listed.delta
    if delta is None:
        return Assembly(method=Method.WHOLE, reason="its list has no delta of it")
    if delta.guest_checksum.algorithm != "sha512" or not 0 < delta.guest_size_bytes <= limit_bytes:
        raise DeltaError(
            f"the disk of {listed.title!r} has {delta.guest_size_bytes} bytes; from 1 to {limit_bytes} are taken",
            context={"size_bytes": delta.guest_size_bytes, "limit_bytes": limit_bytes},
        )
    sweep_assemblies(directory)
    digest = delta.guest_checksum.hexdigest
    folder = _folders(directory) / digest
    what = f"the disk of {listed.title!r}"
    with locked(_lock_path(directory, digest), what=what, wait_seconds=WAIT_SECONDS), ExitStack() as stack:
        held: list[HeldDisk] = []
        for seed in seeds:
            handle = open_seed(seed.path)
            if handle is not None:
                stack.callback(os.close, handle)
                held.append(HeldDisk(checksum=seed.checksum, handle=handle))
        try:
            made = _put_together(
                Work(
                    listed=listed,
                    delta=delta,
                    held=held,
                    remote=remote,
                    folder=folder,
                    directory=directory,
                    monitor=monitor,
                ),
                destination,
            )
        except (ChecksumMismatchError, SizeMismatchError) as problem:
            _remove(folder)
            raise DeltaError(problem.message, details=problem.details, context=problem.context) from problem
        except DeltaError:
            # Nothing of it can be trusted: whoever tries again begins with nothing.
            _remove(folder)
            raise
        _remove(folder)
        return made


def sweep_assemblies(directory: Path, *, older_than_seconds: float = KEEP_SECONDS) -> tuple[Path, ...]:
    """Remove what was fetched for disks that nobody went on with for so long; return what was removed."""
    removed = []
    for folder in listing(_folders(directory)):
        with contextlib.suppress(OSError, LockedError):
            newest = max(each.lstat().st_mtime for each in (folder, *folder.iterdir()))
            if time.time() - newest > older_than_seconds:
                with locked(_lock_path(directory, folder.name), what=folder.name, wait_seconds=0):
                    _remove(folder)
                    removed.append(folder)
    return tuple(removed)


def _put_together(work: Work, destination: Path) -> Assembly:
    chosen = choose(work)
    if chosen.method is Method.WHOLE:
        return _assembly(work, chosen)
    work.monitor.message(f"{work.listed.title!r} is put together: {chosen.reason}")
    with atomic.storage_errors("making", work.folder):
        work.folder.mkdir(parents=True, exist_ok=True)
    reused = _by_patch(work, chosen) if chosen.method is Method.PATCH else _by_blocks(work, chosen)
    with atomic.storage_errors("writing", destination):
        made = _disk_path(work)
        made.rename(destination)
        atomic.fsync_directory(destination.parent)
        state = destination.lstat()
    fingerprint = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return _assembly(work, chosen, reused_bytes=reused, fingerprint=fingerprint)


def _assembly(work: Work, chosen: Choice, *, reused_bytes: int = 0, fingerprint: tuple[int, ...] = ()) -> Assembly:
    blocks = chosen.blocks
    return Assembly(
        method=chosen.method,
        reason=chosen.reason,
        fetched_bytes=work.fetched_bytes + (blocks.fetched_bytes if blocks is not None else 0),
        reused_bytes=reused_bytes,
        requests=work.requests + (blocks.requests if blocks is not None else 0),
        fingerprint=fingerprint,
    )


def _by_patch(work: Work, chosen: Choice) -> int:
    """Write the disk; return how much of it was not fetched."""
    if chosen.patch is None:
        message = "a patch was chosen, and there is none"
        raise AssertionError(message)
    patch, origin = chosen.patch
    path = work.fetch(patch.file, patch_name(patch), "a patch")
    with atomic.storage_errors("reading", path), path.open("rb") as stream:
        assembly = PatchAssembly(work.delta, patch, stream)
        _admit(work, assembly.stored_bytes)
        with _writer(work) as writer:
            assembly.write(writer, origin)
            _verify(work, writer)
    return max(0, work.delta.guest_size_bytes - assembly.literal_bytes)


def _by_blocks(work: Work, chosen: Choice) -> int:
    """Write the disk; return how much of it was not fetched."""
    assembly = chosen.blocks
    if assembly is None:
        message = "blocks were chosen, and nothing is known of them"
        raise AssertionError(message)
    cost = assembly.cost_bytes()
    _admit(work, assembly.stored_bytes + cost)
    label = f"fetching what is missing of {work.listed.title!r}"
    with work.monitor.task(label, total=cost, unit=Unit.BYTES) as task:
        assembly.fetch_blocks(task)
    with _writer(work) as writer:
        assembly.write(writer, [each.handle for each in work.held])
        _verify(work, writer)
    return max(0, work.delta.guest_size_bytes - assembly.missing_bytes)


@contextmanager
def _writer(work: Work) -> Iterator[DiskWriter]:
    path = _disk_path(work)
    with atomic.storage_errors("removing", path):
        # The lock is held: whoever left it is dead.
        path.unlink(missing_ok=True)
    size = work.delta.guest_size_bytes
    with (
        work.monitor.task(f"putting {work.listed.title!r} together", total=size, unit=Unit.BYTES) as task,
        DiskWriter(path, size, task) as writer,
    ):
        yield writer


def _verify(work: Work, writer: DiskWriter) -> None:
    found, _ = writer.finish()
    if not found.matches(work.delta.guest_checksum):
        raise DeltaError(
            f"the disk of {work.listed.title!r} that was put together is not the one that was signed",
            details=f"signed {work.delta.guest_checksum}\nfound  {found}",
            resolution="Nothing of it is used, and the whole file is fetched. If that happens again and again, tell "
            "whoever publishes the list.",
            context={"expected": str(work.delta.guest_checksum), "found": str(found)},
        )


def _admit(work: Work, needed: int) -> None:
    with atomic.storage_errors("asking for the free space of", work.folder):
        free = max(0, shutil.disk_usage(work.folder).free - RESERVE_BYTES)
    if free < needed:
        raise NoSpaceError(
            f"the disk of {work.listed.title!r} needs {needed} bytes; {work.directory} has room for {free}",
            resolution="Free space there (`coppice cache prune` removes what nothing needs), then run again.",
            context={"path": str(work.directory), "free_bytes": free, "needed_bytes": needed},
        )


def _disk_path(work: Work) -> Path:
    return work.folder / "disk"


def _folders(directory: Path) -> Path:
    return directory / "partial" / "deltas"


def _lock_path(directory: Path, digest: str) -> Path:
    return directory / "locks" / f"delta-{digest}"


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
