# SPDX-License-Identifier: Apache-2.0
"""Bytes into a file of a pool and back, over libvirt's own connection: in pieces, holes as holes, hashed on the way."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from coppice import atomic
from coppice.digests import new_digest
from coppice.errors import ChecksumMismatchError, CloudAnswerError, CloudQuotaError
from coppice.model.checksum import Checksum
from coppice.monitor import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from coppice.cloud.libvirt_pool.host import Host
    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor

PIECE_BYTES = 262_120
"""What one message of libvirt's protocol holds (``VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX`` without its head)."""
_ZEROS = bytes(1024 * 1024)
_AT_HOLE = -3


def upload(host: Host, volume: Any, converted: ConvertedImage, monitor: Monitor) -> None:
    """Write the image's bytes into a new file.

    Raises:
        ChecksumMismatchError: They are not the bytes that were converted.
        StorageError: They cannot be read.
    """
    image = converted.image
    digest = new_digest(image.checksum.algorithm)
    with (
        atomic.storage_errors("reading", converted.path),
        converted.path.open("rb") as source,
        monitor.task(f"upload {converted.path.name}", total=image.size_bytes, unit=Unit.BYTES) as task,
    ):
        if os.fstat(source.fileno()).st_size != image.size_bytes:
            raise _damaged(converted)
        with _stream(host) as stream:
            volume.upload(stream, 0, image.size_bytes, host.library.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
            for piece, length in _pieces(source, image.size_bytes):
                host.beat()
                if piece:
                    digest.update(piece)
                    _send(stream, piece)
                else:
                    _hash_zeros(host, digest, length)
                    stream.sendHole(length, 0)
                task.advance(length)
            if not Checksum(image.checksum.algorithm, digest.hexdigest()).matches(image.checksum):
                raise _damaged(converted)


def checksum_of(host: Host, volume: Any, size_bytes: int, algorithm: str, monitor: Monitor) -> Checksum:
    """Return the checksum of the first ``size_bytes`` of a file, read back from libvirt.

    Raises:
        CloudAnswerError: There are fewer, or more.
    """
    digest = new_digest(algorithm)
    done = 0
    with monitor.task("read back", total=size_bytes, unit=Unit.BYTES) as task, _stream(host) as stream:
        volume.download(stream, 0, size_bytes, host.library.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
        while done <= size_bytes:
            host.beat()
            got = stream.recvFlags(PIECE_BYTES, host.library.VIR_STREAM_RECV_STOP_AT_HOLE)
            if got == _AT_HOLE:
                length = stream.recvHole(0)
                _hash_zeros(host, digest, min(length, size_bytes - done))
            elif got:
                length = len(got)
                digest.update(got)
            else:
                break
            done += length
            task.advance(length)
        if done != size_bytes:
            raise CloudAnswerError(
                f"of a file of {size_bytes} bytes, {done} came back",
                resolution="Nothing was registered. Look into the log of that libvirtd, then run again.",
            )
    return Checksum(algorithm, digest.hexdigest())


def check_room(host: Host, pool: str, converted: ConvertedImage) -> None:
    """Refuse an image for which a pool has no room.

    Raises:
        CloudQuotaError: It has not.
    """
    with atomic.storage_errors("reading", converted.path):
        needed = min(converted.path.stat().st_blocks * 512, converted.image.size_bytes)
    available = host.available_bytes(pool)
    if needed > available:
        raise CloudQuotaError(
            f"the storage pool {pool} has {available} bytes left: image {converted.key} version {converted.version} "
            f"takes {needed}",
            resolution="Make room in the pool, or choose another one, then run again.",
        )


@contextmanager
def _stream(host: Host) -> Iterator[Any]:
    """Give a stream, which is finished afterwards, or broken off where something went wrong."""
    stream = host.stream()
    try:
        yield stream
        host.beat()
        stream.finish()
    except BaseException:
        with suppress(host.library.libvirtError):
            stream.abort()
        raise


def _pieces(source: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Yield the pieces of a file; a hole is a piece without bytes."""
    position = 0
    while position < size:
        start, end = _next_data(source.fileno(), position, size)
        if start > position:
            yield b"", start - position
        position = start
        source.seek(position)
        while position < end:
            piece = source.read(min(PIECE_BYTES, end - position))
            if not piece:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            yield piece, len(piece)
            position += len(piece)


def _next_data(handle: int, position: int, size: int) -> tuple[int, int]:
    try:
        start = os.lseek(handle, position, os.SEEK_DATA)
        return start, min(os.lseek(handle, start, os.SEEK_HOLE), size)
    except OSError as problem:
        if problem.errno == errno.ENXIO:
            return size, size
        if problem.errno == errno.EINVAL:
            # A file system that knows of no holes.
            return position, size
        raise


def _send(stream: Any, piece: bytes) -> None:
    sent = 0
    while sent < len(piece):
        sent += stream.send(piece[sent:] if sent else piece)


def _hash_zeros(host: Host, digest: Any, length: int) -> None:
    while length > 0:
        host.beat()
        digest.update(_ZEROS[:length])
        length -= len(_ZEROS)


def _damaged(converted: ConvertedImage) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"the disk of image {converted.key} version {converted.version} is damaged: {converted.path}",
        details=f"expected {converted.image.checksum}",
        resolution="Nothing was registered. Remove that file, then run again: it is made anew.",
        context={"path": str(converted.path)},
    )
