# SPDX-License-Identifier: Apache-2.0
"""The bytes of an image on their way to Glance: read once, hashed while they are, and compared with what it holds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import stat
import threading
import time
import uuid
from typing import TYPE_CHECKING, Self

from coppice.cloud.openstack.failures import Asked, broken, timed_out
from coppice.cloud.openstack.images import ACTIVE, FAILED_IMPORT, GlanceImage
from coppice.cloud.openstack.settings import Transport
from coppice.digests import new_digest
from coppice.errors import (
    ChecksumMismatchError,
    CloudChecksumError,
    CloudError,
    CloudFaultError,
    CloudImageGoneError,
    CloudRefusedImageError,
    CloudTimeoutError,
    CloudUnreachableError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from coppice.cloud.openstack.images import Images
    from coppice.cloud.openstack.settings import OpenStackSettings
    from coppice.conversion.model import ConvertedImage
    from coppice.digests import Digest
    from coppice.monitor import Task

_PIECE_BYTES = 1024 * 1024
_AHEAD = 4
_CONFLICT = 409
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.1, 5.0
_SETTLE_SECONDS = 30.0
SERVED_PREFIX = "coppice-"


class Content:
    """An image's file, from its beginning each time that it is iterated over; sha512 is computed meanwhile.

    Args:
        converted: The image.
        task: Told what is read.
    """

    def __init__(self, converted: ConvertedImage, task: Task) -> None:
        self._path = converted.path
        self._wanted = converted.image.checksum
        self._size = converted.image.size_bytes
        self._task = task
        self.sha512 = ""

    def __len__(self) -> int:
        """Return how many bytes there are."""
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes.

        Raises:
            ChecksumMismatchError: They are not those that were converted; the last piece is not given then.
        """
        digest = new_digest("sha512")
        own = digest if self._wanted.algorithm == "sha512" else new_digest(self._wanted.algorithm)
        with _opened(self._path) as stream, _Hashing([digest] if own is digest else [digest, own]) as hashing:
            left = self._size
            held = b""
            self._task.reach(0)
            while piece := os.read(stream, min(_PIECE_BYTES, left + 1)):
                left -= len(piece)
                if left < 0:
                    break
                hashing.update(piece)
                # One piece is held back: what is not what it should be must not become whole in the cloud.
                if held:
                    yield held
                    self._task.advance(len(held))
                held = piece
            hashing.finish()
            found = own.hexdigest()
            if left != 0 or found != self._wanted.hexdigest:
                raise ChecksumMismatchError(
                    f"the converted image {self._path.name} is not what it was: its bytes have changed",
                    details=f"{self._wanted.algorithm}: {found}, expected {self._wanted.hexdigest}",
                    resolution="It is converted anew with the next run. Look whether something else writes into the "
                    "cache, and whether its disk is sound.",
                    context={"path": str(self._path)},
                )
            self.sha512 = digest.hexdigest()
            if held:
                yield held
                self._task.advance(len(held))

    def hexdigest(self, algorithm: str) -> str:
        """Return the digest of the file by an algorithm of Glance's choice."""
        if algorithm == "sha512" and self.sha512:
            return self.sha512
        digest = new_digest(algorithm)
        with _opened(self._path) as stream:
            while piece := os.read(stream, _PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file that is one, and no link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as problem:
        raise StorageError(f"the converted image {path} cannot be read: {problem.strerror}") from problem
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StorageError(f"the converted image {path} is no file")
        yield descriptor
    finally:
        os.close(descriptor)


class _Hashing:
    """Computes digests beside the sending; Python's own lock is free while it does."""

    def __init__(self, digests: Sequence[Digest]) -> None:
        self._digests = digests
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.finish()

    def update(self, piece: bytes) -> None:
        self._pieces.put(piece)

    def finish(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            for digest in self._digests:
                digest.update(piece)


class Sender:
    """Brings bytes into an image that has none.

    Args:
        settings: How.
        images: Where the image is.
    """

    def __init__(self, settings: OpenStackSettings, images: Images) -> None:
        self._settings = settings
        self._images = images

    def send(self, identifier: str, converted: ConvertedImage, task: Task) -> GlanceImage:
        """Bring an image's bytes into Glance; return what it says when it has them all and they are the right ones.

        Raises:
            CloudError: It does not take them, or holds others.
            ChecksumMismatchError: The file is not what was converted.
        """
        content = Content(converted, task)
        match self._settings.transport:
            case Transport.UPLOAD:
                self._upload(identifier, f"/images/{identifier}/file", content)
                image = self._settled(identifier)
            case Transport.GLANCE_DIRECT:
                self._upload(identifier, f"/images/{identifier}/stage", content)
                image = self._import(identifier, {"name": "glance-direct"})
            case Transport.WEB_DOWNLOAD:
                image = self._serve(identifier, converted, content, task)
        self.check(image, converted, content)
        return image

    def check(self, image: GlanceImage, converted: ConvertedImage, content: Content | None = None) -> None:
        """Compare what Glance says of the bytes with what they are.

        Raises:
            CloudChecksumError: They differ.
        """
        if not image.is_whole:
            raise broken(self._images.name, image.identifier, f"it is {image.status}")
        algorithm, value = image.hash_algorithm, image.hash_value
        if algorithm is not None and algorithm in hashlib.algorithms_available and value is not None:
            wanted = converted.image.checksum
            if algorithm == wanted.algorithm:
                expected = wanted.hexdigest
            else:
                from coppice.monitor import SILENT_TASK

                expected = (content or Content(converted, SILENT_TASK)).hexdigest(algorithm)
        else:
            algorithm, value, expected = "size", str(image.size_bytes), str(converted.image.size_bytes)
        if value != expected or image.size_bytes not in {None, converted.image.size_bytes}:
            raise CloudChecksumError(
                f"cloud {self._images.name}: image {image.identifier} has other bytes than it was given",
                details=f"{algorithm}: {value} ({image.size_bytes} bytes), expected {expected} "
                f"({converted.image.size_bytes} bytes)",
                resolution="The image is removed again. Look whether the cloud converts what it imports (a plug-in of "
                "Glance), and what stands between here and there.",
                context={"cloud": self._images.name, "image": image.identifier},
            )

    def _upload(self, identifier: str, path: str, content: Content) -> None:
        api, what = self._images.api, f"upload the bytes of image {identifier}"
        for number in range(1, self._settings.attempts + 1):
            problem: CloudError
            try:
                if api.put_bytes(path, what, content, allowed=[_CONFLICT]).status != _CONFLICT:
                    return
                problem = broken(self._images.name, identifier, "Glance says that its bytes are there, and has none")
            except (CloudUnreachableError, CloudTimeoutError, CloudFaultError, CloudImageGoneError) as failure:
                # "Gone" and "in conflict" are said too while Glance gives up an earlier attempt that was cut.
                problem = failure
            status = self._after_cut(identifier)
            # It may have heard all of it, and only its answer was lost.
            if status in {ACTIVE, "uploading"}:
                return
            if status != "queued" or number == self._settings.attempts:
                raise problem
            api.pause(number)

    def _after_cut(self, identifier: str) -> str:
        """Return the status of an image when Glance is done with what it got."""
        image = self._awaited(identifier, _SETTLE_SECONDS, until=lambda image: image.status != "saving")
        return image.status

    def _settled(self, identifier: str) -> GlanceImage:
        image = self._awaited(identifier, self._settings.timeout, until=lambda image: image.status != "saving")
        if image.status != ACTIVE:
            raise broken(self._images.name, identifier, f"it is {image.status} after its bytes were taken")
        return image

    def _import(self, identifier: str, method: dict[str, str]) -> GlanceImage:
        what = f"import image {identifier}"
        with contextlib.suppress(CloudUnreachableError, CloudTimeoutError, CloudFaultError):
            # It is done at most once: whether it began shows in the image.
            self._images.api.ask(
                "POST",
                f"/images/{identifier}/import",
                what,
                body={"method": method},
                again=False,
                allowed=[_CONFLICT],
            )
        started = ("importing", "saving", "queued", "uploading")
        image = self._awaited(
            identifier,
            self._settings.import_timeout,
            until=lambda image: image.status not in started or bool(image.properties.get(FAILED_IMPORT)),
        )
        if image.status != ACTIVE:
            raise CloudRefusedImageError(
                f"cloud {self._images.name}: image {identifier} could not be imported",
                details=f"it is {image.status}",
                resolution="Look at Glance's log and tasks: the format may not be what it was said to be, or the "
                "address is not one that Glance may fetch from.",
                context={"cloud": self._images.name, "image": identifier},
            )
        return image

    def _awaited(self, identifier: str, seconds: float, *, until: object) -> GlanceImage:
        deadline, wait = time.monotonic() + seconds, _FIRST_WAIT_SECONDS
        while True:
            image = self._images.get(identifier)
            if image is None:
                raise broken(self._images.name, identifier, "somebody removed it while its bytes were sent")
            if until(image):  # type: ignore[operator]
                return image
            if time.monotonic() > deadline:
                raise timed_out(Asked(cloud=self._images.name, method="GET", what=f"get image {identifier} ready"))
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def _serve(self, identifier: str, converted: ConvertedImage, content: Content, task: Task) -> GlanceImage:
        """Let Glance fetch the file from the site's web server."""
        directory, url = self._settings.web_directory, self._settings.web_url
        assert directory is not None  # noqa: S101 - the settings were checked
        assert url is not None  # noqa: S101
        name = f"{SERVED_PREFIX}{uuid.uuid4().hex}"
        path = directory / name
        try:
            with path.open("xb") as stream:
                path.chmod(0o644)
                for piece in content:
                    stream.write(piece)
            return self._import(identifier, {"name": "web-download", "uri": f"{url}{name}"})
        except OSError as problem:
            raise StorageError(f"the folder {directory} cannot be written to: {problem.strerror}") from problem
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def left_in(directory: Path, older_than: float) -> list[Path]:
    """Return the files that a run left in the web server's folder when it was killed.

    Args:
        directory: The folder.
        older_than: A moment, in seconds since the epoch.

    Raises:
        CloudError: The folder cannot be read.
    """
    try:
        found = sorted(directory.glob(f"{SERVED_PREFIX}*"))
        return [path for path in found if path.is_file() and path.lstat().st_mtime < older_than]
    except OSError as problem:
        raise CloudError(f"the folder {directory} cannot be read: {problem.strerror}") from problem
