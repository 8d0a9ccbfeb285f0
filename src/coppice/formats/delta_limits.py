# SPDX-License-Identifier: Apache-2.0
"""How much a delta may be, and what it is made of: numbers only, so that lists are read without what reads deltas."""

from __future__ import annotations

DELTA_FORMAT = "coppice-delta-1"
"""What ``coppice:delta`` says in ``format``."""
BLOCK_BYTES = 4096
"""Length of a block of guest bytes: that of file systems, in which files begin at blocks. The last block of a disk is
filled up with zeros."""
HASH_BYTES = 8
"""Of SHA-256 of a block, from its beginning: enough to find blocks by; the whole is held against a signed digest."""
MAX_GUEST_BYTES = 16 * 1024**4
"""Longest disk."""
MAX_BLOCKS = 1 << 24
"""Most blocks of a disk that are not all zeros: 64 GiB."""
MAX_PACKS = 32
"""Most packs that one image's blocks may be in."""
MAX_PATCHES = 32
"""Most patches of an image."""
