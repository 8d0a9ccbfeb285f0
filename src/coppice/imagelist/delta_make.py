# SPDX-License-Identifier: Apache-2.0
"""Making an image's delta: its index, a pack of the blocks that no earlier pack has, and patches from earlier versions.

Packs are shared by all images of a list, over their versions. One that an image has little use for any more is left
out, its few blocks that are needed go into the new pack, so that what nobody needs is not named for ever.
"""

from __future__ import annotations

from array import array
from contextlib import ExitStack
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors, write_bytes
from coppice.formats.delta import BLOCK_BYTES, IndexWriter, PackWriter, read_index
from coppice.imagelist.delta_patches import write_patch
from coppice.imagelist.delta_scan import BlockTable, Guest, Scan, block_table, read_blocks, scan
from coppice.imagelist.delta_store import DeltaPack, DeltaRecord
from coppice.monitor import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from coppice.imagelist.delta_store import DeltaFile, DeltaStore
    from coppice.model.checksum import Checksum
    from coppice.monitor import Monitor, Task

MOST_OLD_PACKS = 15
"""How many earlier packs an image takes blocks from at most: each is a request or more for whoever needs them."""
LEAST_USE = 8
"""An earlier pack is left out when the image needs less than one in so many of its blocks."""
MOST_PATCH_SHARE = 0.6
"""A patch that is longer than this share of the image's file is not published."""


