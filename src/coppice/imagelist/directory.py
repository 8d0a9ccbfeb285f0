# SPDX-License-Identifier: Apache-2.0
"""The publisher ``directory``: a folder that a web server serves, or that subscribers reach by ``file://``.

``<path>/<list name>.list`` are the lists, ``<path>/images/`` holds the images, ``<path>/.coppice/`` what publishers
remember.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote

from coppice import atomic
from coppice.errors import ExistsError, InputError, StorageError
from coppice.imagelist.place import (
    SMALL_LIMIT_BYTES,
    Facts,
    Held,
    Kind,
    facts_of,
    file_path,
    last_component,
    shown_names,
)
from coppice.imagelist.publication import PlacePublisher
from coppice.monitor import SILENT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.imagelist.model import ListedImage
    from coppice.monitor import Monitor, Task
    from coppice.settings.driver_options import Options


class DirectoryPlace:
    """A local directory: each file appears by rename, after its bytes were read back.

    Args:
        path: The directory; made when missing.
        url: Under which address subscribers find it.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._path = path
        self._url = url.rstrip("/")

    @property
    def label(self) -> str:
        """Return the path."""
        return str(self._path)

    def prepare(self, files: Mapping[str, Path], monitor: Monitor) -> None:
        """Do nothing: addresses are made of names."""

    def address(self, kind: Kind, name: str) -> str:
        """Return the URI below the directory's."""
        return f"{self._url}/{quote(file_path(kind, name))}"

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the files that are not hidden."""
        folder = self._folder(kind)
        with atomic.storage_errors("listing", folder):
            try:
                with os.scandir(folder) as entries:
                    return shown_names(kind, [entry.name for entry in entries if entry.is_file()])
            except FileNotFoundError:
                return ()

    def meant_by(self, uri: str) -> tuple[str, ...]:
        """Return the last component of ``uri``."""
        return last_component(uri)

    def describe(self, name: str) -> Held | None:
        """Return the size; there is no stamp, because reading a local file again is cheap."""
        path = self._at(Kind.IMAGE, name)
        with atomic.storage_errors("reading", path):
            try:
                return Held(size_bytes=path.stat().st_size, stamp=None)
            except FileNotFoundError:
                return None

    def put(self, name: str, source: Path, facts: Facts, image: ListedImage | None, task: Task) -> None:
        """Copy a file in and show it under its name when its bytes were read back.

        Raises:
            ExistsError: Another file appeared under that name meanwhile.
            InputError: The source changed while it was copied.
        """
        place = self._at(Kind.IMAGE, name)
        with atomic.replacing(place) as temporary:
            _copy(source, temporary, task)
            with SILENT.task("verify") as silent:
                if facts_of(temporary, silent) != facts:
                    raise InputError(f"the image {source} changed while it was copied", resolution="Publish again.")
                if place.exists() and facts_of(place, silent) != facts:
                    raise ExistsError(f"{place} appeared meanwhile, with other content", resolution="Publish again.")

    def holds(self, name: str, facts: Facts, task: Task) -> bool:
        """Read the file and compare."""
        return facts_of(self._at(Kind.IMAGE, name), task) == facts

    def announce(self, images: Mapping[str, ListedImage]) -> None:
        """Do nothing: the list says it all."""

    def read(self, kind: Kind, name: str) -> bytes | None:
        """Return the file's bytes.

        Raises:
            StorageError: It cannot be read, or is far too large.
        """
        path = self._at(kind, name)
        with atomic.storage_errors("reading", path):
            try:
                with path.open("rb") as stream:
                    data = stream.read(SMALL_LIMIT_BYTES + 1)
            except FileNotFoundError:
                return None
        if len(data) > SMALL_LIMIT_BYTES:
            raise StorageError(f"{path} is longer than {SMALL_LIMIT_BYTES} bytes: no list and no note")
        return data

    def replace(self, kind: Kind, name: str, data: bytes) -> None:
        """Write a temporary file and rename it."""
        atomic.write_bytes(self._at(kind, name), data)

    def delete(self, kind: Kind, name: str) -> None:
        """Unlink the file."""
        path = self._at(kind, name)
        with atomic.storage_errors("removing", path):
            path.unlink(missing_ok=True)

    def sweep(self, *, older_than_seconds: float) -> None:
        """Remove old temporary files."""
        for kind in Kind:
            folder = self._folder(kind)
            with atomic.storage_errors("sweeping", folder):
                atomic.sweep_partials(folder, older_than_seconds=older_than_seconds)

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def _folder(self, kind: Kind) -> Path:
        return self._at(kind, "any").parent

    def _at(self, kind: Kind, name: str) -> Path:
        return self._path / file_path(kind, name)


class DirectoryPublisher(PlacePublisher):
    """Puts images and lists into a directory.

    Args:
        path: The directory; made when missing.
        url: Under which address subscribers find it.
    """

    def __init__(self, path: Path, url: str) -> None:
        super().__init__(DirectoryPlace(path, url))


def open_directory(options: Options) -> DirectoryPlace:
    """Return the place with the settings ``path`` and ``url`` (without: ``file://`` and the path).

    Raises:
        SettingsError: One is missing, unknown or of the wrong type.
    """
    path = options.path("path")
    url = options.text("url", path.as_uri())
    options.finish()
    return DirectoryPlace(path, url)


def _copy(source: Path, temporary: Path, task: Task) -> None:
    # No hard link: what is published must not change when somebody writes into the source. Where the file system
    # can share blocks, copying costs nothing.
    with source.open("rb") as reader, temporary.open("xb") as writer:
        while copied := os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 28):
            task.advance(copied)
