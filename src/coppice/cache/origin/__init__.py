# SPDX-License-Identifier: Apache-2.0
"""Where bytes come from, by the scheme of their address."""

from __future__ import annotations

from coppice.cache.origin.mirrors import places_of, read_ranges_of
from coppice.cache.origin.protocol import Origin
from coppice.cache.origin.table import SCHEMES, open_origin

__all__ = ["SCHEMES", "Origin", "open_origin", "places_of", "read_ranges_of"]
