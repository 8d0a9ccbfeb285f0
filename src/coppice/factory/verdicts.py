# SPDX-License-Identifier: Apache-2.0
"""Verdicts kept by the digest of the image that they speak of: a gate that the same bytes passed need not run again."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors, write_text
from coppice.errors import StorageError
from coppice.factory.model import Outcome, Verdict
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_GATE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def keep_verdict(root: Path, verdict: Verdict) -> None:
    """Keep ``verdict`` under ``root``; it replaces an older one of the same gate and digest.

    Raises:
        StorageError: It could not be written.
    """
    write_text(_path(root, verdict.image_digest, verdict.gate), json.dumps(verdict_document(verdict), indent=2) + "\n")


def find_verdict(root: Path, image_digest: str, gate: str) -> Verdict | None:
    """Return the verdict of ``gate`` on the image with that digest (``sha512:…``); None: it was never given.

    Raises:
        StorageError: It is there and cannot be read, or is not a verdict.
    """
    path = _path(root, image_digest, gate)
    try:
        with storage_errors("reading", path):
            text = path.read_text(encoding="utf-8")
    except StorageError as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            return None
        raise
    try:
        verdict = verdict_from(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise StorageError(
            f"{path} is not a verdict",
            details=str(problem),
            resolution="Remove the file; the gate then runs again.",
            context={"path": str(path)},
        ) from problem
    if (verdict.image_digest, verdict.gate) != (image_digest, gate):
        raise StorageError(
            f"{path} is the verdict of another gate or image",
            resolution="Remove the file; the gate then runs again.",
            context={"path": str(path)},
        )
    return verdict


def has_passed(root: Path, image_digest: str, gate: str) -> Verdict | None:
    """Return the verdict of ``gate`` when the image with that digest passed it; None: it has to run.

    Raises:
        StorageError: A verdict is there and cannot be read.
    """
    verdict = find_verdict(root, image_digest, gate)
    return verdict if verdict is not None and verdict.outcome is Outcome.PASSED else None


def verdict_document(verdict: Verdict) -> dict[str, object]:
    """Return ``verdict`` as JSON's types."""
    return {
        "gate": verdict.gate,
        "image_digest": verdict.image_digest,
        "outcome": verdict.outcome.value,
        "decided_at": verdict.decided_at.isoformat(),
        "seconds": verdict.seconds,
        "facts": [list(fact) for fact in verdict.facts],
    }


def verdict_from(document: Mapping[str, object]) -> Verdict:
    """Return the verdict in ``document``.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: It holds none.
    """
    decided_at = datetime.fromisoformat(_text(document["decided_at"]))
    seconds, facts = document["seconds"], document["facts"]
    if decided_at.tzinfo is None or not isinstance(seconds, int | float) or not isinstance(facts, list):
        message = "a verdict with a naive date, or with seconds or facts of the wrong type"
        raise ValueError(message)
    return Verdict(
        gate=_text(document["gate"]),
        image_digest=str(Checksum.parse(_text(document["image_digest"]))),
        outcome=Outcome(_text(document["outcome"])),
        decided_at=decided_at,
        seconds=float(seconds),
        facts=tuple((_text(name), _text(value)) for name, value in facts),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        message = f"not a text: {value!r}"
        raise TypeError(message)
    return value


def _path(root: Path, image_digest: str, gate: str) -> Path:
    # Both become names of files: neither may hold anything else than what such names hold.
    if not _GATE.fullmatch(gate):
        message = f"not the name of a gate: {gate[:80]!r}"
        raise ValueError(message)
    return root / "verdicts" / Checksum.parse(image_digest).hexdigest / f"{gate}.json"
