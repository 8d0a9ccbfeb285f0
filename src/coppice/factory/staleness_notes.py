# SPDX-License-Identifier: Apache-2.0
"""What is noted of an appliance between rebuilds: builds that failed, a new version that is still to be published."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from coppice.atomic import storage_errors, write_text
from coppice.clock import require_aware
from coppice.errors import StorageError
from coppice.factory.staleness import FailedTry

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildNotes:
    """What is noted.

    Attributes:
        failed: Builds that failed since the last one that did not; None: none did.
        is_unpublished: Whether a version came into the catalogue, or was about to, that no list has told of yet.
        tried_at: When it was last built anew with success; None: never by itself.
        tried_state: What was known of it after that (`Evidence.state`).
    """

    failed: FailedTry | None = None
    is_unpublished: bool = False
    tried_at: datetime | None = None
    tried_state: str = ""


def read_notes(root: Path, appliance: str) -> RebuildNotes:
    """Return what is noted of ``appliance`` under the factory's directory ``root``; nothing where there is no note.

    Raises:
        StorageError: There is one, and it cannot be read.
    """
    path = _path(root, appliance)
    try:
        with storage_errors("reading", path):
            text = path.read_text(encoding="utf-8")
    except StorageError as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            return RebuildNotes()
        raise
    try:
        said = json.loads(text)
        return RebuildNotes(
            failed=_failed(said["failed"]),
            is_unpublished=bool(said["is_unpublished"]),
            tried_at=None if said["tried_at"] is None else require_aware(datetime.fromisoformat(said["tried_at"])),
            tried_state=str(said["tried_state"]),
        )
    except (ValueError, KeyError, TypeError) as problem:
        raise StorageError(
            f"{path} is not what is noted of an appliance",
            details=f"{type(problem).__name__}: {problem}",
            resolution="Remove the file: only how often its build failed is forgotten.",
            context={"path": str(path)},
        ) from problem


def write_notes(root: Path, appliance: str, notes: RebuildNotes) -> None:
    """Note it; nothing to note leaves no file.

    Raises:
        StorageError: It cannot be written.
    """
    path = _path(root, appliance)
    if notes == RebuildNotes():
        with storage_errors("removing", path):
            path.unlink(missing_ok=True)
        return
    write_text(path, json.dumps(asdict(notes), indent=2, default=lambda instant: instant.isoformat()) + "\n")


def _failed(said: dict[str, Any] | None) -> FailedTry | None:
    if said is None:
        return None
    return FailedTry(
        count=int(said["count"]),
        at=require_aware(datetime.fromisoformat(said["at"])),
        state=str(said["state"]),
        code=str(said["code"]),
        message=str(said["message"]),
    )


def _path(root: Path, appliance: str) -> Path:
    return root / "rebuilds" / f"{appliance}.json"
