# SPDX-License-Identifier: Apache-2.0
"""What a publisher keeps of the deltas that it made for one list: the files, and records of what they are for.

Files are named by their content; a record is written when its files are there. So a run that is killed leaves nothing
that a later one would take for whole, and what was made is not made again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice import atomic
from coppice.errors import CoppiceError, DocumentError
from coppice.formats.delta import PackLayout
from coppice.formats.strict_json import read_json
from coppice.imagelist.place import Facts, facts_of
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PARTIAL_AGE_SECONDS = 24 * 3600.0
_NAME_DIGITS = 32
_MAKER = 1
"""Counts ways of making: what an older one made is made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaFile:
    """A file of a delta.

    Attributes:
        name: Under which it is published.
        facts: What its bytes are.
    """

    name: str
    facts: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaPack:
    """A pack and how it is laid out.

    Attributes:
        file: The file.
        layout: How it is laid out.
    """

    file: DeltaFile
    layout: PackLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaRecord:
    """The delta of one disk.

    Attributes:
        guest_size_bytes: Length of the disk.
        guest_checksum: Of its bytes.
        index: Which blocks it is made of.
        packs: In the order of the index.
    """

    guest_size_bytes: int
    guest_checksum: Checksum
    index: DeltaFile
    packs: tuple[DeltaPack, ...]


