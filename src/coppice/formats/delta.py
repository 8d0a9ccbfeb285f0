# SPDX-License-Identifier: Apache-2.0
"""``coppice-delta-1``: an image as blocks of its guest's bytes, so that only what changed is fetched.

Three kinds of files, each written once and never changed: an **index** (which blocks a disk is made of, and in which
pack each is), **packs** (compressed blocks, which versions and appliances share), and **patches** (what makes one
version's bytes out of those of an earlier one). The signed list names them all. Specification: docs/formats/delta.md.

All of this is pure, and nothing in a file leads anywhere but to bytes: no names, no references among files, so nothing
can be cyclic. Every count and every size is held against a limit and against the others before anything is made room
for; whatever is assembled is held against the signed checksum of the guest's bytes in the end.
"""

from __future__ import annotations

from coppice.formats.delta_blocks import ZERO_BLOCK, block_count, block_hash
from coppice.formats.delta_index import (
    MAX_INDEX_BYTES,
    MAX_RUNS,
    DeltaIndex,
    IndexWriter,
    Run,
    read_index,
)
from coppice.formats.delta_limits import (
    BLOCK_BYTES,
    DELTA_FORMAT,
    HASH_BYTES,
    MAX_BLOCKS,
    MAX_GUEST_BYTES,
    MAX_PACKS,
    MAX_PATCHES,
)
from coppice.formats.delta_pack import (
    MAX_FRAME_BLOCKS,
    MAX_PACK_BLOCKS,
    PackLayout,
    PackWriter,
    read_pack_layout,
    read_pack_table,
    unpack_frame,
)
from coppice.formats.delta_patch import (
    MAX_SEGMENT_BYTES,
    Extent,
    Instruction,
    InstructionKind,
    Patch,
    Segment,
    apply_patch,
    literals,
    read_patch,
)
from coppice.formats.delta_patch_write import PatchWriter, SegmentPlan

__all__ = [
    "BLOCK_BYTES",
    "DELTA_FORMAT",
    "HASH_BYTES",
    "MAX_BLOCKS",
    "MAX_FRAME_BLOCKS",
    "MAX_GUEST_BYTES",
    "MAX_INDEX_BYTES",
    "MAX_PACKS",
    "MAX_PACK_BLOCKS",
    "MAX_PATCHES",
    "MAX_RUNS",
    "MAX_SEGMENT_BYTES",
    "ZERO_BLOCK",
    "DeltaIndex",
    "Extent",
    "IndexWriter",
    "Instruction",
    "InstructionKind",
    "PackLayout",
    "PackWriter",
    "Patch",
    "PatchWriter",
    "Run",
    "Segment",
    "SegmentPlan",
    "apply_patch",
    "block_count",
    "block_hash",
    "literals",
    "read_index",
    "read_pack_layout",
    "read_pack_table",
    "read_patch",
    "unpack_frame",
]
