# SPDX-License-Identifier: Apache-2.0
"""Bundle: what both sides of a bundle know of each other: what a site holds already, told by an inventory."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.shelf import Shelf
from coppice.clock import to_rfc3339
from coppice.errors import DocumentError, UnverifiedSourceError
from coppice.formats.strict_json import read_json
from coppice.model.checksum import Checksum
from coppice.subscription.source.gathered import check_carried
from coppice.workflows.obtain import cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from coppice.imagelist.model import ListedImage
    from coppice.settings.model import Settings
    from coppice.workflows.refresh import ListOutcome

INVENTORY_FORMAT = "coppice-inventory-1"
MAX_INVENTORY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a site holds.

    Attributes:
        objects: Checksums of files and disks that are there, by any algorithm.
        answers: Checksums of published files that are there in another form.
    """

    objects: frozenset[Checksum] = frozenset()
    answers: frozenset[Checksum] = frozenset()

    def has(self, listed: ListedImage) -> bool:
        """Tell whether an image is there, in whatever form."""
        is_there = listed.checksum in self.objects or listed.checksum in self.answers
        return is_there or (listed.delta is not None and listed.delta.guest_checksum in self.objects)

    def with_disks_of(self, listed: Iterable[ListedImage]) -> Inventory:
        """Return what is there, with the disks of published files that lists tell of: they can be made there."""
        disks = {each.delta.guest_checksum for each in listed if each.delta is not None and self.has(each)}
        return Inventory(objects=self.objects | disks, answers=self.answers)


def signed_only(outcome: ListOutcome) -> ListOutcome:
    """Return what a bundle may carry of a subscription: a list that nobody signed is an error, and no site takes it."""
    try:
        if outcome.verified is not None:
            check_carried(outcome.verified)
    except UnverifiedSourceError as problem:
        return replace(outcome, verified=None, error=problem)
    return outcome


def take_inventory(settings: Settings) -> Inventory:
    """Return what this site's cache holds; no bytes are read."""
    objects: set[Checksum] = set()
    answers: set[Checksum] = set()
    for entry in Shelf(cache_directory(settings)).layout.entries():
        objects |= {entry.checksum, *entry.also}
        answers |= set(entry.answers)
    return Inventory(objects=frozenset(objects), answers=frozenset(answers))


def write_inventory(path: Path, inventory: Inventory, *, now: datetime) -> None:
    """Write an inventory to a file.

    Raises:
        StorageError: It cannot be written.
    """
    content = {
        "format": INVENTORY_FORMAT,
        "taken_at": to_rfc3339(now),
        "objects": sorted(map(str, inventory.objects)),
        "answers": sorted(map(str, inventory.answers)),
    }
    atomic.write_text(path, json.dumps(content, indent=1) + "\n")


def read_inventory(path: Path) -> Inventory:
    """Read what `write_inventory` wrote.

    Raises:
        DocumentError: It is none.
        StorageError: It cannot be read.
    """
    with atomic.storage_errors("reading", path), path.open("rb") as stream:
        document = read_json(
            stream.read(MAX_INVENTORY_BYTES + 1), what=f"inventory {path}", max_bytes=MAX_INVENTORY_BYTES
        )
    if document.get("format") != INVENTORY_FORMAT:
        raise DocumentError(
            f"the file {path} is no inventory",
            resolution="`coppice bundle inventory FILE` writes one, at the other site.",
        )
    return Inventory(objects=_checksums(document, "objects"), answers=_checksums(document, "answers"))


def _checksums(document: dict[str, object], key: str) -> frozenset[Checksum]:
    value = document.get(key)
    try:
        return frozenset(Checksum.parse(str(each)) for each in value if isinstance(value, list))  # type: ignore[attr-defined]
    except (ValueError, TypeError) as problem:
        raise DocumentError(
            f"the inventory is malformed: its {key} are no checksums", details=str(problem)
        ) from problem