class DeltaStore:
    """The deltas of one list.

    Args:
        directory: Where they are; made when missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def work(self) -> Path:
        """Return where what is being made lies."""
        path = self._directory / "work"
        with atomic.storage_errors("making", path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def path(self, file: DeltaFile) -> Path:
        """Return where a file is."""
        return self._directory / "files" / file.name

    def keep(self, made: Path, suffix: str) -> DeltaFile:
        """Take a file in under a name made of its content.

        Raises:
            StorageError: It cannot be kept.
        """
        with SILENT.task("hash") as task:
            facts = facts_of(made, task)
        file = DeltaFile(name=f"delta-{facts.sha512[:_NAME_DIGITS]}.{suffix}", facts=facts)
        destination = self.path(file)
        with atomic.storage_errors("keeping", destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            made.chmod(0o644)
            atomic.fsync_file(made)
            made.replace(destination)
            atomic.fsync_directory(destination.parent)
        return file

    def record(self, published: Checksum) -> DeltaRecord | None:
        """Return the delta of the image that was published as a file with this checksum; None where there is none."""
        said = self._read(_record_name(published))
        return None if said is None else self._understood(lambda: _record(said))

    def write_record(self, published: Checksum, record: DeltaRecord) -> None:
        """Write down that an image's delta is there."""
        self._write(
            _record_name(published),
            {
                "guest": {"size": record.guest_size_bytes, "sha512": record.guest_checksum.hexdigest},
                "index": _plain(record.index),
                "packs": [
                    {
                        **_plain(each.file),
                        "blocks": each.layout.blocks,
                        "frame_blocks": each.layout.frame_blocks,
                        "table": each.layout.table_bytes,
                    }
                    for each in record.packs
                ],
            },
        )

    def patch(self, origin: Checksum, target: Checksum) -> tuple[DeltaFile | None, bool]:
        """Return the patch from one published image to another, and whether that was decided: a large one is none."""
        said = self._read(_patch_name(origin, target))
        if said is None:
            return None, False
        if said.get("patch") is None:
            return None, True
        file = self._understood(lambda: _file(said["patch"]))
        return (file, True) if file is not None and self._is_there(file) else (None, False)

    def write_patch(self, origin: Checksum, target: Checksum, file: DeltaFile | None) -> None:
        """Write down a patch, or that there is none since it would be too large."""
        self._write(_patch_name(origin, target), {"patch": None if file is None else _plain(file)})

    def records(self) -> Iterator[DeltaRecord]:
        """Yield the deltas of all images, the newest first."""
        folder = self._directory / "records"
        with atomic.storage_errors("listing", folder):
            found = sorted(folder.glob("image-*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in found:
            said = self._read(path.name)
            record = None if said is None else self._understood(lambda said=said: _record(said))
            if record is not None:
                yield record

    def is_whole(self, record: DeltaRecord) -> bool:
        """Tell whether all files of a delta are there."""
        return all(map(self._is_there, (record.index, *(pack.file for pack in record.packs))))

    def prune(self, published: Collection[Checksum]) -> None:
        """Remove what is for none of these images, and what killed runs left.

        Raises:
            StorageError: It cannot be removed.
        """
        needed: set[str] = set()
        records: set[str] = set()
        for target in published:
            record = self.record(target)
            if record is not None:
                records.add(_record_name(target))
                needed.update(each.name for each in (record.index, *(pack.file for pack in record.packs)))
        ends = {f"-{target.hexdigest[:_NAME_DIGITS]}.json" for target in published}
        folder = self._directory / "records"
        with atomic.storage_errors("pruning", self._directory):
            for path in sorted(folder.glob("patch-*.json")):
                said = self._read(path.name)
                if any(path.name.endswith(end) for end in ends):
                    records.add(path.name)
                    patch = (said or {}).get("patch")
                    needed.update({str(patch["name"])} if isinstance(patch, dict) and "name" in patch else ())
            for path in sorted(folder.glob("*.json")):
                if path.name not in records:
                    path.unlink()
            for path in sorted((self._directory / "files").glob("delta-*")):
                if path.name not in needed:
                    path.unlink()
            for place in (folder, self._directory / "files"):
                atomic.sweep_partials(place, older_than_seconds=_PARTIAL_AGE_SECONDS)
            for path in self.work.iterdir():
                path.unlink()

    def _is_there(self, file: DeltaFile) -> bool:
        with suppress(OSError):
            return self.path(file).stat().st_size == file.facts.size_bytes
        return False

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._directory / "records" / name
        with atomic.storage_errors("reading", path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            said = read_json(data, what=f"record {name}")
        except DocumentError:
            # Nothing but time is lost: it is made anew.
            return None
        return said if said.get("maker") == _MAKER else None

    def _write(self, name: str, said: dict[str, object]) -> None:
        data = json.dumps({"maker": _MAKER, **said}, indent=1).encode()
        atomic.write_bytes(self._directory / "records" / name, data)

    @staticmethod
    def _understood(read: Any) -> Any:
        with suppress(KeyError, TypeError, ValueError, CoppiceError):
            return read()
        return None


def _record_name(published: Checksum) -> str:
    return f"image-{published.hexdigest}.json"


def _patch_name(origin: Checksum, target: Checksum) -> str:
    return f"patch-{origin.hexdigest[:_NAME_DIGITS]}-{target.hexdigest[:_NAME_DIGITS]}.json"


def _plain(file: DeltaFile) -> dict[str, object]:
    return {"name": file.name, "size": file.facts.size_bytes, "sha512": file.facts.sha512}


def _file(said: Any) -> DeltaFile:
    checksum = Checksum("sha512", str(said["sha512"]))
    name = str(said["name"])
    if Path(name).name != name or not name.startswith("delta-"):
        message = "no name of a file of a delta"
        raise ValueError(message)
    return DeltaFile(name=name, facts=Facts(size_bytes=int(said["size"]), sha512=checksum.hexdigest))


def _record(said: dict[str, Any]) -> DeltaRecord:
    return DeltaRecord(
        guest_size_bytes=int(said["guest"]["size"]),
        guest_checksum=Checksum("sha512", str(said["guest"]["sha512"])),
        index=_file(said["index"]),
        packs=tuple(
            DeltaPack(
                file=_file(each),
                layout=PackLayout(
                    blocks=int(each["blocks"]), frame_blocks=int(each["frame_blocks"]), table_bytes=int(each["table"])
                ),
            )
            for each in said["packs"]
        ),
    )
