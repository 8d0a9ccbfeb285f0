# SPDX-License-Identifier: Apache-2.0
"""Templates of identifiers and versions, with COMFY's needles: ``$t``, ``$v``, ``$n`` and ``$g``; ``$$`` is ``$``."""

from __future__ import annotations

import re
from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.definition.model import Definition

_NEEDLE = re.compile(r"\$([tvng$])")


def fill_needles(template: str, definition: Definition, made_at: datetime) -> str:
    """Return ``template`` with what its needles stand for; what is filled in is never searched for needles.

    Args:
        template: ``$t`` is the time in UTC, to the minute; ``$v`` the version of the operating system; ``$n`` its name;
            ``$g`` the groups, with commas between them.
        definition: Of what.
        made_at: When that was made.
    """
    system = definition.operating_system
    values = {
        "t": f"{made_at.astimezone(UTC):%Y%m%d%H%M}",
        "v": system.version,
        "n": system.distribution,
        "g": ",".join(definition.groups),
        "$": "$",
    }
    return _NEEDLE.sub(lambda match: values[match[1]], template)
