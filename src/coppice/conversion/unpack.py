# SPDX-License-Identifier: Apache-2.0
"""`opened_disk`: find the disk of an image file below its compression and its archive, and what it is.

What is compressed is unpacked once, as a stream, into a spool file. What is not is left where it is: the disk is then
a stretch of the published file.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.clock import SystemClock
from coppice.conversion.detect import detect, formats_of
from coppice.conversion.files import state_of, state_of_open
from coppice.conversion.model import Archive, Compression, Inspection, Packaging
from coppice.conversion.ova import ova_layout, verify_manifest
from coppice.conversion.refusal import refusal
from coppice.conversion.unpack_input import PackedInput
from coppice.conversion.unpack_split import MemberSplit, SplicedWindow
from coppice.conversion.unpack_spool import SpoolFile, WriterThread, copy_stretch, sweep_spool
from coppice.conversion.unpack_streams import check_stored, compression_of, inflated_member, unpacked
from coppice.conversion.unpack_zip import read_zip
from coppice.conversion.window import FileWindow
from coppice.errors import (
    ArchiveError,
    ImageRefusedError,
    OversizedImageError,
    SeveralFormatsError,
    UnsupportedImageError,
)
from coppice.formats.tar import is_tar
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.ova import OvaLayout
    from coppice.conversion.unpack_buffers import Buffers
    from coppice.conversion.window import Window
    from coppice.monitor import Monitor, Task

_HEAD_BYTES = 512
_OWN_MODE = 0o600
_SEVERAL = "each program would see another disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDisk:
    """A disk that may be read: what it is was found out, and where its bytes lie.

    Attributes:
        path: The file in which it lies: the published one, or one in the spool.
        offset: Where it begins there.
        size_bytes: Its length there.
        inspection: What the published file is.
        is_spooled: Whether ``path`` is in the spool, and goes away with the context.
        window: Its bytes.
        layout: Of the archive that it lies in.
        archive: The bytes of that.
        published: The file that was named.
        state: In which it was when it was opened.
    """

    path: Path
    offset: int
    size_bytes: int
    inspection: Inspection
    is_spooled: bool
    window: FileWindow
    layout: OvaLayout | None = None
    archive: Window | None = None
    published: Path | None = None
    state: tuple[int, ...] = ()
    _spool: SpoolFile | None = None

    def take(self, destination: Path) -> None:
        """Make the disk, as it is, a file of its own, durably and in one step; it is its owner's alone.

        Where a spool file holds nothing else it becomes that file, and ``path`` is no more; else the disk's bytes are
        copied, holes as holes.

        Raises:
            NoSpaceError: It does not fit on the disk.
            StorageError: It cannot be written.
        """
        if self._spool is not None and not self.offset and self.size_bytes == self._spool.size_bytes:
            self._spool.take(destination, mode=_OWN_MODE)
        else:
            copy_stretch(self.window.handle, self.offset, self.size_bytes, destination, mode=_OWN_MODE)

    def verify_manifest(self, task: Task) -> None:
        """Hold the files of the archive against its manifest, where there is one; may run beside a conversion.

        Raises:
            ManifestError: They are not those that it names.
            StorageError: They cannot be read.
        """
        if self.layout is not None and self.archive is not None:
            with atomic.storage_errors("reading", self.path):
                verify_manifest(self.layout, self.archive, task)

    def require_unchanged(self) -> None:
        """See that the named file is what it was when it was opened: programs go by its name, not by its bytes.

        Raises:
            ImageRefusedError: It was changed, or another one has its name.
        """
        if self.published is not None and state_of(self.published) != self.state:
            raise ImageRefusedError(
                f"the image file {self.published} changed while it was read",
                details="What was looked at is not what is there now.",
                resolution="Nothing was made of it. See who writes to its folder, then run again.",
                context={"path": str(self.published)},
            )


@contextmanager
def opened_disk(
    path: Path, limits: ConversionLimits, *, spool: Path | None, monitor: Monitor = SILENT, name: str | None = None
) -> Iterator[OpenedDisk]:
    """Open the disk of an image file for the length of a context; no tool reads anything before.

    Args:
        path: The published file.
        limits: What a disk may have, and what may be unpacked.
        spool: Directory for what has to be unpacked; made when needed. What killed runs left there is removed. None:
            there is none, and what has to be unpacked is refused.
        monitor: Where progress is told.
        name: What the file is called in messages; None: as it is.

    Raises:
        ImageRefusedError: It is no disk image, or dangerous; its subclass and message say why.
        NoSpaceError: What is unpacked does not fit on the disk.
        StorageError: The file cannot be read, or the spool not be written.
    """
    with ExitStack() as stack:
        with atomic.storage_errors("reading", path):
            window = stack.enter_context(FileWindow(path))
            state = state_of_open(window.handle)
            opening = _Opening(window, limits, name or path.name, spool=spool, monitor=monitor, stack=stack)
            disk = replace(opening.disk(), published=path, state=state)
        yield disk


@dataclass(frozen=True, slots=True)
class _Place:
    """Where bytes lie, and what holds them.

    Attributes:
        window: The bytes; `SplicedWindow` for an archive that came out of a compressed stream.
        spools: The spool files that hold them.
    """

    window: FileWindow | SplicedWindow
    spools: tuple[SpoolFile, ...] = ()


class _Opening:
    """Takes off one layer after the other."""

    def __init__(
        self,
        window: FileWindow,
        limits: ConversionLimits,
        name: str,
        *,
        spool: Path | None,
        monitor: Monitor,
        stack: ExitStack,
    ) -> None:
        self._window = window
        self._limits = limits
        self._name = name
        self._directory = spool
        self._monitor = monitor
        self._stack = stack
        self._size = window.size_bytes
        self._compression: Compression | None = None
        self._member: str | None = None

    def disk(self) -> OpenedDisk:
        place = self._plain(_Place(self._window))
        layout, archive = None, None
        if is_tar(place.window.read(0, _HEAD_BYTES)):
            self._only(place, "a tar archive")
            archive = place.window
            layout = ova_layout(archive, self._limits, self._name)
            place = self._plain(self._part(place, layout.offset, layout.size_bytes))
            self._member = layout.member
        window = place.window
        if isinstance(window, SplicedWindow) or is_tar(window.read(0, _HEAD_BYTES)):
            raise self._nested("a tar archive lies in a tar archive")
        found = detect(window, self._limits, name=self._name, file_size_bytes=self._size)
        if layout is not None:
            found = replace(found, notes=(*found.notes, *layout.notes, *layout.differences(found)))
        is_archived = self._compression is not None or layout is not None
        is_ova = layout is not None and layout.archive is Archive.OVA and self._compression is None
        packaging = Packaging(
            compression=self._compression,
            archive=None if layout is None else layout.archive,
            member=self._member,
            hardware=None if layout is None else layout.hardware,
        )
        inspection = Inspection(
            format=DiskFormat.OVA if is_ova else found.format,
            size_bytes=self._size,
            virtual_size_bytes=found.virtual_size_bytes,
            disk=found,
            packaging=packaging if is_archived else None,
        )
        return OpenedDisk(
            path=window.path,
            offset=window.offset,
            size_bytes=window.size_bytes,
            inspection=inspection,
            is_spooled=bool(place.spools),
            window=window,
            layout=layout,
            archive=archive,
            _spool=next((spool for spool in place.spools if spool.path == window.path), None),
        )

    def _plain(self, place: _Place) -> _Place:
        """Return where the bytes lie uncompressed; they are unpacked if need be."""
        compression = compression_of(place.window.read(0, _HEAD_BYTES))
        if compression is None:
            return place
        if self._compression is not None:
            raise self._nested(f"{compression} data lies in what is packed with {self._compression} already")
        self._only(place, f"{compression} data")
        self._compression = compression
        found = self._unzipped(place) if compression is Compression.ZIP else self._unpacked(place, compression)
        inside = compression_of(found.window.read(0, _HEAD_BYTES))
        if inside is not None:
            raise self._nested(f"{inside} data lies in {compression} data")
        return found

    def _only(self, place: _Place, words: str) -> None:
        """Refuse what bears the signature of a disk as well."""
        others = formats_of(place.window)
        if others:
            raise refusal(
                SeveralFormatsError, self._name, f"it is {words}, and {', '.join(others)} as well", why=_SEVERAL
            )

    def _part(self, place: _Place, offset: int, size_bytes: int) -> _Place:
        whole = place.window
        if isinstance(whole, SplicedWindow):
            found = whole.place_of(offset, size_bytes)
            if found is None:
                raise refusal(
                    ArchiveError,
                    self._name,
                    "the headers of its archive can be read in two ways",
                    offset=offset,
                    why=_SEVERAL,
                )
            whole, offset = found
        return _Place(self._stack.enter_context(whole.part(offset, size_bytes)), place.spools)

    def _unzipped(self, place: _Place) -> _Place:
        member = read_zip(place.window, self._name)
        self._member = member.name
        if member.is_stored:
            with self._reading(place, member.offset, member.packed_bytes, doing="checking") as packed:
                check_stored(packed, member.crc32)
            return self._part(place, member.offset, member.packed_bytes)
        most = self._limits.most_bytes_of(self._size)
        if member.size_bytes > most:
            raise refusal(
                OversizedImageError,
                self._name,
                f"its directory states a member of {member.size_bytes} bytes",
                why=f"from a file of this length at most {most} are taken",
            )
        with self._reading(place, member.offset, member.packed_bytes) as packed:
            return self._spooled(lambda _: inflated_member(packed, member.size_bytes, member.crc32))

    def _unpacked(self, place: _Place, compression: Compression) -> _Place:
        most = self._limits.most_bytes_of(self._size)
        with self._reading(place, 0, place.window.size_bytes) as packed:
            return self._spooled(lambda buffers: unpacked(compression, packed, most, buffers))

    @contextmanager
    def _reading(self, place: _Place, start: int, length: int, *, doing: str = "unpacking") -> Iterator[PackedInput]:
        clock = SystemClock()
        end = clock.monotonic() + self._limits.timeout_seconds
        with self._monitor.task(f"{doing} {self._name}", total=length, unit=Unit.BYTES) as task:
            yield PackedInput(
                place.window,
                self._name,
                start=start,
                end=start + length,
                task=task,
                is_late=lambda: clock.monotonic() > end,
            )

    def _spooled(self, pieces: Callable[[Buffers], Iterator[bytes | bytearray]]) -> _Place:
        sweep_spool(self._spool_directory())
        split = MemberSplit(self._new_spool(), self._new_spool)
        with WriterThread() as writer:
            for piece in pieces(writer):
                for spool, part in split.route(piece):
                    writer.put(spool, part)
        main = self._window_of(split.main)
        if split.part is None:
            return _Place(main, (split.main,))
        return _Place(SplicedWindow(main, split.start, self._window_of(split.part)), (split.main, split.part))

    def _new_spool(self) -> SpoolFile:
        return self._stack.enter_context(SpoolFile(self._spool_directory()))

    def _spool_directory(self) -> Path:
        if self._directory is None:
            raise refusal(
                UnsupportedImageError,
                self._name,
                "its disk is compressed",
                why="there is no place here to unpack it",
                resolution="Unpack it first.",
            )
        return self._directory

    def _window_of(self, spool: SpoolFile) -> FileWindow:
        spool.close_hole()
        return self._stack.enter_context(FileWindow(spool.path))

    def _nested(self, found: str) -> ImageRefusedError:
        return refusal(
            UnsupportedImageError,
            self._name,
            found,
            why="an image is compressed once and archived once; more hides what it unpacks to",
        )
