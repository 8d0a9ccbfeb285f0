# SPDX-License-Identifier: Apache-2.0
"""What Packer left: from its disk to a raw one that holds what the appliance has, and nothing else."""

from __future__ import annotations

import errno
import json
import mmap
import os
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.bootstrap.dpkg import read_packages
from coppice.factory.bootstrap.filesystem import LISTING_BYTES, clear_free
from coppice.factory.caged import run_caged
from coppice.factory.evidence.dpkg_record import dpkg_record
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.evidence.rpm_database import find_record, packages_of, read_headers, read_record
from coppice.factory.files import plausible_size, qemu_format, sha512_of
from coppice.factory.packer.template import DISK_NAME
from coppice.factory.partition_table import find_root
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.factory.model import Package

_TOOL_SECONDS = 900.0
_INFO_SECONDS = 60.0
_HASHED_BYTES = 1024 * 1024
# e2fsck says 1 when it corrected something: a journal that was still to be played back.
_CHECKED = (0, 1)


def check_bytes(path: Path, checksum: Checksum) -> None:
    """See that a disk to start from is the one that is wanted.

    Raises:
        BuildError: It is another one.
        StorageError: It cannot be read.
    """
    found = sha512_of(path) if checksum.algorithm == "sha512" else _digest(path, checksum.algorithm)
    if not found.matches(checksum):
        raise BuildError(
            f"the disk {path} is not the one that is wanted",
            details=f"wanted {checksum}\nfound  {found}",
            resolution="Build the parent anew, or correct disk-checksum after you have found out why it changed.",
        )


def check_start(path: Path, disk_format: DiskFormat, checksum: Checksum) -> int:
    """Look at a disk to start from, and return its virtual size.

    Raises:
        BuildError: It is not the one that was named, or refers to other files.
        StorageError: It cannot be read.
    """
    check_bytes(path, checksum)
    size, other = _looked_at(path, disk_format)
    if other:
        raise BuildError(
            f"the disk {path} refers to another file: what is in it cannot be told by its checksum",
            resolution="Make it whole by `qemu-img convert`, and name that one.",
        )
    return size


