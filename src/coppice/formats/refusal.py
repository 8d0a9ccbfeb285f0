# SPDX-License-Identifier: Apache-2.0
"""How a refusal is told: what was found, at which offset of the file, and why that matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.errors import ImageRefusedError

NO_TOOL_OPENED_IT = "No tool opened it. Tell whoever publishes it."


def refusal(
    kind: type[ImageRefusedError],
    name: str,
    found: str,
    *,
    why: str,
    offset: int | None = None,
    resolution: str = NO_TOOL_OPENED_IT,
) -> ImageRefusedError:
    """Return the error of a refused image.

    Args:
        kind: Its class; the stable code comes from it.
        name: Of the file, or of the file and the member in it.
        found: What was found: a clause without a full stop.
        why: Why it matters: a clause without a full stop.
        offset: Where in the file, in bytes; None: nowhere in particular.
        resolution: What to do about it.
    """
    where = "" if offset is None else f" (at byte {offset})"
    return kind(
        f"the image file {name} is refused: {found}{where}; {why}",
        resolution=resolution,
        context={"name": name, "found": found, "offset": offset, "why": why},
    )
