# SPDX-License-Identifier: Apache-2.0
"""One image's folder in a directory cloud: its description, its disk, and the script that starts it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cloud.draft import STARTABLE
from coppice.cloud.model import ImageState
from coppice.cloud.properties import SITE, STATE, to_properties
from coppice.errors import CloudError
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.cloud.model import OwnershipMarker, Presentation
    from coppice.conversion.model import ConvertedImage

DESCRIPTION = "image.json"
SCRIPT = "run-qemu.sh"
RETIRED = "retired"
_TAG_LENGTH = 12
_MAX_DESCRIPTION_BYTES = 1024 * 1024
_OWN_NAME = re.compile(rf"(?:^|-)([0-9a-f]{{{_TAG_LENGTH}}})(?:-[0-9a-f]{{12}}\.partial)?$")
_DEFAULT_RAM_MIB = 1024
_EMULATORS = {"aarch64": "qemu-system-aarch64 -machine virt -cpu max", "x86_64": "qemu-system-x86_64 -machine q35"}
_UEFI = {"aarch64": "/usr/share/AAVMF/AAVMF_CODE.fd", "x86_64": "/usr/share/OVMF/OVMF_CODE_4M.fd"}
_DRIVER_FORMATS = {DiskFormat.VHD: "vpc", DiskFormat.ISO: "raw"}


def identity(marker: OwnershipMarker) -> str:
    """Return the part of a folder's name that says which image, version and content of which site it is."""
    parts = [marker.site, str(marker.key), marker.version, str(marker.digest)]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:_TAG_LENGTH]


def folder_name(marker: OwnershipMarker, metadata: Mapping[str, str]) -> str:
    """Return a name for people that is safe as a file name, whatever a list says."""
    return f"{_slug(_name(metadata), 36)}-{_slug(marker.version, 20)}-{identity(marker)}"