def _looked_at(path: Path, disk_format: DiskFormat) -> tuple[int, str]:
    """Return the virtual size of a disk, and which other file it refers to; empty: to none."""
    try:
        said = run_caged(
            lambda inside: ["qemu-img", "info", "--output=json", "-f", disk_format.value, "--", inside(path)],
            reads=[path],
            timeout_seconds=_INFO_SECONDS,
        ).text()
        facts = json.loads(said)
        details = facts.get("format-specific", {}).get("data", {})
        if details.get("data-file"):
            raise BuildError(f"the disk {path} has its content in another file: {details['data-file']}")
        return plausible_size(facts["virtual-size"]), str(facts.get("backing-filename") or "")
    except (ToolFailedError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as problem:
        raise BuildError(f"the disk {path} is no {disk_format} image", details=str(problem)) from problem


def lay_start(path: Path, disk_format: DiskFormat, size_bytes: int, place: Path) -> Checksum:
    """Make ``place`` a disk that Packer can start from, whose content is that of ``path``; return its checksum.

    Raises:
        BuildError: It could not be made.
    """
    # "-u": what it is laid upon is not opened for that; its size is known.
    argv: list[str | Path] = ["qemu-img", "create", "-q", "-u", "-f", "qcow2"]
    try:
        run(
            [*argv, "-b", path.resolve(), "-F", disk_format.value, place, str(size_bytes)],
            timeout_seconds=_INFO_SECONDS,
        )
    except ToolFailedError as problem:
        raise BuildError(f"the disk {path} cannot be started from", details=problem.details) from problem
    return sha512_of(place)


def made_disk(output: Path) -> tuple[Path, DiskFormat]:
    """Return the disk that Packer made in ``output``, and what it is.

    Raises:
        BuildError: There is none.
    """
    plain = output / DISK_NAME
    if plain.is_file() and not plain.is_symlink():
        return plain, DiskFormat.QCOW2
    found = sorted(output.glob("*.vmdk")) if output.is_dir() else []
    if len(found) != 1 or found[0].is_symlink():
        raise BuildError(
            "Packer ended well, and made no disk",
            details="\n".join(sorted(path.name for path in output.iterdir())) if output.is_dir() else None,
            resolution="See its log.",
        )
    return found[0], DiskFormat.VMDK


def as_raw(disk: Path, disk_format: DiskFormat, raw: Path, upon: tuple[Path, DiskFormat] | None = None) -> None:
    """Write the content of ``disk`` to ``raw``.

    Args:
        disk: What Packer made.
        disk_format: Its format.
        raw: Where its content goes.
        upon: What the disk that Packer started from is laid upon, and the format of that; Packer's copy is as well.

    Raises:
        BuildError: It cannot be read, or refers to another file than that.
    """
    size, other = _looked_at(disk, disk_format)
    if other and (upon is None or other != str(upon[0])):
        raise BuildError("the disk that Packer made refers to another file than what it started from", details=other)

    def source(inside: Callable[[Path], str]) -> str:
        # What lies under it is named anew: shut in, qemu-img sees it by another path.
        under = None if upon is None or not other else _node(inside(upon[0]), upon[1], None)
        return f"json:{json.dumps(_node(inside(disk), disk_format, under))}"

    try:
        run_caged(
            lambda inside: ["qemu-img", "convert", "-O", "raw", "--", source(inside), inside(raw)],
            reads=[disk, *([upon[0]] if upon is not None and other else [])],
            writes=[raw],
            timeout_seconds=_TOOL_SECONDS,
            most_bytes=size,
        )
    except ToolFailedError as problem:
        raise BuildError(f"the disk that Packer made cannot be read: {problem.message}", details=problem.details) from (
            problem
        )


def _node(inside: str, disk_format: DiskFormat, under: dict[str, object] | None) -> dict[str, object]:
    """Return how a disk is named to QEMU, with what lies under it, so that nothing is left to the disk itself."""
    said: dict[str, object] = {
        "driver": qemu_format(disk_format),
        "file": {"driver": "file", "filename": inside},
    }
    return {**said, "backing": under} if disk_format is DiskFormat.QCOW2 else said


def settle(raw: Path) -> int:
    """Check the root of ``raw``, and write zeros over all that no file has; return where the root starts.

    Raises:
        BuildError: There is none that can be read, or it is broken.
        StorageError: The disk cannot be written.
    """
    offset = find_root(raw).start_bytes
    try:
        run_caged(
            lambda inside: ["e2fsck", "-f", "-p", f"{inside(raw)}?offset={offset}"],
            writes=[raw],
            timeout_seconds=_TOOL_SECONDS,
            ok=_CHECKED,
        )
        said = run_caged(
            lambda inside: ["dumpe2fs", f"{inside(raw)}?offset={offset}"],
            reads=[raw],
            timeout_seconds=_TOOL_SECONDS,
            capture_bytes=LISTING_BYTES,
        ).text()
    except ToolFailedError as problem:
        raise BuildError(
            f"the root file system that came out is broken: {problem.message}",
            details=problem.details,
            resolution="The machine may not have ended as it should: see the end of its console in the log.",
        ) from problem
    clear_free(raw, offset, said)
    return offset


def installed_packages(raw: Path, offset_bytes: int, work: Path) -> tuple[Package, ...]:
    """Return what the package database on the disk says is installed.

    Raises:
        BuildError: It has none that can be read.
    """
    disk = Ext4Disk(raw, offset_bytes, work)
    tree = disk.tree()
    status = dpkg_record(tree)
    if status:
        return read_packages(status)
    record = find_record(tree)
    if record is None:
        raise BuildError(
            "the disk has no database of packages that is known",
            resolution="Start from a system of Debian's or the RPM family.",
        )
    return packages_of(read_headers(read_record(tree, record)))


def check_key_is_gone(raw: Path, public_key: str) -> None:
    """Look through the whole disk for the key that let this build in.

    Raises:
        BuildError: It is there.
        StorageError: The disk cannot be read.
    """
    body = public_key.split()[1].encode("ascii")
    with (
        storage_errors("reading", raw),
        raw.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole,
    ):
        at, end = 0, os.fstat(stream.fileno()).st_size
        while at < end:
            try:
                at = os.lseek(stream.fileno(), at, os.SEEK_DATA)
            except OSError as problem:
                if problem.errno == errno.ENXIO:
                    # There is nothing but a hole up to the end.
                    return
                raise
            stop = os.lseek(stream.fileno(), at, os.SEEK_HOLE)
            if whole.find(body, at, stop) >= 0:
                raise BuildError(
                    "the key that let the build into its machine is still on the disk",
                    resolution="A provisioner may have copied it, or a file system beside the root has it.",
                )
            at = stop


def _digest(path: Path, algorithm: str) -> Checksum:
    import hashlib

    digest = hashlib.new(algorithm)
    with storage_errors("reading", path), path.open("rb") as stream:
        while piece := stream.read(_HASHED_BYTES):
            digest.update(piece)
    return Checksum(algorithm, digest.hexdigest())
