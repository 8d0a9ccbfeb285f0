# SPDX-License-Identifier: Apache-2.0
"""How long a Zstandard frame is (RFC 8878, section 3.1.1): its parts say so, and nothing is unpacked."""

from __future__ import annotations

import zstandard

_BLOCK_HEADER_BYTES, _SUM_BYTES = 3, 4
_REPEATED = 1


def frame_bytes(packed: bytes) -> int:
    """Return how long the Zstandard frame is that ``packed`` begins with; 0: it is not whole."""
    try:
        at, is_summed = zstandard.frame_header_size(packed), zstandard.get_frame_parameters(packed).has_checksum
    except zstandard.ZstdError:
        return 0
    is_last = False
    while not is_last:
        header = int.from_bytes(packed[at : at + _BLOCK_HEADER_BYTES], "little")
        is_last, kind = bool(header & 1), header >> 1 & 3
        at += _BLOCK_HEADER_BYTES + (1 if kind == _REPEATED else header >> 3)
        if at > len(packed):
            return 0
    at += _SUM_BYTES if is_summed else 0
    return at if at <= len(packed) else 0