def current_name(marker: OwnershipMarker, metadata: Mapping[str, str]) -> str:
    """Return the name of the link to an image's current version: the same over all versions with one title."""
    tag = hashlib.sha256(f"{marker.site}\0{marker.key}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_slug(_name(metadata), 48)}-{tag}"


def shown(presentation: Presentation) -> dict[str, str]:
    """Return what ``image.json`` tells people of an image."""
    return {**presentation.facts, **presentation.properties, "name": presentation.name}


def _name(metadata: Mapping[str, str]) -> str:
    # What was registered before images had names of the site's own choice has a title alone.
    return metadata.get("name") or metadata.get("title", "")


def _slug(text: str, limit: int) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:limit].strip("-.") or "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What ``image.json`` says.

    Attributes:
        properties: The ownership marker.
        metadata: What people are told.
        format: Of the disk.
        size_bytes: Of the disk's file.
        virtual_size_bytes: Of the disk that a guest sees.
        checksum: Of the disk's file.
    """

    properties: Mapping[str, str]
    metadata: Mapping[str, str]
    format: DiskFormat
    size_bytes: int
    virtual_size_bytes: int
    checksum: Checksum

    @classmethod
    def of(cls, converted: ConvertedImage, marker: OwnershipMarker, metadata: Mapping[str, str]) -> Description:
        """Return the description of what is being registered."""
        return cls(
            properties=to_properties(marker),
            metadata=dict(metadata),
            format=converted.image.format,
            size_bytes=converted.image.size_bytes,
            virtual_size_bytes=converted.image.virtual_size_bytes,
            checksum=converted.image.checksum,
        )

    def changed(self, properties: Mapping[str, str], metadata: Mapping[str, str]) -> Description:
        """Return this description with another marker and other metadata."""
        return replace(self, properties=dict(properties), metadata=dict(metadata))

    def as_json(self) -> str:
        """Return the text of ``image.json``; ``listed`` and ``startable`` follow from the state, for readers."""
        state = self.properties.get(STATE)
        document = {
            "properties": dict(self.properties),
            "metadata": dict(self.metadata),
            "disk": {
                "format": str(self.format),
                "size_bytes": self.size_bytes,
                "virtual_size_bytes": self.virtual_size_bytes,
                "checksum": str(self.checksum),
            },
            "listed": state == ImageState.AVAILABLE,
            "startable": state in STARTABLE,
        }
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str) -> Description:
        """Read ``image.json``.

        Raises:
            ValueError: It is not one.
        """
        try:
            document = json.loads(text)
            disk = document["disk"]
            return cls(
                properties=_texts(document["properties"]),
                metadata=_texts(document["metadata"]),
                format=DiskFormat(disk["format"]),
                size_bytes=int(disk["size_bytes"]),
                virtual_size_bytes=int(disk["virtual_size_bytes"]),
                checksum=Checksum.parse(disk["checksum"]),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as problem:
            message = f"{problem!r} where the description of an image is expected"
            raise ValueError(message) from problem


def _texts(mapping: Mapping[object, object]) -> dict[str, str]:
    return {str(key): str(value) for key, value in mapping.items()}


class ImageFolder:
    """A folder that may be an image's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_partial = path.name.startswith(atomic.PARTIAL_PREFIX) and path.name.endswith(atomic.PARTIAL_SUFFIX)
        match = _OWN_NAME.search(path.name)
        self.tag = match.group(1) if match else None

    def is_described(self) -> bool:
        """Tell whether there is something to read; a folder that cannot be entered counts when its name is ours."""
        try:
            return (self.path / DESCRIPTION).is_file()
        except OSError:
            return self.tag is not None

    def is_empty(self) -> bool:
        """Tell whether nothing is in it but a description whose writing was cut short."""
        start = f"{atomic.PARTIAL_PREFIX}{DESCRIPTION}-"
        return all(
            entry.name.startswith(start) and entry.name.endswith(atomic.PARTIAL_SUFFIX) for entry in self.path.iterdir()
        )

    def read(self) -> Description:
        """Return what the folder says it is.

        Raises:
            CloudError: It cannot be read.
        """
        path = self.path / DESCRIPTION
        try:
            with path.open("rb") as stream:
                return Description.parse(stream.read(_MAX_DESCRIPTION_BYTES).decode("utf-8"))
        except (OSError, ValueError) as problem:
            raise CloudError(
                f"the description of an image cannot be read: {path}: {problem}",
                resolution="Nothing was changed. Mend the file, or remove that folder if nothing uses it: the image is "
                "then registered anew if it is listed.",
                context={"path": str(path)},
            ) from problem

    def read_if_ours(self) -> Description | None:
        """Return what the folder says it is; None: it is somebody else's.

        Raises:
            CloudError: Its name or its content is Coppice's, and it cannot be read.
        """
        try:
            return self.read()
        except CloudError:
            if self.tag is None and not self._mentions_marker():
                return None
            raise

    def _mentions_marker(self) -> bool:
        try:
            with (self.path / DESCRIPTION).open("rb") as stream:
                return SITE.encode() in stream.read(_MAX_DESCRIPTION_BYTES)
        except OSError:
            return False

    def write(self, description: Description) -> None:
        """Write ``image.json`` in one step."""
        for name in (DESCRIPTION, SCRIPT):
            atomic.sweep_partials(self.path, older_than_seconds=atomic.ABANDONED_SECONDS, of=name)
        atomic.write_text(self.path / DESCRIPTION, description.as_json())

    def disk(self, description: Description) -> Path:
        """Return where the disk of a startable image is."""
        return self.path / f"disk.{description.format}"

    def _retired_disk(self, description: Description) -> Path:
        return self.path / RETIRED / f"disk.{description.format}"

    def present_disk(self, description: Description) -> Path | None:
        """Return where the disk is, or None."""
        places = (self.disk(description), self._retired_disk(description))
        return next((place for place in places if place.is_file()), None)

    def is_whole(self, description: Description) -> bool:
        """Tell whether its disk is there, in whichever place."""
        disk = self.present_disk(description)
        return disk is not None and disk.stat().st_size == description.size_bytes

    def is_as_asked(self, description: Description, *, startable: bool) -> bool:
        """Tell whether disk and script are where an image has them that can, or cannot, be started."""
        return (
            self.disk(description).is_file() is startable
            and self._retired_disk(description).is_file() is not startable
            and (self.path / SCRIPT).exists() is startable
        )

    def set_startable(self, description: Description, *, startable: bool) -> None:
        """Bring disk and script to where a startable image has them, or away from there."""
        retired, disk = self._retired_disk(description), self.disk(description)
        with atomic.storage_errors("changing", self.path):
            if startable:
                if retired.is_file():
                    retired.replace(disk)
                if retired.parent.is_dir():
                    retired.parent.rmdir()
            else:
                (self.path / SCRIPT).unlink(missing_ok=True)
                retired.parent.mkdir(mode=0o700, exist_ok=True)
                if disk.is_file():
                    disk.replace(retired)
            atomic.fsync_directory(self.path)
        if startable:
            self.write_script(description)

    def write_script(self, description: Description) -> None:
        """Write the script that starts the image."""
        atomic.write_text(self.path / SCRIPT, start_script(description), mode=0o755)

    def delete(self) -> None:
        """Delete the folder; the description goes last, so that a killed run leaves nothing without a marker."""
        with atomic.storage_errors("removing", self.path):
            for entry in sorted(self.path.iterdir()):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != DESCRIPTION:
                    entry.unlink()
            (self.path / DESCRIPTION).unlink(missing_ok=True)
            self.path.rmdir()


def start_script(description: Description) -> str:
    """Return a shell script in which nothing is a list's own text, save for checked numbers."""
    metadata = description.metadata
    architecture = metadata.get("architecture", "x86_64")
    architecture = architecture if architecture in _EMULATORS else "x86_64"
    ram = _number(metadata, "recommended_ram_mib") or _number(metadata, "minimum_ram_mib") or _DEFAULT_RAM_MIB
    cores = _number(metadata, "recommended_cores") or _number(metadata, "minimum_cores") or 1
    driver_format = _DRIVER_FORMATS.get(description.format, str(description.format))
    media = ",media=cdrom" if description.format is DiskFormat.ISO else ",if=virtio,snapshot=on"
    uefi = f'-drive "if=pflash,format=raw,readonly=on,file={_UEFI[architecture]}"'
    # An aarch64 machine has no BIOS.
    firmware, other = (uefi, "") if architecture == "aarch64" else ("", uefi)
    return f"""#!/bin/sh
# Starts this image with QEMU; what the machine writes is gone when it ends. More options of QEMU can be added.
set -eu
cd "$(dirname "$(readlink -f "$0")")"
start() {{ exec "$@" {firmware}; }}
# With the other firmware, {"UEFI" if other else "none of its own"}:
# start() {{ exec "$@" {other}; }}
start {_EMULATORS[architecture]} -m {ram} -smp {cores} \\
    -drive "file=disk.{description.format},format={driver_format}{media}" \\
    -nic user,model=virtio-net-pci -nographic "$@"
"""


def _number(metadata: Mapping[str, str], key: str) -> int | None:
    text = metadata.get(key, "")
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) < 1024**2 else None
