# SPDX-License-Identifier: Apache-2.0
"""The publisher ``directory``: a folder that a web server serves, or that subscribers reach by ``file://``.

``<path>/<list name>.list`` are the lists, ``<path>/images/`` holds the images.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from coppice import atomic
from coppice.errors import ExistsError, InputError, SettingsError
from coppice.imagelist.model import Publication
from coppice.monitor import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.imagelist.model import SignedImageList
    from coppice.monitor import Monitor, Task

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_PARTIAL_AGE_SECONDS = 24 * 3600
_CHUNK_BYTES = 1024 * 1024


class DirectoryPublisher:
    """Puts images and lists into a directory: images first, the list last, each by rename.

    Args:
        path: The directory; made when missing.
        url: Under which address subscribers find it.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._path = path
        self._url = url.rstrip("/")

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> DirectoryPublisher:
        """Return the publisher with the settings ``path`` and ``url`` (without: ``file://`` and the path).

        Raises:
            SettingsError: One is missing or unknown.
        """
        unknown = sorted(set(options) - {"path", "url"})
        if unknown:
            raise SettingsError(
                f"unknown option {unknown[0]!r} of a directory publisher", resolution="It takes `path` and `url`."
            )
        path, url = options.get("path"), options.get("url")
        if not isinstance(path, str | Path) or not str(path) or not isinstance(url, str | None):
            raise SettingsError("a directory publisher needs the text `path`, and may have the text `url`")
        directory = Path(path).expanduser().absolute()
        return cls(directory, url or directory.as_uri())

    def image_uri(self, file_name: str) -> str:
        """Return the URI under which an image file of that name will be fetched."""
        return f"{self._url}/images/{quote(_safe(file_name))}"

    def list_uri(self, list_name: str) -> str:
        """Return the URI under which the list of that name will be fetched."""
        return f"{self._url}/{quote(_safe(list_name))}.list"

    def publish(
        self, list_name: str, signed: SignedImageList, files: Mapping[str, Path], monitor: Monitor
    ) -> Publication:
        """Put ``files`` (name → local path) and then the list in place.

        Raises:
            ExistsError: A file of that name is there with other content.
            InputError: A name is not safe, or a file is not the one that the list tells of.
            StorageError: The directory cannot be written.
        """
        images = self._path / "images"
        with atomic.storage_errors("making", images):
            images.mkdir(parents=True, exist_ok=True)
        for directory in (self._path, images):
            atomic.sweep_partials(directory, older_than_seconds=_PARTIAL_AGE_SECONDS)
        promised = {image.uri: (image.size_bytes, image.checksum.hexdigest) for image in signed.content.images}
        absent = set(promised) - {self.image_uri(name) for name in files}
        if absent:
            raise InputError(f"the list tells of an image that is not handed in: {min(absent)}")
        written: dict[str, int] = {}
        for name, source in files.items():
            if self._put(source, images / _safe(name), promised.get(self.image_uri(name)), monitor):
                written[name] = source.stat().st_size
        atomic.write_bytes(self._path / f"{_safe(list_name)}.list", signed.message)
        return Publication(
            list_uri=self.list_uri(list_name), images_written=tuple(written), bytes_written=sum(written.values())
        )

    def _put(self, source: Path, place: Path, promised: tuple[int, str] | None, monitor: Monitor) -> bool:
        with atomic.storage_errors("reading", source):
            size = source.stat().st_size
        with monitor.task(f"publish {place.name}", total=size, unit=Unit.BYTES) as task:
            with atomic.storage_errors("reading", source):
                facts = (size, _sha512(source, task))
            if promised is not None and facts != promised:
                raise InputError(
                    f"the image {source} is not the one in the catalogue",
                    details=f"promised: {promised[0]} bytes, sha512 {promised[1]}\n"
                    f"found:    {facts[0]} bytes, sha512 {facts[1]}",
                    resolution="The file was changed after it was added: add it again, under a new version.",
                )
            with atomic.storage_errors("reading", place):
                there = (place.stat().st_size, _sha512(place, None)) if place.exists() else None
            if there == facts:
                return False
            if there is not None:
                raise ExistsError(
                    f"{place} is there with other content, and subscribers may be fetching it",
                    resolution="Move it away by hand if nobody needs it.",
                )
            with atomic.replacing(place) as temporary:
                _copy(source, temporary)
                if (temporary.stat().st_size, _sha512(temporary, None)) != facts:
                    raise InputError(f"the image {source} changed while it was copied", resolution="Publish again.")
        return True


def _copy(source: Path, temporary: Path) -> None:
    # No hard link: what is published must not change when somebody writes into the source. Where the file system
    # can share blocks, copying costs nothing.
    with source.open("rb") as reader, temporary.open("xb") as writer:
        while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
            pass


def _sha512(path: Path, task: Task | None) -> str:
    digest = hashlib.sha512()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            if task is not None:
                task.advance(len(chunk))
    return digest.hexdigest()


def _safe(name: str) -> str:
    if not _SAFE_NAME.fullmatch(name):
        raise InputError(f"{name[:80]!r} is not safe as a file name")
    return name