class DeltaMaker:
    """Makes deltas for one run; a disk that was read is not read again while it is the last one.

    Args:
        store: Where they are kept.
        monitor: Where progress is told.
    """

    def __init__(self, store: DeltaStore, monitor: Monitor) -> None:
        self._store, self._monitor = store, monitor
        self._last: Scan | None = None

    def image(self, published: Checksum, open_guest: Callable[[], Guest], name: str) -> DeltaRecord:
        """Return the delta of an image without patches; make it where it is not there.

        Args:
            published: Of the image's file.
            open_guest: Returns its disk; called when it is needed only.
            name: Of the image, for people.

        Raises:
            DeltaError: It would be beyond what a delta may be.
            StorageError: Something cannot be read or written.
        """
        known = self._store.record(published)
        if known is not None and self._store.is_whole(known):
            return known
        scanned = self._scan(open_guest(), name)
        with (
            self._monitor.task(f"pack blocks of {name}", unit=Unit.BYTES) as task,
            block_table(self._store.work, "known") as table,
        ):
            record = self._pack(scanned, self._old_packs(scanned, table), table, task)
        self._store.write_record(published, record)
        return record

    def patch(
        self,
        origin: tuple[Checksum, Callable[[], Guest]],
        target: tuple[Checksum, Callable[[], Guest]],
        *,
        most_bytes: int,
        name: str,
    ) -> DeltaFile | None:
        """Return the patch from one image to another, each by the checksum of its file; None: it is not worth it.

        Raises:
            DeltaError: It would be beyond what a patch may be.
            StorageError: Something cannot be read or written.
        """
        found, is_decided = self._store.patch(origin[0], target[0])
        if is_decided:
            return found
        made = self._store.work / "patch"
        new = self._scan(target[1](), name)
        old = self._scan(origin[1](), f"an earlier {name}", keep=False)
        with self._monitor.task(f"patch to {name}", unit=Unit.BYTES) as task:
            write_patch(new, old, made, work=self._store.work, task=task)
        file = None
        if made.stat().st_size <= most_bytes * MOST_PATCH_SHARE:
            file = self._store.keep(made, "patch")
        self._store.write_patch(origin[0], target[0], file)
        return file

    def _scan(self, guest: Guest, name: str, *, keep: bool = True) -> Scan:
        if self._last is not None and self._last.guest == guest:
            return self._last
        with self._monitor.task(f"read the disk of {name}", total=guest.size_bytes, unit=Unit.BYTES) as task:
            scanned = scan(guest, task)
        if keep:
            self._last = scanned
        return scanned

    def _old_packs(self, scanned: Scan, table: BlockTable) -> tuple[DeltaPack, ...]:
        """Choose the earlier packs whose blocks are used; ``table`` knows where in them each block is, afterwards."""
        packs: dict[str, DeltaPack] = {}
        for record in self._store.records():
            if self._store.is_whole(record):
                packs.update((pack.file.name, pack) for pack in record.packs if pack.file.name not in packs)
        if not packs:
            return ()
        names = list(packs)
        with block_table(self._store.work, "candidates") as candidates:
            candidates.add(self._places(names))
            used = self._use(scanned, candidates, len(names))
        worth = [each for each, name in enumerate(names) if used[each] * LEAST_USE >= packs[name].layout.blocks]
        chosen = [names[each] for each in sorted(worth, key=lambda each: -used[each])[:MOST_OLD_PACKS]]
        table.add(self._places(chosen))
        return tuple(packs[name] for name in chosen)

    def _places(self, names: Sequence[str]) -> Iterator[tuple[bytes, int, int]]:
        """Yield each block of these packs that a record's index knows: its hash, its pack, its number there."""
        numbers: Mapping[str, int] = {name: number for number, name in enumerate(names)}
        for record in self._store.records():
            here = [numbers.get(pack.file.name) for pack in record.packs]
            if not self._store.is_whole(record) or all(each is None for each in here):
                continue
            path = self._store.path(record.index)
            with storage_errors("reading", path):
                index = read_index(path.read_bytes())
            for run in index.runs():
                pack = None if run.pack is None else here[run.pack]
                if pack is not None:
                    for each in range(run.count):
                        yield index.hash_at(run.hashes + each), pack, run.first + each

    @staticmethod
    def _use(scanned: Scan, candidates: BlockTable, count: int) -> array[int]:
        used = array("Q", bytes(8 * count))
        for _, hashed in scanned.blocks():
            found = candidates.find(hashed)
            if found is not None:
                used[found[0]] += 1
        return used

    def _pack(self, scanned: Scan, old: tuple[DeltaPack, ...], table: BlockTable, task: Task) -> DeltaRecord:
        guest, made = scanned.guest, self._store.work / "pack"
        new = len(old)
        where_pack, where_number = array("H"), array("I")
        with ExitStack() as stack:
            stack.enter_context(storage_errors("packing", guest.path))
            disk = stack.enter_context(guest.path.open("rb")).fileno()
            writer = PackWriter(stack.enter_context(made.open("wb")))
            for number, hashed in scanned.blocks():
                found = table.find(hashed)
                if found is None:
                    found = (new, writer.add(read_blocks(disk, number, 1)))
                    table.add([(hashed, *found)])
                    task.reach(number * BLOCK_BYTES, guest.size_bytes)
                where_pack.append(found[0])
                where_number.append(found[1])
            layout = writer.finish() if writer.blocks else None
        packs = list(old)
        if layout is not None:
            packs.append(DeltaPack(file=self._store.keep(made, "pack"), layout=layout))
        index = self._index(scanned, packs, where_pack, where_number)
        return DeltaRecord(
            guest_size_bytes=guest.size_bytes, guest_checksum=guest.checksum, index=index, packs=tuple(packs)
        )

    def _index(self, scanned: Scan, packs: Sequence[DeltaPack], where: array[int], numbers: array[int]) -> DeltaFile:
        writer, at = IndexWriter([pack.layout for pack in packs]), 0
        for (block, hashed), pack, number in zip(scanned.blocks(), where, numbers, strict=True):
            if block > at:
                writer.zeros(block - at)
            at = block + 1
            writer.block(hashed, pack=pack, number=number)
        if scanned.guest.blocks > at:
            writer.zeros(scanned.guest.blocks - at)
        data = writer.finish(guest_size_bytes=scanned.guest.size_bytes, guest_checksum=scanned.guest.checksum)
        made: Path = self._store.work / "index"
        write_bytes(made, data)
        return self._store.keep(made, "index")
