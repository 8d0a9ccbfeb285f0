# SPDX-License-Identifier: Apache-2.0
"""A folder as a cloud: one sub-folder an image, ready to be started with QEMU by hand.

::

    <folder>/
    ├── debian-12-12.7-3f9a1c0b7d2e/     one version of one image
    │   ├── image.json                   whose it is, what it is (the marker, written before the disk)
    │   ├── disk.qcow2                   a hard link to the converted image where the file system allows, else a copy
    │   └── run-qemu.sh                  starts it and leaves the disk as it is
    └── current/
        └── debian-12-5b1d90aa -> ../debian-12-12.7-3f9a1c0b7d2e     the version to use

A version that is superseded, or staged, is not in ``current/``. One that is expired, withdrawn or revoked cannot be
started: its disk is in
``retired/``, which only its owner may enter, and it has no ``run-qemu.sh``. (The disk's own mode is left alone: through
the hard link it would change for the store too.) Folders without this site's marker are never touched.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cloud import disk_place
from coppice.cloud.draft import STARTABLE
from coppice.cloud.driver import Leftover
from coppice.cloud.image_folder import Description, ImageFolder, current_name, folder_name, identity, shown
from coppice.cloud.model import ImageState, RegisteredImage
from coppice.cloud.properties import IMAGE, LIST, SITE, from_properties, to_properties
from coppice.errors import CloudError, CloudImageGoneError, CloudNameTakenError, SettingsError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.cloud.model import OwnershipMarker, Presentation
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor
    from coppice.settings.clouds import CloudSettings

OPTIONS = frozenset({"path"})
DEFAULT_FORMATS = (DiskFormat.QCOW2, DiskFormat.RAW)
CURRENT = "current"
_ABANDONED_SECONDS = 3600.0


class DirectoryCloud:
    """Images in the sub-folders of ``path``, which is made at the first registration.

    Threads take turns but while a disk is put in its place, which takes long.
    """

    def __init__(self, name: str, site: str, path: Path, formats: Formats = DEFAULT_FORMATS) -> None:
        self.name = name
        self.site = site
        self.path = path
        self.formats = formats
        self._lock = threading.RLock()

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Return this site's images, sorted by folder; what a killed run left half-made is not ready."""
        with self._lock:
            links = self._links()
            described = [self._described(folder, links) for folder in self._folders()]
        return tuple(image for image in described if image is not None)

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        """Make the image's folder under a temporary name, verify the disk in it, and rename it."""
        with atomic.storage_errors("making", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        folder, existing = self._existing(identity(marker))
        if existing is not None:
            return self._mend(folder, existing, converted, marker=marker, presentation=presentation, monitor=monitor)
        metadata = shown(presentation)
        destination = self.path / folder_name(marker, metadata)
        description = Description.of(converted, marker, metadata)
        with ExitStack() as finishing:
            with atomic.replacing_directory(destination) as temporary:
                try:
                    folder = ImageFolder(temporary)
                    folder.write(description)
                    disk_place.place(converted, folder.disk(description), monitor)
                    folder.write_script(description)
                    atomic.fsync_file(folder.disk(description))
                finally:
                    # Whoever describes meanwhile sees the folder by its first name or by its last, whole.
                    finishing.enter_context(self._lock)
            if marker.state is ImageState.AVAILABLE:
                self._list(ImageFolder(destination), description)
            self._sweep(identity(marker))
            return self._owned(destination.name)

    def _existing(self, tag: str) -> tuple[ImageFolder, RegisteredImage | None]:
        with self._lock:
            for folder in self._folders():
                if not folder.is_partial and folder.tag == tag:
                    existing = self._described(folder, self._links())
                    if existing is not None:
                        return folder, existing
        return ImageFolder(self.path), None

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage:
        """Write the description anew."""
        with self._lock:
            folder = self._folder(registered)
            description = folder.read().changed(to_properties(marker), shown(presentation))
            self._enforce(folder, description, marker.state)
            return self._owned(folder.path.name)

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Make the image startable and listed as its state says, then write the marker."""
        with self._lock:
            folder = self._folder(registered)
            description = folder.read()
            self._enforce(folder, description.changed(to_properties(marker), description.metadata), marker.state)
            return self._owned(folder.path.name)

    def in_use(self, registered: RegisteredImage) -> bool:
        """Tell whether a process has the disk open or locked (`coppice.cloud.disk_place.is_open`)."""
        folder = self._folder(registered)
        disk = folder.present_disk(folder.read())
        return disk is not None and disk_place.is_open(disk)

    def remove(self, registered: RegisteredImage) -> None:
        """Take the folder out of sight in one step, then delete it, its marker last."""
        with self._lock:
            if not (self.path / registered.cloud_identifier).is_dir():
                return
            folder = self._folder(registered)
            self._unlist(folder, keep=None)
            if not folder.is_partial:
                hidden = atomic.partial_path(folder.path)
                with atomic.storage_errors("removing", folder.path):
                    folder.path.rename(hidden)
                folder = ImageFolder(hidden)
            folder.delete()

    def leftovers(self) -> tuple[Leftover, ...]:
        """Return what runs left that were killed before they wrote a marker, or between a link and its name.

        Nothing is that was touched within the hour, and nothing with a file in it that Coppice did not make.
        """
        with self._lock:
            found = [(path, what) for path, what in self._abandoned() if _age_seconds(path) > _ABANDONED_SECONDS]
        return tuple(
            Leftover(cloud=self.name, identifier=str(path.relative_to(self.path)), what=what, can_be_cleared=True)
            for path, what in found
        )

    def clear(self, leftover: Leftover) -> None:
        """Remove an empty folder or a link that leads nowhere."""
        with self._lock:
            if leftover not in self.leftovers():
                return
            path = self.path / leftover.identifier
            with atomic.storage_errors("removing", path):
                if path.is_symlink():
                    path.unlink()
                else:
                    ImageFolder(path).delete()

    def _abandoned(self) -> Iterator[tuple[Path, str]]:
        for path in sorted(self.path.glob(f"{atomic.PARTIAL_PREFIX}*{atomic.PARTIAL_SUFFIX}")):
            folder = ImageFolder(path)
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder and folder.tag is not None and not folder.is_described() and folder.is_empty():
                yield path, "a folder of a registration that was killed before it wrote anything"
        for path in sorted((self.path / CURRENT).glob(f"{atomic.PARTIAL_PREFIX}*{atomic.PARTIAL_SUFFIX}")):
            if path.is_symlink():
                yield path, "a link of a registration that was killed before the link had its name"

    def _folders(self) -> Iterator[ImageFolder]:
        try:
            entries = sorted(self.path.iterdir())
        except FileNotFoundError:
            return
        except OSError as problem:
            raise CloudError(
                f"the folder {self.path} of cloud {self.name} cannot be read: {problem.strerror}",
                resolution="Nothing was changed. Give this user the right to read it, then run again.",
            ) from problem
        for entry in entries:
            folder = ImageFolder(entry)
            if entry.name != CURRENT and not entry.is_symlink() and folder.is_described():
                yield folder

    def _links(self) -> Mapping[Path, frozenset[str]]:
        """Return the names of links in ``current/`` by what they lead to."""
        current = self.path / CURRENT
        links: dict[Path, set[str]] = {}
        if current.is_dir():
            with atomic.storage_errors("reading", current):
                for link in current.iterdir():
                    if link.is_symlink() and not link.name.startswith(atomic.PARTIAL_PREFIX):
                        links.setdefault(link.readlink(), set()).add(link.name)
        return {target: frozenset(names) for target, names in links.items()}

    def _described(self, folder: ImageFolder, links: Mapping[Path, frozenset[str]]) -> RegisteredImage | None:
        description = folder.read_if_ours()
        if description is None:
            return None
        marker = from_properties(description.properties, self.site, name=str(folder.path))
        if marker is None:
            return None
        try:
            whole = not folder.is_partial and folder.is_whole(description)
            as_asked = whole and folder.is_as_asked(description, startable=marker.state in STARTABLE)
        except OSError as problem:
            raise CloudError(
                f"image {folder.path.name} in cloud {self.name} cannot be looked at: {problem}",
                resolution="Nothing was changed. Give this user the right to read it, then run again.",
            ) from problem
        listed_as = links.get(Path("..") / folder.path.name, frozenset())
        # A run that is killed between the folder's last name and its link leaves the link at the older version: that is
        # said, lest retiring that one leaves nothing listed.
        wanted = {current_name(marker, description.metadata)} if marker.state is ImageState.AVAILABLE else set()
        drift = [] if as_asked else [f"it is {marker.state}, and its disk and script are not where such a one has them"]
        if listed_as != wanted:
            drift.append(f"it is {marker.state}, and {CURRENT}/ has {', '.join(sorted(listed_as)) or 'no link'} for it")
        return RegisteredImage(
            cloud=self.name,
            cloud_identifier=folder.path.name,
            name=folder.path.name,
            marker=marker,
            ready=whole,
            problem=None if whole else "its registration did not end, or its disk is gone",
            drift="; ".join(drift) or None if whole else None,
        )

    def _folder(self, registered: RegisteredImage) -> ImageFolder:
        self._owned(registered.cloud_identifier)
        return ImageFolder(self.path / registered.cloud_identifier)

    def _owned(self, identifier: str) -> RegisteredImage:
        path = self.path / identifier
        is_inside = identifier == Path(identifier).name and identifier not in {"", ".", "..", CURRENT}
        is_folder = is_inside and path.is_dir() and not path.is_symlink()
        image = self._described(ImageFolder(path), self._links()) if is_folder else None
        if image is None:
            raise CloudImageGoneError(
                f"image {identifier} in cloud {self.name} is not there, or is not this site's",
                resolution="Nothing was changed. Run again: a new plan is made from what is there now.",
            )
        return image

    def _mend(
        self,
        folder: ImageFolder,
        existing: RegisteredImage,
        converted: ConvertedImage,
        *,
        marker: OwnershipMarker,
        presentation: Presentation,
        monitor: Monitor,
    ) -> RegisteredImage:
        if existing.ready and existing.drift is None:
            return existing
        description = folder.read()
        disk = folder.present_disk(description)
        if disk is None or not disk_place.matches(disk, description.checksum, monitor):
            self.remove(existing)
            return self.register(converted, marker, presentation, monitor)
        with self._lock:
            self._enforce(folder, description.changed(to_properties(marker), shown(presentation)), marker.state)
            return self._owned(folder.path.name)

    def _enforce(self, folder: ImageFolder, description: Description, state: ImageState) -> None:
        # The marker comes last: a run that is killed before it is repeated by the next one.
        if not folder.is_partial:
            folder.set_startable(description, startable=state in STARTABLE)
            if state is ImageState.AVAILABLE:
                self._list(folder, description)
            else:
                self._unlist(folder, keep=None)
        folder.write(description)

    def _list(self, folder: ImageFolder, description: Description) -> None:
        marker = from_properties(description.properties, self.site, name=str(folder.path))
        if marker is None:
            return
        link = self.path / CURRENT / current_name(marker, description.metadata)
        if link.exists() and not link.is_symlink():
            raise CloudNameTakenError(
                f"{link} is in the way: it is not a link that Coppice made",
                resolution="Move it elsewhere, then run again.",
            )
        held = self._held_by(link)
        if held and any(held.get(each) != description.properties[each] for each in (SITE, LIST, IMAGE)):
            # The end of a link's name is short: who may choose an image's identifier can find one with the same.
            raise CloudNameTakenError(
                f"{link} leads to image {held.get(LIST)}/{held.get(IMAGE)}, and image {marker.key} has the same link",
                resolution="Give one of the two another name with `image_name`, of the cloud or of the image.",
            )
        with atomic.storage_errors("writing", link):
            link.parent.mkdir(exist_ok=True)
            temporary = atomic.partial_path(link)
            temporary.symlink_to(Path("..") / folder.path.name)
            temporary.replace(link)
            atomic.fsync_directory(link.parent)
        self._unlist(folder, keep=link)

    def _held_by(self, link: Path) -> Mapping[str, str]:
        """Return the marker of the image that a link leads to; empty: it leads to none."""
        folder = ImageFolder(self.path / link.readlink().name) if link.is_symlink() else None
        description = folder.read_if_ours() if folder is not None and folder.is_described() else None
        return {} if description is None else description.properties

    def _unlist(self, folder: ImageFolder, keep: Path | None) -> None:
        current = self.path / CURRENT
        if not current.is_dir():
            return
        with atomic.storage_errors("changing", current):
            for link in sorted(current.iterdir()):
                if link != keep and link.is_symlink() and link.readlink() == Path("..") / folder.path.name:
                    link.unlink()

    def _sweep(self, tag: str) -> None:
        # The tag says site, image, version and content: what bears it is an unfinished registration of this very image.
        for path in sorted(self.path.glob(f"{atomic.PARTIAL_PREFIX}*{atomic.PARTIAL_SUFFIX}")):
            folder = ImageFolder(path)
            if path.is_symlink() or not path.is_dir():
                continue
            if folder.is_described():
                is_left_behind = folder.tag == tag and self._described(folder, {}) is not None
            else:
                # Killed before the marker was written: nobody's, so it is only taken away when nothing else is in it.
                is_left_behind = folder.is_empty() and (folder.tag == tag or _age_seconds(path) > _ABANDONED_SECONDS)
            if is_left_behind:
                folder.delete()


def _age_seconds(path: Path) -> float:
    return time.time() - path.lstat().st_mtime


def open_directory(settings: CloudSettings, formats: Formats) -> DirectoryCloud:
    """Return the folder that ``settings`` name.

    Raises:
        SettingsError: ``path`` is missing, or is not absolute.
    """
    path = settings.options.get("path")
    if not isinstance(path, str | Path) or not Path(path).is_absolute():
        raise SettingsError(
            f"clouds.{settings.name}.path must be the absolute path of a folder: {json.dumps(path, default=str)}",
            resolution='Write for example: path = "/srv/images"',
        )
    return DirectoryCloud(settings.name, settings.site, Path(path), formats or DEFAULT_FORMATS)
