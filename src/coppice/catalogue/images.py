# SPDX-License-Identifier: Apache-2.0
"""The catalogue's image files: one copy of any bytes, named by their checksum, shared with where they came from."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from coppice.atomic import replacing
from coppice.errors import ChecksumMismatchError, SizeMismatchError, UnreadableFileError
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.model.image import Image

_CHUNK_BYTES = 1024 * 1024


def keep_image(directory: Path, source: Path, image: Image) -> Path:
    """Have ``directory`` hold the bytes of ``source``, by hard link where that is possible; return their path.

    The bytes are read and must be those that ``image`` describes.

    Raises:
        UnreadableFileError: ``source`` is not there, or cannot be read.
        SizeMismatchError: It is longer or shorter than described.
        ChecksumMismatchError: It has other bytes than described.
        StorageError: ``directory`` cannot be written.
    """
    kept = directory / "images" / f"{image.checksum.hexdigest}.{image.format}"
    if kept.is_file() and kept.stat().st_size == image.size_bytes:
        return kept
    with replacing(kept, mode=0o444) as temporary:
        _link_or_copy(source, temporary)
        size = temporary.stat().st_size
        if size != image.size_bytes:
            raise SizeMismatchError(
                f"{source} has {size} bytes, and {image.size_bytes} are described",
                resolution="Describe the image anew, or restore the one that was described.",
                context={"path": str(source)},
            )
        found = _checksum(temporary)
        if not found.matches(image.checksum):
            raise ChecksumMismatchError(
                f"{source} is not the image that is described",
                details=f"described: {image.checksum}\nfound:     {found}",
                resolution="Describe the image anew, or restore the one that was described.",
                context={"path": str(source)},
            )
    return kept


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        resolved = source.resolve(strict=True)
        try:
            os.link(resolved, target)
        except OSError:
            # Another file system, or one without hard links: the bytes are copied.
            shutil.copyfile(resolved, target)
    except FileNotFoundError as problem:
        raise UnreadableFileError(
            f"there is no image {source}",
            resolution="Put the image where its descriptor says, relative to the descriptor.",
            context={"path": str(source)},
        ) from problem
    except PermissionError as problem:
        message = f"cannot read {source}: {problem.strerror}"
        raise UnreadableFileError(message, context={"path": str(source)}) from problem


def _checksum(path: Path) -> Checksum:
    digest = hashlib.sha512()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return Checksum("sha512", digest.hexdigest())
