# SPDX-License-Identifier: Apache-2.0
"""Facts about image files that this machine made: length, virtual length, checksum."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.caged import run_caged
from coppice.factory.model import BuiltImage
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image

if TYPE_CHECKING:
    from pathlib import Path

_QEMU_NAMES = {DiskFormat.VHD: "vpc"}
_CHUNK_BYTES = 1024 * 1024
_INFO_SECONDS = 60.0
_NO_DISKS_BYTES = 1 << 62


def qemu_format(disk_format: DiskFormat) -> str:
    """Return QEMU's name of ``disk_format``."""
    return _QEMU_NAMES.get(disk_format, disk_format.value)


def sha512_of(path: Path) -> Checksum:
    """Return the sha512 of the file at ``path``.

    Raises:
        StorageError: It cannot be read.
    """
    digest = hashlib.sha512()
    with storage_errors("reading", path), path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return Checksum("sha512", digest.hexdigest())


def keys_of(keyring: Path | None) -> str:
    """Return what a site's keyring is known by; empty: the site gives none, or none that is there.

    Raises:
        StorageError: It cannot be read.
    """
    return str(sha512_of(keyring)) if keyring is not None and keyring.is_file() else ""


def plausible_size(said: object) -> int:
    """Return the length of a disk that a program said.

    Raises:
        ValueError: No disk is that long.
        TypeError: It is no number.
    """
    if not isinstance(said, int):
        message = f"a length of {said!r}"
        raise TypeError(message)
    if not 0 <= said < _NO_DISKS_BYTES:
        message = f"a length of {said} bytes"
        raise ValueError(message)
    return said


def describe_image(path: Path, disk_format: DiskFormat) -> BuiltImage:
    """Return the facts about the image at ``path``, which a builder on this machine has just made, or copied.

    Raises:
        BuildError: It is not an image of that format.
        StorageError: It cannot be read.
    """
    try:
        said = run_caged(
            lambda inside: ["qemu-img", "info", "--output=json", "-f", qemu_format(disk_format), "--", inside(path)],
            reads=[path],
            timeout_seconds=_INFO_SECONDS,
        )
        virtual_size = plausible_size(json.loads(said.text())["virtual-size"])
    except (ToolFailedError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as problem:
        raise BuildError(f"{path} is not a {disk_format} image", details=str(problem)) from problem
    with storage_errors("reading", path):
        size = path.stat().st_size
    image = Image(format=disk_format, size_bytes=size, virtual_size_bytes=virtual_size, checksum=sha512_of(path))
    return BuiltImage(path=path, image=image)
